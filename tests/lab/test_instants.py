"""Instants: zones, clocks set forward and back, epochs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]


def parse(values: Any, **clock: Any) -> Any:
    from aiotkit.lab.instants import Clock, parse_instants

    return parse_instants(pd.Series(values), Clock(**clock))


def readings(wall: datetime, zone: str) -> set[int]:
    """Every instant at which a clock in the zone shows this wall time (by definition, minute by minute)."""
    shown = set()
    for fold in (0, 1):
        at = wall.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)
        if at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == wall:
            shown.add(round(at.timestamp() * 1e6))
    return shown


def wall(*parts: int) -> datetime:
    """What a clock on a wall shows: on purpose without zone."""
    return datetime(*parts)  # type: ignore[arg-type,misc]  # noqa: DTZ001


CHANGES = [
    wall(2026, 3, 29),
    wall(2026, 10, 25),
    wall(2026, 3, 8),
    wall(2026, 11, 1),
    wall(2026, 4, 5),
    wall(2026, 10, 4),
]
NEAR_CHANGES = st.builds(
    lambda day, m: day + timedelta(minutes=m), st.sampled_from(CHANGES), st.integers(0, 300)
)
ANY = st.datetimes(wall(2015, 1, 1), wall(2030, 1, 1))


@given(st.lists(NEAR_CHANGES | ANY, min_size=1, max_size=20), st.sampled_from(ZONES))
def test_wall_times_agree_with_the_zone_database(walls: list[datetime], zone: str) -> None:
    """A time that one instant shows is that instant; one that none or two show is refused."""
    walls = [w.replace(microsecond=0) for w in walls] + [wall(2026, 6, 1, 12)]
    found = parse([w.isoformat() for w in walls], zone=zone)
    for shown, at_us, reason in zip(walls, found.at_us, found.reason, strict=True):
        possible = readings(shown, zone)
        if len(possible) == 1:
            assert (reason, {int(at_us)}) == ("", possible)
        else:
            assert ("twice" if possible else "does not exist") in reason


@given(st.integers(0, 70), st.integers(1, 40), st.sampled_from(["Europe/Berlin", "America/New_York"]))
def test_infer_order_restores_a_night_of_two_equal_hours(offset: int, step: int, zone: str) -> None:
    """Local times of an ordered series over the change come back as the instants they were."""
    start = {"Europe/Berlin": wall(2026, 10, 24, 22), "America/New_York": wall(2026, 11, 1, 3)}[zone]
    instants = [start.replace(tzinfo=UTC) + timedelta(minutes=offset + i * step) for i in range(300 // step)]
    walls = [at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for at in instants]
    found = parse([w.isoformat() for w in walls], zone=zone, ambiguous="infer-order")
    for at, shown, at_us, reason in zip(instants, walls, found.at_us, found.reason, strict=True):
        if reason == "":
            assert int(at_us) == round(at.timestamp() * 1e6)
        else:
            assert len(readings(shown, zone)) == 2
    if step <= 20:  # both passes are seen: everything is settled
        assert bool((found.reason == "").all())


def test_first_and_second_are_an_hour_apart() -> None:
    """The explicit choices give the two instants, and say how many rows they settled."""
    first, second = (
        parse(["2026-10-25T02:30:00"], zone="Europe/Berlin", ambiguous=a) for a in ("first", "second")
    )
    assert int(second.at_us[0] - first.at_us[0]) == 3_600_000_000
    assert any("1 rows in an hour that occurs twice were settled by 'first'" in n for n in first.notes)


def test_times_without_zone_are_never_guessed() -> None:
    """No zone given: refused, with what to say."""
    with pytest.raises(DataError, match="times have no zone"):
        parse(["2026-01-01 00:00:00"])
    with pytest.raises(DataError, match="times have no zone"):
        parse(pd.to_datetime(["2026-01-01"]))


@pytest.mark.parametrize(
    ("value", "second"),
    [("2026-01-01T01:00:00+01:00", 1767225600), ("2026-01-01T00:00:00Z", 1767225600),
     (1767225600, 1767225600),
     (1767225600123, 1767225600.123), ("1767225600", 1767225600), ("2025-12-31 19:00:00-0500", 1767225600)],
)  # fmt: skip
def test_offsets_and_epochs_need_no_zone(value: Any, second: float) -> None:
    """What says its instant is read as that instant."""
    assert int(parse([value]).at_us[0]) == round(second * 1e6)


def test_mixed_rows_keep_their_own_offset() -> None:
    """A row with an offset is not moved by the zone of those without."""
    found = parse(["2026-07-01T12:00:00Z", "2026-07-01T12:00:00", "rubbish", None], zone="Europe/Berlin")
    assert int(found.at_us[0] - found.at_us[1]) == 7_200_000_000
    assert list(found.reason[2:]) == ["unreadable time", "no time"]


def test_other_ways_of_writing_need_a_format() -> None:
    """Day and month are never guessed."""
    with pytest.raises(DataError, match=r"no row holds a time.*'01\.02\.2026 10:00'"):
        parse(["01.02.2026 10:00"], zone="UTC")
    found = parse(["01.02.2026 10:00"], zone="UTC", time_format="%d.%m.%Y %H:%M")
    assert datetime.fromtimestamp(int(found.at_us[0]) / 1e6, UTC).month == 2


@pytest.mark.parametrize(
    ("clock", "words"),
    [({"zone": "Mars/Base"}, "unknown time zone"), ({"ambiguous": "frist"}, "did you mean 'first'")],
)
def test_mistyped_choices_are_refused(clock: dict[str, str], words: str) -> None:
    """A zone or choice that does not exist is an error, not a default."""
    with pytest.raises(DataError, match=words):
        parse(["2026-01-01"], **clock)
