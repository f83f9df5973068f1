"""Local time and shift, across midnight and across the change of clocks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from aiotkit.core.calendar import local_context
from aiotkit.core.decision import Shift, Site

NIGHT = Shift.model_validate({"name": "night", "days": ["fri", "sat"], "from": "22:00", "to": "06:00"})
EARLY = Shift.model_validate({"name": "early", "days": ["sat", "sun"], "from": "06:00", "to": "14:00"})
BERLIN = Site(name="x", time_zone="Europe/Berlin", shifts=(NIGHT, EARLY))


def at(text):
    """Microseconds UTC of an ISO instant."""
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is not None
    return round(moment.astimezone(UTC).timestamp() * 1e6)


@pytest.mark.parametrize(
    ("instant", "hour", "weekday", "shift"),
    [
        ("2026-03-27T20:59:59+00:00", 21 + 59 / 60, "fri", "none"),
        ("2026-03-27T21:00:00+00:00", 22.0, "fri", "night"),
        ("2026-03-27T23:30:00+00:00", 0.5, "sat", "night"),
        ("2026-03-28T05:00:00+00:00", 6.0, "sat", "early"),
        # the clocks go forward on Sunday 2026-03-29 at 01:00 UTC: 02:00 becomes 03:00
        ("2026-03-29T00:59:59+00:00", 1 + 59 / 60, "sun", "night"),
        ("2026-03-29T01:00:00+00:00", 3.0, "sun", "night"),
        ("2026-03-29T04:00:00+00:00", 6.0, "sun", "early"),
        ("2026-03-29T12:00:00+00:00", 14.0, "sun", "none"),
        # and back on Sunday 2026-10-25 at 01:00 UTC: 03:00 becomes 02:00 once more
        ("2026-10-25T00:30:00+00:00", 2.5, "sun", "night"),
        ("2026-10-25T01:30:00+00:00", 2.5, "sun", "night"),
        ("2026-10-25T05:00:00+00:00", 6.0, "sun", "early"),
        # the night of Sunday belongs to nobody here
        ("2026-10-25T22:00:00+00:00", 23.0, "sun", "none"),
        ("2026-10-26T01:00:00+00:00", 2.0, "mon", "none"),
    ],
)
def test_shift_and_hour_follow_the_clock_on_the_wall(instant, hour, weekday, shift):
    """A shift past midnight belongs to the day it began, and daylight saving moves it in UTC."""
    context = local_context(BERLIN, at(instant))
    assert context == {"local_hour": pytest.approx(hour), "weekday": weekday, "shift": shift}


def test_every_minute_of_a_week_has_exactly_one_shift_or_none():
    """Shifts that meet leave no gap and no overlap."""
    day = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}
    shifts = tuple(
        Shift.model_validate(day | {"name": n, "from": a, "to": b})
        for n, a, b in [("a", "06:00", "14:00"), ("b", "14:00", "22:00"), ("c", "22:00", "06:00")]
    )
    site = Site(name="x", time_zone="Asia/Kolkata", shifts=shifts)
    start = at("2026-01-05T00:00:00+05:30")
    said = [local_context(site, start + m * 60_000_000)["shift"] for m in range(7 * 24 * 60)]
    assert [said.count(n) for n in "abc"] == [7 * 480] * 3


def test_without_shifts_and_zone_the_context_is_utc():
    """A site that says nothing has UTC and no shift."""
    context = local_context(Site(name="x"), at("2026-06-01T12:15:00+00:00"))
    assert context == {"local_hour": 12.25, "weekday": "mon", "shift": "none"}
