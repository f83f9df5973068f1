"""Measured against declared sampling rates, series by series."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.decision import Decision, Regular
from aiotkit.core.errors import DataError

_FEWEST = 3  # intervals below which a rate is not judged


@dataclass(frozen=True, slots=True)
class Rate:
    """Of one signal over all subjects. ``gaps``: intervals of 1.5 declared steps or more."""

    name: str
    declared_hz: float
    measured_hz: float
    series: int
    wrong: int
    unjudged: int
    gaps: int
    longest_gap_s: float
    irregular_share: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {n: getattr(self, n) for n in self.__slots__}

    def __str__(self) -> str:
        measured = f"{self.measured_hz:.6g} Hz" if math.isfinite(self.measured_hz) else "too little to tell"
        parts = [f"{self.name}: declared {self.declared_hz:g} Hz, measured {measured}"]
        if self.gaps:
            parts.append(f"{self.gaps:,} gaps, the longest {self.longest_gap_s:g} s")
        if self.irregular_share > 0.01:
            parts.append(f"{self.irregular_share:.1%} of intervals irregular: jitter, or mixed rates?")
        if self.wrong:
            parts.append(f"{self.wrong} of {self.series} series have another rate")
        if self.unjudged:
            parts.append(f"{self.unjudged} of {self.series} series too short to judge")
        return "; ".join(parts)


def judge_rates(cells: pd.DataFrame, decision: Decision, tolerance: float) -> tuple[Rate, ...]:
    """Compare the median interval of every series of a regular signal with the declared one.

    Series that differ by more than ``tolerance`` get a reason in ``cells``.

    Args:
        cells: sorted by subject, name and time; ``reason`` '' where believed.
        decision: declares the rates.
        tolerance: relative.

    Raises:
        DataError: all series of a signal that can be judged differ: the declaration is wrong.
    """
    good = cells[cells["reason"] == ""]
    found = []
    for name, mine in good.groupby("name", sort=False):
        signal = decision.signals.get(str(name))
        if signal is not None and isinstance(signal.sampling, Regular):
            found.append(_judge(str(name), mine, cells, signal.sampling.rate_hz, tolerance))
    return tuple(found)


def _judge(name: str, mine: pd.DataFrame, cells: pd.DataFrame, declared: float, tolerance: float) -> Rate:
    step_us = 1e6 / declared
    steps = mine.groupby("subject")["at_us"].diff() / step_us
    counts = mine.groupby("subject")["at_us"].size() - 1
    median = steps.groupby(mine["subject"]).median()
    judged = median[counts >= _FEWEST]
    off = judged[~((judged - 1).abs() <= tolerance)]
    measured = declared / float(judged.median()) if len(judged) else float("nan")
    if len(off) and len(off) == len(judged):
        raise DataError(
            f"signal '{name}': sampling rate",
            expected=f"{declared:g} Hz ± {tolerance:.0%} as declared",
            found=f"{measured:.6g} Hz (median interval {1 / measured:g} s)"
            if measured
            else "no time between values",
            do="Correct rate_hz in the decision file, declare it on_change, or check the time column.",
        )
    for subject, ratio in off.items():
        rows = mine.index[mine["subject"] == subject]
        cells.loc[rows, "reason"] = f"rate {declared / ratio:.4g} Hz instead of {declared:g} Hz"
    kept = steps[~mine["subject"].isin(list(off.index))].dropna().to_numpy(dtype=float)
    gaps = kept[kept >= 1.5]
    uneven = np.abs(kept - np.rint(kept)) > np.maximum(tolerance, 1e-9) * np.maximum(kept, 1)
    return Rate(
        name=name,
        declared_hz=declared,
        measured_hz=measured,
        series=len(counts),
        wrong=len(off),
        unjudged=len(counts) - len(judged),
        gaps=len(gaps),
        longest_gap_s=float(gaps.max()) / declared if len(gaps) else 0.0,
        irregular_share=float((uneven | (kept < 0.5)).mean()) if len(kept) else 0.0,
    )
