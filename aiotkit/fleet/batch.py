"""What a collector makes of a batch of journal frames: pure rules over bytes and the stream's head.

A batch file is one canonical JSON line (``BatchHeader``) and the frames ``first … last`` behind it, named
``batch-<journal_id>-<first>-<last>.ajb``. A stream is one journal of one device.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from aiotkit.bundle.document import parse_document
from aiotkit.core.errors import ChainError, DataError
from aiotkit.core.frames import Frame, decode_all, genesis
from aiotkit.core.strict import Strict

SUFFIX = ".ajb"
DEVICE_NAME = r"^[a-z0-9-]{1,63}$"
JOURNAL_ID = r"^[A-Za-z0-9_-]{1,64}$"
_FILE_NAME = re.compile(r"batch-([A-Za-z0-9_-]{1,64})-(\d{12,18})-(\d{12,18})\.ajb")
#: bytes a header line may have
MAX_HEADER = 4096


class Gap(Strict):
    """Records ``first … last`` that the device dropped before they could leave it."""

    first: PositiveInt
    last: PositiveInt


class BatchHeader(Strict):
    """Whose records a batch holds, which ones, and the head before the first (hexadecimal)."""

    format: Literal[1]
    device: Annotated[str, Field(pattern=DEVICE_NAME)]
    journal_id: Annotated[str, Field(pattern=JOURNAL_ID)]
    first: PositiveInt
    last: PositiveInt
    previous: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    gap: Gap | None = None

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"last={self.last} lies before first={self.first}")
        if self.gap is not None and not self.gap.first <= self.gap.last == self.first - 1:
            raise ValueError(
                f"the gap {self.gap.first}…{self.gap.last} must end right before first={self.first}"
            )
        return self


@dataclass(frozen=True, order=True, slots=True)
class Stream:
    """One journal of one device."""

    device: str
    journal_id: str

    @property
    def app_id(self) -> str:
        """Its name in the watermarks of the lake."""
        return f"{self.device}/{self.journal_id}"


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a stream is collected: the last sequence number and the head behind it."""

    seq: int
    head: bytes


@dataclass(frozen=True, order=True, slots=True)
class BatchName:
    """What the name of a batch file says."""

    journal_id: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Taken:
    """New records of a batch, behind the head ``previous``.

    ``dropped`` = the range the device lost before them; ``repeated`` = how many frames had been collected
    before.
    """

    frames: Sequence[Frame]
    dropped: Gap | None
    previous: bytes
    repeated: int


def origin(stream: Stream) -> Mark:
    """The mark of a stream of which nothing was collected yet."""
    return Mark(0, genesis(stream.device, stream.journal_id))


def parse_name(name: str) -> BatchName | None:
    """The parts of a batch file's name, ``None`` when it is no such name.

    >>> parse_name("batch-00ff00ff00ff00ff-000000000001-000000000064.ajb")
    BatchName(journal_id='00ff00ff00ff00ff', first=1, last=64)
    """
    match = _FILE_NAME.fullmatch(name)
    return None if match is None else BatchName(match[1], int(match[2]), int(match[3]))


def parse_batch(data: bytes, device: str, name: BatchName) -> tuple[BatchHeader, bytes]:
    """Header and frame bytes of a batch found in a device's folder under a name.

    Raises:
        DataError: no such header, or one that contradicts the name or the folder.
    """
    line, newline, _ = data[: MAX_HEADER + 1].partition(b"\n")
    if not newline:
        raise DataError("batch", expected=f"a header line of at most {MAX_HEADER} bytes", found="none")
    header = parse_document(line, BatchHeader, "batch header", DataError)
    if header.device != device:
        raise DataError(
            "batch of another device",
            expected=f"device '{device}', whose folder it lies in",
            found=f"'{header.device}'",
            do="A device may speak for itself only: look who wrote it.",
        )
    if (header.journal_id, header.first, header.last) != (name.journal_id, name.first, name.last):
        raise DataError(
            "batch header and file name differ",
            expected=f"{name.journal_id} {name.first}…{name.last}",
            found=f"{header.journal_id} {header.first}…{header.last}",
        )
    return header, data[len(line) + 1 :]


def follows(header: BatchHeader, mark: Mark) -> bool:
    """Whether a batch can be taken now: it begins at or before the next record, or tells what was dropped."""
    needed = mark.seq + 1
    return header.first <= needed or (header.gap is not None and header.gap.first <= needed)


def take(header: BatchHeader, body: bytes, mark: Mark) -> Taken:
    """Verify a batch that ``follows`` and give what is new in it.

    The frames must continue the chain from the collected head. After a drop there is no such link: they
    are verified from the head the device names, and the dropped range is taken down.

    Raises:
        ChainError: naming the first bad sequence number.
    """
    previous = bytes.fromhex(header.previous)
    if header.first == mark.seq + 1 and previous != mark.head:
        raise ChainError(
            f"record {header.first}: the batch does not continue what was collected",
            expected=f"head {mark.head.hex()[:16]}… before it",
            found=f"{header.previous[:16]}…",
        )
    frames = list(decode_all(body, previous, header.first))
    if len(frames) != header.last - header.first + 1:
        last = header.first + len(frames) - 1
        raise ChainError(f"record {last}: the batch ends here", expected=f"records up to {header.last}")
    known = [f for f in frames if f.seq <= mark.seq]
    if known and known[-1].seq == mark.seq and known[-1].head != mark.head:
        raise ChainError(
            f"record {mark.seq}: it was collected with another content",
            expected=f"head {mark.head.hex()[:16]}…",
            found=f"{known[-1].head.hex()[:16]}…",
            do="The journal was rewritten or copied; compare the device's journal with the lake.",
        )
    dropped = None if header.first <= mark.seq + 1 else Gap(first=mark.seq + 1, last=header.first - 1)
    return Taken(frames[len(known) :], dropped, previous, len(known))
