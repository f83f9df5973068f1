"""Tables in which a row is a window: which columns are the samples of which signal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np
import pandas as pd

from aiotkit.core.errors import DataError

#: from so many numbered columns that look alike on a row is taken for a window without being told
FEWEST_SAMPLES = 32


def sample_of(column: str) -> tuple[str, int] | None:
    """Signal and number of a column of samples; a bare number belongs to the signal ''.

    >>> sample_of("vib_12"), sample_of("x[3]"), sample_of("7"), sample_of("load")
    (('vib', 12), ('x', 3), ('', 7), None)
    """
    match = re.fullmatch(r"(.*?)[_.\[ ]?(\d+)\]?", column)
    return (match[1], int(match[2])) if match else None


def numbered(columns: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Columns of samples by their signal as it is written, each in the order of its numbers."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for column in columns:
        sample = sample_of(column)
        if sample is not None:
            groups.setdefault(sample[0], []).append((sample[1], column))
    return {name: tuple(c for _, c in sorted(found)) for name, found in groups.items()}


def windows_in(frame: pd.DataFrame) -> Mapping[str, tuple[str, ...]]:
    """Columns that are samples of windows, by signal: many, numbered without a gap, and alike."""
    return {
        name: columns
        for name, columns in numbered(map(str, frame.columns)).items()
        if len(columns) >= FEWEST_SAMPLES and _without_gap(columns) and alike(frame[list(columns)], 0.95)
    }


def _without_gap(columns: Iterable[str]) -> bool:
    numbers = [sample[1] for c in columns if (sample := sample_of(c)) is not None]
    return numbers[0] <= 1 and all(b == a + 1 for a, b in pairwise(numbers))


def alike(samples: pd.DataFrame, share: float) -> bool:
    """Whether columns may be samples of one signal: of neighbours at least this share overlap."""
    values = samples.head(2000).apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    if bool(np.isnan(values).all(axis=0).any()):
        return False
    low, high = np.nanquantile(values, [0.02, 0.98], axis=0)
    room = 0.05 * (np.nanmax(values) - np.nanmin(values))
    overlap = (low[1:] <= high[:-1] + room) & (low[:-1] <= high[1:] + room)
    near = np.ptp((low + high) / 2) <= 20 * max(float(np.median(high - low)), room)
    return bool(overlap.mean() >= share and near)


def spread(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """A frame with columns of lists (Parquet has them) as columns ``NAME_0``, ``NAME_1`` and so on.

    Raises:
        DataError: lists of a column are not all as long as each other.
    """
    if not any(map(_of_lists, (frame[c] for c in frame.columns))):
        return frame
    parts = []
    for column in frame.columns:
        if not _of_lists(frame[column]):
            parts.append(frame[[column]])
            continue
        there = frame[column].notna()
        sizes = sorted({len(cell) for cell in frame.loc[there, column]})
        if len(sizes) > 1:
            raise DataError(
                f"{name}: column '{column}' holds lists of different lengths",
                expected="as many samples in each row: a row is a window",
                found=f"{sizes[0]} to {sizes[-1]}",
                do="Cut or pad them, or write a row a sample.",
            )
        names = [f"{column}_{i}" for i in range(sizes[0])]
        cells = [cell if good else [None] * sizes[0] for cell, good in zip(frame[column], there, strict=True)]
        parts.append(pd.DataFrame(np.stack([np.asarray(c, dtype=object) for c in cells]), frame.index, names))
    return pd.concat(parts, axis=1)


def _of_lists(column: pd.Series) -> bool:
    if column.dtype != object:
        return False
    first = next((cell for cell in column if cell is not None), None)
    return isinstance(first, list | tuple | np.ndarray) and len(first) > 0
