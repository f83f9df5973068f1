"""What stages hand each other besides examples and heads: exported graphs, variants, measurements, audits.

ONNX, JSON and arrays only: nothing that is run when it is read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.bundle.interface import parse_interface
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import DataError
from aiotkit.lab.leaks import Finding, LeakAudit
from aiotkit.release.choose import Measured
from aiotkit.release.evidence import cell, rows
from aiotkit.release.export import Exported
from aiotkit.release.quantize import FLOAT32, Variant

_GRAPHS = ("graph", "front", "head")


def save_exported(exported: Exported, folder: Path) -> None:
    """Write ``graph.onnx``, ``front.onnx``, ``head.onnx``, ``interface.json`` and ``exported.json``."""
    for name in _GRAPHS:
        (folder / f"{name}.onnx").write_bytes(getattr(exported, name))
    (folder / "interface.json").write_bytes(exported.interface.canonical())
    plain = {f.name for f in dataclasses.fields(exported)} - {*_GRAPHS, "interface"}
    about = {name: getattr(exported, name) for name in plain}
    about["figures"] = {name: cell(value) for name, value in exported.figures.items()}
    _write(folder / "exported.json", about)


def load_exported(folder: Path) -> Exported:
    """The inverse of ``save_exported``."""
    about = _read(folder / "exported.json")
    about["figures"] = {k: float("nan") if v is None else v for k, v in about["figures"].items()}
    graphs = {name: (folder / f"{name}.onnx").read_bytes() for name in _GRAPHS}
    lists = {name: tuple(value) for name, value in about.items() if isinstance(value, list)}
    interface = parse_interface((folder / "interface.json").read_bytes())
    return Exported(**(about | lists | graphs), interface=interface)


def save_variants(variants: Sequence[Variant], folder: Path) -> None:
    """Write the float32 export and ``variants.json``, with the head of each other variant in a file."""
    listed = []
    for i, variant in enumerate(variants):
        listed.append({"name": variant.name, "note": variant.note, "head": None})
        if variant.name == FLOAT32 and variant.exported is not None:
            save_exported(variant.exported, folder)
        elif variant.head is not None:
            listed[-1]["head"] = f"head-{i}.onnx"
            (folder / f"head-{i}.onnx").write_bytes(variant.head)
    _write(folder / "variants.json", {"variants": listed})


def load_variants(folder: Path) -> list[Variant]:
    """The inverse of ``save_variants``."""
    base, out = load_exported(folder), []
    for row in _read(folder / "variants.json")["variants"]:
        name, head = row["name"], row["head"]
        made = base if name == FLOAT32 else head and base.with_head((folder / head).read_bytes(), name)
        out.append(Variant(name, made, row["note"]))
    return out


def save_measured(measured: Sequence[Measured], folder: Path) -> None:
    """Write ``measured.json``: what was found about each variant."""
    names = [f.name for f in dataclasses.fields(Measured) if f.name != "variant"]
    listed = [{"variant": m.variant.name} | {n: getattr(m, n) for n in names} for m in measured]
    _write(folder / "measured.json", {"measured": listed})


def load_measured(folder: Path, variants: Sequence[Variant]) -> list[Measured]:
    """The inverse of ``save_measured``, for variants as ``load_variants`` gives them."""
    by_name = {variant.name: variant for variant in variants}
    listed = _read(folder / "measured.json")["measured"]
    return [Measured(**(row | {"variant": by_name[row["variant"]]})) for row in listed]


def save_audit(audit: LeakAudit, folder: Path) -> None:
    """Write ``audit.json``."""
    findings = [dataclasses.asdict(finding) for finding in audit.findings]
    for finding in findings:
        finding["figures"] = {name: cell(value) for name, value in finding["figures"].items()}
    scores = {name: cell(value) for name, value in audit.scores.items()}
    document = {"findings": findings, "scores": scores, "columns": rows(audit.columns)}
    _write(folder / "audit.json", document | {"order": [str(c) for c in audit.columns.columns]})


def load_audit(folder: Path) -> LeakAudit:
    """The inverse of ``save_audit``."""
    about = _read(folder / "audit.json")
    findings = tuple(Finding(**(f | {"columns": tuple(f["columns"])})) for f in about["findings"])
    return LeakAudit(findings, about["scores"], pd.DataFrame(about["columns"], columns=about["order"]))


def save_arrays(folder: Path, **arrays: NDArray[Any]) -> None:
    """Write ``held_out.npz``; no objects."""
    given: dict[str, Any] = dict(arrays)
    np.savez(folder / "held_out.npz", **given)


def load_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """The inverse of ``save_arrays``.

    Raises:
        DataError: the file is not there or damaged.
    """
    try:
        with np.load(folder / "held_out.npz", allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise DataError(f"held-out figures in {folder.name}/", found=str(error)[:200]) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.parent.name}/{path.name}", found=str(error)[:200]) from error


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_bytes(canonical_bytes(document) + b"\n")
