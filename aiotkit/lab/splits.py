"""Splits that do not let a head see tomorrow, nor the machine it is tested on.

Rows of one subject, and rows close in time, resemble each other: shuffled splits promise what the field
does not keep. Folds are whole subjects, or contiguous blocks of time. Training rows whose outcome was
still open while a test row of the same subject was taken are dropped (purged; López de Prado 2018, ch. 7).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError

Index = NDArray[np.int64]
Fold = tuple[Index, Index]


def by_subject(rows: pd.DataFrame, decision: Decision) -> bool:
    """Whether whole subjects are held out, not blocks of time."""
    return decision.resample == "subject" and rows["subject"].nunique() >= 2


def folds(rows: pd.DataFrame, decision: Decision, n: int, seed: int) -> list[Fold]:
    """``n`` pairs of positions (training, test); every row is tested once.

    Whole subjects where the decision resamples subjects and there are at least two (then at most one fold a
    subject, filled to equal size, subjects drawn by ``seed``); else contiguous blocks of time.

    Args:
        rows: ``subject``, ``at_us``.
        decision: its ``resample`` and ``outcome.horizon_s``.
        n: how many folds, at least 2.
        seed: of the order in which subjects are dealt.

    Raises:
        DataError: fewer than two folds can be made.
    """
    if n < 2 or len(rows) < 2:
        raise DataError(f"{n} folds of {len(rows)} rows", expected="at least 2 folds and 2 rows")
    subjects = rows["subject"].nunique()
    if by_subject(rows, decision):
        tests = _by_subject(rows, min(n, subjects), seed)
    else:
        tests = blocks(rows, min(n, len(rows)))
    out = [(purged(rows, test, decision.outcome.horizon_s), test) for test in tests]
    if any(len(train) == 0 for train, _ in out):
        raise DataError(
            f"{n} folds of {len(rows)} rows: a fold is left with no training rows",
            found=f"a horizon of {decision.outcome.horizon_s:g} s covers them all",
            do="Collect rows over a longer time, or from more subjects; or is outcome.horizon_s longer than "
            "what is decided needs?",
        )
    return out


def blocks(rows: pd.DataFrame, n: int) -> list[Index]:
    """Positions in ``n`` contiguous blocks of time of equal row count, oldest first; nothing is shuffled.

    Rows taken at the same instant stay together.
    """
    at = rows["at_us"].to_numpy(dtype=np.int64)
    order = np.argsort(at, kind="stable")
    instants, first = np.unique(at[order], return_index=True)
    if n > len(instants):
        raise DataError(f"{n} blocks of time", expected="an instant for each", found=f"{len(instants)}")
    wanted = np.array([i * len(at) // n for i in range(1, n)], dtype=np.int64)
    cuts = np.unique(first[np.clip(np.searchsorted(first, wanted), 1, len(first) - 1)]) if n > 1 else wanted
    return [np.sort(part).astype(np.int64) for part in np.split(order, cuts)]


def forward(rows: pd.DataFrame, decision: Decision, n: int) -> list[Fold]:
    """Strict time order: each of ``n`` blocks but the first is tested on what came before it."""
    parts = blocks(rows, n)
    out = []
    for i in range(1, len(parts)):
        before = np.sort(np.concatenate(parts[:i]))
        fine = np.intersect1d(purged(rows, parts[i], decision.outcome.horizon_s), before)
        out.append((fine, parts[i]))
    return [(train, test) for train, test in out if len(train)]


def purged(rows: pd.DataFrame, test: Index, horizon_s: float) -> Index:
    """Positions outside ``test`` whose ``[at, at + horizon)`` meets no test row's of the same subject."""
    span = max(0, round(horizon_s * 1e6))
    at = rows["at_us"].to_numpy(dtype=np.int64)
    codes = pd.factorize(rows["subject"])[0]
    keep = np.ones(len(rows), dtype=bool)
    keep[test] = False
    for code in np.unique(codes[test]):
        mine = np.flatnonzero((codes == code) & keep)
        tested = np.sort(at[test[codes[test] == code]])
        right = np.searchsorted(tested, at[mine], side="left")
        after = tested[np.minimum(right, len(tested) - 1)]
        before = tested[np.maximum(right - 1, 0)]
        near = (right < len(tested)) & (after < at[mine] + span)
        near |= (right > 0) & (before + span > at[mine])
        keep[mine[near]] = False
    return np.flatnonzero(keep).astype(np.int64)


def _by_subject(rows: pd.DataFrame, n: int, seed: int) -> list[Index]:
    """Subjects dealt to the emptiest fold, largest first; equal ones in drawn order."""
    codes, names = pd.factorize(rows["subject"], sort=True)
    sizes = np.bincount(codes, minlength=len(names))
    drawn = np.random.default_rng(seed).permutation(len(names))
    load, fold_of = np.zeros(n), np.zeros(len(names), dtype=np.int64)
    for code in drawn[np.argsort(-sizes[drawn], kind="stable")]:
        fold_of[code] = int(load.argmin())
        load[fold_of[code]] += sizes[code]
    return [np.flatnonzero(fold_of[codes] == i).astype(np.int64) for i in range(n)]
