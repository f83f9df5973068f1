"""Drift: do recent windows look like those the bundle was built from, and is a retraining due?

Per feature the population stability index over the quantile bins of the bundle's ``reference.json``,
``PSI = Σ (q − p) · ln(q / p)``. Without any drift PSI is not 0 but about ``(1/n + 1/m) · χ²(bins − 1)``
(Yurdakul 2018), so that a few windows always seem to drift. The figure used here is therefore the *excess*:
what PSI is above the value that chance alone passes in 5 % of the tables, whatever their size (Bonferroni
over features). It is 0 without drift, also for few windows, and tends to PSI for many. m is the number of
windows that count as independent, ``m · (1 − ρ) / (1 + ρ)`` with ρ the correlation of a window with the next
one of its subject. The usual reading of PSI holds: above 0.1 a moderate, above 0.25 a large shift.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab.figures import span_in_words

Floats = NDArray[np.float64]
DRIFT = [
    "feature",
    "drift",
    "psi",
    "by_chance",
    "ks",
    "mean_shift",
    "windows",
    "independent",
    "unknown_share",
]
#: fewer independent windows than the first say nothing; up to each, bins are cut at these levels
_FEWEST = 8
_LEVELS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (40, (0.25, 0.5, 0.75)),
    (200, (0.05, 0.25, 0.5, 0.75, 0.95)),
    (float("inf"), (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)),
)
_CHANCE = 0.05
_MOST_CORRELATED = 0.99


def drift_table(
    reference: bytes | Mapping[str, Any],
    recent: pd.DataFrame | NDArray[Any],
    *,
    names: Sequence[str] | None = None,
    groups: Sequence[str] | pd.Series | None = None,
    samples: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """How far each feature has moved from the reference, most first.

    Args:
        reference: the bundle's ``reference.json``.
        recent: ``[windows, features]`` in order of time (within a group); columns the reference does not know
            are left out.
        names: of the columns, where ``recent`` is an array.
        groups: the subject of each window, for the correlation of one window with the next.
        samples: the windows of the reference themselves, where at hand: KS is then exact, else a lower bound
            from the quantiles.

    Returns:
        Columns ``DRIFT``: ``drift`` is the excess PSI (NaN: too few windows), ``by_chance`` what chance may
        reach, ``ks`` the Kolmogorov–Smirnov distance, ``mean_shift`` in standard deviations of the
        reference, ``independent`` the effective number of windows.

    Raises:
        DataError: the reference was made up, is none, or shares no feature with the windows.
    """
    known = _known(reference)
    frame = _frame(recent, names)
    shared = [n for n in known if n in frame.columns]
    if not shared:
        raise DataError(
            "drift: reference and windows share no feature",
            expected=", ".join(list(known)[:8]),
            found=", ".join(str(c) for c in frame.columns[:8]),
        )
    code = np.zeros(len(frame), dtype=np.int64) if groups is None else pd.factorize(np.asarray(groups))[0]
    order = np.argsort(code, kind="stable")
    rows = []
    for name in shared:
        exact = None if samples is None or name not in samples.columns else samples[name].to_numpy(float)
        rows.append(
            _row(name, known[name], frame[name].to_numpy(float)[order], code[order], len(shared), exact)
        )
    table = pd.DataFrame(rows, columns=DRIFT)
    return table.sort_values(["drift", "feature"], ascending=[False, True], ignore_index=True)


def drift_score(
    reference: bytes | Mapping[str, Any],
    recent: pd.DataFrame | NDArray[Any],
    *,
    names: Sequence[str] | None = None,
    groups: Sequence[str] | pd.Series | None = None,
) -> float:
    """The largest excess PSI of any feature (see ``drift_table``): what ``trigger.drift`` is compared with.

    NaN where there are too few windows to say anything.
    """
    found = drift_table(reference, recent, names=names, groups=groups)["drift"].to_numpy(dtype=float)
    return float(np.nanmax(found)) if np.isfinite(found).any() else float("nan")


def trigger(decision: Decision, *, new_labels: int, since_s: float, drift: float | None = None) -> list[str]:
    """Why a retraining is due by ``decision.trigger``; empty = it is not.

    Args:
        decision: its trigger.
        new_labels: believed labels since the last training.
        since_s: seconds since the last training.
        drift: ``drift_score`` of recent windows; None or NaN = not known, which triggers nothing.
    """
    due, wanted = [], decision.trigger
    if wanted.new_labels is not None and new_labels >= wanted.new_labels:
        due.append(f"{new_labels} new labels (trigger: {wanted.new_labels})")
    if wanted.every_s is not None and since_s >= wanted.every_s:
        due.append(f"{span_in_words(since_s)} since the last (trigger: {span_in_words(wanted.every_s)})")
    if wanted.drift is not None and drift is not None and drift >= wanted.drift:
        due.append(f"drift {drift:.2f} (trigger: {wanted.drift:g})")
    return due


def _known(reference: bytes | Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    said = json.loads(reference) if isinstance(reference, bytes) else reference
    if not isinstance(said, Mapping) or said.get("format") != 1 or "features" not in said:
        raise DataError("drift reference", expected="reference.json of format 1", found=str(said)[:80])
    if said.get("source") == "golden":
        raise DataError(
            "drift reference: its windows were made up for the bundle's golden cases",
            expected="windows from the field",
            do="Build the bundle from examples, or drift cannot be told.",
        )
    levels = list(said["quantile_levels"])
    return {name: {**told, "levels": levels} for name, told in said["features"].items() if told["quantiles"]}


def _frame(recent: pd.DataFrame | NDArray[Any], names: Sequence[str] | None) -> pd.DataFrame:
    if isinstance(recent, pd.DataFrame):
        return recent
    if names is None or recent.ndim != 2 or recent.shape[1] != len(names):
        raise DataError(
            "drift: recent windows",
            expected="a frame, or [windows, features] with names",
            found=str(recent.shape),
        )
    return pd.DataFrame(recent, columns=list(names))


def _row(
    name: str,
    told: Mapping[str, Any],
    values: Floats,
    groups: NDArray[np.int64],
    features: int,
    samples: Floats | None,
) -> list[Any]:
    from scipy.stats import chi2, ks_2samp

    sound = np.isfinite(values)
    x, unknown = values[sound], float(1 - sound.mean()) if len(values) else float("nan")
    nothing = float("nan")
    if len(x) < 2:
        return [name, nothing, nothing, nothing, nothing, nothing, len(x), 0.0, unknown]
    shrink = _independent_share(x, groups[sound])
    m, n = len(x) * shrink, max(1.0, told["count"] * shrink)
    spread = told["std"] or nothing
    shift = float((x.mean() - told["mean"]) / spread)
    ks = _distance(x, told)
    if samples is not None and np.isfinite(samples).any():
        ks = float(ks_2samp(x, samples[np.isfinite(samples)], method="asymp").statistic)
    if m < _FEWEST:
        return [name, nothing, nothing, nothing, ks, shift, len(x), m, unknown]
    psi, bins = _psi(x, told, m, n)
    chance = float(chi2.ppf(1 - _CHANCE / features, max(1, bins - 1)) * (1 / n + 1 / m))
    return [name, max(0.0, psi - chance), psi, chance, ks, shift, len(x), m, unknown]


def _independent_share(x: Floats, groups: NDArray[np.int64]) -> float:
    """``(1 − ρ) / (1 + ρ)`` of ranks: what share of correlated windows counts as independent ones."""
    from scipy.stats import rankdata

    rank = rankdata(x) - (len(x) + 1) / 2
    same = np.diff(groups) == 0
    if same.sum() < 3 or not rank.any():
        return 1.0
    rho = float((rank[:-1] * rank[1:])[same].mean() / (rank**2).mean())
    rho = min(max(rho, 0.0), _MOST_CORRELATED)
    return (1 - rho) / (1 + rho)


def _edges(told: Mapping[str, Any], wanted: Sequence[float], x: Floats) -> list[tuple[float, float, float]]:
    """Edges with what the reference says of the share at or below each: (edge, at least, at most).

    Where a value repeats (counts, choices), the quantile says only that the share at or below it lies between
    two levels; it is then cut just below the value too.
    """
    levels, q = list(told["levels"]), list(told["quantiles"])
    out: dict[float, tuple[float, float]] = {}
    for value in sorted({v for level, v in zip(levels, q, strict=True) if level in wanted}):
        at = [level for level, v in zip(levels, q, strict=True) if v == value]
        if len(at) == 1 and int((x == value).sum()) < 2:
            out[value] = (at[0], at[0])
            continue
        out[value] = (at[-1], min((level for level in levels if level > at[-1]), default=1.0))
        before = max((level for level in levels if level < at[0]), default=0.0)
        out.setdefault(float(np.nextafter(value, -np.inf)), (before, at[0]))
    return [(edge, *out[edge]) for edge in sorted(out)]


def _psi(x: Floats, told: Mapping[str, Any], m: float, n: float) -> tuple[float, int]:
    """PSI and how many bins it has; half a window is added to each bin, so that none is empty."""
    wanted = next(levels for upto, levels in _LEVELS if m < upto)
    edges = _edges(told, wanted, x)
    seen = np.array([(x <= edge).mean() for edge, _, _ in edges])
    low, high = np.array([e[1] for e in edges]), np.array([e[2] for e in edges])
    expected = np.maximum.accumulate(np.clip(seen, low, high))
    p, q = np.diff([0.0, *expected, 1.0]), np.diff([0.0, *seen, 1.0])
    bins = len(p)
    p, q = (n * p + 0.5) / (n + 0.5 * bins), (m * q + 0.5) / (m + 0.5 * bins)
    return float(((q - p) * np.log(q / p)).sum()), bins


def _distance(x: Floats, told: Mapping[str, Any]) -> float:
    """The Kolmogorov–Smirnov distance at the reference's quantiles: a lower bound of the whole."""
    edges = _edges(told, tuple(told["levels"])[1:-1], x)
    gaps = [max(low - seen, seen - high, 0.0) for edge, low, high in edges for seen in [(x <= edge).mean()]]
    return float(max(gaps, default=0.0))
