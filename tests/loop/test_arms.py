"""Policies side by side, and the decision file's costs against the twin's ledger."""

from __future__ import annotations

import numpy as np
import pytest

from aiotkit.lab.features import Front, compute_features, export_front
from aiotkit.loop import maintenance
from aiotkit.loop.arms import live
from aiotkit.loop.engine_arm import EngineArm
from aiotkit.loop.episodes import episode_costs
from aiotkit.loop.learning import rule_files
from aiotkit.loop.look import bearing_decision, look
from aiotkit.loop.policies import Constant, Threshold, Thresholds, cheapest
from aiotkit.loop.twin import Twin

pytestmark = pytest.mark.desk


def test_the_costs_of_the_decision_file_are_those_of_the_ledger():
    """Every cost agrees with the mean over simulated episodes, within 15 % or 60 EUR."""
    decision = bearing_decision()
    assert not isinstance(decision.costs, str)
    seen: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for seed in range(100, 104):
        for action, row in episode_costs(seed, machines=120).items():
            for state, value in row.items():
                seen.setdefault((action, state), []).append(value)
    for (action, state), values in seen.items():
        count = sum(n for _, n in values)
        mean = sum(m * n for m, n in values) / count
        assert count > 300
        assert decision.costs[action][state] == pytest.approx(mean, rel=0.15, abs=60), (action, state)


def test_the_decision_file_names_what_the_twin_knows():
    """States, signals, context, window and horizon of the file are those of the twin."""
    decision = bearing_decision()
    assert tuple(decision.states) == maintenance.STATES
    seen = Twin(1, 1, 1).observe()
    assert set(decision.signals) == set(seen.windows)
    assert set(decision.context) == set(seen.context)
    assert all(decision.samples(s) == seen.windows[s].shape[-1] for s in decision.signals)
    assert decision.outcome.horizon_s == maintenance.HORIZON_H * 3600
    assert decision.human is not None
    assert decision.human.reliability == maintenance.INSPECTOR_RIGHT


def test_features_of_the_arms_are_those_of_the_bundle():
    """What an arm reads as a feature is what the decision's front computes from the same windows."""
    decision = bearing_decision()
    twin = Twin(2, 3, 1)
    seen = look(twin)
    front = Front(decision)
    windows = {name: values[0] for name, values in seen.seen.windows.items()}
    expected = compute_features(front, windows)
    found = np.stack([seen.feature(name)[0] for name in front.names], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, equal_nan=True)


def test_a_threshold_acts_on_its_feature_alone():
    """Above the limit it throttles, below it runs, and NaN is no alarm."""
    twin = Twin(3, 2, 1, arms=3)
    arms = Thresholds([Threshold("vib_x.rms", x, 0.6) for x in (0.0, 1e9, float("nan"))])
    order = arms.order(look(twin), slice(0, 3), twin)
    np.testing.assert_array_equal(order, [[0.6, 0.6], [1, 1], [1, 1]])


def test_never_acting_breaks_down_and_always_acting_loses_production():
    """The two constant arms pay in different coin."""
    spent = live(Twin(4, 6, 6, arms=2), [Constant("always", 0.6), Constant("never", 1.0)]).categories
    assert spent["service"].sum() == 0
    assert spent["breakdown"][1] > spent["breakdown"][0]
    assert spent["production"][0] > spent["production"][1]


def test_the_rule_stops_a_spalled_machine_and_starts_it_again():
    """Impulses on two axes in two windows stop the machine; once the crew is done it runs."""
    from dataclasses import replace

    twin = Twin(5, 1, 2)
    twin._hidden.wear = replace(twin._hidden.wear, spall_mm=np.full((1, 1), 5.0))
    decision = bearing_decision()
    rule = EngineArm("rule", rule_files(decision, *export_front(decision)), 1)
    orders = []
    while not twin.done:
        order = rule.order(look(twin), slice(0, 1), twin)
        orders.append(float(order[0, 0]))
        twin.advance(order)
    stopped = orders.index(0.0)
    assert stopped <= 12
    assert 1.0 in orders[stopped:]
    assert twin.ledger.by_category()["breakdown"][0] == 0


def test_a_known_state_has_a_cheapest_action():
    """What a technician answers: run when healthy, stop otherwise."""
    decision = bearing_decision()
    assert [cheapest(decision, s) for s in maintenance.STATES] == ["run", "stop", "stop"]
