"""Rounds in process: engines as arms, learning from their diaries, and what is compared with them."""

from __future__ import annotations

import numpy as np
import pytest

from aiotkit.core.errors import DataError
from aiotkit.lab.features import export_front
from aiotkit.lab.recipe import recipe
from aiotkit.loop.arms import live
from aiotkit.loop.engine_arm import EngineArm
from aiotkit.loop.learning import Learner, naive, rule_files
from aiotkit.loop.look import bearing_decision
from aiotkit.loop.rounds import LEARNED, Outcome, Plan, gap_closed, with_checks
from aiotkit.loop.twin import Twin
from aiotkit.loop.weather import Regime

pytestmark = pytest.mark.desk
DECISION = with_checks(bearing_decision(), 0.0)
FRONT = export_front(DECISION, recipe(DECISION, "plain"))
RULE = rule_files(DECISION, *FRONT)


@pytest.fixture(scope="module")
def lived() -> tuple[Twin, EngineArm]:
    twin, arm = Twin(1, 5, 9), EngineArm("rule", RULE, 5)
    live(twin, [arm])
    return twin, arm


def test_a_diary_gives_examples_with_the_desks_labels(lived: tuple[Twin, EngineArm]) -> None:
    """Every decision is a row; columns are features, history and context; young rows are pending."""
    twin, arm = lived
    now_us = twin.time_us(twin.step)
    found = arm.diary.examples(twin.reports_until(now_us, 0), now_us)
    assert len(found) == 5 * 9 * 48
    assert {"vib_x.kurtosis", "history.oil_slope", "context.mode=idle"} <= set(found.columns)
    young = found.rows["at_us"] + round(DECISION.outcome.maturity_s * 1e6) > now_us
    assert set(found.rows.loc[young, "status"]) == {"pending"}
    assert {"healthy"} < set(found.labelled().rows["state"])


def test_naive_labels_believe_every_action(lived: tuple[Twin, EngineArm]) -> None:
    """Acted upon = needed, the rest = healthy; nothing is censored."""
    twin, arm = lived
    now_us = twin.time_us(twin.step)
    found = naive(arm.diary.examples(twin.reports_until(now_us, 0), now_us), DECISION)
    assert set(found.rows["status"]) == {"mature", "pending"}
    stopped = found.rows["in_force"] == "stop"
    assert stopped.any()
    assert set(found.rows.loc[stopped, "state"]) == {"lubrication"}  # where stopping saves most
    assert set(found.rows.loc[found.rows["in_force"] == "run", "state"]) == {"healthy"}


def test_too_little_data_teaches_nothing_and_changes_nothing() -> None:
    """A learner without two states says why, and its arm decides on as it did."""
    twin, arm = Twin(1, 2, 1), EngineArm("rule", RULE, 2)
    live(twin, [arm])
    learner = Learner(arm)
    learner.learn(twin.reports_until(twin.time_us(twin.step), 0), twin.time_us(twin.step), 0, seed=1)
    assert "labelled rows" in learner.lessons[0].refused
    assert arm.files is RULE


def test_a_regime_changes_the_load_from_its_day_on_and_nothing_before() -> None:
    """The fleet before the change is the same fleet; after it loads and speeds are higher."""
    usual, changed = Twin(5, 3, 4), Twin(5, 3, 4, regime=Regime(2))
    a, b = usual._demand, changed._demand
    np.testing.assert_array_equal(a.load[:96], b.load[:96])
    producing = a.mode[96:] == 0
    assert (b.load[96:] - a.load[96:])[producing].mean() > 0.05
    assert (b.speed[96:] - a.speed[96:])[producing].mean() > 0.03


def test_the_gap_is_what_lies_between_rule_and_oracle() -> None:
    """Only days after the change count; where there is nothing to win there is no share of it."""
    plan = Plan(1, machines=1, rounds=(2, 2), drift=1)
    money = {
        "tuned_threshold": [[9, 9, 200, 200]],
        "oracle": [[1, 1, 100, 100]],
        LEARNED: [[50, 50, 130, 110]],
    }
    outcome = Outcome(plan, {arm: np.array(values, dtype=float) for arm, values in money.items()})
    assert gap_closed(outcome)["gap_closed"] == pytest.approx(0.8)
    level = Outcome(plan, {**outcome.money, "oracle": outcome.money["tuned_threshold"]})
    assert gap_closed(level)["gap_closed"] is None


def test_a_plan_without_a_round_to_learn_in_is_refused() -> None:
    """One round, or a change before anything was learned, is no experiment."""
    with pytest.raises(DataError, match="rounds"):
        Plan(1, rounds=(7,))
    with pytest.raises(DataError, match="rounds"):
        Plan(1, drift=0)
