"""What becomes of a proposed action: ordered, held back, put to a person, or replaced by recovery.

Pure: a proposal, a ruling, what people say and what is in force go in; what is ordered comes out.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiotkit.core.decision import Decision
from aiotkit.core.gates import Change, Ruling, Verdict
from aiotkit.core.policy import ASK, Proposal
from aiotkit.core.records import Answer, Command, OperatorInput, Posture, Question

#: how many past commands a device remembers for its rate gates
KEPT_CHANGES = 64


@dataclass(frozen=True, slots=True)
class Resolution:
    """``final`` None = nothing new is ordered; ``why`` says it in words."""

    final: str | None
    why: str
    mode: str
    command: Command | None = None
    question: Question | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """The circumstances of one decision: identity, time, what is in force, what people said."""

    seed: str
    now_us: int
    posture: Posture | None
    open_question: Question | None
    operator: OperatorInput


def accepted_answer(decision: Decision, moment: Moment) -> Answer | None:
    """The operator's answer if it fits the open question, in time, with an action that exists."""
    answer, question = moment.operator.answer, moment.open_question
    fits = (
        answer is not None
        and question is not None
        and answer.question == question.id
        and moment.now_us <= question.until_us
        and answer.action in decision.actions
    )
    return answer if fits else None


def is_change(moment: Moment, action: str | None) -> bool:
    """Whether ordering the action would be a new command rather than a renewal."""
    posture = moment.posture
    return posture is None or not posture.holds(moment.now_us) or posture.action != action


def resolve(decision: Decision, proposal: Proposal, ruling: Ruling, moment: Moment) -> Resolution:
    """Decide what is ordered.

    A person's override goes first (the actuator's envelope still binds it), then bypass, then a command
    that only a person may lift, then doubt (recovery), HOLD, ASK, and last the declared autonomy.
    """
    operator, posture = moment.operator, moment.posture
    if operator.override is not None and operator.override not in decision.actions:
        words = f"a person ordered '{operator.override[:64]}', which is no action here"
        return Resolution(None, words, "override")
    if operator.override is not None:
        return _order(decision, operator.override, "ordered by a person", moment, mode="override")
    if operator.bypass:
        return Resolution(None, "bypass: the device moves nothing", "bypass")
    if posture is not None and _latched(decision, posture):
        return Resolution(None, f"'{posture.action}' holds until a person resets it", "latched")
    if ruling.verdict is Verdict.INDETERMINATE or proposal.action is None:
        return _recover(decision, _doubt(proposal, ruling), moment)
    answered = accepted_answer(decision, moment) is not None
    if ruling.verdict is Verdict.HOLD:
        return Resolution(None, "held back: " + _said(ruling, Verdict.HOLD), "hold")
    if (ruling.verdict is Verdict.ASK or proposal.action == ASK) and not answered:
        words = _said(ruling, Verdict.ASK) or proposal.reason
        return _ask(decision, "ask", proposal.action, words, moment)
    return _by_autonomy(decision, proposal, moment, answered=answered)


def _by_autonomy(decision: Decision, proposal: Proposal, moment: Moment, *, answered: bool) -> Resolution:
    action = proposal.action
    assert action is not None
    mode = decision.mode(action)
    if mode == "shadow":
        return Resolution(None, f"shadow: '{action}' would be ordered", mode)
    moves = decision.actions[action].actuator is not None and is_change(moment, action)
    if mode == "suggest":
        return (
            _ask(decision, "suggest", action, proposal.reason, moment)
            if moves
            else Resolution(None, f"suggest: '{action}' needs nothing new", mode)
        )
    if mode == "confirm" and moves and not answered:
        return _ask(decision, "confirm", action, proposal.reason, moment)
    if mode == "confirm" and not moves and decision.actions[action].actuator is not None:
        return Resolution(None, f"'{action}' is in force already", mode)
    return _order(decision, action, proposal.reason, moment, mode=mode)


def _recover(decision: Decision, doubt: str, moment: Moment) -> Resolution:
    mode = decision.mode(decision.recovery)
    if mode in ("shadow", "suggest"):
        return Resolution(None, f"{mode}: in doubt nothing is ordered: {doubt}", mode)
    return _order(decision, decision.recovery, f"recovery: {doubt}", moment, mode="recovery")


def _order(decision: Decision, name: str, why: str, moment: Moment, *, mode: str) -> Resolution:
    action = decision.actions[name]
    if action.actuator is None or moment.operator.dry_run:
        why = f"dry run: {why}" if moment.operator.dry_run else why
        return Resolution(name, why, "dry_run" if moment.operator.dry_run else mode)
    until = None if action.valid_for_s is None else moment.now_us + round(action.valid_for_s * 1e6)
    command = Command(name, action.actuator, action.command, until, irreversible=not action.reversible)
    return Resolution(name, why, mode, command)


def _ask(decision: Decision, kind: str, proposed: str | None, words: str, moment: Moment) -> Resolution:
    """Put a question, or leave the same one open rather than put it again."""
    old = moment.open_question
    if old is not None and (old.kind, old.proposed) == (kind, proposed) and moment.now_us <= old.until_us:
        return Resolution(None, f"waiting for an answer: {words}", kind, question=old)
    patience_s = decision.window.every_s
    if decision.human is not None:
        patience_s = max(patience_s, 2 * decision.human.delay_s)
    until = moment.now_us + round(patience_s * 1e6)
    question = Question(moment.seed, kind, proposed, until, words)
    return Resolution(None, f"a person is asked: {words}", kind, question=question)


def _latched(decision: Decision, posture: Posture) -> bool:
    action = decision.actions.get(posture.action)
    return posture.valid_until_us is None and action is not None and not action.reversible


def _doubt(proposal: Proposal, ruling: Ruling) -> str:
    if proposal.action is None:
        return proposal.reason
    return _said(ruling, Verdict.INDETERMINATE)


def _said(ruling: Ruling, verdict: Verdict) -> str:
    return "; ".join(f"{v.gate}: {v.reason}" for v in ruling.verdicts if v.verdict is verdict)


def posture_after(moment: Moment, resolution: Resolution) -> Posture | None:
    """What is in force after the decision.

    An expired command is in force no more, nor is any when a person orders an action that moves nothing.
    """
    command = resolution.command
    if command is not None:
        since = moment.now_us
        if moment.posture is not None and not is_change(moment, command.action):
            since = moment.posture.since_us
        return Posture(command.action, since, command.valid_until_us)
    posture = moment.posture
    if resolution.mode == "override" and resolution.final is not None:
        return None
    return posture if posture is not None and posture.holds(moment.now_us) else None


def changes_after(changes: tuple[Change, ...], moment: Moment, command: Command | None) -> tuple[Change, ...]:
    """Past commands, with this one if it was new; the newest ``KEPT_CHANGES`` are kept."""
    if command is None or not is_change(moment, command.action):
        return changes
    return (*changes, Change(moment.now_us / 1e6, command.action))[-KEPT_CHANGES:]
