"""From what is known to a proposed action: by the written rule, or by least expected cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aiotkit.core.conditions import (
    INDETERMINATE,
    TRUE,
    Memory,
    TermMemory,
    Values,
    compile_condition,
    describe,
    found,
    is_number,
    is_timed,
)
from aiotkit.core.decision import Branch, Decision, Human

ASK = "ask"
Costs = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed action (``ask`` = a human shall decide; None = undeterminable) and why, in words."""

    action: str | None
    reason: str
    expected_costs: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, TermMemory] = field(default_factory=dict)


class Rule:
    """The written rule: the first line whose condition is TRUE decides.

    A line that cannot be judged ends the search: no later line may act on doubt.
    """

    def __init__(self, branches: Sequence[Branch]) -> None:
        self._lines = [
            (b, compile_condition(b.when, f"rule/{i}") if b.when is not None else None, _said(b))
            for i, b in enumerate(branches)
        ]
        self._timed = [
            check
            for branch, check, _ in self._lines
            if check is not None and branch.when and is_timed(branch.when)
        ]

    def propose(self, values: Values, memory: Memory, now_s: float) -> Proposal:
        """The proposed action for field values at ``now_s`` (UTC epoch seconds)."""
        updates: dict[str, TermMemory] = {}
        chosen: Proposal | None = None
        for branch, check, said in self._lines:  # every line: timed terms must see every sample
            truth = TRUE if check is None else check(values, memory, now_s, updates)
            if chosen is not None or truth not in (TRUE, INDETERMINATE):
                continue
            if truth is TRUE:
                chosen = Proposal(branch.action, _because(branch, said, values))
            else:
                assert branch.when is not None
                chosen = Proposal(None, f"{said} cannot be judged: {found(branch.when, values)}")
        assert chosen is not None  # the last line is 'otherwise'
        return Proposal(chosen.action, chosen.reason, {}, updates)

    def watch(self, values: Values, memory: Memory, now_s: float) -> Mapping[str, TermMemory]:
        """What timed terms must remember where something else than the rule decides."""
        updates: dict[str, TermMemory] = {}
        for check in self._timed:
            check(values, memory, now_s, updates)
        return updates


def _said(branch: Branch) -> str:
    return "" if branch.when is None else describe(branch.when)


def _because(branch: Branch, said: str, values: Values) -> str:
    if branch.when is None:
        return branch.because or "no line of the rule applies"
    words = f"{said}: {found(branch.when, values)}"
    return f"{branch.because} ({words})" if branch.because else words


def expected_costs(p: Mapping[str, float], costs: Costs) -> dict[str, float]:
    """Expected cost of each action: the sum over states of p(state) · cost[action][state].

    >>> expected_costs({"ok": 0.9, "bad": 0.1}, {"run": {"ok": 0, "bad": 500}, "stop": {"ok": 80, "bad": 80}})
    {'run': 50.0, 'stop': 80.0}
    """
    found = {}
    for action, row in costs.items():
        total = 0.0
        for s, share in p.items():  # term by term: `sum` adds otherwise in newer Pythons
            total += share * row[s]
        found[action] = total
    return found


def cost_of_asking(p: Mapping[str, float], costs: Costs, human: Human) -> float:
    """Expected cost when a human answers: his cost, and the action that is best for the state he names.

    With probability ``reliability`` he names the true state (value of information, Howard 1966), else any
    other one alike, and what is then done is wrong: the same model of a source as in ``lab.labels``.

    >>> table = {"run": {"ok": 0, "bad": 500}, "stop": {"ok": 80, "bad": 80}}
    >>> cost_of_asking({"ok": 0.8, "bad": 0.2}, table, Human(cost=10, delay_s=0, reliability=0.9))
    40.8
    """
    return _asked(p, _answers(costs, tuple(p), human), human)


def _answers(costs: Costs, states: Sequence[str], human: Human) -> dict[str, dict[str, tuple[float, float]]]:
    """True state -> state a person names -> (how often he does, what the action best for it then costs)."""
    best = {s: min(costs, key=lambda a: (costs[a][s], a)) for s in states}
    astray = (1 - human.reliability) / max(1, len(states) - 1)
    return {
        s: {named: (human.reliability if named == s else astray, costs[best[named]][s]) for named in states}
        for s in states
    }


