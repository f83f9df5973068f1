"""The last word on each condition of operation, and how old it is. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from aiotkit.core.records import Reading
from aiotkit.edge.sources import ContextPoint
from aiotkit.edge.windows import AHEAD_US

_NEVER = Reading(None, math.inf)


class ContextCache:
    """Values of the declared context names; others are ignored.

    >>> cache = ContextCache(["load"]); cache.feed([("load", 1_000_000, 0.5)], 1_000_000)
    >>> cache.readings(3_000_000)["load"]
    Reading(value=0.5, age_s=2.0)
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._known: dict[str, tuple[float | str, int] | None] = dict.fromkeys(names)
        self._faults: dict[str, str] = {}

    def feed(self, points: Iterable[ContextPoint], now_us: int) -> None:
        """Take points; the newest of each name counts, one from the future is a fault until a good one."""
        for name, at_us, value in points:
            if name not in self._known:
                continue
            if at_us > now_us + AHEAD_US:
                self._faults[name] = f"a value from the future: {(at_us - now_us) / 1e6:g} s ahead"
                continue
            last = self._known[name]
            if last is None or at_us >= last[1]:
                self._known[name] = (value, at_us)
                self._faults.pop(name, None)

    def readings(self, now_us: int) -> dict[str, Reading]:
        """Each value with its age (s) at an instant; never heard: None and infinite age.

        A clock that was set back shows as a negative age, which no check believes.
        """
        return {name: _reading(last, now_us) for name, last in self._known.items()}

    @property
    def faults(self) -> Mapping[str, str]:
        """What was wrong with the newest word on a name."""
        return self._faults


def _reading(last: tuple[float | str, int] | None, now_us: int) -> Reading:
    if last is None:
        return _NEVER
    age_us = now_us - last[1]
    return Reading(last[0], 0.0 if -AHEAD_US <= age_us < 0 else age_us / 1e6)
