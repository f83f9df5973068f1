"""From a decision file to an unsigned bundle: graph, interface, golden cases, papers, manifest.

The same inputs and the same tool versions give the same bytes, in every folder and process: no clock, no
user name, no path and no random number goes in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.golden import GoldenCase, golden_files, run_golden
from aiotkit.bundle.unsigned import Places, Unsigned, make_unsigned
from aiotkit.core.decision import Decision
from aiotkit.lab.features import Front, compute_features, export_front
from aiotkit.release.cases import golden_cases
from aiotkit.release.graph import audit_graph
from aiotkit.release.papers import bill_of_materials, drift_reference, model_card

Reference = Mapping[str, NDArray[np.float32]]


def build_bundle(
    decision: Decision,
    *,
    release_counter: int,
    hardware: Places = "any",
    site: Places | None = None,
    cases: Sequence[GoldenCase] | None = None,
    reference: Reference | None = None,
) -> Unsigned:
    """A rule-only bundle of a decision.

    Args:
        decision: what is to be decided.
        release_counter: greater than that of every release of this decision before.
        hardware: names as ``platform.machine()`` gives them, or ``"any"``.
        site: names, or ``"any"``; by default the decision's own site.
        cases: golden cases; by default made from the decision (``release.cases``).
        reference: windows ``{signal: [n, samples]}`` for the drift reference; by default the golden ones.

    Raises:
        BundleError: the graph does not pass its checks, or the cases do not decide the same twice.
    """
    graph, interface = export_front(decision)
    audit_graph(graph)
    files = {
        "decision.json": decision.canonical(),
        "graph.onnx": graph,
        "interface.json": interface.canonical(),
        "card.json": model_card(decision, interface),
    }
    cases = golden_cases(decision) if cases is None else cases
    files |= golden_files(files, cases)
    if reference is None:
        features, source = _golden_features(files["golden.json"], interface.features), "golden"
    else:
        features, source = compute_features(Front(decision).eval(), reference), "reference"
    files["reference.json"] = drift_reference(interface.features, features, source)
    return assemble(decision, files, release_counter=release_counter, hardware=hardware, site=site)


def assemble(
    decision: Decision,
    files: Mapping[str, bytes],
    *,
    release_counter: int,
    hardware: Places = "any",
    site: Places | None = None,
) -> Unsigned:
    """A bundle from finished files: adds the bill of materials and the manifest, and tries it once.

    Raises:
        BundleError: the engine cannot open it or its golden cases fail.
    """
    files = dict(files)
    files.setdefault("sbom.json", bill_of_materials(decision, files))
    run_golden(Engine(files), files)
    return make_unsigned(decision, files, release_counter=release_counter, hardware=hardware, site=site)


def _golden_features(golden: bytes, names: Sequence[str]) -> NDArray[np.float32]:
    """The features of the golden cases as they were decided: bad samples are NaN there."""
    cases = json.loads(golden)["cases"]
    rows = [[float(case["expected"]["features"][name]) for name in names] for case in cases]
    return np.array(rows, dtype=np.float32).reshape(len(cases), len(names))
