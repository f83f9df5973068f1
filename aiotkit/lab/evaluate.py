"""What a policy cost: money per subject-day with paired intervals, and event figures beside it.

A *ledger* is a frame with the columns ``subject``, ``day`` and ``money`` (spent is positive). Every
observed subject-day has at least one row, also when nothing was spent; several rows of one are summed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.errors import DataError

LEDGER = ("subject", "day", "money")
Resample = Literal["subject", "block"]
_CHUNK = 1 << 22  # bootstrap weights held at once


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its confidence interval; ``clusters`` is how many units were resampled."""

    estimate: float
    low: float
    high: float
    level: float
    clusters: int = 0

    @property
    def sure(self) -> bool:
        """Whether the interval lies wholly on one side of zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.estimate:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class EventFigures:
    """Alarms against events: alarms closer than the merge span count as one episode."""

    alarms: int
    episodes: int
    alarms_per_day: float
    events: int
    detected: int
    missed: int
    false_episodes: int
    lead_s: tuple[float, ...]

    @property
    def median_lead_s(self) -> float:
        """Median time from the first useful alarm to its event; NaN when none was detected."""
        return float(np.median(self.lead_s)) if self.lead_s else float("nan")


def check_ledger(ledger: pd.DataFrame, name: str = "ledger") -> pd.DataFrame:
    """One row a subject-day, sorted; raises ``DataError`` for missing columns or money that is no number."""
    missing = [c for c in LEDGER if c not in ledger.columns]
    if missing:
        raise DataError(f"{name}: column '{missing[0]}' is missing", expected=str(LEDGER))
    money = pd.to_numeric(ledger["money"], errors="coerce")
    if ledger.empty or not bool(np.isfinite(money.to_numpy(dtype=float)).all()):
        raise DataError(
            f"{name}: money",
            expected="a finite number on every row",
            found="rows without" if len(ledger) else "no rows",
        )
    keys = [ledger["subject"].to_numpy(), ledger["day"].to_numpy()]
    summed = money.groupby(keys, sort=True).sum().rename_axis(["subject", "day"]).rename("money")
    return summed.reset_index()


def money_per_subject_day(ledger: pd.DataFrame) -> float:
    """Money divided by the number of subject-days.

    >>> ledger = {"subject": ["a", "a", "b"], "day": [1, 2, 1], "money": [6, 0, 3]}
    >>> money_per_subject_day(pd.DataFrame(ledger))
    3.0
    """
    return float(check_ledger(ledger)["money"].mean())


def paired_bootstrap(
    a: pd.DataFrame,
    b: pd.DataFrame,
    resample: Resample = "subject",
    *,
    seed: int,
    n: int = 2000,
    level: float = 0.95,
    block_days: int = 7,
) -> Interval:
    """Interval of the difference ``a − b`` in money per subject-day, both on the same subject-days.

    Whole subjects are drawn with replacement (``subject``), or whole blocks of ``block_days``
    consecutive days over all subjects (``block``). The ends are expanded percentiles, which
    correct for few clusters (Hesterberg 2015, The American Statistician 69(4), section 4.2).

    Args:
        a: ledger of the policy judged.
        b: ledger of the policy it is compared with.
        resample: what is drawn.
        seed: of the draws; the same seed gives the same interval.
        n: number of resamples.
        level: confidence level.
        block_days: length of a block; choose it longer than errors stay correlated.

    Raises:
        DataError: when the ledgers differ in their subject-days, or leave fewer than two clusters.
    """
    left, right = check_ledger(a, "ledger a"), check_ledger(b, "ledger b")
    if not left[["subject", "day"]].equals(right[["subject", "day"]]):
        raise DataError(
            "paired bootstrap: the ledgers cover different subject-days",
            found=f"{len(left)} and {len(right)}",
            do="Judge both policies on the same subjects and days.",
        )
    saved = (left["money"] - right["money"]).to_numpy(dtype=float)
    labels = left["subject"].to_numpy() if resample == "subject" else _blocks(left["day"], block_days)
    _, cluster = np.unique(labels, return_inverse=True)
    clusters = int(cluster.max()) + 1
    if clusters < 2:
        raise DataError(
            f"paired bootstrap over {resample}s", expected="at least 2 of them", found=str(clusters)
        )
    sums = np.bincount(cluster, saved, clusters).astype(float)
    sizes = np.bincount(cluster, minlength=clusters).astype(float)
    draws = _resampled_ratio(sums, sizes, n, seed)
    tail = _expanded_tail(level, clusters)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(saved.mean()), float(low), float(high), level, clusters)


def _blocks(days: pd.Series, block_days: int) -> NDArray[np.int64]:
    """The number of the block each day lies in; days are dates, or integers that count days."""
    if pd.api.types.is_integer_dtype(days):
        number = days.to_numpy(dtype=np.int64)
    else:
        stamps = pd.to_datetime(days, utc=True).to_numpy(dtype="datetime64[us]").astype("datetime64[D]")
        number = stamps.astype(np.int64)
    return np.asarray((number - number.min()) // block_days, dtype=np.int64)


def _resampled_ratio(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], n: int, seed: int
) -> NDArray[np.float64]:
    """Mean per subject-day of ``n`` resamples of clusters, drawn with replacement."""
    rng, k = np.random.default_rng(seed), len(sums)
    out = np.empty(n)
    step = max(1, _CHUNK // k)
    for start in range(0, n, step):
        count = min(step, n - start)
        weights = rng.multinomial(k, np.full(k, 1 / k), size=count)
        out[start : start + count] = (weights @ sums) / (weights @ sizes)
    return out


def _expanded_tail(level: float, clusters: int) -> float:
    from scipy.stats import norm, t

    wide = np.sqrt(clusters / (clusters - 1)) * t.ppf((1 + level) / 2, clusters - 1)
    return float(norm.cdf(-wide))


def policy_table(
    ledgers: Mapping[str, pd.DataFrame],
    baseline: str,
    *,
    resample: Resample = "subject",
    seed: int,
    n: int = 2000,
    level: float = 0.95,
    block_days: int = 7,
) -> pd.DataFrame:
    """Policies side by side, cheapest first.

    Returns:
        One row a policy: ``policy``, ``money_per_subject_day``, ``difference`` to the baseline with
        ``low`` and ``high`` (negative = cheaper than it), ``sure`` (interval excludes zero),
        ``subject_days``.
    """
    if baseline not in ledgers:
        raise DataError(f"baseline '{baseline}'", expected=f"one of {sorted(ledgers)}")
    rows = []
    for name, ledger in ledgers.items():
        if name == baseline:
            gap = Interval(0.0, 0.0, 0.0, level)
        else:
            gap = paired_bootstrap(
                ledger, ledgers[baseline], resample, seed=seed, n=n, level=level, block_days=block_days
            )
        checked = check_ledger(ledger, f"ledger '{name}'")
        rows.append(
            {
                "policy": name,
                "money_per_subject_day": float(checked["money"].mean()),
                "difference": gap.estimate,
                "low": gap.low,
                "high": gap.high,
                "sure": gap.sure,
                "subject_days": len(checked),
            }
        )
    table = pd.DataFrame(rows).sort_values(["money_per_subject_day", "policy"], ignore_index=True)
    table.attrs.update(baseline=baseline, level=level, resample=resample)
    return table


def merge_alarms(alarms: pd.DataFrame, merge_s: float) -> pd.DataFrame:
    """Alarm episodes: alarms of one subject within ``merge_s`` seconds of an episode's first belong to it.

    An alarm that never ends is a new episode every ``merge_s``, not a single one.

    Args:
        alarms: columns ``subject`` and ``at_us``.
        merge_s: how long an episode lasts at most.

    Returns:
        Columns ``subject``, ``start_us``, ``end_us``, ``alarms``.
    """
    ordered = alarms[["subject", "at_us"]].sort_values(["subject", "at_us"], ignore_index=True)
    first, span = np.zeros(len(ordered), dtype=bool), round(merge_s * 1e6)
    for _, mine in ordered.groupby("subject")["at_us"]:
        instants, i = mine.to_numpy(dtype=np.int64), 0
        while i < len(instants):
            first[mine.index[i]] = True
            i = int(np.searchsorted(instants, instants[i] + span, side="right"))
    grouped = ordered.groupby(first.cumsum())
    return pd.DataFrame(
        {
            "subject": grouped["subject"].first(),
            "start_us": grouped["at_us"].min(),
            "end_us": grouped["at_us"].max(),
            "alarms": grouped.size(),
        }
    ).reset_index(drop=True)


def event_figures(
    alarms: pd.DataFrame,
    events: pd.DataFrame,
    *,
    subject_days: float,
    horizon_s: float,
    merge_s: float,
) -> EventFigures:
    """Alarms per day, lead time, events missed.

    An event is detected when an alarm of its subject lies within ``horizon_s`` before it (both ends
    included); its lead is counted from the first such alarm. An episode that holds no such alarm is false.

    Args:
        alarms: columns ``subject``, ``at_us``.
        events: columns ``subject``, ``at_us``.
        subject_days: observed subject-days, for the rate.
        horizon_s: how early an alarm still counts.
        merge_s: alarms within this of an episode's first belong to it.
    """
    if not subject_days > 0:
        raise DataError("event figures: subject_days", expected="more than 0", found=str(subject_days))
    episodes = merge_alarms(alarms, merge_s)
    span, nothing = round(horizon_s * 1e6), np.empty(0, dtype=np.int64)
    rung, happened = _instants(alarms), _instants(events)
    leads: list[float] = []
    for subject, at in happened.items():
        mine = rung.get(subject, nothing)
        first, last = np.searchsorted(mine, at - span, side="left"), np.searchsorted(mine, at, side="right")
        leads += [float(t - mine[i]) / 1e6 for t, i, j in zip(at, first, last, strict=True) if i < j]
    useful = 0
    for name, start, end in zip(episodes["subject"], episodes["start_us"], episodes["end_us"], strict=True):
        mine, at = rung[str(name)], happened.get(str(name), nothing)
        inside = mine[np.searchsorted(mine, start, "left") : np.searchsorted(mine, end, "right")]
        following = np.searchsorted(at, inside, side="left")
        hit = following < len(at)
        useful += bool(np.any(at[following[hit]] - inside[hit] <= span))
    return EventFigures(
        alarms=len(alarms),
        episodes=len(episodes),
        alarms_per_day=len(episodes) / subject_days,
        events=len(events),
        detected=len(leads),
        missed=len(events) - len(leads),
        false_episodes=len(episodes) - useful,
        lead_s=tuple(leads),
    )


def _instants(rows: pd.DataFrame) -> dict[str, NDArray[np.int64]]:
    """Sorted instants of each subject."""
    return {
        str(subject): np.sort(at.to_numpy(dtype=np.int64)) for subject, at in rows.groupby("subject")["at_us"]
    }
