"""Outcomes and labels: who saw what of which machine, and what that says about a decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotkit.core.errors import OutcomeError

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")
H = 3_600_000_000
DAY = 24 * H
T0 = 1_780_000_000_000_000
LATE = T0 + 400 * DAY


def at(us: int) -> str:
    return str(pd.Timestamp(us, unit="us", tz="UTC").isoformat())


def report(subject: str, state: str, us: int, source: str = "crew", **more: Any) -> dict[str, Any]:
    said = more.pop("said", us)
    return {
        "subject": subject,
        "state": state,
        "at": at(us),
        "reported_at": at(said),
        "source": source,
        **more,
    }


def bring(plant: Any, *rows: dict[str, Any]) -> Any:
    from aiotkit.lab.outcomes import import_outcomes

    return import_outcomes(plant.lake, pd.DataFrame(list(rows)), plant.decision, imported_us=LATE)


def label_of(plant: Any, key: tuple[str, str, int], as_of: int = LATE) -> tuple[Any, ...]:
    from aiotkit.lab.outcomes import resolve

    labels = resolve(plant.lake, plant.decision, as_of)
    row = labels[(labels["device"] == key[0]) & (labels["seq"] == key[2])].iloc[0]
    return row["status"], row["state"]


@pytest.fixture
def pump(plant: Any) -> Any:
    """One device on one pump."""
    plant.watch("d1", "pump-a", T0 - 9 * DAY)
    return plant


def test_a_state_reported_within_the_horizon_is_the_outcome(pump: Any) -> None:
    """Reported after 20 h: the outcome; reported after 25 h: silence, which means ok."""
    early, late = pump.decide("d1", T0), pump.decide("d1", T0 - 5 * H)
    pump.store()
    bring(pump, report("pump-a", "broken", T0 + 20 * H))
    assert label_of(pump, early) == ("mature", "broken")
    assert label_of(pump, late) == ("mature", "ok")


def test_a_report_at_the_end_of_an_episode_belongs_to_the_next(pump: Any) -> None:
    """An episode is [t, t + horizon): what holds at its end labels the decision that is taken then."""
    first, just, then = (pump.decide("d1", T0 + us) for us in (0, 1, DAY))
    pump.store()
    bring(pump, report("pump-a", "broken", T0 + DAY))
    assert label_of(pump, first) == ("mature", "ok")
    assert label_of(pump, just) == ("mature", "broken")
    assert label_of(pump, then) == ("mature", "broken")


def test_no_label_before_maturity_whatever_was_said(pump: Any) -> None:
    """Until the waiting time is over a decision is pending, also when something was reported."""
    key = pump.decide("d1", T0)
    pump.store()
    bring(pump, report("pump-a", "broken", T0 + H))
    assert label_of(pump, key, T0 + 2 * DAY - 1) == ("pending", None)
    assert label_of(pump, key, T0 + 2 * DAY) == ("mature", "broken")


def test_a_report_counts_only_once_it_was_said(pump: Any) -> None:
    """As of an instant, what was said later is not known; evidence that comes late outweighs silence."""
    key = pump.decide("d1", T0)
    pump.store()
    bring(pump, report("pump-a", "worn", T0 + H, said=T0 + 9 * DAY))
    assert label_of(pump, key, T0 + 9 * DAY - 1) == ("mature", "ok")
    assert label_of(pump, key, T0 + 9 * DAY) == ("mature", "worn")


def test_what_an_action_prevented_is_censored_not_negative(pump: Any) -> None:
    """Acted and no failure seen: unknown; an inspection's finding is kept, and is not a fair sample."""
    acted, inspected = pump.decide("d1", T0, "slow"), pump.decide("d1", T0 + 3 * DAY, "slow")
    pump.store()
    bring(pump, report("pump-a", "worn", T0 + 3 * DAY + H, kind="inspection"))
    assert label_of(pump, acted) == ("censored", None)
    assert label_of(pump, inspected) == ("censored", "worn")


