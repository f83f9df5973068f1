"""What becomes of a proposal: autonomy, doubt, people and what is in force."""

from __future__ import annotations

import pytest

from aiotkit.core.decision import Decision, parse_decision
from aiotkit.core.gates import Change, GateVerdict, Ruling, Verdict
from aiotkit.core.policy import ASK, Proposal
from aiotkit.core.records import Answer, OperatorInput, Posture, Question
from aiotkit.core.resolution import (
    KEPT_CHANGES,
    Moment,
    Resolution,
    changes_after,
    posture_after,
    resolve,
)

NOW = 1_700_000_000_000_000
HOUR = 3_600_000_000


def decision(mode: str = "act", **actions: str) -> Decision:
    return parse_decision(
        {
            "format": 1,
            "id": "x",
            "revision": 1,
            "subject": "machine",
            "question": "?",
            "site": {"name": "plant"},
            "states": {"ok": {}, "bad": {}},
            "actions": {
                "watch": {},
                "run": {"actuator": "drive", "command": {"speed": 1.0}, "valid_for_s": 7200},
                "slow": {"actuator": "drive", "command": {"speed": 0.6}, "valid_for_s": 7200},
                "stop": {"actuator": "drive", "command": {"speed": 0.0}, "reversible": False},
            },
            "costs": "unknown",
            "human": {"cost": 10, "delay_s": 600, "reliability": 0.9},
            "signals": {"a": {"unit": "V", "sampling": {"kind": "regular", "rate_hz": 4}, "range": [-1, 1]}},
            "window": {"length_s": 1, "every_s": 60},
            "needs": {"deadline_ms": 100},
            "autonomy": {"mode": mode, "actions": actions},
            "rule": [{"otherwise": "run"}],
            "recovery": "slow",
            "outcome": {
                "horizon_s": 60,
                "maturity_s": 60,
                "silence": "ok",
                "sources": {"shop": {"reports": ["bad"]}},
            },
        }
    )


def ruling(verdict: Verdict = Verdict.ALLOW) -> Ruling:
    return Ruling(verdict, (GateVerdict("g", verdict, "its reason"),), {})


def moment(
    posture: Posture | None = None,
    question: Question | None = None,
    operator: OperatorInput = OperatorInput(),  # noqa: B008
    now_us: int = NOW,
) -> Moment:
    return Moment("d/j/7", now_us, posture, question, operator)


def settle(
    action: str | None,
    *,
    verdict: Verdict = Verdict.ALLOW,
    at: Moment | None = None,
    of: Decision | None = None,
) -> Resolution:
    return resolve(of or decision(), Proposal(action, "why"), ruling(verdict), at or moment())


def test_an_allowed_action_is_ordered_with_its_validity() -> None:
    """Under 'act' an allowed action becomes a command that ends by itself."""
    done = settle("slow")
    assert done.final == "slow"
    assert done.command is not None
    assert (done.command.values, done.command.valid_until_us) == ({"speed": 0.6}, NOW + 2 * HOUR)
    assert not done.command.irreversible


def test_an_irreversible_action_is_marked_so() -> None:
    """The agent can see that the intent must be durable first."""
    command = settle("stop").command
    assert command is not None
    assert command.irreversible
    assert command.valid_until_us is None


@pytest.mark.parametrize("action", ["run", "stop", ASK])
def test_doubt_leaves_nothing_but_recovery(action: str) -> None:
    """INDETERMINATE orders the recovery, whatever was proposed."""
    done = settle(action, verdict=Verdict.INDETERMINATE)
    assert (done.final, done.mode) == ("slow", "recovery")
    assert "its reason" in done.why


def test_an_undeterminable_proposal_recovers_even_when_gates_allow() -> None:
    """A rule that could not be judged is doubt, too."""
    assert settle(None).final == "slow"


@pytest.mark.parametrize("mode", ["shadow", "suggest"])
def test_in_shadow_and_suggest_even_recovery_moves_nothing(mode: str) -> None:
    """A device that may not act does not act in doubt either."""
    for action, verdict in (("slow", Verdict.ALLOW), ("slow", Verdict.INDETERMINATE)):
        done = settle(action, verdict=verdict, of=decision(mode))
        assert done.final is None
        assert done.command is None


def test_hold_orders_nothing_new() -> None:
    """HOLD withholds the action and says which gate did."""
    done = settle("stop", verdict=Verdict.HOLD)
    assert (done.final, done.command) == (None, None)
    assert "g: its reason" in done.why


@pytest.mark.parametrize(("action", "verdict"), [("stop", Verdict.ASK), (ASK, Verdict.ALLOW)])
def test_ask_puts_a_question_and_moves_nothing(action: str, verdict: Verdict) -> None:
    """Asking, by a gate or by the policy, waits for a person."""
    done = settle(action, verdict=verdict)
    assert done.command is None
    assert done.question is not None
    assert (done.question.id, done.question.kind) == ("d/j/7", "ask")
    assert done.question.until_us == NOW + 1_200_000_000


def test_the_same_question_is_not_put_twice() -> None:
    """An open question stays the same one until it is answered or runs out."""
    first = settle("stop", verdict=Verdict.ASK).question
    assert first is not None
    later = moment(question=first, now_us=NOW + 60_000_000)
    assert settle("stop", verdict=Verdict.ASK, at=later).question == first
    too_late = moment(question=first, now_us=first.until_us + 1)
    again = settle("stop", verdict=Verdict.ASK, at=too_late).question
    assert again is not None
    assert again.until_us > first.until_us


