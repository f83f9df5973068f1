"""The one pinned graph that decision times are measured on, and a window for it.

Three signals of 1,024 samples, 25 features each (moments, crest, zero crossings, 16 bands), two history
features and three context columns, standardised, into a linear head over two states, with a novelty. The
files lie in ``fixtures/reference``; ``python benchmarks/reference.py`` makes them again (with the workbench),
and then figures from before and after cannot be compared: the digest says which graph was measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from aiotkit.bundle.interface import interface_of
from aiotkit.core.canonical import digest
from aiotkit.core.decision import Decision, parse_decision
from aiotkit.core.records import DecisionInput, Reading

FOLDER = Path(__file__).parent / "fixtures" / "reference"
NAMES = ("decision.json", "graph.onnx", "interface.json")
DIGEST = "sha256:ede1d4a67c98cbb76903e4c452e53fe13040ee6396c7c934f065ac780164c016"
NOW_US = 1_767_603_600_000_000
WORDS = ("mean", "std", "min", "max", "rms", "p2p", "kurtosis", "crest", "zcr")
BANDS = 16
HISTORY = ("history.trend", "history.worst")
CONTEXT = ("context.load", "context.mode=idle", "context.mode=production")
STATES = ("ok", "worn")


def reference_files() -> dict[str, bytes]:
    """The files of the reference bundle, as they were pinned."""
    files = {name: (FOLDER / name).read_bytes() for name in NAMES}
    found = digest(b"".join(files[name] for name in NAMES))
    if found != DIGEST:
        raise SystemExit(f"{FOLDER}: expected {DIGEST}; found {found}. Set DIGEST, or take the files back.")
    return files


def reference_input(seed: int = 7, step: int = 0) -> DecisionInput:
    """An ordinary window of every signal, ``step`` windows after the first, and its context."""
    rng = np.random.default_rng([seed, step])
    windows = {name: rng.normal(0, 1, 1024).astype(np.float32) for name in ("x", "y", "z")}
    at_us = NOW_US + step * 1_024_000
    context = {"load": Reading(73.0, 2.0), "mode": Reading("production", 30.0), "ambient": Reading(21.5, 9.0)}
    return DecisionInput(f"bench/0/{step}", at_us, at_us, windows, context)


def reference_decision() -> Decision:
    """Six gates, a rule of three lines, a person who may be asked: a decision of ordinary size."""
    signal = {"unit": "m/s2", "sampling": {"kind": "regular", "rate_hz": 1000}, "range": [-50, 50]}
    document: dict[str, Any] = {
        "format": 1,
        "id": "reference",
        "revision": 1,
        "subject": "pump",
        "question": "Shall the pump run on, be slowed down or be stopped?",
        "site": {
            "name": "bench",
            "time_zone": "Europe/Berlin",
            "shifts": [
                {"name": "early", "days": ["mon", "tue", "wed", "thu", "fri"], "from": "06:00", "to": "14:00"}
            ],
        },
        "states": {"ok": {}, "worn": {}},
        "actions": {
            "run": {},
            "slow": {"actuator": "drive", "command": {"speed": 0.6}, "valid_for_s": 600, "intervenes": True},
            "stop": {"reversible": False, "actuator": "drive", "command": {"speed": 0.0}, "intervenes": True},
        },
        "costs": {
            "run": {"ok": 0, "worn": 5000},
            "slow": {"ok": 60, "worn": 900},
            "stop": {"ok": 400, "worn": 400},
        },
        "human": {"cost": 15, "delay_s": 300, "reliability": 0.9},
        "signals": {"x": signal, "y": signal, "z": signal},
        "window": {"length_s": 1.024, "every_s": 1.024, "max_bad_share": 0.02},
        "history": {
            "trend": {"of": "x.rms", "kind": "slope", "over_s": 3600},
            "worst": {"of": "y.p2p", "kind": "max", "over_s": 3600},
        },
        "context": {
            "load": {"unit": "%", "range": [0, 110], "max_age_s": 60},
            "mode": {"values": ["idle", "production"], "max_age_s": 600},
            "ambient": {"unit": "Cel", "range": [-30, 60], "max_age_s": 3600, "required": False},
        },
        "needs": {"deadline_ms": 100, "upload": "selected"},
        "autonomy": {"mode": "act", "actions": {"stop": "confirm"}},
        "verify": {"share": 0.05},
        "rule": [
            {"when": {"all": [{"field": "x.rms", "gt": 11}, {"field": "x.kurtosis", "gt": 2}]}, "do": "stop"},
            {"when": {"field": "y.rms", "gt": 7, "deadband": 0.5}, "do": "slow"},
            {"otherwise": "run"},
        ],
        "gates": [
            {
                "name": "producing",
                "require": {"field": "context.mode", "in": ["production"]},
                "actions": ["slow"],
            },
            {
                "name": "loaded",
                "require": {"field": "context.load", "ge": 20, "on_delay_s": 8},
                "actions": ["slow"],
            },
            {"name": "steady", "require": {"field": "x.p2p", "lt": 90}},
            {"name": "smooth", "require": {"field": "z.crest", "lt": 20}},
            {"name": "seldom", "at_most": {"count": 6, "per_s": 3600}, "actions": ["slow", "stop"]},
            {
                "name": "known",
                "family": "novelty",
                "require": {"field": "novelty", "le": 1},
                "otherwise": "ask",
            },
        ],
        "recovery": "run",
        "outcome": {
            "horizon_s": 86400,
            "maturity_s": 172800,
            "silence": "ok",
            "sources": {"workshop": {"reports": ["ok", "worn"]}},
        },
    }
    return parse_decision(document)


def make_files() -> dict[str, bytes]:
    """The files, made anew."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from aiotkit.lab.features import canonical_graph, export_front

    decision = reference_decision()
    words = (*WORDS, *(f"band_{i + 1}of{BANDS}" for i in range(BANDS)))
    graph, front = export_front(decision, tuple(f"{s}.{w}" for s in ("x", "y", "z") for w in words))
    interface = interface_of(
        decision, states=STATES, features=front.features, history=HISTORY, context=CONTEXT, novelty=True
    )
    model = onnx.load_from_string(graph)
    width, rng = len(front.features) + len(HISTORY) + len(CONTEXT), np.random.default_rng(1)
    weights = {
        "head_mean": rng.normal(0, 0.1, (1, width)),
        "head_scale": rng.uniform(0.5, 1.5, (1, width)),
        "head_w": rng.normal(0, 0.02, (width, 2)),
        "head_b": np.array([2.5, -2.5]),
        "head_limit": np.array([50.0 * width]),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "head_axis"))
    node = helper.make_node
    model.graph.node.extend(
        [
            node("Concat", ["features", "history", "context"], ["head_x"], axis=1),
            node("IsNaN", ["head_x"], ["head_unknown"]),
            node("Where", ["head_unknown", "head_mean", "head_x"], ["head_known"]),
            node("Sub", ["head_known", "head_mean"], ["head_centred"]),
            node("Mul", ["head_centred", "head_scale"], ["head_z"]),
            node("Gemm", ["head_z", "head_w", "head_b"], ["head_logits"]),
            node("Softmax", ["head_logits"], ["p"], axis=1),
            node("ReduceSumSquare", ["head_z", "head_axis"], ["head_distance"], keepdims=1),
            node("Div", ["head_distance", "head_limit"], ["novelty"]),
        ]
    )
    for name, size, where in (
        ("history", len(HISTORY), model.graph.input),
        ("context", len(CONTEXT), model.graph.input),
        ("p", 2, model.graph.output),
        ("novelty", 1, model.graph.output),
    ):
        where.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]))
    return {
        "decision.json": decision.canonical(),
        "graph.onnx": canonical_graph(model),
        "interface.json": interface.canonical(),
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = make_files()
    for name in NAMES:
        (FOLDER / name).write_bytes(made[name])
    print(digest(b"".join(made[name] for name in NAMES)))
