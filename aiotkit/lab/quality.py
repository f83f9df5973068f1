"""What a file says of its own values: a column of quality, and a number that stands for 'no value'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.lab.layout import QUALITY_NAMES, called

#: how words of quality begin; OPC says 192 and more for good, 64 for uncertain, 0 for bad
_GOOD = ("good", "ok", "valid", "gut", "gultig")
_POOR = ("bad", "uncertain", "invalid", "questionable", "suspect", "schlecht", "unsicher", "ungultig", "fail")
_OPC_GOOD = 192
#: a sentinel occurs at least so often, and so many other values must be there to tell it from them
_OFTEN, _OTHERS = 3, 10


def quality_column(frame: pd.DataFrame) -> str | None:
    """The column that says of each row whether it is good; None where there is none, or several.

    >>> quality_column(pd.DataFrame({"v": [1.0, 2.0], "Quality": ["GOOD", "BAD"]}))
    'Quality'
    """
    found = [c for c in called(frame.columns, QUALITY_NAMES) if _speaks_of_quality(frame[c])]
    return found[0] if len(found) == 1 else None


def _speaks_of_quality(column: pd.Series) -> bool:
    words = {_plain(w) for w in column.dropna().unique()} if column.nunique() <= 64 else set()
    if not words:
        return False
    codes = [float(w) for w in words if w.isdigit()]
    if len(codes) == len(words):
        return all(c <= 255 for c in codes) and any(c >= _OPC_GOOD for c in codes)
    return all(w.startswith((*_GOOD, *_POOR)) for w in words) and any(w.startswith(_GOOD) for w in words)


def _plain(word: Any) -> str:
    return str(word).strip().lower().removesuffix(".0").replace("ü", "u")


def poor(column: pd.Series) -> NDArray[np.bool_]:
    """Which rows say that they are not good; one that says nothing is taken."""
    bad = {w for w in column.dropna().unique() if not _is_good(_plain(w))}
    return np.asarray(column.isin(bad), dtype=bool)


def _is_good(word: str) -> bool:
    return int(word) >= _OPC_GOOD if word.isdigit() else word.startswith(_GOOD)


def sentinel_of(values: NDArray[np.floating[Any]]) -> float | None:
    """The one far value, repeated, that stands for 'no value', such as -9999; None where there is none.

    >>> sentinel_of(np.r_[np.linspace(20, 30, 50), [-9999.0] * 4]), sentinel_of(np.linspace(20, 30, 50))
    (-9999.0, None)
    """
    there = values[np.isfinite(values)]
    for far in (float(there.min()), float(there.max())) if len(there) else ():
        rest = there[there != far]
        if len(there) - len(rest) < _OFTEN or len(np.unique(rest)) < _OTHERS:
            continue
        gap, span = float(np.min(np.abs(rest - far))), float(np.ptp(rest))
        nines = abs(far) >= 99 and set(f"{abs(far):g}".replace(".", "")) == {"9"}
        below = far < 0 <= float(rest.min())  # nothing else is negative
        if gap > (0.5 if nines else 5 if below else 20) * span:
            return far
    return None
