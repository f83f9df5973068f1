"""Checking a whole journal without changing it: is every record here, in order, and as it was written?

The chain alone shows any change of what lies inside it. It cannot show that its end was cut off, or that
everything was written anew: that takes a checkpoint, a watermark signed by the collector.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from aiotkit.bundle.trust import Trust
from aiotkit.core.errors import AiotkitError, ChainError, JournalError
from aiotkit.core.frames import Frame
from aiotkit.core.records import RecordType
from aiotkit.edge.disk import Disk
from aiotkit.edge.journal_base import GapNote, Point
from aiotkit.edge.journal_files import Folder, Segment, look, walk
from aiotkit.edge.journal_recovery import note_of
from aiotkit.edge.segments import Damage, count_names
from aiotkit.edge.watermark import Watermark, read_watermark


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong from record ``seq`` on (0 = with no single record)."""

    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check found. ``gaps`` are the notes of GAP records: losses that the journal declares."""

    device: str
    journal_id: str
    first_seq: int
    last_seq: int
    head: str
    records: int
    counts: dict[str, int]
    withheld: int
    segments: int
    gaps: tuple[GapNote, ...]
    checkpoint_seq: int | None
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; records dropped by the quota and declared are not wrong."""
        return not self.problems

    @property
    def first_bad(self) -> int | None:
        """The first record that something is wrong with; ``None`` when all are well."""
        return min((problem.seq for problem in self.problems), default=None)

    def raise_if_bad(self) -> None:
        """Raise ``ChainError`` naming the first bad record, unless ``ok``."""
        if self.ok:
            return
        worst = min(self.problems, key=lambda problem: problem.seq)
        what = f"journal {self.device}/{self.journal_id}, record {worst.seq}"
        raise ChainError(what, found=worst.why, do=f"{len(self.problems)} problems in all.")


