"""What of a journal is durable: its segments and base file, written and read through one ``Disk``."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from aiotkit.core.errors import StorageError
from aiotkit.core.frames import Frame
from aiotkit.core.records import RecordType
from aiotkit.edge.journal_base import BASE_BYTES, MAX_KEPT, Base, GapNote, Kept, Point, kept_bytes, write_base
from aiotkit.edge.journal_files import BASE_FILE, Folder, Segment, put_segment, walk
from aiotkit.edge.journal_recovery import Recovered
from aiotkit.edge.journal_space import drop_note, erase_windows
from aiotkit.edge.segments import (
    MARK_SIZE,
    Damage,
    Group,
    Header,
    count_names,
    encode_mark,
    seal,
    segment_name,
)

RESERVE_BYTES = 4096  # room for a segment header and a gap record
OnFull = Literal["drop", "stop"]


class Store:
    """The durable part of a journal.

    Args:
        folder: what was found.
        base: its base file, or a new one.
        state: what recovery made of it.
        limits: bytes of the quota, bytes of a segment, what to do when the quota is used up.
    """

    def __init__(self, folder: Folder, base: Base, state: Recovered, limits: tuple[int, int, OnFull]) -> None:
        self.folder, self.base, self.segments = folder, base, folder.segments
        self.quota_bytes, self._segment_bytes, self._on_full = limits
        self.durable = Point(seq=state.seq, head=state.head.hex())
        self.counts: Counter[RecordType] = state.counts
        self._last, self._tail = state.last, state.tail
        self._unclean, self._fresh = False, state.fresh_segment
        self._base_bytes = folder.disk.size(folder.at(BASE_FILE)) or 0

    # -- reading

    def groups(self, first_seq: int) -> Iterator[tuple[Segment, Group | Damage]]:
        """Groups and damages from about ``first_seq`` on."""
        begin = max((i for i, s in enumerate(self.segments) if s.first <= first_seq), default=0)
        for segment, item in walk(self.folder, self.segments[begin:], seq=first_seq):
            if isinstance(item, Group):
                segment.note(item.frames[0].seq, item.at)
            yield segment, item

    def frame(self, seq: int) -> Frame | None:
        """One record; ``None`` when it is not here or cannot be read."""
        for segment, item in self.groups(seq):
            if segment.first > seq:
                break
            for frame in item.frames if isinstance(item, Group) else ():
                if frame.seq >= seq:
                    return frame if frame.seq == seq else None
        return None

    def last(self, kind: RecordType) -> Frame | None:
        """The newest record of a type, from its segment or from what the base file keeps."""
        if kind not in self._tail:
            kept = self.base.kept.get(kind.name)
            seq = self._last.get(kind, 0)
            found = self.frame(seq) if seq and (kept is None or kept.seq < seq) else None
            if found is None and kept is not None:
                found = kept.frame(kind)
            if found is None:
                return None
            self._tail[kind] = found
        return self._tail[kind]

    def head_before(self, seq: int) -> bytes | None:
        """The head that record ``seq`` continues; ``None`` when it cannot be known here."""
        for point in (self.durable, self.base.delivered):
            if seq == point.seq + 1:
                return bytes.fromhex(point.head)
        begins = next((s.header.previous for s in self.segments if s.first == seq and s.header), None)
        if begins is not None:
            return bytes.fromhex(begins)
        if seq == 1:
            return self.folder.identity.genesis
        earlier = self.frame(seq - 1)
        return earlier.head if earlier else None

    # -- writing

    def write(self, frames: Sequence[Frame], parts: Sequence[bytes]) -> None:
        """Make records durable in one group; ``parts`` are their bytes.

        After an error none of them counts, and the next ``write`` begins with ``clean``.
        """
        if self._fresh or self.segments[-1].size >= self._segment_bytes:
            self.rotate()
        active = self.segments[-1]
        path = self.folder.at(segment_name(active.first))
        previous, first = bytes.fromhex(self.durable.head), frames[0].seq
        size = sum(map(len, parts))
        mark = encode_mark(self.folder.identity.genesis, active.size, previous, first, size)
        data = b"".join((mark, *parts))
        try:
            self.folder.disk.append(path, data)
            self.folder.disk.sync(path)
        except StorageError:
            self._unclean = True
            raise
        active.note(first, active.size)
        active.size += len(data)
        self.counts.update(frame.type for frame in frames)
        newest = {frame.type: frame for frame in frames}
        self._tail.update(newest)
        self._last.update({kind: frame.seq for kind, frame in newest.items()})
        self.durable = Point(seq=frames[-1].seq, head=frames[-1].head.hex())

    def clean(self) -> None:
        """After a failed write: cut the file back to what was acknowledged, durably.

        What a failed sync leaves in memory and on disk can differ, and another sync would not tell: what
        waits is written again from memory.
        """
        if not self._unclean:
            return
        active = self.segments[-1]
        path = self.folder.at(segment_name(active.first))
        self.folder.disk.truncate(path, active.size)
        self.folder.disk.sync(path)
        self._unclean = False

    def rotate(self) -> None:
        """Begin a new segment; its name appears with its header durable."""
        header = Header(
            device=self.folder.identity.device,
            journal_id=self.folder.identity.journal_id,
            first=self.durable.seq + 1,
            previous=self.durable.head,
            counts=count_names(self.counts),
            last=count_names(self._last),
        )
        data = seal(header)
        segment = Segment(header.first, len(data), len(data), header)
        put_segment(self.folder, segment, data)
        self.folder.disk.sync_folder(self.folder.path)
        if self.segments and self.segments[-1].first == header.first:
            self.segments.pop()
        self.segments.append(segment)
        self._fresh = False

    def save(self, gone: Sequence[Segment] = (), **changes: object) -> None:
        """Replace the base file, keeping the last records of the segments that are to go."""
        until = self.segments[len(gone)].first - 1 if gone else 0
        kept = dict(self.base.kept)
        for kind, seq in self._last.items():
            if seq <= until and kind is not RecordType.WINDOW and (frame := self.last(kind)) is not None:
                kept[kind.name] = Kept.of(frame)
        base = self.base.model_copy(update={"kept": kept, "acknowledged": self.durable, **changes})
        self._base_bytes = write_base(self.folder.disk, self.folder.at(BASE_FILE), base)
        self.base = self.folder.base = base

    def remove(self, gone: Sequence[Segment]) -> None:
        """Remove segments; ``save`` has accounted for them."""
        for segment in gone:
            self.folder.disk.unlink(self.folder.at(segment_name(segment.first)))
            self.segments.remove(segment)
        if gone:
            self.folder.disk.sync_folder(self.folder.path)

    # -- the quota

    @property
    def bytes(self) -> int:
        """What the folder takes up."""
        return sum(segment.size for segment in self.segments) + self._base_bytes

    def make_room(self, waiting: Callable[[], int], declare: Callable[[GapNote], None]) -> None:
        """Make the quota hold what waits, as declared.

        Args:
            waiting: bytes of the records that wait; ``declare`` may add to them.
            declare: called for each loss, before it happens.

        Raises:
            StorageError: it cannot, or must not.
        """
        if self._room(waiting) >= 0:
            return
        if self._on_full == "drop":
            for segment in self.segments[:-1]:
                if self._room(waiting) < 0:
                    erase_windows(self.folder, segment)
            while self._room(waiting) < 0 and self.segments:
                if len(self.segments) == 1:
                    if self.segments[0].first > self.durable.seq:
                        break
                    self.rotate()
                self._drop_oldest(declare)
        if self._room(waiting) < 0:
            raise full(
                f"journal of {self.folder.identity.device}: its quota is used up",
                f"{self.quota_bytes} bytes to hold it",
                "Deliver to the collector, or raise quota_bytes; nothing acknowledged is lost.",
            )

    def _room(self, waiting: Callable[[], int]) -> int:
        """What the quota leaves, with room for the base file to grow and to rewrite a file aside."""
        room = self._left(waiting(), self._base_bound(read=False))
        return room if room >= 0 else self._left(waiting(), self._base_bound(read=True))

    def _left(self, waiting: int, base: int) -> int:
        segments = [segment.size for segment in self.segments]
        aside = max(self._segment_bytes, base, *segments)
        return self.quota_bytes - sum(segments) - base - aside - waiting - MARK_SIZE - RESERVE_BYTES

    def _base_bound(self, *, read: bool) -> int:
        """The most that the base file can come to; the last records are read for it only if need be."""
        if read:
            for kind in set(self._last) - {RecordType.WINDOW}:
                self.last(kind)
        lengths = [
            self._tail[kind].length if kind in self._tail else MAX_KEPT
            for kind in self._last
            if kind is not RecordType.WINDOW
        ]
        return max(self._base_bytes, BASE_BYTES + sum(kept_bytes(length) for length in lengths))

    def _drop_oldest(self, declare: Callable[[GapNote], None]) -> None:
        oldest, end = self.segments[0], self.segments[1].first - 1
        if end <= self.base.delivered.seq:
            self.save([oldest])
        else:
            note = drop_note(self.folder, self.base)
            self.save([oldest], dropped=note)
            declare(note)
        self.remove([oldest])


def full(what: str, expected: str, do: str) -> StorageError:
    """The error of a journal that has no room."""
    trouble = StorageError(what, expected=expected, do=do)
    trouble.errno = errno.ENOSPC
    return trouble
