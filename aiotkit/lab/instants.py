"""Instants from what files hold: text with or without zone, epochs, typed columns. Nothing is guessed.

A wall-clock time that occurs twice (clocks set back) or never (set forward) is refused, row by row,
unless the caller says how to read it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Literal, get_args
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.errors import DataError, did_you_mean

Ambiguous = Literal["quarantine", "infer-order", "first", "second"]
Epoch = Literal["s", "ms", "us", "ns", "excel"]
#: the numbers that seconds, ms, µs and ns since 1970 take between 2001 and 2100
_EPOCHS: dict[Epoch, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_PLAUSIBLE = (978_307_200.0, 4_102_444_800.0)
_OFFSET = r"(?:[Zz]|[+-]\d\d:?\d\d|[+-]\d\d)\s*$"


@dataclass(frozen=True, slots=True)
class Instants:
    """µs UTC of each row (0 where ``reason`` says why there is none), and what was noticed.

    ``local``: some times carried no offset, so that the zone mattered.
    """

    at_us: NDArray[np.int64]
    reason: NDArray[np.object_]
    notes: tuple[str, ...] = ()
    local: bool = False

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which rows have an instant."""
        return np.asarray(self.reason == "", dtype=bool)


@dataclass(frozen=True, slots=True)
class Clock:
    """How times in a file are to be read.

    ``zone``: IANA name of times without offset. ``ambiguous``: what to do with an hour that occurs
    twice; ``infer-order`` uses the order of rows within a series where exactly one step back shows the
    change. ``time_format``: strptime pattern for text that is not ISO 8601. ``epoch``: unit of numbers
    since 1970-01-01 UTC; ``excel``: days of wall-clock time as spreadsheets count them, from 1899-12-30.
    """

    zone: str | None = None
    ambiguous: Ambiguous = "quarantine"
    time_format: str | None = None
    epoch: Epoch | None = None
    #: a site's zone to name in hints; never used to read a time
    hint: str = field(default="UTC")

    def __post_init__(self) -> None:
        if self.ambiguous not in get_args(Ambiguous):
            raise DataError(
                f"ambiguous '{self.ambiguous}'",
                expected=f"one of {', '.join(get_args(Ambiguous))}",
                do=did_you_mean(self.ambiguous, get_args(Ambiguous)),
            )
        if self.zone is not None:
            check_zone(self.zone)


def check_zone(zone: str) -> None:
    """Refuse a name that is no IANA time zone (``DataError`` with a hint)."""
    from zoneinfo import available_timezones

    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        hint = did_you_mean(zone, available_timezones()) or "Use an IANA name such as Europe/Berlin."
        raise DataError(f"unknown time zone '{zone}'", do=hint) from error


def parse_instants(raw: pd.Series, clock: Clock, series: NDArray[np.int64] | None = None) -> Instants:
    """Instants of a column.

    Args:
        raw: times as read: text, typed, or numbers.
        clock: how to read them.
        series: [n] which series (such as subject) each row belongs to, for ``infer-order``.

    Raises:
        DataError: times have no zone and none was given, or no row at all can be read as a time.
    """
    groups = np.zeros(len(raw), dtype=np.int64) if series is None else series
    if isinstance(raw.dtype, pd.DatetimeTZDtype):
        return _aware(raw, clock)
    if pd.api.types.is_datetime64_dtype(raw):
        wall = raw.to_numpy(dtype="datetime64[us]")
        return _localized(
            wall, np.isnat(wall), np.where(np.isnat(wall), "no time", "").astype(object), clock, groups
        )
    if pd.api.types.is_numeric_dtype(raw) and not pd.api.types.is_bool_dtype(raw):
        return _numbers(raw.to_numpy(dtype=float), clock, groups)
    text = raw.astype(object).where(raw.notna(), "").astype(str).str.strip()
    if clock.time_format is None and (clock.epoch is not None or _all_numbers(text)):
        text = text.str.replace(",", ".", regex=False)  # 45908,5
        return _numbers(pd.to_numeric(text, errors="coerce").to_numpy(dtype=float), clock, groups)
    return _texts(text, clock, groups)


def placed(
    start: str, every_s: float, rows: pd.Index, clock: Clock, series: NDArray[np.int64] | None = None
) -> Instants:
    """Instants of rows that carry none: row n is at ``start`` + (n − 1) × ``every_s``.

    ``rows``: numbers, from 1 on. ``series``: whose each row is; where rows of several are not sorted, one
    series comes after the other, as if they were.

    Raises:
        DataError: ``start`` cannot be read.
    """
    first = parse_instants(pd.Series([start], dtype=object), clock)
    if not bool(first.good.all()):
        raise DataError(f"start '{start}'", found=str(first.reason[0]))
    number, note = rows.to_numpy(dtype=np.int64), f"row n was placed at {start} + (n − 1) × {every_s:g} s"
    if series is not None and len(series) and np.count_nonzero(np.diff(series)) >= len(np.unique(series)):
        codes = pd.factorize(series)[0]
        number = np.empty(len(series), dtype=np.int64)
        number[np.argsort(codes, kind="stable")] = np.arange(1, len(series) + 1)
        note += ", one subject after the other: the file's rows are not sorted by subject"
    at = first.at_us[0] + np.rint((number - 1) * every_s * 1e6).astype(np.int64)
    return Instants(at, np.full(len(at), "", dtype=object), (note,))


