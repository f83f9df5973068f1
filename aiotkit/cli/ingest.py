"""``aiotkit ingest``: read telemetry; check units, rates and time zones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aiotkit.cli.reading import (
    Decimal,
    Encoding,
    Epoch,
    NameColumn,
    Shape,
    SubjectColumn,
    SubjectFrom,
    Time,
    TimeFormat,
    UnitColumn,
    ValueColumn,
)

if TYPE_CHECKING:
    from aiotkit.lab.ingest import Ingested, IngestReport
    from aiotkit.lab.layout import Options
    from aiotkit.lab.proposal import Known

_HELP = """Read telemetry from CSV or Parquet: wide, long, or a row a window. Nothing is dropped silently.

Give one file, or several, a folder, or a pattern in quotes. What cannot be believed (unreadable or doubled
times, hours that occur twice or never, empty, non-numeric, infinite or impossible values, duplicates, wrong
rates) is quarantined with its row number and reason. Exit code 1 when no value of some signal could be kept.
The lake takes each value once: the same file again adds nothing (exit code 0). A file is refused (exit code
2) when the lake holds another value for one of its instants, or holds the file read with other options:
--replace then puts this reading in the place of the earlier one.

\b
Examples:
  aiotkit ingest history.csv --propose                       what the columns probably mean
  aiotkit ingest history.csv --propose --write pump.yaml     and a decision file to start from
  aiotkit ingest history.csv --decision pump.yaml --subject pump-3 --zone Europe/Berlin --lake lake
  aiotkit ingest history.csv --decision pump.yaml --subject-column serial --unit vib=g --column vib=VIB_X
  aiotkit ingest "data/*.csv" --decision pump.yaml --subject-from filename --zone UTC --lake lake
  aiotkit ingest vib.txt --decision pump.yaml --only vib --subject p3 --start 2026-01-01T00:00Z --every-s 60
