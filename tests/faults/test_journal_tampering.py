"""J7 and J8: what breaks or is changed in a journal is found, named, and costs nothing around it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from worlds.crash import CrashDisk
from worlds.journals import STRANGER, TRUST, fill, open_journal, payload_of, point, signed

from aiotkit.core.errors import ChainError, JournalError
from aiotkit.core.frames import Frame, encode, genesis, make_frame, withhold
from aiotkit.core.records import RecordType
from aiotkit.edge.journal import Journal
from aiotkit.edge.journal_base import Point, read_base, write_base
from aiotkit.edge.journal_verify import Verified, verify_folder
from aiotkit.edge.segments import (
    MARK_SIZE,
    Group,
    Header,
    Place,
    read_groups,
    read_header,
    regroup,
    seal,
    segment_name,
)
from aiotkit.edge.watermark import Watermark

GENESIS = genesis("press-7", "00112233aabbccdd")


def small_journal(*, device_world: int = 0) -> dict[str, bytes]:
    """Three segments of a few groups, closed cleanly; another world holds other payloads."""
    disk = CrashDisk()
    with open_journal(disk, segment_bytes=800) as journal:
        for group in range(8):
            for _ in range(1 + group % 2):
                journal.append(RecordType.DECISION, payload_of(journal.next_seq + 100 * device_world, 30))
            journal.commit()
        assert journal.usage.segments == 3
    return disk.files


def disk_of(files: dict[str, bytes]) -> CrashDisk:
    return CrashDisk(files, frozenset({"journal"}))


def verify(files: dict[str, bytes], checkpoint: Watermark | None = None) -> Verified:
    return verify_folder(disk_of(files), checkpoint)


def segments(files: dict[str, bytes]) -> list[str]:
    return sorted(path for path in files if path.endswith(".seg"))


@dataclass
class Map:
    """Which record each byte of a segment belongs to, and what a loss of it takes along."""

    record: list[int]
    lost: list[set[int]]


def map_bytes(data: bytes, name: str) -> Map:
    header, start = read_header(data, name.rpartition("/")[2])
    record, lost = [header.first] * start, [set[int]()] * start
    for group in read_groups(data[start:], start, GENESIS, Place(header.first, None)):
        assert isinstance(group, Group)
        seqs = [frame.seq for frame in group.frames]
        record += [seqs[0]] * MARK_SIZE
        lost += [set(seqs)] * MARK_SIZE
        for i, frame in enumerate(group.frames):
            record += [frame.seq] * len(encode(frame))
            lost += [set(seqs[i:])] * len(encode(frame))
    return Map(record, lost)


def flipped(data: bytes, at: int, mask: int) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def _check_flip(files: dict[str, bytes], path: str, at: int, mask: int, expected: Map) -> None:
    damaged = {**files, path: flipped(files[path], at, mask)}
    before = verify(damaged)
    assert not before.ok
    assert before.first_bad == expected.record[at]
    disk = disk_of(damaged)
    with open_journal(disk, segment_bytes=800) as journal:
        lost = expected.lost[at]
        read = {frame.seq: frame for frame in journal.frames()}
        everything = set(range(1, 13))
        assert set(read) & everything == everything - lost
        assert all(read[n].payload == payload_of(n, 30) for n in everything - lost)
        fill(journal, 1)
        notes = [note for note in journal.verify().gaps if note.reason.startswith("damaged")]
        declared = {n for note in notes for n in range(note.first, note.last + 1)}
        assert declared == lost
        last = journal.durable_seq
        assert journal.frame(last) is not None
    with open_journal(disk, segment_bytes=800) as journal:  # declared once, and no number is given twice
        list(journal.frames())
        assert journal.next_seq == last + 1
        assert len(journal.verify().gaps) == len(notes)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_J7_any_byte_of_any_segment(which):
    """Every byte: detected, the first bad record named, all others readable, the loss declared once."""
    files = small_journal()
    path = segments(files)[which]
    expected = map_bytes(files[path], path)
    assert len(expected.record) == len(files[path])
    masks = random.Random(which)
    for at in range(len(files[path])):
        _check_flip(files, path, at, 1 << masks.randrange(8), expected)


@pytest.mark.faults
def test_J7_any_bit_of_any_segment():
    """The same for every single bit."""
    files = small_journal()
    for path in segments(files):
        expected = map_bytes(files[path], path)
        for at, bit in itertools.product(range(len(files[path])), range(8)):
            _check_flip(files, path, at, 1 << bit, expected)


def test_J7_any_byte_of_the_base_file():
    """A damaged base file is detected, and every record is still there."""
    files = small_journal()
    for at in range(len(files["journal/base.json"])):
        damaged = {**files, "journal/base.json": flipped(files["journal/base.json"], at, 0x10)}
        assert not verify(damaged).ok
        disk = disk_of(damaged)
        with open_journal(disk) as journal:
            assert journal.durable_seq == 12
            assert any("base.json" in finding for finding in journal.findings)
            assert [frame.seq for frame in journal.frames()] == list(range(1, 13))
        assert verify_folder(disk).ok


def test_J7_a_missing_segment_costs_only_its_records():
    """Any segment gone: detected, declared, the others readable, the next number is new."""
    files = small_journal()
    for path in segments(files):
        left = {name: data for name, data in files.items() if name != path}
        assert not verify(left).ok
        gone = set(map_bytes(files[path], path).record)
        assert verify(left).first_bad == min(gone)
        with open_journal(disk_of(left)) as journal:
            read = {frame.seq for frame in journal.frames()}
            assert read & set(range(1, 13)) == set(range(1, 13)) - gone
            fill(journal, 1)
            assert journal.durable_seq > 12
            notes = journal.verify().gaps
            assert {n for note in notes for n in range(note.first, note.last + 1)} == gone


# -- J8: someone who knows the format but holds no key


@dataclass
class Taken:
    """A journal taken apart."""

    headers: list[Header]
    groups: list[list[list[Frame]]]
    marks: list[list[bytes]]  # the heads that the groups' marks carried

    @classmethod
    def of(cls, files: dict[str, bytes]) -> Taken:
        headers, groups, marks = [], [], []
        for path in segments(files):
            header, start = read_header(files[path], path.rpartition("/")[2])
            items = read_groups(files[path][start:], start, GENESIS, Place(header.first, None))
            whole = [item for item in items if isinstance(item, Group)]
            headers.append(header)
            groups.append([list(group.frames) for group in whole])
            marks.append([group.previous for group in whole])
        return cls(headers, groups, marks)

    def files(self, files: dict[str, bytes], *, keep_marks: bool = False) -> dict[str, bytes]:
        """Put together again with good checks and digests; marks follow the frames, or are as they were."""
        out = {path: data for path, data in files.items() if not path.endswith(".seg")}
        for header, groups, marks in zip(self.headers, self.groups, self.marks, strict=False):
            head, previous, laid = seal(header), bytes.fromhex(header.previous), []
            for i, frames in enumerate(groups):
                if frames:
                    laid.append(Group(0, 0, marks[i] if keep_marks else previous, tuple(frames)))
                    previous = frames[-1].head
            body = regroup(GENESIS, len(head), laid)
            out["journal/" + segment_name(header.first)] = head + body
        return out

    def rechained(self, at: int) -> None:
        """Number and chain all records anew from position ``at``, headers too."""
        position, previous, seq = 0, GENESIS, 1
        counts: dict[str, int] = {}
        last: dict[str, int] = {}
        for i, groups in enumerate(self.groups):
            if position >= at and i:
                self.headers[i] = self.headers[i].model_copy(
                    update={"first": seq, "previous": previous.hex(), "counts": {**counts}, "last": {**last}}
                )
            for frames in groups:
                for j, frame in enumerate(frames):
                    if position >= at and frame.payload is not None:
                        frames[j] = make_frame(frame.type, seq, frame.payload, previous)
                    previous, seq, position = frames[j].head, frames[j].seq + 1, position + 1
                    counts[frame.type.name] = counts.get(frame.type.name, 0) + 1
                    last[frame.type.name] = frames[j].seq


Place_ = tuple[int, int, int]  # segment, group, frame


def places(taken: Taken) -> Sequence[Place_]:
    return [
        (s, g, f)
        for s, groups in enumerate(taken.groups)
        for g, frames in enumerate(groups)
        for f in range(len(frames))
    ]


def _modify(taken: Taken, at: Place_) -> None:
    s, g, f = at
    frame = taken.groups[s][g][f]
    forged = make_frame(frame.type, frame.seq, b"forged", frame.head)
    taken.groups[s][g][f] = replace(forged, head=frame.head)


def _modify_and_rehash(taken: Taken, at: Place_) -> None:
    s, g, f = at
    previous = _head_before(taken, at)
    taken.groups[s][g][f] = make_frame(RecordType.DECISION, taken.groups[s][g][f].seq, b"forged", previous)


def _retype(taken: Taken, at: Place_) -> None:
    s, g, f = at
    taken.groups[s][g][f] = replace(taken.groups[s][g][f], type=RecordType.OUTCOME)


def _delete(taken: Taken, at: Place_) -> None:
    s, g, f = at
    del taken.groups[s][g][f]


def _insert(taken: Taken, at: Place_) -> None:
    s, g, f = at
    frame = taken.groups[s][g][f]
    taken.groups[s][g].insert(f, make_frame(frame.type, frame.seq, b"forged", _head_before(taken, at)))


def _double(taken: Taken, at: Place_) -> None:
    s, g, f = at
    taken.groups[s][g].insert(f, taken.groups[s][g][f])


def _swap(taken: Taken, at: Place_) -> None:
    everything = list(places(taken))
    s, g, f = at
    t, h, e = everything[(everything.index(at) + 1) % len(everything)]
    here, there = taken.groups[s][g][f], taken.groups[t][h][e]
    taken.groups[s][g][f], taken.groups[t][h][e] = there, here


def _truncate(taken: Taken, at: Place_) -> None:
    s, g, f = at
    del taken.groups[s][g][f:], taken.groups[s][g + 1 :]
    del taken.groups[s + 1 :], taken.headers[s + 1 :]


def _delete_group(taken: Taken, at: Place_) -> None:
    del taken.groups[at[0]][at[1]]


def _head_before(taken: Taken, at: Place_) -> bytes:
    before = [taken.groups[s][g][f].head for s, g, f in places(taken) if (s, g, f) < at]
    return before[-1] if before else GENESIS


ATTACKS: list[Callable[[Taken, Place_], None]] = [
    _modify,
    _modify_and_rehash,
    _retype,
    _delete,
    _insert,
    _double,
    _swap,
    _truncate,
    _delete_group,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__.strip("_"))
def test_J8_every_manipulation_of_every_record(attack):
    """Each manipulation at each record is detected, by one who can make good marks, digests and totals."""
    files = small_journal()
    for at in places(Taken.of(files)):
        taken = Taken.of(files)
        seq = taken.groups[at[0]][at[1]][at[2]].seq
        attack(taken, at)
        found = verify(taken.files(files))
        assert not found.ok
        assert found.first_bad is not None
        assert 0 < found.first_bad <= seq + 1
        with pytest.raises(ChainError, match=r"press-7/00112233aabbccdd, record \d+"):
            found.raise_if_bad()


@pytest.mark.parametrize(
    "attack", [_modify_and_rehash, _insert, _delete, _swap, _truncate], ids=lambda a: a.__name__
)
def test_J8_a_rewrite_of_everything_is_caught_by_the_checkpoint(attack):
    """Records changed, everything chained anew, the base file forged: a checkpoint behind it tells."""
    files = small_journal()
    with open_journal(disk_of(files)) as journal:
        checkpoints = {seq: point(journal, seq) for seq in range(1, 13)}
    assert verify(files, checkpoints[12]).ok
    for position, at in enumerate(places(Taken.of(files))[: -1 if attack is _swap else None]):
        taken = Taken.of(files)
        attack(taken, at)
        taken.rechained(position)
        forged = taken.files(files)
        disk = disk_of(forged)
        base = read_base(disk, "journal/base.json")
        assert base is not None
        last = max(
            (f for groups in taken.groups for g in groups for f in g), key=lambda f: f.seq, default=None
        )
        end = Point(seq=last.seq, head=last.head.hex()) if last else base.delivered
        write_base(disk, "journal/base.json", base.model_copy(update={"acknowledged": end}))
        blind = verify_folder(disk)
        assert blind.ok  # without a checkpoint nobody could tell
        for seq, checkpoint in checkpoints.items():
            found = verify_folder(disk, checkpoint)
            # a rewrite that is consistent in itself shows against every checkpoint from the change on
            assert found.ok == (seq <= position), (at, seq, found.problems)


def test_J8_a_group_forged_as_a_whole():
    """A group whose records were replaced and chained among themselves does not fit the group behind it."""
    files = small_journal()
    for s, groups in enumerate(Taken.of(files).groups):
        for g in range(len(groups)):
            taken = Taken.of(files)
            previous = taken.marks[s][g]
            for f, frame in enumerate(taken.groups[s][g]):
                forged = make_frame(frame.type, frame.seq, b"forged", previous)
                taken.groups[s][g][f], previous = forged, forged.head
            found = verify(taken.files(files, keep_marks=True))
            assert not found.ok
            assert taken.groups[s][g][0].seq <= (found.first_bad or 0) <= taken.groups[s][g][-1].seq + 1


def test_J8_a_group_repeated():
    """A group put in a second time further on is detected, and its records are read once."""
    files = small_journal()
    taken = Taken.of(files)
    taken.groups[1].insert(2, taken.groups[1][0])
    taken.marks[1].insert(2, taken.marks[1][0])
    repeated = taken.files(files, keep_marks=True)
    assert "out of order" in verify(repeated).problems[0].why
    seqs = [frame.seq for frame in open_frames(repeated)]
    assert seqs == sorted(set(seqs))
    assert set(range(1, 13)) <= set(seqs)


def test_J8_a_segment_that_repeats_another():
    """Records that two segments both hold are detected."""
    files = small_journal()
    taken = Taken.of(files)
    taken.groups[0] += taken.groups[1]
    taken.marks[0] += taken.marks[1]
    found = verify(taken.files(files, keep_marks=True))
    assert any("repeats earlier records" in problem.why for problem in found.problems)


def test_J8_an_empty_segment_of_another_journal():
    """A foreign segment without records does not lead the journal onto a foreign chain."""
    files = small_journal()
    with open_journal(disk_of(files)) as journal:
        head = journal.head
    foreign = Header(
        device="press-8", journal_id="ffff", first=13, previous="a" * 64, counts={"DECISION": 12}, last={}
    )
    spliced = {**files, "journal/" + segment_name(13): seal(foreign)}
    assert not verify(spliced).ok
    with open_journal(disk_of(spliced)) as journal:
        assert journal.head == head
        assert any("belongs to press-8/ffff" in finding for finding in journal.findings)
        fill(journal, 1)
        assert journal.verify().ok


def test_J8_a_renamed_segment():
    """A segment under another name than its header's is damaged, whatever it holds."""
    files = small_journal()
    path = segments(files)[2]
    with pytest.raises(JournalError, match="expected the name 0000"):
        read_header(files[path], segment_name(99))
    renamed = {**files, "journal/" + segment_name(99): files[path]}
    assert not verify(renamed).ok


