"""Reading a journal's folder from end to end, around whatever is damaged, and beginning a new one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from aiotkit.core.errors import JournalError
from aiotkit.core.frames import genesis
from aiotkit.edge.disk import ASIDE, Disk
from aiotkit.edge.journal_base import Base, Point, read_base, write_base
from aiotkit.edge.segments import (
    Damage,
    Group,
    Header,
    Place,
    read_groups,
    read_header,
    segment_first,
    segment_name,
)

BASE_FILE = "base.json"
LOCK_FILE = "lock"
_HEADER_BYTES = 64 << 10
_INDEX_BYTES = 64 << 10


@dataclass(slots=True)
class Segment:
    """A segment file: its first record, its bytes that count, where its groups begin."""

    first: int
    size: int
    start: int
    header: Header | None
    index: list[tuple[int, int]] = field(default_factory=list)

    def note(self, seq: int, at: int) -> None:
        """Remember where a group begins, now and then."""
        if not self.index or at - self.index[-1][1] >= _INDEX_BYTES:
            self.index.append((seq, at))

    def offset(self, seq: int) -> tuple[int, int]:
        """A record at or before ``seq`` and the offset where its group begins."""
        return next((entry for entry in reversed(self.index) if entry[0] <= seq), (self.first, self.start))


@dataclass(frozen=True)
class Identity:
    """Whose journal it is."""

    device: str
    journal_id: str

    @property
    def genesis(self) -> bytes:
        """The head before its first record."""
        return genesis(self.device, self.journal_id)


@dataclass
class Folder:
    """What lies in a journal's folder. ``findings`` are things that are not as they should be, in words."""

    disk: Disk
    path: str
    identity: Identity
    base: Base | None
    segments: list[Segment]
    findings: list[str]

    def at(self, name: str) -> str:
        """The path of a file in the folder."""
        return f"{self.path}/{name}"

    def read(self, segment: Segment, at: int = 0) -> bytes:
        """A segment's bytes from an offset on."""
        return self.disk.read(self.at(segment_name(segment.first)), at, segment.size - at)


def look(disk: Disk, path: str) -> Folder | None:
    """What is in a folder; ``None`` when it holds no journal.

    Raises:
        JournalError: there are segments, but neither they nor the base file say whose they are.
    """
    names = disk.list(path)
    firsts = sorted(first for name in names if (first := segment_first(name)) is not None)
    findings: list[str] = []
    base = _base(disk, f"{path}/{BASE_FILE}", findings)
    headers = {first: _header(disk, f"{path}/{segment_name(first)}", findings) for first in firsts}
    owner = base or next((found[0] for found in headers.values() if found), None)
    if owner is None:
        if not firsts:
            return None
        raise JournalError(
            f"journal {path}",
            expected="a segment or base file that says whose it is",
            found=f"{len(firsts)} segments, none with a readable header",
            do="Keep the folder as evidence and start the device with an empty one.",
        )
    identity = Identity(owner.device, owner.journal_id)
    segments = []
    for first, found in headers.items():
        if found and Identity(found[0].device, found[0].journal_id) != identity:
            findings.append(
                f"segment {segment_name(first)} belongs to {found[0].device}/{found[0].journal_id}"
            )
            found = None
        size = disk.size(f"{path}/{segment_name(first)}") or 0
        segments.append(Segment(first, size, found[1] if found else 0, found[0] if found else None))
    return Folder(disk, path, identity, base, segments, findings)


def _base(disk: Disk, path: str, findings: list[str]) -> Base | None:
    try:
        return read_base(disk, path)
    except JournalError as error:
        findings.append(str(error))
        return None


def _header(disk: Disk, path: str, findings: list[str]) -> tuple[Header, int] | None:
    try:
        return read_header(disk.read(path, 0, _HEADER_BYTES), path.rpartition("/")[2])
    except JournalError as error:
        findings.append(str(error))
        return None


def found_journal(disk: Disk, path: str, identity: Identity) -> Folder:
    """Begin a journal in an empty folder."""
    base = empty_base(identity)
    write_base(disk, f"{path}/{BASE_FILE}", base)
    return Folder(disk, path, identity, base, [], [])


def empty_base(identity: Identity) -> Base:
    """The base file of a journal of which nothing is known yet."""
    start = Point(seq=0, head=identity.genesis.hex())
    return Base(device=identity.device, journal_id=identity.journal_id, acknowledged=start, delivered=start)


def check_identity(folder: Folder, device: str, journal_id: str | None) -> None:
    """Raise ``JournalError`` when the journal is another device's or has another id."""
    found = folder.identity
    if found.device != device or journal_id not in (None, found.journal_id):
        raise JournalError(
            f"journal {folder.path}",
            expected=f"the journal {device}/{journal_id or '(any)'}",
            found=f"{found.device}/{found.journal_id}",
            do="Give each device its own state folder.",
        )


def put_segment(folder: Folder, segment: Segment, data: bytes) -> None:
    """Give a segment's name a new file in one step; it is durable once the folder is synced."""
    path = folder.at(segment_name(segment.first))
    folder.disk.write(path + ASIDE, data)
    folder.disk.sync(path + ASIDE)
    folder.disk.rename(path + ASIDE, path)


def walk(
    folder: Folder, segments: Sequence[Segment], *, seq: int | None = None
) -> Iterator[tuple[Segment, Group | Damage]]:
    """Every group and every damage of successive segments.

    Args:
        folder: where they are.
        segments: successive ones.
        seq: begin near this record of the first segment instead of at its first.
    """
    place: Place | None = None
    for i, segment in enumerate(segments):
        begin, at = (segment.first, segment.start) if i or seq is None else segment.offset(seq)
        if i == 0:
            place = Place(begin, None)
        assert place is not None
        if at == segment.start:
            trouble = _joint(segment, place)
            if trouble is not None:
                yield segment, trouble
            if segment.header is not None:
                place = Place(segment.first, bytes.fromhex(segment.header.previous))
        behind = segments[i + 1].first if i + 1 < len(segments) else None
        for item in read_groups(folder.read(segment, at), at, folder.identity.genesis, place):
            if isinstance(item, Damage) and item.last is None and behind is not None:
                item = Damage(item.first, max(behind - 1, item.first - 1), item.at, item.why)
            yield segment, item
            place = _behind(item, place)


def _joint(segment: Segment, place: Place) -> Damage | None:
    """What is wrong where a segment begins."""
    header = segment.header
    if segment.first > place.seq:
        return Damage(place.seq, segment.first - 1, 0, "records are missing before the next segment")
    if segment.first < place.seq:
        return Damage(segment.first, segment.first - 1, 0, "the segment repeats earlier records")
    if header is None:
        return Damage(segment.first, segment.first - 1, 0, "the segment's header is damaged")
    if place.head is not None and header.previous != place.head.hex():
        return Damage(segment.first, segment.first - 1, 0, "the segment does not continue the chain")
    return None


def _behind(item: Group | Damage, place: Place) -> Place:
    if isinstance(item, Group):
        return Place(item.frames[-1].seq + 1, item.frames[-1].head)
    if item.last is None or item.last < item.first:
        return place
    return Place(item.last + 1, None)
