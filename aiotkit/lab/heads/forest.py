"""Random forest (Breiman 2001), thresholds snapped so that no branch differs between library and graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from aiotkit.lab.heads.base import Floats, Progress, Rows, Windows
from aiotkit.lab.heads.trees import Tree, add_trees
from aiotkit.lab.onnx_graph import Graph
from aiotkit.lab.prepare import Preparation, learn_preparation

#: votes are rounded to it, in library and graph alike: a tie stays a tie whatever the order of sums
GRAIN = 1e-5


@dataclass(frozen=True)
class Forest:
    """Trees on imputed columns; logits are logarithms of the mean vote, at least ``GRAIN``."""

    preparation: Preparation
    model: Any
    settings: Mapping[str, float] = field(default_factory=dict)
    signals: tuple[str, ...] = ()

    def logits(self, x: NDArray[np.float32], windows: Windows) -> Floats:  # noqa: ARG002
        """``[n, classes]``."""
        votes = self.model.predict_proba(self.preparation.filled(x).astype(np.float32))
        return np.asarray(np.log(np.clip(np.round(votes / GRAIN), 1.0, None) * GRAIN))

    def add_to(self, graph: Graph, x: str, windows: Mapping[str, str]) -> str:  # noqa: ARG002
        """One node for the trees, rounding and a logarithm."""
        filled = graph.to32(self.preparation.add_filled(graph, x))
        count = len(self.model.estimators_)
        trees = [_tree(one.tree_, count) for one in self.model.estimators_]
        votes = graph.to64(add_trees(graph, filled, trees, np.zeros(trees[0].value.shape[1])))
        steps = graph.op("Round", graph.op("Mul", votes, graph.number(1 / GRAIN)))
        return graph.op(
            "Log", graph.op("Mul", graph.op("Max", steps, graph.number(1.0)), graph.number(GRAIN))
        )


def _tree(tree: Any, count: int) -> Tree:
    leaf = tree.children_left < 0
    votes = tree.value[:, 0, :]
    votes = votes / votes.sum(axis=1, keepdims=True) / count
    return Tree(
        column=np.where(leaf, 0, tree.feature).astype(np.int64),
        threshold=np.where(leaf, 0.0, tree.threshold),
        left=tree.children_left.astype(np.int64),
        right=tree.children_right.astype(np.int64),
        value=votes * leaf[:, None],
        unknown_left=np.zeros(len(leaf), dtype=bool),
    )


@dataclass(frozen=True)
class RandomForest:
    """``trees`` of at most ``depth`` levels, leaves of at least ``leaf`` rows: small enough for a device."""

    name: str = "forest"
    trees: int = 100
    depth: int = 12
    leaf: int = 5

    def fit(self, rows: Rows, *, seed: int, progress: Progress) -> Forest:
        """Learn; ``seed`` is of the rows and columns drawn."""
        preparation = learn_preparation(rows.x, rows.weight)
        model = RandomForestClassifier(
            n_estimators=self.trees, max_depth=self.depth, min_samples_leaf=self.leaf, random_state=seed
        )
        model.fit(preparation.filled(rows.x).astype(np.float32), rows.y, sample_weight=rows.weight)
        progress(1.0)
        return Forest(preparation, model, {"trees": float(self.trees), "depth": float(self.depth)})
