"""What several files of a kind probably hold, out of what the first of them seems to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.errors import DataError, EmptyFileError
from aiotkit.lab.files import stem, subject_of
from aiotkit.lab.first_limit import below_highest
from aiotkit.lab.guess import as_numbers, span_of
from aiotkit.lab.guess_subject import ONE
from aiotkit.lab.guess_time import find_time
from aiotkit.lab.layout import BOTH
from aiotkit.lab.pace import Pace
from aiotkit.lab.proposal import Known, Proposal
from aiotkit.lab.propose_windows import WHOSE
from aiotkit.lab.quality import sentinel_of
from aiotkit.lab.readers import Raw, columns_of, read_rows
from aiotkit.lab.template import SignalDraft

#: of so many files the columns are compared
_MOST_LOOKED_AT = 24
#: files, and rows, that are looked at together
_MOST_TOGETHER, _MOST_ROWS = 400, 200_000


def of_bursts(
    found: Proposal, raw: Raw, named_at: tuple[str, NDArray[np.int64]], files: Sequence[Path], known: Known
) -> Proposal:
    """A file a burst: its name says when it began, its rows are samples; ``found`` in the first of them."""
    time_format, at_us = named_at
    folders, n = pd.Series([subject_of(p, "folder") for p in files]), len(raw.frame)
    steps = pd.Series(at_us).sort_values().groupby(folders).diff().dropna()
    every = float(steps.median()) / 1e6 if len(steps) else 1.0
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
    several = folders.nunique() > 1 and found.one("subject") is None and not known.names_subject
    if several:
        listed = ", ".join(sorted(folders.unique())[:3])
        doubts = [d for d in doubts if d != WHOSE]
        doubts.append(f"whether each folder is one subject, called as the folder is ({listed}, …): taken so")
    flags: tuple[str, ...] = (
        "--start-from",
        "filename",
        "--time-format",
        time_format,
        "--every-s",
        f"{length / n:.9g}",
    )
    flags += ("--shape", "wide") if raw.headless else ()
    flags += ("--subject-from", "folder") if several else ()
    return replace(
        found, signals=signals, context={}, doubts=tuple(doubts), flags=flags,
        length_s=length, every_s=every, pace=Pace(length / n, 1.0, float(n)), zone_needed=True,
    )  # fmt: skip


def check_kind(files: Sequence[Path], encoding: str | None) -> None:
    """Refuse files of several kinds, such as telemetry beside lists of failures.

    Two kinds share no column but those that all files have (a time, a subject).

    Raises:
        DataError: naming the kinds, and what to do with each.
    """
    few = files[:: max(1, len(files) // _MOST_LOOKED_AT)]
    kinds: dict[frozenset[str], Path] = {}
    for path in few if len(files) > 1 else ():
        try:
            kinds.setdefault(frozenset(columns_of(path, encoding)), path)
        except EmptyFileError:
            continue
    shared = frozenset.intersection(*kinds) if kinds else frozenset()
    own = [kind - shared for kind in kinds if kind - shared]
    if not any(a.isdisjoint(b) for a in own for b in own):
        return
    listed = "; ".join(f"{p.name} ({', '.join(sorted(k - shared)[:6])})" for k, p in kinds.items() if k)
    most = kinds[max(kinds, key=lambda kind: (len(kind), kinds[kind].stat().st_size))]
    raise DataError(
        f"{len(files)} files of {len(kinds)} kinds",
        expected="files with the same columns",
        found=listed,
        do=f"Give those of one kind, such as {most}; ingest others after it with --only NAME. Lists of "
        "events and failures go to 'aiotkit outcomes import'.",
    )


def together(first: Raw, files: Sequence[Path], known: Known) -> Raw:
    """The first file, with the rows of those behind it where it holds one or two instants alone.

    What follows from steps between rows (times, subjects, what is constant) cannot be seen in one such file.
    """
    time = known.time or (
        found.column if (found := find_time(first.frame.head(200), known.clock).guess) else None
    )
    if time is None or first.headless or len(files) < 2:
        return first
    columns = [c for c in time.split(BOTH) if c in first.frame.columns]
    if not columns or len(first.frame[columns].drop_duplicates()) > 2:
        return first
    parts, rows = [first.frame], len(first.frame)
    for path in files[1:_MOST_TOGETHER]:
        try:
            more = read_rows(path, encoding=known.encoding).frame
        except EmptyFileError:
            continue
        if list(more.columns) == list(first.frame.columns):
            parts, rows = [*parts, more], rows + len(more)
        if rows >= _MOST_ROWS:
            break
    whole = pd.concat(parts, ignore_index=True)
    return replace(first, frame=whole.set_index(pd.RangeIndex(1, len(whole) + 1)))


def of_many(found: Proposal, first: Raw, files: Sequence[Path], known: Known) -> Proposal:
    """Several files of a kind; ``found`` in the first of them."""
    doubts = [d for d in found.doubts if not d.startswith("which subject")]
    doubts.append(f"whether all {len(files)} files are as {files[0].name}, which was looked at")
    looked = _some(files, known)
    found = _named_by_files(replace(found, signals=_widened(found, looked)), [first, *looked])
    if found.one("subject") is None and not known.names_subject:
        if len({stem(p) for p in files}) == 1:
            doubts.append(f"which subject each of {len(files)} files called '{stem(files[0])}' is of: give "
                          "--subject-from folder, --subject-column COLUMN or --subject")  # fmt: skip
            return replace(found, doubts=tuple(doubts))
        stems = ", ".join([stem(p) for p in files[:3]] + ["…"] * (len(files) > 3))
        doubts.append(f"whether each file is one subject, called as the file is ({stems}): taken so")
        found = replace(found, flags=(*found.flags, "--subject-from", "filename"))
    return replace(found, doubts=tuple(doubts))


def _named_by_files(found: Proposal, looked: Sequence[Raw]) -> Proposal:
    """Without a subject that is one and the same in every file: not the machines, which files are of."""
    who = found.one("subject")
    if who is None or not who.why.startswith(ONE):
        return found
    names = {str(v) for raw in looked if who.column in raw.frame for v in raw.frame[who.column].dropna()}
    if len(names) > 1:
        return found
    plain = [replace(g, role="constant", why=ONE) if g is who else g for g in found.guesses]
    return replace(found, guesses=tuple(plain))


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
