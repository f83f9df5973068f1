"""How often values come, and which window suits: proposed from what is in a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.lab.instants import Instants

#: from this period on a row is a whole window: a snapshot a shift, a day or a month
SNAPSHOT_S = 6 * 3600.0
#: share of intervals that must agree for a regular signal
STEADY = 0.9
_SLOWEST_S = 1e6


@dataclass(frozen=True, slots=True)
class Pace:
    """Of one series of values: seconds between two, the share of intervals that agree, values a subject."""

    period_s: float
    steady: float
    count: float

    @property
    def regular(self) -> bool:
        """Whether it may be called equidistant."""
        return self.steady >= STEADY and self.period_s <= _SLOWEST_S


def paces(
    frame: pd.DataFrame, columns: Sequence[str], instants: Instants | None, who: Sequence[str]
) -> dict[str, Pace]:
    """The pace of each column within each series (``who``: columns that tell series apart)."""
    if instants is None:
        return {}
    groups = frame.groupby(list(who), dropna=False, observed=True).ngroup().to_numpy() if who else None
    groups = np.zeros(len(frame), dtype=np.int64) if groups is None else groups
    order = np.lexsort((instants.at_us, groups))
    order = order[instants.good[order]]
    everywhere = _pace(groups[order], instants.at_us[order])
    out = {}
    for column in columns:
        there = frame[column].notna().to_numpy(dtype=bool)[order]
        mine = everywhere if there.mean() > 0.9 else _pace(groups[order[there]], instants.at_us[order[there]])
        if mine is not None:
            out[column] = mine
    return out


def pace_of(at_us: NDArray[np.int64], groups: NDArray[Any]) -> Pace | None:
    """The pace of values at instants of several series; None where none has two."""
    order = np.lexsort((at_us, groups))
    return _pace(groups[order], at_us[order])


def _pace(groups: NDArray[Any], at: NDArray[np.int64]) -> Pace | None:
    steps = np.diff(at)[np.diff(groups) == 0]
    steps = steps[steps > 0]
    if not len(steps):
        return None
    middle = float(np.median(steps))
    agree = float((np.abs(steps / middle - 1) <= 0.05).mean())
    counts = np.unique(groups, return_counts=True)[1]
    return Pace(middle / 1e6, agree, float(np.median(counts)))


def window_s(paces_of: Mapping[str, Pace]) -> float:
    """A window's length: 12 to 60 samples of the fastest signal, more of fast ones; a snapshot is one.

    A subject shall have some twenty windows where it has that many values.

    >>> window_s({"a": Pace(300.0, 1.0, 9999)}), window_s({"a": Pace(86400.0, 1.0, 10)})
    (3600.0, 86400.0)
    """
    if not paces_of:
        return 3600.0
    fastest = min(paces_of.values(), key=lambda p: p.period_s)
    period = fastest.period_s
    if period >= SNAPSHOT_S:
        return float(f"{period:.6g}")
    if period >= 1:
        wanted = float(np.clip(round(3600 / period), 12, 60))
    else:
        wanted = 2 ** round(math.log2(float(np.clip(1 / period, 64, 1024))))
    samples = max(1.0, min(wanted, fastest.count // 20))
    return float(f"{samples * period:.6g}")


def sampling(pace: Pace | None, length_s: float) -> tuple[float | None, float, float | None]:
    """(rate_hz or None = on change, max_age_s, grid_hz or None) of a signal within windows of a length."""
    if pace is None:
        return None, max(3600.0, 2 * length_s), None
    samples = length_s / pace.period_s
    if pace.regular and samples >= 3:
        return float(f"{1 / pace.period_s:.9g}"), 0.0, None
    if pace.period_s >= SNAPSHOT_S:
        return None, float(f"{1.5 * pace.period_s:.6g}"), None
    grid = float(f"{1 / pace.period_s:.9g}") if samples >= 4 else None
    return None, float(f"{max(3 * pace.period_s, length_s):.6g}"), grid
