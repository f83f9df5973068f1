"""The files of a journal: segments of groups of frames, readable around damage. Format 1.

A segment ``journal/<first seq>.seg`` is a header and then one group per commit; a group is a mark and the
frames that were committed together. A mark carries the sequence number and the head before its first
frame, and its check binds it to this journal and to its place in the file. So a reader that meets damage
finds the next group by itself; and since a group is written only after the one before it is durable,
damage *followed by* a valid mark is corruption of acknowledged records, never a torn write.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from aiotkit.bundle.document import parse_document
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import ChainError, JournalError
from aiotkit.core.frames import Frame, decode, encode
from aiotkit.core.records import RecordType
from aiotkit.core.strict import Strict

SUFFIX = ".seg"
Counts = Mapping[RecordType, int]
_MARK = struct.Struct("<4sIQ32s16s")  # magic, bytes of frames, first seq, head before it, check
_MAGIC = b"AJG1"
MARK_SIZE = _MARK.size


class Header(Strict):
    """What a segment says of itself and, as running totals, of everything before it."""

    format: Literal[1] = 1
    device: str
    journal_id: str
    first: PositiveInt
    previous: str = Field(pattern=r"^[0-9a-f]{64}$")
    counts: Mapping[str, NonNegativeInt]
    last: Mapping[str, PositiveInt]
    erased: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """The beginning of a group."""

    first: int
    previous: bytes
    size: int
    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not as it was written.

    ``first`` is the first record it concerns; ``last`` the last one that cannot be read because of it
    (``first - 1`` when all can be, ``None`` when nothing behind it tells). ``at`` is the offset of the group.
    """

    first: int
    last: int | None
    at: int
    why: str


