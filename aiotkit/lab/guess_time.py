"""Which column of an unknown file says when, by its name and by what it holds, and how it is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.errors import DataError
from aiotkit.lab.files import stem
from aiotkit.lab.guessed import Guess
from aiotkit.lab.instants import Clock, Epoch, Instants, parse_instants
from aiotkit.lab.layout import BOTH

#: how times are written that are not ISO 8601, the likelier first
_FORMATS = (
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S.%f", "%d.%m.%Y", "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M", "%Y/%m/%d", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p", "%d/%m/%Y", "%m/%d/%Y",
    "%d-%m-%Y %H:%M:%S", "%d-%m-%Y %H:%M", "%d-%b-%Y %H:%M:%S", "%d.%m.%y %H:%M:%S", "%d.%m.%y %H:%M",
    "%d/%m/%Y %H.%M.%S", "%d.%m.%Y %H.%M.%S", "%Y-%m-%d %H.%M.%S", "%Y/%m/%d %H.%M.%S",
)  # fmt: skip
#: how names of files say when they were written
_NAME_FORMATS = (
    "%Y.%m.%d.%H.%M.%S", "%Y-%m-%d_%H-%M-%S", "%Y-%m-%dT%H-%M-%S", "%Y-%m-%d %H-%M-%S", "%Y%m%d_%H%M%S",
    "%Y%m%dT%H%M%S", "%Y%m%d%H%M%S", "%Y-%m-%d_%H-%M", "%Y%m%d_%H%M",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TimeFound:
    """The column(s) of times: their instants, whether they have no zone, and how they are written."""

    guess: Guess | None = None
    instants: Instants | None = None
    naive: bool = False
    time_format: str | None = None
    others: tuple[str, ...] = ()
    epoch: Epoch | None = None


def find_time(frame: pd.DataFrame, clock: Clock | None = None) -> TimeFound:
    """The likeliest time; of two columns ``date`` and ``time`` both, joined. ``clock``: how to read."""
    best = TimeFound()
    for column in map(str, frame.columns):
        hint = bool(re.search(r"time|date|(?:^|_)ts$|^at$|^t$|stamp|datum|zeit", column.lower()))
        number = not typed(frame[column]) and not hint and _share_of_numbers(frame[column]) > 0.5
        if number and not _epoch_like(frame[column]):
            continue  # a number is a time only where its name says so, or as nothing else is so large
        told = clock is not None and (clock.time_format is not None or clock.epoch is not None)
        excel = hint and not told and _days_of_excel(frame[column])
        read = Clock(zone="UTC", epoch="excel") if excel else clock
        best = _better(best, column, frame[column], 0.98 if hint else 0.8, read)
    hours = _hours_beside(frame, best.guess)
    if hours is not None and best.guess is not None:
        joined = (
            frame[best.guess.column].astype(str).str.removesuffix(" 00:00:00")
            + " "
            + frame[hours].astype(str)
        )
        both = _better(TimeFound(), f"{best.guess.column}{BOTH}{hours}", joined, 0.97, clock)
        return both if both.guess is not None else best
    return best


def _better(best: TimeFound, column: str, values: pd.Series, weight: float, clock: Clock | None) -> TimeFound:
    found, naive, time_format, others = as_time(values, clock)
    if found is None:
        return best
    share = float(found.good.mean())
    if share < 0.9 or share * weight <= (best.guess.sure if best.guess else 0):
        return best
    zone = "without zone" if naive else "with offset, or epochs"
    epoch = None if clock is None else clock.epoch
    days = ", days as Excel counts" if epoch == "excel" else ""
    written = f", written {time_format}" if time_format else days
    why = f"{share:.0%} of rows read as times, {zone}{written}"
    return TimeFound(Guess(column, "time", why, share * weight), found, naive, time_format, others, epoch)


def _hours_beside(frame: pd.DataFrame, day: Guess | None) -> str | None:
    """A column of times of day beside one of dates only."""
    if day is None or typed(frame[day.column]) or day.column not in frame.columns:
        return None
    if frame[day.column].dropna().astype(str).head(200).str.contains(":").any():
        return None
    for column in map(str, frame.columns):
        text = frame[column].dropna().astype(str).head(200)
        if len(text) and bool(
            text.str.fullmatch(r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?|\d{1,2}\.\d\d\.\d\d").all()
        ):
            return column
    return None


def typed(column: pd.Series) -> bool:
    """Whether a column holds instants as such."""
    return column.dtype.kind == "M"


def _epoch_like(column: pd.Series) -> bool:
    """Whether rising numbers lie where s, ms, µs or ns since 1970 do between 2001 and 2100."""
    values = pd.to_numeric(column, errors="coerce").dropna().to_numpy(dtype=float)
    if not len(values) or not bool((values == np.rint(values)).all()):
        return False
    middle = float(np.median(values))
    large = any(9.8e8 <= middle / unit <= 4.1e9 for unit in (1.0, 1e3, 1e6, 1e9))
    return large and float((np.diff(values) >= 0).mean()) > 0.9


def _days_of_excel(column: pd.Series) -> bool:
    """Whether numbers lie where Excel's days do between 1982 and 2100."""
    values = pd.to_numeric(column, errors="coerce")
    there = values.dropna().to_numpy(dtype=float)
    return (
        len(there) > 0
        and len(there) >= 0.9 * column.notna().sum()
        and bool(((there > 30_000) & (there < 73_050)).all())
    )


