"""Every gate is passed by a good candidate and not passed on an input built to fail it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.desk
pytest.importorskip("onnx")
pytest.importorskip("torch")

from worlds.bundles import decision_of  # noqa: E402
from worlds.heads import exported_head, held_out, pump_examples, trained_head  # noqa: E402

from aiotkit.bundle.tuned import POLICY_FILE, tuned  # noqa: E402
from aiotkit.core.decision import Decision  # noqa: E402
from aiotkit.core.errors import BundleError, DataError  # noqa: E402
from aiotkit.lab.alarms import stretches  # noqa: E402
from aiotkit.lab.judge import actions_of  # noqa: E402
from aiotkit.lab.leaks import Finding, LeakAudit, Severity  # noqa: E402
from aiotkit.release.bundle import build_bundle  # noqa: E402
from aiotkit.release.choose import (  # noqa: E402
    Measured,
    choose,
    decide_with,
    measure,
    predict,
    within_limits,
)
from aiotkit.release.evidence import Evidence, parse_evidence  # noqa: E402
from aiotkit.release.held_out import HeldOut, reliability, slices_of, with_missed_costs  # noqa: E402
from aiotkit.release.in_force import (  # noqa: E402
    champion_actions,
    followed,
    rule_actions,
    without_head,
)
from aiotkit.release.promote import Candidate, judge  # noqa: E402
from aiotkit.release.quantize import DYNAMIC, FLOAT32, Variant, variants  # noqa: E402

CHAMPION_GATE = "no_worse_than_champion"
DIGEST = "sha256:" + "0" * 64
BENCH = {
    "size_bytes": 1000,
    "head_bytes": 500,
    "threads": {"1": {"whole": {"p50_us": 50.0, "p99_us": 90.0}, "peak_mb": 60.0, "speedup": 1.0}},
}


@pytest.fixture(scope="module")
def decision() -> Decision:
    return decision_of()


def timed(**changes: float) -> dict[str, Any]:
    """What ``bench`` would have measured."""
    one = BENCH["threads"]["1"]  # type: ignore[index]
    size = changes.pop("size_bytes", BENCH["size_bytes"])
    p99 = changes.pop("p99_us", 90.0)
    return BENCH | {
        "size_bytes": size,
        "threads": {"1": one | {"whole": {"p50_us": 50.0, "p99_us": p99}} | changes},
    }


def contender(audit: LeakAudit | None = None, **changes: Any) -> Candidate:
    """A float32 candidate about which all is well."""
    exported = exported_head()
    measured = Measured(Variant(FLOAT32, exported), timed(), 0.0, 0.0, usable=True, words="the reference")
    given = {
        "exported": exported,
        "measured": [measured],
        "leaks": audit or leak_audit(),
        "dataset": DIGEST,
        "bundle": DIGEST,
        "labels": {"mature": 960},
        "families": [{"family": "linear", "money": 1.0, "chosen": True}],
    }
    return Candidate(**(given | changes))


def with_bench(bench: dict[str, Any], **changes: Any) -> Candidate:
    """The candidate with other measurements."""
    good = contender().measured[0]
    return contender(measured=[replace(good, bench=bench, **changes)])


def rows_of(held: HeldOut, which: np.ndarray) -> HeldOut:
    """Some of the held-out rows."""
    return replace(
        held,
        rows=held.rows.loc[which].reset_index(drop=True),
        p=held.p[which],
        novelty=None if held.novelty is None else held.novelty[which],
        policies={name: np.asarray(a)[which] for name, a in held.policies.items()},
        slices={},
    )


def test_a_good_candidate_passes_every_gate(decision: Decision) -> None:
    """Cheaper than a rule that never acts, with enough of everything; the judgement can be stored."""
    found = judge(contender(), held_out(decision), decision, seed=1)
    assert found.passed, found.refused
    assert [gate.name for gate in found.gates] == [
        "beats_rule",
        "beats_constant",
        "enough_labels",
        "leaks",
        "calibration",
        "slices",
        "alarms_per_day",
        "parity",
        "flips",
        "latency",
        "memory",
    ]
    assert found.gate("beats_rule").figures["difference"] < 0  # type: ignore[operator]
    assert parse_evidence(found.canonical()).digest == found.digest
    assert found.tables.keys() == {
        "families", "reliability", "leaks", "money", "events", "slices", "sensitivity", "novelty",
    }  # fmt: skip
    names = {row["policy"] for row in found.tables["money"]}
    assert {"candidate", "rule", "oracle", "always run", "always stop"} <= names


def test_the_same_inputs_are_judged_the_same(decision: Decision) -> None:
    """Equal inputs and seed give equal evidence; another seed gives other intervals."""
    first, again, other = (judge(contender(), held_out(decision), decision, seed=s) for s in (1, 1, 2))
    assert first.digest == again.digest != other.digest


def beats(found: Evidence, name: str = "beats_rule") -> tuple[bool, str]:
    gate = found.gate(name)
    return gate.passed, gate.words


def test_a_candidate_that_is_no_cheaper_than_the_rule_is_refused(decision: Decision) -> None:
    """A rule that knows the states cannot be beaten by a model that guesses."""
    held = held_out(decision)
    knowing = np.where(held.rows["state"] == "worn", "stop", "run").astype(object)
    guess = np.full((len(held.rows), 2), 0.5)
    found = judge(contender(), replace(held, p=guess, policies={"rule": knowing}), decision, seed=1)
    passed, words = beats(found)
    assert not passed
    assert words.startswith("not cheaper than the rule")
    assert not found.passed


def test_a_candidate_that_does_what_the_rule_does_is_refused(decision: Decision) -> None:
    """No difference is no reason to release."""
    held = held_out(decision)
    sure = np.stack([np.ones(len(held.rows)), np.zeros(len(held.rows))], axis=1)
    assert beats(judge(contender(), replace(held, p=sure), decision, seed=1))[0] is False


def test_a_saving_that_may_be_chance_is_too_little_data(decision: Decision) -> None:
    """Cheaper on average by one lucky pump of six: the interval reaches above zero, and the words say so."""
    held = held_out(decision, subjects=6, days=8)
    mine = (held.rows["subject"] == "pump-0").to_numpy() & (held.rows["state"] == "worn").to_numpy()
    unlucky = (held.rows["subject"] == "pump-1").to_numpy() & (held.rows["state"] == "ok").to_numpy()
    p = np.tile([1.0, 0.0], (len(mine), 1))
    p[mine | unlucky] = [0.0, 1.0]
    passed, words = beats(judge(contender(), replace(held, p=p), decision, seed=1))
    assert not passed
    assert words.startswith("too little data")
    assert "may be anything from" in words
    assert words.endswith("(95%; intervals resample 6 subjects)")


def test_a_candidate_dearer_than_doing_always_the_same_is_refused(decision: Decision) -> None:
    """It saves against a rule that always stops, and yet stops too often: running on always is cheaper."""
    held = held_out(decision)
    rows = held.rows.assign(state="ok")
    rows.loc[:5, "state"] = "worn"
    often = np.arange(len(rows)) % 48 == 0
    p = np.where(often[:, None], [0.0, 1.0], [1.0, 0.0])
    stopping = np.full(len(rows), "stop", dtype=object)
    found = judge(contender(), replace(held, rows=rows, p=p, policies={"rule": stopping}), decision, seed=1)
    assert beats(found)[0]
    passed, words = beats(found, "beats_constant")
    assert not passed
    assert words.startswith("not cheaper than 'always run', the best of what needs no data: ")


def test_a_candidate_that_beats_a_constant_by_luck_is_too_little_data(decision: Decision) -> None:
    """Running always but for one pump, which was right once, is no lesson learned."""
    held = held_out(decision, subjects=6, days=80)
    rows = held.rows.assign(state="ok")
    lucky = np.flatnonzero(rows["subject"] == "pump-0")[:1]
    rows.loc[lucky, "state"] = "worn"
    p = np.tile([1.0, 0.0], (len(rows), 1))
    p[lucky] = [0.0, 1.0]
    stopping = np.full(len(rows), "stop", dtype=object)
    found = judge(contender(), replace(held, rows=rows, p=p, policies={"rule": stopping}), decision, seed=1)
    assert beats(found)[0]
    passed, words = beats(found, "beats_constant")
    assert not passed
    assert words.startswith("too little data")
    assert "difference to 'always run', the best of what needs no data may be anything from" in words


def test_each_row_is_judged_under_a_margin_that_it_did_not_choose(decision: Decision) -> None:
    """Margins of rows take the place of the candidate's own; the sensitivity table scales them."""
    held = held_out(decision)
    unlikely = np.tile([0.9, 0.1], (len(held.rows), 1))  # stopping saves 500 - 400 = a little
    margins = np.where(np.arange(len(held.rows)) % 2, 0.0, 1e6)
    given = replace(held, p=unlikely, margins=margins, novelty=None)
    alike = replace(given, margins=None)
    both = [given.actions(decision, 1e6), alike.actions(decision, 0.0), alike.actions(decision, 1e6)]
    mixed, eager, patient = both
    assert (mixed[1::2] == eager[1::2]).all()
    assert (mixed[0::2] == patient[0::2]).all()
    assert set(mixed) > set(patient)
    assert (given.actions(decision, 0.0, factor=0.0) == eager).all()


