"""Where measurements come from: packets of samples, points and context, over a pipe or from a file.

A packet is one canonical JSON line ``{at_us, samples: {name: [first_us, rate_hz, count]}, points,
context, bytes}`` followed by ``bytes`` bytes: the samples as float32, little endian, in the order of the
sorted names. A value that is no finite number travels as ``null`` and is read as NaN, so that one bad
reading never costs a packet; nor does a word that UTF-8 cannot carry. A packet of another shape is refused,
and the next one can be read; only when ``bytes`` itself cannot be believed nobody knows where the next one
begins, and the stream has ended for good.
"""

from __future__ import annotations

import json
import math
import os
import select
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.canonical import canonical_bytes, utf8_text
from aiotkit.core.conditions import is_number
from aiotkit.core.errors import SourceError

MAX_LINE = 1 << 20
MAX_BYTES = 64 << 20
_MAX_US = 1 << 53
_KEYS = {"at_us", "samples", "points", "context", "bytes"}
_CHUNK = 1 << 18

Point = tuple[str, int, float]
ContextPoint = tuple[str, int, float | str]


@dataclass(frozen=True, slots=True)
class Samples:
    """Equidistant samples: the first at ``first_us``, then ``1 / rate_hz`` seconds apart (float32)."""

    first_us: int
    rate_hz: float
    values: NDArray[np.float32]

    @property
    def end_us(self) -> int:
        """The instant one sample period after the last sample: where the next packet should begin."""
        return self.first_us + round(self.values.size / self.rate_hz * 1e6)


@dataclass(frozen=True, slots=True)
class Packet:
    """What a source delivers at ``at_us``: samples of regular signals, points of others, context."""

    at_us: int
    samples: Mapping[str, Samples] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    context: tuple[ContextPoint, ...] = ()


class BadPacket(SourceError):
    """One packet is not what it must be; the next one can be read."""


class Source(Protocol):
    """What the agent reads from.

    ``acknowledges``: whether ``done`` tells a sender, who may then rely on what came of the packet: it
    must be durable by then.
    """

    acknowledges: bool

    @property
    def ended(self) -> bool:
        """Whether the last packet has been given."""

    def next(self, timeout_s: float) -> Packet | None:
        """The next packet, or None when there is none within the time (or none any more).

        Raises:
            BadPacket: this packet is refused, the next can be read.
            SourceError: nothing more can be read.
        """

    def done(self, at_us: int | None, *, durable: bool = True) -> None:
        """Say that the packet of ``at_us`` (None: a refused one) is handled; the next may be sent.

        ``durable`` False: what came of it could not be made durable (the disk refuses). It was decided on
        and may still be journaled later, but the sender must not rely on that.
        """

    def close(self) -> None:
        """Let go of what is held."""


def encode_packet(packet: Packet) -> bytes:
    """The bytes of a packet.

    >>> encode_packet(Packet(at_us=5, points=(("oil", 5, 61.5),))).rstrip()
    b'{"at_us":5,"bytes":0,"context":[],"points":[["oil",5,61.5]],"samples":{}}'
    """
    names = sorted(packet.samples)
    bodies = [np.ascontiguousarray(packet.samples[n].values, dtype="<f4").tobytes() for n in names]
    head = {
        "at_us": packet.at_us,
        "samples": {n: _samples_head(packet.samples[n]) for n in names},
        "points": [[name, at, _wire(value)] for name, at, value in packet.points],
        "context": [[name, at, _wire(value)] for name, at, value in packet.context],
        "bytes": sum(map(len, bodies)),
    }
    return canonical_bytes(head) + b"\n" + b"".join(bodies)


def write_packet(stream: IO[bytes], packet: Packet) -> None:
    """Write one packet and flush."""
    stream.write(encode_packet(packet))
    stream.flush()


