"""Actions from probabilities as the device proposes them, and their money as episodes cost it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiotkit.core.decision import parse_decision
from aiotkit.core.errors import DataError, DecisionFileError

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")

HOUR_US = 3_600_000_000
START_US = 1_767_225_600_000_000  # 2026-01-01


def asking(document: dict[str, Any], **human: float) -> Any:
    """The decision with a person to ask."""
    return parse_decision(document | {"human": {"cost": 8, "delay_s": 60, "reliability": 0.9} | human})


def stretch(states: list[str], subject: str = "p1", every_us: int = HOUR_US) -> Any:
    """Rows of one subject at equal steps."""
    at = START_US + every_us * np.arange(len(states))
    return pd.DataFrame({"subject": subject, "at_us": at, "state": states})


def test_actions_are_the_devices_for_random_probabilities_and_tables(document: dict[str, Any]) -> None:
    """For thousands of p, cost tables full of ties, margins and people to ask, the device's own choice."""
    from aiotkit.core.policy import least_expected_cost
    from aiotkit.lab.judge import actions_of

    rng = np.random.default_rng(7)
    document["actions"]["stop"] = {"reversible": False, "actuator": "drive"}
    document["actions"]["call"] = {}
    seen = set()
    for i in range(150):
        costs = rng.integers(0, 4, (4, 3)) * 10 if i % 2 else rng.gamma(1, 50, (4, 3)).round(2)
        table = {
            a: dict(zip(document["states"], row.tolist(), strict=True))
            for a, row in zip(document["actions"], costs, strict=True)
        }
        human = {"cost": float(rng.integers(0, 15)), "delay_s": 1, "reliability": float(rng.choice([0.5, 1]))}
        margin = float(rng.integers(0, 3) * 5)
        spec = {"costs": table, "human": human if i % 3 else None, "policy": {"margin": margin}}
        document["actions"]["call"] = {"intervenes": bool(i % 5)}
        decision = parse_decision(document | spec)
        p = np.concatenate(
            [
                rng.dirichlet([0.5] * 3, 20),
                np.eye(3),
                rng.multinomial(4, [1 / 3] * 3, 10) / 4,
                rng.dirichlet([1] * 3, 4) * [[1.0009], [1.0011], [0.9991], [0.9989]],
                [[np.nan, 0.5, 0.5], [1.2, -0.1, -0.1], [0, 0, 0], [np.inf, 0, 0], [0.25, 0.25, 0.25]],
            ]
        )
        found = actions_of(p, decision).tolist()
        said = [
            least_expected_cost(dict(zip(decision.states, row, strict=True)), decision).action
            for row in p.tolist()
        ]
        assert found == [decision.recovery if a is None else a for a in said]
        seen |= set(found)
    assert seen == {"run", "slow", "stop", "call", "ask"}


def test_what_is_novel_goes_to_a_person_and_doubt_to_recovery(document: dict[str, Any]) -> None:
    """Novelty above 1 asks, or recovers where nobody can be asked; no distribution or no number recovers."""
    from aiotkit.lab.judge import actions_of

    p = np.array([[1.0, 0, 0]] * 4 + [[np.nan, 1, 0]])
    novelty = np.array([[0.3], [1.0], [1.1], [np.nan], [9.0]])
    expected = ["run", "run", "ask", "slow", "slow"]
    assert actions_of(p, asking(document), novelty).tolist() == expected
    alone = parse_decision(document)
    assert actions_of(p, alone, novelty.ravel()).tolist() == ["run", "run", "slow", "slow", "slow"]
    with pytest.raises(DataError, match="novelty; expected 5 values; found 4"):
        actions_of(p, alone, novelty[:4])
    with pytest.raises(DataError, match=r"p; expected \[rows, 3 states\]; found \[4, 2\]"):
        actions_of(np.ones((4, 2)), alone)


