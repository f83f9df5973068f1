"""What the actuators shall do now: commands in force, their ends, the deadman, the stop. Pure.

Two times are kept apart: ``now_us`` is UTC and says whether a command is still valid when it comes;
``tick_us`` only ever grows (monotonic, or the driver's) and ends what runs. Setting a clock back
therefore never prolongs a command. A command without an end (a person must reset it) outlives deadman
and restart: nobody being there is no reason to undo a trip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiotkit.edge.envelope import ActuatorConfig, Posture, Value, command_refusal

MAX_EVENTS = 256
#: the action of what is in force instead of a held command that was refused
SAFE = "safe"


@dataclass(frozen=True, slots=True)
class InForce:
    """A command that holds: ``ends_us`` by the growing clock, None = until a person resets it."""

    id: str
    action: str
    values: Mapping[str, Value]
    valid_until_us: int | None
    ends_us: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain data for replies and the file of held commands."""
        return {
            "id": self.id,
            "action": self.action,
            "values": dict(self.values),
            "valid_until_us": self.valid_until_us,
        }


@dataclass(frozen=True, slots=True)
class Refused:
    """A command that was held before a restart and is not taken into force again, and why."""

    actuator: str
    id: str
    action: str
    why: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened without a command.

    ``kind``: ``expired``, ``deadman``, ``refused``, ``stop`` or ``release``. ``at_us`` None: the
    driver had not said the time yet.
    """

    kind: str
    at_us: int | None
    actuator: str = ""
    id: str = ""
    action: str = ""
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


class Control:
    """Keeps what is in force; ``targets`` says what every actuator must be set to.

    Args:
        config: the envelope and the two postures.
        held: commands without an end that were in force before a restart.
        stopped: whether the stop was pressed before a restart.
    """

    def __init__(
        self, config: ActuatorConfig, held: Mapping[str, InForce] | None = None, *, stopped: bool = False
    ) -> None:
        self.config = config
        self.in_force: dict[str, InForce] = dict(held or {})
        self.stopped = stopped
        self.silent = True  # nobody has sent a heartbeat yet, or not for deadman_s
        self.events: list[Event] = []
        self._beat_us = 0

    def targets(self) -> dict[str, dict[str, Value]]:
        """What every actuator must be set to now."""
        if self.stopped:
            return _copy(self.config.safe)
        out = _copy(self.config.rest)
        for actuator, command in self.in_force.items():
            out[actuator] |= command.values
        return out

    def held(self) -> dict[str, InForce]:
        """The commands that a restart must not undo."""
        return {name: command for name, command in self.in_force.items() if command.ends_us is None}

    def beat(self, tick_us: int) -> None:
        """Somebody is there."""
        self._beat_us, self.silent = tick_us, False

    def command(
        self, command_id: str, command: Mapping[str, Any], now_us: int | None, tick_us: int
    ) -> tuple[str, str]:
        """Take a command into force, or say (status, why) it is ``refused`` or ``expired``."""
        if self.stopped:
            return "refused", "the stop was pressed; it must be released by an operator's key first"
        status, why = command_refusal(self.config, command, now_us)
        if status:
            return status, why
        assert now_us is not None
        until = command["valid_until_us"] if command.get("valid_until_us") is not None else None
        ends = None if until is None else tick_us + (until - now_us)
        self.in_force[command["actuator"]] = InForce(
            command_id, command["action"], dict(command["values"]), until, ends
        )
        return "", ""

    def refuse_held(self, one: Refused, now_us: int | None) -> None:
        """A held command that cannot be honoured: the actuator's safe values, until a person ends them."""
        if one.actuator in self.config.safe:
            values = dict(self.config.safe[one.actuator])
            self.in_force[one.actuator] = InForce(one.id, SAFE, values, None, None)
        self._note(Event("refused", now_us, one.actuator, one.id, one.action, one.why))

    def drop(self, actuator: str) -> None:
        """A command could not be carried out: it is not in force."""
        self.in_force.pop(actuator, None)

    def rest(self) -> None:
        """A person ends every command."""
        self.in_force.clear()

    def stop(self, now_us: int, why: str) -> None:
        """Safe posture until released; nothing that was in force comes back."""
        if not self.stopped:
            self._note(Event("stop", now_us, why=why))
        self.stopped = True
        self.in_force.clear()

    def release(self, now_us: int, why: str) -> None:
        """Lift the stop: rest, until somebody commands."""
        self.stopped = False
        self._note(Event("release", now_us, why=why))

    def pass_time(self, now_us: int, tick_us: int) -> None:
        """End what is over, and every timed command when nobody has been there for ``deadman_s``."""
        for actuator, command in list(self.in_force.items()):
            if command.ends_us is not None and tick_us >= command.ends_us:
                self._end(actuator, "expired", now_us, "its validity ended")
        if not self.silent and tick_us - self._beat_us > self.config.deadman_s * 1e6:
            self.silent = True
            self._note(Event("deadman", now_us, why=f"no heartbeat for {self.config.deadman_s:g} s"))
            for actuator, command in list(self.in_force.items()):
                if command.ends_us is not None:
                    self._end(actuator, "expired", now_us, f"no heartbeat for {self.config.deadman_s:g} s")

    def due_in_us(self, tick_us: int) -> float:
        """How long until something ends by itself (µs, at least 0; infinite when nothing does)."""
        ends = [float(c.ends_us) for c in self.in_force.values() if c.ends_us is not None]
        if not self.silent:
            ends.append(self._beat_us + self.config.deadman_s * 1e6 + 1)
        return max(0.0, min(ends, default=float("inf")) - tick_us)

    def _end(self, actuator: str, kind: str, now_us: int, why: str) -> None:
        command = self.in_force.pop(actuator)
        self._note(Event(kind, now_us, actuator, command.id, command.action, why))

    def _note(self, event: Event) -> None:
        self.events = [*self.events, event][-MAX_EVENTS:]


def _copy(posture: Posture) -> dict[str, dict[str, Value]]:
    return {actuator: dict(values) for actuator, values in posture.items()}
