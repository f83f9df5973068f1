"""What time it is: of the wall, or of the source when a plant is simulated faster than real time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Instants for records and ages. Durations are always measured with ``time.monotonic``."""

    def now_us(self) -> int:
        """Now, in microseconds UTC."""

    def advance(self, at_us: int) -> None:
        """A packet says that it is ``at_us``; a clock of its own ignores that."""


class SystemClock:
    """The computer's clock."""

    def now_us(self) -> int:
        """See ``Clock.now_us``."""
        return time.time_ns() // 1000

    def advance(self, at_us: int) -> None:
        """See ``Clock.advance``."""


class SourceClock:
    """The source's clock: it stands still between packets and never goes back.

    >>> clock = SourceClock(); clock.advance(5); clock.advance(3); clock.now_us()
    5
    """

    def __init__(self, now_us: int = 0) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """See ``Clock.now_us``."""
        return self._now_us

    def advance(self, at_us: int) -> None:
        """See ``Clock.advance``."""
        self._now_us = max(self._now_us, at_us)
