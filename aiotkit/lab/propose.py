"""What an unknown file probably holds: a draft of signals and window, and the command that reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from aiotkit.core.errors import DataError, EmptyFileError
from aiotkit.lab.files import all_empty, expand, named
from aiotkit.lab.first_limit import limit_of
from aiotkit.lab.guess import (
    METER,
    SWITCHES,
    Found,
    as_numbers,
    as_signal,
    choices_of,
    decimal_of,
    guess_columns,
    identifiers,
    with_points,
)
from aiotkit.lab.guess_subject import find_subject
from aiotkit.lab.guess_time import TimeFound, as_time, find_time, times_of_names
from aiotkit.lab.guessed import Guess
from aiotkit.lab.instants import Instants
from aiotkit.lab.layout import BOTH, time_column
from aiotkit.lab.long import Long, find_long
from aiotkit.lab.pace import STEADY, Pace, paces, sampling, window_s
from aiotkit.lab.proposal import Known, Proposal
from aiotkit.lab.propose_files import check_kind, of_bursts, of_many, together
from aiotkit.lab.propose_values import (
    doubts_of_values,
    drafts_of_names,
    kept,
    without_sentinels,
    words_of_names,
)
from aiotkit.lab.propose_windows import WHOSE, headless_windows, of_files, samples_only, with_windows
from aiotkit.lab.quality import poor, quality_column
from aiotkit.lab.readers import Raw, read_raw, read_rows
from aiotkit.lab.tags import SUBJECT, by_machine, machines_in, machines_told
from aiotkit.lab.template import ContextDraft, SignalDraft
from aiotkit.lab.uneventful import MOST_STATES
from aiotkit.lab.windows import numbered, windows_in

_MOST_ROWS = 200_000
#: a decision file holds at most this many signals
_MOST_SIGNALS = 256


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
    check_kind(files, known.encoding)
    raw = together(raw, files, known)
    said = " ".join(map(str, given)) if len(given) == 1 else str(files[0])
    named_at = times_of_names(files) if len(files) > 1 else None
    timeless = known.time is None and find_time(raw.frame.head(200)).guess is None
    if named_at is not None and timeless and known.start is None:
        found = of_bursts(_of_table(said, raw, known), raw, named_at, files, known)
    elif _nothing_but_windows(raw, known):
        raws = [(p, raw if p == files[0] else read_raw(p, encoding=known.encoding)) for p in files]
        found = of_files(said, [(p, samples_only(r, known)) for p, r in raws if r.headless or known.shape])
    elif _machines_in_names(raw, known):
        found = _of_machines(said, raw, known)
    else:
        found = _of_table(said, raw, known)
        found = of_many(found, raw, files, known) if len(files) > 1 and named_at is None else found
    passed_over = (f"why {named(empty)} hold no row: passed over",) if empty else ()
    found = replace(found, given=tuple(map(str, given)), doubts=(*found.doubts, *passed_over))
    return _settled(found, known)


def _nothing_but_windows(raw: Raw, known: Known) -> bool:
    """Whether columns have no names that say of which signal they are samples."""
    if known.shape == "window":
        return raw.headless or not numbered(map(str, raw.frame.columns))
    return known.shape is None and raw.headless and headless_windows(raw)


def _machines_in_names(raw: Raw, known: Known) -> bool:
    if known.subject_from is not None:
        return known.subject_from == "names"
    return known.subject is None and known.subject_column is None and bool(machines_in(raw))


def _of_machines(path: str, raw: Raw, known: Known) -> Proposal:
    """A file whose columns or tags hold the machines."""
    apart = by_machine(raw, name_column=known.name_column, value_column=known.value_column)
    apart = replace(apart, frame=apart.frame.reset_index(drop=True))
    found = _of_table(path, apart, replace(known, subject_column=SUBJECT, subject_from=None))
    names = machines_told(raw, known.name_column, known.value_column)
    machines = sorted({machine for machine, _ in names.values()})
    example = next(iter(names), "")
    listed = ", ".join(machines[:8])
    doubt = f"whether {listed} are the subjects, as in '{example}': taken so (--subject-from names)"
    flags = found.flags if known.subject_from else (*found.flags, "--subject-from", "names")
    return replace(
        found, rows=len(raw.frame), doubts=(*found.doubts, doubt), flags=flags,
        guesses=tuple(g for g in found.guesses if g.column != SUBJECT),
    )  # fmt: skip


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
    ends = "whether each record ends with a failure: taken so in the commands (--form ends)"
    doubts += (ends,) if replace(found, flags=tuple(flags)).runs_to_failure else ()
    return replace(
        found, flags=tuple(flags), doubts=doubts, zone_needed=found.zone_needed and known.zone is None
    )


def _without(flags: Sequence[str], given: Sequence[str]) -> list[str]:
    """Options with their values, without those that are given."""
    return [w for option, value in zip(flags[::2], flags[1::2], strict=True) if option not in given[::2]
            for w in (option, value)]  # fmt: skip


def _of_table(path: str, raw: Raw, known: Known) -> Proposal:
    frame, decimal = raw.frame.iloc[:_MOST_ROWS], known.decimal or decimal_of(raw.frame.iloc[:2000])
    frame = with_points(frame) if decimal == "," else frame
    windows = _windows(raw, frame, known)
    if windows:
        others = replace(raw, frame=frame.drop(columns=[c for columns in windows.values() for c in columns]))
        beside = replace(known, shape="wide", decimal=decimal)
        rest = _of_table(path, others, beside)
        return with_windows(rest, frame, windows, _time(raw, others.frame, beside), known)
    quality = quality_column(frame)
    bad = np.zeros(len(frame), dtype=bool) if quality is None else poor(frame[quality])
    frame = frame[~bad]
    time, told = _time(raw, frame, known), (known.name_column, known.value_column, known.unit_column)
    for column, what in zip((*told, known.label), ("names", "values", "units", "labels"), strict=True):
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
    guesses = [_told(frame, g, known) for g in guesses]
    who = [] if subject is None else [subject.column]
    flags = ["--decimal", ","] if decimal == "," else []
    flags += ["--time-format", time.time_format] if time.time_format else []
    flags += ["--epoch", time.epoch] if time.epoch == "excel" else []
    labels: tuple[str, ...] = ()
    if long is not None:
        shape = "long"
        flags += ["--shape", "long", "--name-column", long.name, "--value-column", long.value]
        flags += ["--unit-column", long.unit] if long.unit is not None else []
        found, signals, columns = drafts_of_names(frame, (long.name, long.value, long.unit), time, who)
        said, written, wordy = words_of_names(frame, (long.name, long.value, long.unit), found)
        length = window_s(found)
    else:
        shape = "wide"
        found = paces(frame, [g.column for g in guesses if g.role == "signal"], time.instants, who)
        said, written, wordy = {}, {}, []
        length = window_s(found)
        signals, columns = _wide(guesses, found, length, known)
        signals = _limited(signals, columns, frame, (time.instants, who, length))
        if time.guess is None:
            signals, flags, length = _without_time(signals, flags)
        flags += ["--shape", "wide"] if raw.headless else []
        label = max((g for g in guesses if g.role == "label"), key=lambda g: g.sure, default=None)
        labels = choices_of(frame[label.column]) if label is not None and label.sure >= 0.8 else ()
        if known.label is not None and len(labels) > MOST_STATES:
            raise DataError(
                f"{raw.name}: column '{known.label}' is no label",
                expected=f"at most {MOST_STATES} words or codes",
                found=f"{len(labels):,} values",
                do="Make states of its numbers first, or name another --label COLUMN.",
            )
    context = _choices(guesses, frame, found, length) if shape == "wide" else said
    signals = kept(signals, far if long is None else {c: far[n] for c, n in columns.items() if n in far},
                    columns if long is None else {n: n for n in signals}, known)  # fmt: skip
    context = {n: c for n, c in context.items() if not known.only or n in known.only}
    fastest = min(found.values(), key=lambda p: p.period_s, default=None)
    doubts = list(_doubts(guesses, time, subject, fastest, len(raw.malformed)))
    doubts += doubts_of_values(far, quality, int(bad.sum()))
    if wordy:
        doubts.append(f"what {', '.join(wordy[:8])} say: words, or nothing, and no few choices: left out")
    doubts += ["which encoding the text has: cp1252 is taken (--encoding)"] * any(
        note.startswith("not UTF-8") for note in raw.notes
    )
    if len(signals) > _MOST_SIGNALS:
        doubts.append(f"which of {len(signals):,} signals matter: the first {_MOST_SIGNALS} are drafted")
        signals = dict(list(signals.items())[:_MOST_SIGNALS])
    columns = {n: c for n, c in columns.items() if n in signals}
    chosen = dict(zip(_choices(guesses, frame, found, length), _choice_columns(guesses), strict=False))
    columns |= {n: c for n, c in (chosen | written).items() if n in context}
    return Proposal(
        path, len(raw.frame), shape, tuple(guesses), fastest, time.naive, tuple(doubts), signals, context,
        columns, length, length, tuple(flags), labels, cycles=_cycles(frame, guesses, subject),
    )  # fmt: skip


def _cycles(frame: pd.DataFrame, guesses: Sequence[Guess], subject: Guess | None) -> bool:
    """Whether a column counts rows from 0 or 1 on, for each subject: cycles, with no time."""
    if any(g.role == "time" for g in guesses):
        return False
    groups = pd.Series(0, frame.index) if subject is None else frame[subject.column].astype(str)
    for column in (g.column for g in guesses if g.role == "counter"):
        values = pd.to_numeric(frame[column], errors="coerce")
        by = values.groupby(groups)
        if bool((by.first() <= 1).all()) and float((by.diff() == 1).mean()) > 0.5:
            return True
    return False


def _windows(raw: Raw, frame: pd.DataFrame, known: Known) -> Mapping[str, Sequence[str]]:
    """The columns of samples, by signal, where rows are windows."""
    if raw.headless or known.shape not in (None, "window"):
        return {}
    if known.shape is None:
        return windows_in(frame)
    return {name: columns for name, columns in numbered(map(str, frame.columns)).items() if len(columns) > 1}


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


def _told(frame: pd.DataFrame, guess: Guess, known: Known) -> Guess:
    """A column that is told to be a signal, or the label, as such."""
    if guess.column == known.label:
        return Guess(guess.column, "label", "as told", 1.0)
    names = {column: name for name, column in known.columns.items()}
    if guess.column in names and guess.role in ("label", "counter", "sparse", "constant"):
        return as_signal(frame, guess, "as told, values ")
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
        yield WHOSE
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
    meters = [g.column for g in guesses if g.role == "signal" and g.why.startswith(METER)]
    if meters:
        recipe = ",".join(f"{c}.slope,{c}.p2p" for c in identifiers(meters[:2]).values())
        yield (
            f"whether {', '.join(meters[:8])} are meters: what a window adds says more than where it stands, "
            f"so train with --recipe {recipe}"
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
    future = [g.column for g in guesses if g.role == "future"]
    if future:
        yield f"what {', '.join(future)} is for: it tells what comes, so it is left out of the signals"
    sparse = [g.column for g in guesses if g.role in ("sparse", "empty")]
    if sparse:
        yield f"what {', '.join(sparse[:8])} means: hardly a row holds a value"
    if malformed:
        yield f"{malformed} lines are no rows of the table (torn, or the header again): quarantined"
