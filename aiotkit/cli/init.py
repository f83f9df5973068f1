"""``aiotkit init``: a commented decision file to start from."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from aiotkit.lab.proposal import Known, Proposal
    from aiotkit.lab.template import Draft, SignalDraft

_HELP = """Write a decision file to start from: commented, valid, and filled in as far as you know.

On a terminal a few questions are asked unless --yes is given or the flags answer them. Nothing is asked
where no person listens. With --from signals, window and states are taken from what a file (a folder, or a
pattern in quotes, where there are several) seems to hold; read them before you believe them. How that file is
read (--shape, --time, --decimal, --name-column, …) is said as for ingest; --subject is what is decided about.

\b
Examples:
  aiotkit init pump-guard
  aiotkit init pump-guard --from history.csv --cost-act 80 --cost-miss 500
  aiotkit init pump-guard --yes --subject pump --states healthy,worn --actions run,stop
  aiotkit init pump-guard --cost run.worn=500 --cost stop.healthy=80 --cost stop.worn=80 --cost run.healthy=0
  aiotkit init pump-guard --from "data/*.csv" --subject-from filename --zone Europe/Berlin
  aiotkit init pump-guard --signal vib=mm/s@100:-50..50 --from history.csv
"""


def command(
    name: Annotated[str, typer.Argument(help="Id of the decision: small letters, digits, dashes.")],
    subject: Annotated[str | None, typer.Option(help="What is decided about.")] = None,
    question: Annotated[str | None, typer.Option(help="What is to be decided, as a question.")] = None,
    states: Annotated[str | None, typer.Option(help="States of the world, the uneventful one first.")] = None,
    actions: Annotated[str | None, typer.Option(help="Actions, the harmless one first.")] = None,
    cost_act: Annotated[float | None, typer.Option(help="What acting costs, in vain or not.")] = None,
    cost_miss: Annotated[float | None, typer.Option(help="What it costs not to act when one should.")] = None,
    cost: Annotated[list[str] | None, typer.Option(help="ACTION.STATE=MONEY of one episode.")] = None,
    horizon_s: Annotated[
        float | None, typer.Option(help="Within how long after a decision its state shows (s).")
    ] = None,
    length_s: Annotated[float | None, typer.Option(help="What a decision looks at (s).")] = None,
    every_s: Annotated[float | None, typer.Option(help="How often one is due (s).")] = None,
    signal: Annotated[list[str] | None, typer.Option(help="NAME=UNIT@RATE_HZ:LOW..HIGH.")] = None,
    data: Annotated[
        str | None, typer.Option("--from", "--data", help="Take signals from what this file seems to hold.")
    ] = None,
    encoding: Encoding = None,
    subject_column: SubjectColumn = None,
    subject_from: SubjectFrom = None,
    shape: Shape = None,
    time: Time = None,
    time_format: TimeFormat = None,
    epoch: Epoch = None,
    name_column: NameColumn = None,
    value_column: ValueColumn = None,
    unit_column: UnitColumn = None,
    decimal: Decimal = None,
    label: Annotated[str | None, typer.Option(help="Column that says how it was, an outcome.")] = None,
    zone: Annotated[
        str | None, typer.Option(help="Time zone of the site, and of times without offset; default UTC.")
    ] = None,
    site: Annotated[str, typer.Option(help="Name of the site.")] = "hall-1",
    out: Annotated[Path | None, typer.Option(help="File to write; default NAME.yaml.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; take defaults.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document; asks nothing.")] = False,
) -> None:
    """Write a decision file to start from."""
    from dataclasses import replace

    from aiotkit.core.errors import DecisionFileError
    from aiotkit.lab.instants import check_zone
    from aiotkit.lab.proposal import Known
    from aiotkit.lab.start import check_costs, elsewhere

    path = out or Path(f"{name}.yaml")
    if path.exists() and not force:
        raise DecisionFileError(f"{path} is there already", do="Choose another --out, or say --force.")
    check_zone(zone or "UTC")
    check_costs(cost_act, cost_miss)
    given: dict[str, Any] = {
        "subject": subject, "question": question, "states": _list(states), "actions": _list(actions),
        "cost_act": cost_act, "cost_miss": cost_miss, "horizon_s": horizon_s,
    }  # fmt: skip
    known = Known(
        encoding=encoding, zone=zone, subject_column=subject_column, subject_from=subject_from, shape=shape,
        time=time, time_format=time_format, epoch=epoch, name_column=name_column, value_column=value_column,
        unit_column=unit_column, decimal=decimal, label=label,
    )  # fmt: skip
    proposal = _look(data, known)
    if proposal is not None and elsewhere(proposal, _list(states)):
        proposal = replace(proposal, labels=())
    signals = dict(_signal(text) for text in signal or ())
    start = _draft(name, proposal, signals, {})
    if not yes and not as_json and sys.stdin.isatty():
        given = _ask(given, start, costs=not cost)
    costs = {key: given.pop(key) for key in ("cost_act", "cost_miss")}
    answers = given | {
        "site": site,
        "zone": zone or "UTC",
        "length_s": length_s,
        "every_s": every_s or length_s,
    }
    draft = _draft(name, proposal, signals, {k: v for k, v in answers.items() if v is not None})
    draft = _with_costs(draft, cost or [], costs, made_up=proposal is not None)
    _write(path, draft, proposal, as_json)


command.__doc__ = _HELP


def _look(data: str | None, known: Known) -> Proposal | None:
    if data is None:
        return None
    from aiotkit.lab.propose import propose

    return propose(data, known)


def _draft(
    name: str, proposal: Proposal | None, signals: dict[str, SignalDraft], answers: dict[str, Any]
) -> Draft:
    from aiotkit.lab.start import draft_from
    from aiotkit.lab.template import Draft

    if proposal is not None:
        known = {**proposal.signals, **signals}
        return draft_from(proposal, name, **answers, signals=known)
    given = answers | ({"signals": signals} if signals else {})
    if "horizon_s" in given:
        given["maturity_s"] = max(given["horizon_s"], Draft(name).maturity_s)
    return Draft(name, **given)


def _list(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def _ask(given: dict[str, Any], start: Draft, *, costs: bool) -> dict[str, Any]:
    """Ask for what the flags left open."""
    out = dict(given)
    words = {
        "subject": "What is decided about (one word)?",
        "question": "What is to be decided?",
        "states": "States of the world, the uneventful one first (comma between)?",
        "actions": "Actions, the harmless one first (comma between)?",
    }
    for key, prompt in words.items():
        if out[key] is None:
            value = getattr(start, key)
            said = typer.prompt(prompt, default=value if isinstance(value, str) else ",".join(value))
            out[key] = said if isinstance(value, str) else _list(said)
    if out["horizon_s"] is None:
        prompt = "Within how many seconds after a decision does its state show?"
        out["horizon_s"] = typer.prompt(prompt, default=start.horizon_s, type=float)
    if costs:
        for key, prompt in (
            ("cost_act", f"What does '{out['actions'][-1]}' cost, in vain or not ({start.currency})?"),
            ("cost_miss", f"And '{out['actions'][0]}' when it is {out['states'][-1]} ({start.currency})?"),
        ):
            if out[key] is None:
                out[key] = typer.prompt(prompt, value_proc=_cost)
    return out


def _cost(text: str) -> float:
    """A typed cost; one that cannot be is asked again."""
    from aiotkit.core.errors import DecisionFileError
    from aiotkit.lab.start import check_costs

    try:
        cost = float(text)
        check_costs(cost, None)
    except (ValueError, DecisionFileError) as error:
        raise typer.BadParameter(f"'{text}' is no cost; expected a number, 0 or more") from error
    return cost


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


def _with_costs(draft: Draft, given: list[str], two: dict[str, float | None], *, made_up: bool) -> Draft:
    """The draft with its cost table; a table that is begun must be whole, and the file's check says so."""
    import re
    from dataclasses import replace

    from aiotkit.core.errors import DecisionFileError
    from aiotkit.lab.start import two_costs

    if any(v is not None for v in two.values()) or (made_up and not given):
        draft = two_costs(draft, two["cost_act"], two["cost_miss"])
    costs = {action: dict(row) for action, row in draft.costs.items()}
    for text in given:
        match = re.fullmatch(r"(\w+)\.(\w+)=([-+]?\d+(?:\.\d+)?)", text)
        if match is None:
            raise DecisionFileError(f"--cost {text}", expected="ACTION.STATE=MONEY, such as run.worn=500")
        costs.setdefault(match[1], {})[match[2]] = float(match[3])
    return replace(draft, costs=costs)


