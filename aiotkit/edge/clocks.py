"""What time it is: of the wall, or of the source when a plant is simulated faster than real time.

And whether a packet's word on it can be believed: one packet from a far future must not silence a device.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, Protocol

from aiotkit.core.records import later_us

#: a packet may be this far ahead of the computer's clock
AHEAD_S = 300.0
#: how many packets that agree with one another set the time anew
AGREEING = 3
#: so many packets in a row that bring no new time are worth a word
STANDING = 10
_FAR_S, _FAR_WINDOWS = 7 * 86_400.0, 100


class Clock(Protocol):
    """Instants for records and ages. Durations are always measured with ``time.monotonic``."""

    def now_us(self) -> int:
        """Now, in microseconds UTC."""

    def advance(self, at_us: int) -> None:
        """A packet says that it is ``at_us``; a clock of its own ignores that."""

    def set(self, at_us: int) -> None:
        """The source's time was wrong so far: it is ``at_us``; a clock of its own ignores that."""


class SystemClock:
    """The computer's clock."""

    def now_us(self) -> int:
        """See ``Clock.now_us``."""
        return time.time_ns() // 1000

    def advance(self, at_us: int) -> None:
        """See ``Clock.advance``."""

    def set(self, at_us: int) -> None:
        """See ``Clock.set``."""


class SourceClock:
    """The source's clock: it stands still between packets and goes back only when ``set``.

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

    def set(self, at_us: int) -> None:
        """See ``Clock.set``."""
        self._now_us = at_us


@dataclass(frozen=True, slots=True)
class TimeRuling:
    """``take`` the packet, ``refuse`` it, or start ``anew`` at its time, as several packets agree."""

    verdict: Literal["take", "refuse", "anew"]
    why: str = ""


class PacketTimes:
    """Which packets' times are believed. Pure: the clock's time is an argument.

    Far is more than a week and more than 100 decisions away from the last packet that was taken. Without a
    clock to ask, a packet from far ahead is refused; with one, a packet more than 300 s ahead of it. A packet
    from far behind is refused too, or any earlier one when the last itself lies ahead of the clock. When
    three refused packets in a row, each later than the one before, agree on another time, that is the time.
    A packet a little behind is taken: it may have been sent twice, and no window is due with it.

    Args:
        every_s: time between two decisions.
        last_us: the last instant that was believed before, if any.
        by_clock: whether ``judge`` gets the time of an independent clock.
    """

    def __init__(self, every_s: float, last_us: int | None, *, by_clock: bool) -> None:
        self._far_us = later_us(0, max(_FAR_S, _FAR_WINDOWS * every_s))
        self._by_clock, self.last_us = by_clock, last_us
        self._other_us, self._agreeing = 0, 0
        self.standing = 0

    def judge(self, at_us: int, now_us: int) -> TimeRuling:
        """Whether a packet of ``at_us`` is believed at ``now_us``."""
        limit_us = later_us(now_us, AHEAD_S) if self._by_clock else None
        if limit_us is not None and at_us > limit_us:
            return TimeRuling("refuse", f"packet.at_us is {(at_us - now_us) / 1e6:g} s ahead of the clock")
        why = self._doubt(at_us, limit_us)
        if not why:
            self.standing = 0 if self.last_us is None or at_us > self.last_us else self.standing + 1
            self._agreeing = 0
            self.last_us = max(at_us, self.last_us or 0)
            return TimeRuling("take")
        follows = 0 < at_us - self._other_us <= self._far_us
        self._agreeing = self._agreeing + 1 if self._agreeing and follows else 1
        self._other_us = at_us
        if self._agreeing < AGREEING:
            return TimeRuling("refuse", why)
        self.last_us, self._agreeing, self.standing = at_us, 0, 0
        return TimeRuling("anew", f"{why}; {AGREEING} packets in a row agree: it is the time now")

    def _doubt(self, at_us: int, limit_us: int | None) -> str:
        if self.last_us is None:
            return ""
        ahead_us = at_us - self.last_us
        if limit_us is None and ahead_us > self._far_us:
            return f"packet.at_us is {ahead_us / 1e6:g} s ahead of the last packet"
        wrong_before = limit_us is not None and self.last_us > limit_us and ahead_us < 0
        if wrong_before or ahead_us < -self._far_us:
            return f"packet.at_us is {-ahead_us / 1e6:g} s behind the last packet"
        return ""

    @property
    def trouble(self) -> str:
        """Words while packet after packet brings no new time."""
        if self.standing < STANDING:
            return ""
        return f"source: {self.standing} packets in a row are not later than the last one: nothing is due"
