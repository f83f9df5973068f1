"""What a device does with its journal's folder when it starts: after a power cut, damage, or a full disk.

Three endings are told apart. A group that is damaged at the very end, beyond everything known to have
been acknowledged, is a torn write: it is cut off. Damage before that is a loss: it is declared as a gap
and the journal goes on behind it. Segments that were being removed when the power went are removed.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from aiotkit.core.errors import StorageError
from aiotkit.core.frames import Frame
from aiotkit.core.records import RecordType
from aiotkit.edge.disk import ASIDE
from aiotkit.edge.journal_base import GapNote, Point
from aiotkit.edge.journal_files import Folder, Segment, put_segment, walk
from aiotkit.edge.segments import Damage, Group, count_types, segment_name

log = logging.getLogger(__name__)


@dataclass
class Recovered:
    """Where the journal stands and what it has to declare before it goes on."""

    seq: int
    head: bytes
    counts: Counter[RecordType] = field(default_factory=Counter)
    last: dict[RecordType, int] = field(default_factory=dict)
    tail: dict[RecordType, Frame] = field(default_factory=dict)
    gaps: list[GapNote] = field(default_factory=list)
    declared: set[tuple[int, int]] = field(default_factory=set)
    fresh_segment: bool = False


def recover(folder: Folder) -> Recovered:
    """Bring a folder into a state that can be appended to; the caller holds the lock."""
    _remove_leftovers(folder)
    _finish_removals(folder)
    if not folder.segments:
        return _without_segments(folder)
    state = Recovered(0, folder.identity.genesis)
    damages, partial = _read_end(folder, state)
    torn = damages.pop() if damages and damages[-1].last is None else None
    folder.findings += [f"record {damage.first}: {damage.why}" for damage in damages]
    _leading_gap(folder, state)
    for damage in damages:
        note = damage_note(damage)
        if note is not None and (note.first, note.last) not in state.declared:
            state.gaps.append(note)
    _end(folder, state, torn, partial)
    return state


def damage_note(damage: Damage) -> GapNote | None:
    """The gap that a damage leaves; ``None`` when every record can still be read."""
    if damage.last is None or damage.last < damage.first:
        return None
    return GapNote(first=damage.first, last=damage.last, counts=None, reason=f"damaged: {damage.why}")


def note_of(frame: Frame) -> GapNote | None:
    """What a GAP record says; ``None`` when its payload is gone or of another form."""
    try:
        return None if frame.payload is None else GapNote.model_validate_json(frame.payload)
    except ValueError:
        return None


def _remove_leftovers(folder: Folder) -> None:
    """Files aside that were never renamed."""
    for name in folder.disk.list(folder.path):
        if name.endswith(ASIDE):
            folder.disk.unlink(folder.at(name))


def _finish_removals(folder: Folder) -> None:
    """Remove segments that are delivered or declared as dropped: their removal was cut short."""
    if folder.base is None:
        return
    done = max(folder.base.delivered.seq, folder.base.dropped.last if folder.base.dropped else 0)
    ends = [segment.first - 1 for segment in folder.segments[1:]]
    gone = [segment for segment, end in zip(folder.segments, ends, strict=False) if end <= done]
    for segment in gone:
        folder.disk.unlink(folder.at(segment_name(segment.first)))
    if gone:
        folder.disk.sync_folder(folder.path)
        folder.segments = folder.segments[len(gone) :]


def _without_segments(folder: Folder) -> Recovered:
    assert folder.base is not None  # look() found the journal's owner somewhere
    base = folder.base
    state = Recovered(base.bound.seq, bytes.fromhex(base.bound.head), fresh_segment=True)
    state.last = {RecordType[name]: kept.seq for name, kept in base.kept.items()}
    if base.bound.seq >= base.first_due:
        why = "all segments are missing"
        state.gaps = [GapNote(first=base.first_due, last=base.bound.seq, counts=None, reason=why)]
        folder.findings.append(f"records {base.first_due} to {base.bound.seq}: {why}")
    return state


def _read_end(folder: Folder, state: Recovered) -> tuple[list[Damage], Group | None]:
    """Read from the last segment with a good header to the end; the state ends before a torn group.

    Returns:
        The damages, and the readable part of the last group when that group is damaged.
    """
    begin = max((i for i, s in enumerate(folder.segments) if s.header is not None), default=0)
    first = folder.segments[begin]
    state.seq, state.head = first.first - 1, folder.identity.genesis
    if first.header is not None:
        state.head = bytes.fromhex(first.header.previous)
        state.counts.update(count_types(first.header.counts, "header"))
        state.last.update(count_types(first.header.last, "header"))
    damages: list[Damage] = []
    held: tuple[Segment, Group] | None = None
    for segment, item in walk(folder, folder.segments[begin:]):
        if held is not None and not (isinstance(item, Damage) and item.last is None):
            _take(state, *held)
            held = None
        if isinstance(item, Group):
            held = segment, item
        else:
            damages.append(item)
            state.seq = max(state.seq, item.last or 0)
    if held is None:
        return damages, None
    if damages and damages[-1].last is None and damages[-1].at == held[1].at:
        return damages, held[1]
    _take(state, *held)
    return damages, None


def _take(state: Recovered, segment: Segment, group: Group) -> None:
    segment.note(group.frames[0].seq, group.at)
    for frame in group.frames:
        state.counts[frame.type] += 1
        state.last[frame.type] = frame.seq
        state.tail[frame.type] = frame
        if frame.type is RecordType.GAP and (note := note_of(frame)) is not None:
            state.declared.add((note.first, note.last))
    state.seq, state.head = group.frames[-1].seq, group.frames[-1].head


def _leading_gap(folder: Folder, state: Recovered) -> None:
    """Declare what is missing before the oldest segment, unless that was done."""
    base, oldest = folder.base, folder.segments[0]
    due = base.first_due if base else 1
    if oldest.first <= due:
        return
    dropped = base.dropped if base else None
    if dropped is not None and dropped.last == oldest.first - 1:
        note = dropped
    else:
        counts = oldest.header.counts if oldest.header is not None and due == 1 else None
        note = GapNote(first=due, last=oldest.first - 1, counts=counts, reason="missing at the start")
        folder.findings.append(f"records {note.first} to {note.last}: {note.reason}")
    newest = _newest_gap(folder, state)
    if (note.first, note.last) not in state.declared and (newest is None or newest.last < note.last):
        state.gaps.append(note)


def _newest_gap(folder: Folder, state: Recovered) -> GapNote | None:
    """The last GAP record, where it can be found."""
    seq = state.last.get(RecordType.GAP, 0)
    if RecordType.GAP in state.tail:
        return note_of(state.tail[RecordType.GAP])
    for segment in reversed(folder.segments):
        if 0 < segment.first <= seq:
            for _, item in walk(folder, [segment], seq=seq):
                frames = item.frames if isinstance(item, Group) else ()
                if found := [frame for frame in frames if frame.seq == seq]:
                    return note_of(found[0])
            break
    kept = folder.base.kept.get(RecordType.GAP.name) if folder.base else None
    return note_of(kept.frame(RecordType.GAP)) if kept else None


def _end(folder: Folder, state: Recovered, torn: Damage | None, partial: Group | None) -> None:
    """Cut off a torn group, or declare an acknowledged one as lost and go on behind it."""
    active = folder.segments[-1]
    state.fresh_segment = active.header is None
    bound = folder.base.bound if folder.base else Point(seq=0, head=folder.identity.genesis.hex())
    if torn is not None and bound.seq < torn.first and torn.at >= active.start > 0:
        folder.findings.append(
            f"record {torn.first}: a torn write of {active.size - torn.at} bytes was cut off"
        )
        active.size = torn.at
    elif partial is not None:
        _take(state, active, partial)
    if bound.seq > state.seq:
        why = f"damaged: {torn.why}" if torn is not None else "the journal ends too early"
        state.gaps.append(GapNote(first=state.seq + 1, last=bound.seq, counts=None, reason=why))
        folder.findings.append(f"records {state.seq + 1} to {bound.seq}: {why}")
        state.seq, state.head, state.fresh_segment = bound.seq, bytes.fromhex(bound.head), True
    if torn is not None or state.seq > bound.seq:
        _write_anew(folder, active)
    folder.disk.sync_folder(folder.path)


def _write_anew(folder: Folder, active: Segment) -> None:
    """Make what was read durable before it counts.

    The last process may have died between write and sync, or after a sync that failed: then the bytes
    are in memory and look synced, but are not on disk, and syncing them again would do nothing.
    """
    path = folder.at(segment_name(active.first))
    try:
        put_segment(folder, active, folder.read(active))
    except StorageError as error:
        log.warning("segment %s stays where it is: %s", segment_name(active.first), error)
        folder.disk.truncate(path, active.size)
        folder.disk.sync(path)
