"""The collector: device folders in, the lake out, each record exactly once.

A round reads batches of all devices up to a byte budget, and ends in one commit: rows and the watermarks
of their streams together (Delta application transactions). Only then are the devices told (signed
``watermark.json``) and the batches removed. Killed anywhere, the next round repeats what was not
committed and skips what was.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc

from aiotkit.bundle.keys import SigningKey
from aiotkit.bundle.sign import WATERMARK_TYPE, sign
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import AiotkitError, ChainError, DataError, LakeError
from aiotkit.fleet.batch import MAX_HEADER, Mark, Stream, Taken, follows, origin, parse_batch, take
from aiotkit.fleet.inbox import BatchFile, Inbox
from aiotkit.fleet.issued import journal_of
from aiotkit.fleet.rows import Rows, watermark_document
from aiotkit.lake.blobs import Blobs
from aiotkit.lake.lake import Lake
from aiotkit.lake.recovery import mend

ROUND_BYTES = 32 << 20
MAX_BATCH_BYTES = 256 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stream that cannot go on: record ``needed`` has not come, ``found`` is the next that has."""

    device: str
    journal_id: str
    needed: int
    found: int


@dataclass(frozen=True, slots=True)
class Collected:
    """What was done: new ``records`` from ``batches``; ``duplicates`` were collected before.

    ``dropped`` records were lost on their device (it said so). ``quarantined`` are (file, reason).
    ``unreadable`` decision records have a sound chain but no known content; they are kept as they are.
    """

    records: int = 0
    batches: int = 0
    size: int = 0
    duplicates: int = 0
    dropped: int = 0
    unreadable: int = 0
    commits: int = 0
    quarantined: tuple[tuple[str, str], ...] = ()
    waiting: tuple[Waiting, ...] = ()

    def __add__(self, later: Collected) -> Collected:
        """Both together; what waits is what waits after the later."""
        return Collected(
            self.records + later.records,
            self.batches + later.batches,
            self.size + later.size,
            self.duplicates + later.duplicates,
            self.dropped + later.dropped,
            self.unreadable + later.unreadable,
            self.commits + later.commits,
            self.quarantined + later.quarantined,
            later.waiting,
        )


@dataclass(slots=True)
class _Round:
    """The state of one round."""

    budget: int
    marks: dict[Stream, Mark]
    queues: dict[Stream, list[BatchFile]]
    rows: Rows = field(default_factory=Rows)
    handled: list[BatchFile] = field(default_factory=list)
    moved: set[Stream] = field(default_factory=set)
    size: int = 0
    duplicates: int = 0
    dropped: int = 0
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    waiting: dict[Stream, Waiting] = field(default_factory=dict)


