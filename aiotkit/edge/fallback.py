"""A decision without an engine: when a bundle cannot decide, people and recovery still can. Pure."""

from __future__ import annotations

from aiotkit.core.decision import Decision
from aiotkit.core.gates import Ruling, Verdict
from aiotkit.core.policy import Proposal
from aiotkit.core.records import Decided, DecisionInput, Draw, EngineState
from aiotkit.core.resolution import Moment, changes_after, posture_after, resolve

_NEVER = Draw(0.0, 1.0)


def decide_without(decision: Decision, state: EngineState, given: DecisionInput, why: str) -> Decided:
    """What follows from ``why`` nothing can be proposed: a person's order, bypass, a trip, or recovery.

    Nothing was looked at: there are no features, and history and timers stay as they were.
    """
    moment = Moment(given.seed, given.now_us, state.posture, state.question, given.operator)
    proposal = Proposal(given.operator.override, why)
    resolution = resolve(decision, proposal, Ruling(Verdict.INDETERMINATE, (), {}), moment)
    posture = posture_after(moment, resolution)
    after = EngineState(
        history=state.history,
        memory=state.memory,
        posture=posture,
        changes=changes_after(state.changes, moment, resolution.command),
        question=resolution.question,
    )
    idle = resolution.final if resolution.mode != "dry_run" else None
    return Decided(
        features={},
        history={},
        p=None,
        expected_costs={},
        faults=dict(given.faults),
        proposed=proposal.action,
        proposal_reason=why,
        verdict=Verdict.INDETERMINATE,
        verdicts=(),
        final=resolution.final,
        final_reason=resolution.why,
        in_force=posture.action if posture is not None else idle,
        mode=resolution.mode,
        command=resolution.command,
        question=resolution.question,
        verify=_NEVER,
        upload=_NEVER,
        state=after,
    )
