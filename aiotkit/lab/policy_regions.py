"""Where a policy changes its mind: thresholds of probability between two states, and cost ratios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise, permutations

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.core.policy import least_expected_cost

_GRID = 1000


@dataclass(frozen=True, slots=True)
class Region:
    """An interval of p(bad) in which one action is proposed (``ask`` = a human is asked)."""

    action: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Trade:
    """Acting against not acting, between two states.

    ``needless`` is what ``act`` costs more than ``wait`` when the state is ``good``; ``missed`` what
    ``wait`` costs more than ``act`` when it is ``bad``. Both are positive.
    """

    wait: str
    act: str
    good: str
    bad: str
    needless: float
    missed: float

    @property
    def ratio(self) -> float:
        """How many times worse it is to miss than to act needlessly."""
        return self.missed / self.needless

    @property
    def threshold(self) -> float:
        """p(bad) above which acting costs less: 1 / (1 + ratio), Elkan 2001."""
        return 1 / (1 + self.ratio)


def known_costs(decision: Decision) -> Mapping[str, Mapping[str, float]]:
    """The cost table; raises ``DataError`` when costs are declared unknown."""
    if isinstance(decision.costs, str):
        raise DataError(
            f"decision '{decision.id}': costs are unknown",
            do="Break-even curves need no costs; everything else does: fill in 'costs'.",
        )
    return decision.costs


def policy_regions(decision: Decision, good: str, bad: str) -> tuple[Region, ...]:
    """What is proposed as p(bad) rises from 0 to 1, all other states but ``good`` being excluded.

    Boundaries are exact to 1e-12; regions narrower than 1/1000 may be missed.
    """
    known_costs(decision)
    for state in (good, bad):
        if state not in decision.states:
            raise DataError(f"state '{state}'", expected=f"one of {sorted(decision.states)}")

    def proposed(p_bad: float) -> str:
        p = dict.fromkeys(decision.states, 0.0) | {good: 1 - p_bad, bad: p_bad}
        return str(least_expected_cost(p, decision).action)

    grid = [(i + 0.5) / _GRID for i in range(_GRID)]
    actions = [proposed(p) for p in grid]
    edges, kept = [0.0], [actions[0]]
    for (p, a), (q, b) in pairwise(zip(grid, actions, strict=True)):
        if a != b:
            low, high = p, q
            while high - low > 1e-12:
                middle = (low + high) / 2
                low, high = (middle, high) if proposed(middle) == a else (low, middle)
            edges.append(high)
            kept.append(b)
    edges.append(1.0)
    return tuple(Region(a, low, high) for a, (low, high) in zip(kept, pairwise(edges), strict=True))


def trades(decision: Decision) -> tuple[Trade, ...]:
    """For each pair of states whose best actions differ, the trade between those actions."""
    costs = known_costs(decision)
    best = {s: min(costs, key=lambda a: (costs[a][s], a)) for s in decision.states}
    found: list[Trade] = []
    for good, bad in permutations(decision.states, 2):
        wait, act = best[good], best[bad]
        if wait == act or (decision.actions[wait].intervenes and not decision.actions[act].intervenes):
            continue
        needless, missed = costs[act][good] - costs[wait][good], costs[wait][bad] - costs[act][bad]
        twice = any((t.wait, t.act, t.good, t.bad) == (act, wait, bad, good) for t in found)
        if needless > 0 and missed > 0 and not twice:
            found.append(Trade(wait, act, good, bad, needless, missed))
    return tuple(found)
