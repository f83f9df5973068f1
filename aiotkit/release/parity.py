"""Whether a graph decides what the library decides: labels, probabilities, and what is novel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from aiotkit.bundle.interface import CONTEXT, FEATURES, HISTORY, PROBABILITIES, Interface
from aiotkit.core.decision import Decision
from aiotkit.core.errors import BundleError
from aiotkit.core.features import NOVELTY
from aiotkit.lab.features import PARITY_BATCHES, Front, compute_features
from aiotkit.lab.front import Words

if TYPE_CHECKING:
    from aiotkit.lab.trained import Trained
    from aiotkit.release.export import Exported

#: how far a probability may lie from the library's
TOLERANCE = 1e-4
#: labels whose probabilities lie closer than this are equally likely: neither is a flip of the other
TIE = 1e-6
_GIVEN = 256  # rows of given windows that are compared
Array = NDArray[np.float32]
Windows = Mapping[str, Array]


class Parity(TypedDict):
    """How a graph differs from the library over ``n`` rows: labels that flip, largest difference of p."""

    label_flips: int
    max_abs: float
    n: int


def open_session(graph: bytes, what: str = "graph") -> ort.InferenceSession:
    """A session on one thread.

    Raises:
        BundleError: onnxruntime cannot open it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no class
        raise BundleError(f"{what}: onnxruntime cannot open it", found=str(error)[:200]) from error


def run_graph(session: ort.InferenceSession, feeds: Mapping[str, Array], what: str) -> dict[str, Array]:
    """Every output of a session by name; a graph that fails on these inputs is a ``BundleError``."""
    names = [output.name for output in session.get_outputs()]
    given = {i.name: feeds[i.name] for i in session.get_inputs()}
    try:
        found = session.run(names, given)
    except Exception as error:  # onnxruntime's errors share no class
        sizes = {name: list(values.shape) for name, values in given.items()}
        raise BundleError(f"{what}: cannot be run on {sizes}", found=str(error)[:200]) from error
    return dict(zip(names, (cast(Array, np.asarray(values)) for values in found), strict=True))


def head_parity(trained: Trained, head: bytes) -> Parity:
    """The head's graph against the library's own probabilities, on the probe rows that training kept.

    Raises:
        BundleError: it flips a label or differs, at some batch size; or there is no row to compare.
    """
    what = f"head '{trained.family}'"
    session = open_session(head, what)
    probes = {FEATURES: trained.probe_x, **trained.probe_windows}
    parity = Parity(label_flips=0, max_abs=0.0, n=0)
    n = len(trained.probe_p)
    if not n:
        raise BundleError(f"{what}: no rows to compare with the library", do="Train with at least one row.")
    for batch in (n, *(b for b in PARITY_BATCHES if b < n)):
        feeds = {name: np.ascontiguousarray(values[:batch]) for name, values in probes.items()}
        found = run_graph(session, feeds, what)
        where = f"{what}: onnxruntime against the library, batch {batch}"
        parity = worse(parity, compare(trained.probe_p[:batch], found[PROBABILITIES], where))
    return Parity(label_flips=parity["label_flips"], max_abs=parity["max_abs"], n=n)


def compare(expected: NDArray[Any], found: NDArray[Any], where: str) -> Parity:
    """Probabilities ``[n, states]`` against those expected.

    Raises:
        BundleError: a label flips, or a probability differs by more than ``TOLERANCE`` or is no number.
    """
    if expected.shape != found.shape:
        raise BundleError(f"{where}: shape of p", expected=str(expected.shape), found=str(found.shape))
    if not len(expected):
        return Parity(label_flips=0, max_abs=0.0, n=0)
    apart = float(np.abs(found.astype(np.float64) - expected).max())
    said = expected[np.arange(len(expected)), found.argmax(axis=1)]
    flips = int((~(said >= expected.max(axis=1) - TIE)).sum())
    if flips or not apart <= TOLERANCE:
        raise BundleError(
            f"{where}: {flips} of {len(expected)} labels flip",
            expected=f"none, and p within {TOLERANCE:g}",
            found=f"a difference of {apart:.3g}",
            do="This family is not exported faithfully; offer another.",
        )
    return Parity(label_flips=flips, max_abs=apart, n=len(expected))


