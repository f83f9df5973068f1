"""Rows to learn from, with a truth that is known: pumps that wear, in columns that show it more or less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.lab.examples import Examples

DAY_US = 86_400_000_000
START_US = 1_760_000_000_000_000
COLUMNS = ("vib.rms", "vib.mean", "vib.std", "oil.last", "context.load", "context.mode=idle")


def pumps(
    decision: Decision,
    *,
    subjects: int = 8,
    rows: int = 40,
    seed: int = 0,
    columns: Sequence[str] = COLUMNS,
    noise: float = 0.5,
    shares: Sequence[float] | None = None,
    windows: bool = False,
) -> Examples:
    """``subjects`` pumps of ``rows`` instants, two days apart; the first columns show the state.

    One value in twenty is not known. ``windows``: signal ``vib`` of 32 samples, louder the worse it is.
    """
    rng = np.random.default_rng(seed)
    states = list(decision.states)
    n = subjects * rows
    y = rng.choice(len(states), n, p=shares)
    x = rng.standard_normal((n, len(columns)))
    x[:, 0] = y + noise * x[:, 0]
    x[:, 1] = (y == 1) + noise * x[:, 1]
    x[rng.random(x.shape) < 0.05] = np.nan
    frame = pd.DataFrame(
        {
            "subject": np.repeat([f"P{i}" for i in range(subjects)], rows),
            "at_us": START_US + np.tile(np.arange(rows) * 2 * DAY_US, subjects),
            "state": pd.Series([states[k] for k in y], dtype=object),
            "status": "mature",
            "confidence": 1.0,
            "in_force": "run",
            "verify_hit": False,
            "verify_p": 0.1,
            "key": [f"d/{i}" for i in range(n)],
        }
    )
    raw = {"vib": ((1 + y[:, None]) * rng.standard_normal((n, 32))).astype(np.float32)} if windows else {}
    return Examples(frame, tuple(columns), x.astype(np.float32), raw, {"made": f"seed {seed}"})


def with_rows(examples: Examples, **columns: Any) -> Examples:
    """The same with some columns of ``rows`` replaced."""
    from dataclasses import replace

    return replace(examples, rows=examples.rows.assign(**columns))
