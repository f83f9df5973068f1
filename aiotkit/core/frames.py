"""The byte form of journal records and their hash chain, shared by device and collector. Format 1.

A frame is ``header ‖ payload ‖ head``. The header is fixed: magic, type, flags, seq, payload length and
payload digest; ``head = sha256(previous head ‖ chained part of the header)``. The chain covers the digest
of a payload, not the payload itself: it can be withheld or erased (flag WITHHELD, no bytes follow) and
the chain still verifies. The first head is derived from device and journal id, so that records cannot
be spliced from elsewhere.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from aiotkit.core.errors import ChainError, JournalError
from aiotkit.core.records import RecordType

MAGIC = b"AJ1"
WITHHELD = 1
MAX_PAYLOAD = 64 << 20
_CHAINED = struct.Struct("<BQI32s")  # type, seq, payload length, payload sha256
_HEADER = struct.Struct("<3sB")  # magic, flags
HEADER_SIZE = _HEADER.size + _CHAINED.size
HEAD_SIZE = 32


@dataclass(frozen=True, slots=True)
class Frame:
    """One record: its place in the chain, and its payload unless that was withheld."""

    type: RecordType
    seq: int
    digest: bytes
    length: int
    payload: bytes | None
    head: bytes

    @property
    def withheld(self) -> bool:
        """Whether only the digest is here."""
        return self.payload is None


def genesis(device: str, journal_id: str) -> bytes:
    """The head before the first record."""
    return hashlib.sha256(f"aiotkit-journal-1|{device}|{journal_id}".encode()).digest()


def make_frame(kind: RecordType, seq: int, payload: bytes, previous: bytes) -> Frame:
    """The next frame of a chain whose last head is ``previous``.

    Raises:
        JournalError: when the payload is larger than any reader would accept.
    """
    if len(payload) > MAX_PAYLOAD:
        raise JournalError(
            f"record {seq}: its payload is too large",
            expected=f"at most {MAX_PAYLOAD} bytes",
            found=str(len(payload)),
            do="Shorten the window or lower its rate.",
        )
    payload_digest = hashlib.sha256(payload).digest()
    chained = _CHAINED.pack(kind, seq, len(payload), payload_digest)
    return Frame(kind, seq, payload_digest, len(payload), payload, _next_head(previous, chained))


def encode(frame: Frame) -> bytes:
    """The bytes of a frame."""
    chained = _CHAINED.pack(frame.type, frame.seq, frame.length, frame.digest)
    flags = WITHHELD if frame.payload is None else 0
    return _HEADER.pack(MAGIC, flags) + chained + (frame.payload or b"") + frame.head


def withhold(frame: Frame) -> Frame:
    """The same record without its payload."""
    payload = None if frame.length else b""  # of nothing, nothing can be withheld
    return Frame(frame.type, frame.seq, frame.digest, frame.length, payload, frame.head)


def _next_head(previous: bytes, chained: bytes) -> bytes:
    return hashlib.sha256(previous + chained).digest()


def decode(data: bytes | memoryview, at: int, previous: bytes, seq: int) -> tuple[Frame, int]:
    """Read and verify the frame at an offset.

    Args:
        data: bytes that hold frames.
        at: where the frame begins.
        previous: the head before it.
        seq: the sequence number it must have.

    Returns:
        The frame and the offset behind it.

    Raises:
        ChainError: naming ``seq``, when the bytes end early or anything differs.
    """
    view = memoryview(data)
    if len(view) - at < HEADER_SIZE:
        raise ChainError(f"record {seq}", expected=f"{HEADER_SIZE} header bytes", found=str(len(view) - at))
    magic, flags = _HEADER.unpack_from(view, at)
    kind, found_seq, length, payload_digest = _CHAINED.unpack_from(view, at + _HEADER.size)
    sane = flags == 0 or (flags == WITHHELD and length > 0)
    if magic != MAGIC or not sane or kind not in _TYPES or length > MAX_PAYLOAD:
        raise ChainError(f"record {seq}: its header is damaged", found=bytes(view[at : at + 12]).hex())
    if found_seq != seq:
        raise ChainError(f"record {seq}", expected=f"sequence number {seq}", found=str(found_seq))
    body = at + HEADER_SIZE
    tail = body + (0 if flags & WITHHELD else length)
    if len(view) - tail < HEAD_SIZE:
        raise ChainError(f"record {seq}: the bytes end within it")
    head = bytes(view[tail : tail + HEAD_SIZE])
    chained = bytes(view[at + _HEADER.size : body])
    if head != _next_head(previous, chained):
        raise ChainError(f"record {seq}: it does not continue the chain")
    payload = None if flags & WITHHELD else bytes(view[body:tail])
    if payload is not None and hashlib.sha256(payload).digest() != payload_digest:
        raise ChainError(f"record {seq}: its payload differs from the digest in the chain")
    return Frame(RecordType(kind), seq, payload_digest, length, payload, head), tail + HEAD_SIZE


_TYPES = frozenset(int(t) for t in RecordType)


def decode_all(data: bytes, previous: bytes, seq: int) -> Iterator[Frame]:
    """All frames of a run of bytes whose first has ``seq``; raises ``ChainError`` at the first bad one."""
    at = 0
    while at < len(data):
        frame, at = decode(data, at, previous, seq)
        yield frame
        previous, seq = frame.head, seq + 1