"""


def command(
    file: Annotated[list[str], typer.Argument(help="CSV or Parquet files, folders, patterns in quotes.")],
    decision: Annotated[Path | None, typer.Option(help="Decision file: names, units, rates.")] = None,
    propose: Annotated[bool, typer.Option("--propose", help="Only say what columns probably mean.")] = False,
    write: Annotated[
        Path | None, typer.Option(help="With --propose: write a decision file to start from (see init).")
    ] = None,
    lake: Annotated[
        str | None, typer.Option(help="Append to this lake; without it nothing is stored.")
    ] = None,
    shape: Shape = None,
    time: Time = None,
    zone: Annotated[str | None, typer.Option(help="Zone of times without offset; never guessed.")] = None,
    ambiguous: Annotated[
        Literal["quarantine", "infer-order", "first", "second"],
        typer.Option(help="What becomes of times in an hour that occurs twice."),
    ] = "quarantine",
    time_format: TimeFormat = None,
    epoch: Epoch = None,
    subject: Annotated[str | None, typer.Option(help="The one subject of all rows.")] = None,
    subject_column: SubjectColumn = None,
    subject_from: SubjectFrom = None,
    name_column: NameColumn = None,
    value_column: ValueColumn = None,
    unit_column: UnitColumn = None,
    column: Annotated[list[str] | None, typer.Option(help="NAME=COLUMN (or name in long data).")] = None,
    unit: Annotated[list[str] | None, typer.Option(help="NAME=UNIT in the file.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Read only this name (repeat).")] = None,
    start: Annotated[str | None, typer.Option(help="Rows without time: when the first began.")] = None,
    start_from: Annotated[
        Literal["filename"] | None, typer.Option(help="Rows without time: the file's name says when.")
    ] = None,
    every_s: Annotated[float | None, typer.Option(help="Rows without time: seconds between them.")] = None,
    decimal: Decimal = None,
    encoding: Encoding = None,
    rate_tolerance: Annotated[float, typer.Option(help="Allowed relative difference of the rate.")] = 0.05,
    device: Annotated[str | None, typer.Option(help="Device that measured it, if one did.")] = None,
    clash: Annotated[
        Literal["refuse", "quarantine"],
        typer.Option(
            help="Where the lake holds another value for an instant: refuse the file, or keep the lake's."
        ),
    ] = "refuse",
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Put it in the place of what the lake holds of this file, read otherwise."
        ),
    ] = False,
    quarantine: Annotated[Path | None, typer.Option(help="Write quarantined rows to this CSV.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")] = False,
) -> None:
    """Read telemetry."""
    from aiotkit.core.errors import DataError
    from aiotkit.lab.bring import Names, ingest_files
    from aiotkit.lab.decision_file import read_decision
    from aiotkit.lab.instants import Clock, moment_us
    from aiotkit.lab.layout import Options
    from aiotkit.lab.proposal import Known

    if propose:
        known = Known(
            encoding, zone, subject, subject_column, subject_from, shape, time, time_format, epoch, ambiguous,
            name_column, value_column, unit_column, decimal, start, start_from, every_s,
            pairs("--column", column), pairs("--unit", unit), tuple(only or ()),
        )  # fmt: skip
        _propose(file, write, known, as_json)
        return
    if decision is None:
        raise DataError(
            "which decision is the telemetry for?", do="Give --decision FILE, or look with --propose."
        )
    options = Options(
        shape=shape, time=time, subject=subject, subject_column=subject_column, name_column=name_column,
        value_column=value_column, unit_column=unit_column, columns=pairs("--column", column),
        units=pairs("--unit", unit), only=tuple(only or ()), start=start, every_s=every_s,
        decimal=decimal or ".", encoding=encoding, rate_tolerance=rate_tolerance,
        clock=Clock(zone, ambiguous, time_format, epoch),
    )  # fmt: skip
    wanted = read_decision(decision)
    read = ingest_files(file, wanted, options, Names(subject_from, start_from), now_us=moment_us(None))
    _take(read, options, list(wanted.signals), _Places(lake, device, quarantine, clash, replace), as_json)


command.__doc__ = _HELP


def _propose(files: list[str], write: Path | None, known: Known, as_json: bool) -> None:
    from aiotkit.cli.output import say
    from aiotkit.core.errors import DecisionFileError
    from aiotkit.lab.propose import propose
    from aiotkit.lab.start import draft_from, two_costs
    from aiotkit.lab.template import write_draft

    found = propose(files, known)
    data, text = found.to_json(), str(found)
    if write is not None:
        if write.exists():
            raise DecisionFileError(f"{write} is there already", do="Choose another name.")
        name = re.sub(r"[^a-z0-9-]+", "-", write.stem.lower()).strip("-") or "decision"
        draft = two_costs(draft_from(found, name if name[0].isalpha() else f"d-{name}"), None, None)
        write.write_text(write_draft(draft), encoding="utf-8")
        text += f"\n\nwrote {write}; its costs are MADE UP: edit them before you believe any money"
        data |= {"written": write}
    say(data, text, as_json)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where what is read goes: a lake, from which device, and a file of quarantined rows.

    ``clash``: what becomes of values that contradict the lake. ``replace``: what it holds of a file goes.
    """

    lake: str | None
    device: str | None
    quarantine: Path | None
    clash: Literal["refuse", "quarantine"]
    replace: bool = False


