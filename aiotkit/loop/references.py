"""What the fleet's money is compared with: other policies on the same fleet, with the same luck, in process.

``rule`` is the written rule without random checks, in every round; ``tuned_threshold`` the single threshold
that cost least before the load changed, ``hindsight_threshold`` the one that cost least in the whole run;
``always`` throttles, ``never`` runs to breakdown, ``oracle`` knows how the machines wear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

from aiotkit.lab.features import export_front
from aiotkit.loop.arms import Lived, live
from aiotkit.loop.engine_arm import EngineArm
from aiotkit.loop.learning import rule_files
from aiotkit.loop.look import bearing_decision
from aiotkit.loop.oracle import Oracle
from aiotkit.loop.policies import Constant, Policy, Thresholds, candidates
from aiotkit.loop.rounds import Plan, with_checks
from aiotkit.loop.wear import Array

RULE, TUNED, HINDSIGHT = "rule", "tuned_threshold", "hindsight_threshold"
ALWAYS, NEVER, ORACLE = "always", "never", "oracle"
#: arms in front of the thresholds, in order
_ALONE = (RULE, ALWAYS, NEVER, ORACLE)


@dataclass(frozen=True)
class References:
    """What each policy cost.

    ``money``: policy -> EUR ``[machines, days]``; ``spent``: policy -> EUR by category, whole run;
    ``chosen``: which threshold ``tuned_threshold`` and ``hindsight_threshold`` are.
    """

    money: Mapping[str, Array]
    spent: Mapping[str, Mapping[str, float]]
    chosen: Mapping[str, str]


def live_all(plan: Plan) -> References:
    """Run every reference through all rounds of a plan, side by side on one fleet."""
    decision = with_checks(bearing_decision(), 0.0)
    rule = EngineArm(RULE, rule_files(decision, *export_front(decision)), plan.machines)
    thresholds = Thresholds(candidates())
    policies: list[Policy] = [rule, Constant(ALWAYS, 0.6), Constant(NEVER, 1.0)]
    policies += [Oracle(plan.seed, plan.machines), thresholds]
    arms = sum(len(p.names) for p in policies)
    return _chosen(plan, live(plan.twin(arms), policies))


def _chosen(plan: Plan, lived: Lived) -> References:
    known = plan.spans[plan.drift - 1][1]  # a diligent engineer tunes on what came before the change
    first = len(_ALONE)
    before = first + int(lived.money[first:, :, :known].sum(axis=(1, 2)).argmin())
    whole = first + int(lived.money[first:].sum(axis=(1, 2)).argmin())
    at = {name: i for i, name in enumerate(_ALONE)} | {TUNED: before, HINDSIGHT: whole}
    return References(
        {name: lived.money[i] for name, i in at.items()},
        {name: {c: float(v[i]) for c, v in lived.categories.items()} for name, i in at.items()},
        {TUNED: lived.names[before], HINDSIGHT: lived.names[whole]},
    )


@contextmanager
def in_background(plan: Plan) -> Iterator[Future[References]]:
    """``live_all`` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool.submit(live_all, plan)
