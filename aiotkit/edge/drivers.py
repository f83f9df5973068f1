"""How values reach the hardware: over a socket to a plant, or as lines in a file.

A driver never blocks: what was set is outstanding until ``settled`` says that it was read back.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import ActuatorError, ConfigError
from aiotkit.edge.wire import Lines, address, loads

log = logging.getLogger(__name__)
_SEND_TIMEOUT_S = 0.1
_RETRY_S, _FILE_RETRY_S = 0.05, 1.0


class Driver(Protocol):
    """What the actuator process sets values through."""

    #: whether every ``set`` is answered by what the hardware reads
    reads_back: bool

    @property
    def connected(self) -> bool:
        """Whether the hardware can be told, as far as is known."""

    def fileno(self) -> int | None:
        """What to wait on, or None when there is nothing to be heard."""

    def connect(self) -> bool:
        """Try to connect when not connected; True when that has just succeeded."""

    def set(self, targets: Mapping[str, Any]) -> None:
        """Tell the hardware; ``ActuatorError`` when it cannot be told."""

    def hear(self) -> list[dict[str, Any]]:
        """What came in: ``{"read": …}`` and ``{"now_us": …}``; ``ActuatorError`` when the line is dead."""

    def answer_tick(self, now_us: int) -> None:
        """Say that everything due at that time has been done."""

    def close(self) -> None:
        """Let go."""


class SocketDriver:
    """JSON lines over a Unix socket, this side connecting."""

    reads_back = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._lines = Lines()
        self._tried = -1.0

    @property
    def connected(self) -> bool:
        """See ``Driver.connected``."""
        return self._socket is not None

    def fileno(self) -> int | None:
        """See ``Driver.fileno``."""
        return None if self._socket is None else self._socket.fileno()

    def connect(self) -> bool:
        """See ``Driver.connect``; at most every 50 ms."""
        if self._socket is not None or time.monotonic() - self._tried < _RETRY_S:
            return False
        self._tried = time.monotonic()
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.settimeout(_SEND_TIMEOUT_S)
        try:
            with address(self._path) as place:
                end.connect(place)
        except OSError:
            end.close()
            return False
        self._socket, self._lines = end, Lines()
        return True

    def set(self, targets: Mapping[str, Any]) -> None:
        """See ``Driver.set``."""
        self._send({"set": targets})

    def answer_tick(self, now_us: int) -> None:
        """See ``Driver.answer_tick``."""
        self._send({"tick": now_us})

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._socket is None:
            raise ActuatorError(f"driver socket {self._path.name}: nobody listens", do="Start the plant.")
        try:
            self._socket.sendall(canonical_bytes(message) + b"\n")
        except OSError as error:
            self.close()
            raise ActuatorError(f"driver socket {self._path.name}", found=str(error)) from error

    def hear(self) -> list[dict[str, Any]]:
        """See ``Driver.hear``."""
        if self._socket is None:
            return []
        try:
            piece = self._socket.recv(1 << 16)
            if not piece:
                raise ActuatorError(f"driver socket {self._path.name}: the plant hung up")
            return _messages(self._lines.feed(piece), self._path.name)
        except TimeoutError:
            return []
        except OSError as error:
            self.close()
            raise ActuatorError(f"driver socket {self._path.name}", found=str(error)) from error
        except ActuatorError:
            self.close()
            raise

    def close(self) -> None:
        """See ``Driver.close``."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class FileDriver:
    """Appends what is set as JSON lines: for trials, and for hardware that watches a file."""

    reads_back = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connected = False
        self._tried = float("-inf")

    @property
    def connected(self) -> bool:
        """See ``Driver.connected``: what was set last could be written."""
        return self._connected

    def fileno(self) -> None:
        """See ``Driver.fileno``."""

    def connect(self) -> bool:
        """See ``Driver.connect``; at most once a second."""
        if self._connected or time.monotonic() - self._tried < _FILE_RETRY_S:
            return False
        first, self._tried = self._tried < 0, time.monotonic()
        try:
            self._path.open("ab").close()
        except OSError as error:
            if first:
                log.warning("driver file %s: %s", self._path.name, error)
            return False
        self._connected = True
        return True

    def set(self, targets: Mapping[str, Any]) -> None:
        """See ``Driver.set``."""
        try:
            with self._path.open("ab") as file:
                file.write(canonical_bytes({"set": targets}) + b"\n")
        except OSError as error:
            self._connected, self._tried = False, time.monotonic()
            raise ActuatorError(f"driver file {self._path}", found=str(error)) from error
        self._connected = True

    def hear(self) -> list[dict[str, Any]]:
        """See ``Driver.hear``."""
        return []

    def answer_tick(self, now_us: int) -> None:
        """A file has no clock."""

    def close(self) -> None:
        """Nothing is held open."""


def _messages(lines: list[bytes], name: str) -> list[dict[str, Any]]:
    """What a plant's lines say; one that says nothing is dropped, and the machine is kept."""
    found = []
    for line in lines:
        try:
            message = loads(line)
        except ValueError:
            message = None
        if isinstance(message, dict):
            found.append(message)
        else:
            log.warning("driver socket %s: dropped a line that is no object: %r", name, line[:40])
    return found


def open_driver(text: str, folder: Path) -> Driver:
    """The driver that ``actuator.json`` names; relative paths start at the state folder."""
    kind, _, path = text.partition(":")
    drivers: dict[str, type[SocketDriver] | type[FileDriver]] = {"socket": SocketDriver, "file": FileDriver}
    if kind not in drivers:
        raise ConfigError("actuator.json: driver", expected="socket:PATH or file:PATH", found=text)
    return drivers[kind](folder / path)
