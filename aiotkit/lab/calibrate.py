"""Calibration of logits: p = softmax(l / T + b), with T and b from rows the head was not fitted on.

l are the logits below their largest, none lower than −``SUREST``: a row unlike anything in training makes a
head sure beyond all measure, and a single such row that is wrong would flatten every other.

Temperature scaling with a bias a state (Guo et al. 2017, arXiv 1706.04599; "bias-corrected temperature",
Alexandari et al. 2020, arXiv 1901.06852). T and b minimise the weighted log-loss plus ``RIDGE``·|b|²/n.
Few labels: no bias where a state has fewer than ``FOR_BIAS`` rows, nothing below ``FOR_TEMPERATURE`` rows.
Biases must also help on folds they were not fitted on; where folds are blocks of time there are none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from aiotkit.lab.onnx_graph import Graph

Floats = NDArray[np.float64]
RIDGE = 5.0
FOR_BIAS, FOR_TEMPERATURE = 30, 20
#: sharpest and flattest temperature
_RANGE = (0.05, 200.0)
#: a state a head has never seen: its probability is zero at any temperature
NEVER = -1e9
#: how far a logit may lie below the largest before calibration
SUREST = 30.0


@dataclass(frozen=True)
class Calibration:
    """Temperature and one bias a state (``[states]``)."""

    temperature: float
    bias: Floats

    def apply(self, logits: Floats) -> Floats:
        """``[n, states]`` logits to probabilities; a logit of ``NEVER`` stays at zero."""
        return np.asarray(softmax(_tamed(logits) / self.temperature + self.bias, axis=1))

    def add_to(self, graph: Graph, logits: str) -> str:
        """The same as nodes, float64."""
        below = graph.op(
            "Sub",
            logits,
            graph.op("ReduceMax", logits, graph.constant(np.array([1], dtype=np.int64)), keepdims=1),
        )
        never = graph.op("Less", below, graph.number(NEVER / 2))
        below = graph.op("Where", never, below, graph.op("Max", below, graph.number(-SUREST)))
        scaled = graph.op("Mul", below, graph.number(1 / self.temperature))
        return graph.op("Softmax", graph.op("Add", scaled, graph.constant(self.bias)), axis=1)


def _tamed(logits: Floats) -> Floats:
    below = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(np.where(below < NEVER / 2, below, np.maximum(below, -SUREST)))


def no_calibration(states: int) -> Calibration:
    """Leaves softmax(logits) as it is."""
    return Calibration(1.0, np.zeros(states))


def choose_calibration(
    logits: Floats, y: NDArray[np.int64], weight: Floats, part: NDArray[np.int64]
) -> Calibration:
    """From out-of-fold logits, with biases only if they help on parts they were not fitted on.

    A block of time may hold few states; biases fitted on some blocks then spoil others. ``part`` ``[n]`` says
    which block (or group of subjects) a row is of; with fewer than three there is no bias.
    """
    parts = np.unique(part)
    losses = dict.fromkeys((False, True), 0.0) if len(parts) > 2 else {}
    for held in parts if losses else ():
        rest, test = part != held, part == held
        for biased in losses:
            found = fit_calibration(logits[rest], y[rest], weight[rest], biased=biased)
            known = logits[test][np.arange(test.sum()), y[test]] > NEVER / 2
            p = found.apply(logits[test][known])
            losses[biased] += (
                log_loss(p, y[test][known], weight[test][known]) * known.sum() if known.any() else 0
            )
    biased = bool(losses) and losses[True] < losses[False]
    return fit_calibration(logits, y, weight, biased=biased)


def fit_calibration(
    logits: Floats, y: NDArray[np.int64], weight: Floats, *, biased: bool = True
) -> Calibration:
    """From out-of-fold logits.

    Args:
        logits: ``[n, states]``; ``NEVER`` where the fold's head did not know the state.
        y: ``[n]`` position of the true state. Rows whose state the head did not know are left aside.
        weight: ``[n]``.
        biased: False = temperature only.
    """
    states = logits.shape[1]
    known = logits[np.arange(len(y)), y] > NEVER / 2
    logits, y, weight = _tamed(logits[known]), y[known], weight[known]
    counts = np.bincount(y, minlength=states)
    present = counts > 0
    if len(y) < FOR_TEMPERATURE or present.sum() < 2:
        return no_calibration(states)
    enough = biased and bool(counts[present].min() >= FOR_BIAS)
    free = np.flatnonzero(present) if enough else np.empty(0, dtype=np.int64)
    target = np.eye(states)[y] * (weight / weight.sum())[:, None]
    share = target.sum(axis=1, keepdims=True)
    ridge = RIDGE / len(y)

    def loss(theta: Floats) -> tuple[float, Floats]:
        bias = np.zeros(states)
        bias[free] = theta[1:]
        scaled = logits * np.exp(-theta[0])
        logp = log_softmax(scaled + bias, axis=1)
        slope = share * np.exp(logp) - target
        value = -float((target * np.maximum(logp, NEVER)).sum()) + ridge * float(theta[1:] @ theta[1:])
        by_temperature = -float((slope * np.where(logits > NEVER / 2, scaled, 0.0)).sum())
        return value, np.r_[by_temperature, slope.sum(axis=0)[free] + 2 * ridge * theta[1:]]

    bounds = [tuple(np.log(_RANGE)), *[(-10.0, 10.0)] * len(free)]
    found = minimize(loss, np.zeros(1 + len(free)), jac=True, method="L-BFGS-B", bounds=bounds)
    bias = np.zeros(states)
    bias[free] = found.x[1:] - found.x[1:].mean() if len(free) else 0.0
    return Calibration(float(np.exp(found.x[0])), bias)


def log_loss(p: Floats, y: NDArray[np.int64], weight: Floats) -> float:
    """Weighted mean of −ln p(true state), in nats, p held above 1e-6."""
    chosen = np.clip(p[np.arange(len(y)), y], 1e-6, 1.0)
    return float(np.average(-np.log(chosen), weights=weight))


def brier(p: Floats, y: NDArray[np.int64], weight: Floats) -> float:
    """Weighted mean of Σ(p − truth)² over states: 0 is perfect, 2 surely wrong (Brier 1950)."""
    return float(np.average(np.square(p - np.eye(p.shape[1])[y]).sum(axis=1), weights=weight))
