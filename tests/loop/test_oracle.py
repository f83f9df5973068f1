"""The oracle: sees no more than others, and does better."""

from __future__ import annotations

import numpy as np
import pytest

from aiotkit.lab.features import export_front
from aiotkit.loop import wear
from aiotkit.loop.arms import live
from aiotkit.loop.engine_arm import EngineArm
from aiotkit.loop.learning import rule_files
from aiotkit.loop.look import bearing_decision
from aiotkit.loop.oracle import Oracle
from aiotkit.loop.policies import Constant, Policy, Threshold, Thresholds
from aiotkit.loop.rounds import with_checks
from aiotkit.loop.spectrum import Spectrum, band_power
from aiotkit.loop.twin import Twin
from aiotkit.loop.value import corners, grid, values
from aiotkit.loop.wear import Wear

pytestmark = pytest.mark.desk


def one(spall: float, lubricant: float = 1.0, *, starving: bool = False) -> Wear:
    """A single condition."""
    return Wear(
        np.array([spall]), np.array([False]), np.array([lubricant]), np.array([starving]), np.array([30.0])
    )


def test_value_runs_on_when_new_and_stops_when_spent():
    """By day, a new machine should run, one about to break should stop; the more damage the less worth."""
    table = values()
    noon = 24
    assert table.of(noon, 0, one(0.0)).argmin() == 0
    assert table.of(noon, 0, one(6.0)).argmin() == 2
    assert table.of(noon, 0, one(0.0, 0.03, starving=True)).argmin() == 2
    worth = [float(table.of(noon, 0, one(s)).min()) for s in (0.0, 0.5, 1.0, 6.0)]
    assert worth == sorted(worth)


def test_corners_reproduce_what_they_stand_for():
    """Interpolation weights are a distribution and give back ln size and lubricant."""
    states = grid()
    index, weight = corners(one(1.7, 0.33))
    assert weight.sum() == pytest.approx(1)
    assert (weight >= 0).all()
    logs = np.log(states.spall_mm[index]) @ weight[0]
    assert float(logs[0] if logs.ndim else logs) == pytest.approx(np.log(1.7))
    assert float((states.lubricant[index] * weight).sum()) == pytest.approx(0.33)


def test_the_observation_model_is_that_of_the_twin():
    """Band powers of simulated windows average to what the model expects, component by component."""
    from aiotkit.loop import bearing

    model = Spectrum()
    strength = np.array([[[0.5, 0.3, 0.7, 0.4, 1.5, 0.0, 0.03]]])
    seen = np.zeros((bearing.AXES, 4))
    for step in range(60):
        parts = bearing.components(77, 1, step, 0.9 * bearing.RATED_RPM, bearing.noise(77, 1, step))
        rows = (strength[0].astype(np.float32) @ parts).reshape(bearing.AXES, bearing.SAMPLES)
        seen += band_power(rows) / 60
    still, flow = model.expected(strength, np.array([0.9]))
    np.testing.assert_allclose(seen, (still + flow)[0, 0], rtol=0.15)


def test_the_filter_follows_a_growing_spall():
    """Once a spall is large, the particles know its size within a factor of 1.6."""
    from dataclasses import replace

    from aiotkit.loop.look import look

    twin = Twin(21, 4, 3)
    oracle = Oracle(21, 4)
    for _ in range(40):
        twin.advance(oracle.order(look(twin), slice(0, 1), twin))
    size = np.where(twin._hidden.phase[0] == 0, 0.8, 0.0)[np.newaxis]
    twin._hidden.wear = replace(twin._hidden.wear, spall_mm=size)
    for _ in range(60):
        seen = look(twin)
        truth = twin._hidden.wear.spall_mm[0]
        twin.advance(oracle.order(seen, slice(0, 1), twin))
        belief = oracle._belief
        assert belief is not None
        weight = np.exp(belief.log_weight - belief.log_weight.max(axis=1, keepdims=True))
        mean = (weight * belief.wear.spall_mm).sum(axis=1) / weight.sum(axis=1)
        for m in np.flatnonzero((truth > 2.0) & (twin._hidden.phase[0] == 0)):
            assert truth[m] / 1.6 < mean[m] < truth[m] * 1.6
    assert twin.ledger.by_category()["service"][0] > 0


def rule_arm(machines: int) -> EngineArm:
    """The written rule, decided by the device's engine."""
    decision = with_checks(bearing_decision(), 0.0)
    return EngineArm("rule", rule_files(decision, *export_front(decision)), machines)


def test_the_oracle_beats_rule_thresholds_and_constants():
    """Over three seeds the oracle costs less than the written rule and every single threshold tried."""
    thresholds = [Threshold("oil_temp.last", x, 0.0) for x in (38.0, 40.0, 42.0)]
    thresholds += [Threshold("vib_y.p2p", 8.9, 0.0), Threshold("vib_x.rms", 1.45, 0.0)]
    money: dict[str, list[float]] = {}
    for seed in (31, 32, 33):  # reduced: 6 machines, 8 days
        policies: list[Policy] = [
            Oracle(seed, 6),
            rule_arm(6),
            Thresholds(thresholds),
            Constant("never", 1.0),
            Constant("always", 0.6),
        ]
        arms = sum(len(p.names) for p in policies)
        twin = Twin(seed, 6, 8, arms=arms)
        lived = live(twin, policies)
        # breakdowns at what was to be expected, not at what came: unbiased, and without most of the luck
        fair = lived.money.sum(axis=(1, 2)) - lived.categories["breakdown"] + twin._hidden.risk.sum(axis=1)
        for name, total in zip(lived.names, fair, strict=True):
            money.setdefault(name, []).append(float(total) / (6 * 8))
    mean = {name: float(np.mean(values)) for name, values in money.items()}
    best = min(mean, key=lambda name: mean[name])
    assert best == "oracle", mean


def test_fatigue_follows_speed_and_the_cube_of_load():
    """ISO 281: half the load, an eighth of the fatigue; half the speed, half."""
    full = wear.Duty(np.array([1.0, 1.0, 0.5]), np.array([1.0, 0.5, 1.0]))
    rate = wear.fatigue_rate(full, np.zeros(3))
    np.testing.assert_allclose(rate, [1, 1 / 8, 1 / 2])
