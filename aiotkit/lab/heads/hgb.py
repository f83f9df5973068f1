"""Histogram gradient boosting (as LightGBM, Ke et al. 2017); unknown values are a branch of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from aiotkit.lab.heads.base import Floats, Ints, Progress, Rows, Spread, Windows, inner_folds, score
from aiotkit.lab.heads.trees import Tree, add_trees
from aiotkit.lab.onnx_graph import LARGEST, Graph
from aiotkit.lab.prepare import informative

STAGES = (10, 20, 40, 80)


@dataclass(frozen=True)
class Boosted:
    """The trees that inner validation kept, over the columns ``keep``."""

    model: Any
    keep: Ints
    settings: Mapping[str, float] = field(default_factory=dict)
    signals: tuple[str, ...] = ()

    def logits(self, x: NDArray[np.float32], windows: Windows) -> Floats:  # noqa: ARG002
        """``[n, classes]``: the ensemble's raw sums."""
        return _raw(self.model.decision_function(finite(x[:, self.keep])))

    def add_to(self, graph: Graph, x: str, windows: Mapping[str, str]) -> str:  # noqa: ARG002
        """One node."""
        base = np.atleast_1d(np.asarray(self.model._baseline_prediction, dtype=np.float64).ravel())
        trees = [
            _tree(predictor.nodes, k, len(base))
            for iteration in self.model._predictors
            for k, predictor in enumerate(iteration)
        ]
        raw = graph.to64(add_trees(graph, add_finite(graph, graph.columns(x, self.keep)), trees, base))
        if len(base) > 1:
            return raw
        zero = graph.op("Mul", raw, graph.number(0.0))
        return graph.op("Concat", zero, raw, axis=1)


def finite(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Infinity is unknown too."""
    return np.where(np.abs(x) <= LARGEST, x, np.float32(np.nan))


def add_finite(graph: Graph, x: str) -> str:
    """``finite`` as nodes."""
    fine = graph.op("LessOrEqual", graph.op("Abs", x), graph.constant(np.array(LARGEST, np.float32)))
    return graph.op("Where", fine, x, graph.constant(np.array(np.nan, np.float32)))


def _raw(found: Floats) -> Floats:
    return np.stack([np.zeros_like(found), found], axis=1) if found.ndim == 1 else np.asarray(found)


def _tree(nodes: Any, target: int, targets: int) -> Tree:
    leaf = nodes["is_leaf"].astype(bool)
    value = np.zeros((len(nodes), targets))
    value[leaf, target] = nodes["value"][leaf]
    return Tree(
        column=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        value=value,
        unknown_left=nodes["missing_go_to_left"].astype(bool),
    )


@dataclass(frozen=True)
class Boosting:
    """The number of trees is chosen by inner validation on contiguous parts, not on shuffled rows."""

    name: str = "hgb"
    stages: tuple[int, ...] = STAGES
    leaves: int = 15

    def fit(self, rows: Rows, *, seed: int, progress: Progress) -> Boosted:
        """Learn; ``seed`` is of the binning's subsample, used beyond 200,000 rows only."""
        held_out: list[list[Floats]] = [[] for _ in self.stages]
        order: list[NDArray[np.int64]] = []
        parts = list(inner_folds(rows, 2))
        for i, (train, test) in enumerate(parts):
            mine, spread = rows.take(train), Spread.of(rows.y[train], rows.classes)
            if len(spread.present) < 2:
                continue
            model, keep = self._fitted(mine, spread.compact(mine.y), self.stages[-1], seed)
            staged = list(model.staged_decision_function(finite(rows.x[test][:, keep])))
            for out, stage in zip(held_out, self.stages, strict=True):
                out.append(spread.widen(_raw(_flat(staged[min(stage, len(staged)) - 1]))))
            order.append(test)
            progress((i + 1) / (len(parts) + 1))
        best, loss = 2, 0.0
        if order:
            rest = np.concatenate(order)
            losses = [score(np.concatenate(out), rows.y[rest], rows.weight[rest]) for out in held_out]
            best = int(np.argmin(np.round(losses, 6)))
            loss = losses[best]
        model, keep = self._fitted(rows, rows.y, self.stages[best], seed)
        progress(1.0)
        return Boosted(model, keep, {"trees": float(self.stages[best]), "inner_loss": float(loss)})

    def _fitted(self, rows: Rows, y: Ints, trees: int, seed: int) -> tuple[Any, Ints]:
        """A model and its columns: scikit-learn cannot bin one without a value."""
        keep, _ = informative(rows.x, [""] * rows.x.shape[1])
        model = HistGradientBoostingClassifier(
            max_iter=trees,
            learning_rate=0.1,
            max_bins=63,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=10,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=seed,
        )
        return model.fit(finite(rows.x[:, keep]), y, sample_weight=rows.weight), keep


def _flat(found: Floats) -> Floats:
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
