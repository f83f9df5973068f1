"""What must fit together within a decision file; each rule yields problems in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from aiotkit.core.conditions import Node, Term, fields, walk
from aiotkit.core.errors import did_you_mean
from aiotkit.core.features import (
    BANDED,
    NOVELTY,
    RESERVED,
    STATISTICS,
    is_feature,
    parse_statistic,
    statistic_problem,
)
from aiotkit.core.frames import MAX_PAYLOAD
from aiotkit.core.gates import MODEL_KNOWS
from aiotkit.core.reach import contradicts_itself, implies

if TYPE_CHECKING:
    from aiotkit.core.decision import Decision

#: fields that every decision has as context, derived from the site's clock and calendar
DERIVED_CONTEXT = ("context.local_hour", "context.weekday", "context.shift")
_IN_RANGE = ("mean", "min", "max", "last", "q05", "q25", "q50", "q75", "q95")


def problems(decision: Decision) -> Iterator[str]:
    """Every inconsistency of a decision file, each naming the place, what is wrong and a hint."""
    yield from _names(decision)
    yield from _window(decision)
    yield from _costs(decision)
    yield from _rule(decision)
    yield from _gates(decision)
    yield from _references(decision)
    yield from _reads(decision)
    yield from _limits_of_terms(decision)
    yield from _observability(decision)


def _unknown(where: str, kind: str, name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    hint = did_you_mean(name, known) or f"known: {', '.join(known)}"
    return f"{where}: unknown {kind} '{name}'; {hint}"


def _names(d: Decision) -> Iterator[str]:
    for signal in d.signals:
        if signal in RESERVED:
            yield f"signals.{signal}: the name is reserved for fields of that kind; choose another"
    doubles = [g.name for i, g in enumerate(d.gates) if g.name in {h.name for h in d.gates[:i]}]
    yield from (f"gates: two gates are named '{name}'; give each its own name" for name in doubles)
    if "ask" in d.actions:
        yield "actions.ask: 'ask' is what the policy says when a human shall decide; choose another name"


def _window(d: Decision) -> Iterator[str]:
    values = sum(d.samples(signal) for signal in d.signals)
    if 4 * values > MAX_PAYLOAD // 2:
        yield (
            f"window: one window of every signal holds {values} values; a record has room for "
            f"{MAX_PAYLOAD // 8}. Shorten length_s or lower a rate"
        )


def _costs(d: Decision) -> Iterator[str]:
    if isinstance(d.costs, str):  # unknown
        return
    for action, row in d.costs.items():
        if action not in d.actions:
            yield _unknown(f"costs.{action}", "action", action, d.actions)
        for state, cost in row.items():
            if state not in d.states:
                yield _unknown(f"costs.{action}.{state}", "state", state, d.states)
            elif not math.isfinite(cost):
                yield f"costs.{action}.{state}: expected a finite number; found {cost}"
    for action in d.actions:
        for state in d.states:
            if state not in d.costs.get(action, {}):
                yield (
                    f"costs.{action}.{state}: missing; say what one episode costs in {d.currency} when "
                    f"'{action}' is done and the state is '{state}', or write costs: unknown"
                )


def _rule(d: Decision) -> Iterator[str]:
    for i, branch in enumerate(d.rule):
        last = i == len(d.rule) - 1
        if (branch.otherwise is not None) != last:
            yield f"rule[{i}]: the last line, and only that, is {{otherwise: <action>}}"
        if branch.action not in d.actions:
            yield _unknown(f"rule[{i}]", "action", branch.action, d.actions)
        if branch.when is None:
            continue
        if contradicts_itself(branch.when):
            yield f"rule[{i}].when: can never hold: it asks of one field what no value can give"
        for j, earlier in enumerate(d.rule[:i]):
            if earlier.when is not None and implies(branch.when, earlier.when):
                yield f"rule[{i}]: never reached: whenever it holds, rule[{j}] holds and decides first"
                break


def _gates(d: Decision) -> Iterator[str]:
    for i, gate in enumerate(d.gates):
        where = f"gates[{i}] '{gate.name}'"
        if gate.require is not None and contradicts_itself(gate.require):
            yield f"{where}: can never hold: it asks of one field what no value can give"
        if gate.name == MODEL_KNOWS and not (gate.require is not None and NOVELTY in fields(gate.require)):
            yield f"{where}: the name is kept for the gate on '{NOVELTY}'; choose another"
        checks = {"require", "at_most", "min_interval_s", "otherwise"}
        for twin in d.gates[:i]:
            same = gate.model_dump(include=checks) == twin.model_dump(include=checks)
            if same and set(gate.actions) == set(twin.actions):
                yield f"{where}: checks the same as '{twin.name}'; drop one of them"
                break


def _references(d: Decision) -> Iterator[str]:
    if d.recovery not in d.actions:
        yield _unknown("recovery", "action", d.recovery, d.actions)
    elif not d.actions[d.recovery].reversible:
        yield f"recovery: '{d.recovery}' is irreversible; what is done in doubt must be reversible"
    for action in d.autonomy.actions:
        if action not in d.actions:
            yield _unknown(f"autonomy.actions.{action}", "action", action, d.actions)
    for i, gate in enumerate(d.gates):
        for action in gate.actions:
            if action not in d.actions:
                yield _unknown(f"gates[{i}] '{gate.name}'.actions", "action", action, d.actions)
        if gate.otherwise == "ask" and d.human is None:
            yield f"gates[{i}] '{gate.name}': otherwise: ask needs 'human' (cost, delay_s, reliability)"
    if d.policy.kind == "false_alarm_budget" and d.policy.alarms_per_day is None:
        yield "policy.alarms_per_day: missing; a false_alarm_budget needs to know how many are bearable"
    for state in d.policy.prevalence:
        if state not in d.states:
            yield _unknown(f"policy.prevalence.{state}", "state", state, d.states)


def known_fields(d: Decision) -> set[str]:
    """Field names that rule, gates and history may read.

    Of statistics that come in bands or parts, those that the decision does read.
    """
    features = {f"{signal}.{statistic}" for signal in d.signals for statistic in STATISTICS}
    features |= {field for field in d.fields_read() if is_feature(field) and not _misfit(d, field)}
    context = {f"context.{name}" for name in d.context} | set(DERIVED_CONTEXT)
    history = {f"history.{name}" for name in d.history}
    return features | context | history | {f"p.{state}" for state in d.states} | {NOVELTY}


def _misfit(d: Decision, feature: str) -> str:
    """Why a signal's window does not hold what a statistic asks for, or an empty string."""
    signal, _, word = feature.partition(".")
    if signal not in d.signals:
        return f"no signal is named '{signal}'"
    found = parse_statistic(word)
    assert found is not None
    samples, parts = d.samples(signal), 1 if found.segment is None else found.segment[1]
    bands = 0 if found.part is None else found.part[1]
    if max(parts, 2 * bands * parts) > samples:
        into = f"{parts} parts" + (f" of {bands} bands" if bands else "")
        held = f"{samples} sample" + ("s" if samples > 1 else "")
        return f"a window of '{signal}' holds {held}, too few for {into}"
    return ""


