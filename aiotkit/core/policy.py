"""From what is known to a proposed action: by the written rule, or by least expected cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiotkit.core.conditions import (
    INDETERMINATE,
    TRUE,
    Check,
    Memory,
    TermMemory,
    Values,
    compile_condition,
    describe,
    found,
    is_number,
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
        self._lines: list[tuple[Branch, Check | None]] = [
            (b, compile_condition(b.when, f"rule/{i}") if b.when is not None else None)
            for i, b in enumerate(branches)
        ]

    def propose(self, values: Values, memory: Memory, now_s: float) -> Proposal:
        """The proposed action for field values at ``now_s`` (UTC epoch seconds)."""
        updates: dict[str, TermMemory] = {}
        chosen: Proposal | None = None
        for branch, check in self._lines:  # every line is evaluated: timed terms must see every sample
            truth = TRUE if check is None else check(values, memory, now_s, updates)
            if chosen is not None or truth not in (TRUE, INDETERMINATE):
                continue
            if truth is TRUE:
                chosen = Proposal(branch.action, _because(branch, values))
            else:
                assert branch.when is not None
                words = f"{describe(branch.when)} cannot be judged: {found(branch.when, values)}"
                chosen = Proposal(None, words)
        assert chosen is not None  # the last line is 'otherwise'
        return Proposal(chosen.action, chosen.reason, {}, updates)


def _because(branch: Branch, values: Values) -> str:
    if branch.when is None:
        return branch.because or "no line of the rule applies"
    words = f"{describe(branch.when)}: {found(branch.when, values)}"
    return f"{branch.because} ({words})" if branch.because else words


def expected_costs(p: Mapping[str, float], costs: Costs) -> dict[str, float]:
    """Expected cost of each action: the sum over states of p(state) · cost[action][state].

    >>> expected_costs({"ok": 0.9, "bad": 0.1}, {"run": {"ok": 0, "bad": 500}, "stop": {"ok": 80, "bad": 80}})
    {'run': 50.0, 'stop': 80.0}
    """
    return {a: sum(p[s] * row[s] for s in p) for a, row in costs.items()}


def cost_of_asking(p: Mapping[str, float], costs: Costs, human: Human) -> float:
    """Expected cost when a human answers: his cost, and the best action for the state he names.

    With probability ``reliability`` the answer is right (value of perfect information, Howard 1966);
    otherwise it tells nothing and the least expected cost without him applies.
    """
    informed = sum(p[s] * min(row[s] for row in costs.values()) for s in p)
    blind = min(expected_costs(p, costs).values())
    return human.cost + human.reliability * informed + (1 - human.reliability) * blind


def least_expected_cost(p: Mapping[str, float], decision: Decision) -> Proposal:
    """Propose the action of least expected cost, or ``ask`` when a human's answer saves more than it costs.

    Ties go to the reversible action, then to the one that moves nothing, then by name. Anything but a
    probability for every state that sums to 1 (± 1e-3) proposes nothing.
    """
    if isinstance(decision.costs, str):
        return Proposal(None, "costs are unknown: only the written rule can propose an action")
    sane = set(p) == set(decision.states) and all(is_number(v) and 0 <= v <= 1 for v in p.values())
    if not sane or not abs(sum(p.values()) - 1) <= 1e-3:
        return Proposal(None, f"p is no distribution over {sorted(decision.states)}: {dict(p)}")
    expected = expected_costs(p, decision.costs)

    def rank(action: str) -> tuple[float, bool, bool, str]:
        a = decision.actions[action]
        return (expected[action], not a.reversible, a.actuator is not None, action)

    best = min(expected, key=rank)
    reason = ", ".join(f"{a} {c:.2f}" for a, c in sorted(expected.items(), key=lambda x: x[1]))
    if decision.human is not None:
        asking = cost_of_asking(p, decision.costs, decision.human)
        if asking < expected[best]:
            return Proposal(ASK, f"asking {asking:.2f} {decision.currency} < {reason}", expected)
    return Proposal(best, f"least expected cost in {decision.currency}: {reason}", expected)


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
