"""What an agent takes up again after a restart, out of its journal. Reads, and judges; writes nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiotkit.core.decision import Decision, History
from aiotkit.core.records import EngineState, RecordType, state_from_json
from aiotkit.edge.acting import state_after
from aiotkit.edge.journal import Journal

log = logging.getLogger(__name__)
_LENGTHS = {"ewma": (3,), "slope": (6,), "time_since": (2,), "baseline": (4,)}


@dataclass(frozen=True, slots=True)
class Restored:
    """``bundle`` decided last (digest), on a window that ended at ``last_end_us``.

    ``unfinished``: the INTENT (seq, payload) that no RESULT followed.
    """

    state: EngineState
    bundle: str | None = None
    last_end_us: int | None = None
    last_now_us: int = 0
    unfinished: tuple[int, Mapping[str, Any]] | None = None


def restore(journal: Journal) -> Restored:
    """The engine's state after the last durable decision; ``fit_state`` fits it to another bundle."""
    unfinished = _unfinished(journal)
    frame = journal.last(RecordType.DECISION)
    if frame is None or frame.payload is None:
        return Restored(EngineState(), unfinished=unfinished)
    record = json.loads(frame.payload)
    given = record["in"]
    state = state_from_json(record["out"]["state"])
    status = _result_of(journal, frame.seq)
    if status is not None:
        state = state_after(state_from_json(given["state"]), state, status, given["now_us"])
    return Restored(
        state,
        record["bundle"],
        given["window_end_us"],
        given["now_us"],
        unfinished,
    )


def seen_messages(journal: Journal) -> set[str]:
    """Ids of the operators' messages that were taken and may not have ended yet.

    A message lives a week at most, and one that had ended when the newest was taken is left out. The
    very last record does not count: the power may have gone before that message was obeyed.
    """
    kinds = (RecordType.ANSWER, RecordType.OVERRIDE)
    taken: dict[str, int] = {}
    newest_us, last_id = 0, ""
    for frame in journal.frames():
        last_id = ""
        if frame.type in kinds and frame.payload is not None:
            record = json.loads(frame.payload)
            newest_us, last_id = record["at_us"], record["message"]["id"]
            taken[last_id] = record["message"]["until_us"]
    return {name for name, until_us in taken.items() if until_us > newest_us and name != last_id}


def rewind(state: EngineState, now_us: int) -> EngineState:
    """The state once it is known that it was built on instants that have not come yet.

    History, timers and questions start anew. What is in force stays, but a command with an end has ended.
    """
    posture = state.posture
    if posture is not None:
        until_us = None if posture.valid_until_us is None else min(posture.valid_until_us, now_us)
        posture = replace(posture, since_us=min(posture.since_us, now_us), valid_until_us=until_us)
    changes = tuple(change for change in state.changes if change.at_s <= now_us / 1e6)
    return EngineState(posture=posture, changes=changes)


def _result_of(journal: Journal, decision_seq: int) -> str | None:
    """The status of the decision's own command; None when it had none or nobody knows."""
    for frame in journal.frames(decision_seq + 1):
        if frame.type is RecordType.RESULT and frame.payload is not None:
            result = json.loads(frame.payload)
            if result["decision"] == decision_seq and result["actuator"] is not None:
                return None if result["status"] == "unknown" else str(result["status"])
    return None


def fit_state(state: EngineState, decision: Decision) -> EngineState:
    """The state for another bundle: history where name and shape match; timers and questions start anew.

    What is in force stays in force, if the action still exists.
    """
    kept = {
        name: values
        for name, values in state.history.items()
        if name in decision.history and _fits(decision.history[name], values)
    }
    posture = state.posture
    if posture is not None and posture.action not in decision.actions:
        log.warning("'%s' was in force; the new bundle does not know it", posture.action)
        posture = None
    changes = tuple(change for change in state.changes if change.action in decision.actions)
    return replace(state, history=kept, memory={}, question=None, posture=posture, changes=changes)


def _fits(history: History, values: tuple[float, ...]) -> bool:
    if history.kind == "max":
        return not values or len(values) % 2 == 1
    return not values or len(values) in _LENGTHS[history.kind]


def _unfinished(journal: Journal) -> tuple[int, Mapping[str, Any]] | None:
    intent, result = journal.last(RecordType.INTENT), journal.last(RecordType.RESULT)
    if intent is None or intent.payload is None or (result is not None and result.seq > intent.seq):
        return None
    return intent.seq, json.loads(intent.payload)
