from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from worlds.bundles import decision_of

from aiotkit.bundle.interface import Interface
from aiotkit.core.decision import Decision
from aiotkit.core.errors import BundleError, DataError
from aiotkit.core.features import STATISTICS

pytestmark = pytest.mark.desk
torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

Array = NDArray[np.float32]
RATE_HZ = 8.0
SPAN = 20.0
#: one of every base, of whole windows and of parts that are not equally long
WORDS = (*STATISTICS, "band_2of5", "env_1of3", "mean_2of3", "q50_1of3", "band_1of2_3of3", "slope_3of3")


def every_statistic() -> Decision:
    """A decision that reads every statistic of a fast, a slow and an on-change signal."""
    slow = (*STATISTICS, "band_2of4", "mean_2of3", "q50_1of3", "env_1of1_2of3")
    words = {"vib": WORDS, "temp": slow, "oil": STATISTICS}
    names = [f"{signal}.{word}" for signal, found in words.items() for word in found]
    gates = [{"name": f"g{i}", "require": {"field": name, "ge": 1}} for i, name in enumerate(names)]
    return decision_of(gates=gates, rule=[{"otherwise": "run"}], history={})


@pytest.fixture(scope="session")
def exported() -> tuple[Decision, bytes, Interface]:
    """One export for all tests: it takes seconds."""
    from aiotkit.lab.features import export_front

    decision = every_statistic()
    return (decision, *export_front(decision))


def statistic(name: str, x: NDArray[Any], rate_hz: float = RATE_HZ) -> float:
    from aiotkit.lab.features import statistic_module

    module = statistic_module(name, x.shape[-1], rate_hz, SPAN)
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
            "zcr": lambda: np.mean((d[1:] > 0) != (d[:-1] > 0)),
            "q05": lambda: np.quantile(x, 0.05),
            "q25": lambda: np.quantile(x, 0.25),
            "q50": lambda: np.quantile(x, 0.50),
            "q75": lambda: np.quantile(x, 0.75),
            "q95": lambda: np.quantile(x, 0.95),
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


def test_crossings_are_of_the_mean_and_counted_in_pairs() -> None:
    """A square wave of period 4 on any offset changes sides at every other pair; a held value at none."""
    wave = 7 + np.tile([1.0, 1.0, -1.0, -1.0], 25)
    assert statistic("zcr", wave) == pytest.approx(49 / 99)
    assert statistic("zcr", np.array([1.0, 2.0])) == 1
    assert statistic("zcr", np.array([1.0, 2.0, 3.0])) == pytest.approx(1 / 2)  # the mean itself is not above


