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
    Guess,
    TimeFound,
    as_numbers,
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
from aiotkit.lab.pace import STEADY, Pace, pace_of, paces, sampling, window_s
from aiotkit.lab.proposal import Known, Proposal
from aiotkit.lab.readers import Raw, read_raw, read_rows
from aiotkit.lab.template import ContextDraft, SignalDraft
from aiotkit.lab.units import EVERYDAY, conversion, unit_problem

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
    if named_at is not None and find_time(raw.frame.head(200)).guess is None:
        found = _of_bursts(said, raw, named_at, files, known)
    elif raw.headless and _row_is_window(raw):
        raws = [(p, raw if p == files[0] else read_raw(p, encoding=known.encoding)) for p in files]
        found = _of_windows(said, [(p, r) for p, r in raws if r.headless])
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
    flags, answered = list(found.flags), []
    flags += ["--encoding", known.encoding] if known.encoding is not None else []
    if known.zone is not None and found.zone_needed:
        flags += ["--zone", known.zone]
        answered.append("which time zone")
    if known.names_subject:
        flags += ["--subject", known.subject] if known.subject is not None else []
        flags += ["--subject-from", known.subject_from] if known.subject_from is not None else []
        answered.append("which subject")
    doubts = tuple(d for d in found.doubts if not d.startswith(tuple(answered)))
    return replace(
        found, flags=tuple(flags), doubts=doubts, zone_needed=found.zone_needed and known.zone is None
    )


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
                low, high = span_of(values.to_numpy(dtype=float))
                s = signals[name]
                signals[name] = replace(s, low=min(s.low, low), high=max(s.high, high))
    return signals


def _tops(looked: Sequence[Raw], column: str) -> NDArray[np.float64]:
    """The highest value of a column in each file."""
    found = [as_numbers(raw.frame[column]) for raw in looked if column in raw.frame.columns]
    return np.array([float(v.max()) for v in found if v is not None and len(v)])


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
    frame, decimal = raw.frame.iloc[:_MOST_ROWS], decimal_of(raw.frame.iloc[:2000])
    frame = with_points(frame) if decimal == "," else frame
    time = find_time(frame)
    subject = _subject(raw, frame, time, known)
    guesses = list(guess_columns(frame, time.guess, subject, time.instants))
    names, values = (next((g for g in guesses if g.role == r), None) for r in ("name", "value"))
    who = [] if subject is None else [subject.column]
    flags = ["--decimal", ","] if decimal == "," else []
    flags += ["--time-format", time.time_format] if time.time_format else []
    labels: tuple[str, ...] = ()
    if names is not None and values is not None:
        shape = "long"
        unit = next((g.column for g in guesses if g.role == "unit"), None)
        found, signals = _long(frame, (names.column, values.column, unit), time, who)
        columns = dict[str, str]()
        length = window_s(found)
    else:
        shape = "wide"
        found = paces(frame, [g.column for g in guesses if g.role == "signal"], time.instants, who)
        length = window_s(found)
        signals, columns = _wide(guesses, found, length)
        signals = _limited(signals, columns, frame, (time.instants, who, length))
        if time.guess is None:
            signals, flags, length = _without_time(signals, flags)
        flags += ["--shape", "wide"] if raw.headless else []
        label = next((g for g in guesses if g.role == "label" and g.sure >= 0.8), None)
        labels = choices_of(frame[label.column]) if label is not None else ()
    context = _choices(guesses, frame, found, length) if shape == "wide" else {}
    fastest = min(found.values(), key=lambda p: p.period_s, default=None)
    doubts = list(_doubts(guesses, time, subject, fastest, len(raw.malformed)))
    if len(signals) > _MOST_SIGNALS:
        doubts.append(f"which of {len(signals):,} signals matter: the first {_MOST_SIGNALS} are drafted")
        signals = dict(list(signals.items())[:_MOST_SIGNALS])
    columns = {n: c for n, c in columns.items() if n in signals}
    columns |= dict(zip(context, _choice_columns(guesses), strict=False))
    return Proposal(
        path, len(raw.frame), shape, tuple(guesses), fastest, time.naive, tuple(doubts), signals, context,
        columns, length, length, tuple(flags), labels,
    )  # fmt: skip


