"""A commented decision file to start from, filled in as far as one knows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aiotkit.core.errors import DecisionFileError
from aiotkit.lab.decision_file import read_decision_text


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that data suggest, and what speaks for it."""

    value: float
    why: str


@dataclass(frozen=True, slots=True)
class SignalDraft:
    """A signal as far as it is known; ``rate_hz`` None = on change; ``remark`` becomes a comment.

    ``max_age_s`` and ``grid_hz`` are of a signal on change: how long a value holds, and how often it is
    looked at within a window (None: once, at its end). ``limit``: of a first rule on it, where data tell.
    """

    unit: str
    rate_hz: float | None
    low: float
    high: float
    remark: str = ""
    max_age_s: float = 3600.0
    grid_hz: float | None = None
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class ContextDraft:
    """A condition of operation that is one of a few words."""

    values: tuple[str, ...]
    max_age_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Draft:
    """Answers to a few questions. ``costs[action][state]`` empty = unknown; ``guessed``: made up, to edit.

    ``silence``: the state that it means when nobody reports ('' = nothing).
    """

    id: str
    question: str = "Shall it run on, or be stopped for service?"
    subject: str = "machine"
    site: str = "hall-1"
    zone: str = "UTC"
    states: tuple[str, ...] = ("healthy", "worn")
    actions: tuple[str, ...] = ("run", "stop")
    currency: str = "EUR"
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    guessed: bool = False
    signals: Mapping[str, SignalDraft] = field(default_factory=dict)
    context: Mapping[str, ContextDraft] = field(default_factory=dict)
    length_s: float = 1.0
    every_s: float = 60.0
    deadline_ms: float = 500.0
    horizon_s: float = 86400.0
    maturity_s: float = 172800.0
    silence: str | None = None
    source: str = "work_orders"
    reliability: float = 0.9


def write_draft(draft: Draft) -> str:
    """The text of a decision file that reads back without a problem.

    Raises:
        DecisionFileError: the answers do not make a decision; every problem is listed.
    """
    if len(draft.states) < 2 or len(draft.actions) < 2:
        raise DecisionFileError("a decision needs two states and two actions at least")
    text = "\n".join(_lines(draft)) + "\n"
    read_decision_text(text, f"the answers for '{draft.id}'")
    return text


def _lines(d: Draft) -> Iterator[str]:
    signals = d.signals or {"vibration": SignalDraft("mm/s", 100.0, -50.0, 50.0, "an example: put your own")}
    yield "# A decision file: what is to be decided, at what cost, by when, and how the device may act."
    yield f"# Check it: aiotkit decision check {d.id}.yaml    In words: aiotkit decision explain {d.id}.yaml"
    yield "format: 1"
    yield f"id: {d.id}"
    yield "revision: 1                # count up with every change that is deployed"
    yield f"subject: {d.subject}            # the thing decided about"
    yield f"question: {json.dumps(d.question, ensure_ascii=False)}"
    yield f"site: {{name: {json.dumps(d.site, ensure_ascii=False)}, time_zone: {d.zone}}}"
    yield ""
    yield "# States of the world, hidden from the device; the first is the uneventful one."
    yield "states:"
    yield from (f"  {s}: {{}}" for s in d.states)
    yield ""
    yield "# What may be done. To move something give actuator, command, valid_for_s (it ends by itself);"
    yield "# intervenes: it changes what happens next, so that its outcome is censored."
    yield "actions:"
    yield f"  {d.actions[0]}: {{}}"
    yield from (f"  {a}: {{intervenes: true}}" for a in d.actions[1:])
    yield ""
    yield from _cost_lines(d)
    yield "# human: {cost: 15, delay_s: 1800, reliability: 0.9}    # uncomment if a person can be asked"
    yield ""
    yield "# Units are UCUM (https://ucum.org): mm/s, m/s2, Cel, bar, A, 1. Values out of range are bad."
    yield "signals:"
    yield from signal_lines(signals)
    yield f"window: {{length_s: {d.length_s:.9g}, every_s: {d.every_s:.9g}}}    # looked at, and how often"
    yield from context_lines(d.context)
    yield ""
    yield "# deadline_ms: from window to command. upload: what may leave: none, features, selected or raw."
    yield f"needs: {{deadline_ms: {d.deadline_ms:g}, offline: true, upload: features}}"
    yield "autonomy: {mode: shadow}   # shadow, suggest, confirm, act: begin where nothing can break"
    yield "verify: {share: 0.02}      # decisions checked at random, to stay honest once it acts"
    yield ""
    yield from _rule_lines(d, signals)
    yield f"recovery: {d.actions[0]}   # done in doubt: an input is missing, stale or impossible"
    yield ""
    yield from _outcome_lines(d)