def random_rows(rng: Any, decision: Any, n: int) -> tuple[Any, Any]:
    """Rows of some subjects at irregular instants, in no order, with actions that hold for a while."""
    subject = rng.choice(["a", "b", "c"], n)
    at = START_US + rng.choice(400, n, replace=False) * HOUR_US
    rows = pd.DataFrame({"subject": subject, "at_us": at, "state": rng.choice(list(decision.states), n)})
    actions = np.array(list(decision.actions), dtype=object)[
        (at // (7 * HOUR_US)) % 2 ^ (rng.random(n) < 0.2)
    ]
    return rows, actions


def held(rows: Any, actions: Any, guard: Any) -> Any:
    """The same actions, where one that intervenes is kept up to its horizon whatever comes meanwhile."""
    out, horizon = np.array(actions, dtype=object), round(guard.outcome.horizon_s * 1e6)
    kept: dict[str, tuple[str, int]] = {}
    for i in np.argsort(rows["at_us"].to_numpy(), kind="stable"):
        subject, at = rows["subject"].iloc[i], int(rows["at_us"].iloc[i])
        action, until = kept.get(subject, ("", 0))
        if at < until:
            out[i] = action
        elif guard.actions[out[i]].intervenes:
            kept[subject] = (out[i], at + horizon)
    return out


def test_money_is_that_of_episodes_of_actions_that_hold(guard: Any) -> None:
    """Money is what ``lab.episodes`` says of the actions, each kept up to its horizon once it intervenes."""
    from aiotkit.lab.episodes import episodes, ledger_of
    from aiotkit.lab.evaluate import check_ledger
    from aiotkit.lab.judge import money_of

    rng = np.random.default_rng(3)
    for _ in range(25):
        rows, actions = random_rows(rng, guard, int(rng.integers(1, 120)))
        keys = rows.assign(device="d", journal_id="j", seq=np.arange(len(rows)), status="mature")
        found = episodes(keys.assign(in_force=held(rows, actions, guard)), keys, guard)
        slow = check_ledger(ledger_of(found, keys))
        fast = check_ledger(money_of(rows, actions, guard))
        assert fast["subject"].tolist() == slow["subject"].tolist()
        assert fast["day"].tolist() == slow["day"].tolist()
        assert fast["money"].to_numpy() == pytest.approx(slow["money"].to_numpy())
        assert fast["money"].sum() > 0 or set(actions) == {"run"}


def test_acting_after_the_failure_does_not_undo_it(guard: Any) -> None:
    """Running into the failure and slowing down then costs both; slowing down before it the action alone."""
    from aiotkit.lab.judge import money_of

    rows = stretch(["broken"] * 5 + ["ok"] * 19)  # the failure comes with hour 5
    for slowed, spent in ((4, 60), (5, 960), (9, 960)):
        said = ["run"] * slowed + ["slow"] * (24 - slowed)
        assert money_of(rows, said, guard)["money"].sum() == pytest.approx(spent), slowed


def test_waiting_is_paid_for_the_time_it_lasted(document: dict[str, Any]) -> None:
    """Two ways of waiting that take turns cost what each costs, by its share; nothing is free by changing."""
    from aiotkit.lab.judge import money_of

    document["actions"]["watch"] = {}
    document["costs"]["run"]["ok"] = 24
    document["costs"]["watch"] = {"ok": 48, "worn": 48, "broken": 48}
    decision = parse_decision(document)
    rows = stretch(["ok"] * 48)
    for said in (["run", "watch"] * 24, [*["run"] * 5, "watch"] * 8):
        spent = money_of(rows, said, decision)["money"].sum()
        hourly = said.count("run") + 2 * said.count("watch")
        assert spent == pytest.approx(hourly - 2 + 48)  # nothing followed the last: taken to go on


def test_an_answer_that_comes_too_late_does_not_help(document: dict[str, Any]) -> None:
    """Asked three hours before it breaks: in time for an answer after two hours, not after four."""
    from aiotkit.lab.judge import money_of

    rows, said = stretch(["broken"] * 3 + ["ok"] * 21), ["ask", *["run"] * 23]
    for hours, spent in ((2, 68), (4, 968)):
        human = {"cost": 8, "delay_s": 3600 * hours, "reliability": 1}
        decision = parse_decision(document | {"human": human})
        assert money_of(rows, said, decision)["money"].sum() == pytest.approx(spent)


def test_a_row_that_comes_a_little_early_ends_the_horizon(guard: Any) -> None:
    """A look a day, with a second of jitter: each day is paid once, as without it."""
    from aiotkit.lab.judge import money_of

    daily = guard.model_copy(update={"window": guard.window.model_copy(update={"every_s": 86_400.0})})
    rows = stretch(["broken"] * 40).assign(at_us=lambda r: START_US + (r["at_us"] - START_US) * 24)
    jitter = np.random.default_rng(1).integers(0, 1_000_000, len(rows))
    for said in ("run", "slow"):
        exact = money_of(rows, [said] * 40, daily)["money"].sum()
        moved = money_of(rows.assign(at_us=rows["at_us"] + jitter), [said] * 40, daily)["money"].sum()
        assert exact == moved > 0


def test_a_horizon_much_shorter_than_the_step_prices_each_row_once(guard: Any) -> None:
    """A burst of a second an hour: the tolerance for early rows stays below the horizon."""
    from aiotkit.lab.judge import money_of

    outcome = guard.outcome.model_copy(update={"horizon_s": 1.0})
    burst = guard.model_copy(
        update={"window": guard.window.model_copy(update={"every_s": 3600.0}), "outcome": outcome}
    )
    rows = stretch(["broken"] * 3 + ["ok"] * 21)
    assert money_of(rows, ["run"] * 24, burst)["money"].sum() == pytest.approx(3 * 900)


def test_asking_always_is_a_policy_that_needs_no_data(document: dict[str, Any]) -> None:
    """Where somebody can be asked; and a threshold may ask above its limit."""
    from aiotkit.lab.judge import money_of, references, thresholds

    document["human"] = {"cost": 1, "delay_s": 60, "reliability": 1, "holds_s": 3600}
    decision = parse_decision(document)
    rows = plant(decision, 4)
    assert "always ask" in references(rows, decision)
    noise = np.random.default_rng(2).normal(0, 0.7, (len(rows), 1))
    blurred = (rows["state"] == "broken").to_numpy()[:, None] + noise
    best = thresholds(rows, blurred, ["a"], decision)
    assert best is not None
    assert "ask" in (best.action, best.otherwise)
    spent = money_of(rows, best.actions(blurred, ["a"]), decision)["money"]
    assert best.money == pytest.approx(spent.mean())


def test_slices_add_up_to_the_whole(guard: Any) -> None:
    """Episodes are cut on all rows and counted where they began: parts sum to what the whole cost."""
    from aiotkit.lab.judge import compare, references

    rows = plant(guard, 6)
    policies = references(rows, guard)
    odd = (np.arange(len(rows)) // 3) % 2 == 1
    found = [
        compare(rows, policies, guard, baseline="always run", seed=1, within=part).set_index("policy")
        for part in (None, odd, ~odd)
    ]
    for name in policies:
        whole, *parts = (t.loc[name, "money_per_subject_day"] * t.loc[name, "subject_days"] for t in found)
        assert sum(parts) == pytest.approx(whole)


def test_asking_costs_the_person_and_what_he_does_not_know(document: dict[str, Any]) -> None:
    """One question for one horizon, at the one price: his cost, and the best action for what he says."""
    from aiotkit.core.policy import cost_of_asking
    from aiotkit.lab.judge import money_of

    decision = asking(document)
    rows = stretch(["broken", *["ok"] * 23])
    # wrong one time in ten, naming 'ok' or 'worn' alike
    price = 8 + 0.9 * 60 + 0.05 * 900 + 0.05 * 60
    assert money_of(rows, ["ask"] * 24, decision)["money"].sum() == pytest.approx(price)
    sure = {"ok": 0.0, "worn": 0.0, "broken": 1.0}
    assert cost_of_asking(sure, decision.costs, decision.human) == pytest.approx(price)
    with pytest.raises(DataError, match="Nobody can be asked"):
        money_of(rows, ["ask"] * 24, parse_decision(document))


def test_a_machine_that_is_fine_is_asked_about_as_often_as_answers_expire(document: dict[str, Any]) -> None:
    """Each question costs the person and his errors; waiting is charged for the time an answer held."""
    from aiotkit.lab.judge import money_of

    fine = document | {"costs": document["costs"] | {"run": document["costs"]["run"] | {"ok": 12}}}
    wrong = 0.1 * (60 - 12)  # one time in ten he names a state that is slowed down for
    rows = stretch(["ok"] * 24)
    for holds_h, asked in ((6, 4), (12, 2), (24, 1), (48, 1), (0, 24)):
        spent = money_of(rows, ["ask"] * 24, asking(fine, holds_s=3600 * holds_h))["money"].sum()
        last = 1 - max(1, min(holds_h, 24)) / 24  # nothing followed the last answer: it is taken to hold on
        assert spent == pytest.approx(asked * (8 + wrong) + 12 * (1 + last)), holds_h


def test_an_answer_that_says_wait_ends_when_something_acts(document: dict[str, Any]) -> None:
    """Asked at hour 0 about a fine machine, slowed at hour 3: both are paid, waiting for an eighth."""
    from aiotkit.lab.judge import money_of

    fine = document | {"costs": document["costs"] | {"run": document["costs"]["run"] | {"ok": 12}}}
    said = ["ask", *["run"] * 2, "slow", *["run"] * 20]
    spent = money_of(stretch(["ok"] * 24), said, asking(fine, holds_s=12 * 3600))["money"].sum()
    assert spent == pytest.approx(8 + 0.1 * (60 - 12) + 12 / 8 + 60)


def test_what_cannot_be_judged_is_refused_with_what_to_do(document: dict[str, Any], guard: Any) -> None:
    """Unknown costs, a row without a state, an unknown action, a missing row: each in words."""
    from aiotkit.lab.judge import actions_of, compare, money_of

    rows = stretch(["ok", "worn"])
    unknown = parse_decision(document | {"costs": "unknown"})
    with pytest.raises(DataError, match=r"costs: unknown\. Declare .*break-even curves"):
        money_of(rows, ["run", "run"], unknown)
    with pytest.raises(DataError, match="break-even curves"):
        actions_of(np.eye(3), unknown)
    with pytest.raises(DataError, match=r"1 rows without, the first says 'nan'\. Judge the labelled rows"):
        money_of(rows.assign(state=["ok", None]), ["run", "run"], guard)
    with pytest.raises(DataError, match=r"found 'rnu'\. did you mean 'run'\?"):
        money_of(rows, ["run", "rnu"], guard)
    with pytest.raises(DataError, match="one for each of 2 rows; found 3"):
        money_of(rows, ["run"] * 3, guard)
    with pytest.raises(DataError, match="no rows"):
        money_of(rows[:0], [], guard)
    with pytest.raises(DataError, match=r"baseline 'b'; expected one of \['a'\]"):
        compare(rows, {"a": ["run", "run"]}, guard, baseline="b", seed=1)


def test_a_policy_that_proposes_nothing_recovers(guard: Any) -> None:
    """None is priced as the recovery action, which is what the device would do."""
    from aiotkit.lab.judge import money_of

    rows = stretch(["ok"] * 30)
    nothing = money_of(rows, [None] * 30, guard)
    pd.testing.assert_frame_equal(nothing, money_of(rows, ["slow"] * 30, guard))


def plant(decision: Any, subjects: int, hours: int = 480) -> Any:
    """Subjects that are broken for two days of every ten, each from another day on."""
    rows = []
    for i in range(subjects):
        hour = (np.arange(hours) + 53 * i) % 240
        rows.append(stretch(np.where(hour >= 192, "broken", "ok").tolist(), f"s{i:02d}"))
    return pd.concat(rows, ignore_index=True)


def test_policies_are_compared_with_their_references(guard: Any) -> None:
    """The oracle is surely cheaper than every constant, and the table says over what it resampled."""
    from aiotkit.lab.judge import compare, references

    rows = plant(guard, 12)
    table = compare(rows, references(rows, guard), guard, baseline="always slow", seed=4)
    assert table["policy"].iloc[0] == "oracle"
    assert bool(table["sure"].iloc[0])
    assert table.attrs["words"] == "intervals resample 12 subjects"
    again = compare(rows, references(rows, guard), guard, baseline="always slow", seed=4)
    pd.testing.assert_frame_equal(table, again)


def test_few_subjects_are_no_sample_of_subjects(guard: Any) -> None:
    """What k subjects agree on by luck is no interval: 3 do at 60 %, at 95 % it takes 6."""
    from aiotkit.lab.judge import compare, fewest_clusters, references

    assert [fewest_clusters(level) for level in (0.5, 0.6, 0.9, 0.95)] == [2, 3, 5, 6]
    rows = plant(guard, 5, hours=720)
    policies = references(rows, guard)
    words = "5 subjects alone (6 are needed to resample them): intervals resample 8 blocks of 3.74 days"
    assert compare(rows, policies, guard, baseline="always run", seed=4).attrs["words"] == words
    lenient = guard.model_copy(update={"limits": guard.limits.model_copy(update={"confidence": 0.6})})
    found = compare(rows, policies, lenient, baseline="always run", seed=4)
    assert found.attrs["words"] == "intervals resample 5 subjects"
    short = plant(guard, 5, hours=24 * 5)
    table = compare(short, references(short, guard), guard, baseline="always run", seed=4)
    assert table.attrs["words"].endswith("no interval of 5 blocks of 1 days, 6 are needed")
    assert table.set_index("policy").loc["oracle", ["low", "high"]].isna().all()


def test_one_subject_is_compared_over_blocks_of_time(document: dict[str, Any], guard: Any) -> None:
    """One machine gives an interval over blocks that holds its own estimate, and is said to."""
    from aiotkit.lab.judge import compare, money_of, references

    rows = plant(guard, 1, hours=720)
    table = compare(rows, references(rows, guard), guard, baseline="always run", seed=4).set_index("policy")
    words = "1 subject alone (6 are needed to resample them): intervals resample 8 blocks of 3.74 days"
    assert table.attrs["words"] == words
    oracle = table.loc["oracle"]
    assert oracle["low"] <= oracle["difference"] <= oracle["high"]
    run, best = (money_of(rows, references(rows, guard)[n], guard) for n in ("always run", "oracle"))
    assert oracle["difference"] == pytest.approx(best["money"].mean() - run["money"].mean())
    calm = stretch(["ok"] * 24 * 32)  # 60 a day more in each of 8 blocks of 4 days: nothing to be unsure of
    sure = compare(calm, references(calm, guard), guard, baseline="always run", seed=4).set_index("policy")
    assert sure.loc["always slow", ["difference", "low", "high"]].tolist() == pytest.approx([60, 60, 60])
    blocks = parse_decision(document | {"resample": "block"})
    many = compare(plant(guard, 12), references(plant(guard, 12), blocks), blocks, baseline="oracle", seed=4)
    assert many.attrs["words"] == "intervals resample 8 blocks of 2.49 days"


def test_intervals_are_as_sure_as_the_decision_asks(document: dict[str, Any]) -> None:
    """Who wants to be less sure gets a narrower interval around the same estimate."""
    from aiotkit.lab.judge import compare, references

    found = {}
    rows = plant(parse_decision(document), 12)
    rows["state"] = np.random.default_rng(1).choice(rows["state"].to_numpy(), len(rows))
    for level in (0.95, 0.8):
        decision = parse_decision(document | {"limits": {"confidence": level}})
        table = compare(rows, references(rows, decision), decision, baseline="always run", seed=4)
        assert table.attrs["level"] == level
        found[level] = table.set_index("policy").loc["oracle"]
    wide, narrow = found[0.95], found[0.8]
    assert wide["difference"] == narrow["difference"]
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]
    with pytest.raises(DecisionFileError, match=r"limits\.confidence"):
        parse_decision(document | {"limits": {"confidence": 0.3}})


@pytest.mark.parametrize("n", [1, 2, 20])
def test_too_little_to_resample_gives_no_interval_and_says_so(guard: Any, n: int) -> None:
    """One machine within one horizon: estimates without an interval, never sure, no crash."""
    from aiotkit.lab.judge import compare, references

    rows = stretch(["broken"] * n)
    table = compare(rows, references(rows, guard), guard, baseline="always run", seed=1).set_index("policy")
    assert np.isnan(table.loc["oracle", "low"])
    assert not table["sure"].any()
    assert "no interval" in table.attrs["words"]


def test_the_best_threshold_is_found(guard: Any) -> None:
    """A hidden limit on one of many columns is recovered, priced in episodes, and unknown values recover."""
    from aiotkit.lab.judge import compare, money_of, references, thresholds

    rng = np.random.default_rng(5)
    rows = plant(guard, 6)
    broken = (rows["state"] == "broken").to_numpy()
    x = rng.normal(0, 1, (len(rows), 8)).astype(np.float32)
    x[:, 5] = np.where(broken, 3.2, -1) + rng.uniform(-1.9, 1.9, len(rows))
    names = [f"f{i}" for i in range(8)]
    for sign in (1, -1):
        turned = x * np.float32(sign)
        best = thresholds(rows, turned, names, guard)
        assert best is not None
        assert best.feature == "f5"
        assert abs(best.limit) > 0.8  # beyond the healthy ones; how far beyond is free: later is as good
        assert (best.action, best.otherwise) == (("slow", "run") if sign > 0 else ("run", "slow"))
        actions = best.actions(turned, names)
        assert best.money == pytest.approx(money_of(rows, actions, guard)["money"].mean())
        table = compare(
            rows, references(rows, guard) | {"best": actions}, guard, baseline="best", seed=1
        ).set_index("policy")
        assert abs(table.loc["oracle", "difference"]) < 0.05 * table.loc["always run", "difference"]
        assert table.loc["always run", "difference"] > 0
    assert best.words.startswith("'run' when f5 > -")
    hidden = x.copy()
    hidden[:, 5] = np.nan
    assert set(best.actions(hidden, names)) == {"slow"}
    with pytest.raises(DataError, match="column 'f5' is missing"):
        best.actions(x[:, :2], names[:2])


def test_a_threshold_is_judged_on_rows_it_was_not_tuned_on(guard: Any) -> None:
    """Of pure noise the threshold in sample saves, the one tuned elsewhere does not; a real one stays."""
    from aiotkit.lab.judge import money_of, thresholds
    from aiotkit.lab.thresholds import tuned_elsewhere

    rng = np.random.default_rng(3)
    rows = plant(guard, 6, hours=240)
    fold = pd.factorize(rows["subject"])[0] % 3
    noise, names = rng.normal(size=(len(rows), 6)), [f"f{i}" for i in range(6)]

    def spent(actions: Any) -> float:
        return float(money_of(rows, actions, guard)["money"].mean())

    best = thresholds(rows, noise, names, guard)
    assert best is not None
    elsewhere = tuned_elsewhere(rows, noise, names, guard, fold)
    assert spent(elsewhere) > best.money
    for one in range(3):
        others = rows[fold != one].reset_index(drop=True)
        again = thresholds(others, noise[fold != one], names, guard)
        assert again is not None
        assert (again.actions(noise[fold == one], names) == elsewhere[fold == one]).all()
    clear = (rows["state"] == "broken").to_numpy()[:, None] + rng.normal(0, 0.05, (len(rows), 1))
    oracle = np.where(rows["state"] == "broken", "slow", "run").astype(object)
    assert spent(tuned_elsewhere(rows, clear, ["a"], guard, fold)) <= 1.05 * spent(oracle)
    assert tuned_elsewhere(rows, clear, ["a"], guard, np.zeros(len(rows))) is None
    assert tuned_elsewhere(rows, np.ones((len(rows), 1)), ["a"], guard, fold) is None


def test_no_threshold_where_no_column_varies(guard: Any) -> None:
    """Constant and empty columns offer no limit: the answer is that there is none."""
    from aiotkit.lab.judge import thresholds

    rows = stretch(["ok", "broken", "ok"])
    x = np.array([[1, np.nan]] * 3, dtype=np.float32)
    assert thresholds(rows, x, ["a", "b"], guard) is None


def test_a_threshold_is_no_dearer_than_an_exhaustive_search(guard: Any) -> None:
    """On small random cases the search finds what pricing every limit of every column finds, within 2 %."""
    from aiotkit.lab.judge import money_of, thresholds

    rng = np.random.default_rng(9)
    for _ in range(3):
        rows = plant(guard, 2, hours=240)
        x = ((rows["state"] == "broken").to_numpy()[:, None] + rng.normal(0, 0.6, (len(rows), 2))).round(1)
        best = thresholds(rows, x, ["a", "b"], guard)
        assert best is not None
        every = min(
            money_of(rows, np.where(x[:, j] > limit, a, b).astype(object), guard)["money"].mean()
            for j in range(2)
            for limit in np.unique(x[:, j])[:-1]
            for a, b in (("run", "slow"), ("slow", "run"))
        )
        assert best.money <= every * 1.02 + 1e-9


def test_alarms_are_counted_against_the_events_of_labels(guard: Any) -> None:
    """Each bad stretch is one event a horizon; alarms before it detect it, others are false."""
    from aiotkit.lab.alarms import alarm_figures, events_of

    states = ["ok"] * 30 + ["broken"] * 20 + ["ok"] * 50 + ["worn"] * 40
    rows = stretch(states)
    hours = ((events_of(rows, guard)["at_us"] - START_US) / HOUR_US).tolist()
    assert hours == [49, 124, 139]
    actions = np.array(["run"] * 140, dtype=object)
    actions[[5, 40, 41]] = "slow"
    found = alarm_figures(rows, actions, guard)
    assert (found.events, found.detected, found.missed) == (3, 1, 2)
    assert (found.episodes, found.false_episodes, found.lead_s) == (2, 1, (9 * 3600.0,))


def test_slices_add_up_and_name_where_money_is_lost(guard: Any) -> None:
    """Every kind of slice sums to the whole, and the worst subject, time and context come first."""
    from aiotkit.lab.judge import money_of, references
    from aiotkit.lab.slices import money_by_slice

    rows = plant(guard, 6).sample(frac=1, random_state=1).reset_index(drop=True)
    best = references(rows, guard)["oracle"]
    worse = best.copy()
    late = rows["at_us"] > rows["at_us"].median()
    worse[(rows["subject"] == "s03") & late] = "run"
    x = np.column_stack(
        [rows["subject"] == "s03", rows["subject"] != "s03", np.where(late, 90.0, 10.0), np.ones(len(rows))]
    )
    x[:5, 2] = np.nan
    names = ["context.mode=idle", "context.mode=production", "context.load", "vib.rms"]
    table = money_by_slice(rows, worse, best, guard, x=x, columns=names)
    whole = money_of(rows, worse, guard)["money"].sum()
    for kind, part in table.groupby("kind"):
        assert part["money"].sum() == pytest.approx(whole), kind
        assert part["rows"].sum() == len(rows)
    first = table.groupby("kind").first()
    assert first["slice"]["subject"] == "s03"
    assert first["slice"]["context.mode"] == "idle"
    assert first["slice"]["context.load"] != "up to 10"
    assert (first["lost"] > 0).all()
    assert set(table["kind"]) == {"subject", "time", "context.mode", "context.load"}
    assert table.loc[table["slice"] == "s01", ["flips", "lost"]].to_numpy().tolist() == [[0.0, 0.0]]
    assert "not known" in set(table["slice"])
