"""The actuator process: the only one that holds the drivers, and the last to say no.

It listens on a Unix socket for JSON lines: ``{"id", "command"}``, ``{"beat": true}``, ``{"state": true}``,
``{"id", "rest": true}``, ``{"stop": {"by", "why"}}``, ``{"release": envelope}``. Rules are in
``edge.control`` and ``edge.envelope``; this shell never waits for a plant, a disk or a client.
"""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import ActuatorError, AiotkitError, StorageError
from aiotkit.edge.control import Control
from aiotkit.edge.disk import Disk, RealDisk
from aiotkit.edge.drivers import Driver, open_driver
from aiotkit.edge.envelope import ACTUATOR_FILE, MAX_INSTANT_US, ActuatorConfig, parse_actuator_config
from aiotkit.edge.latches import clear_stop, read_held, read_stop, write_held, write_stop
from aiotkit.edge.wire import Lines, address, loads

log = logging.getLogger(__name__)
LOCK_FILE = "actuator.lock"
READ_TIMEOUT_S = 2.0
_MAX_CLIENTS = 32
_LONGEST_WAIT_S = 0.25


@dataclass(eq=False)
class Client:
    """One connection."""

    socket: socket.socket
    lines: Lines = field(default_factory=Lines)


@dataclass
class Waiting:
    """Values that were set and not read back yet, and who wants to know."""

    targets: Mapping[str, Mapping[str, Any]]
    deadline: float
    client: Client | None
    id: str