def as_time(
    column: pd.Series, clock: Clock | None = None
) -> tuple[Instants | None, bool, str | None, tuple[str, ...]]:
    """Instants, whether they lack a zone, and the format, if any, with others that read as many rows.

    ``clock``: how times are written, where that is told.
    """
    if clock is not None and (clock.time_format is not None or clock.epoch is not None):
        try:
            found = parse_instants(column, clock)
        except DataError:
            return None, False, None, ()
        return found, found.local, None, ()
    try:
        return parse_instants(column, Clock()), False, None, ()
    except DataError as error:
        naive = "no zone" in str(error)
    if naive:
        return parse_instants(column, Clock(zone="UTC")), True, None, ()
    if typed(column) or pd.api.types.is_numeric_dtype(column):
        return None, False, None, ()
    text = column.dropna().astype(str)
    fits = sorted((f for f in _FORMATS if len(text) and _reads(text, f)), key=lambda f: _span(text, f))
    if not fits:
        return None, False, None, ()
    return parse_instants(column, Clock(zone="UTC", time_format=fits[0])), True, fits[0], tuple(fits[1:])


def times_of_names(files: Sequence[Path]) -> tuple[str, NDArray[np.int64]] | None:
    """The format in which names of files say instants (µs, read as UTC), each once in its folder; or None."""
    names, folders = [stem(p) for p in files], pd.Series([p.parent for p in files])
    text = pd.Series(list(names), dtype=object)
    for time_format in _NAME_FORMATS:
        found = pd.to_datetime(text, format=time_format, errors="coerce")
        if bool(found.notna().all()) and not pd.DataFrame({"at": found, "of": folders}).duplicated().any():
            return time_format, found.to_numpy(dtype="datetime64[us]").astype(np.int64)
    return None


def _span(text: pd.Series, time_format: str) -> int:
    """How many weeks times reach over, read so: day and month exchanged scatter a week over the year."""
    found = pd.to_datetime(text, format=time_format, errors="coerce")
    return int((found.max() - found.min()) // pd.Timedelta(days=7))


def _share_of_numbers(column: pd.Series) -> float:
    return float(pd.to_numeric(column, errors="coerce").notna().mean())


def _reads(text: pd.Series, time_format: str) -> bool:
    few = text.head(50)
    if pd.to_datetime(few, format=time_format, errors="coerce").isna().mean() > 0.1:
        return False
    return bool(pd.to_datetime(text, format=time_format, errors="coerce").notna().mean() >= 0.9)