@pytest.mark.parametrize(("n", "parts"), [(60, 13), (60, 10), (7, 3), (1000, 7), (5, 5)])
@pytest.mark.parametrize("word", ["mean", "std", "slope", "q25", "last", "band_1of3", "env_2of2"])
def test_a_segment_is_the_statistic_of_a_slice(n: int, parts: int, word: str) -> None:
    """Part j of k is samples j·n/k (rounded half up) of the window, the parts cover it once."""
    from aiotkit.lab.statistics import part_edges

    x = np.random.default_rng(n).standard_normal(n)
    edges = part_edges(n, parts)
    assert (edges[0], edges[-1]) == (0, n)
    assert set(np.diff(edges)) <= {n // parts, n // parts + 1}
    for j, (start, stop) in enumerate(pairwise(edges), start=1):
        assert start == math.floor((j - 1) * n / parts + 0.5)
        found = statistic(f"{word}_{j}of{parts}", x)
        assert found == pytest.approx(statistic(word, x[start:stop]), rel=1e-5, abs=1e-6)


def test_more_parts_than_samples_are_refused() -> None:
    """A part needs a sample: the error says how many there are."""
    with pytest.raises(DataError, match=r"segments: 8 parts; expected at most 7, the samples of a window"):
        statistic("mean_1of8", np.zeros(7))


@pytest.mark.parametrize("n", [2, 16, 60, 257, 1000, 1009, 1024])
def test_bands_are_means_of_the_periodogram(n: int) -> None:
    """A band is log10 of the mean density that scipy computes, over frequencies shared out by overlap."""
    x = 3 + np.random.default_rng(n).standard_normal(n)
    noise = (1e-4 * np.ptp(x)) ** 2 * 2 / RATE_HZ
    expected = np.log10(band_means(x, 6) + noise)
    found = [statistic(f"band_{i}of6", x) for i in range(1, 7)]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def band_means(x: NDArray[np.float64], bands: int) -> NDArray[np.float64]:
    """Mean of scipy's density over each band, a bin standing for ± half a bin, by numerical integration."""
    m = padded(x.size)
    density, edges = periodogram(x, m), np.geomspace(0.5, m / 2, bands + 1)
    means = []
    for low, high in pairwise(edges):
        f = low + (high - low) * (np.arange(20_000) + 0.5) / 20_000
        means.append(density[np.floor(f + 0.5).astype(int)].mean())
    return np.array(means)


def padded(n: int) -> int:
    from aiotkit.lab.spectra import transform_shape

    m = math.prod(transform_shape(n))
    assert n <= m <= n + 8
    return m


def periodogram(x: NDArray[np.float64], m: int) -> NDArray[np.float64]:
    from scipy import signal

    if m == x.size:
        return np.asarray(signal.periodogram(x, RATE_HZ, window="hann")[1])
    taper = signal.get_window("hann", x.size)  # scipy tapers after padding, which we do not
    found = np.abs(np.fft.rfft((x - x.mean()) * taper, m)) ** 2 / (RATE_HZ * np.sum(taper**2))
    found[1:-1] *= 2
    return np.asarray(found)


@pytest.mark.parametrize(("n", "bands"), [(1024, 16), (1000, 8), (256, 4)])
def test_a_sine_is_loudest_in_its_band(n: int, bands: int) -> None:
    """A sine in the middle of a band raises that band over all others, by decades over far ones."""
    edges = np.geomspace(0.5, padded(n) / 2, bands + 1)
    for i in range(bands):
        if edges[i + 1] - edges[i] < 4:  # a taper spreads a sine over three bins
            continue
        f = math.sqrt(edges[i] * edges[i + 1]) / padded(n)  # cycles a sample
        x = np.sin(2 * np.pi * f * np.arange(n))
        levels = [statistic(f"band_{j + 1}of{bands}", x) for j in range(bands)]
        assert int(np.argmax(levels)) == i
        assert all(levels[i] > levels[j] + 2 for j in range(bands) if abs(i - j) > 1)


def test_impulses_show_in_the_envelope_band_of_their_rate() -> None:
    """A resonance rung at f puts the squared envelope's power at f, where the spectrum itself has none."""
    n, rate, bands = 2048, 2048.0, 6
    edges = np.geomspace(0.5, n / 2, bands + 1) * rate / n
    ring = np.exp(-np.arange(64) / 8) * np.sin(2 * np.pi * 0.3 * np.arange(64))
    for i, f in ((3, 40), (4, 110)):
        assert edges[i] < f < edges[i + 1]
        train = np.zeros(n)
        train[:: round(rate / f)] = 1
        x = np.convolve(train, ring)[:n]
        envelope = [statistic(f"env_{j + 1}of{bands}", x, rate) for j in range(bands)]
        assert int(np.argmax(envelope)) == i
        spectrum = [statistic(f"band_{j + 1}of{bands}", x, rate) for j in range(bands)]
        assert int(np.argmax(spectrum)) == bands - 1


@pytest.mark.parametrize("n", [16, 60, 257, 1000, 1024])
def test_the_envelope_is_that_of_the_analytic_signal(n: int) -> None:
    """Envelope bands are those of |x + iH(x)|² over its mean, with scipy's Hilbert transform."""
    from scipy import signal

    x = np.random.default_rng(n).standard_normal(n)
    m, d = padded(n), x - x.mean()
    envelope = np.abs(signal.hilbert(np.pad(d, (0, m - n))))[:n] ** 2
    expected = np.log10(band_means(envelope / envelope.mean(), 4) + 3e-3**2 * 2 / RATE_HZ)
    found = [statistic(f"env_{i}of4", x) for i in range(1, 5)]
    np.testing.assert_allclose(found, expected, atol=5e-4)


@pytest.mark.parametrize("n", [1, 2, 60, 1024])
def test_silence_has_a_floor_that_the_range_sets(n: int) -> None:
    """Nothing to hear is 120 dB below the range, or −50 dB of modulation: a number with an end."""
    white = math.log10(2 / RATE_HZ)
    for x in (np.zeros(n), np.full(n, 7.3), 1e-9 * np.random.default_rng(0).standard_normal(n)):
        for i in (1, 2, 3):
            assert statistic(f"band_{i}of3", x) == pytest.approx(2 * math.log10(1e-6 * SPAN) + white)
            assert statistic(f"env_{i}of3", x) == pytest.approx(2 * math.log10(3e-3) + white, abs=1e-3)


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
    for rate in (0.5, 1.0, 64.0):
        assert statistic("slope", 7 + 2 * np.arange(50) / rate, rate) == pytest.approx(2, rel=1e-5)


def test_a_quiet_band_beside_a_loud_one_does_not_hang_on_rounding(
    exported: tuple[Decision, bytes, Interface],
) -> None:
    """A pure tone leaves other bands 80 dB below: torch and graph, which round differently, agree there."""
    from aiotkit.lab.features import Front, compute_features

    decision, graph, interface = exported
    windows = _windows(decision, 64)
    f = np.linspace(0.01, 0.49, 64)[:, None]
    windows["vib"][:] = 100 * np.sin(2 * np.pi * f * np.arange(256) + 7 * f)
    expected, found = compute_features(Front(decision), windows), _run(graph, windows)
    spectral = [i for i, name in enumerate(interface.features) if name.startswith(("vib.band", "vib.env"))]
    assert len(spectral) == 3
    np.testing.assert_allclose(found[:, spectral], expected[:, spectral], atol=2e-3, rtol=0)


@pytest.mark.parametrize("n", [1, 3, 60, 256])
@pytest.mark.parametrize("word", WORDS)
def test_every_built_in_statistic_passes_the_shared_checks(word: str, n: int) -> None:
    """What is asked of a module of one's own, the built-in ones keep; their export is tested as a whole."""
    from aiotkit.lab.features import statistic_module
    from aiotkit.lab.own_words import CHECKS, survives_export

    if n < 3 and word.endswith("of3") and word != "env_1of3":
        pytest.skip("fewer samples than parts")
    for check in CHECKS:
        if check is not survives_export:
            check(lambda size, rate: statistic_module(word, size, rate), n, RATE_HZ)


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
        np.testing.assert_allclose(_run(graph, windows), expected, rtol=2e-5, atol=3e-4)


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
    assert len(interface.features) == 3 * len(STATISTICS) + 6 + 4


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
    size = decision.samples("temp")
    named = [t for t in model.graph.initializer if t.name.endswith("slope.weights")]
    weights = next(t for t in named if onnx.numpy_helper.to_array(t).size == size)
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


def test_further_features_join_those_the_decision_reads() -> None:
    """Names for a head are computed beside what rule and gates need, sorted, each once."""
    from aiotkit.lab.features import Front, compute_features

    decision = decision_of()
    names = ("vib.band_1of4", "oil.last", "vib.mean_2of3")
    front = Front(decision, names)
    assert front.names == tuple(sorted({*decision.features(), *names}))
    windows = _windows(decision, 3)
    found, plain = compute_features(front, windows), compute_features(Front(decision), windows)
    read = [front.names.index(name) for name in decision.features()]
    np.testing.assert_allclose(found[:, read], plain, rtol=1e-5)
    edges = (85, 171)
    expected = windows["vib"][:, edges[0] : edges[1]].mean(axis=1)
    np.testing.assert_allclose(found[:, front.names.index("vib.mean_2of3")], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vibb.rms", "no signal 'vibb'.* did you mean 'vib'"),
        ("vib.kurtsis", r"feature 'vib\.kurtsis'.* did you mean 'kurtosis'"),
        ("oil.mean_1of2", "segments: 2 parts; expected at most 1"),
        ("temp.band_1of8", "at least 16 samples in a window of 'temp'; found 8"),
        ("vib.x_hum", "the word 'x_hum' is nobody's"),
    ],
)
def test_a_name_that_is_no_feature_is_refused_with_a_hint(name: str, words: str) -> None:
    """A misspelt or impossible name says what is wrong before anything is computed."""
    from aiotkit.lab.features import Front

    with pytest.raises(DataError, match=words):
        Front(decision_of(), [name])


