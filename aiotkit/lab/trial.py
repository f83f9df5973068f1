"""Try a decision's rule and gates on cases, before there is any data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from aiotkit.bundle.inputs import context_fault
from aiotkit.core.conditions import Node, Not, Term, TermMemory, fields, operands, walk
from aiotkit.core.consistency import known_fields
from aiotkit.core.decision import Context, Decision
from aiotkit.core.errors import DataError, did_you_mean
from aiotkit.core.gates import GateKeeper, Verdict
from aiotkit.core.policy import Proposal, Rule
from aiotkit.core.records import OperatorInput, Reading
from aiotkit.core.resolution import Moment, resolve

Case = Mapping[str, Any]
_UNKNOWN = "something else"


def try_cases(decision: Decision, cases: Mapping[str, Case], *, hold_s: float = 0.0) -> pd.DataFrame:
    """What the written rule proposes for each case, what the gates say, and what would be ordered.

    Args:
        decision: the decision file.
        cases: name -> {field: value}; a field that is left out is missing, as on a device.
        hold_s: how long each case has lasted already: terms with ``on_delay_s`` need it.

    Returns:
        One row a case: ``case``, ``proposed``, ``verdict``, ``final``, ``why``.

    Raises:
        DataError: a case names a field that the decision does not have.
    """
    return pd.DataFrame([_try(decision, name, values, hold_s) for name, values in cases.items()])


def _try(decision: Decision, name: str, values: Case, hold_s: float) -> dict[str, Any]:
    known = known_fields(decision)
    for field in values:
        if field not in known:
            hint = did_you_mean(field, known) or "Fields are <signal>.<statistic>, context.<name>, …"
            raise DataError(f"case '{name}': unknown field '{field}'", do=hint)
    rule = Rule(decision.rule)
    keeper = GateKeeper([g for g in decision.gates if not g.needs_model])
    memory: dict[str, TermMemory] = {}
    proposal = rule.propose(values, memory, 0.0)
    doubt = _required_fault(decision, values)
    if hold_s:
        first = keeper.judge(proposal.action or decision.recovery, values, {}, [], 0.0, is_change=True)
        memory = {**proposal.memory, **first.memory}
        proposal = rule.propose(values, memory, hold_s)
    if doubt:
        proposal = Proposal(None, doubt)
    action = proposal.action or decision.recovery
    ruling = keeper.judge(action, values, memory, [], hold_s, is_change=True)
    moment = Moment("trial/0/1", round(hold_s * 1e6), None, None, OperatorInput())
    resolution = resolve(decision, proposal, ruling, moment)
    verdict = Verdict.INDETERMINATE if proposal.action is None else ruling.verdict
    return {
        "case": name,
        "proposed": proposal.action or "—",
        "verdict": verdict.name,
        "final": resolution.final or "nothing new",
        "why": resolution.why,
    }


def _required_fault(decision: Decision, values: Case) -> str:
    for name, declared in decision.context.items():
        words = context_fault(declared, Reading(values.get(f"context.{name}"), 0.0))
        if declared.required and words:
            return f"required context '{name}': {words}"
    return ""


def example_cases(decision: Decision) -> dict[str, dict[str, Any]]:
    """Cases made from the decision itself, to be read and changed; they are not complete.

    One to which no line of the rule applies, one for each line, one for each gate, and bad inputs.
    """
    conditions = [b.when for b in decision.rule if b.when is not None]
    gates = [g for g in decision.gates if g.require is not None and not g.needs_model]
    base: dict[str, Any] = {f"context.{n}": _ordinary(c) for n, c in decision.context.items() if c.required}
    for gate in gates:
        assert gate.require is not None
        base |= _values(gate.require, wanted=True)
    for condition in conditions:
        base |= _values(condition, wanted=False)
    cases: dict[str, dict[str, Any]] = {"ordinary": base}
    for i, branch in enumerate(decision.rule):
        if branch.when is not None:
            words = branch.because or f"{branch.action}"
            cases[f"rule {i + 1}: {words}"] = base | _values(branch.when, wanted=True)
    acting = next((c for c in cases.values() if c is not base), base)
    for gate in gates:
        assert gate.require is not None
        cases[f"gate {gate.name} shut"] = acting | _declared(decision, _values(gate.require, wanted=False))
    read = [f for c in conditions for f in fields(c)]
    for field in list(dict.fromkeys([*read[:1], *read[-1:], *base]))[:3]:
        cases[f"{field} is NaN"] = base | {field: math.nan}
        cases[f"{field} is missing"] = {k: v for k, v in base.items() if k != field}
    return cases


def _declared(decision: Decision, case: dict[str, Any]) -> dict[str, Any]:
    """The case with context values that exist: another one than the gate allows, where there is one."""
    out = dict(case)
    for field, value in case.items():
        context = decision.context.get(field.removeprefix("context."))
        if value == _UNKNOWN and context is not None and context.values is not None:
            named = {
                c
                for g in decision.gates
                if g.require
                for n, _ in walk(g.require)
                if isinstance(n, Term) and n.field == field
                for c in (n.in_ or n.not_in or ())
            }
            out[field] = next((v for v in context.values if v not in named), value)
    return out


def _values(node: Node, *, wanted: bool) -> dict[str, Any]:
    """Field values for which a condition is TRUE (or FALSE, when not wanted)."""
    if isinstance(node, Term):
        return {node.field: _value(node, wanted=wanted)}
    if isinstance(node, Not):
        return _values(node.not_, wanted=not wanted)
    found: dict[str, Any] = {}
    for part in operands(node):
        found |= _values(part, wanted=wanted)
    return found


def _value(term: Term, *, wanted: bool) -> Any:
    for limit, sign in ((term.gt, 1), (term.ge, 1), (term.lt, -1), (term.le, -1)):
        if limit is not None:
            step = max(abs(limit) * 0.1, 1e-6) + term.deadband
            return limit + (step if (sign > 0) is wanted else -step)
    if term.between is not None:
        low, high = term.between
        return (low + high) / 2 if wanted else high + max(high - low, 1.0) * 0.1
    choices = term.in_ or term.not_in or ()
    inside = wanted is (term.in_ is not None)
    return choices[0] if inside else _another(choices)


def _ordinary(context: Context) -> Any:
    if context.values is not None:
        return context.values[0]
    return sum(context.range) / 2 if context.range is not None else 1.0


def _another(choices: tuple[Any, ...]) -> Any:
    if isinstance(choices[0], str):
        return _UNKNOWN
    return not choices[0] if isinstance(choices[0], bool) else max(choices) + 1