def test_silence_after_a_later_action_is_censored_too(pump: Any) -> None:
    """Run now, slowed an hour later, nothing seen: the slowing may have prevented it."""
    before, seen = pump.decide("d1", T0), pump.decide("d1", T0 - 30 * H)
    pump.decide("d1", T0 + H, "slow")
    pump.store()
    assert label_of(pump, before) == ("censored", None)
    assert label_of(pump, seen) == ("mature", "ok")


def test_verified_needs_the_draw_and_the_inspection(pump: Any) -> None:
    """Drawn and inspected: verified, also when acted upon; one of the two alone is not enough."""
    both = pump.decide("d1", T0, "slow", drawn=True)
    drawn = pump.decide("d1", T0 + 10 * DAY, "slow", drawn=True)
    told = pump.decide("d1", T0 + 20 * DAY, "slow", drawn=True)
    looked = pump.decide("d1", T0 + 30 * DAY, "slow")
    pump.store()
    bring(
        pump,
        report("pump-a", "worn", T0 + H, kind="inspection"),
        report("pump-a", "worn", T0 + 20 * DAY + H),
        report("pump-a", "worn", T0 + 30 * DAY + H, kind="inspection"),
    )
    assert label_of(pump, both) == ("verified", "worn")
    assert label_of(pump, drawn) == ("censored", None)
    assert label_of(pump, told) == ("censored", "worn")
    assert label_of(pump, looked) == ("censored", "worn")


@pytest.fixture
def inspected(document: dict[str, Any]) -> Any:
    """Label decisions about one pump, of which an inspector and the crew may have said something."""
    from aiotkit.core.decision import parse_decision
    from aiotkit.lab.labels import label

    inspector = {"reports": ["ok", "worn", "broken"], "reliability": 0.9}
    document["outcome"]["sources"]["inspector"] = inspector
    decision = parse_decision(document)

    def of(said: list[tuple[str, str, int]], *acts: int, drawn: bool = False) -> tuple[Any, ...]:
        rows = [(t, "slow" if t in acts else "run") for t in sorted({T0, *acts})]
        decisions = pd.DataFrame(
            [("d", "j", i, "pump-a", t, a, drawn and t == T0) for i, (t, a) in enumerate(rows)],
            columns=["device", "journal_id", "seq", "subject", "at_us", "in_force", "verify_hit"],
        )
        trust = {n: s.reliability for n, s in decision.outcome.sources.items()}
        reports = pd.DataFrame(
            [("pump-a", s, t, t, n, trust[n], "inspection" if n == "inspector" else "report")
             for n, s, t in said],
            columns=["subject", "state", "at_us", "reported_us", "source", "reliability", "kind"],
        )  # fmt: skip
        row = label(decisions, reports, decision, LATE).set_index("at_us").loc[T0]
        return row["status"], row["state"], round(float(row["confidence"]), 2)

    return of


def test_what_an_inspector_alone_found_is_weighed_against_silence(inspected: Any) -> None:
    """The crew would have said so, nine times in ten: for the row that was checked and for its neighbours."""
    found = [("inspector", "worn", T0 + H)]  # worn 0.9 · 0.1, ok 0.05, broken 0.05 · 0.1 · 0.4
    assert inspected(found) == ("mature", "worn", 0.63)
    assert inspected(found, drawn=True) == ("verified", "worn", 0.63)


def test_an_inspector_who_is_borne_out_is_believed(inspected: Any) -> None:
    """The crew found it too; or something was done, so that nobody could have noticed."""
    found = [("inspector", "worn", T0 + H)]
    status, state, sure = inspected([*found, ("crew", "worn", T0 + 5 * H)])
    assert (status, state) == ("mature", "worn")
    assert sure > 0.98
    assert inspected(found, T0 + 2 * H) == ("mature", "worn", 0.9)
    assert inspected(found, T0 + 2 * H, drawn=True) == ("verified", "worn", 0.9)


def test_an_all_clear_needs_no_second_opinion(inspected: Any) -> None:
    """Silence does not speak against it; nor against what somebody reported unasked."""
    assert inspected([("inspector", "ok", T0 + H)]) == ("mature", "ok", 0.9)
    assert inspected([("crew", "worn", T0 + H)]) == ("mature", "worn", 0.9)