def _aware(raw: pd.Series, clock: Clock) -> Instants:
    stamps = raw.dt.tz_convert("UTC").to_numpy(dtype="datetime64[us]")
    reason = np.where(np.isnat(stamps), "no time", "").astype(object)
    notes = () if clock.zone is None else (f"zone {clock.zone} was not needed: times carry their offset",)
    return Instants(_us(stamps), reason, notes)


def _texts(text: pd.Series, clock: Clock, groups: NDArray[np.int64]) -> Instants:
    pattern = clock.time_format or "ISO8601"
    try:
        parsed = pd.to_datetime(text, format=pattern, utc=True, errors="coerce")
    except (ValueError, TypeError) as error:
        raise DataError(f"time format '{pattern}'", found=str(error)) from error
    stamps = parsed.to_numpy(dtype="datetime64[us]")
    bad, empty = np.isnat(stamps), (text == "").to_numpy(dtype=bool)
    if len(text) and bool(bad.all()) and not bool(empty.all()):
        first = str(text[~empty].iloc[0])
        number = re.fullmatch(r"\d+(?:[.,]\d+)?", first) is not None
        raise DataError(
            "no row holds a time that can be read",
            expected=f"times as {pattern}",
            found=repr(first),
            do="Say what the numbers count: --epoch s, ms, us or ns since 1970, or excel (its days)."
            if number
            else "Say how they are written with a time format such as '%d.%m.%Y %H:%M:%S'.",
        )
    reason = np.where(empty, "no time", np.where(bad, "unreadable time", "")).astype(object)
    if clock.time_format is None:
        aware = text.str.contains(_OFFSET, regex=True) & text.str.contains(r"\d[T ]\d", regex=True)
    else:
        aware = pd.Series("%z" in clock.time_format, index=text.index)
    offset = aware.to_numpy(dtype=bool)
    if bool((offset | bad).all()):
        notes = () if clock.zone is None else (f"zone {clock.zone} was not needed: times carry their offset",)
        return Instants(_us(stamps), reason, notes)
    local = _localized(stamps, bad | offset, reason, clock, groups)
    at_us = np.where(offset & ~bad, _us(stamps), local.at_us)
    mixed = ("some times carry an offset, others do not",) if bool((offset & ~bad).any()) else ()
    return Instants(at_us, local.reason, (*local.notes, *mixed), local.local)


def _localized(
    wall: NDArray[np.datetime64],
    skip: NDArray[np.bool_],
    reason: NDArray[np.object_],
    clock: Clock,
    groups: NDArray[np.int64],
) -> Instants:
    """Wall-clock times in the declared zone; those in ``skip`` are left alone."""
    if clock.zone is None:
        if bool(skip.all()):
            return Instants(np.zeros(len(wall), dtype=np.int64), reason)
        raise DataError(
            "times have no zone",
            found=f"'{wall[~skip][0]}'",
            do=f"Say which zone they are in (the site's is {clock.hint}); it is never guessed.",
        )
    index = pd.DatetimeIndex(np.where(skip, np.datetime64("2000-06-01", "us"), wall))
    first = _in_zone(index, clock.zone, summer=True)
    second = _in_zone(index, clock.zone, summer=False)
    missing, twice = np.isnat(first) & ~skip, (first != second) & ~np.isnat(first) & ~skip
    reason = reason.copy()
    reason[missing] = f"local time does not exist in {clock.zone} (clocks were set forward)"
    chosen, undecided = _choose(first, second, twice, wall, clock, groups)
    reason[undecided] = f"local time occurs twice in {clock.zone} (clocks were set back)"
    at_us = np.where(reason == "", _us(chosen), 0)
    notes = [f"times without offset were read as {clock.zone}"]
    settled = int((twice & ~undecided).sum())
    if undecided.any():
        notes.append(
            f"{int(undecided.sum())} rows in an hour that occurs twice were not taken: "
            "--ambiguous infer-order tells them apart where rows stand in order, "
            "first or second takes them all as one"
        )
    if settled:
        notes.append(f"{settled} rows in an hour that occurs twice were settled by '{clock.ambiguous}'")
    return Instants(at_us, reason, tuple(notes), local=True)


def _in_zone(index: pd.DatetimeIndex, zone: str, *, summer: bool) -> NDArray[np.datetime64]:
    """UTC of wall-clock times, reading hours that occur twice as the first (summer) or the second."""
    flags = np.full(len(index), summer)
    local = index.tz_localize(ZoneInfo(zone), ambiguous=flags, nonexistent="NaT")
    return local.tz_convert("UTC").to_numpy(dtype="datetime64[us]")


