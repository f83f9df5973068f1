"""From a decided command to the actuator process and back: intent before irreversible, result after all."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiotkit.core.errors import ActuatorError
from aiotkit.core.records import Command, Decided, EngineState, Posture, RecordType, command_to_json
from aiotkit.edge.keeper import Keeper
from aiotkit.edge.link import IN_FORCE, ActuatorLink, Report, Result

log = logging.getLogger(__name__)
_BEAT_MOST_S = 0.5


class Acting:
    """Carries out commands and keeps the engine's idea of what is in force true.

    Args:
        link: the line to the actuator process; None when there is none.
        keeper: where intents and results go.
        unlogged_reversible: whether reversible commands may go while nothing can be journaled.
    """

    def __init__(self, link: ActuatorLink | None, keeper: Keeper, *, unlogged_reversible: bool) -> None:
        self._link, self._keeper = link, keeper
        self._unlogged_reversible = unlogged_reversible
        self.report: Report | None = None
        self.trouble = ""
        self._beat_at_s = 0.0

    @property
    def stopped(self) -> bool:
        """Whether the stop was pressed, as far as is known."""
        return self.report is not None and self.report.stopped

    def carry_out(
        self, before: EngineState, decided: Decided, decision_seq: int | None, command_id: str, now_us: int
    ) -> EngineState:
        """Do what was decided; gives the state with what is really in force."""
        command = decided.command
        if command is None:
            return decided.state
        intent: int | None = None
        if command.irreversible:
            intent = self._keeper.append(
                RecordType.INTENT,
                {"decision": decision_seq, "id": command_id, "command": command_to_json(command)},
            )
        result = self._withheld(command, decision_seq) or self._send(command_id, command)
        self._note(command_id, command, result, decision_seq, intent)
        if result.in_force:
            return decided.state
        log.warning("'%s' was not carried out: %s: %s", command.action, result.status, result.why)
        return state_after(before, decided.state, result.status, now_us)

    def let_go(
        self,
        state: EngineState,
        held: Posture | None,
        action: str,
        command_id: str,
        decision_seq: int | None,
    ) -> EngineState:
        """A person ordered an action that moves nothing: end the command that was in force (``held``)."""
        if self._link is None or held is None:
            return state
        result = self._link.rest(command_id)
        self._note(command_id, None, result, decision_seq, None, action=action)
        return state if result.in_force else replace(state, posture=held)

    def settle(self, seq: int, intent: Mapping[str, Any]) -> None:
        """A killed agent left an intent without a result: nobody knows what became of it."""
        command = intent["command"]
        self._keeper.append(
            RecordType.RESULT,
            {
                "decision": intent["decision"],
                "intent": seq,
                "id": intent["id"],
                "action": command["action"],
                "actuator": command["actuator"],
                "status": "unknown",
                "why": "the agent ended between intent and result",
                "read": {},
                "at_us": None,
            },
        )

    def beat(self, state: EngineState, *, force: bool = False) -> EngineState:
        """Send a heartbeat when one is due, journal what happened, and correct what is in force."""
        now_s = time.monotonic()
        if self._link is None or (not force and now_s < self._beat_at_s):
            return state
        try:
            report = self._link.beat()
        except ActuatorError as error:
            self._beat_at_s = time.monotonic() + _BEAT_MOST_S
            self._say(str(error))
            return state
        self._say("" if report.driver == "connected" else "the driver is not connected")
        self.report = report
        self._beat_at_s = now_s + min(report.deadman_s / 4, _BEAT_MOST_S)
        for event in report.events:
            self._happened(event)
        return _corrected(state, report)

    def stop(self, by: str, why: str) -> None:
        """Press the stop for a person; raises ``ActuatorError`` when nobody answers."""
        if self._link is None:
            raise ActuatorError("stop: this device has no actuator process")
        self._link.stop(by, why)

    def release(self, envelope: bytes) -> None:
        """Hand a signed release on; raises ``ActuatorError`` when it is refused."""
        if self._link is None:
            raise ActuatorError("release: this device has no actuator process")
        self._link.release(envelope)

    def close(self) -> None:
        """Hang up."""
        if self._link is not None:
            self._link.close()

    def _send(self, command_id: str, command: Command) -> Result:
        if self._link is None:
            return Result("failed", "this device has no actuator process")
        return self._link.command(command_id, command)

    def _withheld(self, command: Command, decision_seq: int | None) -> Result | None:
        """None when the command may go: its record is durable, or need not be yet."""
        if decision_seq is not None and self._keeper.writable and not command.irreversible:
            return None
        if decision_seq is not None and self._keeper.commit():
            return None
        if self._unlogged_reversible and not command.irreversible:
            return None
        return Result("withheld", f"it cannot be journaled: {self._keeper.trouble}")

    def _note(
        self,
        command_id: str,
        command: Command | None,
        result: Result,
        decision_seq: int | None,
        intent: int | None,
        *,
        action: str = "",
    ) -> None:
        self._keeper.append(
            RecordType.RESULT,
            {
                "decision": decision_seq,
                "intent": intent,
                "id": command_id,
                "action": action if command is None else command.action,
                "actuator": None if command is None else command.actuator,
                "status": result.status,
                "why": result.why,
                "read": dict(result.read),
                "at_us": result.at_us,
                "ms": round(result.ms, 3),
            },
        )

    def _happened(self, event: Mapping[str, Any]) -> None:
        log.info("actuator process: %s", event)
        if event["kind"] in ("stop", "release"):
            self._keeper.append(RecordType.OVERRIDE, {"event": dict(event)})
            return
        self._keeper.append(
            RecordType.RESULT,
            {
                "decision": None,
                "intent": None,
                "id": event["id"],
                "action": event["action"],
                "actuator": event["actuator"],
                "status": event["kind"],
                "why": event["why"],
                "read": {},
                "at_us": event["at_us"],
            },
        )

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("%s", trouble)
        self.trouble = trouble


def state_after(before: EngineState, after: EngineState, status: str, now_us: int) -> EngineState:
    """The state after a command, by its result's status: what was not carried out is not in force.

    What never reached the machine (refused, expired, withheld) leaves in force what was; after a failure
    nobody knows, so nothing is taken for granted and the next decision orders anew.
    """
    if status in IN_FORCE:
        return after
    posture = before.posture if status in ("refused", "expired", "withheld") else None
    still = posture if posture is not None and posture.holds(now_us) else None
    return replace(after, posture=still, changes=before.changes)


def _corrected(state: EngineState, report: Report) -> EngineState:
    """The state without a posture that the actuator process does not know of."""
    posture = state.posture
    if posture is None or any(one["action"] == posture.action for one in report.in_force.values()):
        return state
    return replace(state, posture=None)
