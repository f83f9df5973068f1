"""``aiotkit outcomes``: import what was observed, and turn it into labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from aiotkit.core.decision import Decision
    from aiotkit.lab.outcome_told import Told

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Import outcomes; turn them into labels.")

_IMPORT = """Bring what was observed into the lake, in the form you have it. CSV, Parquet or JSON.

\b
Forms (found by themselves where they can be):
  reports   a row a report: subject, state, at; and source, reported_at, reliability, kind, provenance, note
  column    a row a moment with a label column: in the telemetry file itself, or beside it
  failures  a row an event: which subject, when; --state says what it means
  ends      records that run to failure: the last row of each subject; --state says what it means
  windows   a row a span of time, from when to when; or JSON {name: [[from, to], ...]}

Rows with an unknown subject, source or state, said before it was so, or doubled, are rejected with their
reason. A subject is known when telemetry of it is in the lake, or a device watched it. Exit code 1 when a row
was rejected (one that is in the lake already does not count). A file that the lake holds, read with other
options, is refused (exit code 2): --replace puts this reading in the place of the earlier one.

\b
Examples:
  aiotkit outcomes import work-orders.csv --lake lake --decision pump.yaml --zone Europe/Berlin
  aiotkit outcomes import history.csv --lake lake --decision pump.yaml --label failure --zone UTC
  aiotkit outcomes import labels.csv --lake lake --decision pump.yaml --label class --map 3=worn --map 0=ok
  aiotkit outcomes import broke.csv --lake lake --decision pump.yaml --form failures --state broken --zone UTC
  aiotkit outcomes import engines.csv --lake lake --decision engine.yaml --form ends --state worn
  aiotkit outcomes import spans.json --lake lake --decision pump.yaml --state leak --entry pump-3 --zone UTC
"""
_STATUS = """Say which decisions have a label, and which state: mature, verified, censored, pending, none.

\b
Examples:
  aiotkit outcomes status --lake lake --decision pump.yaml
  aiotkit outcomes status --lake lake --decision pump.yaml --as-of 2026-03-01T00:00:00Z --write
"""
LakeOption = Annotated[str, typer.Option("--lake", help="Folder or object-store URI of the lake.")]
DecisionOption = Annotated[Path, typer.Option("--decision", help="Decision file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")]


@app.command("import", help=_IMPORT)
def import_(
    file: Annotated[list[str], typer.Argument(help="CSV, Parquet or JSON; several, folders, patterns.")],
    lake: LakeOption,
    decision: DecisionOption,
    form: Annotated[
        Literal["reports", "column", "failures", "ends", "windows"] | None,
        typer.Option(help="Found by itself if not given."),
    ] = None,
    subject: Annotated[str | None, typer.Option(help="The one subject of all rows.")] = None,
    subject_column: Annotated[str | None, typer.Option(help="Column that names the subject.")] = None,
    subject_from: Annotated[
        Literal["filename", "folder", "names"] | None,
        typer.Option(help="What names the subject: the file, its folder, or columns."),
    ] = None,
    time: Annotated[str | None, typer.Option(help="Column of times (windows: of starts).")] = None,
    end: Annotated[str | None, typer.Option(help="Windows: column of ends.")] = None,
    label: Annotated[str | None, typer.Option(help="Column that says how it was.")] = None,
    map_: Annotated[list[str] | None, typer.Option("--map", help="VALUE=STATE (repeat).")] = None,
    state: Annotated[str | None, typer.Option(help="Failures, ends, windows: what each row means.")] = None,
    source: Annotated[str | None, typer.Option(help="Who says it; default: the only source.")] = None,
    entry: Annotated[str | None, typer.Option(help="JSON with several names: which one.")] = None,
    start: Annotated[str | None, typer.Option(help="Rows without time: when the first began.")] = None,
    every_s: Annotated[float | None, typer.Option(help="Rows without time: seconds between them.")] = None,
    covers_s: Annotated[
        float | None, typer.Option(help="How long after its time a labelled row still speaks (s).")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="Zone of times without offset; never guessed.")] = None,
    ambiguous: Annotated[
        Literal["quarantine", "infer-order", "first", "second"],
        typer.Option(help="What becomes of times in an hour that occurs twice."),
    ] = "quarantine",
    time_format: Annotated[
        str | None, typer.Option(help="strptime pattern of times not in ISO 8601.")
    ] = None,
    epoch: Annotated[
        Literal["s", "ms", "us", "ns", "excel"] | None,
        typer.Option(help="Unit of times in numbers; excel: its days."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of text that is not UTF-8, such as cp1252.")] = None,
    replacing: Annotated[
        bool,
        typer.Option(
            "--replace", help="Put them in the place of what the lake holds of this file, read otherwise."
        ),
    ] = False,
    rejected: Annotated[Path | None, typer.Option(help="Write rejected rows to this CSV.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring what was observed into the lake."""
    from aiotkit.cli.ingest import pairs
    from aiotkit.lab.decision_file import read_decision
    from aiotkit.lab.instants import Clock
    from aiotkit.lab.outcome_told import Told

    wanted = read_decision(decision)
    told = Told(
        form=form, subject=subject, subject_column=subject_column, time=time, end=end, label=label,
        states=pairs("--map", map_, "VALUE=STATE"), state=state, source=source, entry=entry, start=start,
        every_s=every_s, covers_s=covers_s, encoding=encoding,
        clock=Clock(zone, ambiguous, time_format, epoch, hint=wanted.site.time_zone),
    )  # fmt: skip
    _bring(lake, file, wanted, told, _Saying(subject_from, rejected, as_json, replacing))


