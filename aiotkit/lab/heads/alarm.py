"""From a score of strangeness to log-odds of two states, by its tail; formulas: see ``lab.detect``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.errors import DataError
from aiotkit.lab.heads.base import Floats, Windows
from aiotkit.lab.heads.detectors import Score
from aiotkit.lab.onnx_graph import Graph

#: where the tail's logarithm has knots, beside the largest score
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
#: furthest that a tail is extrapolated, ln π
FAINTEST = -30.0


@dataclass(frozen=True)
class Tail:
    """ln π as a function of the score: 0 up to the first knot, then linear between knots and beyond."""

    knots: Floats
    bends: Floats

    def log(self, score: Floats) -> Floats:
        """``[n]`` to ``[n]``, within [``FAINTEST``, 0]."""
        rises = np.maximum(score[:, None] - self.knots, 0.0)
        return np.asarray(np.maximum(rises @ self.bends, FAINTEST))

    def add_to(self, graph: Graph, score: str) -> str:
        """The same as nodes, ``[batch, 1]``."""
        rises = graph.op("Sub", score, graph.constant(self.knots[None]))
        rises = graph.op("Max", rises, graph.number(0.0))
        log = graph.op("MatMul", rises, graph.constant(self.bends[:, None]))
        return graph.op("Max", log, graph.number(FAINTEST))


def learn_tail(scores: Floats) -> Tail:
    """From out-of-fold scores of training rows."""
    n = len(scores)
    kept = [q for q in QUANTILES if (1 - q) * n >= 3] or [0.0]
    knots = np.unique(np.quantile(scores, [*kept, 1.0]))
    if len(knots) < 2:
        raise DataError("detector: every row has the same score", do="Look at the columns, or take another.")
    ordered = np.sort(scores)
    above = n - np.searchsorted(ordered, knots, side="left")
    log = np.log(np.maximum(above, 1) / (n + 1))
    log = log - log[0]
    slopes = np.minimum(np.diff(log) / np.diff(knots), 0.0)
    return Tail(knots, np.r_[slopes[0], np.diff(slopes), 0.0])


@dataclass(frozen=True)
class Alarm:
    """A fitted head of two states made of a score: ``logits`` are 0 and the log-odds of the rarer state.

    ``rare`` is its position (0 or 1); ``offset`` the log-odds at ln π = 0; ``bound`` whether the growth of
    the odds is Sellke's bound (declared prevalence), else −ln π itself (budget).
    """

    scorer: Score
    tail: Tail
    rare: int
    offset: float
    bound: bool
    settings: Mapping[str, float] = field(default_factory=dict)
    signals: tuple[str, ...] = ()

    def logits(self, x: NDArray[np.float32], windows: Windows) -> Floats:  # noqa: ARG002
        """``[n, 2]``."""
        return self.of_scores(self.scorer.score(x))

    def of_scores(self, scores: Floats) -> Floats:
        """Scores ``[n]`` to logits ``[n, 2]``."""
        log = self.tail.log(scores)
        odds = self.offset - (sellke(log) if self.bound else log)
        pair = [np.zeros_like(odds), odds]
        return np.stack(pair if self.rare == 1 else pair[::-1], axis=1)

    def add_to(self, graph: Graph, x: str, windows: Mapping[str, str]) -> str:  # noqa: ARG002
        """The same as nodes."""
        log = self.tail.add_to(graph, self.scorer.add_to(graph, x))
        if self.bound:
            small = graph.op("Min", log, graph.number(-1.0))
            log = graph.op(
                "Add", graph.op("Add", small, graph.op("Log", graph.op("Neg", small))), graph.number(1.0)
            )
        odds = graph.op("Sub", graph.number(self.offset), log)
        zero = graph.op("Mul", odds, graph.number(0.0))
        return graph.op("Concat", *((zero, odds) if self.rare == 1 else (odds, zero)), axis=1)


def sellke(log: Floats) -> Floats:
    """ln(−e·π·ln π) for ln π < −1, else 0: the least that a Bayes factor for the usual state can be.

    >>> float(np.exp(sellke(np.log(np.array([0.01])))[0]).round(3))
    0.125
    """
    small = np.minimum(log, -1.0)
    return np.asarray(1 + small + np.log(-small))
