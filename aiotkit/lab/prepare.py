"""What is done to columns before a head sees them, learnt from training rows only: impute, tame, standardise.

A value that is not finite is unknown and becomes the column's median. A column of a long tail (|skewness| >
``LONG_TAIL`` without its outermost hundredths: a few strange rows are no tail) is replaced by
sign(u)·ln(1 + |u|), with u its distance from the median in units of the interquartile range (of the mean
deviation where that is zero), if that at least halves the skewness. Then z = (v − mean) / std. A column that
is unknown or constant on every training row says nothing: it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.errors import DataError
from aiotkit.lab.onnx_graph import LARGEST, Graph

Floats = NDArray[np.float64]
LONG_TAIL = 3.0
#: shares below and above which values do not count in judging a tail
_TRIM = (0.01, 0.99)
#: a spread below this share of a column's magnitude is float32's rounding
_ROUNDING = 3e-7


def known(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64 copy in which all that is not finite is NaN."""
    out = np.asarray(x, dtype=np.float64).copy()
    out[~(np.abs(out) <= LARGEST)] = np.nan
    return out


def informative(x: NDArray[np.float32], columns: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Positions of columns that vary, and notes on those that do not.

    Raises:
        DataError: none does.
    """
    keep: list[int] = []
    empty: list[str] = []
    constant: list[str] = []
    for i, name in enumerate(columns):
        values = x[:, i].astype(np.float64)
        values = values[np.abs(values) <= LARGEST]
        if not len(values):
            empty.append(name)
        elif np.ptp(values) <= _ROUNDING * np.abs(values).max():
            constant.append(name)
        else:
            keep.append(i)
    notes = _notes("without a value on any row", empty) + _notes("constant on every row", constant)
    if not keep:
        raise DataError(
            f"{len(columns)} columns, none of which can tell states apart",
            found="; ".join(notes) or "no columns",
            do="Check the signals' values, or name other features.",
        )
    return np.array(keep, dtype=np.int64), notes


def _notes(why: str, names: list[str]) -> tuple[str, ...]:
    if not names:
        return ()
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (f"left out, {why}: {shown}",)


@dataclass(frozen=True)
class Preparation:
    """Learnt figures of the columns kept (each ``[kept]``), in float64."""

    keep: NDArray[np.int64]
    median: Floats
    spread: Floats
    long_tailed: NDArray[np.bool_]
    mean: Floats
    scale: Floats

    @property
    def size(self) -> int:
        """How many columns are kept."""
        return len(self.keep)

    def filled(self, x: NDArray[np.float32]) -> Floats:
        """``[n, columns]`` to ``[n, kept]``, unknown values replaced, nothing else."""
        values = known(x[:, self.keep])
        return np.where(np.isnan(values), self.median, values)

    def apply(self, x: NDArray[np.float32]) -> Floats:
        """``[n, columns]`` to standardised ``[n, kept]``."""
        values = self.filled(x)
        u = (values - self.median) / self.spread
        values = np.where(self.long_tailed, np.sign(u) * np.log1p(np.abs(u)), values)
        return np.asarray((values - self.mean) / self.scale)

    def add_to(self, graph: Graph, x: str) -> str:
        """The same as nodes: float32 ``[batch, columns]`` to float64 ``[batch, kept]``."""
        values = self.add_filled(graph, x)
        if self.long_tailed.any():
            centred = graph.op("Sub", values, graph.constant(self.median))
            u = graph.op("Mul", centred, graph.constant(1 / self.spread))
            size = graph.op("Log", graph.op("Add", graph.op("Abs", u), graph.number(1.0)))
            logs = graph.op("Mul", graph.op("Sign", u), size)
            values = graph.op("Where", graph.constant(self.long_tailed), logs, values)
        centred = graph.op("Sub", values, graph.constant(self.mean))
        return graph.op("Mul", centred, graph.constant(1 / self.scale))

    def add_filled(self, graph: Graph, x: str) -> str:
        """``filled`` as nodes."""
        values = graph.to64(graph.columns(x, self.keep))
        fine = graph.op("LessOrEqual", graph.op("Abs", values), graph.number(LARGEST))
        return graph.op("Where", fine, values, graph.constant(self.median))


def learn_preparation(x: NDArray[np.float32], weight: Floats | None = None) -> Preparation:
    """From training rows ``[n, columns]``; ``weight`` [n] counts in mean and spread, not in the median.

    Raises:
        DataError: no column varies.
    """
    keep, _ = informative(x, [str(i) for i in range(x.shape[1])])
    values = known(x[:, keep])
    median = np.nanmedian(values, axis=0)
    values = np.where(np.isnan(values), median, values)
    low, high = np.quantile(values, (0.25, 0.75), axis=0)
    spread = _positive(np.where(high > low, high - low, np.abs(values - median).mean(axis=0)))
    u = (values - median) / spread
    logs = np.sign(u) * np.log1p(np.abs(u))
    before, after = _skewness(_trimmed(u)), _skewness(_trimmed(logs))
    long_tailed = (np.abs(before) > LONG_TAIL) & (np.abs(after) < np.abs(before) / 2)
    values = np.where(long_tailed, logs, values)
    mean = np.average(values, axis=0, weights=weight)
    scale = np.sqrt(np.average(np.square(values - mean), axis=0, weights=weight))
    return Preparation(keep, median, spread, long_tailed, mean, _positive(scale))


def _positive(scale: Floats) -> Floats:
    return np.where(scale > 0, scale, 1.0)


def _trimmed(values: Floats) -> Floats:
    low, high = np.quantile(values, _TRIM, axis=0)
    return np.clip(values, low, high)


def _skewness(values: Floats) -> Floats:
    """Third standardised moment of each column."""
    d = values - values.mean(axis=0)
    squares = d * d
    return np.asarray((squares * d).mean(axis=0) / _positive(squares.mean(axis=0)) ** 1.5)
