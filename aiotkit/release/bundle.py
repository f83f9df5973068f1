"""From a decision file (and a model) to an unsigned bundle: graph, interface, golden cases, papers, manifest.

The same inputs and the same tool versions give the same bytes, in every folder and process: no clock, no
user name, no path and no random number goes in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.golden import GoldenCase, golden_files, run_golden
from aiotkit.bundle.tuned import POLICY_FILE, Tuned
from aiotkit.bundle.unsigned import Places, Unsigned, make_unsigned
from aiotkit.core.decision import Decision
from aiotkit.core.errors import BundleError
from aiotkit.core.features import own_word
from aiotkit.lab.features import Front, compute_features, export_front
from aiotkit.lab.own_words import check_words
from aiotkit.release.cases import golden_cases
from aiotkit.release.clear_cases import clear_cases
from aiotkit.release.graph import audit_graph
from aiotkit.release.model_cases import training_cases
from aiotkit.release.papers import bill_of_materials, drift_reference, learned, model_card

if TYPE_CHECKING:
    from aiotkit.lab.examples import Examples
    from aiotkit.lab.own_words import OwnWords
    from aiotkit.release.export import Exported

Reference = Mapping[str, NDArray[np.float32]]


def build_bundle(
    decision: Decision,
    *,
    release_counter: int,
    hardware: Places = "any",
    site: Places | None = None,
    cases: Sequence[GoldenCase] | None = None,
    reference: Reference | Examples | None = None,
    model: Exported | None = None,
    words: OwnWords | None = None,
) -> Unsigned:
    """A bundle of a decision: rule only, or with a model.

    Args:
        decision: what is to be decided.
        release_counter: greater than that of every release of this decision before.
        hardware: names as ``platform.machine()`` gives them, or ``"any"``.
        site: names, or ``"any"``; by default the decision's own site.
        cases: golden cases; by default made from the decision (``release.cases``), and with a model from
            training windows too, where there are any. With a model, cases that lie near a tie are left out.
        reference: for the drift reference: windows ``{signal: [n, samples]}``, or the examples the model was
            trained on, which the model card then names; by default the golden windows.
        model: what decides; without one the written rule does. The margin that its training measured goes
            into ``policy.json``.
        words: statistics of one's own that the decision reads. A model's graph holds its own already: beside
            one they are needed only where ``reference`` gives windows.

    Raises:
        DataError: a word of one's own is not there or breaks a promise, or is not of the model's file.
        BundleError: the model is for another decision, the graph does not pass its checks, or the cases do
            not decide the same twice.
    """
    examples = None if reference is None or isinstance(reference, Mapping) else reference
    if model is None:
        check_words(words or {}, decision, ())
        graph, interface = export_front(decision, words=words)
    else:
        graph, interface = _graph_of(model, decision), model.interface
    audit_graph(graph)
    files = {
        "decision.json": decision.canonical(),
        "graph.onnx": graph,
        "interface.json": interface.canonical(),
        "card.json": model_card(decision, interface, None if model is None else learned(model, examples)),
    }
    if model is not None and model.margin:
        files[POLICY_FILE] = Tuned(margin=model.margin).canonical()
    if cases is None:
        cases = golden_cases(decision, model=model is not None)
        if model is not None and examples is not None:
            cases = (*cases, *training_cases(decision, examples))
    files |= golden_files(files, cases if model is None else clear_cases(Engine(files), cases))
    if reference is None:
        features, source = _golden_features(files["golden.json"], interface.features), "golden"
    elif isinstance(reference, Mapping):
        if words is not None and model is not None and any(map(own_word, interface.features)):
            words.must_be(model.own_words, f"model '{model.family}'")
        front = Front(decision, interface.features, words).eval()
        features, source = compute_features(front, reference), "reference"
    else:
        features, source = reference.with_columns(interface.features).x, "training"
    files["reference.json"] = drift_reference(interface.features, features, source)
    return assemble(decision, files, release_counter=release_counter, hardware=hardware, site=site)


def _graph_of(model: Exported, decision: Decision) -> bytes:
    if model.decision_digest != decision.digest:
        raise BundleError(
            f"model '{model.family}': made for another decision",
            expected=decision.digest[:19],
            found=model.decision_digest[:19],
            do="Train and export it again with this decision file.",
        )
    return model.graph


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