def _take(
    read: Iterator[tuple[Path, Ingested]],
    options: Options,
    signals: list[str],
    places: _Places,
    as_json: bool,
) -> None:
    """Store file after file, and say what became of every row."""
    import pandas as pd

    from aiotkit.cli.output import say
    from aiotkit.lab.files import named

    reports, text, bad, empty = [], [], [], []
    store = None if places.lake is None else _Store(places.lake, places)
    kept: dict[str, int] = {}
    for path, result in read:
        reports.append(result.report)
        text.append(str(result.report))
        for name, count in result.report.kept_by_name.items():
            kept[name] = kept.get(name, 0) + count
        if not result.report.file_rows:
            empty.append(path)
            continue
        if places.quarantine is not None:
            bad.append(result.quarantined.assign(file=str(path)))
        if store is not None:
            store.add(result)
    text += [f"{len(empty)} of {len(reports)} files are empty: {named(empty)}"] if empty else []
    text += [] if store is None else store.words(len(reports))
    if places.quarantine is not None:
        rows = pd.concat(bad) if len(bad) > 1 else bad[0].drop(columns="file")
        rows.to_csv(places.quarantine, index=False)
        text.append(f"wrote {len(rows):,} quarantined rows to {places.quarantine}")
    data: dict[str, Any] = reports[0].to_json() if len(reports) == 1 else _summed(reports, text)
    data |= {"empty": [str(path) for path in empty]} if len(reports) > 1 else {}
    data |= {} if store is None else store.data()
    say(data, "\n".join(text), as_json)
    if any(not kept.get(name) for name in (options.only or signals) if name in signals):
        raise typer.Exit(1)


def _summed(reports: list[IngestReport], text: list[str]) -> dict[str, Any]:
    """All files together; a line of words is added, and of many files only the first and last stay."""
    sums = {
        n: sum(getattr(r, n) for r in reports)
        for n in ("file_rows", "rows_in", "rows_kept", "rows_quarantined")
    }
    ahead = len(text) - len(reports)
    if len(reports) > 6:
        text[3 : len(reports) - 3] = [f"… and {len(reports) - 6} files more (--json for all)"]
    place = len(text) - ahead
    text.insert(place, f"{len(reports)} files: {sums['rows_in']:,} values, {sums['rows_kept']:,} kept, "
                       f"{sums['rows_quarantined']:,} quarantined")  # fmt: skip
    return sums | {"files": [r.to_json() for r in reports]}


class _Store:
    """A lake that takes each value once."""

    def __init__(self, uri: str, places: _Places) -> None:
        from aiotkit.lake.lake import Lake

        self._uri, self._lake, self._places = uri, Lake.create(uri), places
        self.version = self._lake.table("telemetry").version()
        self.again = self.new = self.held = self.contradicted = 0

    def add(self, result: Ingested) -> None:
        """Append what is not there yet."""
        import time

        from aiotkit.core.errors import AlreadyStoredError

        now_us, places = time.time_ns() // 1000, self._places
        try:
            done = result.to_lake(
                self._lake, ingested_us=now_us, device=places.device, clash=places.clash,
                replace=places.replace,
            )  # fmt: skip
        except AlreadyStoredError:
            self.again += 1
            return
        self.version, self.new = done.version, self.new + done.new
        self.held, self.contradicted = self.held + done.held, self.contradicted + done.contradicted

    def words(self, files: int) -> list[str]:
        """What was stored, and what not."""
        version = f"{self._uri} (telemetry version {self.version})"
        lines = [f"stored {self.new:,} values in {version}" if self.new else f"nothing new for {version}"]
        before = (
            f"replaced what the lake held of {'this file' if files == 1 else 'these files'}; earlier versions"
        )
        lines += [f"{before} of the table keep it"] if self._places.replace else []
        lines += [f"{self.again} of {files} files were in the lake already"] if self.again else []
        lines += [f"{self.held:,} values were in the lake already"] if self.held else []
        lines += (
            [f"{self.contradicted:,} values contradict the lake: quarantined there"]
            if self.contradicted
            else []
        )
        return lines

    def data(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "lake": self._uri, "stored": self.new, "files_stored_before": self.again,
            "values_stored_before": self.held, "contradicted": self.contradicted,
        }  # fmt: skip


def pairs(option: str, given: list[str] | None, form: str = "NAME=VALUE") -> dict[str, str]:
    """Options of the form NAME=VALUE as a mapping; refuses what has another form."""
    from aiotkit.core.errors import DataError

    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise DataError(f"{option} {text}", expected=form)
        found[name] = value
    return found
