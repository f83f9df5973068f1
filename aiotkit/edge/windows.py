"""From packets to windows: when a decision is due, what it looks at, and what was wrong with it.

Pure: no clock, no I/O. A source promises that a packet holds everything up to its ``at_us``. A window is due
where the samples reach the next end: the first is where one window is full, the others ``every_s`` apart; a
burst (a run of samples after a pause) ends its own window. Values are not judged here: ``bundle.inputs``
does that on desk and device alike. Faults found here are those only a receiver can see: wrong rate, samples
from the past or future, missing, stuck or repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.decision import Decision, OnChange, Regular
from aiotkit.core.records import MAX_US
from aiotkit.edge.sources import Packet, Samples

Array = NDArray[np.float32]
#: a sample or point may be this far ahead of its packet before it counts as from the future
AHEAD_US = 1_000_000
#: from this many samples on, a window of equal values (or equal to the last) is no measurement
STUCK_SAMPLES = 64
RATE_TOLERANCE = 0.01
MAX_POINTS = 1 << 16


@dataclass(frozen=True, slots=True)
class Gathered:
    """One window of every signal: ``[n]`` float32, NaN where nothing is known, and faults in words."""

    end_us: int
    windows: Mapping[str, Array]
    faults: Mapping[str, str]


class Run:
    """Samples of one regular signal since the last long pause; short gaps are NaN."""

    def __init__(self, name: str, rate_hz: float, n: int) -> None:
        self.name, self.rate_hz, self.n = name, rate_hz, n
        self.began_us = self.end_us = 0
        self.fault = ""
        self._last: Array | None = None
        self._values: Array = np.empty(0, dtype=np.float32)

    @property
    def period_us(self) -> float:
        """Time between two samples."""
        return 1e6 / self.rate_hz

    def add(self, samples: Samples, at_us: int) -> bool:
        """Append what a packet of ``at_us`` brought; False (and a fault) when it cannot be believed."""
        if not abs(samples.rate_hz / self.rate_hz - 1) <= RATE_TOLERANCE:
            self.fault = f"sampled at {samples.rate_hz:g} Hz, declared {self.rate_hz:g} Hz"
            return False
        if samples.end_us > at_us + max(AHEAD_US, self.period_us):
            self.fault = f"samples from the future: {(samples.end_us - at_us) / 1e6:g} s ahead"
            return False
        if samples.values.size == 0:
            return False
        ahead = (samples.first_us - self.end_us) / self.period_us
        if self.end_us and ahead < -0.5:
            self.fault = f"samples from the past: {(self.end_us - samples.first_us) / 1e6:g} s back"
            return False
        gap = round(ahead)
        if self.end_us and gap <= self.n:
            filler = np.full(gap, np.nan, dtype=np.float32)
            parts = [self._values[-self.n :], filler, samples.values]  # older ones no window can need
            self._values = np.concatenate(parts, dtype=np.float32)
        else:
            self._values, self.began_us = samples.values.astype(np.float32), samples.first_us
        self.end_us = samples.end_us
        return True

    def cut(self, end_us: int) -> tuple[Array, str]:
        """The window that ends at an instant, and what is wrong with it."""
        behind = round((self.end_us - end_us) / self.period_us) if self.end_us else 0
        to = self._values.size - behind
        values = self._values[max(0, to - self.n) : max(0, to)]
        ahead_of_end = np.full(max(0, min(-behind, self.n)), np.nan, dtype=np.float32)
        values = np.concatenate([values, ahead_of_end])[-self.n :]
        window = np.full(self.n, np.nan, dtype=np.float32)
        window[self.n - values.size :] = values
        return window, self.fault or self._frozen(window)

    def _frozen(self, window: Array) -> str:
        last, self._last = self._last, window
        if self.n < STUCK_SAMPLES:
            return ""
        if window[0] == window[-1] and bool(np.all(window == window[0])):
            return f"stuck: all {self.n} samples are {window[0]:g}"
        if last is not None and window[0] == last[0] and bool(np.array_equal(window, last)):
            return "stuck: the window repeats the last one"
        return ""

    def settle(self, end_us: int) -> None:
        """After a window: forget faults and what no later window can need."""
        self.fault = ""
        keep = self.n + max(0, round((self.end_us - end_us) / self.period_us))
        if self._values.size > keep:
            self._values = self._values[self._values.size - keep :].copy()


class Held:
    """Points of one on-change signal, held on the window's grid."""

    def __init__(self, name: str, sampling: OnChange, n: int) -> None:
        self.name, self.n = name, n
        self.max_age_us = sampling.max_age_s * 1e6
        self.fault = ""
        self._at: list[int] = []
        self._values: list[float] = []

    def add(self, at_us: int, value: float, now_us: int) -> None:
        """Take a point; one that is older than the newest changes nothing."""
        if at_us > now_us + AHEAD_US:
            self.fault = f"a value from the future: {(at_us - now_us) / 1e6:g} s ahead"
        elif not self._at or at_us > self._at[-1]:
            self._at.append(at_us)
            self._values.append(value)
            if len(self._at) > MAX_POINTS:
                del self._at[: MAX_POINTS // 2], self._values[: MAX_POINTS // 2]

    def cut(self, end_us: int, length_us: float) -> tuple[Array, str]:
        """The values held at the ``n`` grid instants of a window; too old ones are NaN."""
        grid = end_us - length_us * np.arange(self.n - 1, -1, -1) / self.n
        if not self._at:
            return np.full(self.n, np.nan, dtype=np.float32), self.fault or "never heard"
        at = np.asarray(self._at)
        index = np.searchsorted(at, grid, side="right") - 1
        age_us = grid - at[index]
        fresh = (index >= 0) & (age_us <= self.max_age_us)
        window = np.where(fresh, np.asarray(self._values)[index], np.nan).astype(np.float32)
        stale = "" if fresh[-1] else self._stale(end_us)
        return window, self.fault or stale

    def _stale(self, end_us: int) -> str:
        age = (end_us - self._at[-1]) / 1e6
        return f"last value {age:g} s old, at most {self.max_age_us / 1e6:g} s allowed"

    def settle(self, end_us: int, length_us: float) -> None:
        """After a window: forget faults and points that no later window can need."""
        self.fault = ""
        first = int(np.searchsorted(np.asarray(self._at), end_us - length_us, side="right")) - 1
        if first > 0:
            del self._at[:first], self._values[:first]


class Assembler:
    """Windows of a decision's signals out of packets.

    Args:
        decision: says signals, ``window.length_s`` and ``window.every_s``.
        last_end_us: the end of the last window decided before a restart; nothing up to there is due again.
    """

    def __init__(self, decision: Decision, last_end_us: int | None = None) -> None:
        self._length_us = min(decision.window.length_s * 1e6, float(MAX_US))
        self._every_us = min(decision.window.every_s * 1e6, float(MAX_US))
        self._runs: dict[str, Run] = {}
        self._held: dict[str, Held] = {}
        for name, signal in decision.signals.items():
            if isinstance(signal.sampling, Regular):
                self._runs[name] = Run(name, signal.sampling.rate_hz, decision.samples(name))
            else:
                self._held[name] = Held(name, signal.sampling, decision.samples(name))
        self._last_end_us = last_end_us
        self._due_us = None if last_end_us is None else last_end_us + self._every_us
        self._resumed_us: int | None = None  # where samples began again after a pause, until a window
        self.latest: Gathered | None = None

    @property
    def _idle_us(self) -> float:
        """Time between two windows that no window covers (bursts); 0 when they touch or overlap."""
        return max(0.0, self._every_us - self._length_us)

    def feed(self, packet: Packet) -> list[Gathered]:
        """Take a packet; gives the windows that are due with it, oldest first."""
        fresh = [
            self._runs[name]
            for name, samples in packet.samples.items()
            if name in self._runs and self._runs[name].add(samples, packet.at_us)
        ]
        for name, at_us, value in packet.points:
            if name in self._held:
                self._held[name].add(at_us, value, packet.at_us)
        out: list[Gathered] = []
        while (end_us := self._due(fresh, packet.at_us)) is not None:
            out.append(self._gather(end_us))
        return out

    def blank(self, end_us: int) -> Gathered:
        """What there is to look at before the first window: nothing."""
        sizes = {name: one.n for group in (self._runs, self._held) for name, one in group.items()}
        windows = {name: np.full(n, np.nan, dtype=np.float32) for name, n in sizes.items()}
        return Gathered(end_us, windows, dict.fromkeys(sizes, "never heard"))

    def _due(self, fresh: list[Run], at_us: int) -> int | None:
        if not fresh:
            return self._due_without_samples(at_us)
        lead = max(fresh, key=lambda run: (run.end_us, -run.began_us))
        end_us, half = self._target(lead), lead.period_us / 2
        reached = end_us is not None and lead.end_us >= end_us - half
        new = end_us is not None and (self._last_end_us is None or end_us > self._last_end_us + half)
        return round(end_us) if reached and new and end_us is not None else None

    def _target(self, lead: Run) -> float | None:
        """Where the next window ends, seen from the run that reaches furthest."""
        half, full = lead.period_us / 2, lead.began_us + self._length_us
        if self._due_us is None:
            return full
        burst = self._last_end_us is None or lead.began_us > self._last_end_us - half
        if self._idle_us and burst:  # a burst ends its own window, unless it comes much too early
            return full if full >= self._due_us - self._idle_us / 2 else self._due_us
        if lead.began_us <= self._due_us - self._length_us + half:
            return self._due_us
        if self._resumed_us is None:
            self._resumed_us = lead.began_us
        return min(full, self._resumed_us + 2 * self._length_us)  # wait for a full window, not forever

    def _due_without_samples(self, at_us: int) -> int | None:
        """A packet without any regular sample: due when it is late enough that none will come."""
        if self._due_us is None:
            return None if self._runs else at_us
        slack = min(0.01 * self._every_us, self._idle_us / 2) if self._idle_us else -self._length_us
        if not self._runs:
            slack = 0.0
        return at_us if at_us >= self._due_us - slack else None

    def _gather(self, end_us: int) -> Gathered:
        windows: dict[str, Array] = {}
        faults: dict[str, str] = {}
        for name, run in self._runs.items():
            windows[name], words = self._missing(run, end_us) or run.cut(end_us)
            run.settle(end_us)
            faults |= {name: words} if words else {}
        for name, held in self._held.items():
            windows[name], words = held.cut(end_us, self._length_us)
            held.settle(end_us, self._length_us)
            faults |= {name: words} if words else {}
        self._last_end_us, self._due_us, self._resumed_us = end_us, end_us + self._every_us, None
        self.latest = Gathered(end_us, windows, faults)
        return self.latest

    def _missing(self, run: Run, end_us: int) -> tuple[Array, str] | None:
        """An empty window and why, when a signal has nothing for the window that ends here."""
        if run.end_us > end_us - self._length_us + run.period_us / 2:
            return None
        words = run.fault or ("no samples for this window" if run.end_us else "never heard")
        return np.full(run.n, np.nan, dtype=np.float32), words