def test_a_long_record_is_computed_in_pieces_with_the_same_result() -> None:
    """Many windows give what each gives alone, to rounding."""
    from aiotkit.lab.features import Front, compute_features

    decision = decision_of()
    front = Front(decision, ["vib.band_1of4", "vib.q50"])
    windows = _windows(decision, 600)
    found = compute_features(front, windows)
    some = [0, 255, 256, 599]
    each = [compute_features(front, {n: x[i : i + 1] for n, x in windows.items()})[0] for i in some]
    np.testing.assert_allclose(found[some], each, rtol=1e-4, atol=1e-4)


def test_another_process_in_another_folder_writes_the_same_graph(tmp_path: Path) -> None:
    """Identity of a release: the bytes follow from decision and names alone."""
    from aiotkit.lab.features import export_front

    names = ["vib.band_1of4", "vib.env_2of2", "vib.q25", "vib.mean_1of3"]
    code = (
        "import hashlib\nfrom worlds.bundles import decision_of\n"
        "from aiotkit.lab.features import export_front\n"
        f"print(hashlib.sha256(export_front(decision_of(), {names!r})[0]).hexdigest())"
    )
    tests = Path(__file__).resolve().parents[1]
    environment = {"PYTHONPATH": f"{tests.parent}:{tests}", "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == hashlib.sha256(export_front(decision_of(), names)[0]).hexdigest()


def test_a_front_of_hundreds_of_features_is_a_small_graph() -> None:
    """Signals and parts share operations: 13 parts of 17 signals cost no more nodes than of one."""
    from aiotkit.lab.features import export_front

    slow = {"unit": "bar", "sampling": {"kind": "regular", "rate_hz": 1}, "range": [0, 100]}
    decision = decision_of(
        signals={f"s{i}": slow for i in range(17)},
        window={"length_s": 60, "every_s": 60},
        gates=[],
        rule=[{"otherwise": "run"}],
        history={},
    )
    names = [f"{s}.{w}_{j}of13" for s in decision.signals for w in ("mean", "std") for j in range(1, 14)]
    graph, interface = export_front(decision, names)
    assert len(interface.features) == 442
    assert len(onnx.load_from_string(graph).graph.node) < 80