@dataclass
class _Tally:
    """What a walk has seen so far."""

    seq: int
    head: str
    counts: Counter[RecordType] = field(default_factory=Counter)
    last: dict[str, int] = field(default_factory=dict)
    records: int = 0
    withheld: int = 0
    gaps: list[GapNote] = field(default_factory=list)
    heads: dict[int, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def bad(self, seq: int, why: str) -> None:
        self.problems.append(Problem(seq, why))

    def take(self, frame: Frame) -> None:
        self.seq, self.head = frame.seq, frame.head.hex()
        self.records += 1
        self.withheld += frame.withheld
        self.counts[frame.type] += 1
        self.last[frame.type.name] = frame.seq
        if frame.type is RecordType.GAP and (note := note_of(frame)) is not None:
            self.gaps.append(note)


def verify_folder(
    disk: Disk,
    checkpoint: Watermark | None = None,
    *,
    trust: Trust | None = None,
    folder: str = "journal",
) -> Verified:
    """Check a journal's folder; takes no lock and writes nothing.

    Args:
        disk: where the folder is.
        checkpoint: a watermark that was verified elsewhere (``read_watermark``).
        trust: verify the watermark that the device itself has kept, and use it as a checkpoint too.
        folder: the journal's folder.

    Raises:
        JournalError: there is no journal, or nothing says whose it is.
    """
    found = look(disk, folder)
    if found is None:
        raise JournalError(
            f"no journal in {folder!r}", expected="segments or a base file", do="Give the state folder."
        )
    points, problems = _points(found, checkpoint, trust)
    tally = _walk(found, {point.seq for point, _ in points})
    tally.problems += problems
    if found.base is None:
        tally.bad(0, next((f for f in found.findings if "base" in f), "the base file is missing"))
    _check_start(found, tally)
    for point, whose in points:
        _check_point(tally, point, whose)
    return Verified(
        device=found.identity.device,
        journal_id=found.identity.journal_id,
        first_seq=found.segments[0].first if found.segments else tally.seq + 1,
        last_seq=tally.seq,
        head=tally.head,
        records=tally.records,
        counts=count_names(tally.counts),
        withheld=tally.withheld,
        segments=len(found.segments),
        gaps=tuple(tally.gaps),
        checkpoint_seq=max((p.seq for p, whose in points if whose == _COLLECTOR), default=None),
        problems=tuple(sorted(set(tally.problems), key=lambda p: (p.seq, p.why))),
    )


_COLLECTOR = "the collector's checkpoint"
_OWN = "the device's own note of what was acknowledged"
_DELIVERED = "the device's note of what was delivered"


def _points(
    folder: Folder, checkpoint: Watermark | None, trust: Trust | None
) -> tuple[list[tuple[Point, str]], list[Problem]]:
    """Records whose heads are known from elsewhere, and what is wrong with what says so."""
    points: list[tuple[Point, str]] = []
    problems: list[Problem] = []
    marks = [checkpoint] if checkpoint is not None else []
    base = folder.base
    if base is not None:
        points += [(base.acknowledged, _OWN), (base.delivered, _DELIVERED)]
        if trust is not None and (base.watermark is not None or base.delivered.seq):
            try:
                kept = read_watermark((base.watermark or "").encode(), trust)
                if (kept.seq, kept.head) != (base.delivered.seq, base.delivered.head):
                    problems.append(Problem(base.delivered.seq, "the kept watermark says otherwise"))
                marks.append(kept)
            except AiotkitError as error:
                problems.append(Problem(base.delivered.seq, f"the kept watermark: {error}"))
    for mark in marks:
        if (mark.device, mark.journal_id) != (folder.identity.device, folder.identity.journal_id):
            why = f"the checkpoint is for {mark.device}/{mark.journal_id}, not for this journal"
            problems.append(Problem(1, why))
        else:
            points.append((Point(seq=mark.seq, head=mark.head), _COLLECTOR))
    return points, problems


def _walk(folder: Folder, wanted: set[int]) -> _Tally:
    """Read everything; keep the heads of the wanted records."""
    genesis = folder.identity.genesis.hex()
    tally = _Tally(0, genesis, heads={0: genesis})
    known: Counter[str] | None = None
    here: Segment | None = None
    for segment in folder.segments:
        if segment.header is not None:
            tally.heads.setdefault(segment.first - 1, segment.header.previous)
            if segment is folder.segments[0]:
                tally.seq, tally.head = segment.first - 1, segment.header.previous
                known = Counter(segment.header.counts)
    for segment, item in walk(folder, folder.segments):
        if segment is not here:
            here = segment
            _check_totals(segment, tally, known)
        if isinstance(item, Damage):
            tally.bad(item.first, item.why)
            tally.seq = max(tally.seq, item.last or 0)
            continue
        for frame in item.frames:
            tally.take(frame)
            if frame.seq in wanted:
                tally.heads[frame.seq] = frame.head.hex()
    return tally


def _check_totals(segment: Segment, tally: _Tally, known: Counter[str] | None) -> None:
    """A header's running totals are what was read before it; unknown once anything was damaged."""
    if segment.header is None or known is None or tally.problems or segment.first != tally.seq + 1:
        return
    expected = known + Counter(count_names(tally.counts))
    if Counter(segment.header.counts) != expected or not tally.last.items() <= segment.header.last.items():
        tally.bad(segment.first, "its segment's totals differ from the records before it")


def _check_start(folder: Folder, tally: _Tally) -> None:
    """What is missing before the oldest segment must be delivered or declared."""
    due = folder.base.first_due if folder.base else 1
    first = folder.segments[0].first if folder.segments else tally.seq + 1
    if first <= due:
        return
    notes = [n for n in tally.gaps if n.reason == "quota"]
    if folder.base is not None and folder.base.dropped is not None:
        notes.append(folder.base.dropped)
    if not any(note.first <= due and note.last >= first - 1 for note in notes):
        tally.bad(due, f"records {due} to {first - 1} are missing at the start")


def _check_point(tally: _Tally, point: Point, whose: str) -> None:
    """The record is here with that head, or it was before the first one here."""
    if point.seq > tally.seq:
        tally.bad(tally.seq + 1, f"the journal ends at record {tally.seq}; {whose} is at {point.seq}")
        return
    found = tally.heads.get(point.seq)
    if found is not None and found != point.head:
        tally.bad(
            point.seq,
            f"its head {found[:12]}… is not {point.head[:12]}… as in {whose}: "
            "this record or an earlier one was rewritten",
        )
