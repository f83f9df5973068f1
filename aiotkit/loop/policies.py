"""Policies that are run in process, side by side: constants and single thresholds.

Each gives an order of speed per arm and machine from a ``Look``; none of them sees more than a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from aiotkit.core.decision import Decision
from aiotkit.loop.look import Look
from aiotkit.loop.twin import Twin
from aiotkit.loop.wear import Array, Flags

RUN, THROTTLE, STOP = 1.0, 0.6, 0.0


class Policy(Protocol):
    """One or more arms of a run."""

    @property
    def names(self) -> Sequence[str]:
        """The name of each arm, in order."""

    def order(self, look: Look, arms: slice, twin: Twin) -> Array:
        """Speeds, ``[arms, machines]``; ``arms`` says which of the look's arms are this policy's."""


@dataclass(frozen=True)
class Constant:
    """The same order at every decision."""

    name: str
    speed: float

    @property
    def names(self) -> Sequence[str]:
        """One arm."""
        return (self.name,)

    def order(self, look: Look, arms: slice, twin: Twin) -> Array:  # noqa: ARG002
        """The speed, everywhere."""
        return np.full((1, twin.machines), self.speed)


@dataclass(frozen=True, slots=True)
class Threshold:
    """Act while (throttle) or as soon as (stop) one feature exceeds one limit."""

    feature: str
    limit: float
    speed: float

    def __str__(self) -> str:
        action = "stop" if self.speed == STOP else "throttle"
        return f"{self.feature} > {self.limit:.4g}: {action}"


class Thresholds:
    """Many single thresholds, one arm each."""

    def __init__(self, candidates: Sequence[Threshold]) -> None:
        self.candidates = tuple(candidates)
        self._limit = np.array([c.limit for c in candidates])[:, np.newaxis]
        self._speed = np.array([c.speed for c in candidates])[:, np.newaxis]
        self._latched: Flags | None = None
        self._features = sorted({c.feature for c in candidates})
        self._rows = {
            f: np.array([i for i, c in enumerate(candidates) if c.feature == f]) for f in self._features
        }

    @property
    def names(self) -> Sequence[str]:
        """Every candidate in words."""
        return tuple(str(c) for c in self.candidates)

    def order(self, look: Look, arms: slice, twin: Twin) -> Array:
        """Speeds by threshold; a stop holds until the crew hands the machine back."""
        shape = (len(self.candidates), twin.machines)
        exceeded = np.zeros(shape, dtype=bool)
        for name, rows in self._rows.items():
            exceeded[rows] = look.feature(name, arms)[rows] > self._limit[rows]  # NaN exceeds nothing
        released = look.seen.released[arms]
        before = self._latched if self._latched is not None else np.zeros(shape, dtype=bool)
        stops = np.broadcast_to(self._speed == STOP, shape)
        self._latched = (before | (exceeded & stops)) & ~released
        return np.where(self._latched, STOP, np.where(exceeded & ~stops & ~released, self._speed, RUN))


def candidates() -> list[Threshold]:
    """Single thresholds worth trying: the usual statistics of two radial axes, and the oil's temperature."""
    limits = {
        "rms": np.geomspace(0.8, 3.2, 8),
        "p2p": np.geomspace(4.5, 22, 8),
        "kurtosis": np.linspace(3.2, 4.6, 8),
        "crest": np.linspace(3.6, 5.7, 8),
    }
    fields = {f"{axis}.{s}": values for axis in ("vib_x", "vib_y") for s, values in limits.items()}
    fields["oil_temp.last"] = np.linspace(36, 54, 10)
    return [
        Threshold(f, float(x), a) for f, values in fields.items() for x in values for a in (STOP, THROTTLE)
    ]


def cheapest(decision: Decision, state: str) -> str:
    """The action of least cost when the state is known; what a technician answers."""
    if isinstance(decision.costs, str):
        return decision.recovery
    costs = decision.costs
    return min(costs, key=lambda a: (costs[a][state], a))
