"""What eight-bit integers are worth, network by network, on this computer.

Two networks are trained by the package on simulated vibration (three signals of 1,024 samples, one in three
rows with a worn bearing's impacts): an MLP on window features and a 1-D CNN on the raw windows. Each is
exported, its head quantized in three ways, and every variant is measured in a fresh process side by side with
float32. Reported is the fastest integer variant. Beside it onnxruntime's own quantization with its defaults,
of the whole graph (features too), dynamic and static.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from common import arguments, progress, report
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static

from aiotkit.core.decision import Decision, parse_decision
from aiotkit.core.errors import AiotkitError, BundleError
from aiotkit.lab.examples import ROWS, Examples
from aiotkit.lab.features import Front, compute_features
from aiotkit.lab.recipe import recipe
from aiotkit.lab.train import train
from aiotkit.release.bench import ONE, bench
from aiotkit.release.choose import Measured, choose, measure
from aiotkit.release.export import Exported, export
from aiotkit.release.parity import open_session, run_graph
from aiotkit.release.quantize import calibration_of, variants

SIGNALS, SAMPLES, RATE_HZ = ("x", "y", "z"), 1024, 1000
SUBJECTS = 12
NETWORKS = ("mlp", "cnn")
START_US = 1_767_225_600_000_000


def made_up_decision() -> Decision:
    """Run on or stop, three vibration signals; asking a person is dear."""
    signal = {"unit": "m/s2", "sampling": {"kind": "regular", "rate_hz": RATE_HZ}, "range": [-50, 50]}
    return parse_decision(
        {
            "format": 1,
            "id": "quantize",
            "revision": 1,
            "subject": "pump",
            "question": "Shall the pump be stopped?",
            "site": {"name": "bench"},
            "states": {"ok": {}, "worn": {}},
            "actions": {"run": {}, "stop": {"intervenes": True}},
            "costs": {"run": {"ok": 0, "worn": 500}, "stop": {"ok": 80, "worn": 80}},
            "signals": dict.fromkeys(SIGNALS, signal),
            "window": {"length_s": SAMPLES / RATE_HZ, "every_s": 60},
            "needs": {"deadline_ms": 100},
            "rule": [{"when": {"field": "x.rms", "gt": 3}, "do": "stop"}, {"otherwise": "run"}],
            "recovery": "run",
            "outcome": {
                "horizon_s": 3600,
                "maturity_s": 3600,
                "silence": "ok",
                "sources": {"workshop": {"reports": ["worn"]}},
            },
        }
    )


def made_up_examples(decision: Decision, n: int, seed: int) -> Examples:
    """Vibration in noise; a worn bearing adds impacts of a size that is easily missed."""
    rng = np.random.default_rng(seed)
    worn = rng.random(n) < 1 / 3
    t = np.arange(SAMPLES) / RATE_HZ
    size = rng.uniform(0.5, 1.5, (n, 1)) * worn[:, None]
    ring = np.exp(-((t % 0.03) * 300)) * np.sin(2 * np.pi * 310 * t)
    windows = {}
    for name, gain in zip(SIGNALS, (1.0, 0.7, 0.4), strict=True):
        hum = np.sin(2 * np.pi * (25 * t + rng.random((n, 1))))
        windows[name] = (hum + gain * size * ring + rng.normal(0, 0.5, (n, SAMPLES))).astype(np.float32)
    names = recipe(decision, "auto")
    front = Front(decision, names)
    each = n // SUBJECTS
    rows = pd.DataFrame(
        {
            "subject": [f"pump-{i}" for i in np.minimum(np.arange(n) // each, SUBJECTS - 1)],
            "at_us": START_US + np.arange(n) * 3_600_000_000,
            "state": np.where(worn, "worn", "ok"),
            "status": "mature",
            "confidence": 1.0,
            "in_force": "run",
            "verify_hit": False,
            "verify_p": 0.0,
            "key": "",
        }
    )[list(ROWS)]
    x = compute_features(front.eval(), windows)
    return Examples(rows, tuple(front.names), x, windows, {"seed": str(seed)})


class _Rows(CalibrationDataReader):
    """Windows for onnxruntime's own static quantization, one batch."""

    def __init__(self, examples: Examples) -> None:
        self._left = iter([{name: np.asarray(w[:256]) for name, w in examples.windows.items()}])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._left, None)