def test_J8_truncation_below_the_checkpoint():
    """Any number of groups or segments cut from the end is detected when a checkpoint lies beyond."""
    files = small_journal()
    with open_journal(disk_of(files)) as journal:
        checkpoint = point(journal, 12)
    for at in places(Taken.of(files)):
        taken = Taken.of(files)
        _truncate(taken, at)
        forged = {k: v for k, v in taken.files(files).items() if k != "journal/base.json"}
        found = verify(forged, checkpoint)
        assert any("the journal ends at record" in problem.why for problem in found.problems)


def test_J8_replaying_an_old_segment():
    """An earlier state of a segment put in its place is detected."""
    disk = CrashDisk()
    journal = open_journal(disk, segment_bytes=100_000)
    old = []
    for _ in range(6):
        fill(journal, 1)
        old.append(disk.files)
    checkpoint = point(journal, journal.durable_seq)
    journal.close()
    path = segments(disk.files)[0]
    for earlier in old[:-1]:
        replayed = {**disk.files, path: earlier[path]}
        assert verify(replayed).first_bad == sum(1 for _ in open_frames(earlier)) + 1
        assert not verify(earlier, checkpoint).ok  # all files replayed: the checkpoint tells


def open_frames(files: dict[str, bytes]) -> list[Frame]:
    with open_journal(disk_of(files)) as journal:
        return list(journal.frames())


