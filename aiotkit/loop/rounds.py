"""Rounds in process: the fleet lives, what it learned is released, a new load regime comes, it learns again.

Every arm lives on the same fleet with the same luck. ``learned`` believes labels as the desk resolves them
and has random checks; the other learners differ from it in one thing each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab.features import export_front
from aiotkit.lab.recipe import recipe
from aiotkit.loop.arms import Progress
from aiotkit.loop.engine_arm import EngineArm
from aiotkit.loop.learning import FAMILIES, Learner, Lesson, rule_files
from aiotkit.loop.look import bearing_decision, look, single_thread
from aiotkit.loop.oracle import Oracle
from aiotkit.loop.policies import Constant, Policy, Thresholds, candidates
from aiotkit.loop.twin import Twin, subject_name
from aiotkit.loop.wear import Array
from aiotkit.loop.weather import Regime

RULE, NO_RETRAINING, NAIVE = "rule", "no_retraining", "naive_labels"
UNVERIFIED, LEARNED = "no_verification", "learned"
#: arms that decide with a bundle's engine, in order
LEARNERS = (RULE, NO_RETRAINING, NAIVE, UNVERIFIED, LEARNED)


@dataclass(frozen=True, slots=True)
class Plan:
    """One experiment. ``rounds``: days of each; ``drift``: the round at whose start the load changes.

    ``verify``: share of decisions checked at random by the arms that verify.
    """

    seed: int
    machines: int = 12
    rounds: tuple[int, ...] = (14, 7, 7, 7, 7, 7)
    drift: int = 3
    verify: float = 0.005
    families: tuple[str, ...] = FAMILIES

    def __post_init__(self) -> None:
        if not (len(self.rounds) >= 2 and 0 < self.drift <= len(self.rounds) and min(self.rounds) >= 1):
            raise DataError("rounds", expected="at least two, and a drift behind the first", found=str(self))

    @property
    def days(self) -> int:
        """All of them."""
        return sum(self.rounds)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last (excluded) day of each round."""
        return list(pairwise([0, *accumulate(self.rounds)]))

    @property
    def regime(self) -> Regime | None:
        """The change of load, if there is one."""
        return Regime(self.spans[self.drift][0]) if self.drift < len(self.rounds) else None

    def twin(self, arms: int) -> Twin:
        """The fleet in so many arms."""
        return Twin(self.seed, self.machines, self.days, arms=arms, regime=self.regime)


@dataclass(frozen=True)
class Outcome:
    """``money``: EUR, arm -> ``[machines, days]``; ``risk``: breakdowns' EUR booked and expected by arm."""

    plan: Plan
    money: Mapping[str, Array]
    lessons: Mapping[str, Sequence[Lesson]] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)

    def by_round(self) -> pd.DataFrame:
        """EUR per machine-day: columns ``round``, ``arm``, ``money``."""
        rows = [
            {"round": r, "arm": arm, "money": float(values[:, first:last].mean())}
            for r, (first, last) in enumerate(self.plan.spans)
            for arm, values in self.money.items()
        ]
        return pd.DataFrame(rows)

    def ledger(self, arm: str, rounds: range) -> pd.DataFrame:
        """``subject``, ``day``, ``money`` of some rounds, for ``lab.evaluate``."""
        first, last = self.plan.spans[rounds[0]][0], self.plan.spans[rounds[-1]][1]
        values = self.money[arm][:, first:last]
        return pd.DataFrame(
            {
                "subject": np.repeat([subject_name(m) for m in range(len(values))], last - first),
                "day": np.tile(np.arange(first, last), len(values)),
                "money": values.reshape(-1),
            }
        )