def test_one_cluster_is_too_little_data(decision: Decision) -> None:
    """One subject within one horizon gives no interval, and no interval passes no gate."""
    held = held_out(decision, subjects=1, days=8)
    short = rows_of(held, np.arange(len(held.rows)) < 3)
    passed, words = beats(judge(contender(), short, decision, seed=1))
    assert not passed
    assert "too little data" in words


def test_unknown_costs_pass_no_gate_about_money() -> None:
    """Without costs nothing is said about money, and that does not pass."""
    decision = decision_of(costs="unknown")
    found = judge(contender(), held_out(decision), decision, seed=1)
    for name in ("beats_rule", "slices"):
        assert beats(found, name) == (False, "costs are unknown: nothing can be said about money")
    assert "money" not in found.tables


def test_a_candidate_worse_than_the_champion_is_refused(decision: Decision) -> None:
    """A candidate that beats the rule but is surely dearer than the policy in force is refused."""
    held = held_out(decision)
    knowing = np.where(held.rows["state"] == "worn", "stop", "run").astype(object)
    needless = (held.rows["state"] != "worn").to_numpy() & (np.arange(len(held.rows)) % 40 == 0)
    p = np.where((needless | (held.rows["state"] == "worn").to_numpy())[:, None], [0.0, 1.0], [1.0, 0.0])
    both = replace(held, p=p, policies={**held.policies, "champion": knowing})
    found = judge(contender(champion=DIGEST), both, decision, seed=1)
    assert found.gate("beats_rule").passed, found.gate("beats_rule").words
    passed, words = beats(found, CHAMPION_GATE)
    assert not passed
    assert words.startswith("worse than the champion, by ")
    worse = replace(held, policies={**held.policies, "champion": np.full(len(knowing), "stop", object)})
    assert judge(contender(champion=DIGEST), worse, decision, seed=1).gate(CHAMPION_GATE).passed