@pytest.mark.parametrize("other", ["press-8", "press-7"])
def test_J8_splicing_segments_of_another_journal(other):
    """A segment of another device, or of another journal of the same device, is detected and not read."""
    mine = small_journal()
    disk = CrashDisk()
    with Journal.open(disk, other, journal_id="ffff", quota_bytes=1 << 20, segment_bytes=800) as journal:
        for group in range(8):
            for _ in range(1 + group % 2):
                journal.append(RecordType.DECISION, payload_of(journal.next_seq, 30))
            journal.commit()
    for path in segments(mine):
        spliced = {**mine, path: disk.files[path]}
        found = verify(spliced)
        assert found.first_bad == int(path[-24:-4])
        assert {f.head for f in open_frames(spliced) if f.type is RecordType.DECISION} <= {
            f.head for f in open_frames(mine)
        }


def test_J8_swapped_segments():
    """Two segments under each other's names are detected."""
    files = small_journal()
    for a, b in itertools.combinations(segments(files), 2):
        assert verify({**files, a: files[b], b: files[a]}).first_bad == int(a[-24:-4])


def test_J8_segments_of_the_same_journal_before_a_restore():
    """A device restored from a backup and run on: the collector's watermark does not fit, nothing is cut."""
    one, two = small_journal(), small_journal(device_world=1)
    with open_journal(disk_of(one)) as journal:
        envelope = signed(point(journal, 9))
    with open_journal(disk_of(two)) as other:
        with pytest.raises(ChainError, match="watermark at record 9"):
            other.trim(envelope, TRUST)
        assert other.usage.first_seq == 1


