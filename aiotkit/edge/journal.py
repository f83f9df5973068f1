"""The device's append-only, hash-chained journal: what ``commit`` has returned is kept through any crash.

Records are appended in memory and made durable together by ``commit`` (one write, one sync). Segments
rotate; damage costs the group it hits and is declared as a gap; a full disk refuses, loses nothing, and
the same journal goes on when there is room. Delivered segments are removed on the collector's watermark
only. One writer at a time, not for several threads.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aiotkit.bundle.trust import Trust
from aiotkit.core.errors import JournalError, StorageError
from aiotkit.core.frames import MAX_PAYLOAD, Frame, encode, make_frame
from aiotkit.core.records import RecordType
from aiotkit.edge.disk import Disk, Lock, make_folder
from aiotkit.edge.journal_base import GapNote, Point, still_owed
from aiotkit.edge.journal_files import (
    LOCK_FILE,
    Identity,
    Segment,
    check_identity,
    empty_base,
    found_journal,
    look,
)
from aiotkit.edge.journal_recovery import damage_note, note_of, recover
from aiotkit.edge.journal_store import OnFull, Store, full
from aiotkit.edge.journal_verify import Verified, verify_folder
from aiotkit.edge.segments import Damage, count_names
from aiotkit.edge.watermark import Watermark, check_watermark, read_watermark

log = logging.getLogger(__name__)

SEGMENT_BYTES = 8 << 20
MIN_QUOTA_BYTES = 64 << 10
MAX_PENDING_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Usage:
    """How full the journal is; ``produced`` counts durable records by type since the first."""

    bytes: int
    quota_bytes: int
    segments: int
    first_seq: int
    durable_seq: int
    delivered_seq: int
    pending: int
    produced: dict[str, int]
    dropped: GapNote | None


class Journal:
    """See the module. Make one with ``Journal.open`` and ``close`` it (or use ``with``)."""

    def __init__(self, store: Store, lock: Lock, gaps: list[GapNote], declared: set[tuple[int, int]]) -> None:
        self._store, self._lock = store, lock
        self._seq, self._head = store.durable.seq, bytes.fromhex(store.durable.head)
        self._pending: list[Frame] = []
        self._parts: list[bytes] = []
        self._pending_bytes = 0
        self._declared = declared
        self._declared_all = False
        for note in gaps:
            self._declare(note)

    @classmethod
    def open(
        cls,
        disk: Disk,
        device: str,
        *,
        journal_id: str | None = None,
        quota_bytes: int = 256 << 20,
        on_full: OnFull = "drop",
        segment_bytes: int = SEGMENT_BYTES,
        folder: str = "journal",
    ) -> Journal:
        """Open a device's journal, or begin one; heals what a crash or damage has left.

        Args:
            disk: where.
            device: whose journal it is.
            journal_id: refuse any other (an existing journal), or the id of a new one (default: random).
            quota_bytes: what the folder may take up, always.
            on_full: when the quota is used up: ``drop`` (window payloads of the oldest segments first,
                then whole oldest segments, declared by GAP records) or ``stop`` (commit refuses).
            segment_bytes: when a segment is full; at most an eighth of the quota is used.
            folder: its folder on the disk.

        Raises:
            StorageError: another process has it open, or the disk refuses.
            JournalError: it belongs to another device, has another id, or cannot be read at all.
        """
        if quota_bytes < MIN_QUOTA_BYTES:
            raise JournalError(
                "journal: quota_bytes", expected=f"at least {MIN_QUOTA_BYTES}", found=str(quota_bytes)
            )
        make_folder(disk, folder)
        lock = disk.lock(f"{folder}/{LOCK_FILE}")
        try:
            found = look(disk, folder)
            if found is None:
                found = found_journal(disk, folder, Identity(device, journal_id or secrets.token_hex(8)))
            check_identity(found, device, journal_id)
            state = recover(found)
            base = found.base or empty_base(found.identity)
            limits = (quota_bytes, min(segment_bytes, quota_bytes // 8), on_full)
            journal = cls(Store(found, base, state, limits), lock, state.gaps, state.declared)
        except BaseException:
            lock.release()
            raise
        for finding in found.findings:
            log.warning("journal %s: %s", folder, finding)
        with suppress(StorageError):  # no room for this now: gaps wait for the first commit
            if found.base is None:
                journal._store.save()
            journal.commit()
        return journal

    # -- what it is

    @property
    def device(self) -> str:
        """Whose journal it is."""
        return self._store.base.device

    @property
    def journal_id(self) -> str:
        """Which of the device's journals it is."""
        return self._store.base.journal_id

    @property
    def next_seq(self) -> int:
        """The sequence number that the next ``append`` will give."""
        return self._seq + 1

    @property
    def durable_seq(self) -> int:
        """The last acknowledged record; 0 = none."""
        return self._store.durable.seq

    @property
    def head(self) -> bytes:
        """The head of the last acknowledged record."""
        return bytes.fromhex(self._store.durable.head)

    @property
    def delivered(self) -> Point:
        """The last record that the collector's watermark covers, and its head (hex); seq 0 = none."""
        return self._store.base.delivered

    @property
    def findings(self) -> tuple[str, ...]:
        """What was not as it should be when the journal was opened, in words."""
        return tuple(self._store.folder.findings)

    @property
    def usage(self) -> Usage:
        """How full it is."""
        store = self._store
        return Usage(
            bytes=store.bytes,
            quota_bytes=store.quota_bytes,
            segments=len(store.segments),
            first_seq=store.segments[0].first if store.segments else self.durable_seq + 1,
            durable_seq=self.durable_seq,
            delivered_seq=store.base.delivered.seq,
            pending=len(self._pending),
            produced=count_names(store.counts),
            dropped=store.base.dropped,
        )

    # -- writing

    def append(self, kind: RecordType, payload: bytes) -> int:
        """Add a record in memory and return its sequence number; ``commit`` makes it durable.

        Raises:
            JournalError: the payload is too large for any journal.
            StorageError: too much is waiting for a disk that refuses.
        """
        if len(payload) > MAX_PAYLOAD:
            raise JournalError("record", expected=f"at most {MAX_PAYLOAD} bytes", found=str(len(payload)))
        if self._pending_bytes + len(payload) > MAX_PENDING_BYTES:
            raise full(
                "journal: records waiting for the disk",
                f"at most {MAX_PENDING_BYTES} bytes",
                "Call commit; if it fails, see why.",
            )
        return self._add(kind, payload)

    def commit(self) -> int:
        """Make all appended records durable, and return the last one's sequence number.

        After an error nothing that was acknowledged is lost, the records still wait, and a later commit
        writes them again.

        Raises:
            StorageError: the disk refuses, or the quota is used up and ``on_full`` is ``stop``.
        """
        if not self._pending:
            return self.durable_seq
        self._store.clean()
        self._store.make_room(self._waiting_bytes, self._declare)
        self._store.write(self._pending, self._parts)
        self._pending, self._parts, self._pending_bytes = [], [], 0
        return self.durable_seq

    def trim(self, envelope: bytes, trust: Trust) -> int:
        """Take the collector's word that it keeps our records, and remove the segments it covers.

        Returns:
            The first record still in the journal. An older watermark changes nothing, nor does one whose
            record cannot be read here any more (dropped or damaged): the next one will do.

        Raises:
            SignatureError: not signed by the role ``collector``.
            ChainError: signed, but not about these records; nothing is removed.
            StorageError: the disk refuses.
        """
        mark, store = read_watermark(envelope, trust), self._store
        head = self.head_before(mark.seq + 1) if mark.seq <= self.durable_seq else None
        check_watermark(mark, store.folder.identity, self.durable_seq, head)
        if head is not None and mark.seq > store.base.delivered.seq:
            ends = [segment.first - 1 for segment in store.segments[1:]]
            gone = [s for s, end in zip(store.segments, ends, strict=False) if end <= mark.seq]
            store.save(
                gone,
                delivered=Point(seq=mark.seq, head=mark.head),
                watermark=envelope.decode(),
                dropped=still_owed(store.base.dropped, mark.seq),
            )
            store.remove(gone)
        return self.usage.first_seq

    def close(self) -> None:
        """Note what was acknowledged and let go; records not committed are lost."""
        try:
            self._store.clean()
            if self._store.base.acknowledged != self._store.durable:
                self._store.save()
        finally:
            self._store.folder.disk.close()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- reading

    def frames(self, first_seq: int = 1) -> Iterator[Frame]:
        """Acknowledged records from ``first_seq`` on, as far as they are here and can be read.

        Sequence numbers jump where records were dropped or damaged. A damage that is met for the first
        time is declared with a GAP record (durable with the next commit). Do not trim while iterating.
        """
        for segment, item in self._store.groups(first_seq):
            if isinstance(item, Damage):
                self._found(segment, item)
            else:
                yield from (frame for frame in item.frames if frame.seq >= first_seq)

    def frame(self, seq: int) -> Frame | None:
        """One acknowledged record; ``None`` when it is not here or cannot be read."""
        return self._store.frame(seq)

    def last(self, kind: RecordType) -> Frame | None:
        """The newest acknowledged record of a type, even if its segment is gone (except WINDOW)."""
        return self._store.last(kind)

    def head_before(self, seq: int) -> bytes | None:
        """The head that record ``seq`` continues; ``None`` when it cannot be known here."""
        return self._store.head_before(seq)

    def verify(self, checkpoint: Watermark | None = None) -> Verified:
        """Check everything on disk; see ``verify_folder``."""
        return verify_folder(self._store.folder.disk, checkpoint, folder=self._store.folder.path)

    # -- inside

    def _add(self, kind: RecordType, payload: bytes) -> int:
        frame = make_frame(kind, self._seq + 1, payload, self._head)
        self._pending.append(frame)
        part = encode(frame)
        self._parts.append(part)
        self._pending_bytes += len(part)
        self._seq, self._head = frame.seq, frame.head
        return frame.seq

    def _waiting_bytes(self) -> int:
        return self._pending_bytes

    def _declare(self, note: GapNote) -> None:
        """Append a GAP record, once for each range."""
        if (note.first, note.last) not in self._declared:
            self._declared.add((note.first, note.last))
            self._add(RecordType.GAP, note.payload())

    def _found(self, segment: Segment, damage: Damage) -> None:
        """Declare a damage, unless a GAP record anywhere in the journal does."""
        note = damage_note(damage)
        if note is None or (note.first, note.last) in self._declared:
            return
        if not self._declared_all:
            self._declared_all = True
            for _, item in self._store.groups(1):
                frames = () if isinstance(item, Damage) else item.frames
                notes = (note_of(frame) for frame in frames if frame.type is RecordType.GAP)
                self._declared |= {(n.first, n.last) for n in notes if n is not None}
        if (note.first, note.last) not in self._declared:
            log.warning("journal: segment %s, record %d: %s", segment.first, damage.first, damage.why)
            self._declare(note)
