"""The papers a bundle carries: model card, bill of materials and drift reference. All deterministic."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiotkit.bundle.interface import Interface
from aiotkit.core.canonical import JSON, canonical_bytes, plain
from aiotkit.core.conditions import describe
from aiotkit.core.decision import Branch, Decision
from aiotkit.core.gates import Gate

if TYPE_CHECKING:
    import pandas as pd

    from aiotkit.lab.examples import Examples
    from aiotkit.release.export import Exported

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
#: what took part in building: their versions determine the graph's bytes
TOOLS = ("aiotkit", "torch", "onnx", "onnxscript", "onnxruntime")
_NAMESPACE = uuid.UUID("6a4c3b0e-5b0f-5d6e-9c56-0d6f1c1f7a11")


def model_card(decision: Decision, interface: Interface, learned: Mapping[str, JSON] | None = None) -> bytes:
    """``card.json``: what decides here, from what, within which limits, and what is not known about it.

    Args:
        decision: what is decided.
        interface: of the graph.
        learned: what ``learned`` says of the model; None without one.
    """
    kind = "model" if interface.states else "rule only"
    unknown = ["No figures from field data are part of this bundle."]
    if learned is not None:
        unknown = _not_known(learned, interface)
    if not interface.states:
        unknown.append("There is no trained model: actions follow the written rule.")
    if decision.costs == "unknown":
        unknown.append("Costs are unknown: nothing is said about money.")
    document: JSON = {
        "format": 1,
        "kind": kind,
        "decision": {
            "id": decision.id,
            "revision": decision.revision,
            "digest": decision.digest,
            "title": decision.title,
            "question": decision.question,
        },
        "site": decision.site.name,
        "states": {name: state.description for name, state in decision.states.items()},
        "actions": {
            name: {
                "description": action.description,
                "reversible": action.reversible,
                "autonomy": decision.mode(name),
            }
            for name, action in decision.actions.items()
        },
        "rule": [_rule_line(branch) for branch in decision.rule],
        "gates": {gate.name: _gate_words(gate) for gate in decision.gates},
        "recovery": decision.recovery,
        "inputs": dict(interface.inputs),
        "features": list(interface.features),
        "not_known": unknown,
    }
    if learned is not None:
        document["model"] = dict(learned)
        document["intended_use"] = (
            f"{decision.question} For each {decision.subject} of site {decision.site.name}, on windows like "
            "those of training; any other use has not been tried."
        )
    return canonical_bytes(document)


def learned(model: Exported, examples: Examples | None = None) -> dict[str, JSON]:
    """What a model card says of a model: family, what it reads, margin, figures, what it was learned from.

    Args:
        model: the exported one.
        examples: it was trained on.
    """
    out: dict[str, JSON] = {
        "family": model.family,
        "variant": model.variant,
        "seed": model.seed,
        "reads": [*model.columns, *(s for s in model.interface.head_reads if not _among(s, model.columns))],
        "says_novelty": model.interface.novelty,
        "parity": dict(model.parity),
        "margin": model.margin,
        "notes": list(model.notes),
        "figures": {name: plain(float(value)) for name, value in sorted(model.figures.items())},
        "learned_from": None,
    }
    if model.own_words:
        out["own_words"] = model.own_words
    if examples is not None:
        believed = examples.labelled().rows
        out["learned_from"] = {
            "digest": examples.digest,
            "rows": len(examples),
            "labelled": len(believed),
            "subjects": int(examples.rows["subject"].nunique()),
            "labels": _counts(examples.rows["status"]),
            "states": _counts(believed["state"]),
            "first_us": int(believed["at_us"].min()) if len(believed) else None,
            "last_us": int(believed["at_us"].max()) if len(believed) else None,
        }
    return out


def _among(signal: str, columns: Sequence[str]) -> bool:
    return any(column.partition(".")[0] == signal for column in columns)


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(name): int(n) for name, n in sorted(values.dropna().value_counts().items())}


def _not_known(learned: Mapping[str, JSON], interface: Interface) -> list[str]:
    origin = learned["learned_from"]
    if origin is None:
        return ["The data it was learned from are not named in this bundle."]
    unknown = []
    never = [state for state in interface.states if state not in origin["states"]]
    if never:
        unknown.append(f"States that never occurred in training: {', '.join(never)}.")
    if not interface.novelty:
        unknown.append("It cannot say whether a window is unlike those of training.")
    apart = origin["rows"] - origin["labelled"]
    if apart:
        unknown.append(f"{apart} of {origin['rows']} rows have no state that may be learned from.")
    return unknown


def _rule_line(branch: Branch) -> str:
    when = f"when {describe(branch.when)}" if branch.when is not None else "otherwise"
    return f"{when}: {branch.action}"


def _gate_words(gate: Gate) -> str:
    if gate.require is not None:
        return describe(gate.require)
    if gate.at_most is not None:
        return f"at most {gate.at_most.count} new commands in {gate.at_most.per_s:g} s"
    return f"at least {gate.min_interval_s:g} s between new commands"


def bill_of_materials(decision: Decision, files: Mapping[str, bytes]) -> bytes:
    """``sbom.json``: CycloneDX 1.6, without time stamps; its serial number follows from the contents."""
    hashes = {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())}
    serial = uuid.uuid5(_NAMESPACE, canonical_bytes([hashes, _tools()]).decode())
    document: JSON = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": decision.id,
                "name": decision.id,
                "version": str(decision.revision),
                "description": decision.title,
            },
            "tools": {
                "components": [
                    {"type": "library", "name": name, "version": found} for name, found in _tools().items()
                ]
            },
        },
        "components": [
            {
                "type": "machine-learning-model" if path.endswith(".onnx") else "file",
                "bom-ref": path,
                "name": path,
                "hashes": [{"alg": "SHA-256", "content": content}],
            }
            for path, content in hashes.items()
        ],
        "dependencies": [{"ref": decision.id, "dependsOn": list(hashes)}],
    }
    return canonical_bytes(document)


def _tools() -> dict[str, str]:
    return {name: version(name) for name in TOOLS}


def drift_reference(names: Sequence[str], features: NDArray[np.float32], source: str) -> bytes:
    """``reference.json``: how each feature was distributed where the bundle was built.

    Args:
        names: of the features.
        features: ``[windows, features]``; windows with a value that is not finite do not count for it.
        source: where the windows are from: ``golden`` (made up), ``reference`` (given by the builder) or
            ``training``.
    """
    listed: JSON = {}
    for i, name in enumerate(names):
        column = features[:, i].astype(np.float64)
        column = column[np.isfinite(column)]
        quantiles = np.quantile(column, QUANTILES).tolist() if column.size else []
        listed[name] = {
            "count": int(column.size),
            "mean": float(column.mean()) if column.size else None,
            "std": float(column.std()) if column.size else None,
            "quantiles": quantiles,
        }
    return canonical_bytes(
        {"format": 1, "source": source, "quantile_levels": list(QUANTILES), "features": listed}
    )