def _doubts(proposal: Proposal, draft: Draft) -> tuple[str, ...]:
    """What only a person can settle, with the state that was taken for the uneventful one."""
    from aiotkit.lab.start import taken_for_uneventful

    doubt = taken_for_uneventful(proposal.labels, draft.states)
    return (*proposal.doubts, *([] if doubt is None else [doubt]))


def _write(path: Path, draft: Draft, proposal: Proposal | None, as_json: bool) -> None:
    from aiotkit.cli.output import say
    from aiotkit.lab.proposal import whole_way
    from aiotkit.lab.template import first_rule, write_draft

    text = write_draft(draft)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    lines, doubts = [f"wrote {path}"], () if proposal is None else _doubts(proposal, draft)
    if draft.guessed:
        lines.append(
            "its costs are partly MADE UP: edit them before you believe any money (--cost-act, --cost-miss)"
        )
    if proposal is not None:
        field, limit = first_rule(draft.signals)
        lines.append(f"its rule: {draft.actions[-1]} when {field} > {limit.value:.9g} ({limit.why})")
        lines += [f"not known: {doubt}" for doubt in doubts]
    way = whole_way if proposal is None else proposal.commands
    commands = [f"aiotkit decision {verb} {shlex.quote(str(path))}" for verb in ("check", "explain")]
    commands += way(path, draft.states[-1])
    lines += [f"{'next:' if i == 0 else '':<5} {command}" for i, command in enumerate(commands)]
    lines += ["(… stands for what only you know)"] if any("…" in c for c in commands) else []
    data: dict[str, Any] = {"written": path, "id": draft.id, "costs_made_up": draft.guessed}
    data |= {"doubts": list(doubts), "commands": commands}
    say(data, "\n".join(lines), as_json)
