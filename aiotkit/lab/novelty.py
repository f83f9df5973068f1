"""How unlike anything in training a row is: distance over its limit; above 1 = the model does not know this.

Two distances of the prepared row z, each over its own limit; the larger counts.

*Anywhere*: Mahalanobis' to the mean of all rows, √((z − m)ᵀ Σ⁻¹ (z − m)), Σ shrunk (Ledoit and Wolf 2004).
It sees a row far from everything: a broken sensor, another machine.

*Between states*: to the nearest state's mean in the plane that the states' means span, with the covariance
within states (the distance of Lee et al. 2018, arXiv 1807.03888, in Fisher's discriminant plane). A state
that never occurred lies between or beside the known ones there, though no single column is out of range:
on the hydraulic rig it found the state left out in all but the accumulator, where the first alone found
next to nothing.

Limits are quantiles of out-of-fold distances of believed rows, on contiguous parts, of states that the part's
reference knew: ``ANYWHERE`` and ``BETWEEN`` of them lie below, so that known states are seldom called new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

from aiotkit.lab.heads.base import Floats, Ints, Rows, inner_folds
from aiotkit.lab.onnx_graph import Graph
from aiotkit.lab.prepare import Preparation, learn_preparation

#: shares of known rows below the limit, and the margin on top of the first
ANYWHERE, BETWEEN, MARGIN = 0.999, 0.99, 1.1
#: shrinkage within states where there are at least ``PLENTY`` rows a column (else Ledoit and Wolf's)
WITHIN, PLENTY = 1e-4, 2
PARTS = 8


@dataclass(frozen=True)
class Distance:
    """To the nearest of ``centres`` ``[k, r]`` after ``turn`` ``[columns, r]``, over ``limit``.

    ``turn`` holds float32 values, which halves the file; sums are taken in float64.
    """

    turn: Floats
    centres: Floats
    limit: float = 1.0

    def raw(self, z: Floats) -> Floats:
        """``[n, columns]`` to distances ``[n]``."""
        turned = z @ self.turn
        squares = np.stack([np.square(turned - c).sum(axis=1) for c in self.centres], axis=1)
        return np.asarray(np.sqrt(squares.min(axis=1)))

    def add_to(self, graph: Graph, z: str) -> str:
        """Distance over limit as nodes: ``[batch, 1]``."""
        axis = graph.constant(np.array([2], dtype=np.int64))
        turned = graph.op("Unsqueeze", graph.op("MatMul", z, self._turn(graph)), self._axis(graph))
        gap = graph.op("Sub", turned, graph.constant(self.centres[None]))
        squares = graph.op("ReduceSum", graph.op("Mul", gap, gap), axis, keepdims=0)
        nearest = graph.op("ReduceMin", squares, self._axis(graph), keepdims=1)
        return graph.op("Mul", graph.op("Sqrt", nearest), graph.number(1 / self.limit))

    def _turn(self, graph: Graph) -> str:
        return graph.to64(graph.constant(self.turn.astype(np.float32)))

    @staticmethod
    def _axis(graph: Graph) -> str:
        return graph.constant(np.array([1], dtype=np.int64))


@dataclass(frozen=True)
class Novelty:
    """The preparation and one or two distances."""

    preparation: Preparation
    distances: tuple[Distance, ...]

    def apply(self, x: NDArray[np.float32]) -> Floats:
        """``[n, columns]`` to the largest distance over its limit, ``[n]``."""
        z = self.preparation.apply(x)
        return np.asarray(np.max([d.raw(z) / d.limit for d in self.distances], axis=0))

    def add_to(self, graph: Graph, x: str) -> str:
        """The same as nodes: float64 ``[batch, 1]``."""
        z = self.preparation.add_to(graph, x)
        found = [d.add_to(graph, z) for d in self.distances]
        return found[0] if len(found) == 1 else graph.op("Max", *found)


def learn_novelty(rows: Rows, *, parts: int = PARTS) -> Novelty:
    """From believed training rows. With one state only the first distance alone."""
    preparation, distances = _reference(rows)
    held_out: list[list[Floats]] = [[] for _ in distances]
    for train, test in inner_folds(rows, parts):
        mine = rows.take(train)
        prepared, reference = _reference(mine)
        z = prepared.apply(rows.x[test])
        seen = np.isin(rows.y[test], np.unique(mine.y))
        for out, distance in zip(held_out, reference, strict=False):
            out.append(distance.raw(z)[seen])
    quantiles = ((ANYWHERE, MARGIN), (BETWEEN, 1.0))
    limited = [
        replace(d, limit=_limit(d, out, q, margin, preparation.apply(rows.x)))
        for d, out, (q, margin) in zip(distances, held_out, quantiles, strict=False)
    ]
    return Novelty(preparation, tuple(limited))


def _limit(distance: Distance, held_out: Sequence[Floats], share: float, margin: float, z: Floats) -> float:
    found = np.concatenate(held_out) if held_out else np.empty(0)
    within = float(np.quantile(distance.raw(z), share))
    outside = float(np.quantile(found, share)) if len(found) else 0.0
    return max(within, outside, 1e-9) * margin


def _reference(rows: Rows) -> tuple[Preparation, list[Distance]]:
    preparation = learn_preparation(rows.x, rows.weight)
    z = preparation.apply(rows.x)
    distances = [whole_distance(z)]
    states, code = np.unique(rows.y, return_inverse=True)
    if len(states) > 1:
        distances.append(_between(z, code.astype(np.int64), len(states)))
    return preparation, distances


def whole_distance(z: Floats) -> Distance:
    """Mahalanobis' distance to the mean of prepared rows, shrunk covariance; its limit is left at 1."""
    mean = z.mean(axis=0, keepdims=True)
    turn = _stored(_whitening(z - mean, _estimated(z - mean)))
    return Distance(turn, mean @ turn)


def _between(z: Floats, y: Ints, states: int) -> Distance:
    means = np.stack([z[y == k].mean(axis=0) for k in range(states)])
    deviations = z - means[y]
    share = WITHIN if len(z) >= PLENTY * z.shape[1] else _estimated(deviations)
    white = _whitening(deviations, share)
    _, sizes, axes = np.linalg.svd((means - means.mean(axis=0)) @ white, full_matrices=False)
    plane = axes[: states - 1][sizes[: states - 1] > 1e-9 * max(sizes[0], 1e-300)]
    if not len(plane):  # states with one and the same mean
        plane = axes[:1]
    turn = _stored(white @ plane.T)
    return Distance(turn, means @ turn)


def _stored(turn: Floats) -> Floats:
    """As it is after a round through float32."""
    return np.ascontiguousarray(turn).astype(np.float32).astype(np.float64)


def _estimated(deviations: Floats) -> float:
    return float(np.clip(ledoit_wolf_shrinkage(deviations, assume_centered=True), 1e-4, 1.0))


def _whitening(deviations: Floats, share: float) -> Floats:
    """W with WᵀΣW = I for the shrunk covariance Σ of centred rows."""
    covariance = deviations.T @ deviations / len(deviations)
    values, vectors = np.linalg.eigh(covariance)
    level = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    return np.asarray(vectors / np.sqrt((1 - share) * np.maximum(values, 0) + share * level))
