"""Input checks before anything is computed: what is believed, what is not, and why."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.calendar import local_context
from aiotkit.core.conditions import is_number
from aiotkit.core.decision import Context, Decision
from aiotkit.core.records import DecisionInput, Reading

Array = NDArray[np.float32]


def checked_windows(decision: Decision, given: DecisionInput) -> tuple[dict[str, Array], dict[str, str]]:
    """Windows ready for the graph, ``[n]`` float32 each, and the faults found, in words.

    A signal that is missing, of the wrong length, or bad (not finite, out of range) in more than
    ``max_bad_share`` of its samples becomes all NaN; fewer bad samples are interpolated linearly.
    """
    windows: dict[str, Array] = {}
    faults = {name: words for name, words in given.faults.items() if name in decision.signals}
    for name, signal in decision.signals.items():
        n = decision.samples(name)
        values = given.windows.get(name)
        if name in faults or values is None or values.shape != (n,) or values.dtype != np.float32:
            found = "nothing" if values is None else f"{values.dtype} {list(values.shape)}"
            faults.setdefault(name, f"expected {n} float32 values; found {found}")
            windows[name] = np.full(n, np.nan, dtype=np.float32)
            continue
        low, high = signal.range
        good = (values >= low) & (values <= high)  # NaN fails both
        bad = n - int(np.count_nonzero(good))
        if bad == 0:
            windows[name] = values
        elif bad <= decision.window.max_bad_share * n:
            at = np.arange(n)
            windows[name] = np.interp(at, at[good], values[good]).astype(np.float32)
        else:
            faults[name] = f"{bad} of {n} samples are not finite or outside [{low:g}, {high:g}]"
            windows[name] = np.full(n, np.nan, dtype=np.float32)
    return windows, faults


def checked_context(
    decision: Decision, given: DecisionInput
) -> tuple[dict[str, float | str], dict[str, str]]:
    """Context values that may be believed, and the faults of those that may not.

    Values derived from the site's clock and calendar are added; they have no age.
    """
    values: dict[str, float | str] = dict(local_context(decision.site, given.window_end_us))
    faults: dict[str, str] = {}
    for name, declared in decision.context.items():
        reading = given.context.get(name)
        fault = given.faults.get(name) or context_fault(declared, reading)
        if fault:
            faults[name] = fault
        else:
            assert reading is not None
            assert reading.value is not None
            values[name] = reading.value
    return values, faults


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


def required_fault(decision: Decision, faults: Mapping[str, str]) -> str:
    """The first fault of a required context value, in words, or an empty string."""
    for name, words in faults.items():
        declared = decision.context.get(name)
        if declared is not None and declared.required:
            return f"required context '{name}': {words}"
    return ""
