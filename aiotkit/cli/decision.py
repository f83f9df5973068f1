"""``aiotkit decision``: check, explain and place a decision file; export its schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from aiotkit.core.decision import Decision
    from aiotkit.core.placement import Link, Placement, Target

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Check, explain and place a decision file."
)

_CHECK = """Check a decision file: every problem in words, with its line. Exit code 2 when there is one.

\b
Example:
  aiotkit decision check press-guard.yaml
"""
_EXPLAIN = """Say in words what a decision file means: costs, thresholds, gates, what leaves, labels.

\b
Examples:
  aiotkit decision explain press-guard.yaml
  aiotkit decision explain press-guard.yaml --html press-guard.html    with figures
"""
_SCHEMA = """Print the JSON Schema of decision files (for editors and other programs).

\b
Example:
  aiotkit decision schema > decision.schema.json
"""
_PLACE = """Say where the decision can run, with the numbers that say so. Exit code 1 when nowhere.

TARGET is one of the examples (gateway-sd-card, industrial-pc, gateway-site-cloud) or a YAML file with your
own figures (format: 1, target, link); LINK is one of the examples (plant-ethernet, lte, satellite, none).
With --measure, the disk of FOLDER and the time of one decision are measured on this computer and taken as
the device's; that builds the graph first and takes some seconds.

\b
Examples:
  aiotkit decision place press-guard.yaml
  aiotkit decision place press-guard.yaml --target industrial-pc --link lte
  aiotkit decision place press-guard.yaml --target hall.yaml --measure /var/lib/aiotkit
"""

FileArgument = Annotated[Path, typer.Argument(help="Decision file (YAML).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")]


@app.command(help=_CHECK)
def check(file: FileArgument, as_json: JsonOption = False) -> None:
    """Check a decision file."""
    from aiotkit.cli.output import say
    from aiotkit.lab.decision_file import read_decision
    from aiotkit.lab.explain import advice

    decision = read_decision(file)
    notes = list(advice(decision))
    data = {
        "file": file,
        "id": decision.id,
        "revision": decision.revision,
        "digest": decision.digest,
        "advice": notes,
    }
    lines = [f"{file}: good. {decision.id}, revision {decision.revision}, {decision.digest[:19]}…"]
    say(data, "\n".join([*lines, *(f"  worth a look: {note}" for note in notes)]), as_json)


@app.command(help=_EXPLAIN)
def explain(
    file: FileArgument,
    html: Annotated[Path | None, typer.Option(help="Write a page with figures to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say in words what a decision file means."""
    from aiotkit.cli.output import say
    from aiotkit.lab import explain as words
    from aiotkit.lab.decision_file import read_decision

    decision = read_decision(file)
    data: dict[str, Any] = {
        "id": decision.id,
        "digest": decision.digest,
        "explained": words.explain(decision),
    }
    if html is None:
        say(data, words.explain_text(decision), as_json)
        return
    from aiotkit.lab.decision_page import decision_page

    written = decision_page(decision).write(html)
    say(data | {"written": written}, f"wrote {written}", as_json)


@app.command(help=_SCHEMA)
def schema(as_json: JsonOption = False) -> None:
    """Print the JSON Schema of decision files."""
    from aiotkit.cli.output import as_document, say
    from aiotkit.core.decision import decision_schema

    say(decision_schema(), as_document(decision_schema()), as_json)


@app.command(help=_PLACE)
def place(
    file: FileArgument,
    target: Annotated[str, typer.Option(help="Example or YAML file.")] = "gateway-site-cloud",
    link: Annotated[str | None, typer.Option(help="Example, or none; default plant-ethernet.")] = None,
    measure: Annotated[Path | None, typer.Option(help="Measure here, on the disk of this folder.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with figures to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say where the decision can run."""
    from aiotkit.cli.output import say
    from aiotkit.core.placement import place as judge
    from aiotkit.lab.decision_file import read_decision

    decision = read_decision(file)
    computers, ways, note = _surroundings(target, link)
    timings: list[Any] = []
    if measure is not None:
        computers, timings = _measured(computers, decision, measure)
        note += "; the device's decide and fsync figures were measured here"
    found = judge(decision, computers, ways)
    words = _words(found, decision, note)
    if html is not None:
        from aiotkit.lab.decision_page import decision_page

        words += f"\nwrote {decision_page(decision, computers, ways).write(html)}"
    say(found.to_json() | {"note": note, "measured": timings}, words, as_json)
    if not found.possible:
        raise typer.Exit(1)


def _surroundings(target: str, link: str | None) -> tuple[Target, Link | None, str]:
    from aiotkit.core import placement
    from aiotkit.core.errors import PlacementError, did_you_mean
    from aiotkit.lab.decision_file import read_yaml

    def example(kind: str, name: str, known: Mapping[str, Any]) -> Any:
        if name not in known:
            hint = did_you_mean(name, known) or f"Examples: {', '.join(known)}."
            raise PlacementError(f"{kind} '{name}' is no example and no file", do=hint)
        return known[name]

    ways: Link | None
    if Path(target).is_file():
        given = placement.parse_surroundings(read_yaml(target), target)
        computers, ways, note = given.target, given.link, f"figures from {target}"
    else:
        computers = example("target", target, placement.EXAMPLE_TARGETS)
        ways = placement.EXAMPLE_LINKS["plant-ethernet"]
        note = f"example figures: target {target}, link {link or ways.name}; give your own with --target FILE"
    if link is not None:
        ways = None if link == "none" else example("link", link, placement.EXAMPLE_LINKS)
    return computers, ways, note


def _measured(target: Target, decision: Decision, folder: Path) -> tuple[Target, list[Any]]:
    from aiotkit.lab.measure import measure_decide, measure_fsync, measured
    from aiotkit.release.bundle import build_bundle

    fsync = measure_fsync(folder)
    decide = measure_decide(build_bundle(decision, release_counter=1).files)
    return measured(target, fsync=fsync, decide=decide), [fsync.to_json(), decide.to_json()]


def _words(found: Placement, decision: Decision, note: str) -> str:
    lines = [found.verdict, f"({note})"]
    for candidate in found.candidates:
        lines.append(f"\n{candidate.place}: {'possible' if candidate.possible else 'no'}")
        for check in candidate.checks:
            lines.append(f"  {'yes' if check.holds else 'NO '}  {check.name}: {check.reason}")
            if not check.holds:
                lines.append(f"       would need: {check.change}")
    per_day = ", ".join(
        f"{u} {found.volumes.under(u) / 1e6:.3g}" for u in ("none", "features", "selected", "raw")
    )
    lines.append(f"\nleaving a day, in MB, by upload choice: {per_day} (declared: {decision.needs.upload})")
    return "\n".join(lines)