def _asked(
    p: Mapping[str, float], answers: Mapping[str, Mapping[str, tuple[float, float]]], human: Human
) -> float:
    total = human.cost
    for s in p:
        row = answers[s]
        for named in p:
            share, cost = row[named]
            total += p[s] * share * cost
    return total


def least_expected_cost(p: Mapping[str, float], decision: Decision) -> Proposal:
    """What ``LeastExpectedCost`` proposes, for one look; whoever looks often keeps the object."""
    return LeastExpectedCost(decision).propose(p)


class LeastExpectedCost:
    """Proposes the action of least expected cost, or ``ask`` when a human's answer saves more than it costs.

    An action that intervenes must save ``policy.margin`` against the cheapest one that does not, else that
    one is proposed; so must a question. Ties go to the reversible action, then to the one that moves
    nothing, then by name. What follows from the decision alone is worked out once.
    """

    def __init__(self, decision: Decision) -> None:
        self._decision, self._human = decision, decision.human
        self._states, self._margin = frozenset(decision.states), decision.policy.margin
        self._costs: Costs | None = None if isinstance(decision.costs, str) else decision.costs
        self._ties = {n: (not a.reversible, a.actuator is not None, n) for n, a in decision.actions.items()}
        self._waits = [name for name, action in decision.actions.items() if not action.intervenes]
        self._answers: Mapping[str, Mapping[str, tuple[float, float]]] = {}
        if self._costs is not None and self._human is not None:
            self._answers = _answers(self._costs, tuple(decision.states), self._human)

    def propose(self, p: Mapping[str, float]) -> Proposal:
        """The proposal for the states' probabilities.

        Anything but a probability for every state that sums to 1 (± 1e-3) proposes nothing.
        """
        if self._costs is None:
            return Proposal(None, "costs are unknown: only the written rule can propose an action")
        total = 0.0
        for share in p.values():
            total += share if is_number(share) and 0 <= share <= 1 else math.nan
        if not (abs(total - 1) <= 1e-3 and p.keys() == self._states):
            return Proposal(None, f"p is no distribution over {sorted(self._states)}: {dict(p)}")
        expected = expected_costs(p, self._costs)
        best = wait = self._cheapest(expected, expected)
        currency, margin = self._decision.currency, self._margin
        if margin and self._waits:
            wait = self._cheapest(self._waits, expected)
            if expected[wait] - expected[best] < margin:
                best = wait
        reason = ", ".join([f"{a} {c:.2f}" for a, c in sorted(expected.items(), key=lambda x: x[1])])
        if self._human is not None:
            asking = _asked(p, self._answers, self._human)
            if asking + (margin if best == wait else 0.0) < expected[best]:
                return Proposal(ASK, f"asking {asking:.2f} {currency} < {reason}", expected)
        words = f"least expected cost in {currency}: {reason}"
        if best == wait and margin:
            words += f"; less than {margin:.2f} to be saved by acting now"
        return Proposal(best, words, expected)

    def _cheapest(self, actions: Iterable[str], expected: Mapping[str, float]) -> str:
        costs = [(expected[action], action) for action in actions]
        least = min(costs)[0]
        tied = [action for cost, action in costs if cost == least]
        return tied[0] if len(tied) == 1 else min(tied, key=self._ties.__getitem__)


def break_even(costs: Costs, a: str, b: str, good: str, bad: str) -> float | None:
    """The probability of ``bad`` (against ``good``) at which actions ``a`` and ``b`` cost the same.

    None when one of them is never worse. From p·c[a][bad] + (1−p)·c[a][good] = the same for b.

    >>> break_even({"run": {"ok": 0, "bad": 500}, "stop": {"ok": 80, "bad": 80}}, "run", "stop", "ok", "bad")
    0.16
    """
    in_good, in_bad = costs[a][good] - costs[b][good], costs[a][bad] - costs[b][bad]
    if in_good == in_bad:
        return None
    p = in_good / (in_good - in_bad)
    return p if 0 <= p <= 1 else None