def test_a_moved_device_does_not_carry_outcomes_to_another_machine(plant: Any) -> None:
    """The naive join gives a failure to the wrong decisions, the registry to the right ones."""
    plant.watch("d1", "pump-a", T0 - DAY)
    on_a = plant.decide("d1", T0)
    plant.watch("d1", "pump-b", T0 + 2 * H)
    on_b = plant.decide("d1", T0 + 3 * H)
    plant.store()
    bring(plant, report("pump-a", "broken", T0 + 5 * H))

    from aiotkit.lake.assets import Assets

    now = {a.device: a.subject for a in Assets(plant.lake).assignments() if a.to_us is None}
    assert now["d1"] == "pump-b"  # the naive join would look for pump-b's outcomes, for both decisions
    assert label_of(plant, on_a) == ("mature", "broken")
    assert label_of(plant, on_b) == ("mature", "ok")


def test_a_device_that_watched_nothing_gets_no_label(plant: Any) -> None:
    """A decision before the device was assigned belongs to no machine, and that is said."""
    plant.watch("d1", "pump-a", T0)
    key = plant.decide("d1", T0 - H)
    plant.store()
    assert label_of(plant, key) == ("unassigned", None)


def test_silence_without_meaning_leaves_a_decision_unlabelled(
    document: dict[str, Any], tmp_path: Path
) -> None:
    """Where silence means nothing, it never becomes a negative."""
    from aiotkit.core.decision import parse_decision
    from aiotkit.lab.labels import label

    document["outcome"]["silence"] = None
    rows = [("d", "j", 1, "p", T0, "run", False)]
    frame = pd.DataFrame(
        rows, columns=["device", "journal_id", "seq", "subject", "at_us", "in_force", "verify_hit"]
    )
    none = pd.DataFrame(columns=["subject", "state", "at_us", "reported_us", "source", "reliability", "kind"])
    found = label(frame, none, parse_decision(document), LATE)
    assert found["status"].tolist() == ["unlabelled"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["ok", "worn", "broken"]), st.floats(0.4, 0.99)), min_size=1, max_size=4
    )
)
def test_confidence_is_bayes_rule(said: list[tuple[str, float]]) -> None:
    """For any reports at one instant the confidence is the posterior, from its definition."""
    from aiotkit.lab.labels import Report, believe

    states = ["ok", "worn", "broken"]
    reports = [Report(s, 0, 0, f"source-{i}", r) for i, (s, r) in enumerate(said)]
    belief = believe(reports, states, "ok")
    weights = []
    for truth in states:
        weight = 1 / 3
        for state, r in said:
            weight *= r if state == truth else (1 - r) / 2
        weights.append(weight)
    assert belief.confidence == pytest.approx(max(weights) / sum(weights))
    assert belief.state is not None
    assert weights[states.index(belief.state)] == pytest.approx(max(weights))  # ties: either


def test_the_first_event_counts_and_an_earlier_all_clear_does_not_contradict_it() -> None:
    """Fine in the morning, broken at noon, repaired by night: the outcome is broken."""
    from aiotkit.lab.labels import Report, believe

    day = [
        Report("ok", 1, 1, "crew", 0.9),
        Report("broken", 5, 5, "crew", 0.9),
        Report("ok", 9, 9, "crew", 0.9),
    ]
    belief = believe(day, ["ok", "broken"], "ok")
    assert (belief.state, belief.confidence) == ("broken", pytest.approx(0.9))


