"""A limit for a first written rule that lies within the data, so that the rule fires now and then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.lab.instants import Instants
from aiotkit.lab.template import Limit

#: share of the windows that stay below
_BELOW = 0.95


def limit_of(
    values: pd.Series, frame: pd.DataFrame, instants: Instants | None, who: Sequence[str], length_s: float
) -> Limit | None:
    """A limit on the highest value of a window; without instants, on single values.

    Args:
        values: numbers of some rows of the frame.
        frame: the whole table.
        instants: when each row of the frame was.
        who: columns that tell series apart.
        length_s: of a window.
    """
    if instants is None:
        return below_highest(values.to_numpy(dtype=float), "values")
    places = frame.index.get_indexer(values.index)
    good = instants.good[places]
    places, found = places[good], values.to_numpy(dtype=float)[good]
    keys = [pd.Series(instants.at_us[places] // round(length_s * 1e6))]
    keys += [frame[column].iloc[places].astype(str).reset_index(drop=True) for column in who]
    return below_highest(pd.Series(found).groupby(keys).max().to_numpy(), "windows")


def below_highest(reached: NDArray[np.floating], what: str) -> Limit | None:
    """What one in twenty exceeds, and one at least; None where all are equal.

    >>> below_highest(np.array([1.0, 2.0, 3.0]), "windows")
    Limit(value=2.0, why='1 of 3 windows in the data went above it, the highest to 3')
    >>> below_highest(np.array([70001.0, 70002.0, 70003.0]), "windows").value
    70002.0
    """
    ordered = np.sort(reached[np.isfinite(reached)])
    lower = ordered[ordered < ordered[-1]] if len(ordered) else ordered
    if not len(lower):
        return None
    exact = min(float(np.quantile(ordered, _BELOW, method="lower")), float(lower[-1]))
    short = float(f"{exact:.4g}")
    value = short if lower[0] <= short < ordered[-1] else exact
    above = int((ordered > value).sum())
    why = f"{above:,} of {len(ordered):,} {what} in the data went above it, the highest to {ordered[-1]:g}"
    return Limit(value, why)
