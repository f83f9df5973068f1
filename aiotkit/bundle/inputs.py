"""Input checks before anything is computed: what is believed, what is not, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.calendar import local_context
from aiotkit.core.conditions import is_number
from aiotkit.core.consistency import DERIVED_CONTEXT
from aiotkit.core.decision import Context, Decision
from aiotkit.core.records import DecisionInput, Reading

Array = NDArray[np.float32]
_LARGEST = float(np.finfo(np.float32).max)
_FLOAT32 = np.dtype(np.float32)


class InputChecks:
    """A decision's checks of what comes in, with what follows from the decision alone worked out once."""

    def __init__(self, decision: Decision) -> None:
        self._site, self._context = decision.site, decision.context
        self._required = frozenset(name for name, context in decision.context.items() if context.required)
        self._signals = [
            _Limits(name, (decision.samples(name),), *_in_float32(signal.range), signal.range)
            for name, signal in decision.signals.items()
        ]
        self._names = frozenset(decision.signals)
        self._clock_read = not set(DERIVED_CONTEXT).isdisjoint(decision.fields_read())
        self._bad_share = decision.window.max_bad_share

    def windows(self, given: DecisionInput) -> tuple[dict[str, Array], dict[str, str]]:
        """Windows ready for the graph, ``[n]`` float32 each, and the faults found, in words.

        A signal that is missing, of the wrong length, or bad (not finite, out of range) in more than
        ``max_bad_share`` of its samples becomes all NaN; fewer bad samples are interpolated linearly.
        """
        windows: dict[str, Array] = {}
        faults = {name: words for name, words in given.faults.items() if name in self._names}
        for limits in self._signals:
            name = limits.name
            values = given.windows.get(name)
            if name in faults or values is None or values.shape != limits.shape or values.dtype != _FLOAT32:
                found = "nothing" if values is None else f"{values.dtype} {list(values.shape)}"
                faults.setdefault(name, f"expected {limits.n} float32 values; found {found}")
                windows[name] = _unknown(limits.n)
            elif values[values.argmin()] >= limits.low and values[values.argmax()] <= limits.high:
                windows[name] = values  # where there is a NaN, it is both argmin and argmax, and fails
            else:
                windows[name], fault = self._bridged(values, limits)
                if fault:
                    faults[name] = fault
        return windows, faults

    def _bridged(self, values: Array, limits: _Limits) -> tuple[Array, str]:
        good = (values >= limits.low) & (values <= limits.high)
        bad = limits.n - int(np.count_nonzero(good))
        if bad < limits.n and bad <= self._bad_share * limits.n:
            at = np.arange(limits.n)
            return np.interp(at, at[good], values[good]).astype(np.float32), ""
        low, high = limits.span
        words = f"{bad} of {limits.n} samples are not finite or outside [{low:g}, {high:g}]"
        return _unknown(limits.n), words

    def context(self, given: DecisionInput) -> tuple[dict[str, float | str], dict[str, str]]:
        """Context values that may be believed, and the faults of those that may not.

        Where the decision reads them, values derived from the site's clock and calendar are added; they
        have no age.
        """
        values: dict[str, float | str] = {}
        if self._clock_read:
            values = local_context(self._site, given.window_end_us)
        faults: dict[str, str] = {}
        for name, declared in self._context.items():
            reading = given.context.get(name)
            fault = given.faults.get(name) or context_fault(declared, reading)
            if fault:
                faults[name] = fault
            else:
                assert reading is not None
                assert reading.value is not None
                values[name] = reading.value
        return values, faults

    def required_fault(self, faults: Mapping[str, str]) -> str:
        """The first fault of a required context value, in words, or an empty string."""
        for name, words in faults.items():
            if name in self._required:
                return f"required context '{name}': {words}"
        return ""


@dataclass(frozen=True, slots=True)
class _Limits:
    name: str
    shape: tuple[int]
    low: float
    high: float
    span: tuple[float, float]

    @property
    def n(self) -> int:
        return self.shape[0]


def _in_float32(span: tuple[float, float]) -> tuple[float, float]:
    """A range as far as float32 reaches: what lies beyond is infinite there, and no number."""
    return max(span[0], -_LARGEST), min(span[1], _LARGEST)


def _unknown(n: int) -> Array:
    return np.full(n, np.nan, dtype=np.float32)


def context_fault(declared: Context, reading: Reading | None) -> str:
    """Why a reading may not be believed, in words, or an empty string."""
    if reading is None or reading.value is None:
        return "never heard"
    if not 0 <= reading.age_s <= declared.max_age_s:
        return f"{reading.age_s:g} s old, at most {declared.max_age_s:g} s allowed"
    if declared.values is not None:
        known = isinstance(reading.value, str) and reading.value in declared.values
        return "" if known else f"expected one of {list(declared.values)}; found {str(reading.value)[:40]!r}"
    if not is_number(reading.value):
        return f"expected a finite number; found {str(reading.value)[:40]!r}"
    if declared.range is not None:
        low, high = declared.range
        assert isinstance(reading.value, int | float)
        if not low <= reading.value <= high:
            return f"{reading.value:g} outside [{low:g}, {high:g}]"
    return ""
