"""One device as the plant sees it: two processes, a pipe that carries measurements in, a driver socket.

Nothing else connects plant and device: what the device decided leaves by its own uplink only.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO, Any

from aiotkit.core.errors import AiotkitError, SourceError
from aiotkit.edge.sources import Packet, encode_packet
from aiotkit.edge.wire import address

Values = dict[str, Any]
_CHUNK = 1 << 16


class Lines:
    """Complete lines out of bytes that arrive in pieces."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> list[Any]:
        """The JSON documents that are complete by now."""
        *whole, self._held = (self._held + piece).split(b"\n")
        return [json.loads(line) for line in whole if line]


@dataclass
class Link:
    """A device's processes and channels.

    Args:
        name: the device.
        state: its state folder, with ``device.json`` and ``actuator.json``.
        obey: called with what the actuator sets, {actuator: values}; gives back what the machine reads.

    ``credits`` counts what came back; ``done_us`` is the last packet that was handled, ``durable_us`` the
    last one that the agent vouches for: what came of it is on its disk.
    """

    name: str
    state: Path
    obey: Callable[[Values], Values]
    credits: int = 0
    ticked_us: int = 0
    done_us: int = 0
    durable_us: int = 0
    agent: subprocess.Popen[bytes] | None = None
    actuator: subprocess.Popen[bytes] | None = None
    _selector: selectors.BaseSelector | None = None
    _listener: socket.socket | None = None
    _driver: socket.socket | None = None
    _from_agent: Lines = field(default_factory=Lines)
    _from_driver: Lines = field(default_factory=Lines)

    @property
    def alive(self) -> bool:
        """Whether the agent can be fed."""
        return self.agent is not None

    @property
    def driver_path(self) -> Path:
        """The plant's end of the driver socket."""
        return self.state / "plant.sock"

    def start_actuator(self, selector: selectors.BaseSelector, timeout_s: float = 30.0) -> None:
        """Start the actuator process and wait until it has connected its driver."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.driver_path.unlink(missing_ok=True)
        with address(self.driver_path) as place:
            self._listener.bind(place)
        self._listener.listen(1)
        self._listener.settimeout(timeout_s)
        self.actuator = self._spawn("actuator", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            self._driver, _ = self._listener.accept()
        except TimeoutError as error:
            raise SourceError(
                f"device {self.name}: its actuator process did not connect within {timeout_s:g} s",
                do=f"See {self.log_path('actuator').name} in its state folder.",
            ) from error
        self._driver.setblocking(True)
        self._selector = selector
        selector.register(self._driver, selectors.EVENT_READ, self._read_driver)

    def start_agent(self, selector: selectors.BaseSelector) -> None:
        """Start the agent; it may have been killed before."""
        self.agent = self._spawn("run", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._from_agent = Lines()
        assert self.agent.stdout is not None
        selector.register(self.agent.stdout, selectors.EVENT_READ, lambda s: self._read_agent(s))

    def log_path(self, command: str) -> Path:
        """Where a process's stderr goes."""
        return self.state / f"{command}.log"

    def _spawn(self, command: str, *, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "aiotkit.edge.command", command, "--state", str(self.state)]
        with self.log_path(command).open("ab") as log:
            return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=log, bufsize=0)

    def send(self, packet: Packet) -> None:
        """Give the agent a packet; an agent that died meanwhile is noticed at its end of file."""
        if self.agent is None:
            return
        assert self.agent.stdin is not None
        try:
            _write_all(self.agent.stdin, encode_packet(packet))
        except BrokenPipeError:
            return

    def tick(self, now_us: int) -> None:
        """Tell the actuator process the plant's time: commands expire by it."""
        assert self._driver is not None
        self._driver.sendall(b'{"now_us":%d}\n' % now_us)

    def kill_agent(self) -> None:
        """SIGKILL, as a power cut of the computer would."""
        assert self.agent is not None
        self.agent.kill()

    def end_input(self) -> None:
        """Close the source: the agent delivers what it can and leaves."""
        if self.agent is not None and self.agent.stdin is not None:
            self.agent.stdin.close()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stop both processes and close the channels; one that does not leave in time is killed."""
        for channel in (self._driver, self.agent.stdout if self.agent else None):
            if self._selector is not None and channel is not None and channel.fileno() >= 0:
                self._selector.unregister(channel)
        for process in (self.agent, self.actuator):
            if process is not None:
                _stop(process, timeout_s)
        self.agent = self.actuator = None
        for end in (self._driver, self._listener):
            if end is not None:
                end.close()
        self.driver_path.unlink(missing_ok=True)

    def _read_agent(self, selector: selectors.BaseSelector) -> None:
        assert self.agent is not None
        assert self.agent.stdout is not None
        piece = os.read(self.agent.stdout.fileno(), _CHUNK)
        if not piece:
            selector.unregister(self.agent.stdout)
            self.agent.wait()
            for end in (self.agent.stdin, self.agent.stdout):
                if end is not None:
                    end.close()
            self.agent = None
            return
        for line in self._from_agent.feed(piece):
            self._take_credit(line["done"], durable=line.get("durable", True))

    def _take_credit(self, at_us: int | None, *, durable: bool) -> None:
        """A refused packet (None) was handled too, but nobody knows which it was."""
        self.credits += 1
        if at_us is not None:
            self.done_us = at_us
            self.durable_us = at_us if durable else self.durable_us

    def _read_driver(self, selector: selectors.BaseSelector) -> None:
        assert self._driver is not None
        piece = self._driver.recv(_CHUNK)
        if not piece:
            selector.unregister(self._driver)
            raise AiotkitError(
                f"device {self.name}: its actuator process died",
                do=f"See {self.log_path('actuator').name} in its state folder.",
            )
        for line in self._from_driver.feed(piece):
            if "set" in line:
                read = json.dumps({"read": self.obey(line["set"])}).encode() + b"\n"
                self._driver.sendall(read)
            elif "tick" in line:
                self.ticked_us = line["tick"]


def _stop(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for end in (process.stdin, process.stdout):
        if end is not None and not end.closed:
            end.close()


def _write_all(stream: IO[bytes], data: bytes) -> None:
    """An unbuffered pipe may take part of a write."""
    view = memoryview(data)
    while view:
        written = stream.write(view)
        view = view[written or 0 :]


def wait_until(
    selector: selectors.BaseSelector, reached: Callable[[], bool], timeout_s: float, what: str
) -> None:
    """Serve all channels until something is reached.

    Raises:
        SourceError: naming ``what`` when it is not reached in time.
    """
    deadline = monotonic() + timeout_s
    while not reached():
        left = deadline - monotonic()
        if left <= 0:
            raise SourceError(f"the plant waited {timeout_s:g} s for {what}", do="See the devices' logs.")
        for key, _ in selector.select(left):
            key.data(selector)
