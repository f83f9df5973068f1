"""When a device would have decided, had it listened to this telemetry (``edge.windows`` says why so).

Regular signals: the first window ends where one is full, the others ``every_s`` apart for as long as there
are samples; samples that begin again after a pause fill a window first. Without regular signals a decision
is due with the first value that comes ``every_s`` after the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.decision import Decision, Regular
from aiotkit.lab.telemetry import Indices, Series, Telemetry

#: a value may come this much of ``every_s`` too early and still be the next one: clocks jitter
EARLY = 0.05


def early_us(decision: Decision) -> int:
    """How early a row may be and still end a step or a horizon, whichever is shorter (µs)."""
    return round(EARLY * min(decision.window.every_s, decision.outcome.horizon_s) * 1e6)


@dataclass(frozen=True, slots=True)
class Due:
    """Instants, sorted by subject and time: ``codes`` (places in ``Telemetry.subjects``) and ``end_us``."""

    codes: Indices
    end_us: Indices

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, which: NDArray[np.bool_]) -> Due:
        """Some of them."""
        return Due(self.codes[which], self.end_us[which])


def due(telemetry: Telemetry, decision: Decision) -> Due:
    """Every instant at which a decision would have been taken."""
    regular = {n: s.sampling for n, s in decision.signals.items() if isinstance(s.sampling, Regular)}
    if regular:
        there = [
            (telemetry.series[n], s.rate_hz, decision.samples(n))
            for n, s in regular.items()
            if n in telemetry.series
        ]
        ends = _by_runs(there, decision, len(telemetry.subjects))
    else:
        held = [telemetry.series[n] for n in decision.signals if n in telemetry.series]
        ends = [_by_values(held, i, decision.window.every_s * 1e6) for i in range(len(telemetry.subjects))]
    counts = [len(e) for e in ends]
    codes = np.repeat(np.arange(len(ends), dtype=np.int64), counts)
    return Due(codes, np.concatenate(ends) if ends else np.empty(0, dtype=np.int64))


def _by_values(held: Sequence[Series], code: int, every_us: float) -> Indices:
    """Of the instants at which any value came, those at least ``every_us`` apart."""
    parts = [s.at_us[s.bounds[code] : s.bounds[code + 1]] for s in held]
    at = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
    patience = round(every_us * (1 - EARLY))
    if not len(at) or bool(np.all(np.diff(at) >= patience)):
        return at
    # for each value the place of the next one that is due, found for all of them at once
    following = np.searchsorted(at, at + patience).tolist()
    chosen, i = [], 0
    while i < len(following):
        chosen.append(i)
        i = following[i]
    return at[np.array(chosen, dtype=np.int64)]


def _by_runs(there: Sequence[tuple[Series, float, int]], decision: Decision, subjects: int) -> list[Indices]:
    if not there:
        return [np.empty(0, dtype=np.int64) for _ in range(subjects)]
    cut = [_runs(*one) for one in there]
    codes, began, ended = (np.concatenate(column) for column in zip(*cut, strict=True))
    order = np.lexsort((ended, began, codes))
    codes, began, ended = codes[order], began[order], ended[order]
    bounds = np.searchsorted(codes, np.arange(subjects + 1)).tolist()
    half = 0.5e6 / max(rate for _, rate, _ in there)
    out = []
    for lo, hi in pairwise(bounds):
        clock = _Clock(decision, half)
        found = list(clock.ends(_united(began[lo:hi].tolist(), ended[lo:hi].tolist(), half)))
        out.append(np.concatenate(found) if found else np.empty(0, dtype=np.int64))
    return out


def _runs(series: Series, rate_hz: float, n: int) -> tuple[Indices, Indices, Indices]:
    """Stretches of samples without a pause of more than a window: (subject, first, end) of each."""
    at, period = series.at_us, 1e6 / rate_hz
    if not len(at):
        return at, at, at
    codes = np.repeat(np.arange(len(series.bounds) - 1), np.diff(series.bounds))
    new = (np.diff(codes) != 0) | (np.rint(np.diff(at) / period) - 1 > n)
    first = np.r_[0, np.flatnonzero(new) + 1]
    last = np.r_[first[1:], len(at)] - 1
    return codes[first], at[first], at[last] + round(period)


def _united(began: list[int], ended: list[int], half: float) -> Iterator[tuple[int, int]]:
    """Stretches of several signals as one, where they overlap or touch."""
    if not began:
        return
    first, last = began[0], ended[0]
    for b, e in zip(began[1:], ended[1:], strict=True):
        if b <= last + half:
            last = max(last, e)
            continue
        yield first, last
        first, last = b, e
    yield first, last


class _Clock:
    """What is due within each stretch, given the stretches before it."""

    def __init__(self, decision: Decision, half_us: float) -> None:
        self._length, self._every = decision.window.length_s * 1e6, decision.window.every_s * 1e6
        self._half = half_us
        self._last: int | None = None
        self._resumed: int | None = None

    def ends(self, stretches: Iterator[tuple[int, int]]) -> Iterator[Indices]:
        """Window ends, stretch by stretch."""
        for began, ended in stretches:
            first = self._first(began)
            if ended < first - self._half or (self._last is not None and first <= self._last + self._half):
                continue
            count = int((ended + self._half - first) // self._every)
            found = np.rint(first + self._every * np.arange(count + 1)).astype(np.int64)
            self._last, self._resumed = int(found[-1]), None
            yield found

    def _first(self, began: int) -> float:
        """Where the next window ends when samples begin (again) at ``began``."""
        full = began + self._length
        if self._last is None:
            return full
        following, idle = self._last + self._every, max(0.0, self._every - self._length)
        if idle and began > self._last - self._half:  # a burst ends its own window
            return full if full >= following - idle / 2 else following
        if began <= following - self._length + self._half:
            return following
        if self._resumed is None:
            self._resumed = began
        return min(full, self._resumed + 2 * self._length)
