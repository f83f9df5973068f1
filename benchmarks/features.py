"""How fast window features are computed: on the desk in batches, and in the graph that a device runs.

A window is three channels of 1024 samples; of each channel 25 features: mean, std, min, max, rms, kurtosis,
crest, slope, zero crossings and 16 log bands. In turns in one run, one thread each: this package in torch,
its graph in onnxruntime, the same written by hand in numpy (arrays of all windows at once, 32-bit FFT), and
tsfresh with the same features; for the 16 bands, which it does not have, it is asked for 16 Fourier
coefficients instead, which is less work.

tsfresh is measured where ``--tsfresh-python`` points to an interpreter that has it (default: this one, if it
has), for example of an environment made with ``python -m venv DIR && DIR/bin/pip install tsfresh``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before numpy is imported

import numpy as np  # noqa: E402
from common import arguments, interleave, median_ratio, percentiles, progress, report  # noqa: E402

CHANNELS = ("vib_x", "vib_y", "vib_z")
N, RATE_HZ, BANDS, BATCH = 1024, 2048.0, 16, 256
MOMENTS = ("mean", "std", "min", "max", "rms", "kurtosis", "crest", "slope", "zcr")
WORDS = (*MOMENTS, *(f"band_{i}of{BANDS}" for i in range(1, BANDS + 1)))
Array = np.ndarray[Any, Any]


def windows(count: int) -> Array:
    """Noise with impulses that ring, ``[count, channels, n]`` float32."""
    rng = np.random.default_rng(3)
    ring = np.exp(-np.arange(64) / 8) * np.sin(1.9 * np.arange(64))
    found = rng.standard_normal((count, len(CHANNELS), N))
    found[:, 0, 100:164] += 8 * ring
    return found.astype(np.float32)


def decision_of_three_channels() -> Any:
    """The twin's decision about a bearing."""
    from aiotkit.loop.look import bearing_decision

    return bearing_decision()


def by_hand() -> Callable[[Array], Array]:
    """The same features in numpy: ``[windows, channels, n]`` to ``[windows, channels, words]``."""
    from aiotkit.lab.spectra import DITHER, band_weights, hann

    taper = hann(N).astype(np.float32)
    weights = band_weights(N, BANDS) * (2 / (RATE_HZ * np.square(hann(N)).sum()))
    weights[-1] /= 2
    weights = weights.astype(np.float32)
    t = ((np.arange(N) - (N - 1) / 2) / RATE_HZ).astype(np.float32)
    t /= np.square(t).sum()

    def features(x: Array) -> Array:
        mean, low, high = x.mean(axis=2), x.min(axis=2), x.max(axis=2)
        d = x - mean[:, :, None]
        squares = d * d
        second = squares.mean(axis=2)
        rms = np.sqrt(second + mean * mean)
        above = d > 0
        spectrum = np.fft.rfft(d * taper, axis=2)
        power = spectrum.real**2 + spectrum.imag**2
        moments = (
            mean,
            np.sqrt(second),
            low,
            high,
            rms,
            np.square(squares).mean(axis=2) / second**2,
            np.maximum(high, -low) / rms,
            d @ t,
            (above[:, :, 1:] != above[:, :, :-1]).mean(axis=2),
        )
        dither = np.square(DITHER * (high - low)) * (2 / RATE_HZ)
        bands = np.log10(power @ weights + dither[:, :, None])
        return np.concatenate([np.stack(moments, axis=2), bands], axis=2)

    return features


def per_second(call: Callable[[], object], count: int) -> Callable[[], float]:
    """A measurement: windows a second."""

    def once() -> float:
        start = time.perf_counter()
        call()
        return count / (time.perf_counter() - start)

    return once


