"""Windows out of telemetry, for many instants at once: what the device would have looked at.

Regular samples on their grid, values that change held with their largest age, then the checks of
``bundle.inputs`` and ``edge.windows``: too many bad samples, or a sensor that is stuck, leave nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.decision import Decision, OnChange, Regular
from aiotkit.lab.schedule import Due
from aiotkit.lab.telemetry import Series, Telemetry

Array = NDArray[np.float32]
#: from this many samples on, a window of equal values (or equal to the last) is no measurement
STUCK_SAMPLES = 64
_LARGEST = float(np.finfo(np.float32).max)


class _Source(Protocol):
    def cut(self, lo: int, hi: int) -> Array:
        """Raw windows ``[hi - lo, n]`` of the instants from ``lo`` to ``hi``."""


class Cutter:
    """Windows of every signal at the instants of ``at``.

    Args:
        telemetry: what was measured.
        decision: signals, window, ranges.
        at: instants, sorted by subject and time.
    """

    def __init__(self, telemetry: Telemetry, decision: Decision, at: Due) -> None:
        self._decision, self._at = decision, at
        self._sources: dict[str, _Source] = {}
        for name, signal in decision.signals.items():
            series, n = telemetry.series.get(name), decision.samples(name)
            if series is None:
                self._sources[name] = _Nothing(n)
            elif isinstance(signal.sampling, Regular):
                self._sources[name] = _Grid(series, 1e6 / signal.sampling.rate_hz, n, at)
            else:
                self._sources[name] = _Held(series, signal.sampling, n, at, decision.window.length_s)

    def cut(self, lo: int, hi: int) -> dict[str, Array]:
        """Windows ``[hi - lo, n]`` float32 as the graph gets them; NaN where a signal is not believed."""
        out = {}
        before = min(1, lo)
        for name, source in self._sources.items():
            raw = source.cut(lo - before, hi)
            if isinstance(source, _Grid) and raw.shape[1] >= STUCK_SAMPLES:
                raw = _without_stuck(raw, self._at.codes[lo - before : hi])
            out[name] = checked(self._decision, name, raw[before:])
        return out


def checked(decision: Decision, name: str, values: Array) -> Array:
    """Windows ``[k, n]`` by the rule of ``bundle.inputs``: a few bad samples are filled in, many spoil it."""
    low, high = np.clip(decision.signals[name].range, -_LARGEST, _LARGEST).astype(np.float32)
    good = (values >= low) & (values <= high)  # NaN fails both
    bad = values.shape[1] - np.count_nonzero(good, axis=1)
    if not bad.any():
        return values
    out = np.array(values, dtype=np.float32)
    allowed = decision.window.max_bad_share * values.shape[1]
    out[bad > allowed] = np.nan
    at = np.arange(values.shape[1])
    for row in np.flatnonzero((bad > 0) & (bad <= allowed) & (bad < values.shape[1])):
        out[row] = np.interp(at, at[good[row]], values[row, good[row]])
    return out


def rows_a_batch(decision: Decision, budget: int = 1 << 25) -> int:
    """How many windows of all signals fit into ``budget`` bytes; between 16 and 65,536."""
    size = sum(4 * decision.samples(name) for name in decision.signals)
    return int(np.clip(budget // size, 16, 1 << 16))


def _without_stuck(raw: Array, codes: NDArray[np.int64]) -> Array:
    stuck = (raw == raw[:, :1]).all(axis=1)
    stuck[1:] |= (raw[1:] == raw[:-1]).all(axis=1) & (np.diff(codes) == 0)
    return np.where(stuck[:, None], np.float32(np.nan), raw)


@dataclass(frozen=True, slots=True)
class _Nothing:
    n: int

    def cut(self, lo: int, hi: int) -> Array:
        return np.full((hi - lo, self.n), np.nan, dtype=np.float32)


class _Grid:
    """Samples of a regular signal in one array, a place a sample period; pauses are NaN, at most a window."""

    def __init__(self, series: Series, period_us: float, n: int, at: Due) -> None:
        times, self._n = series.at_us, n
        steps = np.clip(np.rint(np.diff(times, prepend=times[:1]) / period_us), 1, n + 1).astype(np.int64)
        begins = series.bounds[:-1][np.diff(series.bounds) > 0]
        steps[begins] = n + 1
        place = np.cumsum(steps)
        self._dense = np.full(place[-1] + 2 * n + 2 if len(place) else n, np.nan, dtype=np.float32)
        self._dense[place] = series.value
        self._to = self._ends(series, period_us, place, at)

    def _ends(self, series: Series, period_us: float, place: NDArray[np.int64], at: Due) -> NDArray[np.int64]:
        """Where in the array the window of each instant ends."""
        newest = series.newest(at.codes, at.end_us - period_us / 2)
        there = newest >= 0
        index = np.where(there, newest, 0)
        if not len(place):
            return np.full(len(at), self._n, dtype=np.int64)
        missing = np.rint((at.end_us - series.at_us[index]) / period_us).astype(np.int64) - 1
        room = np.diff(place, append=place[-1] + self._n + 1)[index] - 1
        to = place[index] + 1 + np.clip(missing, 0, room)
        return np.where(there, to, self._n)  # the array begins with a window of nothing

    def cut(self, lo: int, hi: int) -> Array:
        places = self._to[lo:hi, None] + np.arange(-self._n, 0)
        return np.asarray(self._dense[places])


class _Held:
    """Values of an on-change signal, held on the window's grid until they are too old."""

    def __init__(self, series: Series, sampling: OnChange, n: int, at: Due, length_s: float) -> None:
        self._series, self._at, self._max_age_us = series, at, sampling.max_age_s * 1e6
        self._back_us = length_s * 1e6 * np.arange(n - 1, -1, -1) / n

    def cut(self, lo: int, hi: int) -> Array:
        n = len(self._back_us)
        grid = (self._at.end_us[lo:hi, None] - self._back_us).ravel()
        index = self._series.newest(np.repeat(self._at.codes[lo:hi], n), grid)
        return held(self._series, index, grid, self._max_age_us).reshape(-1, n)


def held(
    series: Series, index: NDArray[np.int64], asked_us: NDArray[np.floating] | NDArray[np.int64], most: float
) -> Array:
    """The values at ``index``; NaN where it is -1 or the value is older than ``most`` µs when asked for."""
    if not len(series.value):
        return np.full(len(index), np.nan, dtype=np.float32)
    place = np.maximum(index, 0)
    fresh = (index >= 0) & (asked_us - series.at_us[place] <= most)
    return np.where(fresh, series.value[place], np.float32(np.nan))


def context_at(telemetry: Telemetry, decision: Decision, at: Due) -> Mapping[str, Array]:
    """The columns of ``examples.context_columns`` at the instants, as the device believes them.

    The newest word on each name, not from after the instant, not older than ``max_age_s``, within its range.
    """
    columns: dict[str, Array] = {}
    for name, declared in decision.context.items():
        series = telemetry.series.get(name)
        if series is None:
            values = np.full(len(at), np.nan, dtype=np.float32)
        else:
            index = series.newest(at.codes, at.end_us)
            values = held(series, index, at.end_us, declared.max_age_s * 1e6)
        if declared.values is None:
            low, high = declared.range or (-np.inf, np.inf)
            columns[f"context.{name}"] = np.where((values >= low) & (values <= high), values, np.nan)
        else:
            for place, word in enumerate(declared.values):
                chosen = (values == place).astype(np.float32)
                columns[f"context.{name}={word}"] = np.where(values >= 0, chosen, np.nan)
    return {name: values.astype(np.float32) for name, values in columns.items()}
