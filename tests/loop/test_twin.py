"""The simulated fleet: physics, crew, ledger, and that nobody looks behind the curtain."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import aiotkit
from aiotkit.core.errors import DataError
from aiotkit.edge.sources import Packet
from aiotkit.loop import bearing, ledger, maintenance, wear, weather
from aiotkit.loop.maintenance import Report
from aiotkit.loop.twin import HOURS, RELEASED, STEPS_PER_DAY, Twin
from aiotkit.loop.wear import Duty, Wear

pytestmark = pytest.mark.desk
#: the twin itself, the costing of the decision file, and nothing else
MAY_LOOK_INSIDE = {"twin.py", "episodes.py"}
SECRETS = {"_hidden", "_demand", "_faults", "_build", "_wear_u", "_crew_u", "_report_u", "_inspect_u"}


def worn(twin: Twin, **changed: float | bool) -> None:
    """Give every machine of every arm a condition."""
    now = twin._hidden.wear
    values = {f.name: getattr(now, f.name) for f in fields(Wear)}
    for name, value in changed.items():
        values[name] = np.full_like(values[name], value)
    twin._hidden.wear = Wear(**values)


def test_nobody_but_the_twin_reads_its_hidden_state():
    """No module of the package outside the twin and the costing touches what is hidden."""
    package = Path(aiotkit.__file__).parent
    readers = set()
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        touched = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)} & SECRETS
        own = {
            n.attr
            for n in ast.walk(tree)
            if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "self"
        }
        if "_hidden" in touched or (touched - own):
            readers.add(path.name)
    assert readers == MAY_LOOK_INSIDE


def test_a_packet_is_what_was_observed_and_nothing_else():
    """Whatever the hidden state becomes after the look, the packet stays; it has only declared content."""
    twin = Twin(3, 2, 1)
    seen = twin.observe()
    before = twin.packet(1, seen=seen)
    worn(twin, spall_mm=6.0, lubricant=0.0, oil_c=90.0)
    after = twin.packet(1, seen=seen)
    assert before.points == after.points
    assert before.context == after.context
    assert {f.name for f in fields(Packet)} == {"at_us", "samples", "points", "context"}
    assert set(before.samples) == {"vib_x", "vib_y", "vib_z"}
    for name, samples in before.samples.items():
        np.testing.assert_array_equal(samples.values, after.samples[name].values)
        np.testing.assert_array_equal(samples.values, seen.windows[name][0, 1])
        assert samples.end_us == seen.at_us
    assert {name for name, _, _ in before.points} <= {"oil_temp"}
    assert {name for name, _, _ in before.context} <= {"load", "speed", "mode", "ambient"}


def test_reports_hold_what_people_can_write_down():
    """A report names subject, source, state and times, and is not known before it is written."""
    assert [f.name for f in fields(Report)] == ["id", "subject", "source", "state", "at_us", "known_us"]
    twin = Twin(4, 30, 2)
    worn(twin, spall_mm=11.0)
    while not twin.done:
        twin.advance(1.0)
    end = twin.time_us(twin.steps)
    late = twin.reports_until(end + 3 * 86_400_000_000)
    assert late
    assert all(r.known_us > r.at_us for r in late)
    first = late[0]
    assert first not in twin.reports_until(first.known_us - 1)
    assert first in twin.reports_until(first.known_us)


def test_some_work_orders_are_never_written_and_some_are_wrong():
    """Of many breakdowns by a spall, about the declared shares go unreported or under another cause."""
    twin = Twin(5, 300, 2)
    worn(twin, spall_mm=11.9, lubricant=1.0, starving=False)
    for _ in range(30):
        twin.advance(1.0)
    broke = int((twin.ledger.entries[0, :, :, ledger.BREAKDOWN] // ledger.PRICES.breakdown[1]).sum())
    reports = [r for r in twin.reports_until(2**62) if r.source == "work_order"]
    assert broke > 200
    assert len(reports) / broke == pytest.approx(1 - maintenance.ORDER_MISSED, abs=0.06)
    wrong = np.mean([r.state != "bearing" for r in reports])
    assert wrong == pytest.approx(maintenance.ORDER_WRONG, abs=0.04)


def test_arms_with_equal_orders_live_equal_lives():
    """Common random numbers: arms differ by what is done to them only, window by window."""
    twin = Twin(6, 3, 2, arms=3)
    order = np.array([[1.0] * 3, [1.0] * 3, [0.6] * 3])
    for _ in range(60):
        twin.advance(order)
    seen = twin.observe()
    np.testing.assert_array_equal(seen.windows["vib_x"][0], seen.windows["vib_x"][1])
    assert (seen.windows["vib_x"][0] != seen.windows["vib_x"][2]).any()
    money = twin.ledger.money()
    np.testing.assert_array_equal(money[0], money[1])


def test_an_arm_does_not_depend_on_the_other_arms():
    """A twin of one arm lives exactly as the same arm of a larger comparison."""
    alone, beside = Twin(7, 2, 2), Twin(7, 2, 2, arms=2)
    for _ in range(90):
        alone.advance(1.0)
        beside.advance(np.array([[0.0, 0.6], [1.0, 1.0]]))
    one, two = alone.observe(), beside.observe()
    np.testing.assert_array_equal(alone.ledger.money()[0], beside.ledger.money()[1])
    np.testing.assert_array_equal(one.windows["oil_temp"][0], two.windows["oil_temp"][1])
    np.testing.assert_allclose(one.windows["vib_y"][0], two.windows["vib_y"][1], rtol=1e-5, atol=1e-6)


def test_a_longer_run_begins_like_a_shorter_one():
    """The number of days asked for does not change the past."""
    short, long = Twin(8, 2, 1), Twin(8, 2, 3)
    for _ in range(40):
        short.advance(1.0)
        long.advance(1.0)
    np.testing.assert_array_equal(short.observe().windows["vib_z"], long.observe().windows["vib_z"])


def test_looking_changes_nothing():
    """Observing twice gives the same windows and the same future as observing once or never."""
    watched, alone = Twin(9, 2, 1), Twin(9, 2, 1)
    for _ in range(20):
        np.testing.assert_array_equal(watched.observe().rows, watched.observe().rows)
        watched.advance(1.0)
        alone.advance(1.0)
    np.testing.assert_array_equal(watched.observe().rows, alone.observe().rows)


def test_a_stop_is_latched_until_the_crew_hands_the_machine_back():
    """An order to run does not start a stopped machine; after the service it does."""
    twin = Twin(10, 4, 2)
    worn(twin, spall_mm=5.0)
    twin.advance(0.0)
    released_at = None
    for k in range(60):
        twin.advance(np.where(twin.released, 0.0, 1.0))
        if released_at is None:
            assert (twin.observe().context["mode"] != "production").all() or twin.released.any()
        if twin.released.all():
            released_at = k
            break
    assert released_at is not None
    assert twin.ledger.by_category()["service"][0] > 0
    assert twin.ledger.by_category()["breakdown"][0] == 0
    twin.advance(1.0)
    assert not twin.released.any()
    assert (twin._hidden.phase != RELEASED).all()


def test_throttling_slows_the_wear_and_costs_production():
    """At 60 % speed spalls grow slower, fewer machines break, and production is lost."""
    twin = Twin(11, 60, 4, arms=2)
    worn(twin, spall_mm=2.0)
    for _ in range(2 * STEPS_PER_DAY):
        twin.advance(np.array([[1.0] * 60, [0.6] * 60]))
    spent = twin.ledger.by_category()
    assert spent["breakdown"][1] < 0.5 * spent["breakdown"][0]
    assert spent["production"][1] > 0
    assert (spent["production"] >= 0).all()


def test_life_at_full_load_is_that_of_an_accelerated_test():
    """At full speed and load a new machine needs service after five to eight days on average."""
    rng = np.random.default_rng(0)
    now, duty = wear.fresh((1500,), 40.0), Duty(np.ones(1500), np.ones(1500))
    ended = np.full(1500, np.nan)
    for k in range(50 * STEPS_PER_DAY):
        now, broke, seized = wear.advance(now, duty, np.array(15.0), rng.random((1500, wear.DRAWS)), HOURS)
        ended = np.where(np.isnan(ended) & (broke | seized), k * HOURS / 24, ended)
    assert not np.isnan(ended).any()
    assert 5 < ended.mean() < 8


def test_a_spall_shows_at_the_ball_pass_frequency():
    """The envelope spectrum of a large outer-race spall peaks at the ball-pass frequency (McFadden 1984)."""
    peaks = np.zeros(bearing.SAMPLES // 2 + 1)
    for step in range(20):
        parts = bearing.components(1, 0, step, bearing.RATED_RPM, bearing.noise(1, 0, step))
        window = 5 * parts[4, : bearing.SAMPLES] + parts[2, : bearing.SAMPLES]
        envelope = window.astype(float) ** 2
        peaks += np.abs(np.fft.rfft((envelope - envelope.mean()) * np.hanning(bearing.SAMPLES)))
    outer, _ = bearing.ball_pass_hz(np.array(bearing.RATED_RPM / 60))
    found = np.argmax(peaks[10:120]) + 10
    assert found * bearing.RATE_HZ / bearing.SAMPLES == pytest.approx(float(outer), abs=4.0)


def test_rms_follows_load_and_speed_more_than_early_damage():
    """A single threshold on rms cannot work: healthy machines differ more than an early spall adds."""
    build = bearing.Build.draw(1, 1)
    calm = bearing.Nuisance(np.zeros(1), np.zeros(1))

    def power(spall: float, speed: float, load: float) -> float:
        state = wear.fresh((1,))
        state = Wear(np.array([spall]), state.inner, state.lubricant, state.starving, state.oil_c)
        duty = Duty(np.array([speed]), wear.bearing_load(np.array([speed]), np.array(load)))
        strength = bearing.amplitudes(state, duty, np.array([load]), build, calm)[0].astype(np.float32)
        parts = bearing.components(1, 0, 0, speed * bearing.RATED_RPM, bearing.noise(1, 0, 0))
        return float(np.sqrt(np.mean((strength @ parts)[: bearing.SAMPLES] ** 2)))

    assert power(0.0, 1.05, 1.1) > power(1.6, 0.9, 0.8)
    assert power(6.0, 0.96, 0.9) > 1.5 * power(0.0, 0.96, 0.9)


def test_every_kind_of_sensor_fault_occurs_and_shows():
    """Stuck, shifted, dead and spiky axes all occur; the windows show them."""
    twin = Twin(12, 40, 14)
    kinds = {int(k) for k in np.unique(twin._faults.axes)}
    assert kinds == {0, 1, 2, 3, 4}
    found: dict[int, np.ndarray] = {}
    for _ in range(twin.steps):
        faults = twin._faults.axes[twin.step, :, 0]
        if set(np.unique(faults)) - set(found) - {0}:
            windows = twin.observe().windows["vib_x"][0]
            found |= {int(f): windows[m] for m, f in enumerate(faults) if f and f not in found}
        twin.advance(1.0)
        if len(found) == 4:
            break
    assert np.ptp(found[1]) == 0
    assert abs(found[2].mean()) > 5
    assert np.isnan(found[3]).any()
    assert np.ptp(found[4]) > 20


def test_inspections_cost_and_come_back_with_a_report():
    """An inspection is booked, by its reason, and reports after the declared delay."""
    twin = Twin(13, 2, 1)
    twin.request_inspection(0)
    twin.request_inspection(1, verify=True)
    for _ in range(4):
        assert not twin.reports_until(twin.time_us(twin.step))
        twin.advance(1.0)
    assert {r.subject for r in twin.reports_until(twin.time_us(twin.step))} == {0, 1}
    spent = twin.ledger.by_category()
    assert spent["inspection"][0] == spent["verification"][0] == ledger.PRICES.inspection


def test_the_year_is_in_the_weather():
    """July is warmer than January, by the season and not by chance."""
    hours = np.arange(0, 240, 0.5)
    assert weather.ambient(1, hours, 190).mean() > weather.ambient(1, hours, 15).mean() + 10


def test_nonsense_is_refused():
    """A fleet of nothing, an impossible speed, and a step past the end are refused in words."""
    with pytest.raises(DataError, match="at least 1"):
        Twin(1, 0)
    twin = Twin(1, 1, 1)
    with pytest.raises(DataError, match=r"a share in \[0, 1\]"):
        twin.set_speed(0, 1.5)
    with pytest.raises(DataError, match=r"shares in \[0, 1\]"):
        twin.advance(np.array([[float("nan")]]))
    while not twin.done:
        twin.advance()
    with pytest.raises(DataError, match="Give more days"):
        twin.advance()


def test_what_is_to_be_expected_is_what_comes_on_average():
    """The hidden risk, which takes the luck out of comparisons, agrees with what many machines suffer."""
    came = expected = 0.0
    for seed in (14, 15, 16):
        twin = Twin(seed, 400, 10)
        while not twin.done:
            twin.advance(1.0)
        came += float(twin.ledger.by_category()["breakdown"][0])
        expected += float(twin._hidden.risk.sum())
    spread = np.sqrt(came * max(ledger.PRICES.breakdown))  # of a sum of independent lumps
    assert abs(came - expected) < 3.5 * spread < 0.15 * came