def test_J8_forged_totals_and_base():
    """Totals in a header and the kept watermark are checked too."""
    files = small_journal()
    taken = Taken.of(files)
    taken.headers[1] = taken.headers[1].model_copy(update={"counts": {"DECISION": 99}})
    assert "totals" in verify(taken.files(files)).problems[0].why
    disk = disk_of(files)
    with open_journal(disk) as journal:
        journal.trim(signed(point(journal, 2)), TRUST)
    base = read_base(disk, "journal/base.json")
    assert base is not None
    claim = base.model_copy(update={"delivered": Point(seq=4, head="0" * 64)})
    write_base(disk, "journal/base.json", claim)
    assert not verify_folder(disk).ok
    assert any("kept watermark says" in p.why for p in verify_folder(disk, trust=TRUST).problems)
    truth = verify_folder(disk_of(files)).head
    mark = Watermark(device="press-7", journal_id="00112233aabbccdd", seq=12, head=truth)
    for envelope in (signed(mark, STRANGER).decode(), "{}", None):
        claim = base.model_copy(
            update={"delivered": Point(seq=12, head=truth), "acknowledged": Point(seq=12, head=truth)}
        )
        write_base(disk, "journal/base.json", claim.model_copy(update={"watermark": envelope}))
        assert verify_folder(disk).ok  # who has no trust file cannot tell
        found = verify_folder(disk, trust=TRUST)
        assert any("the kept watermark: " in p.why for p in found.problems)
        assert found.checkpoint_seq is None


@pytest.mark.parametrize("other", [{"device": "press-8"}, {"journal_id": "ffff"}])
def test_J8_a_checkpoint_of_another_journal(other):
    """A good signature over another journal's record proves nothing here, and is said to."""
    files = small_journal()
    with open_journal(disk_of(files)) as journal:
        mark = point(journal, 12).model_copy(update=other)
    found = verify(files, mark)
    assert not found.ok
    assert "not for this journal" in found.problems[0].why
    assert found.checkpoint_seq is None


def test_withheld_windows_are_no_manipulation():
    """A payload taken out with its digest left in the chain verifies: that is what the chain is for."""
    files = small_journal()
    taken = Taken.of(files)
    taken.groups[0][0][0] = withhold(taken.groups[0][0][0])
    found = verify(taken.files(files))
    assert found.ok
    assert found.withheld == 1
