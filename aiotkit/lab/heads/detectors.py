"""Detectors: scores of strangeness that need no labels. One class a detector; ``DETECTORS`` lists them.

A score is made an action's concern by ``lab.detect``, through its tail probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from aiotkit.lab.heads.base import Floats, Rows
from aiotkit.lab.heads.trees import Tree, add_trees
from aiotkit.lab.novelty import Distance, whole_distance
from aiotkit.lab.onnx_graph import Graph
from aiotkit.lab.prepare import Preparation, learn_preparation

#: share of the variance that the autoencoder keeps
KEPT = 0.9


class Score(Protocol):
    """How strange a row is; larger is stranger."""

    def score(self, x: NDArray[np.float32]) -> Floats:
        """``[n, columns]`` to ``[n]``."""
        ...

    def add_to(self, graph: Graph, x: str) -> str:
        """The same as nodes: float64 ``[batch, 1]``."""
        ...


class Detector(Protocol):
    """A way to learn a score from rows of mostly the usual state."""

    @property
    def name(self) -> str:
        """As in tables and files."""
        ...

    def learn(self, rows: Rows, *, seed: int) -> Score:
        """Learn from rows; ``y`` is not read."""
        ...


@dataclass(frozen=True)
class _Far:
    """A distance of the prepared row."""

    preparation: Preparation
    distance: Distance

    def score(self, x: NDArray[np.float32]) -> Floats:
        """``[n]``."""
        return self.distance.raw(self.preparation.apply(x))

    def add_to(self, graph: Graph, x: str) -> str:
        """``[batch, 1]``."""
        return self.distance.add_to(graph, self.preparation.add_to(graph, x))


@dataclass(frozen=True)
class Mahalanobis:
    """Distance to the mean with a shrunk covariance (Mahalanobis 1936; Ledoit and Wolf 2004)."""

    name: str = "mahalanobis"

    def learn(self, rows: Rows, *, seed: int) -> Score:  # noqa: ARG002
        """Learn; nothing is random."""
        preparation = learn_preparation(rows.x, rows.weight)
        return _Far(preparation, whole_distance(preparation.apply(rows.x)))


@dataclass(frozen=True)
class Autoencoder:
    """What a linear autoencoder cannot rebuild: the part outside the first principal components.

    A linear autoencoder learns exactly those (Baldi and Hornik 1989), so they are taken from the covariance.
    """

    name: str = "autoencoder"
    kept: float = KEPT

    def learn(self, rows: Rows, *, seed: int) -> Score:  # noqa: ARG002
        """Learn; nothing is random."""
        preparation = learn_preparation(rows.x, rows.weight)
        z = preparation.apply(rows.x)
        values, vectors = np.linalg.eigh(z.T @ z / len(z))
        shares = np.cumsum(values[::-1]) / values.sum()
        inside = min(int(np.searchsorted(shares, self.kept)) + 1, len(values) - 1)
        outside = vectors[:, : len(values) - inside].astype(np.float32).astype(np.float64)
        return _Far(preparation, Distance(outside, np.zeros((1, outside.shape[1]))))


@dataclass(frozen=True)
class _Isolated:
    """2^(−mean depth / usual depth) of a row in random trees, in (0, 1)."""

    preparation: Preparation
    model: Any

    def score(self, x: NDArray[np.float32]) -> Floats:
        """``[n]``."""
        return -np.asarray(self.model.score_samples(self.preparation.filled(x).astype(np.float32)))

    def add_to(self, graph: Graph, x: str) -> str:
        """One node for the trees' depths."""
        model = self.model
        trees = [
            _depths(one.tree_, columns)
            for one, columns in zip(model.estimators_, model.estimators_features_, strict=True)
        ]
        usual = len(trees) * float(usual_depth(np.array([model.max_samples_]))[0])
        filled = graph.to32(self.preparation.add_filled(graph, x))
        depth = graph.to64(add_trees(graph, filled, trees, np.zeros(1)))
        return graph.op("Pow", graph.number(2.0), graph.op("Mul", depth, graph.number(-1 / usual)))


def usual_depth(n: NDArray[Any]) -> Floats:
    """Mean depth of an unsuccessful search in a binary tree of ``n`` rows (Liu et al. 2008, eq. 1)."""
    n = np.asarray(n, dtype=np.float64)
    safe = np.maximum(n, 3)
    long = 2 * (np.log(safe - 1) + np.euler_gamma) - 2 * (safe - 1) / safe
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, long))


def _depths(tree: Any, columns: NDArray[np.int64]) -> Tree:
    left, right = tree.children_left.astype(np.int64), tree.children_right.astype(np.int64)
    depth, leaf = np.zeros(len(left)), left < 0
    for node in np.flatnonzero(~leaf):  # a parent comes before its children
        depth[left[node]] = depth[right[node]] = depth[node] + 1
    value = np.where(leaf, depth + usual_depth(tree.n_node_samples), 0.0)
    return Tree(
        column=np.where(leaf, 0, np.asarray(columns)[np.maximum(tree.feature, 0)]).astype(np.int64),
        threshold=np.where(leaf, 0.0, tree.threshold),
        left=left,
        right=right,
        value=value[:, None],
        unknown_left=np.zeros(len(left), dtype=bool),
    )


@dataclass(frozen=True)
class Isolation:
    """Isolation forest (Liu, Ting and Zhou 2008)."""

    name: str = "isolation"
    trees: int = 100

    def learn(self, rows: Rows, *, seed: int) -> Score:
        """Learn; ``seed`` is of the rows and cuts drawn."""
        preparation = learn_preparation(rows.x, rows.weight)
        model = IsolationForest(n_estimators=self.trees, random_state=seed)
        model.fit(preparation.filled(rows.x).astype(np.float32))
        return _Isolated(preparation, model)


#: simplest first
DETECTORS: Mapping[str, Detector] = {d.name: d for d in (Mahalanobis(), Autoencoder(), Isolation())}
