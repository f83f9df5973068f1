"""Delivering the journal to a folder that a collector empties: at least once, in bounded steps.

Batches ``<device>/batch-<journal_id>-<first>-<last>.ajb`` are written aside and renamed: a canonical JSON
line {format, device, journal_id, first, last, previous, gap?} and the frames behind it. Nothing is
trimmed because it was written here: only the collector's signed ``watermark.json`` ends a record's stay.
The folder is shared: whatever others put there (pipes, links, huge files, odd names) must cost nothing.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiotkit.bundle.trust import Trust
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.decision import Upload
from aiotkit.core.errors import AiotkitError, StorageError
from aiotkit.core.frames import Frame, encode, withhold
from aiotkit.core.records import RecordType
from aiotkit.edge.journal import Journal

log = logging.getLogger(__name__)
WATERMARK_FILE = "watermark.json"
MAX_WATERMARK = 1 << 16
MAX_RECORDS = 256
MAX_BYTES = 1 << 19
_RETRY_MOST_S = 30.0
#: what says nothing about measurements, and leaves even under ``upload: none``
_HARMLESS = (RecordType.INTENT, RecordType.RESULT, RecordType.GAP, RecordType.SECURITY)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: how long records wait for more, until vanished batches are sent again, between attempts."""

    batch_s: float = 1.0
    resend_s: float = 30.0
    retry_s: float = 0.25


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames that follow one another, the head before them, and what is missing right before."""

    frames: Sequence[Frame]
    previous: bytes
    gap: tuple[int, int] | None = None

    def encode(self, device: str, journal_id: str) -> bytes:
        """The bytes of a batch file."""
        head = {
            "format": 1,
            "device": device,
            "journal_id": journal_id,
            "first": self.frames[0].seq,
            "last": self.frames[-1].seq,
            "previous": self.previous.hex(),
        }
        if self.gap is not None:
            head["gap"] = {"first": self.gap[0], "last": self.gap[1]}
        return canonical_bytes(head) + b"\n" + b"".join(map(encode, self.frames))


def withheld(frames: Sequence[Frame], upload: Upload) -> list[Frame]:
    """What leaves of these frames; a payload that may not leave is withheld, its digest stays.

    ``none``: only commands, results, gaps and security events keep their payload. Otherwise a window
    leaves with ``raw``, or when the draw in the decision that follows it came out.
    """
    if upload == "raw":
        return list(frames)
    if upload == "none":
        return [frame if frame.type in _HARMLESS else withhold(frame) for frame in frames]
    following: list[Frame | None] = [*frames[1:], None]
    return [
        withhold(frame) if frame.type is RecordType.WINDOW and not _drawn(frame, after) else frame
        for frame, after in zip(frames, following, strict=True)
    ]


def _drawn(window: Frame, decision: Frame | None) -> bool:
    if decision is None or decision.type is not RecordType.DECISION or decision.payload is None:
        return False
    record = json.loads(decision.payload)
    p, u = record["out"]["upload"]
    return bool(u < p) and record["in"]["window"] == f"sha256:{window.digest.hex()}"


def next_batch(frames: Iterable[Frame], after: int, previous: bytes | None, *, whole: bool) -> Batch | None:
    """The next batch out of a journal's frames.

    Args:
        frames: records behind ``after``, rising; numbers jump where records were dropped.
        after: the last record that was sent.
        previous: the head before the first of the frames; None when nobody knows it any more.
        whole: send a window at the end even if its decision is not there yet.
    """
    taken: list[Frame] = []
    anew: int | None = None
    size = 0
    for frame in frames:
        full = len(taken) >= MAX_RECORDS or size >= MAX_BYTES
        if taken and (full or frame.seq != taken[-1].seq + 1):
            break
        if not taken and (previous is None or (anew is not None and frame.seq != anew)):
            previous, anew = frame.head, frame.seq + 1  # given up: it only tells where the chain goes on
            continue
        taken.append(frame)
        size += len(frame.payload or b"")
    if not whole and taken and taken[-1].type is RecordType.WINDOW:
        taken.pop()
    if not taken or previous is None:
        return None
    first = taken[0].seq
    return Batch(taken, previous, (after + 1, first - 1) if first > after + 1 else None)


class FolderUplink:
    """One device's deliveries.

    Args:
        folder: the shared folder; it must exist, the device's own is made below it.
        journal: what is delivered.
        trust: whose watermarks count (role ``collector``).
        upload: what may leave.
        pace: see ``Pace``.
    """

    def __init__(
        self, folder: Path, journal: Journal, trust: Trust, upload: Upload, pace: Pace | None = None
    ) -> None:
        self.folder = folder / journal.device
        self._journal, self._trust, self._pace = journal, trust, pace or Pace()
        self.upload = upload
        self.sent_seq = journal.delivered.seq
        self.last_error = ""
        self._sent_s = self._progress_s = time.monotonic()
        self._retry_s, self._blocked_until_s = self._pace.retry_s, 0.0
        self._mark: tuple[int, int] | None = None

    @property
    def delivered_seq(self) -> int:
        """The last record the collector says it keeps."""
        return self._journal.delivered.seq

    def step(self, *, flush: bool = False) -> bool:
        """Do a bounded piece of work; True when a batch was written. Never raises for the folder."""
        now_s = time.monotonic()
        if now_s < self._blocked_until_s:
            return False
        try:
            self._look_for_watermark(now_s)
            sent = self._send(now_s, flush=flush)
        except OSError as error:
            self._fail(f"uplink folder: {error.strerror or error}", now_s)
            return False
        except AiotkitError as error:
            self._fail(str(error), now_s)
            return False
        if sent or not self._waiting(now_s, flush=True):
            self.last_error, self._retry_s = "", self._pace.retry_s
        return sent

    def hurry(self) -> None:
        """Try a folder that failed again at once, and soon again: there is little time left."""
        self._blocked_until_s, self._retry_s = 0.0, self._pace.retry_s

    def _waiting(self, now_s: float, *, flush: bool) -> bool:
        due = self._journal.durable_seq - self.sent_seq
        return due >= MAX_RECORDS or (due > 0 and (flush or now_s - self._sent_s >= self._pace.batch_s))

    def _send(self, now_s: float, *, flush: bool) -> bool:
        if not self._waiting(now_s, flush=flush):
            return False
        frames = self._journal.frames(self.sent_seq + 1)
        head = self._previous_head()
        batch = next_batch(frames, self.sent_seq, head, whole=flush)
        if batch is None:
            return False
        leaving = Batch(withheld(batch.frames, self.upload), batch.previous, batch.gap)
        self._write(leaving)
        self.sent_seq, self._sent_s = batch.frames[-1].seq, now_s
        return True

    def _previous_head(self) -> bytes | None:
        first = next(self._journal.frames(self.sent_seq + 1), None)
        return None if first is None else self._journal.head_before(first.seq)

    def _write(self, batch: Batch) -> None:
        self.folder.mkdir(exist_ok=True)
        journal_id = self._journal.journal_id
        name = f"batch-{journal_id}-{batch.frames[0].seq:012d}-{batch.frames[-1].seq:012d}.ajb"
        aside = self.folder / f".{name}.new"
        _write_new(aside, batch.encode(self._journal.device, journal_id))
        aside.replace(self.folder / name)

    def _look_for_watermark(self, now_s: float) -> None:
        """Trim on a new watermark; send again what left the folder without one, after a while."""
        path = self.folder / WATERMARK_FILE
        try:
            found = path.lstat()
        except FileNotFoundError:
            found = None
        mark = None if found is None else (found.st_mtime_ns, found.st_ino)
        before = self.delivered_seq
        if mark is not None and mark != self._mark:
            self._mark = mark  # a refused one is not tried again until it changes
            self._journal.trim(_read_regular(path, MAX_WATERMARK), self._trust)
        self.sent_seq = max(self.sent_seq, self.delivered_seq)
        if self.delivered_seq > before or self.sent_seq == self.delivered_seq:
            self._progress_s = now_s
        elif now_s - self._progress_s >= self._pace.resend_s:
            self._progress_s = now_s
            if not self._lies_there(self.delivered_seq + 1):
                log.warning(
                    "uplink: record %d vanished without a watermark; sending again", self.delivered_seq + 1
                )
                self.sent_seq = self.delivered_seq

    def _lies_there(self, seq: int) -> bool:
        """Whether a batch that holds a record waits in the folder; one put aside or lost does not."""
        form = re.compile(rf"batch-{self._journal.journal_id}-([0-9]{{12,18}})-([0-9]{{12,18}})\.ajb")
        named = (form.fullmatch(path.name) for path in self.folder.glob("batch-*.ajb"))
        return any(int(batch[1]) <= seq <= int(batch[2]) for batch in named if batch)

    def _fail(self, words: str, now_s: float) -> None:
        if words != self.last_error:
            log.warning("%s", words)
        self.last_error = words
        self._blocked_until_s = now_s + self._retry_s
        self._retry_s = min(2 * self._retry_s, _RETRY_MOST_S)


def _read_regular(path: Path, most: int) -> bytes:
    """A small file's bytes; a pipe, link, device, folder or huge file is refused and never waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        regular = stat.S_ISREG(found.st_mode)
        data = os.read(handle, most + 1) if regular else b""
    finally:
        os.close(handle)
    if not regular or len(data) > most:
        raise StorageError(
            f"uplink: {path.name}",
            expected=f"a regular file of at most {most} bytes",
            found=f"{found.st_size} bytes" if regular else stat.filemode(found.st_mode),
            do="Nothing was trimmed. See who writes to the uplink folder.",
        )
    return data


def _write_new(path: Path, data: bytes) -> None:
    """Write a file that nothing stood in the way of: what lies there under its name is removed first."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
        file.write(data)
