"""A guess about a column of an unknown file: what it is, how sure that is, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal[
    "time", "subject", "signal", "label", "counter", "constant", "sparse", "empty", "words", "choice", "name",
    "value", "unit", "quality", "sample", "future",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Guess:
    """One column: what it probably is, why, and how sure (0 to 1). ``unit`` only for signals."""

    column: str
    role: Role
    why: str
    sure: float
    unit: str | None = None
    low: float | None = None
    high: float | None = None