class ActuatorServer:
    """Serves one device's actuators.

    Args:
        config: the envelope.
        state: the state folder: the socket, the stop and the held commands live there.
        disk: the same folder for what must be durable.
        driver: what moves.
    """

    def __init__(self, config: ActuatorConfig, state: Path, disk: Disk, driver: Driver) -> None:
        self._config, self._state, self._disk, self._driver = config, state, disk, driver
        stopped_us = read_stop(disk)
        self._stopped_us = stopped_us or 0
        held, refused = read_held(disk, config.actuators)
        self._control = Control(config, held, stopped=stopped_us is not None)
        self._selector = selectors.DefaultSelector()
        self._clients: list[Client] = []
        self._waiting: deque[Waiting] = deque()
        self._set: dict[str, Mapping[str, Any]] = {}
        self._driver_fd: int | None = None
        self._driver_us: int | None = None
        self._tick_owed: int | None = None
        for one in refused:
            log.error("%s: %s; safe values hold", one.actuator, one.why)
            self._control.refuse_held(one, self._times()[0])
        self._listener = self._listen()

    def serve(self, should_stop: Callable[[], bool]) -> None:
        """Serve until told otherwise; leaves everything as it is, for whoever comes next."""
        try:
            while not should_stop():
                self._step()
        finally:
            self.close()

    def close(self) -> None:
        """Close every connection."""
        for client in list(self._clients):
            self._hang_up(client)
        self._listener.close()
        self._selector.close()
        self._driver.close()
        (self._state / self._config.socket).unlink(missing_ok=True)

    def _step(self) -> None:
        if self._driver.connect():
            self._driver_fd = self._driver.fileno()
            if self._driver_fd is not None:
                self._selector.register(self._driver_fd, selectors.EVENT_READ, self._hear_driver)
            self._set.clear()
            self._push(self._control.targets())
        for key, _ in self._selector.select(self._patience_s()):
            key.data()
        self._pass_time()

    def _patience_s(self) -> float:
        tick_us = self._times()[1]
        waits = [_LONGEST_WAIT_S if self._driver_fd is not None else 0.05]
        if self._config.clock == "system":
            waits.append(self._control.due_in_us(tick_us) / 1e6)
        if self._waiting:
            waits.append(max(0.0, self._waiting[0].deadline - time.monotonic()))
        return min(waits)

    def _times(self) -> tuple[int | None, int]:
        """(UTC µs or None before the driver's first tick, a clock that only grows)."""
        if self._config.clock == "driver":
            return self._driver_us, self._driver_us or 0
        return time.time_ns() // 1000, time.monotonic_ns() // 1000

    # -- time and driver

    def _pass_time(self) -> None:
        now_us, tick_us = self._times()
        if now_us is not None:
            self._control.pass_time(now_us, tick_us)
            self._push_changes()
        while self._waiting and time.monotonic() >= self._waiting[0].deadline:
            late = self._waiting.popleft()
            self._tell(late, "sent", "the driver did not read back in time", {})
        if self._tick_owed is not None and not self._waiting:
            tick, self._tick_owed = self._tick_owed, None
            self._try_driver(lambda: self._driver.answer_tick(tick))

    def _push_changes(self) -> None:
        changed = {a: v for a, v in self._control.targets().items() if self._set.get(a) != v}
        if changed and self._driver.connected:  # else all is pushed when it is back
            self._push(changed)

    def _push(
        self, targets: Mapping[str, Mapping[str, Any]], client: Client | None = None, command_id: str = ""
    ) -> bool:
        if not self._try_driver(lambda: self._driver.set(targets)):
            return False
        self._set.update(targets)
        waiting = Waiting(targets, time.monotonic() + READ_TIMEOUT_S, client, command_id)
        if self._driver.reads_back:
            self._waiting.append(waiting)
        else:
            self._tell(waiting, "sent", "", {})
        return True

    def _try_driver(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except ActuatorError as error:
            self._lose_driver(error)
            return False
        return True

    def _lose_driver(self, error: ActuatorError) -> None:
        log.warning("%s", error)
        if self._driver_fd is not None:
            self._selector.unregister(self._driver_fd)
        self._driver_fd = self._tick_owed = None
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            self._fail(one, str(error))

    def _fail(self, waiting: Waiting, why: str) -> None:
        if waiting.client is not None:
            for actuator in waiting.targets:
                self._control.drop(actuator)
            self._tell(waiting, "failed", why, {})

    def _hear_driver(self) -> None:
        try:
            heard = self._driver.hear()
        except ActuatorError as error:
            self._lose_driver(error)
            return
        for message in heard:
            tick = message.get("now_us")
            if type(tick) is int and 0 <= tick <= MAX_INSTANT_US:
                self._driver_us = max(self._driver_us or 0, tick)
                self._tick_owed = tick
                self._pass_time()
            elif isinstance(message.get("read"), dict) and self._waiting:
                self._settle(self._waiting.popleft(), _flat(message["read"]))

    def _settle(self, waiting: Waiting, read: Mapping[str, Any]) -> None:
        differs = [
            f"{actuator}.{name} reads {str(_at(read, actuator, name))[:40]} instead of {value}"
            for actuator, values in waiting.targets.items()
            for name, value in values.items()
            if _at(read, actuator, name) != value
        ]
        self._tell(waiting, "acknowledged" if differs else "read_back", "; ".join(differs), read)

    def _tell(self, waiting: Waiting, status: str, why: str, read: Mapping[str, Any]) -> None:
        if waiting.client is not None:
            self._reply(
                waiting.client,
                {
                    "id": waiting.id,
                    "status": status,
                    "why": why,
                    "read": dict(read),
                    "at_us": self._times()[0],
                },
            )

    # -- clients

    def _listen(self) -> socket.socket:
        path = self._state / self._config.socket
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with address(path) as place:
            listener.bind(place)
        path.chmod(0o660)
        listener.listen(8)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        return listener

    def _accept(self) -> None:
        end, _ = self._listener.accept()
        if len(self._clients) >= _MAX_CLIENTS:
            end.close()
            return
        end.settimeout(0.05)  # a client that does not read is not waited for
        client = Client(end)
        self._clients.append(client)
        self._selector.register(end, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: Client) -> None:
        try:
            piece = client.socket.recv(1 << 16)
            lines = client.lines.feed(piece) if piece else []
        except (OSError, ActuatorError):
            piece, lines = b"", []
        if not piece:
            self._hang_up(client)
        for line in lines:
            try:
                self._handle(client, loads(line))
            except (AiotkitError, ValueError, TypeError, RecursionError, OverflowError) as error:
                self._reply(client, {"error": str(error)[:400]})

    def _hang_up(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client.socket)
            client.socket.close()
        for waiting in self._waiting:
            waiting.client = None if waiting.client is client else waiting.client

    def _reply(self, client: Client, message: Mapping[str, Any]) -> None:
        try:
            client.socket.sendall(canonical_bytes(message) + b"\n")
        except OSError:
            self._hang_up(client)

    def _handle(self, client: Client, message: Any) -> None:
        if not isinstance(message, dict):
            raise ActuatorError("request", expected="an object", found=type(message).__name__)
        if "stop" in message:
            self._stop(client, message["stop"])
        elif "command" in message:
            self._command(client, str(message.get("id", "")), message["command"])
        elif "rest" in message:
            self._control.rest()
            self._keep_held()
            self._order(client, str(message.get("id", "")), self._control.targets())
        elif "release" in message:
            self._release(client, str(message["release"]))
        elif "beat" in message or "state" in message:
            self._report(client, beat="beat" in message)
        else:
            raise ActuatorError(
                "request",
                expected="command, rest, beat, state, stop or release",
                found=str(sorted(message))[:80],
            )

    def _report(self, client: Client, *, beat: bool) -> None:
        now_us, tick_us = self._times()
        events = self._control.events
        if beat:
            self._control.beat(tick_us)
            self._control.events = []
        self._reply(
            client,
            {
                "now_us": now_us,
                "deadman_s": self._config.deadman_s,
                "stopped": self._control.stopped,
                "in_force": {a: c.to_json() for a, c in self._control.in_force.items()},
                "driver": "connected" if self._driver.connected else "lost",
                "events": [event.to_json() for event in events],
            },
        )

    def _command(self, client: Client, command_id: str, command: Any) -> None:
        if not isinstance(command, dict):
            raise ActuatorError("command", expected="an object", found=type(command).__name__)
        now_us, tick_us = self._times()
        self._control.beat(tick_us)
        status, why = self._control.command(command_id, command, now_us, tick_us)
        if status:
            self._tell(Waiting({}, 0.0, client, command_id), status, why, {})
            return
        actuator = command["actuator"]
        self._keep_held()
        self._order(client, command_id, {actuator: self._control.targets()[actuator]})

    def _order(self, client: Client, command_id: str, targets: Mapping[str, Mapping[str, Any]]) -> None:
        if not self._push(targets, client, command_id):
            why = "the driver is not connected"
            self._fail(Waiting(targets, 0.0, client, command_id), why)
            self._keep_held()

    # -- stop and what survives a restart

    def _stop(self, client: Client, said: Any) -> None:
        said = said if isinstance(said, dict) else {}
        now_us = self._times()[0] or time.time_ns() // 1000
        by, why = str(said.get("by", "unknown"))[:64], str(said.get("why", ""))[:400]
        self._control.stop(now_us, f"{by}: {why}" if why else by)
        self._stopped_us = now_us
        moved = self._push(self._control.targets())  # first the machine, then the paper
        try:
            write_stop(self._disk, by, why, now_us)
            self._keep_held()
            durable = True
        except StorageError as error:
            log.error("the stop holds, but not over a restart: %s", error)
            durable = False
        self._reply(client, {"stopped": True, "durable": durable, "told_driver": moved, "at_us": now_us})

    def _release(self, client: Client, envelope: str) -> None:
        from aiotkit.bundle.trust import parse_trust
        from aiotkit.edge.messages import check_release, open_message

        if self._config.trust is None:
            raise ActuatorError(
                "release: actuator.json names no trust file", do="Name one to allow a release."
            )
        try:
            trust = parse_trust((self._state / self._config.trust).read_bytes())
        except OSError as error:
            raise ActuatorError(
                f"release: {self._config.trust}", found=error.strerror or "", do="Put the trust file back."
            ) from error
        message = open_message(envelope.encode(), trust)
        now_us = self._times()[0] or time.time_ns() // 1000
        check_release(message, self._config.device, now_us, self._stopped_us)
        clear_stop(self._disk)
        if self._control.stopped:
            self._control.release(now_us, message.operator)
        self._push_changes()
        self._reply(client, {"stopped": False, "at_us": now_us})

    def _keep_held(self) -> None:
        try:
            write_held(self._disk, self._control.held())
        except StorageError as error:
            log.error("held commands would not survive a restart: %s", error)


def _flat(read: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a plant reads, as far as it has the form actuator -> name -> value."""
    return {
        actuator: {n: v for n, v in values.items() if not isinstance(v, dict | list)}
        for actuator, values in read.items()
        if isinstance(values, dict)
    }


def _at(read: Mapping[str, Any], actuator: str, name: str) -> Any:
    values = read.get(actuator)
    return values.get(name) if isinstance(values, dict) else None


def run_actuator(state: Path, should_stop: Callable[[], bool]) -> None:
    """The actuator process of a state folder, until told to stop."""
    try:
        config = parse_actuator_config((state / ACTUATOR_FILE).read_bytes())
    except OSError as error:
        raise ActuatorError(f"{ACTUATOR_FILE} in {state}", found=error.strerror or "") from error
    disk = RealDisk(state)
    with disk.lock(LOCK_FILE):
        ActuatorServer(config, state, disk, open_driver(config.driver, state)).serve(should_stop)
