"""The small file beside the segments: what must be known when segments are gone or damaged.

It holds who the journal belongs to, a lower bound of what was acknowledged, the collector's last
watermark, what was dropped for want of space, and the last record of each type whose segment is gone.
It is replaced as a whole; a crash leaves the old or the new.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from aiotkit.bundle.document import parse_document
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import JournalError
from aiotkit.core.frames import Frame
from aiotkit.core.records import RecordType
from aiotkit.core.strict import Strict
from aiotkit.edge.disk import Disk, replace
from aiotkit.edge.segments import count_types, seal, unseal

MAX_KEPT = 16 << 10
BASE_BYTES = 3072  # at most, without kept records
Hex = Field(pattern=r"^[0-9a-f]{64}$")


class Point(Strict):
    """A record and its head."""

    seq: NonNegativeInt
    head: str = Hex


class GapNote(Strict):
    """The payload of a GAP record: records ``first`` to ``last`` are not in the journal any more.

    ``counts`` by type where known. Later notes repeat what earlier ones said: sum the union of ranges.
    """

    format: Literal[1] = 1
    first: PositiveInt
    last: PositiveInt
    counts: Mapping[str, NonNegativeInt] | None
    reason: str

    def payload(self) -> bytes:
        """The bytes of the record's payload."""
        return canonical_bytes(self.model_dump(mode="json"))


def still_owed(note: GapNote | None, delivered: int) -> GapNote | None:
    """The gap, unless the collector has all of it anyway."""
    return note if note is not None and note.last > delivered else None


class Kept(Strict):
    """A whole record in a document; payloads in base64, none when withheld or over ``MAX_KEPT``."""

    seq: PositiveInt
    head: str = Hex
    digest: str = Hex
    length: NonNegativeInt
    payload: str | None

    @classmethod
    def of(cls, frame: Frame) -> Kept:
        """A record to keep."""
        small = frame.payload is not None and frame.length <= MAX_KEPT
        payload = base64.b64encode(frame.payload or b"").decode() if small else None
        return cls(
            seq=frame.seq,
            head=frame.head.hex(),
            digest=frame.digest.hex(),
            length=frame.length,
            payload=payload,
        )

    def frame(self, kind: RecordType) -> Frame:
        """The record again."""
        payload = None if self.payload is None else base64.b64decode(self.payload)
        digest, head = bytes.fromhex(self.digest), bytes.fromhex(self.head)
        return Frame(kind, self.seq, digest, self.length, payload, head)


def kept_bytes(length: int) -> int:
    """The most that a kept record with a payload of ``length`` bytes takes in the file."""
    return 320 + (4 * (length + 2) // 3 if length <= MAX_KEPT else 0)


class Base(Strict):
    """The file's content; ``watermark`` is the collector's envelope as it came."""

    format: Literal[1] = 1
    device: str
    journal_id: str = Field(min_length=1, max_length=64)
    acknowledged: Point
    delivered: Point
    watermark: str | None = None
    dropped: GapNote | None = None
    kept: Mapping[str, Kept] = {}

    @property
    def first_due(self) -> int:
        """The first record that the journal still owes the collector."""
        return self.delivered.seq + 1

    @property
    def bound(self) -> Point:
        """The last record that is known to have existed, with its head."""
        return max(self.acknowledged, self.delivered, key=lambda point: point.seq)


def read_base(disk: Disk, path: str) -> Base | None:
    """The base file; ``None`` when there is none. Raises ``JournalError`` when it is damaged."""
    if disk.size(path) is None:
        return None
    line, _ = unseal(disk.read(path), path)
    base = parse_document(line, Base, path, JournalError)
    count_types({name: kept.seq for name, kept in base.kept.items()}, path)
    return base


def write_base(disk: Disk, path: str, base: Base) -> int:
    """Replace the base file durably; returns its size in bytes."""
    data = seal(base)
    replace(disk, path, data)
    return len(data)