def _subject(raw: Raw, frame: pd.DataFrame, time: TimeFound, known: Known) -> Guess | None:
    """The column of subjects: as told, or guessed; None where there is none, or another way is told."""
    if known.names_subject:
        return None
    if known.subject_column is None:
        return find_subject(frame, time)
    distinct = int(raw.column(known.subject_column, "subject").nunique())
    return Guess(known.subject_column, "subject", f"as told; {distinct} different values", 1.0)


def _wide(
    guesses: Sequence[Guess], found: Mapping[str, Pace], length_s: float
) -> tuple[dict[str, SignalDraft], dict[str, str]]:
    drafts: dict[str, SignalDraft] = {}
    wanted = [g for g in guesses if g.role == "signal" and g.unit is not None]
    names = identifiers([g.column for g in wanted])
    for g in wanted:
        assert g.unit is not None
        assert g.low is not None
        assert g.high is not None
        rate, age, grid = sampling(found.get(g.column), length_s)
        remark = f"unit {g.sure:.0%} sure: {g.why}"
        drafts[names[g.column]] = SignalDraft(g.unit, rate, g.low, g.high, remark, age, grid)
    return drafts, {name: column for column, name in names.items()}


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


def _long(
    frame: pd.DataFrame, columns: tuple[str, str, str | None], time: TimeFound, who: Sequence[str]
) -> tuple[dict[str, Pace], dict[str, SignalDraft]]:
    """Pace and draft of each name in long data."""
    names, values, units = columns
    numbers = pd.to_numeric(frame[values].astype(object), errors="coerce").astype(float)
    groups = frame.groupby(list(who), dropna=False, observed=True).ngroup().to_numpy() if who else None
    found: dict[str, Pace] = {}
    mine: dict[str, pd.Series] = {}
    for name, part in numbers.groupby(frame[names].astype(str)):
        if not bool(part.notna().any()):
            continue
        mine[str(name)] = part
        if time.instants is None:
            continue
        places = frame.index.get_indexer(part.index[part.notna()])
        places = places[time.instants.good[places]]
        series = np.zeros(len(places), dtype=np.int64) if groups is None else groups[places]
        pace = pace_of(time.instants.at_us[places], series)
        if pace is not None:
            found[str(name)] = pace
    length = window_s(found)
    idents = identifiers(list(mine))
    drafts: dict[str, SignalDraft] = {}
    for name, part in mine.items():
        said = choices_of(frame.loc[part.index, units]) if units is not None else ()
        part = _in_one_unit(part, frame.loc[part.index, units], said) if units is not None else part
        unit, sure, why = _said_unit(said) or unit_of(name, float(part.min()), float(part.max()))
        low, high = span_of(part.to_numpy(dtype=float))
        rate, age, grid = sampling(found.get(name), length)
        limit = limit_of(part.dropna(), frame, time.instants, who, length) if not drafts else None
        remark = f"unit {sure:.0%} sure: {why}"
        drafts[idents[name]] = SignalDraft(unit, rate, low, high, remark, age, grid, limit)
    return found, drafts


def _in_one_unit(values: pd.Series, units: pd.Series, said: Sequence[str]) -> pd.Series:
    """The values of a name in the unit that most of its rows give."""
    target = _said_unit(said)
    if target is None:
        return values
    out = values.copy()
    for one in said[1:]:
        mine = (units.astype(str).str.strip() == one) & out.notna()
        try:
            out[mine] = conversion(one, target[0])(out[mine].to_numpy(dtype=float))
        except DataError:
            out[mine] = np.nan  # ingest quarantines them
    return out


def _said_unit(said: Sequence[str]) -> tuple[str, float, str] | None:
    """The unit that the rows of a name give, as UCUM."""
    for one in said:
        unit = EVERYDAY.get(one, one)
        if unit_problem(unit) is None:
            others = f"; also {', '.join(said[1:4])}" if len(said) > 1 else ""
            return unit, 0.95, f"its rows say '{one}'{others}"
    return None


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