@dataclass(frozen=True, slots=True)
class Group:
    """The readable frames of a group; followed by a ``Damage`` at the same place when some are not."""

    at: int
    end: int
    previous: bytes
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader stands: the next record and the head before it (``None`` = behind a hole)."""

    seq: int
    head: bytes | None


def segment_name(first: int) -> str:
    """The file name of the segment whose first record is ``first``.

    >>> segment_name(12)
    '00000000000000000012.seg'
    """
    return f"{first:020d}{SUFFIX}"


def segment_first(name: str) -> int | None:
    """The inverse of ``segment_name``; ``None`` for any other name."""
    stem = name.removesuffix(SUFFIX)
    return int(stem) if len(stem) == 20 and stem.isdecimal() and name == stem + SUFFIX else None


def count_names(counts: Counts) -> dict[str, int]:
    """Counts by the names of the record types, for documents."""
    return {kind.name: n for kind, n in sorted(counts.items()) if n}


def count_types(names: Mapping[str, int], what: str) -> dict[RecordType, int]:
    """The inverse of ``count_names``; raises ``JournalError`` for an unknown type."""
    known = RecordType.__members__
    if unknown := set(names) - set(known):
        raise JournalError(what, expected="known record types", found=", ".join(sorted(unknown)))
    return {known[name]: n for name, n in names.items()}


def seal(document: Strict) -> bytes:
    """A document as a canonical line and its sha256."""
    line = canonical_bytes(document.model_dump(mode="json")) + b"\n"
    return line + hashlib.sha256(line).digest()


def unseal(data: bytes, name: str) -> tuple[bytes, int]:
    """The line of ``seal`` and the offset behind its digest; raises ``JournalError`` when damaged."""
    end = data.find(b"\n") + 1
    if not end or hashlib.sha256(data[:end]).digest() != data[end : end + 32]:
        raise JournalError(
            f"{name}: its first line does not fit its digest", do="Run: aiotkit journal verify"
        )
    return data[:end], end + 32


def read_header(data: bytes, name: str) -> tuple[Header, int]:
    """The header at the start of a segment and the offset of its first group.

    Raises:
        JournalError: it is damaged, of another format, or does not fit the file's name.
    """
    line, end = unseal(data, name)
    header = parse_document(line, Header, name, JournalError)
    count_types(header.counts, name)
    count_types(header.last, name)
    if segment_name(header.first) != name:
        raise JournalError(f"segment {name}", expected=f"the name {segment_name(header.first)}")
    return header, end


def encode_mark(genesis: bytes, at: int, previous: bytes, first: int, size: int) -> bytes:
    """The mark of a group at offset ``at``; ``size`` bytes of frames follow it."""
    return _MARK.pack(_MAGIC, size, first, previous, _check(genesis, at, previous, first, size))


def regroup(genesis: bytes, at: int, groups: Iterable[Group]) -> bytes:
    """Groups laid out anew from offset ``at``."""
    out = bytearray()
    for group in groups:
        body = b"".join(encode(frame) for frame in group.frames)
        out += encode_mark(genesis, at + len(out), group.previous, group.frames[0].seq, len(body)) + body
    return bytes(out)


def _check(genesis: bytes, at: int, previous: bytes, first: int, size: int) -> bytes:
    return hashlib.sha256(genesis + struct.pack("<QIQ", at, size, first) + previous).digest()[:16]


def _mark_at(data: bytes, at: int, base: int, genesis: bytes) -> Mark | None:
    if len(data) - at < MARK_SIZE:
        return None
    magic, size, first, previous, check = _MARK.unpack_from(data, at)
    if magic != _MAGIC or check != _check(genesis, base + at, previous, first, size):
        return None
    return Mark(first, previous, size, at + MARK_SIZE + size)


def _next_mark(data: bytes, at: int, base: int, genesis: bytes, above: int) -> int:
    """Offset of the next valid mark of a record from ``above`` on; the end of the data when there is none."""
    while (at := data.find(_MAGIC, at)) >= 0:
        mark = _mark_at(data, at, base, genesis)
        if mark is not None and mark.first >= above:
            return at
        at += 1
    return len(data)


def read_groups(data: bytes, at: int, genesis: bytes, place: Place) -> Iterator[Group | Damage]:
    """Everything from a point of a segment on, damage included; never raises for what it reads.

    Args:
        data: the bytes of the segment from offset ``at`` to its end.
        at: the offset in the file.
        genesis: the head before the journal's first record.
        place: what the first group must continue.
    """
    here, seq, head = 0, place.seq, place.head
    while here < len(data):
        mark = _mark_at(data, here, at, genesis)
        if mark is None or mark.first < seq or mark.end > len(data):
            behind = _next_mark(data, here + 1, at, genesis, seq)
            why = "its group's mark is damaged" if mark is None else "its group is cut short or out of order"
            yield Damage(seq, _before(data, behind), at + here, why)
            first = _first_at(data, behind, seq)
            here, seq, head = behind, first, head if first == seq else None
            continue
        if mark.first > seq:
            yield Damage(seq, mark.first - 1, at + here, "records are missing before the next group")
        elif head not in (None, mark.previous):
            yield Damage(seq, seq - 1, at + here, "it does not continue the chain")
        frames, trouble = _frames(data, here + MARK_SIZE, mark)
        if frames:
            yield Group(at + here, at + mark.end, mark.previous, tuple(frames))
        seq, head = mark.first + len(frames), frames[-1].head if frames else mark.previous
        if trouble:
            behind = _next_mark(data, here + 1, at, genesis, seq + 1)
            yield Damage(seq, _before(data, behind), at + here, trouble)
            here, seq, head = behind, _first_at(data, behind, seq), None
        else:
            here = mark.end


def _frames(data: bytes, at: int, mark: Mark) -> tuple[list[Frame], str]:
    frames: list[Frame] = []
    body = memoryview(data)[at : mark.end]
    here, seq, head = 0, mark.first, mark.previous
    while here < len(body):
        try:
            frame, here = decode(body, here, head, seq)
        except ChainError as error:
            return frames, str(error)
        frames.append(frame)
        seq, head = seq + 1, frame.head
    return frames, "" if frames else f"record {seq}: its group is empty"


def _first_at(data: bytes, at: int, otherwise: int) -> int:
    return otherwise if at >= len(data) else int(_MARK.unpack_from(data, at)[2])


def _before(data: bytes, at: int) -> int | None:
    return None if at >= len(data) else int(_MARK.unpack_from(data, at)[2]) - 1