def _choose(
    first: NDArray[np.datetime64],
    second: NDArray[np.datetime64],
    twice: NDArray[np.bool_],
    wall: NDArray[np.datetime64],
    clock: Clock,
    groups: NDArray[np.int64],
) -> tuple[NDArray[np.datetime64], NDArray[np.bool_]]:
    if clock.ambiguous == "quarantine":
        return first, twice
    if clock.ambiguous == "infer-order":
        later, undecided = _by_order(twice, wall, groups)
        return np.where(later, second, first), undecided
    return (first if clock.ambiguous == "first" else second), np.zeros(len(wall), dtype=bool)


def _by_order(
    twice: NDArray[np.bool_], wall: NDArray[np.datetime64], groups: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows are second passes, told by the one step back within each doubled stretch of a series."""
    later, undecided = np.zeros(len(wall), dtype=bool), np.zeros(len(wall), dtype=bool)
    rows = np.flatnonzero(twice)
    order = rows[np.argsort(groups[rows], kind="stable")]
    day = np.timedelta64(12, "h")
    group = groups[order]
    new = np.r_[True, (group[1:] != group[:-1]) | (np.abs(np.diff(wall[order])) > day)] if len(order) else []
    for block in np.split(order, np.flatnonzero(new)[1:]) if len(order) else []:
        back = np.flatnonzero(np.diff(wall[block]) < np.timedelta64(0))
        if len(back) == 1:
            later[block[back[0] + 1 :]] = True
        else:
            undecided[block] = True
    return later, undecided


def _numbers(values: NDArray[np.float64], clock: Clock, groups: NDArray[np.int64]) -> Instants:
    if clock.epoch != "excel":
        return _epochs(values, clock)
    good = np.isfinite(values) & (np.abs(values) < 1e6)
    ms = np.rint(np.where(good, values, 0.0) * 86_400_000).astype(np.int64)  # a double holds no more of a day
    wall = np.datetime64("1899-12-30", "us") + ms.astype("timedelta64[ms]")
    reason = np.where(good, "", np.where(np.isfinite(values), "unreadable time", "no time")).astype(object)
    return _localized(wall, ~good, reason, clock, groups)


def _epochs(values: NDArray[np.float64], clock: Clock) -> Instants:
    good = np.isfinite(values)
    unit, notes = clock.epoch, tuple[str, ...]()
    if unit is None:
        middle = float(np.median(values[good])) if bool(good.any()) else 0.0
        unit = next((u for u, s in _EPOCHS.items() if _PLAUSIBLE[0] <= middle / s <= _PLAUSIBLE[1]), None)
        if unit is None:
            raise DataError(
                "times are numbers of unknown unit",
                found=f"median {middle:g}",
                do="Say whether they are s, ms, us or ns since 1970, or days as Excel counts (epoch).",
            )
        notes = (f"times were read as {unit} since 1970-01-01 UTC",)
    fits = good & (np.abs(values) / _EPOCHS[unit] < 2.5e11)
    with np.errstate(invalid="ignore", over="ignore"):
        at_us = np.where(fits, values, 0.0) * (1e6 / _EPOCHS[unit])
    reason = np.where(good, np.where(fits, "", "unreadable time"), "no time").astype(object)
    return Instants(np.rint(at_us).astype(np.int64), reason, notes)


def _us(stamps: NDArray[np.datetime64]) -> NDArray[np.int64]:
    return np.where(np.isnat(stamps), 0, stamps.astype("datetime64[us]").astype(np.int64))


def _all_numbers(text: pd.Series) -> bool:
    """Whether every text that is there is a plain number too long to be a year."""
    given = text[text != ""]
    return bool(len(given)) and bool(given.str.fullmatch(r"\d{9,20}(?:\.\d+)?").all())


def moment_us(text: str | None) -> int:
    """An instant given on a command line, µs UTC: ISO 8601 with offset, or None = now.

    Raises:
        DataError: it cannot be read, or has no offset.
    """
    if text is None:
        return time.time_ns() // 1000
    try:
        found = parse_instants(pd.Series([text], dtype=object), Clock())
    except DataError as error:
        raise _no_moment(text, error.what) from error
    if not bool(found.good[0]):
        raise _no_moment(text, str(found.reason[0]))
    return int(found.at_us[0])


def _no_moment(text: str, reason: str) -> DataError:
    naive = "no zone" in reason
    return DataError(
        f"instant '{text}'",
        expected="date, time and offset in ISO 8601, such as 2026-03-01T08:00:00Z or 2026-03-01T09:00+01:00",
        found="no offset" if naive else "no date and time that can be read",
        do="Write the offset behind the time: Z for UTC." if naive else "Write the instant out.",
    )