def test_silence_is_as_sure_as_the_sources_that_would_have_spoken(guard: Any) -> None:
    """One unreliable source being silent says little; two say more."""
    from aiotkit.lab.labels import believe_silence

    sources = guard.outcome.sources
    belief = believe_silence("ok", tuple(guard.states), sources)
    missed = 0.1 + 0.1 * 0.4  # worn: only the crew would say so; broken: crew and app
    assert belief.confidence == pytest.approx(1 / (1 + missed))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"subject": "pump-x"}, "unknown subject 'pump-x'; did you mean 'pump-a'?"),
        ({"state": "wron"}, "unknown state 'wron'; did you mean 'worn'?"),
        ({"source": "crow"}, "unknown source 'crow'; did you mean 'crew'?"),
        ({"source": "app", "state": "worn"}, "source 'app' does not report state 'worn'"),
        ({"reported_at": at(T0 - 1)}, "said before it was so"),
        ({"reported_at": at(LATE + 1)}, "said in the future"),
        ({"at": "yesterday"}, "at: unreadable time"),
        ({"kind": "hearsay"}, "unknown kind 'hearsay'"),
        ({"reliability": 1.5}, "reliability outside [0, 1], or no number"),
        ({"reliability": "nan"}, "reliability outside [0, 1], or no number"),
    ],
)
def test_a_report_that_cannot_be_joined_is_rejected_with_its_reason(
    pump: Any, spoil: dict[str, Any], reason: str
) -> None:
    """The good row goes in, the bad one is kept aside with row number and reason; none is lost."""
    good, bad = report("pump-a", "ok", T0), {**report("pump-a", "worn", T0), **spoil}
    found = bring(pump, good, bad)
    assert (found.rows_in, len(found.accepted)) == (2, 1)
    assert found.rejected["row"].tolist() == [2]
    assert reason in found.rejected["reason"][0]
    assert reason in pump.lake.read("quarantine").to_pylist()[0]["reason"]
    assert pump.lake.read("outcomes").num_rows == 1


def test_the_same_reports_twice_are_kept_once(pump: Any) -> None:
    """Within a file and across imports, a report counts once."""
    row = report("pump-a", "worn", T0)
    assert bring(pump, row, row).rejected["reason"].tolist() == ["duplicate of an earlier row"]
    assert bring(pump, row).rejected["reason"].tolist() == ["in the lake already"]
    assert pump.lake.read("outcomes").num_rows == 1


def test_outcomes_without_registry_or_column_are_refused(plant: Any) -> None:
    """What cannot be joined at all stops, and says what to do."""
    with pytest.raises(OutcomeError, match="asset registry is empty"):
        bring(plant, report("pump-a", "ok", T0))
    plant.watch("d1", "pump-a", T0)
    with pytest.raises(OutcomeError, match=r"column 'state' is missing.*did you mean 'sate'"):
        bring(plant, {"subject": "pump-a", "sate": "ok", "at": at(T0), "source": "crew"})


def test_written_labels_read_back_and_the_newest_counts(pump: Any) -> None:
    """Labels are facts as of an instant: both are kept, the later one counts."""
    from aiotkit.lab.outcomes import current_labels, resolve

    pump.decide("d1", T0)
    pump.store()
    resolve(pump.lake, pump.decision, T0 + DAY, write=True)
    assert current_labels(pump.lake, "pump-guard")["status"].tolist() == ["pending"]
    resolve(pump.lake, pump.decision, T0 + 3 * DAY, write=True)
    assert current_labels(pump.lake, "pump-guard")["status"].tolist() == ["mature"]
    assert pump.lake.read("labels").num_rows == 2


def test_decisions_unfold_with_reasons_gates_and_features(pump: Any) -> None:
    """The frame of decisions says what was seen, what gates said and why, as recorded."""
    import math

    from aiotkit.lab.journal import changes, decisions_frame, gate_verdicts

    pump.decide("d1", T0, vib=-3.0)
    pump.decide("d1", T0 + H, "slow", drawn=True)
    pump.decide("d1", T0 + 2 * H, "slow")
    pump.store()
    frame = decisions_frame(pump.lake, "pump-guard")
    assert frame["feature.vib.rms"].tolist() == [-3.0, 1.0, 1.0]
    assert math.isnan(frame["feature.oil.last"][0])
    assert frame["context.mode"].tolist() == ["production"] * 3
    assert frame["verify_hit"].tolist() == [False, True, False]
    assert gate_verdicts(frame)["verdict"].tolist() == ["HOLD", "ALLOW", "ALLOW"]
    assert changes(frame)["in_force"].tolist() == ["run", "slow"]
    assert decisions_frame(pump.lake, "another").empty
