"""``aiotkit ingest``: read telemetry; check units, rates and time zones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from aiotkit.lab.ingest import Ingested
    from aiotkit.lab.layout import Options

_HELP = """Read telemetry from CSV or Parquet: wide, long, or a row a window. Nothing is dropped silently.

What cannot be believed (unreadable or doubled times, hours that occur twice or never, empty, non-numeric,
infinite or impossible values, duplicates, wrong rates) is quarantined with its row number and reason.
Exit code 1 when no value of some signal could be kept.

\b
Examples:
  aiotkit ingest history.csv --propose                       what the columns probably mean
  aiotkit ingest history.csv --decision pump.yaml --subject pump-3 --zone Europe/Berlin
  aiotkit ingest history.csv --decision pump.yaml --subject-column serial --unit vib=g --column vib=VIB_X
  aiotkit ingest vib.txt --decision pump.yaml --only vib --subject p3 --start 2026-01-01T00:00Z --every-s 60
  aiotkit ingest history.csv --decision pump.yaml --subject pump-3 --zone UTC --lake lake
"""


def command(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet file.")],
    decision: Annotated[Path | None, typer.Option(help="Decision file: names, units, rates.")] = None,
    propose: Annotated[bool, typer.Option("--propose", help="Only say what columns probably mean.")] = False,
    lake: Annotated[
        str | None, typer.Option(help="Append to this lake; without it nothing is stored.")
    ] = None,
    shape: Annotated[
        Literal["wide", "long", "window"] | None, typer.Option(help="Found by itself if not given.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="Column of times.")] = None,
    zone: Annotated[str | None, typer.Option(help="Zone of times without offset; never guessed.")] = None,
    ambiguous: Annotated[
        Literal["quarantine", "infer-order", "first", "second"],
        typer.Option(help="What becomes of times in an hour that occurs twice."),
    ] = "quarantine",
    time_format: Annotated[
        str | None, typer.Option(help="strptime pattern of times not in ISO 8601.")
    ] = None,
    epoch: Annotated[
        Literal["s", "ms", "us", "ns"] | None, typer.Option(help="Unit of times in numbers.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="The one subject of all rows.")] = None,
    subject_column: Annotated[str | None, typer.Option(help="Column that names the subject.")] = None,
    name_column: Annotated[str | None, typer.Option(help="Long data: column of names.")] = None,
    value_column: Annotated[str | None, typer.Option(help="Long data: column of values.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="NAME=COLUMN (or name in long data).")] = None,
    unit: Annotated[list[str] | None, typer.Option(help="NAME=UNIT in the file.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Read only this name (repeat).")] = None,
    start: Annotated[str | None, typer.Option(help="Rows without time: when the first began.")] = None,
    every_s: Annotated[float | None, typer.Option(help="Rows without time: seconds between them.")] = None,
    decimal: Annotated[str, typer.Option(help="Decimal sign.")] = ".",
    rate_tolerance: Annotated[float, typer.Option(help="Allowed relative difference of the rate.")] = 0.05,
    device: Annotated[str | None, typer.Option(help="Device that measured it, if one did.")] = None,
    quarantine: Annotated[Path | None, typer.Option(help="Write quarantined rows to this CSV.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")] = False,
) -> None:
    """Read telemetry."""
    from aiotkit.cli.output import say
    from aiotkit.core.errors import DataError
    from aiotkit.lab.decision_file import read_decision
    from aiotkit.lab.ingest import ingest
    from aiotkit.lab.instants import Clock, moment_us
    from aiotkit.lab.layout import Options

    if propose:
        from aiotkit.lab.propose import propose as look

        found = look(file)
        say(found.to_json(), str(found), as_json)
        return
    if decision is None:
        raise DataError(
            "which decision is the telemetry for?", do="Give --decision FILE, or look with --propose."
        )
    options = Options(
        shape=shape, time=time, subject=subject, subject_column=subject_column, name_column=name_column,
        value_column=value_column, columns=_pairs("--column", column), units=_pairs("--unit", unit),
        only=tuple(only or ()), start=start, every_s=every_s, decimal=decimal, rate_tolerance=rate_tolerance,
        clock=Clock(zone, ambiguous, time_format, epoch),
    )  # fmt: skip
    wanted = read_decision(decision)
    result = ingest(file, wanted, options, now_us=moment_us(None))
    data: dict[str, Any] = result.report.to_json()
    text = [str(result.report)]
    if quarantine is not None:
        result.quarantined.to_csv(quarantine, index=False)
        text.append(f"wrote {len(result.quarantined):,} quarantined rows to {quarantine}")
    if lake is not None:
        text.append(_store(result, lake, device))
        data |= {"lake": lake}
    say(data, "\n".join(text), as_json)
    if _something_empty(result, options, list(wanted.signals)):
        raise typer.Exit(1)


command.__doc__ = _HELP


def _store(result: Ingested, lake: str, device: str | None) -> str:
    import time

    from aiotkit.lake.lake import Lake

    version = result.to_lake(Lake.create(lake), ingested_us=time.time_ns() // 1000, device=device)
    return f"stored in {lake} (telemetry version {version})"


def _something_empty(result: Ingested, options: Options, signals: list[str]) -> bool:
    wanted = [n for n in (options.only or signals) if n in signals]
    return any(not result.report.kept_by_name.get(name) for name in wanted)


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    from aiotkit.core.errors import DataError

    pairs: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise DataError(f"{option} {text}", expected="NAME=VALUE")
        pairs[name] = value
    return pairs
