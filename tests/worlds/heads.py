"""Heads built by hand, node by node, with what a library would compute for them in float64."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from worlds.bundles import decision_of

from aiotkit.bundle.interface import FEATURES
from aiotkit.core.decision import Decision
from aiotkit.lab.examples import Examples, context_columns, history_columns
from aiotkit.lab.trained import Trained
from aiotkit.release.export import Exported, export
from aiotkit.release.held_out import HeldOut

Array = NDArray[np.float64]
START_US = 1_767_225_600_000_000  # 2026-01-01


def trained_head(
    decision: Decision, columns: Sequence[str], *, kind: str = "linear", seed: int = 0, **changes: Any
) -> Trained:
    """A head over ``columns`` with its probe rows; ``changes`` replace fields.

    ``kind``: ``linear``; ``mlp`` (two layers of 64); ``tree`` (one split on the first column).
    """
    rng = np.random.default_rng(seed)
    made = {"linear": _linear, "mlp": _mlp, "tree": _tree}[kind](rng, len(columns), len(decision.states))
    probe_x = rng.normal(0, 3, (300, len(columns))).astype(np.float32)
    probe_x[::17, 0] = np.nan
    fields: dict[str, Any] = {
        "decision_digest": decision.digest,
        "family": kind,
        "features": tuple(sorted(c for c in columns if not c.startswith(("history.", "context.")))),
        "columns": tuple(columns),
        "signals": (),
        "states": tuple(decision.states),
        "head": model_of(*made.nodes),
        "probe_x": probe_x,
        "probe_p": made.library(probe_x.astype(np.float64)),
        "table": [{"family": kind, "money": 1.0, "chosen": True}],
        "figures": {"log_loss": 0.2},
        "seed": seed,
    }
    return Trained(**(fields | changes))


class _Head:
    """Nodes, weights and sizes of a graph, and the same in numpy."""

    def __init__(self, nodes: tuple[Any, ...], library: Any) -> None:
        self.nodes, self.library = nodes, library


def model_of(
    nodes: list[Any], weights: dict[str, Any], columns: int, states: int, source: str = FEATURES
) -> bytes:
    """A head file: ``x`` (or one signal) to ``p`` and, where a node makes it, ``novelty``."""
    outputs = {"p": states, "novelty": 1}
    made = {name for node in nodes for name in node.output}
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["batch", columns])],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", k])
            for n, k in outputs.items()
            if n in made
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=9, producer_name="by hand")
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _known(nodes: list[Any], weights: dict[str, Any]) -> None:
    weights["zero"] = np.zeros(1, np.float32)
    nodes.append(helper.make_node("IsNaN", [FEATURES], ["unknown"]))
    nodes.append(helper.make_node("Where", ["unknown", "zero", FEATURES], ["known"]))


def _linear(rng: np.random.Generator, columns: int, states: int) -> _Head:
    w, b = rng.normal(0, 1, (columns, states)), rng.normal(0, 1, states)
    nodes: list[Any] = []
    weights: dict[str, Any] = {"w": w.astype(np.float32), "b": b.astype(np.float32)}
    _known(nodes, weights)
    nodes.append(helper.make_node("Gemm", ["known", "w", "b"], ["z"]))
    nodes.append(helper.make_node("Softmax", ["z"], ["p"], axis=1))
    _far(nodes, weights)
    return _Head((nodes, weights, columns, states), lambda x: softmax(np.nan_to_num(x) @ w + b))


def _mlp(rng: np.random.Generator, columns: int, states: int) -> _Head:
    sizes = [columns, 64, 64, states]
    layers = [rng.normal(0, 1 / np.sqrt(n), (n, m)) for n, m in pairwise(sizes)]
    nodes: list[Any] = []
    weights: dict[str, Any] = {f"w{i}": w.astype(np.float32) for i, w in enumerate(layers)}
    _known(nodes, weights)
    last = "known"
    bias = rng.normal(0, 0.1, 64)
    weights["b1"] = bias.astype(np.float32)
    for i in range(3):
        given = [last, f"w{i}"] + (["b1"] if i == 1 else [])
        nodes.append(helper.make_node("Gemm" if i == 1 else "MatMul", given, [f"z{i}"]))
        last = f"h{i}" if i < 2 else "z2"
        if i < 2:
            nodes.append(helper.make_node("Relu", [f"z{i}"], [last]))
    nodes.append(helper.make_node("Softmax", [last], ["p"], axis=1))
    _far(nodes, weights)

    def library(x: Array) -> Array:
        h = np.nan_to_num(x)
        for i, w in enumerate(layers[:-1]):
            h = np.maximum(h @ w + i * bias, 0)
        return softmax(h @ layers[-1])

    return _Head((nodes, weights, columns, states), library)


def _tree(_: np.random.Generator, columns: int, states: int) -> _Head:
    nodes: list[Any] = []
    weights: dict[str, Any] = {}
    _known(nodes, weights)
    leaves = np.full((2, states), 0.1 / max(1, states - 1)).round(6)
    leaves[0, 0] = leaves[1, states - 1] = 1 - leaves[0, 1] * (states - 1)
    options = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "class_treeids": [0] * 2 * states,
        "class_nodeids": [1] * states + [2] * states,
        "class_ids": [*range(states)] * 2,
        "class_weights": [float(v) for v in leaves.ravel()],
        "classlabels_int64s": [*range(states)],
        "post_transform": "NONE",
    }
    nodes.append(
        helper.make_node("TreeEnsembleClassifier", ["known"], ["label", "p"], domain="ai.onnx.ml", **options)
    )
    return _Head(
        (nodes, weights, columns, states), lambda x: leaves[(np.nan_to_num(x)[:, 0] > 0.5).astype(int)]
    )


def _far(nodes: list[Any], weights: dict[str, Any]) -> None:
    """``novelty``: the largest magnitude among the columns, over 200."""
    weights["limit"] = np.full(1, 200, np.float32)
    weights["last_axis"] = np.array([1], np.int64)
    nodes.append(helper.make_node("Abs", ["known"], ["size"]))
    nodes.append(helper.make_node("ReduceMax", ["size", "last_axis"], ["largest"], keepdims=1))
    nodes.append(helper.make_node("Div", ["largest", "limit"], ["novelty"]))


def softmax(z: Array) -> Array:
    """Along the last axis."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


