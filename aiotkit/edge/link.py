"""The agent's line to the actuator process. It waits a bounded time and reconnects by itself."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import ActuatorError
from aiotkit.edge.wire import Lines, address, loads, unicode_only

if TYPE_CHECKING:  # a person's stop must not wait for numpy
    from aiotkit.core.records import Command

#: results after which a command is in force
IN_FORCE = ("sent", "acknowledged", "read_back")
_RETRY_S, _RETRY_MOST_S = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a command.

    ``status``: sent, acknowledged, read_back; refused, expired, failed; or unknown: the command left,
    and no answer came.
    """

    status: str
    why: str = ""
    read: Mapping[str, Any] = field(default_factory=dict)
    at_us: int | None = None
    ms: float = 0.0

    @property
    def in_force(self) -> bool:
        """Whether the command holds as far as anybody knows."""
        return self.status in IN_FORCE


@dataclass(frozen=True, slots=True)
class Report:
    """How the actuator process is. ``in_force``: actuator -> {id, action, …}; ``now_us``: its time."""

    now_us: int | None
    deadman_s: float
    stopped: bool
    in_force: Mapping[str, Mapping[str, Any]]
    driver: str
    events: tuple[Mapping[str, Any], ...] = ()


class ActuatorLink:
    """One connection, made when it is needed.

    Args:
        path: the actuator process's socket.
        timeout_s: how long to wait for an answer; longer than that process waits for its driver.
    """

    def __init__(self, path: Path, timeout_s: float = 3.0) -> None:
        self._path, self._timeout_s = path, timeout_s
        self._socket: socket.socket | None = None
        self._lines = Lines()
        self._retry_s, self._blocked_until_s = _RETRY_S, 0.0

    def command(self, command_id: str, command: Command) -> Result:
        """Give a command; never raises: whatever goes wrong is a result."""
        from aiotkit.core.records import command_to_json

        return self._order({"id": command_id, "command": command_to_json(command)})

    def rest(self, command_id: str) -> Result:
        """End every command: a person says so."""
        return self._order({"id": command_id, "rest": True})

    def _order(self, message: Mapping[str, Any]) -> Result:
        started = time.monotonic()
        try:
            self._connect()
        except ActuatorError as error:
            return Result("failed", str(error))
        try:
            answer = self._ask(message)
        except ActuatorError as error:
            return Result("unknown", str(error), ms=(time.monotonic() - started) * 1e3)
        ms = (time.monotonic() - started) * 1e3
        if "error" in answer:
            return Result("refused", str(answer["error"]), ms=ms)
        return Result(
            str(answer["status"]), str(answer["why"]), answer.get("read", {}), answer.get("at_us"), ms
        )

    def beat(self) -> Report:
        """Say that the agent is alive, and hear what happened; ``ActuatorError`` when nobody answers."""
        return self._report("beat")

    def look(self) -> Report:
        """How it is, without being a heartbeat; ``ActuatorError`` when nobody answers."""
        return self._report("state")

    def _report(self, word: str) -> Report:
        self._connect()
        answer = self._checked(self._ask({word: True}))
        return Report(
            answer["now_us"],
            float(answer["deadman_s"]),
            bool(answer["stopped"]),
            answer["in_force"],
            str(answer["driver"]),
            tuple(answer["events"]),
        )

    def stop(self, by: str, why: str) -> Mapping[str, Any]:
        """Press the stop; ``ActuatorError`` when nobody answers."""
        self._connect()
        return self._checked(self._ask({"stop": {"by": unicode_only(by), "why": unicode_only(why)}}))

    def release(self, envelope: bytes) -> Mapping[str, Any]:
        """Lift the stop with an operator's signed message; ``ActuatorError`` when it is refused."""
        self._connect()
        return self._checked(self._ask({"release": envelope.decode()}))

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "error" in answer:
            raise ActuatorError("the actuator process says no", found=str(answer["error"]))
        return answer

    def _connect(self) -> None:
        if self._socket is not None:
            return
        if time.monotonic() < self._blocked_until_s:
            raise ActuatorError("the actuator process did not answer", do="See its log.")
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.settimeout(self._timeout_s)
        try:
            with address(self._path) as place:
                end.connect(place)
        except OSError as error:
            end.close()
            raise ActuatorError(
                f"the actuator process cannot be reached at {self._path.name}",
                found=error.strerror or str(error),
                do="Start: aiotkit-edge actuator.",
            ) from error
        self._socket, self._lines = end, Lines()

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """One question, one answer; asked once more when that process was restarted meanwhile."""
        try:
            return self._ask_once(message)
        except ConnectionError:
            self.close()
        self._connect()
        try:
            return self._ask_once(message)
        except ConnectionError as error:
            self.close()
            raise ActuatorError("the actuator process hung up", found=str(error)) from error

    def _ask_once(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._socket is not None
        until = time.monotonic() + self._timeout_s
        try:
            self._socket.sendall(canonical_bytes(message) + b"\n")
            while time.monotonic() < until:
                piece = self._socket.recv(1 << 16)
                if not piece:
                    raise ConnectionResetError("it hung up")
                for line in self._lines.feed(piece):
                    answer = loads(line)
                    if not isinstance(answer, dict):
                        raise ValueError("an answer that is no object")
                    self._retry_s = _RETRY_S
                    return answer
            raise TimeoutError(f"no answer within {self._timeout_s:g} s")
        except ConnectionError:
            raise
        except (OSError, ValueError) as error:
            self.close()
            self._back_off()
            raise ActuatorError("the actuator process does not answer", found=str(error)) from error

    def _back_off(self) -> None:
        """A process that hangs must not cost every decision its timeout."""
        self._blocked_until_s = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, _RETRY_MOST_S)
