"""Keeping a journal within its quota: what is given up first, and how it is declared."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress

from aiotkit.core.errors import StorageError
from aiotkit.core.frames import Frame, withhold
from aiotkit.core.records import RecordType
from aiotkit.edge.disk import ASIDE
from aiotkit.edge.journal_base import Base, GapNote
from aiotkit.edge.journal_files import Folder, Segment, put_segment, walk
from aiotkit.edge.segments import Damage, Group, count_names, count_types, regroup, seal, segment_name

log = logging.getLogger(__name__)


def erase_windows(folder: Folder, segment: Segment) -> bool:
    """Take the window payloads out of a sealed segment; their frames stay and the chain holds.

    Returns whether anything was gained. A damaged segment is left as it is: it is evidence. So is one
    that the disk has no room to rewrite.
    """
    if segment.header is None or segment.header.erased:
        return False
    items = [item for _, item in walk(folder, [segment])]
    groups = [item for item in items if isinstance(item, Group)]
    header = segment.header.model_copy(update={"erased": True})
    head = seal(header)
    slim = [Group(g.at, g.end, g.previous, tuple(_slim(frame) for frame in g.frames)) for g in groups]
    data = head + regroup(folder.identity.genesis, len(head), slim)
    if any(isinstance(item, Damage) for item in items) or len(data) >= segment.size:
        segment.header = header  # in memory only: not to be tried again
        return False
    smaller = Segment(segment.first, len(data), len(head), header)
    try:
        put_segment(folder, smaller, data)
    except StorageError as error:
        log.warning("windows of segment %s stay: %s", segment_name(segment.first), error)
        with suppress(StorageError):
            folder.disk.unlink(folder.at(segment_name(segment.first)) + ASIDE)
        return False
    segment.size, segment.start, segment.header, segment.index = smaller.size, smaller.start, header, []
    return True  # a crash may bring the longer file back: nothing but space is lost by that


def _slim(frame: Frame) -> Frame:
    return withhold(frame) if frame.type is RecordType.WINDOW else frame


def drop_note(folder: Folder, base: Base) -> GapNote:
    """The gap that dropping the oldest segment leaves, with everything before it that is owed too."""
    oldest, behind = folder.segments[0], folder.segments[1]
    if base.dropped is not None and base.dropped.last == behind.first - 1:
        return base.dropped  # noted before, but the disk refused to remove the segment
    due, counts = base.first_due, _counts(folder, oldest, behind, base.first_due)
    earlier = base.dropped
    if earlier is not None and earlier.last < due:
        earlier = None
    if oldest.first > due:
        whole = earlier is not None and earlier.first == due and earlier.last == oldest.first - 1
        known = earlier.counts if earlier is not None and whole else None
        counts = None if counts is None or known is None else counts + Counter(count_types(known, "gap"))
    return GapNote(
        first=due,
        last=behind.first - 1,
        counts=None if counts is None else count_names(counts),
        reason="quota",
    )


def _counts(folder: Folder, segment: Segment, behind: Segment, due: int) -> Counter[RecordType] | None:
    """Records by type in a segment from ``due`` on; ``None`` when damage leaves it unknown."""
    if due <= segment.first and segment.header is not None and behind.header is not None:
        upto = Counter(count_types(behind.header.counts, "header"))
        upto.subtract(count_types(segment.header.counts, "header"))
        if upto.total() == behind.first - segment.first:
            return upto
    counts: Counter[RecordType] = Counter()
    for _, item in walk(folder, [segment]):
        if isinstance(item, Group):
            counts.update(frame.type for frame in item.frames if frame.seq >= due)
    return counts if counts.total() == behind.first - max(segment.first, due) else None
