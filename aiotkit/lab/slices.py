"""Where money is lost: by subject, by operating context and by stretch of time.

Episodes are cut on all rows and booked to the slice of the row they began with, so that the slices of one
kind add up to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab.books import Actions, Book

SLICES = [
    "kind",
    "slice",
    "rows",
    "subject_days",
    "flips",
    "money",
    "baseline",
    "lost",
    "lost_per_subject_day",
]
_BLOCKS, _PARTS = 6, 3


def money_by_slice(
    rows: pd.DataFrame,
    actions: Actions,
    baseline: Actions,
    decision: Decision,
    *,
    x: NDArray[Any] | None = None,
    columns: Sequence[str] = (),
) -> pd.DataFrame:
    """Money of a policy beside a baseline in each slice, the largest loss first within a kind.

    Slices are the subjects; six stretches of time of equal row count; and of each context column its values,
    or thirds of its range by rows (``not known`` is a slice of its own).

    Args:
        rows: as ``judge.money_of`` takes them.
        actions: of the policy, one a row.
        baseline: of what it is compared with.
        decision: with known costs.
        x: ``[rows, columns]``; only columns that begin with ``context.`` are used.
        columns: names of ``x``'s columns.

    Returns:
        Columns ``SLICES``: ``flips`` is the share of rows on which the two do different things, ``lost`` is
        the policy's money less the baseline's (positive: it costs more here).
    """
    book = Book.of(rows, decision)
    spent = [_by_row(book, a, name) for a, name in ((actions, "actions"), (baseline, "baseline"))]
    flips = book.codes(actions) != book.codes(baseline)
    day = pd.Series(book.subject).astype(str) + " " + pd.Series(book.at_us // 86_400_000_000).astype(str)
    table = pd.DataFrame({"money": spent[0], "baseline": spent[1], "flips": flips, "day": day})
    found = []
    for kind, labels in _kinds(rows, x, columns).items():
        part = table.groupby(labels[book.order], sort=True)
        frame = pd.DataFrame(
            {
                "rows": part.size(),
                "subject_days": part["day"].nunique(),
                "flips": part["flips"].mean(),
                "money": part["money"].sum(),
                "baseline": part["baseline"].sum(),
            }
        )
        frame["lost"] = frame["money"] - frame["baseline"]
        frame["lost_per_subject_day"] = frame["lost"] / frame["subject_days"]
        frame = frame.rename_axis("slice").reset_index().assign(kind=kind)
        found.append(frame.sort_values(["lost", "slice"], ascending=[False, True]))
    return pd.concat(found, ignore_index=True)[SLICES]


def _by_row(book: Book, actions: Actions, name: str) -> NDArray[np.float64]:
    begins, price = book.spent(book.codes(actions, name=name))
    money = np.zeros(len(book.order))
    money[begins] = price
    return money


def _kinds(
    rows: pd.DataFrame, x: NDArray[Any] | None, columns: Sequence[str]
) -> dict[str, NDArray[np.object_]]:
    """Kind -> the slice of each row, in the caller's order."""
    at = rows["at_us"].to_numpy(dtype=np.int64)
    place = np.argsort(np.argsort(at, kind="stable"), kind="stable") * _BLOCKS // max(1, len(at))
    days = pd.to_datetime(pd.Series(at), unit="us", utc=True)
    begins = days.groupby(place).min().dt.strftime("from %Y-%m-%d %H:%M")
    out = {
        "subject": rows["subject"].astype(str).to_numpy(dtype=object),
        "time": begins.reindex(place).to_numpy(dtype=object),
    }
    if x is not None:
        if x.shape != (len(rows), len(columns)):
            raise DataError("x", expected=str([len(rows), len(columns)]), found=str(list(x.shape)))
        out |= _contexts(np.asarray(x, dtype=np.float64), columns)
    return out


def _contexts(x: NDArray[np.float64], columns: Sequence[str]) -> dict[str, NDArray[np.object_]]:
    out: dict[str, NDArray[np.object_]] = {}
    for j, name in enumerate(columns):
        if not name.startswith("context."):
            continue
        context, _, value = name.partition("=")
        if value:
            labels = out.setdefault(context, np.full(len(x), "not known", dtype=object))
            labels[x[:, j] == 1] = value
            continue
        known = np.isfinite(x[:, j])
        labels = np.full(len(x), "not known", dtype=object)
        if known.any():
            cuts = np.unique(np.quantile(x[known, j], np.linspace(0, 1, _PARTS + 1)[1:-1]))
            edges = [-np.inf, *cuts.tolist(), np.inf]
            words = [f"{a:.4g} to {b:.4g}" for a, b in pairwise(edges)]
            words[0], words[-1] = f"up to {edges[1]:.4g}", f"above {edges[-2]:.4g}"
            labels[known] = np.array(words, dtype=object)[np.searchsorted(cuts, x[known, j], side="left")]
        out[context] = labels
    return out
