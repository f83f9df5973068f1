from __future__ import annotations

import math

from aiotkit.edge.context import ContextCache

S = 1_000_000


def test_readings_carry_their_age():
    """Each value comes with its age at the instant asked; a name never heard has None."""
    cache = ContextCache(["load", "mode"])
    cache.feed([("load", 5 * S, 0.5), ("other", 5 * S, 1.0)], 5 * S)
    readings = cache.readings(8 * S)
    assert (readings["load"].value, readings["load"].age_s) == (0.5, 3.0)
    assert (readings["mode"].value, readings["mode"].age_s) == (None, math.inf)
    assert set(readings) == {"load", "mode"}


def test_G2_an_older_value_does_not_replace_a_newer():
    """Late and duplicated points change nothing."""
    cache = ContextCache(["load"])
    cache.feed([("load", 5 * S, 0.5), ("load", 5 * S, 0.6), ("load", 4 * S, 0.1)], 5 * S)
    assert cache.readings(5 * S)["load"].value == 0.6


def test_G2_a_value_from_the_future_is_a_fault_until_a_good_one():
    """It does not replace the last good value, and it does not lock out the next."""
    cache = ContextCache(["load"])
    cache.feed([("load", 5 * S, 0.5), ("load", 500 * S, 0.9)], 5 * S)
    assert "from the future" in cache.faults["load"]
    assert cache.readings(5 * S)["load"].value == 0.5
    cache.feed([("load", 6 * S, 0.4)], 6 * S)
    assert not cache.faults


def test_J9_a_clock_set_back_shows_as_a_negative_age():
    """A value stamped a minute after now is not passed off as fresh."""
    cache = ContextCache(["load"])
    cache.feed([("load", 100 * S, 0.5)], 100 * S)
    assert cache.readings(40 * S)["load"].age_s == -60.0
