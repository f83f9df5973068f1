from __future__ import annotations

import math
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from worlds.bundles import decision_of

from aiotkit.bundle.interface import Interface
from aiotkit.core.decision import Decision
from aiotkit.core.errors import BundleError
from aiotkit.core.features import STATISTICS

pytestmark = pytest.mark.desk
torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

Array = NDArray[np.float32]
RATE_HZ = 8.0


def every_statistic() -> Decision:
    """A decision that reads every statistic of a fast, a slow and an on-change signal."""
    names = [f"{signal}.{statistic}" for signal in ("vib", "temp", "oil") for statistic in STATISTICS]
    gates = [{"name": f"g{i}", "require": {"field": name, "ge": 1}} for i, name in enumerate(names)]
    return decision_of(gates=gates, rule=[{"otherwise": "run"}], history={})


@pytest.fixture(scope="session")
def exported() -> tuple[Decision, bytes, Interface]:
    """One export for all tests: it takes seconds."""
    from aiotkit.lab.features import export_front

    decision = every_statistic()
    return (decision, *export_front(decision))


def statistic(name: str, x: Array) -> float:
    from aiotkit.lab.features import statistic_module

    module = statistic_module(name, x.shape[-1], RATE_HZ)
    with torch.inference_mode():
        return float(module(torch.from_numpy(x.astype(np.float32)).reshape(1, -1))[0])


def textbook(name: str, x: NDArray[np.float64]) -> float:
    """The definition, in 64 bits."""
    d = x - x.mean()
    t = np.arange(x.size) / RATE_HZ
    return float(
        {
            "mean": x.mean,
            "std": x.std,
            "min": x.min,
            "max": x.max,
            "rms": lambda: math.sqrt(np.mean(x**2)),
            "p2p": lambda: np.ptp(x),
            "last": lambda: x[-1],
            "slope": lambda: np.polyfit(t, x, 1)[0],
            "kurtosis": lambda: np.mean(d**4) / np.mean(d**2) ** 2,
            "crest": lambda: np.abs(x).max() / math.sqrt(np.mean(x**2)),
        }[name]()
    )


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("n", [2, 3, 100, 1000])
def test_a_statistic_is_what_its_formula_says(name: str, n: int) -> None:
    """Each statistic equals its definition computed in 64 bits, whatever offset and size."""
    rng = np.random.default_rng(n)
    for offset, scale in ((0, 1), (3, 0.1), (-50, 20)):
        x = (offset + scale * rng.standard_normal(n)).astype(np.float32)
        expected = textbook(name, x.astype(np.float64))
        assert statistic(name, x) == pytest.approx(expected, rel=2e-5, abs=2e-5 * scale)


@pytest.mark.parametrize("name", ["mean", "std", "slope", "kurtosis"])
def test_a_ripple_on_a_large_offset_keeps_its_digits(name: str) -> None:
    """A ripple a hundred-thousandth of the offset is measured to a thousandth: deviations come first."""
    rng = np.random.default_rng(5)
    x = (10_000 + 0.1 * rng.standard_normal(512)).astype(np.float32)
    expected = textbook(name, x.astype(np.float64))
    assert statistic(name, x) == pytest.approx(expected, rel=1e-3 if name != "mean" else 1e-7)


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e6, 1e18, 1e30])
@pytest.mark.parametrize("name", ["std", "rms", "kurtosis", "crest"])
def test_squares_neither_overflow_nor_vanish(name: str, scale: float) -> None:
    """Very large and very small signals have finite, right features."""
    x = (scale * np.random.default_rng(1).standard_normal(64)).astype(np.float32)
    assert statistic(name, x) == pytest.approx(textbook(name, x.astype(np.float64)), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e-30, 3e30])
@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_a_constant_window_has_finite_features(value: float, n: int) -> None:
    """No spread: std, p2p, slope and kurtosis are zero, crest is one (zero when silent); nothing is NaN."""
    x = np.full(n, value, dtype=np.float32)
    for name in ("std", "p2p", "kurtosis"):
        assert statistic(name, x) == 0
    assert abs(statistic("slope", x)) <= 1e-6 * abs(float(x[0]))
    assert statistic("crest", x) == pytest.approx(1.0 if value else 0.0)
    for name in ("mean", "min", "max", "last"):
        assert statistic(name, x) == pytest.approx(float(x[0]), rel=1e-6)


def test_kurtosis_of_a_gaussian_is_three_and_of_a_spike_large() -> None:
    """Pearson's kurtosis: about 3 for noise, 1 for a square wave, n for one spike."""
    assert statistic("kurtosis", np.random.default_rng(0).standard_normal(100_000)) == pytest.approx(
        3, abs=0.1
    )
    assert statistic("kurtosis", np.tile([1.0, -1.0], 50)) == pytest.approx(1)
    spike = np.zeros(1000, dtype=np.float32)
    spike[17] = 5
    assert statistic("kurtosis", spike) == pytest.approx(1000, rel=0.01)


def test_slope_is_per_second() -> None:
    """Two units a second are two, at any rate and any offset."""
    from aiotkit.lab.features import Slope

    for rate in (0.5, 1.0, 64.0):
        x = 7 + 2 * torch.arange(50) / rate
        assert float(Slope(50, rate)(x.reshape(1, -1))[0]) == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", [0, 128, 255])