def test_a_refresh_that_does_what_the_champion_does_passes(decision: Decision) -> None:
    """Newer rows, the same actions: nothing speaks against it."""
    held = held_out(decision)
    mine = actions_of(held.p, tuned(decision, contender().exported.margin), held.novelty)
    same = replace(held, policies={**held.policies, "champion": mine})
    passed, words = beats(judge(contender(champion=DIGEST), same, decision, seed=1), CHAMPION_GATE)
    assert passed, words


def test_the_champion_is_judged_on_rows_it_has_not_learned_from(decision: Decision) -> None:
    """What a champion knows by heart says nothing; too few new rows are too little data."""
    held = held_out(decision)
    at = np.sort(held.rows["at_us"].to_numpy())
    middle = int(at[len(at) // 2])
    by_heart = np.where(held.rows["state"] == "worn", "stop", "run").astype(object)
    lost = np.where(held.rows["at_us"] > middle, "stop", by_heart).astype(object)
    both = replace(held, policies={**held.policies, "champion": lost}, champion_until_us=middle)
    passed, words = beats(judge(contender(champion=DIGEST), both, decision, seed=1), CHAMPION_GATE)
    assert passed, words
    assert f"on {(held.rows['at_us'] > middle).sum()} rows that neither has learned from" in words
    late = replace(both, champion_until_us=int(at[-1]))
    passed, words = beats(judge(contender(champion=DIGEST), late, decision, seed=1), CHAMPION_GATE)
    assert (passed, words) == (False, "too little data: 0 rows that the champion has not learned from")


def test_new_rows_without_an_event_say_nothing_about_the_champion(decision: Decision) -> None:
    """Where nothing happened since the champion learned, never acting looks as good as knowing everything."""
    held = held_out(decision)
    at = np.sort(held.rows["at_us"].to_numpy())
    middle = int(at[len(at) // 2])
    calm = held.rows.assign(state=held.rows["state"].where(held.rows["at_us"] <= middle, "ok"))
    knowing = np.where(calm["state"] == "worn", "stop", "run").astype(object)
    both = replace(held, rows=calm, policies={**held.policies, "champion": knowing}, champion_until_us=middle)
    passed, words = beats(judge(contender(champion=DIGEST), both, decision, seed=1), CHAMPION_GATE)
    assert not passed
    assert words.startswith("too little data: no event on the ")


def test_many_rows_before_one_failure_are_one_event(decision: Decision) -> None:
    """A gate counts what happened, not how often it was looked at before."""
    held = held_out(decision)
    first = held.rows["subject"] == "pump-0"
    once = held.rows.assign(state=np.where(first & (held.rows["state"] == "worn"), "worn", "ok"))
    bad = np.flatnonzero(once["state"] == "worn")
    once.iloc[bad[1:], once.columns.get_loc("state")] = "ok"
    at = int(bad[0])
    once.iloc[at : at + 5, once.columns.get_loc("state")] = "worn"
    found = judge(contender(), replace(held, rows=once), decision, seed=1).gate("enough_labels")
    assert not found.passed
    assert "1 events, 5 needed" in found.words


def test_what_the_guard_against_novelty_costs_is_told(decision: Decision) -> None:
    """Rows unlike training, and money with the guard and without; nothing where the head has no novelty."""
    held = held_out(decision)
    unlike = np.where(np.arange(len(held.rows)) % 4 == 0, 2.0, 0.5)
    (row,) = judge(contender(), replace(held, novelty=unlike), decision, seed=1).tables["novelty"]
    assert row["rows unlike training"] == (unlike > 1).sum()
    assert row["share"] == pytest.approx(0.25)
    (calm,) = judge(contender(), replace(held, novelty=unlike * 0), decision, seed=1).tables["novelty"]
    assert row["money without it"] == calm["money with it"] != row["money with it"]
    assert "novelty" not in judge(contender(), replace(held, novelty=None), decision, seed=1).tables


def test_a_long_stretch_is_one_event(decision: Decision) -> None:
    """A state that lasts for days happened once; the same state of another subject happened again."""
    held = held_out(decision)
    rows = held.rows.assign(state="ok")
    for subject in ("pump-0", "pump-1"):
        where = np.flatnonzero(rows["subject"] == subject)[10:60]
        rows.iloc[where, rows.columns.get_loc("state")] = "worn"
    assert stretches(rows, decision) == 2


def test_where_a_signal_is_dead_the_rule_is_judged(decision: Decision) -> None:
    """A device does not follow its model there: neither does the account."""
    examples = pump_examples(decision)
    examples = replace(examples, x=np.nan_to_num(examples.x, nan=1.0))
    signal = next(iter(decision.signals))
    mine = [i for i, c in enumerate(examples.columns) if c.startswith(f"{signal}.")]
    dead = np.arange(len(examples)) % 5 == 0
    x = examples.x.copy()
    x[np.ix_(dead, mine)] = np.nan
    blind = replace(examples, x=x)
    instead = without_head(blind, {signal}, decision, None)
    assert (instead[dead] == rule_actions(blind, decision)[dead]).all()
    assert pd.isna(instead[~dead]).all()
    proposed = np.full(len(blind), "stop", dtype=object)
    assert (followed(proposed, instead)[dead] == instead[dead]).all()
    assert (followed(proposed, instead)[~dead] == "stop").all()
    assert pd.isna(without_head(examples, {signal}, decision, None)).all()
    required = next(name for name, declared in decision.context.items() if declared.required)
    told = [i for i, c in enumerate(examples.columns) if c.startswith(f"context.{required}")]
    x = examples.x.copy()
    x[np.ix_(dead, told)] = np.nan
    lacking = without_head(replace(examples, x=x), {signal}, decision, None)
    assert (lacking[dead] == decision.recovery).all()
    alone, unlike = decision.model_copy(update={"human": None}), np.where(dead, 1.5, 0.5)
    assert (
        without_head(examples, {signal}, alone, unlike)[dead] == rule_actions(examples, alone)[dead]
    ).all()
    assert decision.human is None or pd.isna(without_head(examples, {signal}, decision, unlike)).all()


def test_few_labels_pass_no_gate(decision: Decision) -> None:
    """Twenty rows; one state only; two of a state: too little data, each in words."""
    held = held_out(decision)
    worn = (held.rows["state"] == "worn").to_numpy()
    few = np.arange(len(worn)) < 20
    two = ~worn | (np.cumsum(worn) <= 2)
    for which, words in (
        (few, "20 labelled rows, 30 needed"),
        (~worn, "only one state occurs"),
        (two, "fewer than 5 rows of: worn 2"),
    ):
        gate = judge(contender(), rows_of(held, which), decision, seed=1).gate("enough_labels")
        assert not gate.passed
        assert gate.words.startswith("too little data")
        assert words in gate.words


def test_a_state_never_seen_needs_novelty(decision: Decision) -> None:
    """A third state that never occurred is fine for a head that knows novel windows, and for no other."""
    costs = {a: {**row, "cracked": 100.0} for a, row in dict(decision.costs).items()}  # type: ignore[arg-type]
    states = {"ok": {}, "worn": {}, "cracked": {}}
    outcome = {"horizon_s": 86400, "maturity_s": 86400, "sources": {"workshop": {"reports": list(states)}}}
    three = decision_of(states=states, costs=costs, outcome=outcome)
    held = held_out(three)
    held = replace(held, p=np.column_stack([held.p, np.zeros(len(held.p))]))
    gate = judge(contender(), held, three, seed=1).gate("enough_labels")
    assert gate.passed
    assert "must come out as novel: cracked" in gate.words
    blind = exported_head()
    blind = replace(blind, interface=blind.interface.model_copy(update={"novelty": False}))
    gate = judge(contender(exported=blind), held, three, seed=1).gate("enough_labels")
    assert not gate.passed
    assert "never seen: cracked" in gate.words


def test_a_leak_or_no_audit_is_refused(decision: Decision) -> None:
    """A leak refuses; so does a check that could not be made, and no audit. A suspect is told."""
    held = held_out(decision)
    bad = judge(contender(leak_audit("leak")), held, decision, seed=1).gate("leaks")
    assert (bad.passed, bad.words) == (False, "giveaway: vib.rms alone tells the state")
    unchecked = judge(contender(leak_audit("unchecked")), held, decision, seed=1).gate("leaks")
    assert not unchecked.passed
    assert unchecked.words.startswith("too little data")
    suspect = judge(contender(leak_audit("suspect")), held, decision, seed=1).gate("leaks")
    assert suspect.passed
    assert "to be read: giveaway" in suspect.words
    none = judge(contender(leaks=None), held, decision, seed=1).gate("leaks")
    assert not none.passed
    assert "no leak audit" in none.words


def test_probabilities_that_are_wildly_off_are_refused(decision: Decision) -> None:
    """Sure of what is right half of the time: an error of about a half, by formula."""
    held = held_out(decision)
    wrong = held.p.copy()
    wrong[::2] = wrong[::2, ::-1]
    gate = judge(contender(), replace(held, p=wrong), decision, seed=1).gate("calibration")
    assert not gate.passed
    assert gate.figures["ece"] == pytest.approx(0.5, abs=0.001)


def test_calibration_error_by_hand(decision: Decision) -> None:
    """Two bins: said 0.95 and right in 1 of 2, said 0.65 and right in 2 of 2."""
    p = np.array([[0.95, 0.05], [0.05, 0.95], [0.65, 0.35], [0.65, 0.35]])
    error, table = reliability(p, ["ok", "ok", "ok", "ok"], decision)
    assert error == pytest.approx(0.5 * 0.45 + 0.5 * 0.35)
    assert [(round(r["said"], 3), r["happened"], r["rows"]) for r in table] == [
        (0.65, 1.0, 2),
        (0.95, 0.5, 2),
    ]


def test_a_slice_that_is_surely_worse_is_refused(decision: Decision) -> None:
    """Cheaper as a whole, and worse in a slice beyond what chance explains: refused, and named."""
    held = held_out(decision, subjects=12)
    bad = held.rows["subject"].isin(["pump-0", "pump-1", "pump-2"]).to_numpy()
    p = held.p.copy()
    p[bad] = np.where((held.rows["state"] == "worn").to_numpy()[bad, None], [1.0, 0.0], [0.0, 1.0])
    found = judge(contender(), replace(held, p=p, slices={"old pumps": bad}), decision, seed=1)
    assert found.gate("beats_rule").passed
    gate = found.gate("slices")
    assert not gate.passed
    assert "surely worse than the rule in: old pumps" in gate.words


def test_slices_too_small_to_judge_are_reported(decision: Decision) -> None:
    """A slice of one subject within one horizon has no interval: in the table, not counted as judged."""
    held = held_out(decision)
    few = np.arange(len(held.rows)) < 2
    found = judge(contender(), replace(held, slices={"few": few, "none": few & False}), decision, seed=1)
    assert found.gate("slices").figures == {"slices": 1, "judged": 0, "worse": 0}
    assert found.tables["slices"][0]["low"] is None


def test_more_alarms_than_people_can_bear_are_refused() -> None:
    """A limit below what the candidate rings is not passed; without a limit the figure is reported."""
    tight = decision_of(limits={"alarms_per_day": 0.05})
    gate = judge(contender(), held_out(tight), tight, seed=1).gate("alarms_per_day")
    assert not gate.passed
    assert gate.figures["candidate"] > 0.05  # type: ignore[operator]
    loose = decision_of(limits={"alarms_per_day": 1})
    assert judge(contender(), held_out(loose), loose, seed=1).gate("alarms_per_day").passed
    free = decision_of()
    assert (
        "no limit declared" in judge(contender(), held_out(free), free, seed=1).gate("alarms_per_day").words
    )


@pytest.mark.parametrize(
    ("parity", "words"),
    [
        ({"label_flips": 1, "max_abs": 1e-7, "n": 50}, "1 labels of 50 differ"),
        ({"label_flips": 0, "max_abs": 2e-4, "n": 50}, "at most 0.0002"),
        ({"label_flips": 0, "max_abs": 0.0, "n": 0}, "too little data"),
    ],
)
def test_a_graph_that_differs_from_the_library_is_refused(
    decision: Decision, parity: dict[str, Any], words: str
) -> None:
    """One flip, a probability beyond the tolerance, or nothing compared."""
    exported = replace(exported_head(), parity=parity)  # type: ignore[arg-type]
    gate = judge(contender(exported=exported), held_out(decision), decision, seed=1).gate("parity")
    assert not gate.passed
    assert words in gate.words


def test_a_variant_that_changes_decisions_is_refused(decision: Decision) -> None:
    """More flips than allowed, or none compared, refuse the variant that was chosen."""
    held = held_out(decision)
    for changes in ({"flips_share": 0.02}, {"flips_share": None}, {"usable": False}):
        measured = [replace(contender().measured[0], **changes)]
        assert not judge(contender(measured=measured), held, decision, seed=1).gate("flips").passed
    lenient = decision_of(limits={"flips_share": 0.05})
    measured = [replace(contender().measured[0], flips_share=0.02)]
    assert judge(contender(measured=measured), held_out(lenient), lenient, seed=1).gate("flips").passed


def test_a_graph_that_is_too_slow_is_refused(decision: Decision) -> None:
    """Beyond the deadline, beyond a tighter limit, or not measured at all."""
    held = held_out(decision)
    slow = judge(with_bench(timed(p99_us=100_001)), held, decision, seed=1).gate("latency")
    assert (slow.passed, "deadline: 100 ms" in slow.words) == (False, True)
    tight = decision_of(limits={"latency_p99_ms": 0.08})
    gate = judge(contender(), held_out(tight), tight, seed=1).gate("latency")
    assert (gate.passed, "limit: 0.08 ms" in gate.words) == (False, True)
    nothing = judge(with_bench({}), held, decision, seed=1)
    assert not nothing.gate("latency").passed
    assert not nothing.gate("memory").passed


def test_a_graph_that_takes_too_much_memory_is_refused() -> None:
    """A declared limit below the peak is not passed."""
    small = decision_of(limits={"memory_mb": 50})
    gate = judge(contender(), held_out(small), small, seed=1).gate("memory")
    assert (gate.passed, gate.figures["peak_mb"]) == (False, 60.0)
    large = decision_of(limits={"memory_mb": 64})
    assert judge(contender(), held_out(large), large, seed=1).gate("memory").passed


def test_rows_that_do_not_fit_are_refused(decision: Decision) -> None:
    """Probabilities for other rows, or no rule to compare with, are an error and no judgement."""
    held = held_out(decision)
    with pytest.raises(DataError, match="held-out p; expected 960 rows; found 5"):
        judge(contender(), replace(held, p=held.p[:5]), decision, seed=1)
    with pytest.raises(DataError, match="written rule's actions"):
        judge(contender(), replace(held, policies={}), decision, seed=1)


def test_novel_rows_are_asked_about(decision: Decision) -> None:
    """Rows beyond the limit of novelty cost what asking costs, with or without confidence in p."""
    held = held_out(decision)
    novel = judge(contender(), replace(held, novelty=np.full(len(held.rows), 3.0)), decision, seed=1)
    line = next(row for row in novel.tables["money"] if row["policy"] == "candidate")
    sure = judge(contender(), held, decision, seed=1)
    assert line["money_per_subject_day"] > next(  # type: ignore[operator]
        row["money_per_subject_day"] for row in sure.tables["money"] if row["policy"] == "candidate"
    )


def test_the_candidate_is_judged_with_the_margin_that_training_measured(decision: Decision) -> None:
    """A margin that nothing can save makes it wait like the rule, in every table; the evidence names it."""
    patient = replace(exported_head(), figures={"margin": 1e6})
    held = held_out(decision)
    plain, waiting = (
        judge(contender(exported=e), held, decision, seed=1) for e in (exported_head(), patient)
    )
    assert (plain.margin, waiting.margin) == (0.0, 1e6)
    assert plain.gate("beats_rule").passed
    assert beats(waiting)[1].startswith("not cheaper than the rule")
    assert [row["candidate"] == row["rule"] for row in waiting.tables["sensitivity"]] == [True] * 3
    declared = decision_of(policy={"margin": 5})
    assert judge(contender(), held_out(declared), declared, seed=1).margin == 5


@pytest.mark.parametrize("found", [{}, {"margin": 0.0}, {"margin": float("nan")}, {"margin": -3.0}])
def test_what_training_did_not_find_is_no_margin(found: dict[str, float]) -> None:
    """No figure, none that is a number, none below zero."""
    assert replace(exported_head(), figures=found).margin == 0.0


def test_variants_are_compared_at_the_margin_of_their_head(alone: Decision, measured: list[Measured]) -> None:
    """Where nothing can save enough all decide alike, though without the margin they do not."""
    known = pump_examples(alone).known()
    heads = [m.variant.exported for m in (measured[0], measured[-1])]
    free = [decide_with(e, known, alone).said for e in heads if e is not None]
    assert not np.array_equal(*free)
    patient = [replace(e, figures={"margin": 1e6}) for e in heads if e is not None]
    held = [decide_with(e, known, alone).said for e in patient]
    assert set(held[0]) == set(held[1]) == {"run"}


def test_the_champion_decides_with_the_margin_of_its_bundle(decision: Decision) -> None:
    """With ``policy.json`` it waits, on the desk as on devices; without, the same head acts."""
    examples = pump_examples(decision).known()
    model = replace(exported_head("mlp"), figures={"margin": 1e6})
    files = build_bundle(decision, release_counter=1, model=model).files
    assert set(champion_actions(files, examples, decision)) == {"run"}
    without = {path: data for path, data in files.items() if path != POLICY_FILE}
    assert set(champion_actions(without, examples, decision)) == {"stop", "ask"}


def test_rows_that_were_acted_upon_are_judged_on_and_not_counted_as_labels(decision: Decision) -> None:
    """A state that is known only of rows acted upon was not learned: too few labels of it."""
    held = held_out(decision)
    worn = held.rows["state"] == "worn"
    rows = held.rows.assign(status=np.where(worn, "censored", "mature"))
    found = judge(contender(), replace(held, rows=rows), decision, seed=1)
    assert found.gate("beats_rule").passed
    assert found.gate("enough_labels").figures["worn"] == 0
    assert "only one state occurs" in found.gate("enough_labels").words


def test_missed_costs_are_scaled_and_nothing_else(decision: Decision) -> None:
    """Running on with a worn bearing costs 5000, 400 of which the best action costs too: 2700 at a half."""
    half = with_missed_costs(decision, 0.5).costs
    assert half == {**dict(decision.costs), "run": {"ok": 0, "worn": 2700}}  # type: ignore[arg-type]
    assert with_missed_costs(decision, 1.0).costs == decision.costs
    found = judge(contender(), held_out(decision), decision, seed=1).tables["sensitivity"]
    assert [row["missed_costs"] for row in found] == ["× 0.5", "× 1", "× 2"]
    assert found[0]["rule"] < found[1]["rule"] < found[2]["rule"]  # type: ignore[operator]


def test_slices_are_subjects_times_and_choices(decision: Decision) -> None:
    """Six subjects, three thirds that cover every row once, and the values of the context."""
    examples = pump_examples(decision)
    found = slices_of(examples)
    assert {n for n in found if n.startswith("subject")} == {f"subject pump-{i}" for i in range(6)}
    thirds = [found[f"{n} third"] for n in ("first", "second", "last")]
    assert np.array_equal(sum(t.astype(int) for t in thirds), np.ones(len(examples)))
    cleaning, production = found["context.mode=cleaning"], found["context.mode=production"]
    assert np.array_equal(cleaning, ~production)


@pytest.fixture(scope="module")
def alone() -> Decision:
    """The decision where asking costs more than it can save, so that actions follow p."""
    return decision_of(human={"cost": 5000, "delay_s": 300, "reliability": 0.9})


@pytest.fixture(scope="module")
def measured(alone: Decision) -> list[Measured]:
    """A network's variants, really measured."""
    exported = exported_head("mlp")
    calibration = {"features": trained_head(alone, exported.columns, kind="mlp").probe_x}
    return measure(variants(exported, calibration), pump_examples(alone), alone, runs=40)


def test_variants_are_judged_by_the_decisions_they_change(alone: Decision, measured: list[Measured]) -> None:
    """float32 is the reference; flips of the others are those of the actions, counted here again."""
    base = measured[0]
    assert (base.variant.name, base.usable, base.flips_share, base.money_lost) == (FLOAT32, True, 0.0, 0.0)
    labelled = pump_examples(alone).labelled()
    said = {}
    for one in measured:
        assert one.variant.exported is not None
        out = predict(one.variant.exported, labelled)
        said[one.variant.name] = actions_of(out["p"], alone, out["novelty"])
    flips = [float((said[m.variant.name] != said[FLOAT32]).mean()) for m in measured]
    assert [m.flips_share for m in measured] == pytest.approx(flips)
    assert max(flips) > 0
    row = measured[3].row()
    assert row["p99_us"] > 0  # type: ignore[operator]
    assert row["size_bytes"] < base.row()["size_bytes"]  # type: ignore[operator]


def fake(base: Measured, name: str, **changes: Any) -> Measured:
    """A variant with made-up measurements."""
    usable = changes.pop("usable", True)
    return replace(base, variant=replace(base.variant, name=name), bench=timed(**changes), usable=usable)


def test_a_variant_is_chosen_where_it_is_clearly_faster_or_alone_fits(measured: list[Measured]) -> None:
    """float32; else the fastest usable one beyond noise, or a smaller one where only it keeps the limits."""
    decision = decision_of(limits={"memory_mb": 55})
    free = decision_of()
    base = fake(measured[0], FLOAT32)
    slow, fast = fake(base, "a", speedup=1.1), fake(base, "b", speedup=1.5)
    broken = fake(base, "c", speedup=9.0, usable=False)
    small = fake(base, "d", speedup=0.9, peak_mb=50.0)
    assert choose([base, slow, broken], free) is base
    assert choose([base, slow, fast, broken], free) is fast
    assert choose([base, small], free) is base
    assert choose([base, small], decision) is small
    assert choose([base, slow], decision) is base  # nothing fits: the gates will say so
    assert not within_limits(base.bench, decision)


def test_neither_faster_nor_smaller_is_rejected(decision: Decision, measured: list[Measured]) -> None:
    """A variant that is the same graph is no gain: rejected in words, whatever the clock says by chance."""
    exported = exported_head("mlp")
    same = [measured[0].variant, Variant(DYNAMIC, exported)]
    found = measure(same, pump_examples(decision), decision, runs=40)[1]
    assert not found.usable
    assert "neither faster" in found.words
    assert "nor smaller (100%) here" in found.words


def test_a_variant_that_loses_money_or_flips_is_rejected(
    decision: Decision, measured: list[Measured]
) -> None:
    """Another network in its place changes decisions, and the words say how many."""
    other = replace(exported_head("linear"), variant=DYNAMIC)
    found = measure(
        [measured[0].variant, Variant(DYNAMIC, other)], pump_examples(decision), decision, runs=10
    )[1]
    assert not found.usable
    assert "of the decisions, 0.50% allowed" in found.words


def test_no_labels_reject_every_variant_but_float32(decision: Decision, measured: list[Measured]) -> None:
    """Which decisions change cannot be said without rows: too little data."""
    examples = pump_examples(decision)
    nothing = examples.take(np.zeros(len(examples), dtype=bool))
    found = measure([m.variant for m in measured[:2]], nothing, decision, runs=10)
    assert found[0].usable
    assert (found[1].usable, "too little data" in found[1].words) == (False, True)
    with pytest.raises(BundleError, match="float32 first"):
        measure([measured[1].variant], examples, decision)


def leak_audit(severity: Severity = "fine") -> LeakAudit:
    """An audit with one finding."""
    finding = Finding("giveaway", severity, "vib.rms alone tells the state", {"auc": 1.0}, ("vib.rms",))
    return LeakAudit((finding,), {"grouped": 0.8, "shuffled": 0.8}, pd.DataFrame({"column": ["vib.rms"]}))