COLUMNS = (
    "vib.rms",
    "temp.mean",
    "history.vib_trend",
    "vib.kurtosis",
    "context.load",
    "context.mode=cleaning",
    "context.mode=production",
)


@cache
def exported_head(kind: str = "linear") -> Exported:
    """A hand-made head over ``COLUMNS``, exported for the bearing decision of ``worlds.bundles``."""
    decision = decision_of()
    return export(decision, trained_head(decision, COLUMNS, kind=kind))


def pump_examples(decision: Decision, *, n: int = 240, windows: bool = False, seed: int = 0) -> Examples:
    """Rows of six pumps every six hours; a third of the time the bearing is worn, some labels are pending."""
    rng = np.random.default_rng(seed)
    each = n // 6
    step = 6 * 3_600_000_000
    state = np.where((np.arange(n) % each) % 12 < 8, "ok", "worn").astype(object)
    status = np.where(rng.random(n) < 0.1, "pending", "mature")
    rows = pd.DataFrame(
        {
            "subject": [f"pump-{i // each}" for i in range(n)],
            "at_us": START_US + np.tile(np.arange(each), 6) * step,
            "state": np.where(status == "pending", None, state),
            "status": status,
            "confidence": 1.0,
            "in_force": "run",
            "verify_hit": False,
            "verify_p": 0.05,
            "key": "",
        }
    )
    columns = (*decision.features(), *history_columns(decision), *context_columns(decision))
    x = rng.normal(0, 3, (n, len(columns))).astype(np.float32)
    at = columns.index("context.mode=production")
    x[:, at] = rng.random(n) < 0.8
    x[:, columns.index("context.mode=cleaning")] = 1 - x[:, at]
    x[:, columns.index("context.load")] = rng.uniform(20, 150, n)
    x[::19, 0] = np.nan
    return Examples(rows, columns, x, _windows(decision, n, rng) if windows else {}, {"lake": "v1"})


def _windows(decision: Decision, n: int, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    return {
        name: rng.normal(1.0, 0.5, (n, decision.samples(name))).clip(*signal.range).astype(np.float32)
        for name, signal in decision.signals.items()
    }


def held_out(
    decision: Decision, *, subjects: int = 10, days: int = 24, doubt: float = 0.0005, seed: int = 0
) -> HeldOut:
    """Labelled rows every six hours with probabilities that are right up to ``doubt``; the rule runs on.

    Each pump is worn on every eighth day, another day for each.
    """
    rng = np.random.default_rng(seed)
    n = subjects * days * 4
    subject, day = np.divmod(np.arange(n) // 4, days)
    worn = (day + subject) % 8 == 0
    rows = pd.DataFrame(
        {
            "subject": [f"pump-{s}" for s in subject],
            "at_us": START_US + (np.arange(n) % (days * 4)) * 6 * 3_600_000_000,
            "state": np.where(worn, "worn", "ok"),
        }
    )
    noise = rng.uniform(0, 2 * doubt, n)
    p = np.where(worn, 1 - noise, noise)
    return HeldOut(
        rows=rows,
        p=np.stack([1 - p, p], axis=1),
        novelty=np.full(n, 0.5),
        policies={"rule": np.full(n, "run", dtype=object)},
        slices={"first half": day < days / 2, "second half": day >= days / 2},
    )