def test_G1_a_bad_sample_makes_every_feature_of_its_signal_nan(
    exported: tuple[Decision, bytes, Interface], bad: float, where: int
) -> None:
    """NaN or infinity anywhere: all features of that signal are NaN, in torch and graph, and no others."""
    from aiotkit.lab.features import Front, compute_features

    decision, graph, interface = exported
    windows = _windows(decision, 3)
    windows["vib"][1, where] = bad
    for found in (compute_features(Front(decision), windows), _run(graph, windows)):
        for i, name in enumerate(interface.features):
            assert np.isnan(found[:, i]).tolist() == [False, name.startswith("vib."), False], name


def _windows(decision: Decision, batch: int) -> dict[str, Array]:
    rng = np.random.default_rng(2)
    return {
        n: rng.uniform(*s.range, (batch, decision.samples(n))).astype(np.float32)
        for n, s in decision.signals.items()
    }


@cache
def _session(graph: bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph, options)


def _run(graph: bytes, windows: dict[str, Array]) -> Array:
    return np.asarray(_session(graph).run(["features"], windows)[0])


def test_the_graph_computes_what_torch_computes(exported: tuple[Decision, bytes, Interface]) -> None:
    """Every statistic of every signal agrees within a hundred-thousandth, at batch sizes never exported."""
    from aiotkit.lab.features import Front, compute_features

    decision, graph, _ = exported
    front = Front(decision)
    for batch in (1, 5, 33):
        windows = _windows(decision, batch)
        expected = compute_features(front, windows)
        np.testing.assert_allclose(_run(graph, windows), expected, rtol=2e-5, atol=2e-4)


def test_G8_the_graphs_bits_do_not_depend_on_where_its_input_lies(
    exported: tuple[Decision, bytes, Interface],
) -> None:
    """The same window at any memory alignment gives the same bits: replay could not be exact otherwise."""
    decision, graph, _ = exported
    for seed in range(20):
        rng = np.random.default_rng(seed)
        plain = {
            n: rng.standard_normal((1, decision.samples(n))).astype(np.float32) for n in decision.signals
        }
        outputs = {
            _run(graph, {n: _placed(x, offset) for n, x in plain.items()}).tobytes()
            for offset in range(0, 64, 4)
        }
        assert len(outputs) == 1


def _placed(x: Array, offset: int) -> Array:
    """The same values ``offset`` bytes behind a 64-byte boundary."""
    room = np.zeros(x.nbytes + 128, dtype=np.uint8)
    start = -room.ctypes.data % 64 + offset
    placed = room[start : start + x.nbytes].view(np.float32).reshape(x.shape)
    placed[:] = x
    return placed


def test_the_interface_names_the_graphs_ends(exported: tuple[Decision, bytes, Interface]) -> None:
    """Inputs are named as signals with their samples, the output as features in the decision's order."""
    decision, graph, interface = exported
    model = onnx.load_from_string(graph)
    shapes = {i.name: i.type.tensor_type.shape.dim[1].dim_value for i in model.graph.input}
    assert shapes == dict(interface.inputs) == {n: decision.samples(n) for n in decision.signals}
    assert [o.name for o in model.graph.output] == ["features"]
    assert interface.features == decision.features()
    assert len(interface.features) == 3 * len(STATISTICS)


def test_nothing_of_where_it_was_made_is_in_the_graph(exported: tuple[Decision, bytes, Interface]) -> None:
    """No metadata, no doc strings, no paths, fixed versions, all weights inside."""
    _, graph, _ = exported
    for word in (str(Path.cwd()), sys.prefix, "site-packages", ".py", "stack_trace"):
        assert word.encode() not in graph
    model = onnx.load_from_string(graph)
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (9, [("", 18)])


def test_a_decision_that_reads_no_feature_has_an_empty_output() -> None:
    """A rule over context alone still has a graph: all inputs, no columns."""
    from aiotkit.lab.features import export_front

    graph, interface = export_front(decision_of(gates=[], rule=[{"otherwise": "run"}], history={}))
    assert interface.features == ()
    assert _run(graph, _windows(decision_of(), 4)).shape == (4, 0)


def test_a_graph_that_computes_something_else_is_refused(exported: tuple[Decision, bytes, Interface]) -> None:
    """Parity is checked: a graph whose weights were changed does not pass."""
    from aiotkit.lab.features import Front, canonical_graph, check_parity

    decision, graph, interface = exported
    model = onnx.load_from_string(graph)
    weights = next(t for t in model.graph.initializer if t.name.endswith("temp__slope.weights"))
    values = onnx.numpy_helper.to_array(weights) * np.float32(1.01)
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    with pytest.raises(BundleError, match=r"feature 'temp\.slope' at batch 1"):
        check_parity(Front(decision), canonical_graph(model), interface, decision)


def test_a_graph_with_weights_outside_is_refused(exported: tuple[Decision, bytes, Interface]) -> None:
    """External data would leave the digest behind: refused."""
    from aiotkit.lab.features import canonical_graph

    model = onnx.load_from_string(exported[1])
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "../weights.bin"
    with pytest.raises(BundleError, match="lies outside the file"):
        canonical_graph(model)