def _reads(d: Decision) -> Iterator[str]:
    known = known_fields(d)
    for field, where in d.reads():
        if field not in known:
            yield f"{where}: unknown field '{field}'; {_field_hint(d, field, known)}"
        elif where.startswith("history.") and field.split(".")[0] in RESERVED:
            yield f"{where}: history is kept over features; '{field}' is none"
        elif where.startswith("rule") and field.startswith("p."):
            yield f"{where}: the written rule cannot read '{field}': it must work before there is a model"


def _field_hint(d: Decision, field: str, known: Iterable[str]) -> str:
    signal, _, word = field.partition(".")
    if signal in d.signals and word:
        if is_feature(field):
            return _misfit(d, field)
        return statistic_problem(word).replace("did you mean '", f"did you mean '{signal}.")
    base = word.partition("_")[0]
    if word and (base in BANDED or is_feature(field)):
        known = [*known, *(f"{name}.{word}" for name in d.signals)]
    return (
        did_you_mean(field, known)
        or "fields are <signal>.<statistic>, context.<name>, history.<name>, p.<state> or novelty"
    )


def _limits_of_terms(d: Decision) -> Iterator[str]:
    known = known_fields(d)
    for node, where in _nodes(d):
        if isinstance(node, Term) and node.field in known:
            yield from _limit_of_term(d, node, where)


def _nodes(d: Decision) -> Iterator[tuple[Node, str]]:
    for i, branch in enumerate(d.rule):
        if branch.when is not None:
            yield from ((node, f"rule[{i}].when") for node, _ in walk(branch.when))
    for i, gate in enumerate(d.gates):
        if gate.require is not None:
            yield from ((node, f"gates[{i}] '{gate.name}'") for node, _ in walk(gate.require))


def _limit_of_term(d: Decision, term: Term, where: str) -> Iterator[str]:
    scope, _, name = term.field.partition(".")
    choices = term.in_ or term.not_in
    words = _choices_of(d, term.field)
    if words is not None:
        if choices is None:
            yield f"{where}: '{term.field}' is one of {sorted(words)}; use in or not_in"
        for choice in choices or ():
            if choice not in words:
                yield _unknown(where, f"value of {term.field}", str(choice), words)
        return
    if choices is not None and any(isinstance(c, str | bool) for c in choices):
        yield f"{where}: '{term.field}' is a number; use gt, ge, lt, le or between"
    span = None
    statistic = parse_statistic(name)
    if scope in d.signals and statistic is not None and statistic.base in _IN_RANGE:
        span = d.signals[scope].range
    elif scope in d.signals and statistic is not None and statistic.base == "zcr":
        span = (0.0, 1.0)
    elif scope == "context" and name in d.context:
        span = d.context[name].range
    elif scope == "p":
        span = (0.0, 1.0)
    elif scope == NOVELTY:
        span = (0.0, math.inf)
    if span is not None:
        for limit in _limits(term):
            if not span[0] <= limit <= span[1]:
                yield (
                    f"{where}: limit {limit:g} for '{term.field}' lies outside its range "
                    f"[{span[0]:g}, {span[1]:g}]; check the unit"
                )


def _choices_of(d: Decision, field: str) -> set[str] | None:
    if field == "context.shift":
        return {shift.name for shift in d.site.shifts} | {"none"}
    if field == "context.weekday":
        return {"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
    scope, _, name = field.partition(".")
    if scope == "context" and name in d.context and d.context[name].values is not None:
        return set(d.context[name].values or ())
    return None


def _limits(term: Term) -> tuple[float, ...]:
    given = [x for x in (term.gt, term.ge, term.lt, term.le) if x is not None]
    return (*given, *(term.between or ()))


def _observability(d: Decision) -> Iterator[str]:
    seen: set[str] = set()
    for name, source in d.outcome.sources.items():
        for state in source.reports:
            if state not in d.states:
                yield _unknown(f"outcome.sources.{name}.reports", "state", state, d.states)
        seen |= set(source.reports)
    if d.outcome.silence is not None:
        if d.outcome.silence not in d.states:
            yield _unknown("outcome.silence", "state", d.outcome.silence, d.states)
        seen.add(d.outcome.silence)
    for state in d.states:
        if state not in seen:
            yield (
                f"states.{state}: never observable; no outcome source reports it and silence does not "
                f"mean it. Add it to a source's 'reports', or drop the state"
            )