def defaults(exported: Exported, examples: Examples, runs: int) -> dict[str, Any]:
    """Speed, size and flips of onnxruntime's defaults on the whole graph; a refusal in its words."""
    exact = run_graph(open_session(exported.graph), dict(examples.windows), "float32")["p"].argmax(axis=1)
    ways = {
        "dynamic": quantize_dynamic,
        "static": lambda given, out: quantize_static(given, out, _Rows(examples)),
    }
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, way in ways.items():
            given, out = Path(folder) / "given.onnx", Path(folder) / f"{name}.onnx"
            given.write_bytes(exported.graph)
            try:
                way(given, out)
                graph = out.read_bytes()
                p = run_graph(open_session(graph), dict(examples.windows), name)["p"]
            except (BundleError, RuntimeError, TypeError, ValueError) as error:
                found[f"onnxruntime_{name}"] = f"refused: {str(error).splitlines()[0][:80]}"
                continue
            one = bench(graph, reference=exported.graph, runs=runs, threads=[ONE])["threads"][ONE]
            found[f"onnxruntime_{name}_speedup"] = one["speedup"]
            found[f"onnxruntime_{name}_size_ratio"] = len(graph) / len(exported.graph)
            found[f"onnxruntime_{name}_label_flips"] = float((p.argmax(axis=1) != exact).mean())
    return found


def fastest(measured: list[Measured]) -> Measured | None:
    """The integer variant that took least time."""
    made = [m for m in measured[1:] if m.bench]
    return max(made, key=lambda m: float(m.bench["threads"][ONE]["speedup"]), default=None)


def one_network(
    family: str, examples: Examples, decision: Decision, options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Figures, peers and notes of one network."""
    runs = 50 if options.quick else 1000
    progress(f"{family}: training")
    trained = train(examples, decision, families=(family,), folds=3, seed=1).trained
    exported = export(decision, trained, {n: w[:64] for n, w in examples.windows.items()})
    progress(f"{family}: quantizing and measuring")
    started = time.perf_counter()
    measured = measure(
        variants(exported, calibration_of(exported, examples, seed=1)), examples, decision, runs=runs
    )
    seconds = time.perf_counter() - started
    best = fastest(measured)
    names = ("speedup", "size_ratio", "flips", "cost_lost")
    figures: dict[str, Any] = {f"{family}_{name}": None for name in names} | {f"{family}_search_s": seconds}
    notes = {f"{family} chosen": choose(measured, decision).variant.name}
    peers = {f"{family}_{m.variant.name}": m.words for m in measured[1:]}
    if best is None:
        notes |= {f"{family}_{name}": measured[1].words for name in names}
    else:
        row = best.row()
        notes[f"{family} reported"] = best.variant.name
        figures |= {
            f"{family}_speedup": row["speedup"],
            f"{family}_size_ratio": len(best.variant.graph or b"") / len(exported.graph),
            f"{family}_flips": best.flips_share,
            f"{family}_cost_lost": best.money_lost,
        }
    base = measured[0].row()
    peers |= {f"{family}_float32_{k}": base[k] for k in ("p50_us", "p99_us", "head_p50_us", "size_bytes")}
    peers |= {f"{family}_{k}": v for k, v in defaults(exported, examples, runs).items()}
    heads = len({n.op_type for n in onnx.load_from_string(exported.head).graph.node})
    return figures, peers, notes | {f"{family} head": f"{len(exported.head):,} bytes, {heads} kinds of nodes"}


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    decision = made_up_decision()
    examples = made_up_examples(decision, 240 if options.quick else 1200, seed=3)
    figures: dict[str, Any] = {}
    peers: dict[str, Any] = {}
    notes = {
        "method": "speedup: float32's time over the variant's, whole graph, one thread, one row, in turns; "
        "flips: share of rows with another action; cost_lost: per subject-day",
    }
    for family in NETWORKS:
        try:
            found = one_network(family, examples, decision, options)
        except AiotkitError as error:
            names = ("speedup", "size_ratio", "flips", "cost_lost", "search_s")
            figures |= {f"{family}_{name}": None for name in names}
            notes |= {f"{family}_{name}": str(error) for name in names}
            continue
        for into, part in zip((figures, peers, notes), found, strict=True):
            into |= part
    progress("")
    report("quantize", figures, peers=peers, targets={}, notes=notes, options=options)


if __name__ == "__main__":
    main(arguments(__doc__).parse_args())
