"""``aiotkit init``: a commented decision file to start from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from aiotkit.lab.template import Draft, SignalDraft

_HELP = """Write a decision file to start from: commented, valid, and filled in as far as you know.

On a terminal a few questions are asked unless --yes is given or the flags answer them. Nothing is asked
where no person listens. With --data the signals are taken from what a file seems to hold.

\b
Examples:
  aiotkit init pump-guard
  aiotkit init pump-guard --yes --subject pump --states healthy,worn --actions run,stop
  aiotkit init pump-guard --cost run.worn=500 --cost stop.healthy=80 --cost stop.worn=80 --cost run.healthy=0
  aiotkit init pump-guard --signal vib=mm/s@100:-50..50 --data history.csv
"""


def command(
    name: Annotated[str, typer.Argument(help="Id of the decision: small letters, digits, dashes.")],
    subject: Annotated[str | None, typer.Option(help="What is decided about.")] = None,
    question: Annotated[str | None, typer.Option(help="What is to be decided, as a question.")] = None,
    states: Annotated[str | None, typer.Option(help="States of the world, the uneventful one first.")] = None,
    actions: Annotated[str | None, typer.Option(help="Actions, the harmless one first.")] = None,
    cost: Annotated[list[str] | None, typer.Option(help="ACTION.STATE=MONEY of one episode.")] = None,
    signal: Annotated[list[str] | None, typer.Option(help="NAME=UNIT@RATE_HZ:LOW..HIGH.")] = None,
    data: Annotated[Path | None, typer.Option(help="Take signals from what this file seems to hold.")] = None,
    zone: Annotated[str, typer.Option(help="Time zone of the site.")] = "UTC",
    site: Annotated[str, typer.Option(help="Name of the site.")] = "hall-1",
    out: Annotated[Path | None, typer.Option(help="File to write; default NAME.yaml.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; take defaults.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document; asks nothing.")] = False,
) -> None:
    """Write a decision file to start from."""
    from aiotkit.cli.output import say
    from aiotkit.core.errors import DecisionFileError
    from aiotkit.lab.template import Draft, write_draft

    path = out or Path(f"{name}.yaml")
    if path.exists() and not force:
        raise DecisionFileError(f"{path} is there already", do="Choose another --out, or say --force.")
    given: dict[str, Any] = {"subject": subject, "question": question, "states": states, "actions": actions}
    if not yes and not as_json and sys.stdin.isatty():
        given = _ask(given, Draft(name))
    known: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    for key in ("states", "actions"):
        if key in known:
            known[key] = tuple(word.strip() for word in known[key].split(",") if word.strip())
    draft = Draft(name, site=site, zone=zone, **known, **_signals(signal or [], data))
    draft = _with_costs(draft, cost or [])
    text = write_draft(draft)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    words = f"wrote {path}\nnext: aiotkit decision check {path}\n      aiotkit decision explain {path}"
    say({"written": path, "id": name}, words, as_json)


command.__doc__ = _HELP


def _ask(given: dict[str, Any], default: Draft) -> dict[str, Any]:
    """Ask for what the flags left open."""
    words = {
        "subject": "What is decided about (one word)?",
        "question": "What is to be decided?",
        "states": "States of the world, the uneventful one first (comma between)?",
        "actions": "Actions, the harmless one first (comma between)?",
    }
    out = dict(given)
    for key, prompt in words.items():
        if out[key] is None:
            value = getattr(default, key)
            out[key] = typer.prompt(prompt, default=value if isinstance(value, str) else ",".join(value))
    return out


def _signals(given: list[str], data: Path | None) -> dict[str, Any]:
    signals: dict[str, SignalDraft] = dict(_signal(text) for text in given)
    found: dict[str, Any] = {}
    if data is not None:
        from aiotkit.core.errors import DataError
        from aiotkit.lab.propose import propose

        proposal = propose(data)
        if not proposal.signals and not signals:
            raise DataError(f"{data}: no column looks like a signal", do="Name them with --signal.")
        signals = {**proposal.signals, **signals}
        found = {"length_s": proposal.length_s, "every_s": proposal.length_s}
    return found | ({"signals": signals} if signals else {})


def _signal(text: str) -> tuple[str, SignalDraft]:
    import re

    from aiotkit.core.errors import DecisionFileError
    from aiotkit.lab.template import SignalDraft

    number = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
    match = re.fullmatch(rf"(\w+)=([^@]+?)(?:@({number}))?:({number})\.\.({number})", text)
    if match is None:
        raise DecisionFileError(
            f"--signal {text}", expected="NAME=UNIT@RATE_HZ:LOW..HIGH, such as vib=mm/s@100:-50..50"
        )
    name, unit, rate, low, high = match.groups()
    return name, SignalDraft(unit, float(rate) if rate else None, float(low), float(high))


def _with_costs(draft: Draft, given: list[str]) -> Draft:
    """The draft with its cost table; a table that is begun must be whole, and the file's check says so."""
    import re
    from dataclasses import replace

    from aiotkit.core.errors import DecisionFileError

    costs: dict[str, dict[str, float]] = {}
    for text in given:
        match = re.fullmatch(r"(\w+)\.(\w+)=([-+]?\d+(?:\.\d+)?)", text)
        if match is None:
            raise DecisionFileError(f"--cost {text}", expected="ACTION.STATE=MONEY, such as run.worn=500")
        costs.setdefault(match[1], {})[match[2]] = float(match[3])
    return replace(draft, costs=costs)
