"""Money per subject-day, paired intervals, event figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")


def ledger(money: np.ndarray[Any, Any]) -> Any:
    """A frame of ``money[subject, day]``."""
    s, d = money.shape
    rows = {"subject": np.repeat([f"s{i}" for i in range(s)], d), "day": np.tile(np.arange(d), s)}
    return pd.DataFrame(rows | {"money": money.ravel()})


MONEY = st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=2, max_size=6)


@given(MONEY, MONEY, st.floats(-1e3, 1e3))
def test_the_paired_difference_does_not_see_what_both_share(a: Any, b: Any, shared: float) -> None:
    """Adding the same money to both ledgers changes neither estimate nor interval."""
    from aiotkit.lab.evaluate import paired_bootstrap

    k = min(len(a), len(b))
    x, y = np.array(a[:k]), np.array(b[:k])
    plain = paired_bootstrap(ledger(x), ledger(y), seed=1, n=50)
    moved = paired_bootstrap(ledger(x + shared), ledger(y + shared), seed=1, n=50)
    assert plain.estimate == pytest.approx((x - y).mean(), abs=1e-6)
    for name in ("estimate", "low", "high"):
        assert getattr(plain, name) == pytest.approx(getattr(moved, name), abs=1e-5)
    assert plain.low <= plain.high


@given(MONEY)
def test_a_policy_against_itself_is_no_difference(a: Any) -> None:
    """The interval of nothing is nothing, whatever the spread of the money."""
    from aiotkit.lab.evaluate import paired_bootstrap

    same = paired_bootstrap(ledger(np.array(a)), ledger(np.array(a)), seed=3, n=50)
    assert (same.estimate, same.low, same.high, same.sure) == (0.0, 0.0, 0.0, False)


def test_the_order_of_rows_and_splitting_of_bookings_do_not_matter() -> None:
    """A ledger is a set of bookings: shuffled and split in halves it says the same."""
    from aiotkit.lab.evaluate import money_per_subject_day, paired_bootstrap

    rng = np.random.default_rng(0)
    a, b = ledger(rng.gamma(1, 20, (8, 30))), ledger(rng.gamma(1, 25, (8, 30)))
    halves = pd.concat([a.assign(money=a["money"] / 2)] * 2).sample(frac=1, random_state=1)
    assert money_per_subject_day(halves) == pytest.approx(money_per_subject_day(a))
    left, right = (paired_bootstrap(x, b, seed=5, n=300) for x in (a, halves))
    assert left.low == pytest.approx(right.low)
    assert left == paired_bootstrap(a, b, seed=5, n=300)
    assert left.low != paired_bootstrap(a, b, seed=6, n=300).low


@pytest.mark.parametrize(("clusters", "resample"), [(8, "subject"), (30, "subject"), (10, "block")])
def test_intervals_hold_the_truth_as_often_as_they_say(clusters: int, resample: Any) -> None:
    """Over 300 simulated studies with correlated clusters, a 90 % interval covers in 84 to 96 %."""
    from aiotkit.lab.evaluate import paired_bootstrap

    rng = np.random.default_rng(11)
    hits = 0
    for i in range(300):
        shared = rng.normal(0, 3, (clusters, 1)) + rng.normal(0, 1, (clusters, 7))
        money = shared if resample == "subject" else shared.ravel()[None, :]
        found = paired_bootstrap(
            ledger(money), ledger(money * 0), resample, seed=i, n=400, level=0.9, block_days=7
        )
        assert found.clusters == clusters
        hits += found.low <= 0 <= found.high
    assert 0.84 <= hits / 300 <= 0.96


def test_ledgers_that_cannot_be_compared_are_refused() -> None:
    """Other days, one subject, a hole: each is refused in words instead of being compared."""
    from aiotkit.lab.evaluate import paired_bootstrap

    a = ledger(np.ones((3, 4)))
    with pytest.raises(DataError, match="different subject-days"):
        paired_bootstrap(a, a.iloc[:-1], seed=1)
    with pytest.raises(DataError, match="at least 2 of them"):
        paired_bootstrap(ledger(np.ones((1, 9))), ledger(np.ones((1, 9))), seed=1)
    with pytest.raises(DataError, match="finite number on every row"):
        paired_bootstrap(a.assign(money=np.nan), a, seed=1)
    with pytest.raises(DataError, match="column 'day' is missing"):
        paired_bootstrap(a.drop(columns="day"), a, seed=1)


def test_the_table_orders_by_money_and_is_sure_only_where_it_is() -> None:
    """A policy that saves ten on every subject is surely cheaper; one that adds noise is not."""
    from aiotkit.lab.evaluate import policy_table

    rng = np.random.default_rng(2)
    base = rng.gamma(2, 20, (15, 20))
    ledgers = {
        "rule": ledger(base),
        "better": ledger(base - 10),
        "noisy": ledger(base + rng.normal(0, 30, base.shape)),
    }
    table = policy_table(ledgers, "rule", seed=1).set_index("policy")
    assert table.index[0] == "better"
    assert table.loc["better", "difference"] == pytest.approx(-10)
    assert table["sure"].to_dict() == {"better": True, "rule": False, "noisy": False}
    with pytest.raises(DataError, match="baseline 'rlue'"):
        policy_table(ledgers, "rlue", seed=1)


TIMES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 400)), max_size=14)


@given(TIMES, TIMES, st.integers(1, 80), st.integers(0, 60))
def test_event_figures_agree_with_their_definition(
    alarms: Any, events: Any, horizon: int, merge: int
) -> None:
    """For any alarms and events: detected, missed, lead, episodes and false ones, counted the slow way."""
    from aiotkit.lab.evaluate import event_figures

    def frame(rows: Any) -> Any:
        return pd.DataFrame({"subject": [s for s, _ in rows], "at_us": [t * 10**6 for _, t in rows]}).astype(
            {"at_us": "int64", "subject": "object"}
        )

    found = event_figures(frame(alarms), frame(events), subject_days=10, horizon_s=horizon, merge_s=merge)
    leads = []
    for s, e in events:
        early = [a for q, a in alarms if q == s and 0 <= e - a <= horizon]
        leads += [float(e - min(early))] if early else []
    episodes: list[list[tuple[str, int]]] = []
    for s, a in sorted(alarms):
        if episodes and episodes[-1][-1][0] == s and a - episodes[-1][0][1] <= merge:
            episodes[-1].append((s, a))
        else:
            episodes.append([(s, a)])
    useless = [
        e for e in episodes if not any(q == s and 0 <= at - a <= horizon for s, a in e for q, at in events)
    ]
    assert sorted(found.lead_s) == sorted(leads)
    assert (found.detected, found.missed) == (len(leads), len(events) - len(leads))
    assert (found.episodes, found.false_episodes) == (len(episodes), len(useless))
    assert found.alarms_per_day == len(episodes) / 10


def test_episodes_are_priced_once_and_unknown_states_stay_unknown(plant: Any) -> None:
    """A day of running is one episode, with one cost; where the state is not known it is bounded."""
    from aiotkit.lab.episodes import episodes, ledger_of, money_by_action
    from aiotkit.lab.journal import decisions_frame
    from aiotkit.lab.outcomes import import_outcomes, resolve

    hour, t0 = 3_600_000_000, 1_780_012_800_000_000
    plant.watch("d1", "pump-a", t0)
    for i in range(48):  # two days of running on, the second one breaks; then six hours slow, then run again
        plant.decide("d1", t0 + i * hour)
    for i in range(48, 54):
        plant.decide("d1", t0 + i * hour, "slow")
    plant.decide("d1", t0 + 54 * hour)
    plant.store()
    rows = {"subject": ["pump-a"], "state": ["broken"], "source": ["crew"]}
    at = [pd.Timestamp(t0 + 40 * hour, unit="us", tz="UTC")]
    import_outcomes(plant.lake, pd.DataFrame(rows | {"at": at}), plant.decision, imported_us=t0 + 99 * hour)
    labels = resolve(plant.lake, plant.decision, t0 + 90 * 24 * hour)
    found = episodes(decisions_frame(plant.lake), labels, plant.decision)
    assert found["action"].tolist() == ["run", "run", "slow", "run"]
    assert found["ended"].tolist() == ["horizon", "horizon", "changed", "open"]
    assert found["cost"].tolist() == [0.0, 900.0, 60.0, 0.0]
    book = ledger_of(found, labels)
    assert book["money"].sum() == 960
    assert book.groupby(["subject", "day"]).ngroups == 3
    assert money_by_action(found).set_index("action").loc["run", "money"] == 900
    pending = resolve(plant.lake, plant.decision, t0 + 47 * hour)
    early = episodes(decisions_frame(plant.lake), pending, plant.decision)
    assert early["cost"].isna().tolist() == [True, True]
    assert (early["low"][0], early["high"][0]) == (0, 900)


def test_a_failure_before_the_action_is_paid_by_what_let_it_happen(plant: Any) -> None:
    """Broken at hour 5, slowed at hour 6: too late. Broken at hour 9: in time. Not known yet: bounded."""
    from aiotkit.lab.episodes import episodes
    from aiotkit.lab.journal import decisions_frame
    from aiotkit.lab.outcomes import import_outcomes, resolve

    hour, t0 = 3_600_000_000, 1_780_012_800_000_000
    for i, subject in enumerate(("pump-a", "pump-b")):
        plant.watch(f"d{i}", subject, t0)
        plant.decide(f"d{i}", t0)
        plant.decide(f"d{i}", t0 + 6 * hour, "slow")
    plant.store()
    at = [pd.Timestamp(t0 + h * hour, unit="us", tz="UTC") for h in (5, 9)]
    rows = {"subject": ["pump-a", "pump-b"], "state": "broken", "source": "crew", "at": at}
    import_outcomes(plant.lake, pd.DataFrame(rows), plant.decision, imported_us=t0 + 20 * hour)
    matures = round(plant.decision.outcome.maturity_s * 1e6)

    def cost(as_of_us: int) -> list[float]:
        labels = resolve(plant.lake, plant.decision, as_of_us)
        found = episodes(decisions_frame(plant.lake), labels, plant.decision)
        assert found["ended"].tolist() == ["changed", "open"] * 2
        early = found[found["action"] == "run"]
        return [*early["low"], *early["high"], *early["cost"]]

    assert cost(t0 + matures + 7 * hour) == [900.0, 0.0, 900.0, 0.0, 900.0, 0.0]
    assert cost(t0 + matures + hour) == pytest.approx([0, 0, 900, 900, np.nan, np.nan], nan_ok=True)


def test_a_run_cut_short_by_an_action_costs_nothing_itself(plant: Any) -> None:
    """What came of it is the next episode's; the action that intervened is paid."""
    from aiotkit.lab.episodes import episodes
    from aiotkit.lab.journal import decisions_frame
    from aiotkit.lab.outcomes import resolve

    hour, t0 = 3_600_000_000, 1_780_012_800_000_000
    plant.watch("d1", "pump-a", t0)
    plant.decide("d1", t0)
    plant.decide("d1", t0 + hour, "slow")
    plant.decide("d1", t0 + 2 * hour, None)
    plant.store()
    labels = resolve(plant.lake, plant.decision, t0 + 900 * hour)
    found = episodes(decisions_frame(plant.lake), labels, plant.decision)
    assert found["ended"].tolist() == ["changed", "changed", "open"]
    assert found["cost"][:2].tolist() == [0.0, 60.0]
    assert bool(np.isnan(found["cost"][2]))