@dataclass(frozen=True, slots=True)
class _Saying:
    """How files name subjects, where what became of rows is told, and what becomes of earlier readings."""

    subject_from: Literal["filename", "folder", "names"] | None
    rejected: Path | None
    as_json: bool
    replacing: bool


def _bring(lake: str, given: list[str], decision: Decision, told: Told, saying: _Saying) -> None:
    import time
    from dataclasses import replace

    import pandas as pd

    from aiotkit.cli.output import say
    from aiotkit.core.errors import EmptyFileError
    from aiotkit.lab.files import all_empty, check_told_apart, expand, subject_of
    from aiotkit.lab.outcome_files import read_told
    from aiotkit.lab.outcome_reports import ALREADY
    from aiotkit.lab.outcomes import import_outcomes
    from aiotkit.lab.readers import HEADER_AGAIN, Raw
    from aiotkit.lab.tags import SUBJECT, by_machine
    from aiotkit.lake.lake import Lake

    place, said, lines, bad, refused = Lake.open(lake), [], [], [], 0
    files = expand(given)
    if saying.subject_from is not None:
        check_told_apart(files, saying.subject_from)
    for path in files:
        mine = told
        source: Path | Raw = path
        if saying.subject_from == "names":
            mine, source = replace(told, subject_column=SUBJECT), by_machine(read_told(path, told))
        elif saying.subject_from is not None:
            whose = subject_of(path, saying.subject_from)
            mine = replace(told, subject=whose, whose=whose)
        try:
            found = import_outcomes(
                place, source, decision, imported_us=time.time_ns() // 1000, told=mine,
                replacing=saying.replacing,
            )  # fmt: skip
        except EmptyFileError:
            if len(files) == 1:
                raise
            lines.append(f"{path}: the file is empty, nothing was read")
            continue
        reasons = {str(k): int(v) for k, v in found.rejected["reason"].value_counts().items()}
        refused += len(found.rejected) - reasons.get(ALREADY, 0) - reasons.get(HEADER_AGAIN, 0)
        counts = f"{len(found.accepted):,} accepted, {len(found.rejected):,} rejected"
        lines += [f"{path}: {found.rows_in:,} rows, {counts}"]
        lines += [f"  {count:>8,}  {reason}" for reason, count in list(reasons.items())[:12]]
        lines += (
            [f"            and {len(reasons) - 12} more reasons (--rejected)"] if len(reasons) > 12 else []
        )
        states = {str(k): int(v) for k, v in found.accepted["state"].value_counts().items()}
        lines += [f"  {count:>8,}  reports of '{state}'" for state, count in states.items()]
        lines += [f"  note: {note}" for note in found.notes]
        lines += ["  replaced what the lake held of it; earlier versions keep it"] * saying.replacing
        bad.append(found.rejected.assign(file=str(path)))
        said.append(
            {"file": path, "form": found.form, "rows_in": found.rows_in, "accepted": len(found.accepted),
             "states": states, "rejected": reasons, "notes": found.notes}
        )  # fmt: skip
    if not said:
        raise all_empty(files)
    lines += [_of_all(said)] if len(said) > 1 else []
    if saying.rejected is not None:
        rows = pd.concat(bad) if len(bad) > 1 else bad[0].drop(columns="file")
        rows.to_csv(saying.rejected, index=False)
        lines.append(f"wrote {len(rows):,} rejected rows to {saying.rejected}")
    say(said[0] if len(said) == 1 else {"files": said}, "\n".join(lines), saying.as_json)
    if refused:
        raise typer.Exit(1)


def _of_all(said: Sequence[Mapping[str, Any]]) -> str:
    """What became of several files together."""
    states: Counter[str] = Counter()
    for one in said:
        states.update(one["states"])
    rows, taken = (sum(one[key] for one in said) for key in ("rows_in", "accepted"))
    counts = ", ".join(f"{n:,} of '{state}'" for state, n in states.items())
    return f"{len(said):,} files: {rows:,} rows, {taken:,} accepted" + (f": {counts}" if counts else "")


@app.command(help=_STATUS)
def status(
    lake: LakeOption,
    decision: DecisionOption,
    as_of: Annotated[str | None, typer.Option(help="What was known then (ISO 8601 with offset).")] = None,
    write: Annotated[bool, typer.Option("--write", help="Append the labels to the lake.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say which decisions have a label."""
    from datetime import UTC, datetime

    from aiotkit.cli.output import say
    from aiotkit.lab.decision_file import read_decision
    from aiotkit.lab.instants import moment_us
    from aiotkit.lab.outcomes import resolve
    from aiotkit.lake.lake import Lake

    wanted = read_decision(decision)
    known_us = moment_us(as_of)
    labels = resolve(Lake.open(lake), wanted, known_us, write=write)
    states = labels["state"].astype(object).where(labels["state"].notna(), "(no state)")
    counts = Counter(zip(labels["status"].astype(str), states.astype(str), strict=True))
    data = [{"status": a, "state": b, "decisions": n} for (a, b), n in sorted(counts.items())]
    stamp = datetime.fromtimestamp(known_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        f"{wanted.id}: {len(labels):,} decisions, as of {stamp}" + ("" if as_of else " (now; see --as-of)")
    ]
    lines += [f"  {row['decisions']:>8,}  {row['status']:<10} {row['state']}" for row in data]
    lines += ["written to the lake's labels"] if write and len(labels) else []
    say(
        {
            "decision": wanted.id,
            "as_of_us": known_us,
            "decisions": len(labels),
            "counts": data,
            "written": write,
        },
        "\n".join(lines),
        as_json,
    )
