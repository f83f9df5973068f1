"""J2: the power goes at every operation, and whatever a disk may then hold, nothing acknowledged is lost.

Guards that these tests hold in place (remove one and a test here fails): the sync of a commit; the sync
and the folder's sync of a new segment; those of the base file; the sync when a journal is opened after a
kill; the truncation of a torn group; the bound that keeps an acknowledged group from being taken for torn.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from worlds.crash import CrashDisk, CrashState, Killed, Op, crash_states
from worlds.journals import TRUST, fill, kind_of, open_journal, payload_of, point, signed

from aiotkit.core.records import RecordType
from aiotkit.edge.journal import Journal

Script = Callable[[CrashDisk], None]
SIZE = 700


def _tell(disk: CrashDisk, journal: Journal) -> None:
    """Note the promise: everything up to here, with this head."""
    disk.note((journal.durable_seq, journal.head))


def _grow(disk: CrashDisk, journal: Journal, groups: int, *, each: int = 2, size: int = SIZE) -> None:
    for _ in range(groups):
        fill(journal, 1, each=each, size=size)
        _tell(disk, journal)


def appends_and_rotates(disk: CrashDisk) -> None:
    with open_journal(disk, segment_bytes=2048) as journal:
        _grow(disk, journal, 5)


def is_killed_and_reopened(disk: CrashDisk) -> None:
    journal = open_journal(disk)
    _grow(disk, journal, 2)
    journal.append(kind_of(5), payload_of(5, SIZE))
    disk.fail = _killed_at_sync  # written, not durable, not acknowledged
    with pytest.raises(Killed):
        journal.commit()
    disk.reboot()
    with open_journal(disk) as journal:
        _tell(disk, journal)  # what is read at the start counts as acknowledged from then on
        assert journal.durable_seq == 5
        _grow(disk, journal, 2)


def trims(disk: CrashDisk) -> None:
    with open_journal(disk, segment_bytes=2048) as journal:
        _grow(disk, journal, 6)
        journal.trim(signed(point(journal, 7)), TRUST)
        _tell(disk, journal)
        _grow(disk, journal, 1)
        journal.trim(signed(point(journal, 13)), TRUST)


def overflows(disk: CrashDisk) -> None:
    with open_journal(disk, quota_bytes=64 << 10, segment_bytes=8192) as journal:
        _grow(disk, journal, 18, each=3, size=1800)
        assert journal.usage.first_seq > 1


def closes_and_reopens(disk: CrashDisk) -> None:
    for _ in range(3):
        with open_journal(disk, segment_bytes=2048) as journal:
            _grow(disk, journal, 2)


def _killed_at_sync(op: Op) -> None:
    if op.kind == "sync":
        raise Killed


SCRIPTS = [appends_and_rotates, is_killed_and_reopened, trims, overflows, closes_and_reopens]


def check(state: CrashState) -> CrashDisk:
    """Reboot from a state: every promise made before the cut is kept, and the journal goes on."""
    disk = state.disk()
    seq, head = state.notes[-1] if state.notes else (0, b"")
    with open_journal(disk) as journal:
        assert journal.durable_seq >= seq
        frames = {frame.seq: frame for frame in journal.frames()}
        assert not [name for name in disk.list("journal") if name.endswith(".new")]
        assert sorted(frames) == list(range(journal.usage.first_seq, journal.durable_seq + 1))
        if seq:
            assert journal.head_before(seq + 1) == head
        for frame in frames.values():
            if frame.type is not RecordType.GAP:
                assert frame.payload in (None, payload_of(frame.seq, frame.length))
                assert frame.payload is not None or frame.type is RecordType.WINDOW
        assert not [f for f in journal.findings if "torn write" not in f]
        verified = journal.verify()
        assert verified.ok, verified.problems
        missing = journal.usage.first_seq - 1 - journal.delivered.seq
        assert missing <= 0 or journal.usage.dropped is not None
        fill(journal, 1)
        assert journal.verify().ok
    return disk


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_J2_power_cut_at_any_operation(script: Script):
    """Whatever a power cut leaves, acknowledged records are there with their chain, and none twice."""
    disk = CrashDisk()
    script(disk)
    states = list(crash_states(disk, per_cut=96))
    assert len(states) > len(disk.ops)
    chosen = random.Random(1).sample(states, min(len(states), 700))
    for state in chosen:
        check(state)


@pytest.mark.faults
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_J2_power_cut_exhaustive(script: Script):
    """The same on every state, with up to 5000 outcomes of every single cut."""
    disk = CrashDisk()
    script(disk)
    for state in crash_states(disk, per_cut=5000):
        check(state)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_J2_a_second_power_cut_while_recovering(script: Script):
    """The power goes again while the journal recovers from the first cut: still nothing is lost."""
    disk = CrashDisk()
    script(disk)
    rng = random.Random(2)
    first = list(crash_states(disk, per_cut=16))
    for state in rng.sample(first, min(len(first), 25)):
        rebooted = check(state)
        second = list(crash_states(rebooted, per_cut=8))
        for again in rng.sample(second, min(len(second), 8)):
            check(CrashState(again.after, again.choice, again.files, again.folders, state.notes))


def test_J2_a_torn_group_goes_as_a_whole():
    """A group of which only a part reached the disk is cut off; its numbers are given again."""
    disk = CrashDisk()
    journal = open_journal(disk)
    fill(journal, 2)
    fill(journal, 1, each=50)
    name = "journal/00000000000000000001.seg"
    whole = disk.files[name]
    for size in range(len(whole) - 2500, len(whole), 61):
        torn = CrashDisk({**disk.files, name: whole[:size]}, frozenset({"journal"}))
        with open_journal(torn) as again:
            assert again.durable_seq == 6
            assert "torn write" in again.findings[0]
            fill(again, 1)
            assert [f.seq for f in again.frames()] == list(range(1, 10))
            assert again.verify().ok