class Collector:
    """Collects one inbox into a lake, and signs watermarks with a key of role ``collector``.

    Several collectors may share a lake when no device delivers to more than one of their inboxes.

    Args:
        lake: where records go.
        inbox: the folder with one folder a device.
        key: signs watermarks; devices trust it with role ``collector``.
        round_bytes: how much a round reads; memory grows with it.
        on_round: called after each round that did something.
    """

    def __init__(
        self,
        lake: Lake,
        inbox: Path | str,
        key: SigningKey,
        *,
        round_bytes: int = ROUND_BYTES,
        on_round: Callable[[Collected], None] | None = None,
    ) -> None:
        self._lake, self._blobs = lake, Blobs(lake)
        self._inbox = Inbox(Path(inbox))
        self._key = key
        self._round_bytes = round_bytes
        self._on_round = on_round or (lambda _: None)
        self._heads: dict[Stream, Mark] = {}
        self._started = False

    def collect_once(self) -> Collected:
        """Take everything that lies in the inbox now, in as many rounds as it needs.

        Raises:
            StorageError: another collector works on the inbox, or a disk refused.
            LakeError: the lake refused a commit; nothing was lost, call again.
        """
        with self._inbox.locked():
            self._start()
            return self._collect()

    def run(self, stop: threading.Event, every_s: float = 1.0) -> Collected:
        """Collect until ``stop`` is set; a round under way is finished first. Returns the sum."""
        total = Collected()
        with self._inbox.locked():
            self._start()
            while not stop.is_set():
                total += self._collect(stop)
                stop.wait(every_s)
        return total

    def _collect(self, stop: threading.Event | None = None) -> Collected:
        total = Collected()
        while True:
            done = self._round()
            total += done
            if done.batches or done.quarantined:
                self._on_round(done)
            if not (done.batches or done.quarantined) or (stop is not None and stop.is_set()):
                return total

    def _start(self) -> None:
        """After a crash or power cut: drop torn commits, and tell devices again what the table says."""
        if self._started:
            return
        for torn in mend(self._lake):
            _log.warning("dropped a commit that a power cut tore: %s", torn)
        for table in ("blobs", "decisions"):
            self._lake.sync(table)
        for device in self._inbox.devices():
            stream = self._last_stream(device)
            if stream is not None:
                self._tell(stream, self._marks([stream])[stream])
        self._started = True

    def _last_stream(self, device: str) -> Stream | None:
        """The stream the device was told about last, else the one of its latest decision in the lake."""
        journal_id = journal_of(self._inbox.watermark(device))
        if journal_id is None:
            rows = self._lake.read("decisions", columns=["journal_id", "at"], where=[("device", "=", device)])
            latest = rows.group_by("journal_id").aggregate([("at", "max")])
            ordered = latest.sort_by([("at_max", "descending")])["journal_id"].to_pylist()
            journal_id = ordered[0] if ordered else None
        return None if journal_id is None else Stream(device, journal_id)

    def _round(self) -> Collected:
        queues: dict[Stream, list[BatchFile]] = {}
        strays: list[Path] = []
        for device in self._inbox.devices():
            batches, bad = self._inbox.batches(device)
            strays += bad
            for batch in batches:
                queues.setdefault(batch.stream, []).append(batch)
        work = _Round(self._round_bytes, self._marks(queues), queues)
        for path in strays:
            self._put_aside(
                work, path, DataError("file name", expected="batch-<journal_id>-<first>-<last>.ajb")
            )
        while sum(self._step(work, stream) for stream in sorted(queues)):
            pass  # one batch a stream in turn, so that no device starves the others
        commits = self._commit(work)
        for stream in _newest(work.handled):
            self._tell(stream, work.marks[stream])
        for batch in work.handled:
            self._inbox.remove(batch.path)
        return Collected(
            records=len(work.rows) - work.rows.gaps,
            batches=len(work.handled),
            size=work.size,
            duplicates=work.duplicates,
            dropped=work.dropped,
            unreadable=work.rows.unreadable,
            commits=commits,
            quarantined=tuple(work.quarantined),
            waiting=tuple(work.waiting[s] for s in sorted(work.waiting)),
        )

    def _step(self, work: _Round, stream: Stream) -> bool:
        """Handle the next batch of a stream; ``False`` when it has none that can be taken in this round."""
        queue = work.queues[stream]
        if not queue or work.budget <= 0 or stream in work.waiting:
            return False
        batch, mark = queue[0], work.marks[stream]
        if batch.size > MAX_BATCH_BYTES:
            queue.pop(0)
            error = DataError("batch", expected=f"at most {MAX_BATCH_BYTES} bytes", found=str(batch.size))
            self._put_aside(work, batch.path, error)
            return True
        if batch.name.last < mark.seq:
            queue.pop(0)
            work.duplicates += batch.name.last - batch.name.first + 1
            work.handled.append(batch)
            return True
        try:
            taken = self._take(batch, mark)
        except (DataError, ChainError) as error:
            queue.pop(0)
            self._put_aside(work, batch.path, error)
            return True
        if taken is None:
            work.waiting[stream] = Waiting(*_ids(stream), mark.seq + 1, batch.name.first)
            return False
        queue.pop(0)
        self._enter(work, batch, taken)
        return True

    def _take(self, batch: BatchFile, mark: Mark) -> Taken | None:
        """The new records of a batch, ``None`` when earlier ones must come first."""
        if batch.name.first > mark.seq + 1:
            start = self._inbox.read(batch.path, MAX_HEADER)
            header, _ = parse_batch(start, batch.device, batch.name)
            if not follows(header, mark) or self._late(batch, mark):
                return None
        header, body = parse_batch(self._inbox.read(batch.path), batch.device, batch.name)
        return take(header, body, mark)

    def _late(self, batch: BatchFile, mark: Mark) -> bool:
        """Whether what the device dropped has come all the same, while the inbox was being listed."""
        again, _ = self._inbox.batches(batch.device)
        return any(b.stream == batch.stream and b.name.first <= mark.seq + 1 <= b.name.last for b in again)

    def _enter(self, work: _Round, batch: BatchFile, taken: Taken) -> None:
        stream = batch.stream
        work.rows.add(stream, taken)
        work.budget -= batch.size
        work.size += batch.size
        work.duplicates += taken.repeated
        work.handled.append(batch)
        if taken.dropped is not None:
            work.dropped += taken.dropped.last - taken.dropped.first + 1
        if taken.frames:
            work.marks[stream] = Mark(taken.frames[-1].seq, taken.frames[-1].head)
            work.moved.add(stream)

    def _put_aside(self, work: _Round, path: Path, error: AiotkitError) -> None:
        self._inbox.quarantine(path, str(error))
        work.quarantined.append((f"{path.parent.name}/{path.name}", str(error)))

    def _commit(self, work: _Round) -> int:
        """Blobs first, then rows and watermarks in one commit. Returns the number of commits."""
        if not work.moved:
            return 0
        marks = {s.app_id: work.marks[s].seq for s in work.moved}
        commits = self._put_blobs(work, marks)
        self._lake.append("decisions", work.rows.table(), transactions=marks)
        self._heads |= {s: work.marks[s] for s in work.moved}
        return commits + 1

    def _put_blobs(self, work: _Round, marks: Mapping[str, int]) -> int:
        """Keep the round's blobs, but those a killed collector kept already."""
        blobs = work.rows.blobs
        if not blobs:
            return 0
        kept = self._lake.watermarks(list(marks), table="blobs")
        doubtful = {
            name
            for stream, places in work.rows.blob_places.items()
            for seq, name in places
            if seq <= kept.get(stream.app_id, 0)
        }
        there = self._blobs.find(doubtful)
        ahead = {app_id: seq for app_id, seq in marks.items() if seq > kept.get(app_id, 0)}
        self._blobs.put({n: b for n, b in blobs.items() if n not in there}, transactions=ahead)
        return 1

    def _marks(self, streams: Iterable[Stream]) -> dict[Stream, Mark]:
        """How far each stream is collected, from the table; heads are remembered."""
        wanted = list(streams)
        held = self._lake.watermarks([s.app_id for s in wanted])
        return {s: self._mark(s, held[s.app_id]) if s.app_id in held else origin(s) for s in wanted}

    def _mark(self, stream: Stream, seq: int) -> Mark:
        known = self._heads.get(stream)
        if known is not None and known.seq == seq:
            return known
        where = (
            (pc.field("device") == stream.device)
            & (pc.field("journal_id") == stream.journal_id)
            & (pc.field("seq") == seq)
        )
        heads = self._lake.read("decisions", columns=["head"], where=where)["head"].to_pylist()
        if len(heads) != 1:
            raise LakeError(
                f"table 'decisions': record {stream.app_id}/{seq}, which the watermark names",
                expected="one row",
                found=str(len(heads)),
                do="Rows were lost or doubled by another program; restore the table.",
            )
        self._heads[stream] = Mark(seq, bytes.fromhex(heads[0]))
        return self._heads[stream]

    def _tell(self, stream: Stream, mark: Mark) -> None:
        if mark.seq:
            document = watermark_document(stream, mark.seq, mark.head)
            envelope = sign(WATERMARK_TYPE, canonical_bytes(document), [self._key])
            self._inbox.write_watermark(stream.device, envelope.to_bytes())


def _newest(handled: Iterable[BatchFile]) -> list[Stream]:
    """For each device the stream of the batch it wrote last: what its watermark file must speak of."""
    newest: dict[str, BatchFile] = {}
    for batch in handled:
        other = newest.get(batch.device)
        if other is None or (batch.written_ns, batch.name) > (other.written_ns, other.name):
            newest[batch.device] = batch
    return [newest[device].stream for device in sorted(newest)]


def _ids(stream: Stream) -> tuple[str, str]:
    return stream.device, stream.journal_id
