"""Telemetry from many files: what their names say goes into how each is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError, EmptyFileError
from aiotkit.lab.files import SubjectFrom, all_empty, check_told_apart, expand, stem, subject_of
from aiotkit.lab.ingest import Ingested, ingest, nothing
from aiotkit.lab.instants import parse_instants
from aiotkit.lab.layout import Options, folded
from aiotkit.lab.readers import read_rows
from aiotkit.lab.tags import SUBJECT, by_machine


@dataclass(frozen=True, slots=True)
class Names:
    """What the names of files mean.

    ``subject``: ``filename`` or ``folder`` names the subject. ``start``: ``filename`` says when the first row
    was (in the clock's time format). A file without header whose name is that of a signal holds its windows.
    """

    subject: SubjectFrom | None = None
    start: Literal["filename"] | None = None


def ingest_files(
    given: Sequence[str | Path] | str | Path,
    decision: Decision,
    options: Options | None = None,
    names: Names | None = None,
    *,
    now_us: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Path, Ingested]]:
    """Read files, folders and patterns one by one; memory holds one file at a time.

    Of several files one that is empty is given as such: its report counts no line and has a note.

    Args:
        given: files, folders (with all below them), patterns such as ``data/*.csv``.
        decision: as in ``ingest``.
        options: as in ``ingest``.
        names: what the names of files mean.
        now_us: as in ``ingest``.
        progress: called with (files done, files in all).

    Raises:
        EmptyFileError: no file holds a row.
        DataError: nothing to read, or as ``ingest``; the file is named.
    """
    files = expand([given] if isinstance(given, str | Path) else given)
    options, names = options or Options(), names or Names()
    if names.subject is not None:
        check_told_apart(files, names.subject)
    empty = 0
    for i, path in enumerate(files):
        try:
            found = _one(path, decision, options, names, now_us)
        except EmptyFileError:
            empty += 1
            if len(files) == 1:
                raise
            if empty == len(files):
                raise all_empty(files) from None
            found = nothing(path.name)
        yield path, found
        if progress is not None:
            progress(i + 1, len(files))


def _one(path: Path, decision: Decision, options: Options, names: Names, now_us: int | None) -> Ingested:
    raw = read_rows(path, encoding=options.encoding)
    whose = None
    if names.subject == "names":
        raw = by_machine(raw, name_column=options.name_column, value_column=options.value_column)
        options = replace(options, subject=None, subject_column=SUBJECT)
    elif names.subject is not None:
        whose = subject_of(path, names.subject)
        options = replace(options, subject=whose, subject_column=None)
    if names.start is not None:
        options = _started(path, options)
    if raw.headless and not options.only and not options.columns:
        name = {folded(name): name for name in decision.signals}.get(folded(stem(path)))
        options = replace(options, only=(name,)) if name is not None else options
    try:
        found = ingest(raw, decision, options, now_us=now_us)
        return replace(found, reading=replace(found.reading, whose=whose or ""))
    except DataError as error:
        if path.name in error.what:
            raise
        raise DataError(
            f"{path.name}: {error.what}", expected=error.expected, found=error.found, do=error.do
        ) from error


def _started(path: Path, options: Options) -> Options:
    """Options with the start that a file's name says."""
    found = parse_instants(pd.Series([stem(path)], dtype=object), options.clock)
    if not bool(found.good[0]):
        raise DataError(
            f"{path.name}: its name is no time", found=str(found.reason[0]), do="Give a time format."
        )
    start = pd.Timestamp(int(found.at_us[0]), unit="us", tz="UTC").isoformat()
    return replace(options, start=start, clock=replace(options.clock, time_format=None))