def worse(a: Parity, b: Parity) -> Parity:
    """Two comparisons as one."""
    return Parity(
        label_flips=a["label_flips"] + b["label_flips"],
        max_abs=max(a["max_abs"], b["max_abs"]),
        n=a["n"] + b["n"],
    )


def graph_parity(
    decision: Decision,
    trained: Trained,
    made: Exported,
    windows: Windows | None = None,
    words: Words | None = None,
) -> Parity:
    """The whole graph against the front in torch followed by the head, on random and on given windows.

    History and context are taken from the probe rows. Where ``novelty`` says otherwise on which side of its
    limit a row lies, that counts as a flip.

    Raises:
        BundleError: it flips a label or differs, at some batch size.
    """
    front = Front(decision, trained.features, words).eval()
    whole, head = open_session(made.graph), open_session(made.head)
    rng = np.random.default_rng(11)
    parity = Parity(label_flips=0, max_abs=0.0, n=0)
    cases = [_random_windows(rng, decision, batch) for batch in PARITY_BATCHES]
    if windows:
        cases.append({n: np.array(windows[n][:_GIVEN], dtype=np.float32) for n in made.interface.inputs})
    for case in cases:
        rows = len(next(iter(case.values())))
        slow = _slow_inputs(rng, trained, made.interface, rows)
        features = compute_features(front, case)
        expected = run_graph(head, {**case, FEATURES: _gather(made, features, slow)}, f"head '{made.family}'")
        found = run_graph(whole, {**case, **slow}, "graph.onnx")
        where = f"graph of '{made.family}' against front and head apart, batch {rows}"
        parity = worse(parity, compare(expected[PROBABILITIES], found[PROBABILITIES], where))
        if made.interface.novelty:
            _compare_novelty(expected[NOVELTY], found[NOVELTY], where)
    return parity


def _random_windows(rng: np.random.Generator, decision: Decision, batch: int) -> dict[str, Array]:
    """Noise about some level within each signal's range; the third row of each signal is bad."""
    out: dict[str, Array] = {}
    for name, signal in decision.signals.items():
        low, high = signal.range
        level = rng.uniform(low, high, (batch, 1))
        noise = rng.normal(0, (high - low) / 20, (batch, decision.samples(name)))
        out[name] = (level + noise).clip(low, high).astype(np.float32)
        out[name][2:3] = np.nan
    return out


def _slow_inputs(
    rng: np.random.Generator, trained: Trained, interface: Interface, rows: int
) -> dict[str, Array]:
    picked = trained.probe_x[rng.integers(0, max(1, len(trained.probe_x)), rows)]
    slow = {HISTORY: interface.history_inputs, CONTEXT: interface.context_inputs}
    index = {name: [trained.columns.index(c) for c in listed] for name, listed in slow.items() if listed}
    return {name: np.ascontiguousarray(picked[:, at]) for name, at in index.items()}


def _gather(made: Exported, features: Array, slow: Mapping[str, Array]) -> Array:
    interface = made.interface
    names = [*interface.features, *interface.history_inputs, *interface.context_inputs]
    every = np.concatenate([features, *(slow[name] for name in (HISTORY, CONTEXT) if name in slow)], axis=1)
    return np.ascontiguousarray(every[:, [names.index(column) for column in made.columns]])


def _compare_novelty(expected: Array, found: Array, where: str) -> None:
    near = np.abs(expected - 1) <= 1e-3
    differs = (expected <= 1) != (found <= 1)
    if expected.shape != found.shape or not (near | ~differs).all() or np.isnan(found).any():
        raise BundleError(
            f"{where}: novelty", expected=f"{expected.ravel()[:4]}", found=f"{found.ravel()[:4]}"
        )
