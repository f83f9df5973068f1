"""The best single threshold: what a diligent engineer would have tuned on the same rows, without a model.

Every pair of actions (asking is one where a person can be asked) on every column, with limits on a grid of
quantiles, priced in episodes; the cheapest is refined between its neighbours on the grid. Where that would
take more than some seconds, each pair on each column keeps the limits that look best row by row. It is chosen
in sample: priced on the rows it was chosen on, it looks better than it is; ``tuned_elsewhere`` prices it on
rows it was not chosen on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.core.policy import ASK
from aiotkit.lab.books import Book, Floats, Ints, Names, asking_row, declared_costs

_GRID = 64  # limits a column is tried with
_ROUNDS = 3  # of looking closer
_ROWS_PRICED = 50_000_000  # rows times candidates priced in episodes: some seconds
_ROWS_PRICED_FOLD = 20_000_000  # the same, where a search is made for each fold
_FEWEST, _MOST = 400, 20_000  # candidates priced


@dataclass(frozen=True, slots=True)
class Threshold:
    """``action`` where ``feature`` > ``limit``, else ``otherwise``; ``recovery`` where it is not known.

    ``money`` is what it cost per subject-day on the rows it was chosen on.
    """

    feature: str
    limit: float
    action: str
    otherwise: str
    recovery: str
    money: float

    @property
    def words(self) -> str:
        """The policy as a sentence."""
        return f"'{self.action}' when {self.feature} > {self.limit:.4g}, otherwise '{self.otherwise}'"

    def actions(self, x: NDArray[Any], columns: Sequence[str]) -> Names:
        """The action on each row of ``x [rows, columns]``.

        Raises:
            DataError: the column is not there.
        """
        if self.feature not in columns:
            raise DataError(f"threshold: column '{self.feature}' is missing", found=", ".join(columns[:20]))
        value = np.asarray(x)[:, list(columns).index(self.feature)].astype(np.float64)
        known = np.where(value > self.limit, self.action, self.otherwise)
        return np.where(np.isfinite(value), known, self.recovery).astype(object)


@dataclass(frozen=True, slots=True)
class _Candidate:
    rank: int  # among the limits of this column and pair of actions, row by row
    proxy: float  # cost of all rows, taken one by one
    column: int
    limit: float
    above: int
    below: int


def thresholds(
    rows: pd.DataFrame,
    x: NDArray[Any],
    columns: Sequence[str],
    decision: Decision,
    *,
    rows_priced: int = _ROWS_PRICED,
) -> Threshold | None:
    """The single threshold that would have cost least on these rows; None if no column has two values.

    Args:
        rows: as ``judge.money_of`` takes them.
        x: ``[rows, columns]``, NaN = not known.
        columns: names of ``x``'s columns.
        decision: with known costs.
        rows_priced: rows times candidates that are priced in episodes.

    Raises:
        DataError: costs are unknown, or rows and columns do not fit.
    """
    if x.shape != (len(rows), len(columns)):
        raise DataError("x", expected=str([len(rows), len(columns)]), found=str(list(x.shape)))
    book = Book.of(rows, decision)
    search = _Search(book, np.asarray(x), list(decision.actions).index(decision.recovery))
    best = search.best(rows_priced)
    if best is None:
        return None
    names = [*decision.actions, ASK]
    money = search.money(best) / len(book.ledger(search.codes(best)))
    return Threshold(
        columns[best.column], best.limit, names[best.above], names[best.below], decision.recovery, money
    )


def tuned_elsewhere(
    rows: pd.DataFrame, x: NDArray[Any], columns: Sequence[str], decision: Decision, fold: Ints
) -> Names | None:
    """What the best single threshold would have done on each row, tuned on the folds the row is not of.

    Args:
        rows: as ``thresholds`` takes them, with ``x`` and ``columns``.
        x: ``[rows, columns]``.
        columns: names of ``x``'s columns.
        decision: with known costs.
        fold: ``[rows]`` the fold that tests a row.

    Returns:
        ``[rows]`` actions; None where nothing can be tuned: one fold, or columns of one value.
    """
    out = np.empty(len(rows), dtype=object)
    for one in np.unique(fold):
        test = fold == one
        if test.all():
            return None
        others = rows.loc[~test].reset_index(drop=True)
        best = thresholds(others, x[~test], columns, decision, rows_priced=_ROWS_PRICED_FOLD)
        if best is None:
            return None
        out[test] = best.actions(x[test], columns)
    return out


class _Search:
    def __init__(self, book: Book, x: NDArray[Any], recovery: int) -> None:
        self._book, self._recovery = book, recovery
        self._x = x[book.order]
        table = declared_costs(book.decision)
        if book.decision.human is not None:
            table = np.vstack([table, asking_row(book.decision)])
        self._price = table[:, book.state]  # [actions, rows]

    def best(self, rows_priced: int) -> _Candidate | None:
        found = [c for j in range(self._x.shape[1]) for c in self._of_column(j)]
        if not found:
            return None
        found.sort(key=lambda c: (c.rank, c.proxy, c.column, c.limit, c.above, c.below))
        room = min(_MOST, max(_FEWEST, rows_priced // len(self._x)))
        return self._refined(min(found[:room], key=self.money))

    def codes(self, c: _Candidate) -> Ints:
        value = self._x[:, c.column]
        known = np.where(value > c.limit, c.above, c.below)
        return np.where(np.isfinite(value), known, self._recovery).astype(np.int64)

    def money(self, c: _Candidate) -> float:
        return self._book.total(self.codes(c))

    def _values(self, column: int) -> Floats:
        value = self._x[:, column].astype(np.float64)
        return np.unique(value[np.isfinite(value)])

    def _limits(self, column: int) -> Floats:
        """Limits halfway between neighbouring values, at quantiles where there are many."""
        distinct = self._values(column)
        if len(distinct) < 2:
            return np.empty(0)
        middles = (distinct[:-1] + distinct[1:]) / 2
        if len(middles) <= _GRID:
            return middles
        # quantiles of rows find the bulk, quantiles of distinct values the tails
        value = self._x[:, column].astype(np.float64)
        rows = np.quantile(value[np.isfinite(value)], np.linspace(0, 1, _GRID // 2 + 2)[1:-1])
        spread = middles[np.linspace(0, len(middles) - 1, _GRID // 2).round().astype(int)]
        return np.unique(np.concatenate([rows, spread]))

    def _of_column(self, column: int) -> list[_Candidate]:
        limits = self._limits(column)
        if not len(limits):
            return []
        value = self._x[:, column].astype(np.float64)
        bin_of = np.searchsorted(limits, value, side="left")  # value > limits[k] <=> bin > k
        known = np.isfinite(value)
        doubt = float(self._price[self._recovery][~known].sum())
        cells = [np.bincount(bin_of[known], row[known], len(limits) + 1) for row in self._price]
        out = []
        for above, below in permutations(range(len(cells)), 2):
            under = np.cumsum(cells[below])[:-1]
            over = cells[above].sum() - np.cumsum(cells[above])[:-1]
            proxy = under + over + doubt
            for rank, k in enumerate(np.argsort(proxy, kind="stable")):
                out.append(_Candidate(rank, float(proxy[k]), column, float(limits[k]), above, below))
        return out

    def _refined(self, best: _Candidate) -> _Candidate:
        """Look closer between the neighbouring limits, and set the limit halfway between two values."""
        value = self._values(best.column)
        limits = self._limits(best.column)
        at = int(np.searchsorted(limits, best.limit))
        low, high = limits[max(0, at - 2)], limits[min(len(limits) - 1, at + 2)]
        for _ in range(_ROUNDS):
            inside = value[(value >= low) & (value <= high)]
            if not len(inside):
                break
            tried = np.unique(inside[np.linspace(0, len(inside) - 1, _GRID).round().astype(int)])
            best = min([best, *(replace(best, limit=float(v)) for v in tried)], key=self.money)
            at = int(np.searchsorted(tried, best.limit))
            low, high = tried[max(0, at - 1)], tried[min(len(tried) - 1, at + 1)]
        above = int(np.searchsorted(value, best.limit, side="right"))
        if 0 < above < len(value):
            best = replace(best, limit=float((value[above - 1] + value[above]) / 2))
        return best