@contextmanager
def tsfresh_worker(python: Path | None, x: Array) -> Iterator[Callable[[], dict[str, Any]] | None]:
    """A process with tsfresh that computes the windows' features each time it is asked, or None."""
    if python is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "windows.npy"
        np.save(path, x)
        command = [str(python), "-W", "ignore", __file__, "--tsfresh-worker", str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None

            def ask() -> dict[str, Any]:
                process.stdin.write("again\n")
                process.stdin.flush()
                return dict(json.loads(process.stdout.readline()))

            yield ask
            process.stdin.close()


def serve_tsfresh(path: Path) -> None:
    """The worker: for each line read, extract once and tell seconds and values (rows: window, channel)."""
    import pandas as pd
    from tsfresh.feature_extraction import extract_features

    x = np.load(path).reshape(-1, N)
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(len(x)), N), "t": np.tile(np.arange(N), len(x)), "v": x.ravel()}
    )
    asked: dict[str, Any] = dict.fromkeys(
        ["mean", "standard_deviation", "minimum", "maximum", "root_mean_square", "kurtosis"]
    )
    asked |= {"absolute_maximum": None, "linear_trend": [{"attr": "slope"}], "number_crossing_m": [{"m": 0}]}
    coefficients = np.unique(np.geomspace(1, N // 2, 2 * BANDS).astype(int))[:BANDS]
    asked["fft_coefficient"] = [{"coeff": int(k), "attr": "abs"} for k in coefficients]
    for _ in sys.stdin:
        start = time.perf_counter()
        found = extract_features(
            frame,
            column_id="id",
            column_sort="t",
            column_value="v",
            default_fc_parameters=asked,
            n_jobs=0,
            disable_progressbar=True,
        )
        seconds = time.perf_counter() - start
        values = {c.removeprefix("v__"): found[c].tolist() for c in list(found.columns)[:6]}
        print(json.dumps({"seconds": seconds, "features": found.shape[1], "values": values}), flush=True)


def agree(mine: Array, told: Mapping[str, Any]) -> None:
    """Refuse to compare, unless tsfresh computes the same numbers where it has the same features."""
    names = {"mean": "mean", "standard_deviation": "std", "minimum": "min", "maximum": "max"}
    for theirs, word in (names | {"root_mean_square": "rms"}).items():
        values = np.asarray(told["values"][theirs]).reshape(-1, len(CHANNELS))
        np.testing.assert_allclose(mine[: len(values), :, WORDS.index(word)], values, rtol=1e-4, atol=1e-5)


class Desk:
    """The package's own arms: torch, and the graph in onnxruntime on one thread."""

    def __init__(self, words: tuple[str, ...]) -> None:
        import onnxruntime as ort
        import torch

        from aiotkit.lab.features import Front, compute_features, export_front

        torch.set_num_threads(1)
        decision = decision_of_three_channels()
        names = [f"{channel}.{word}" for channel in CHANNELS for word in words]
        start = time.perf_counter()
        self.graph, self.interface = export_front(decision, names)
        self.export_s = time.perf_counter() - start
        self.front, self.compute = Front(decision, names), compute_features
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])
        order = {name: i for i, name in enumerate(self.interface.features)}
        self.columns = [[order[f"{channel}.{word}"] for word in words] for channel in CHANNELS]

    def given(self, x: Array) -> dict[str, Array]:
        """Windows by signal; the signals that no feature reads stand still."""
        zeros = {n: np.zeros((len(x), size), dtype=np.float32) for n, size in self.interface.inputs.items()}
        return zeros | {name: np.ascontiguousarray(x[:, i]) for i, name in enumerate(CHANNELS)}

    def torch(self, x: Array) -> Array:
        """``[windows, channels, words]`` by torch."""
        return np.asarray(self.compute(self.front, self.given(x)))[:, self.columns]

    def onnx(self, x: Array) -> Array:
        """The same by the graph."""
        return np.asarray(self.session.run(None, self.given(x))[0])[:, self.columns]

    def latency(self, runs: int) -> dict[str, float]:
        """One window a run, as on a device: p50 … max in µs."""
        given = self.given(windows(1))
        times = []
        for i in range(runs + 200):
            start = time.perf_counter()
            self.session.run(None, given)
            if i >= 200:  # warm-up
                times.append((time.perf_counter() - start) * 1e6)
        return percentiles(times, unit="us")


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    count, few, repeats, runs = (256, 16, 3, 500) if options.quick else (2048, 64, 11, 5000)
    x = windows(count)
    progress("exporting")
    desk = Desk(WORDS)
    hand = by_hand()
    mine = desk.torch(x)
    np.testing.assert_allclose(desk.onnx(x[:BATCH]), mine[:BATCH], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(hand(x[:BATCH]), mine[:BATCH], rtol=1e-3, atol=3e-3)
    given, batch = desk.given(x), desk.given(x[:BATCH])
    arms = {
        "torch": per_second(lambda: desk.compute(desk.front, given), count),
        "onnx": per_second(lambda: desk.session.run(None, batch), BATCH),
        "numpy": per_second(lambda: [hand(x[i : i + BATCH]) for i in range(0, count, BATCH)], count),
    }
    with tsfresh_worker(options.tsfresh_python, x[:few]) as ask:
        if ask is not None:
            agree(mine, ask())
            arms["tsfresh"] = lambda: few / float(ask()["seconds"])
        for arm in arms.values():  # warm-up
            arm()
        found = interleave(arms, repeats)
    median = {name: statistics.median(values) for name, values in found.items()}
    auto = Desk((*WORDS, *(f"env_{i}of8" for i in range(1, 9)), "q05", "q25", "q50", "q75", "q95"))
    latency = desk.latency(runs)
    tsfresh = "tsfresh" in found
    report(
        "features",
        {
            "windows_per_s": median["torch"],
            "over_tsfresh": median_ratio(found["torch"], found["tsfresh"]) if tsfresh else None,
            "onnx_over_torch": median_ratio(found["onnx"], found["torch"]),
            "over_numpy": median_ratio(found["torch"], found["numpy"]),
            "graph_p50_us": latency["p50_us"],
        },
        peers={f"{name}_windows_per_s": value for name, value in median.items()}
        | {f"graph_{key}": value for key, value in latency.items()}
        | {f"graph_envelope_quantiles_{key}": value for key, value in auto.latency(runs).items()}
        | {"graph_bytes": len(desk.graph), "export_first_s": desk.export_s, "export_again_s": auto.export_s},
        targets={"over_tsfresh": "≥ 10", "graph_p50_us": "≤ 180"},
        notes={
            "method": f"one thread; medians of {repeats} interleaved rounds over {count} windows "
            f"(tsfresh {few}, onnxruntime batches of {BATCH}); a window is {len(CHANNELS)} × {N} samples, "
            f"{len(CHANNELS) * len(WORDS)} features",
            "tsfresh": "its frame is made before the clock starts; 16 Fourier coefficients replace bands",
            "graph": "one window a run, as on a device; beside it with 8 envelope bands and 5 quantiles more",
        }
        | ({} if tsfresh else {"over_tsfresh": "not installed: name an interpreter by --tsfresh-python"}),
        options=options,
    )


def _tsfresh_here() -> Path | None:
    return Path(sys.executable) if importlib.util.find_spec("tsfresh") else None


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument(
        "--tsfresh-python", type=Path, default=_tsfresh_here(), help="an interpreter that has tsfresh"
    )
    parser.add_argument("--tsfresh-worker", type=Path, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.tsfresh_worker:
        serve_tsfresh(parsed.tsfresh_worker)
    else:
        main(parsed)