def _cost_lines(d: Draft) -> Iterator[str]:
    yield "# What one episode costs until the horizon, by action (row) and state. 'unknown' is allowed: then"
    yield "# only the rule decides, and 'decision explain' shows from which probability acting would pay."
    yield f"currency: {d.currency}"
    if not d.costs:
        yield "costs: unknown"
        row = ", ".join(f"{s}: 0" for s in d.states)
        yield "# costs:"
        yield from (f"#   {a}: {{{row}}}" for a in d.actions)
        return
    if d.guessed:
        yield "# THESE COSTS ARE MADE UP: put your own before you believe any money computed from them."
    yield "costs:"
    for action, costs in d.costs.items():
        yield f"  {action}: {{{', '.join(f'{s}: {c:g}' for s, c in costs.items())}}}"


def signal_lines(signals: Mapping[str, SignalDraft]) -> Iterator[str]:
    """The lines below ``signals:``."""
    for name, s in signals.items():
        how = f"kind: regular, rate_hz: {s.rate_hz:.9g}" if s.rate_hz else _held(s)
        remark = f"    # {s.remark}" if s.remark else ""
        unit = json.dumps(s.unit, ensure_ascii=False)
        yield f"  {name}: {{unit: {unit}, sampling: {{{how}}}, range: [{s.low:g}, {s.high:g}]}}{remark}"


def _held(s: SignalDraft) -> str:
    grid = "" if s.grid_hz is None else f", grid_hz: {s.grid_hz:.9g}"
    return f"kind: on_change, max_age_s: {s.max_age_s:.9g}{grid}"


def context_lines(context: Mapping[str, ContextDraft]) -> Iterator[str]:
    """The block ``context:``; nothing where there is none."""
    if not context:
        return
    yield "context:                   # conditions of operation; not required: a decision goes on without"
    for name, c in context.items():
        words = ", ".join(json.dumps(v, ensure_ascii=False) for v in c.values)
        yield f"  {name}: {{values: [{words}], max_age_s: {c.max_age_s:.9g}, required: false}}"


def first_rule(signals: Mapping[str, SignalDraft]) -> tuple[str, Limit]:
    """The field that the first rule reads, and its limit: within the data where there are any."""
    name, s = next(iter(signals.items()))
    word = "last" if s.rate_hz is None and s.grid_hz is None else "max"
    guess = Limit(
        float(f"{s.low + 0.8 * (s.high - s.low):g}"), "it lies high in the range, and no data were seen"
    )
    return f"{name}.{word}", s.limit or guess


def _rule_lines(d: Draft, signals: Mapping[str, SignalDraft]) -> Iterator[str]:
    field_, limit = first_rule(signals)
    yield "# The written rule decides until a model beats it in money: the first line that holds. Fields are"
    yield "# <signal>.<statistic> (mean, std, min, max, rms, p2p, last, slope, kurtosis, crest),"
    yield "# context.<name>, history.<name>."
    yield f"# The limit is a guess: {limit.why}. Put what your people know."
    yield "rule:"
    when = f"{{field: {field_}, gt: {limit.value:.9g}}}"
    yield f"  - {{when: {when}, do: {d.actions[-1]}, because: above its limit}}"
    yield f"  - {{otherwise: {d.actions[0]}}}"
    yield "# gates:                   # what may withhold an action or send it to a person"
    yield f"#   - {{name: seldom, min_interval_s: 600, actions: [{d.actions[-1]}]}}"


def _outcome_lines(d: Draft) -> Iterator[str]:
    states = ", ".join(d.states)
    yield "# How a decision gets its label: a state reported within horizon_s is its outcome; reports may"
    yield "# arrive until maturity_s, then silence means the state named (null: no label)."
    silence = d.states[0] if d.silence is None else d.silence or "null"
    yield "outcome:"
    yield f"  horizon_s: {d.horizon_s:.9g}"
    yield f"  maturity_s: {d.maturity_s:.9g}"
    yield f"  silence: {silence}"
    yield "  sources:"
    yield f"    {d.source}: {{reports: [{states}], reliability: {d.reliability:g}}}"
    yield "resample: subject          # how intervals are made: by subject, or by block of days"