def read_packet(stream: IO[bytes]) -> Packet | None:
    """Read one packet from a blocking stream; None at its end.

    Raises:
        BadPacket: the packet is refused; the stream stands at the next one.
        SourceError: the stream ends within a packet, a line is too long, or ``bytes`` cannot be believed.
    """
    line = stream.readline(MAX_LINE + 1)
    if not line:
        return None
    if not line.endswith(b"\n"):
        raise _cut(len(line))
    head = _parse_head(line)
    size = _body_size(head)
    body = stream.read(size)
    if len(body) < size:
        raise SourceError("source: it ends within a packet", expected=f"{size} bytes", found=str(len(body)))
    return _build(head, body)


class PacketReader:
    """Packets out of bytes that come in pieces. Memory is bounded by one packet and one piece."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: dict[str, Any] | None = None
        self._need = 0
        self._searched = 0

    @property
    def empty(self) -> bool:
        """Whether no part of a packet is held."""
        return not self._buffer and self._head is None

    def feed(self, piece: bytes) -> None:
        """Take in bytes."""
        self._buffer += piece

    def take(self) -> Packet | None:
        """The next whole packet, or None; raises as ``read_packet`` does."""
        if self._head is None and not self._take_head():
            return None
        assert self._head is not None
        if len(self._buffer) < self._need:
            return None
        head, body = self._head, bytes(self._buffer[: self._need])
        del self._buffer[: self._need]
        self._head = None
        return _build(head, body)

    def _take_head(self) -> bool:
        end = self._buffer.find(b"\n", self._searched)
        if end < 0 or end > MAX_LINE:
            self._searched = len(self._buffer)
            if self._searched > MAX_LINE:
                raise _cut(self._searched)
            return False
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        self._searched = 0
        head = _parse_head(line)
        self._need = _body_size(head)
        self._head = head
        return True


def _samples_head(samples: Samples) -> list[float]:
    return [samples.first_us, samples.rate_hz, int(samples.values.size)]


def _wire(value: float | str) -> float | str | None:
    readable = _carried(value) if isinstance(value, str) else math.isfinite(value)
    return value if readable else None


def _carried(word: str) -> bool:
    """Whether UTF-8 can carry a word: JSON can escape halves of surrogate pairs, nothing else can."""
    return utf8_text(word) == word


def _cut(found: int) -> SourceError:
    return SourceError(
        "source: no end of line where a packet must begin",
        expected=f"a JSON line of at most {MAX_LINE} bytes",
        found=f"{found} bytes",
        do="The sender speaks another format, or it died within a packet; start it again.",
    )


def _parse_head(line: bytes) -> dict[str, Any]:
    try:
        head = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadPacket("packet: its first line is not JSON", found=repr(line[:60])) from error
    if not isinstance(head, dict):
        raise BadPacket("packet", expected="a JSON object", found=type(head).__name__)
    return head


def _body_size(head: Mapping[str, Any]) -> int:
    size = head.get("bytes")
    if type(size) is not int or not 0 <= size <= MAX_BYTES:
        raise SourceError(
            "source: packet.bytes",
            expected=f"0 to {MAX_BYTES}",
            found=repr(size)[:60],
            do="Nobody knows where the next packet begins: correct the sender, start it again.",
        )
    return size


def _build(head: Mapping[str, Any], body: bytes) -> Packet:
    if head.keys() != _KEYS:
        wrong = sorted(head.keys() ^ _KEYS)
        raise BadPacket("packet: its keys", expected=", ".join(sorted(_KEYS)), found=f"other: {wrong}"[:200])
    samples_head, points, context = head["samples"], head["points"], head["context"]
    if not (isinstance(samples_head, dict) and isinstance(points, list) and isinstance(context, list)):
        raise BadPacket("packet", expected="samples: object, points and context: lists")
    return Packet(
        _instant(head["at_us"], "at_us"),
        _samples(samples_head, body),
        tuple(_point(p, "points") for p in points),
        tuple(_context_point(p) for p in context),
    )


def _instant(value: object, where: str) -> int:
    if type(value) is not int or not 0 <= value < _MAX_US:
        raise BadPacket(f"packet.{where}", expected="microseconds UTC", found=repr(value)[:60])
    return value


def _samples(heads: Mapping[str, Any], body: bytes) -> dict[str, Samples]:
    out, at = {}, 0
    for key in sorted(heads):
        entry, name = heads[key], utf8_text(key)
        if not isinstance(entry, list) or len(entry) != 3:
            raise BadPacket(f"packet.samples.{name}"[:80], expected="[first_us, rate_hz, count]")
        first_us, rate, count = entry
        _instant(first_us, f"samples.{name}.first_us"[:80])
        if not is_number(rate) or not 1e-6 <= rate <= 1e9:
            raise BadPacket(
                f"packet.samples.{name}.rate_hz"[:80], expected="1e-6 to 1e9", found=repr(rate)[:60]
            )
        if type(count) is not int or not 0 <= count <= (len(body) - at) // 4:
            raise BadPacket(
                f"packet.samples.{name}.count"[:80],
                expected=f"at most the {(len(body) - at) // 4} values that are left",
                found=repr(count)[:60],
            )
        out[name] = Samples(first_us, float(rate), np.frombuffer(body, "<f4", count, at))
        at += 4 * count
    if at != len(body):
        raise BadPacket("packet.bytes", expected=f"{at} for its samples", found=str(len(body)))
    return out


def _point(entry: object, where: str) -> Point:
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], str):
        raise BadPacket(f"packet.{where}", expected="[name, at_us, value]", found=repr(entry)[:60])
    value = float(entry[2]) if is_number(entry[2]) else math.nan
    return entry[0], _instant(entry[1], f"{where}.at_us"), value


def _context_point(entry: object) -> ContextPoint:
    name, at_us, number = _point(entry, "context")
    assert isinstance(entry, list)
    word = entry[2]
    return (name, at_us, word) if isinstance(word, str) and _carried(word) else (name, at_us, number)


class PipeSource:
    """Packets from a pipe; after each one handled a line ``{"done": at_us}`` goes back (flow control).

    Plain, it promises that what came of the packet is durable; otherwise the line is
    ``{"done": at_us, "durable": false}``. ``at_us`` is null for a refused packet.
    """

    acknowledges = True

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._fd = incoming.fileno()
        self._incoming, self._outgoing = incoming, outgoing
        self._reader = PacketReader()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the sender has closed its end and every packet was given."""
        return self._ended

    def next(self, timeout_s: float) -> Packet | None:
        """See ``Source.next``; a packet that is only partly there does not prolong the wait."""
        until = time.monotonic() + timeout_s
        packet = self._reader.take()
        while packet is None and not self._ended:
            if not select.select([self._fd], [], [], max(0.0, until - time.monotonic()))[0]:
                return None
            piece = os.read(self._fd, _CHUNK)
            if not piece:
                self._ended = True
                if not self._reader.empty:
                    raise SourceError(
                        "source: it ends within a packet", do="The sender died; start it again."
                    )
                return None
            self._reader.feed(piece)
            packet = self._reader.take()
        return packet

    def done(self, at_us: int | None, *, durable: bool = True) -> None:
        """Give the sender its credit back; a sender that is gone needs none."""
        said: dict[str, object] = {"done": at_us} if durable else {"done": at_us, "durable": False}
        try:
            self._outgoing.write(canonical_bytes(said) + b"\n")
            self._outgoing.flush()
        except BrokenPipeError:
            self._ended = True

    def close(self) -> None:
        """Nothing: the process's own pipes close with it."""


class FileSource:
    """Replays a file of packets as fast as they are handled."""

    acknowledges = False

    def __init__(self, path: Path) -> None:
        try:
            self._stream = path.open("rb")
        except OSError as error:
            raise SourceError(
                f"source file {path}", found=error.strerror or "", do="Check the path."
            ) from error
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the end of the file was reached."""
        return self._ended

    def next(self, timeout_s: float) -> Packet | None:  # noqa: ARG002 - a file never waits
        """See ``Source.next``."""
        packet = read_packet(self._stream)
        self._ended = packet is None
        return packet

    def done(self, at_us: int | None, *, durable: bool = True) -> None:
        """A file needs no credit."""

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read_packets(path: Path) -> Iterator[Packet]:
    """Every packet of a file."""
    source = FileSource(path)
    try:
        while (packet := source.next(0.0)) is not None:
            yield packet
    finally:
        source.close()