def live_learners(plan: Plan, names: Sequence[str] = LEARNERS, progress: Progress | None = None) -> Outcome:
    """The arms that decide with an engine: the written rule, and those that learn."""
    learners = [_learner(plan, name) for name in names]
    twin, arms = plan.twin(len(learners)), [x.arm for x in learners]
    for number, (_, last) in enumerate(plan.spans):
        _live_until(twin, arms, last, progress)
        if number + 1 == len(plan.rounds):
            break
        now_us = twin.time_us(twin.step)
        for i, learner in enumerate(learners):
            if names[i] != RULE:
                learner.learn(twin.reports_until(now_us, i), now_us, number, plan.seed * 100 + number)
    money = dict(zip(names, twin.ledger.money(), strict=True))
    return Outcome(plan, money, {n: tuple(x.lessons) for n, x in zip(names, learners, strict=True)})


def _learner(plan: Plan, name: str) -> Learner:
    verified = name in (LEARNED, NAIVE, NO_RETRAINING)
    decision = with_checks(bearing_decision(), plan.verify if verified else 0.0)
    features = recipe(decision, "auto")
    graph, interface = export_front(decision, features)
    arm = EngineArm(name, rule_files(decision, graph, interface), plan.machines)
    return Learner(
        arm,
        labels="naive" if name == NAIVE else "censored",
        until=0 if name == NO_RETRAINING else None,
        families=plan.families,
    )


def with_checks(decision: Decision, share: float) -> Decision:
    """The decision with another share of random checks."""
    return decision.model_copy(update={"verify": decision.verify.model_copy(update={"share": share})})


def live_references(plan: Plan, progress: Progress | None = None) -> Outcome:
    """What the learners are compared with: never acting, the best single thresholds, the oracle.

    ``tuned_threshold`` cost least in the rounds before the drift, ``hindsight_threshold`` in those after it.
    """
    tried = candidates()
    policies: list[Policy] = [Constant("never", 1.0), Oracle(plan.seed, plan.machines), Thresholds(tried)]
    twin = plan.twin(2 + len(tried))
    _live_until(twin, policies, plan.days, progress)
    money = twin.ledger.money()
    change = plan.spans[plan.drift][0] if plan.regime else plan.days
    before = int(money[2:, :, :change].sum(axis=(1, 2)).argmin())
    after = int(money[2:, :, change:].sum(axis=(1, 2)).argmin()) if plan.regime else before
    return Outcome(
        plan,
        {
            "never": money[0],
            "oracle": money[1],
            "tuned_threshold": money[2 + before],
            "hindsight_threshold": money[2 + after],
        },
        chosen={"tuned_threshold": str(tried[before]), "hindsight_threshold": str(tried[after])},
    )


def _live_until(twin: Twin, policies: Sequence[Policy], day: int, progress: Progress | None) -> None:
    edges = [0, *accumulate(len(p.names) for p in policies)]
    slices = [slice(a, b) for a, b in pairwise(edges)]
    with single_thread():
        while twin.step < day * twin.steps // twin.days:
            seen = look(twin)
            twin.advance(
                np.concatenate([p.order(seen, s, twin) for p, s in zip(policies, slices, strict=True)])
            )
            if progress is not None:
                progress(twin.step / twin.steps)


def run_rounds(plan: Plan, progress: Progress | None = None) -> Outcome:
    """References, then learners; all on the same fleet and luck."""
    other, learned = live_references(plan), live_learners(plan, progress=progress)
    return Outcome(plan, {**other.money, **learned.money}, learned.lessons, other.chosen)


def gap_closed(outcome: Outcome, arm: str = LEARNED) -> dict[str, Any]:
    """(rule* − arm) / (rule* − oracle) over the rounds after the drift, rule* = the tuned threshold."""
    change = outcome.plan.spans[outcome.plan.drift][0]
    spent = {n: float(outcome.money[n][:, change:].mean()) for n in (arm, "tuned_threshold", "oracle")}
    room = spent["tuned_threshold"] - spent["oracle"]
    return {"gap_closed": (spent["tuned_threshold"] - spent[arm]) / room if room > 0 else None, **spent}
