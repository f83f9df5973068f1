"""Slow features against naive references that keep the whole past."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.decision import History
from aiotkit.core.history import history_values, update_history

SERIES = st.lists(st.tuples(st.floats(0.5, 500), st.floats(-1e3, 1e3)), min_size=1, max_size=60)
OVER_S = st.floats(10, 5000)


def history(kind, over_s, **more):
    return {"h": History(of="vib.rms", kind=kind, over_s=over_s, **more)}


def feed(spec, series, start=1.7e9):
    """The state after all samples, and the samples as arrays of time and value."""
    state, at, times, values = {}, start, [], []
    for span, value in series:
        at += span
        state = update_history(spec, state, {"vib.rms": value}, at)
        times.append(at)
        values.append(value)
    return state, np.array(times), np.array(values)


def value(spec, state, now):
    return history_values(spec, state, now)["h"]


@given(SERIES, OVER_S)
def test_ewma_is_the_exponentially_weighted_mean_of_the_whole_past(series, over_s):
    """The recursion equals the weighted mean computed from every sample."""
    spec = history("ewma", over_s)
    state, times, values = feed(spec, series)
    expected = np.average(values, weights=np.exp((times - times[-1]) / over_s))
    assert value(spec, state, times[-1]) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(SERIES, OVER_S, st.floats(0, 1e4))
def test_a_baseline_is_the_mean_of_the_first_while_and_is_kept(series, over_s, later):
    """Not known before ``over_s`` have passed since the first value; the same ever after."""
    spec = history("baseline", over_s, initial=-7.0)
    state, times, values = feed(spec, series)
    now = times[-1] + later
    first = values[times - times[0] < over_s]
    expected = first.mean() if now - times[0] >= over_s else -7.0
    assert value(spec, state, now) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(SERIES.filter(lambda s: len(s) > 4), OVER_S)
def test_slope_is_the_weighted_least_squares_slope_of_the_whole_past(series, over_s):
    """The running sums equal a weighted straight line fitted by numpy, where that is well defined."""
    spec = history("slope", over_s)
    state, times, values = feed(spec, series)
    weights = np.exp((times - times[-1]) / over_s)
    t = times - np.average(times, weights=weights)
    spread = np.sum(weights * t * t)
    if weights.sum() < 1.1 or spread < 1e-3 * np.sum(weights * (times - times[-1]) ** 2):
        return
    expected = np.sum(weights * t * values) / spread
    scale = np.abs(values).max() / math.sqrt(spread) + 1e-9
    assert value(spec, state, times[-1]) == pytest.approx(expected, rel=1e-5, abs=1e-5 * scale)


@given(SERIES, OVER_S)
def test_max_covers_the_span_and_forgets_soon_after(series, over_s):
    """No larger value within the span is missed, and nothing older than an eighth beyond counts."""
    spec = history("max", over_s)
    state, times, values = feed(spec, series)
    now = times[-1]
    said = value(spec, state, now)
    assert said >= values[times >= now - over_s].max()
    assert said <= values[times >= now - over_s * 1.125 - 1e-6].max()


@given(SERIES, OVER_S, st.floats(-1e3, 1e3))
def test_time_since_counts_from_the_last_time_above(series, over_s, above):
    """Seconds since the feature was above its threshold, at most the span."""
    spec = history("time_since", over_s, above=above)
    state, times, values = feed(spec, series)
    now = times[-1] + 3
    exceeded = times[values > above]
    expected = now - exceeded[-1] if exceeded.size else over_s
    assert value(spec, state, now) == pytest.approx(min(expected, over_s), abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "more"),
    [("ewma", {}), ("slope", {}), ("max", {}), ("time_since", {"above": 0.0}), ("baseline", {})],
)
class TestEveryKind:
    """What all kinds of history promise."""

    def test_before_the_first_value_nothing_is_known(self, kind, more):
        """Without a past the value is NaN, or what the file says to begin with."""
        assert math.isnan(value(history(kind, 60, **more), {}, 0.0))
        assert value(history(kind, 60, initial=3.5, **more), {}, 0.0) == 3.5

    @pytest.mark.parametrize("bad", [math.nan, math.inf, None, True, "5"])
    def test_a_bad_feature_leaves_the_past_as_it_was(self, kind, more, bad):
        """What cannot be believed is not remembered."""
        spec = history(kind, 60, **more)
        state, times, _ = feed(spec, [(1, 1.0), (1, 5.0)])
        assert update_history(spec, state, {"vib.rms": bad}, times[-1] + 1) == state
        assert update_history(spec, state, {}, times[-1] + 1) == state

    def test_the_same_window_or_an_earlier_one_changes_nothing(self, kind, more):
        """A repeated window counts once, and a clock set back does not corrupt weights."""
        spec = history(kind, 60, **more)
        state, times, _ = feed(spec, [(1, 1.0), (1, 5.0)])
        for now in (times[-1], times[-1] - 1000):
            assert update_history(spec, state, {"vib.rms": 99.0}, now) == state

    def test_an_overflow_does_not_stick(self, kind, more):
        """Values at the edge of floats never leave an infinite or undefined state behind."""
        spec = history(kind, 60, **more)
        state, *_ = feed(spec, [(1, 1.7e308), (1, -1.7e308), (1, 1.7e308), (1, 1.0)])
        assert all(map(math.isfinite, state["h"]))
        assert canonical_bytes({k: list(v) for k, v in state.items()})

    def test_a_recorded_state_goes_on_bit_by_bit(self, kind, more):
        """State that went through JSON continues exactly as state that did not."""
        spec = history(kind, 60, **more)
        state, times, _ = feed(spec, [(7, 0.1), (11, 5.3), (13, 2.7)])
        recorded = {k: tuple(v) for k, v in json.loads(canonical_bytes(state)).items()}
        later = [update_history(spec, s, {"vib.rms": 4.1}, times[-1] + 5) for s in (state, recorded)]
        assert later[0] == later[1]

    def test_the_state_stays_small(self, kind, more):
        """After ten thousand windows the state still fits in a record."""
        spec = history(kind, 600, **more)
        rng = np.random.default_rng(1)
        state, *_ = feed(spec, [(1.0, float(v)) for v in rng.normal(size=10_000)])
        assert len(state["h"]) <= 25


def test_the_present_window_is_no_part_of_its_own_history():
    """The value asked for before the update knows nothing of the window at hand."""
    spec = history("max", 60)
    state, times, _ = feed(spec, [(1, 1.0)])
    assert value(spec, state, times[-1] + 1) == 1.0
    after = update_history(spec, state, {"vib.rms": 9.0}, times[-1] + 1)
    assert (value(spec, state, times[-1] + 1), value(spec, after, times[-1] + 1)) == (1.0, 9.0)


def test_an_old_maximum_is_forgotten():
    """Long after the span nothing of a peak is left."""
    spec = history("max", 60)
    state, times, _ = feed(spec, [(1, 99.0)])
    assert value(spec, state, times[-1] + 60) == 99.0
    assert math.isnan(value(spec, state, times[-1] + 70))
