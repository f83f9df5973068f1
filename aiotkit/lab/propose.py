"""What an unknown file probably holds: a draft of signals and window, and the command that reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.errors import DataError, EmptyFileError
from aiotkit.lab.files import all_empty, expand, named, stem
from aiotkit.lab.first_limit import below_highest, limit_of
from aiotkit.lab.guess import (
    SWITCHES,
    Found,
    Guess,
    TimeFound,
    as_numbers,
    as_time,
    choices_of,
    decimal_of,
    find_time,
    guess_columns,
    identifiers,
    span_of,
    times_of_names,
    unit_of,
    with_points,
)
from aiotkit.lab.guess_subject import find_subject
from aiotkit.lab.instants import Instants
from aiotkit.lab.layout import BOTH, time_column
from aiotkit.lab.long import Long, find_long
from aiotkit.lab.pace import STEADY, Pace, paces, sampling, window_s
from aiotkit.lab.proposal import Known, Proposal
from aiotkit.lab.propose_values import doubts_of_values, drafts_of_names, kept, without_sentinels
from aiotkit.lab.quality import poor, quality_column, sentinel_of
from aiotkit.lab.readers import Raw, read_raw, read_rows
from aiotkit.lab.template import ContextDraft, SignalDraft

_MOST_ROWS = 200_000
#: a decision file holds at most this many signals
_MOST_SIGNALS = 256
_WHOSE = "which subject the rows belong to: give --subject, --subject-column, or --subject-from filename"


def propose(path: str | Path | pd.DataFrame | Sequence[str | Path], known: Known | None = None) -> Proposal:
    """Look at a file, a frame, or several files of a kind, and say what they probably hold.

    Of several files the first that holds a row is looked at; files without header, of which each is one
    signal, all.

    Raises:
        EmptyFileError: no file holds a row.
        DataError: the file cannot be read at all, or a column that is known is not there.
    """
    known = known or Known()
    if isinstance(path, pd.DataFrame):
        if path.empty:
            raise DataError("frame: no rows")
        return _settled(_of_table("frame", read_raw(path), known), known)
    given = [path] if isinstance(path, str | Path) else list(path)
    files, raw, empty = _with_rows(expand(given), known.encoding)
    said = " ".join(map(str, given)) if len(given) == 1 else str(files[0])
    named_at = times_of_names([stem(p) for p in files]) if len(files) > 1 else None
    timeless = known.time is None and find_time(raw.frame.head(200)).guess is None
    if named_at is not None and timeless and known.start is None:
        found = _of_bursts(said, raw, named_at, files, known)
    elif known.shape == "window" or (raw.headless and known.shape is None and _row_is_window(raw)):
        raws = [(p, raw if p == files[0] else read_raw(p, encoding=known.encoding)) for p in files]
        found = _of_windows(said, [(p, _samples(r, known)) for p, r in raws if r.headless or known.shape])
    else:
        found = _of_table(said, raw, known)
        found = _of_many(found, files, known) if len(files) > 1 and named_at is None else found
    passed_over = (f"why {named(empty)} hold no row: passed over",) if empty else ()
    found = replace(found, given=tuple(map(str, given)), doubts=(*found.doubts, *passed_over))
    return _settled(found, known)


def _with_rows(files: Sequence[Path], encoding: str | None) -> tuple[list[Path], Raw, list[Path]]:
    """Files without those that are seen to be empty, what the first of them holds, and the empty ones."""
    empty = [p for p in files if p.is_file() and not p.stat().st_size]
    left = [p for p in files if p not in set(empty)]
    while left:
        try:
            return left, read_rows(left[0], encoding=encoding), empty
        except EmptyFileError:
            if len(files) == 1:
                raise
            empty.append(left.pop(0))
    raise all_empty(files)


def _settled(found: Proposal, known: Known) -> Proposal:
    """With what is known in the command, and no longer among the doubts."""
    flags, answered = _without(found.flags, known.flags), []
    flags += known.flags
    if known.zone is not None and found.zone_needed:
        flags += ["--zone", known.zone]
        answered.append("which time zone")
    if known.names_subject:
        flags += ["--subject", known.subject] if known.subject is not None else []
        flags += ["--subject-from", known.subject_from] if known.subject_from is not None else []
        answered.append("which subject")
    answered += ["how times are written"] if known.time_format is not None else []
    answered += ["no column reads as a time"] if known.start is not None else []
    doubts = tuple(d for d in found.doubts if not d.startswith(tuple(answered)))
    return replace(
        found, flags=tuple(flags), doubts=doubts, zone_needed=found.zone_needed and known.zone is None
    )


def _without(flags: Sequence[str], given: Sequence[str]) -> list[str]:
    """Options with their values, without those that are given."""
    return [w for option, value in zip(flags[::2], flags[1::2], strict=True) if option not in given[::2]
            for w in (option, value)]  # fmt: skip


def _of_bursts(
    path: str, raw: Raw, named_at: tuple[str, NDArray[np.int64]], files: Sequence[Path], known: Known
) -> Proposal:
    """A file a burst: its name says when it began, its rows are samples."""
    found = _of_table(path, raw, known)
    time_format, at_us = named_at
    every, n = float(np.median(np.diff(np.sort(at_us)))) / 1e6, len(raw.frame)
    length = min(1.0, every)
    rate = float(f"{n / length:.9g}")
    looked = [raw, *_some(files, known)]
    signals = {
        k: replace(s, rate_hz=rate, limit=below_highest(_tops(looked, found.columns[k]), "files looked at"))
        for k, s in _widened(found, looked).items()
    }
    doubts = [d for d in found.doubts if not d.startswith("no column reads")]
    doubts.append(f"the sampling rate: {n:,} rows a file are taken for {length:g} s")
    doubts.append("which time zone the names of files are in: give --zone")
    flags = ("--start-from", "filename", "--time-format", time_format, "--every-s", f"{length / n:.9g}")
    shape = ("--shape", "wide") if raw.headless else ()
    return replace(
        found, signals=signals, context={}, doubts=tuple(doubts), flags=(*flags, *shape),
        length_s=length, every_s=every, pace=Pace(length / n, 1.0, float(n)), zone_needed=True,
    )  # fmt: skip


def _of_many(found: Proposal, files: Sequence[Path], known: Known) -> Proposal:
    doubts = [d for d in found.doubts if not d.startswith("which subject")]
    doubts.append(f"whether all {len(files)} files are as {files[0].name}, which was looked at")
    found = replace(found, signals=_widened(found, _some(files, known)))
    if found.one("subject") is None and not known.names_subject:
        stems = ", ".join([stem(p) for p in files[:3]] + ["…"] * (len(files) > 3))
        doubts.append(f"whether each file is one subject, called as the file is ({stems}): taken so")
        found = replace(found, flags=(*found.flags, "--subject-from", "filename"))
    return replace(found, doubts=tuple(doubts))


def _some(files: Sequence[Path], known: Known) -> list[Raw]:
    """A few of the files behind the first: a later one may be another world."""
    found = []
    for i in sorted({len(files) // 4, len(files) // 2, len(files) - 1} - {0}):
        try:
            found.append(read_rows(files[i], encoding=known.encoding))
        except EmptyFileError:
            continue  # ingest says which are empty
    return found


def _widened(found: Proposal, looked: Sequence[Raw]) -> dict[str, SignalDraft]:
    """Signals with ranges that hold what these files hold too."""
    signals = dict(found.signals)
    for raw in looked:
        for name, column in found.columns.items():
            values = (
                as_numbers(raw.frame[column]) if name in signals and column in raw.frame.columns else None
            )
            if values is not None and len(values):
                one, plain = sentinel_of(values.to_numpy(dtype=float)), values.to_numpy(dtype=float)
                low, high = span_of(plain if one is None else plain[plain != one])
                s = signals[name]
                signals[name] = replace(s, low=min(s.low, low), high=max(s.high, high))
    return signals


def _tops(looked: Sequence[Raw], column: str) -> NDArray[np.float64]:
    """The highest value of a column in each file."""
    found = [as_numbers(raw.frame[column]) for raw in looked if column in raw.frame.columns]
    return np.array([float(v.max()) for v in found if v is not None and len(v)])


def _samples(raw: Raw, known: Known) -> Raw:
    """A file of windows without what is no sample: its time, its subject."""
    if raw.headless:
        return raw
    time = find_time(raw.frame.iloc[:_MOST_ROWS]).guess
    taken = {known.subject_column, *(known.time or (time.column if time else "")).split(BOTH)}
    columns = [c for c in raw.frame.columns if c not in taken and as_numbers(raw.frame[c]) is not None]
    return replace(raw, frame=raw.frame[columns])


def _row_is_window(raw: Raw) -> bool:
    """Whether the columns of a file without header are samples of one signal: neighbours overlap."""
    values = raw.frame.head(2000).apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    if values.shape[1] < 8 or (len(raw.frame) > 50 * values.shape[1] and values.shape[1] <= 32):
        return False
    low, high = np.nanquantile(values, [0.02, 0.98], axis=0)
    room = 0.05 * (np.nanmax(values) - np.nanmin(values))
    overlap = (low[1:] <= high[:-1] + room) & (low[:-1] <= high[1:] + room)
    alike = np.ptp((low + high) / 2) <= 20 * max(float(np.median(high - low)), room)
    return bool(overlap.mean() >= 0.9 and alike)


def _of_table(path: str, raw: Raw, known: Known) -> Proposal:
    frame, decimal = raw.frame.iloc[:_MOST_ROWS], known.decimal or decimal_of(raw.frame.iloc[:2000])
    frame = with_points(frame) if decimal == "," else frame
    quality = quality_column(frame)
    bad = np.zeros(len(frame), dtype=bool) if quality is None else poor(frame[quality])
    frame = frame[~bad]
    time, told = _time(raw, frame, known), (known.name_column, known.value_column, known.unit_column)
    for column, what in zip(told, ("names", "values", "units"), strict=True):
        raw.column(column, what) if column is not None else None
    taken = {c for c in (known.subject_column, quality) if c is not None}
    taken |= set(() if time.guess is None else time.guess.column.split(BOTH))
    long = None if known.shape == "wide" else find_long(frame, taken, told)
    if known.shape == "long" and long is None:
        raise DataError(f"{raw.name}: which columns of long data hold names and values?",
                        found=f"columns {', '.join(map(str, frame.columns[:20]))}",
                        do="Give --name-column COLUMN and --value-column COLUMN.")  # fmt: skip
    frame, far = without_sentinels(frame, long)
    subject = _subject(raw, frame, time, known, long)
    guesses = list(guess_columns(frame, Found(time, subject, long, quality, raw.units)))
    guesses = [_told(g, known) for g in guesses]
    who = [] if subject is None else [subject.column]
    flags = ["--decimal", ","] if decimal == "," else []
    flags += ["--time-format", time.time_format] if time.time_format else []
    labels: tuple[str, ...] = ()
    if long is not None:
        shape = "long"
        flags += ["--shape", "long", "--name-column", long.name, "--value-column", long.value]
        flags += ["--unit-column", long.unit] if long.unit is not None else []
        found, signals, columns = drafts_of_names(frame, (long.name, long.value, long.unit), time, who)
        length = window_s(found)
    else:
        shape = "wide"
        found = paces(frame, [g.column for g in guesses if g.role == "signal"], time.instants, who)
        length = window_s(found)
        signals, columns = _wide(guesses, found, length, known)
        signals = _limited(signals, columns, frame, (time.instants, who, length))
        if time.guess is None:
            signals, flags, length = _without_time(signals, flags)
        flags += ["--shape", "wide"] if raw.headless else []
        label = next((g for g in guesses if g.role == "label" and g.sure >= 0.8), None)
        labels = choices_of(frame[label.column]) if label is not None else ()
    context = _choices(guesses, frame, found, length) if shape == "wide" else {}
    signals = kept(signals, far if long is None else {c: far[n] for c, n in columns.items() if n in far},
                    columns if long is None else {n: n for n in signals}, known)  # fmt: skip
    context = {n: c for n, c in context.items() if not known.only or n in known.only}
    fastest = min(found.values(), key=lambda p: p.period_s, default=None)
    doubts = list(_doubts(guesses, time, subject, fastest, len(raw.malformed)))
    doubts += doubts_of_values(far, quality, int(bad.sum()))
    if len(signals) > _MOST_SIGNALS:
        doubts.append(f"which of {len(signals):,} signals matter: the first {_MOST_SIGNALS} are drafted")
        signals = dict(list(signals.items())[:_MOST_SIGNALS])
    columns = {n: c for n, c in columns.items() if n in signals}
    chosen = dict(zip(_choices(guesses, frame, found, length), _choice_columns(guesses), strict=False))
    columns |= {n: c for n, c in chosen.items() if n in context}
    return Proposal(
        path, len(raw.frame), shape, tuple(guesses), fastest, time.naive, tuple(doubts), signals, context,
        columns, length, length, tuple(flags), labels,
    )  # fmt: skip


def _time(raw: Raw, frame: pd.DataFrame, known: Known) -> TimeFound:
    """The time as told, or as found."""
    if known.time is None:
        return TimeFound() if known.start is not None else find_time(frame, known.clock)
    values = time_column(replace(raw, frame=frame), known.time)
    found, naive, written, others = as_time(values, known.clock)
    if found is None:
        raise DataError(
            f"{raw.name}: column '{known.time}' does not read as times",
            found=repr(str(values.iloc[0])),
            do="Say how they are written with --time-format, or name another --time COLUMN.",
        )
    return TimeFound(Guess(known.time, "time", "as told", 1.0), found, naive, written, others)


def _told(guess: Guess, known: Known) -> Guess:
    """A column that is told to be a signal as one."""
    names = {column: name for name, column in known.columns.items()}
    if guess.column in names and guess.role in ("label", "counter", "sparse", "constant"):
        return replace(guess, role="signal", why="as told", unit="1", low=0.0, high=1.0)
    return guess


def _subject(raw: Raw, frame: pd.DataFrame, time: TimeFound, known: Known, long: Long | None) -> Guess | None:
    """The column of subjects: as told, or guessed; None where there is none, or another way is told."""
    if known.names_subject:
        return None
    if known.subject_column is None:
        besides = () if long is None else tuple(c for c in (long.name, long.value, long.unit) if c)
        return find_subject(frame, time, besides)
    distinct = int(raw.column(known.subject_column, "subject").nunique())
    return Guess(known.subject_column, "subject", f"as told; {distinct} different values", 1.0)


def _wide(
    guesses: Sequence[Guess], found: Mapping[str, Pace], length_s: float, known: Known
) -> tuple[dict[str, SignalDraft], dict[str, str]]:
    drafts: dict[str, SignalDraft] = {}
    wanted = [g for g in guesses if g.role == "signal" and g.unit is not None]
    wanted.sort(key=lambda g: g.why.startswith(SWITCHES))  # the first rule reads the first: no switch
    names = identifiers([g.column for g in wanted]) | {c: n for n, c in known.columns.items()}
    for g in wanted:
        assert g.unit is not None
        assert g.low is not None
        assert g.high is not None
        rate, age, grid = sampling(found.get(g.column), length_s)
        remark = f"unit {g.sure:.0%} sure: {g.why}"
        drafts[names[g.column]] = SignalDraft(g.unit, rate, g.low, g.high, remark, age, grid)
    return drafts, {names[g.column]: g.column for g in wanted}


def _limited(
    signals: Mapping[str, SignalDraft],
    columns: Mapping[str, str],
    frame: pd.DataFrame,
    seen: tuple[Instants | None, Sequence[str], float],
) -> dict[str, SignalDraft]:
    """With a limit for the first signal, which the first rule reads."""
    for name, s in list(signals.items())[:1]:
        values = as_numbers(frame[columns[name]])
        limit = None if values is None else limit_of(values, frame, *seen)
        return {**signals, name: replace(s, limit=limit)}
    return dict(signals)


def _without_time(
    signals: Mapping[str, SignalDraft], flags: list[str]
) -> tuple[dict[str, SignalDraft], list[str], float]:
    """Rows that carry no time: an hour apart is assumed, and said."""
    found = {n: replace(s, rate_hz=None, max_age_s=5400.0, grid_hz=None) for n, s in signals.items()}
    return found, [*flags, "--start", "…", "--every-s", "3600"], 3600.0


def _choice_columns(guesses: Sequence[Guess]) -> list[str]:
    return [g.column for g in guesses if g.role == "choice"]


def _choices(
    guesses: Sequence[Guess], frame: pd.DataFrame, found: Mapping[str, Pace], length_s: float
) -> dict[str, ContextDraft]:
    """Words that may be conditions of operation."""
    columns = _choice_columns(guesses)
    taken = [g.column for g in guesses if g.role == "signal"]
    names = identifiers([*taken, *columns])
    period = min((p.period_s for p in found.values()), default=length_s)
    age = float(f"{max(3 * period, 2 * length_s):.6g}")
    return {names[c]: ContextDraft(tuple(sorted(choices_of(frame[c]))), age) for c in columns}


def _of_windows(path: str, files: Sequence[tuple[Path, Raw]]) -> Proposal:
    """Files without header: a file a signal, a row a window."""
    drafts: dict[str, SignalDraft] = {}
    guesses: tuple[Guess, ...] = ()
    sizes = {raw.frame.shape[1] for _, raw in files}
    n = max(sizes)
    names = identifiers([stem(p) for p, _ in files])
    unsure = []
    for file, raw in files:
        values = raw.frame.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
        name, rate = names[stem(file)], raw.frame.shape[1] / n
        unit, sure, why = unit_of(name, float(np.nanmin(values)), float(np.nanmax(values)))
        low, high = span_of(values)
        guesses = guesses or tuple(
            Guess(str(c), "sample", "numbers without a header", 0.7, unit) for c in raw.frame.columns
        )
        drafts[name] = SignalDraft(
            unit, float(f"{rate:.9g}"), low, high, f"{sure:.0%} sure of the unit: {why}",
            limit=below_highest(np.nanmax(values, axis=1), "windows"),
        )  # fmt: skip
        unsure += [name] if sure < 0.9 else []
    doubts = [
        "where a row begins in time: give --start and --every-s",
        f"the sampling rate: 1 Hz is assumed below, so that a row lasts {n} s",
        f"the units of {', '.join(unsure[:8])}" if unsure else "",
        _WHOSE,
    ]
    return Proposal(
        path, len(files[0][1].frame), "window", guesses, Pace(1.0, 1.0, float(n)), False,
        tuple(d for d in doubts if d), drafts, {}, {}, float(n), float(n),
    )  # fmt: skip


def _doubts(
    guesses: Sequence[Guess], time: TimeFound, subject: Guess | None, pace: Pace | None, malformed: int
) -> Iterator[str]:
    if time.guess is None:
        yield "no column reads as a time: rows an hour apart are assumed (--start, --every-s)"
    if time.others:
        yield f"how times are written: {time.time_format} fits, and so does {time.others[0]}"
    if time.naive:
        yield "which time zone the times are in: give --zone"
    if subject is None:
        yield _WHOSE
    elif subject.sure < 0.8:
        yield f"whether '{subject.column}' is the subject"
    if pace is not None and pace.steady < STEADY:
        agree = f"only {pace.steady:.0%} of intervals agree"
        yield f"the sampling rate: {agree}, so signals are drafted as on_change"
    switches = [g.column for g in guesses if g.role == "signal" and g.why.startswith(SWITCHES)]
    if switches:
        more = f" and {len(switches) - 8} more" if len(switches) > 8 else ""
        yield (
            f"what {', '.join(switches[:8])}{more} say with two numbers: kept as signals; drop their lines, "
            "or give a label to 'outcomes import --label COLUMN'"
        )
    unsure = [g.column for g in guesses if g.role == "signal" and g.sure < 0.5]
    if unsure:
        more = f" and {len(unsure) - 8} more" if len(unsure) > 8 else ""
        yield f"the units of {', '.join(unsure[:8])}{more}"
    if any(g.role == "signal" for g in guesses):
        yield "ranges: they are what was seen and some room, not what is physically possible"
    labels = [g.column for g in guesses if g.role == "label"]
    if labels:
        yield f"what {', '.join(labels)} means, and when it was known: a label is an outcome, not a signal"
    sparse = [g.column for g in guesses if g.role in ("sparse", "empty")]
    if sparse:
        yield f"what {', '.join(sparse[:8])} means: hardly a row holds a value"
    if malformed:
        yield f"{malformed} lines are no rows of the table (torn, or the header again): quarantined"
