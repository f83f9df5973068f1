"""``aiotkit outcomes``: import what was observed, and turn it into labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Import outcomes; turn them into labels.")

_IMPORT = """Bring reports of states into the lake: CSV or Parquet with subject, state, at, source.

Also read where given: reported_at, reliability, kind (report or inspection), provenance, note. Rows with an
unknown subject, source or state, said before it was so, or doubled, are rejected with their reason. Exit code
1 when a row was rejected (one that is in the lake already does not count).

\b
Examples:
  aiotkit outcomes import work-orders.csv --lake lake --decision pump.yaml --zone Europe/Berlin
  aiotkit outcomes import inspections.parquet --lake lake --decision pump.yaml --rejected rejected.csv
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
    file: Annotated[Path, typer.Argument(help="CSV or Parquet file.")],
    lake: LakeOption,
    decision: DecisionOption,
    zone: Annotated[str | None, typer.Option(help="Zone of times without offset; never guessed.")] = None,
    ambiguous: Annotated[
        Literal["quarantine", "first", "second"],
        typer.Option(help="What becomes of times in an hour that occurs twice."),
    ] = "quarantine",
    time_format: Annotated[
        str | None, typer.Option(help="strptime pattern of times not in ISO 8601.")
    ] = None,
    rejected: Annotated[Path | None, typer.Option(help="Write rejected rows to this CSV.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring reports of states into the lake."""
    import time

    from aiotkit.cli.output import say
    from aiotkit.lab.decision_file import read_decision
    from aiotkit.lab.instants import Clock
    from aiotkit.lab.outcomes import ALREADY, import_outcomes
    from aiotkit.lake.lake import Lake

    wanted = read_decision(decision)
    clock = Clock(zone, ambiguous, time_format, hint=wanted.site.time_zone)
    found = import_outcomes(Lake.open(lake), file, wanted, imported_us=time.time_ns() // 1000, clock=clock)
    reasons = {str(k): int(v) for k, v in found.rejected["reason"].value_counts().items()}
    again = reasons.get(ALREADY, 0)
    lines = [
        f"{file}: {found.rows_in:,} rows, {len(found.accepted):,} accepted, {len(found.rejected):,} rejected"
    ]
    lines += [f"  {count:>8,}  {reason}" for reason, count in reasons.items()]
    lines += [f"  note: {note}" for note in found.notes]
    if rejected is not None:
        found.rejected.to_csv(rejected, index=False)
        lines.append(f"wrote {len(found.rejected):,} rejected rows to {rejected}")
    data = {
        "rows_in": found.rows_in,
        "accepted": len(found.accepted),
        "rejected": reasons,
        "notes": found.notes,
    }
    say(data, "\n".join(lines), as_json)
    if len(found.rejected) > again:
        raise typer.Exit(1)


@app.command(help=_STATUS)
def status(
    lake: LakeOption,
    decision: DecisionOption,
    as_of: Annotated[str | None, typer.Option(help="What was known then (ISO 8601 with offset).")] = None,
    write: Annotated[bool, typer.Option("--write", help="Append the labels to the lake.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say which decisions have a label."""
    from collections import Counter
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