def test_confirm_waits_for_a_person_and_obeys_the_answer() -> None:
    """Under 'confirm' a person's answer, and nothing else, moves the actuator."""
    of = decision("confirm")
    question = settle("stop", of=of).question
    assert question is not None
    assert question.kind == "confirm"
    answer = Answer(question.id, "stop", "kim", NOW + 5)
    at = moment(question=question, operator=OperatorInput(answer=answer), now_us=NOW + 5)
    assert settle("stop", of=of, at=at).command is not None


@pytest.mark.parametrize(
    "answer",
    [Answer("d/j/6", "stop", "kim", NOW), Answer("d/j/7", "explode", "kim", NOW)],
    ids=["another question", "unknown action"],
)
def test_an_answer_that_does_not_fit_moves_nothing(answer: Answer) -> None:
    """An answer to something else, or with an action that does not exist, is not an answer."""
    question = Question("d/j/7", "confirm", "stop", NOW + HOUR, "")
    at = moment(question=question, operator=OperatorInput(answer=answer))
    assert settle("stop", of=decision("confirm"), at=at).command is None


def test_an_answer_after_its_time_moves_nothing() -> None:
    """A question's answer counts only while the question is open."""
    question = Question("d/j/7", "confirm", "stop", NOW - 1, "")
    answer = OperatorInput(answer=Answer("d/j/7", "stop", "kim", NOW))
    done = settle("stop", of=decision("confirm"), at=moment(question=question, operator=answer))
    assert done.command is None


@pytest.mark.parametrize("verdict", [Verdict.HOLD, Verdict.INDETERMINATE])
def test_a_human_answer_does_not_silence_hold_or_doubt(verdict: Verdict) -> None:
    """Gates judge an answered action again: only ASK is settled by an answer."""
    question = Question("d/j/7", "ask", "stop", NOW + HOUR, "")
    at = moment(question=question, operator=OperatorInput(answer=Answer("d/j/7", "stop", "kim", NOW)))
    done = settle("stop", verdict=verdict, at=at)
    assert done.final in (None, "slow")


def test_a_stopped_machine_is_not_restarted_by_the_device() -> None:
    """An irreversible command without end holds until a person orders otherwise."""
    stopped = Posture("stop", NOW - HOUR, None)
    for verdict in Verdict:
        done = settle("run", verdict=verdict, at=moment(stopped))
        assert (done.final, done.mode) == (None, "latched")
    released = settle("run", at=moment(stopped, operator=OperatorInput(override="run")))
    assert (released.final, released.mode) == ("run", "override")


def test_an_order_for_an_unknown_action_moves_nothing() -> None:
    """A person's order that the decision does not know is refused in words."""
    done = settle("run", at=moment(operator=OperatorInput(override="explode")))
    assert (done.final, done.command) == (None, None)
    assert "no action here" in done.why


def test_bypass_moves_nothing_but_lets_people_order() -> None:
    """In maintenance the device only looks on."""
    assert settle("stop", at=moment(operator=OperatorInput(bypass=True))).mode == "bypass"
    ordered = settle("run", at=moment(operator=OperatorInput(bypass=True, override="slow")))
    assert ordered.final == "slow"


def test_dry_run_says_what_it_would_order() -> None:
    """A dry run decides as usual and commands nothing."""
    done = settle("stop", at=moment(operator=OperatorInput(dry_run=True)))
    assert (done.final, done.mode, done.command) == ("stop", "dry_run", None)


def test_one_action_may_have_less_autonomy_than_the_rest() -> None:
    """Autonomy goes action by action."""
    of = decision("act", stop="confirm")
    assert settle("slow", of=of).command is not None
    assert settle("stop", of=of).command is None


def test_a_renewal_keeps_its_beginning_and_is_no_change() -> None:
    """Ordering what is in force prolongs it; only another action counts as a change."""
    posture = Posture("slow", NOW - HOUR, NOW + HOUR)
    at = moment(posture)
    again = settle("slow", at=at)
    renewed = again.command
    assert posture_after(at, again) == Posture("slow", NOW - HOUR, NOW + 2 * HOUR)
    assert changes_after((), at, renewed) == ()
    changed = settle("run", at=at).command
    assert changes_after((), at, changed) == (Change(NOW / 1e6, "run"),)


def test_what_has_run_out_is_in_force_no_more() -> None:
    """After its validity a command is gone, and ordering it again is a change."""
    over = moment(Posture("slow", NOW - HOUR, NOW))
    assert posture_after(over, Resolution(None, "", "act")) is None
    assert changes_after((), over, settle("slow", at=over).command) != ()


def test_a_person_who_orders_what_moves_nothing_ends_the_command_in_force() -> None:
    """After an override to an action without actuator no command of the device holds."""
    at = moment(Posture("stop", NOW - HOUR, None), operator=OperatorInput(override="watch"))
    assert posture_after(at, settle("run", at=at)) is None
    unknown = moment(Posture("stop", NOW - HOUR, None), operator=OperatorInput(override="explode"))
    assert posture_after(unknown, settle("run", at=unknown)) == unknown.posture


def test_the_memory_of_commands_is_bounded() -> None:
    """However long it runs, a device remembers a fixed number of commands."""
    old = tuple(Change(float(i), "run") for i in range(KEPT_CHANGES))
    new = changes_after(old, moment(), settle("slow").command)
    assert len(new) == KEPT_CHANGES
    assert new[-1].action == "slow"
