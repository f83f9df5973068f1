"""Local time and shift as context, the same on desk and device."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo

from aiotkit.core.decision import Shift, Site

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def local_context(site: Site, at_us: int) -> dict[str, float | str]:
    """``local_hour`` (0 ≤ h < 24, with fraction), ``weekday`` and ``shift`` (or ``none``) of an instant.

    >>> local_context(Site(name="x", time_zone="Europe/Berlin"), 1_700_000_000_000_000)["weekday"]
    'tue'
    """
    local = datetime.fromtimestamp(at_us / 1e6, _zone(site.time_zone))
    minute = local.hour * 60 + local.minute
    shift = next((s.name for s in site.shifts if _covers(s, local.weekday(), minute)), "none")
    return {
        "local_hour": local.hour + local.minute / 60,
        "weekday": WEEKDAYS[local.weekday()],
        "shift": shift,
    }


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _covers(shift: Shift, weekday: int, minute: int) -> bool:
    start, end = _minute(shift.from_), _minute(shift.to)
    today = WEEKDAYS[weekday] in shift.days
    if start < end:
        return today and start <= minute < end
    yesterday = WEEKDAYS[weekday - 1] in shift.days  # past midnight the shift is yesterday's
    return (today and minute >= start) or (yesterday and minute < end)


@cache
def _minute(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)
