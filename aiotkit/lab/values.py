"""Single values as they stand in files: numbers, choices, and why one is not believed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.lab.units import Conversion

EMPTY_WORDS = frozenset({"", "nan", "na", "n/a", "null", "none", "-", "--", "<na>", "nat"})


def words(text: pd.Series, allowed: tuple[str, ...]) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Choices as they stand, and why each cannot be believed ('' = it can)."""
    empty, known = text.str.lower().isin(EMPTY_WORDS), text.isin(allowed)
    reason = np.where(known, "", np.where(empty, "empty", f"not one of {', '.join(allowed)}")).astype(object)
    return text.to_numpy(dtype=object), reason


def numbers(raw: pd.Series, text: pd.Series, decimal: str) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    """Numbers out of raw values (``text``: the same as text), NaN and a reason where there is none."""
    if pd.api.types.is_numeric_dtype(raw) and not pd.api.types.is_bool_dtype(raw):
        value = raw.to_numpy(dtype=float, na_value=np.nan)
    else:
        plain = (
            text
            if decimal == "."
            else text.str.replace(".", "", regex=False).str.replace(decimal, ".", regex=False)
        )
        value = pd.to_numeric(plain, errors="coerce").to_numpy(dtype=float)
    empty = text.str.lower().isin(EMPTY_WORDS).to_numpy(dtype=bool)
    reason = np.where(np.isnan(value), np.where(empty, "empty", "not a number"), "").astype(object)
    comma = (reason == "not a number") & text.str.fullmatch(r"[-+]?\d[\d.]*,\d+").to_numpy(dtype=bool)
    reason[comma] = "not a number; is the decimal sign ','? Say so"
    return value, reason


def converted(
    value: NDArray[np.float64], reason: NDArray[np.object_], convert: Conversion
) -> NDArray[np.float64]:
    """Values in the decision's unit; what becomes infinite gets a reason."""
    out, good = value.copy(), reason == ""
    with np.errstate(over="ignore", invalid="ignore"):
        out[good] = convert(value[good])
    reason[good & ~np.isfinite(out)] = "infinite"
    return out
