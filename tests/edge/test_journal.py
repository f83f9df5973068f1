"""The journal's promises, one by one."""

from __future__ import annotations

import errno
import itertools
import json

import pytest
from worlds.crash import CrashDisk, Op, crash_states
from worlds.journals import (
    JOURNAL_ID,
    STRANGER,
    TRUST,
    fill,
    kind_of,
    open_journal,
    payload_of,
    point,
    signed,
)

from aiotkit.core.errors import AiotkitError, ChainError, JournalError, SignatureError, StorageError
from aiotkit.core.frames import genesis
from aiotkit.core.records import RecordType
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.journal import MAX_PENDING_BYTES, Journal
from aiotkit.edge.journal_verify import verify_folder


def test_what_is_committed_is_read_back(tmp_path):
    """Records come back in order with type, payload and chain, also after a restart on a real disk."""
    with open_journal(RealDisk(tmp_path)) as journal:
        fill(journal, 100)
        assert journal.usage.segments > 1
        before = list(journal.frames())
    with open_journal(RealDisk(tmp_path)) as journal:
        after = list(journal.frames())
        assert journal.findings == ()
        assert journal.next_seq == 301
    assert after == before
    assert [f.seq for f in after] == list(range(1, 301))
    assert all((f.type, f.payload) == (kind_of(f.seq), payload_of(f.seq)) for f in after)
    assert after[-1].head == journal.head


def test_reading_may_begin_anywhere():
    """``frames(n)`` begins at record n, in any segment, without reading the earlier ones."""
    journal = open_journal(CrashDisk())
    fill(journal, 60)
    for first in (1, 2, 3, 4, 60, 61, 62, 90, 179, 180):
        assert [f.seq for f in journal.frames(first)] == list(range(first, 181))
    assert list(journal.frames(181)) == []
    assert journal.frame(77).payload == payload_of(77)
    assert journal.frame(181) is None


def test_only_what_is_acknowledged_is_shown():
    """A record that was appended but not committed is neither read nor counted as durable."""
    journal = open_journal(CrashDisk())
    fill(journal, 1)
    assert journal.append(RecordType.DECISION, b"waiting") == 4
    assert (journal.durable_seq, journal.next_seq, journal.usage.pending) == (3, 5, 1)
    assert [f.seq for f in journal.frames()] == [1, 2, 3]
    assert journal.commit() == 4
    assert journal.commit() == 4


def test_the_identity_is_kept_and_checked():
    """A folder belongs to one device and one journal id, whoever opens it later."""
    disk = CrashDisk()
    open_journal(disk).close()
    assert Journal.open(disk.after_kill(), "press-7").journal_id == JOURNAL_ID
    with pytest.raises(JournalError, match=r"expected the journal press-8.*found press-7/.*own state folder"):
        Journal.open(disk.after_kill(), "press-8")
    with pytest.raises(JournalError, match="found press-7/00112233aabbccdd"):
        Journal.open(disk.after_kill(), "press-7", journal_id="other")
    assert Journal.open(CrashDisk(), "a").journal_id != Journal.open(CrashDisk(), "a").journal_id


def test_one_writer():
    """A second writer is refused at once and told so; closing lets the next one in."""
    disk = CrashDisk()
    with open_journal(disk), pytest.raises(StorageError, match="in use"):
        open_journal(disk)
    open_journal(disk).close()
    with pytest.raises(JournalError, match="press-8"):
        Journal.open(disk, "press-8")
    open_journal(disk).close()


def test_the_last_record_of_a_type_survives_everything():
    """``last`` finds the newest record of a type after restarts, trims and drops of its segment."""
    disk = CrashDisk()
    journal = open_journal(disk, quota_bytes=64 << 10)
    assert journal.last(RecordType.DECISION) is None
    journal.append(RecordType.OVERRIDE, b"stop")
    journal.append(RecordType.DECISION, b"the last decision")
    journal.commit()
    for i in range(400):
        journal.append(RecordType.RESULT, b"%d" % i * 100)
        journal.commit()
    assert journal.usage.first_seq > 2
    for reopened in (journal, open_journal(disk.after_kill(), quota_bytes=64 << 10)):
        assert reopened.last(RecordType.DECISION).payload == b"the last decision"
        assert reopened.last(RecordType.OVERRIDE).seq == 1
        assert reopened.last(RecordType.RESULT).payload == b"399" * 100
        assert reopened.last(RecordType.SHADOW) is None


def test_heads_before_any_record():
    """``head_before`` is the chain's head before a record: the first, any, and the next."""
    journal = open_journal(CrashDisk())
    fill(journal, 60)
    assert journal.head_before(1) == genesis("press-7", JOURNAL_ID)
    assert journal.head_before(181) == journal.head
    heads = {f.seq: f.head for f in journal.frames()}
    assert all(journal.head_before(n + 1) == heads[n] for n in (1, 5, 60, 99, 179))


# -- trimming


def test_trim_removes_what_the_collector_holds():
    """Whole segments up to the watermark go; everything after it stays, and the chain verifies."""
    disk = CrashDisk()
    journal = open_journal(disk)
    fill(journal, 100)
    before = disk.used
    older = signed(point(journal, 150))
    first = journal.trim(signed(point(journal, 200)), TRUST)
    assert 100 < first <= 201
    assert disk.used < before
    assert [f.seq for f in journal.frames()] == list(range(first, 301))
    assert journal.delivered.seq == 200
    journal.close()
    again = open_journal(disk)
    assert again.frame(199) is not None
    again.trim(signed(point(again, 199)), TRUST)  # older, and readable: changes nothing
    assert again.delivered.seq == 200
    assert again.findings == ()
    assert again.head_before(201).hex() == again.delivered.head
    assert verify_folder(disk, trust=TRUST).ok
    assert again.trim(older, TRUST) == first  # changes nothing
    assert again.delivered.seq == 200


def test_J5_trim_refuses_every_other_word():
    """Unsigned, wrongly signed, for another journal, beyond the end or with another head: nothing goes."""
    disk = CrashDisk()
    journal = open_journal(disk)
    fill(journal, 100)
    good = point(journal, 200)
    bad: list[tuple[bytes, type[AiotkitError], str]] = [
        (signed(good, STRANGER), SignatureError, "collector"),
        (signed(good).replace(b'"payload":"ey', b'"payload":"fy'), SignatureError, "does not fit"),
        (b"{}", SignatureError, "envelope|watermark"),
        (signed(good.model_copy(update={"device": "press-8"})), ChainError, "one for press-7"),
        (signed(good.model_copy(update={"journal_id": "x"})), ChainError, "one for press-7"),
        (signed(good.model_copy(update={"seq": 301})), ChainError, "at most 300.*this journal lost"),
        (signed(good.model_copy(update={"seq": 201})), ChainError, "our head.*Nothing was removed"),
    ]
    for envelope, error, words in bad:
        with pytest.raises(error, match=words):
            journal.trim(envelope, TRUST)
    assert journal.usage.first_seq == 1
    assert journal.delivered.seq == 0
    assert len(list(journal.frames())) == 300


def test_a_watermark_about_dropped_records_waits_for_the_next():
    """Where our own head is gone with the record, the collector's word cannot be checked: nothing goes."""
    journal = open_journal(CrashDisk(), quota_bytes=64 << 10)
    fill(journal, 5)
    early = signed(point(journal, 7))
    fill(journal, 300, size=300)
    first = journal.usage.first_seq
    assert first > 8
    assert journal.trim(early, TRUST) == first
    assert journal.delivered.seq == 0
    journal.trim(signed(point(journal, journal.durable_seq)), TRUST)
    assert journal.usage.first_seq > first
    assert journal.usage.dropped is None


# -- quota


def test_J3_the_quota_holds_always():
    """The folder never takes more than the quota, at no moment: rewriting and big kept records included."""
    quota = 160 << 10
    disk = CrashDisk()
    used: list[int] = []

    def watch(op: Op) -> None:
        used.append(disk.used)

    disk.fail = watch
    journal = open_journal(disk, quota_bytes=quota, segment_bytes=16384)
    for kind in (RecordType.OVERRIDE, RecordType.ANSWER, RecordType.OUTCOME):
        journal.append(kind, bytes(12_000))
    fill(journal, 600, size=300)
    assert journal.usage.first_seq > 1000
    assert any(frame.withheld for frame in journal.frames())
    assert quota // 2 < max(used) <= quota
    assert max(used) > disk.used + 12_000  # the test has seen files aside


def test_J3_windows_go_first_then_the_oldest_and_all_is_declared():
    """Window payloads of the oldest segments are erased before any record goes; produced = kept + gaps."""
    disk = CrashDisk()
    journal = open_journal(disk, quota_bytes=96 << 10)
    while not any(f.withheld for f in journal.frames()):
        fill(journal, 1, size=500)
    assert journal.usage.first_seq == 1  # erasing came before dropping
    slim = [f for f in journal.frames() if f.withheld]
    assert all(f.type is RecordType.WINDOW for f in slim)
    assert journal.verify().ok
    fill(journal, 300, size=500)
    first = journal.usage.first_seq
    assert first > 100
    kept = [f.seq for f in journal.frames()]
    assert kept == list(range(first, journal.durable_seq + 1))
    dropped = journal.usage.dropped
    assert (dropped.first, dropped.last) == (1, first - 1)
    produced = sum(journal.usage.produced.values())
    assert produced == journal.durable_seq == len(kept) + sum(dropped.counts.values())
    newest = json.loads(journal.last(RecordType.GAP).payload)
    assert (newest["first"], newest["last"], newest["reason"]) == (1, first - 1, "quota")
    assert newest["counts"] == dropped.counts
    assert journal.verify().ok


def test_J3_what_is_delivered_is_dropped_without_a_gap():
    """Segments under the watermark are no loss; the gap counts exactly what the collector lacks."""
    journal = open_journal(CrashDisk(), quota_bytes=96 << 10)
    fill(journal, 20)
    journal.trim(signed(point(journal, 50)), TRUST)
    fill(journal, 500, size=300)
    dropped = journal.usage.dropped
    assert dropped.first == 51
    assert sum(dropped.counts.values()) == dropped.last - 50
    journal.trim(signed(point(journal, journal.durable_seq)), TRUST)
    assert journal.usage.dropped is None
    assert journal.verify().ok


def test_J3_stop_keeps_everything_and_goes_on_after_a_trim():
    """With ``on_full: stop`` the journal refuses, keeps all, and takes up the waiting records later."""
    journal = open_journal(CrashDisk(), quota_bytes=64 << 10, on_full="stop")
    with pytest.raises(StorageError, match=r"quota is used up.*Deliver to the collector") as trouble:
        fill(journal, 10_000)
    assert trouble.value.errno == errno.ENOSPC
    durable = journal.durable_seq
    assert [f.seq for f in journal.frames()] == list(range(1, durable + 1))
    assert not any(f.withheld for f in journal.frames())
    journal.trim(signed(point(journal, durable)), TRUST)
    assert journal.commit() == durable + 3
    assert journal.frame(durable + 3).payload == payload_of(durable + 3)


def test_J7_a_damaged_segment_is_not_rewritten():
    """When windows are erased for room, a damaged segment stays as it is: it is evidence."""
    disk = CrashDisk()
    with open_journal(disk, quota_bytes=96 << 10) as journal:
        fill(journal, 20, size=500)
    name = "journal/00000000000000000001.seg"
    damaged = bytearray(disk.files[name])
    damaged[len(damaged) // 2] ^= 1
    disk = CrashDisk({**disk.files, name: bytes(damaged)}, frozenset({"journal"}))
    with open_journal(disk, quota_bytes=96 << 10) as journal:
        while not any(frame.withheld for frame in journal.frames()):
            fill(journal, 1, size=500)
        assert journal.usage.first_seq == 1
    assert disk.files[name] == damaged


def test_a_quota_too_small_to_work_is_refused():
    """A quota that could not hold a few segments is an error with the least one."""
    with pytest.raises(JournalError, match="quota_bytes; expected at least 65536; found 1000"):
        open_journal(CrashDisk(), quota_bytes=1000)


def test_waiting_records_are_bounded():
    """Records that the disk refuses do not fill the memory."""
    journal = open_journal(CrashDisk())
    for _ in range(3):
        journal.append(RecordType.WINDOW, bytes(MAX_PENDING_BYTES // 4))
    with pytest.raises(StorageError, match="waiting for the disk"):
        journal.append(RecordType.WINDOW, bytes(MAX_PENDING_BYTES // 4))
    assert journal.next_seq == 4
    with pytest.raises(JournalError, match="at most"):
        journal.append(RecordType.WINDOW, bytes(MAX_PENDING_BYTES + 1))


# -- a disk that refuses


def _at(nth: int, number: int):
    """Refuse the nth operation."""
    counter = itertools.count()

    def fail(op: Op) -> int | None:
        return number if next(counter) == nth else None

    return fail


def _count_ops(script) -> int:
    disk = CrashDisk()
    seen: list[str] = []
    disk.fail = lambda op: seen.append(op.kind)
    script(disk)
    return len(seen)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_J6_a_refusing_disk_loses_nothing_and_the_journal_goes_on(number):
    """An error at any one operation of commit, rotate, trim and drop: all is there after the next commit."""

    def script(disk: CrashDisk, journal: Journal) -> None:
        for i in range(30):
            refused = 0
            while True:
                try:
                    if not refused:
                        for _ in range(3):
                            journal.append(kind_of(journal.next_seq), payload_of(journal.next_seq, 1500))
                    journal.commit()
                    if i == 12 and journal.delivered.seq == 0:
                        journal.trim(signed(point(journal, 20)), TRUST)
                    break
                except StorageError:
                    refused += 1
                    assert refused < 3
            assert journal.durable_seq == journal.next_seq - 1

    def begin(disk: CrashDisk) -> Journal:
        return open_journal(disk, quota_bytes=64 << 10, segment_bytes=8192)

    total = _count_ops(lambda disk: script(disk, begin(disk)))
    start = _count_ops(begin)
    for at in range(start, total):
        disk = CrashDisk(fail=_at(at, number))
        journal = begin(disk)
        script(disk, journal)
        frames = list(journal.frames())
        assert frames[0].seq > 21  # trimmed and dropped
        assert [f.seq for f in frames] == list(range(frames[0].seq, journal.durable_seq + 1))
        assert all(
            f.payload in (None, payload_of(f.seq, 1500)) for f in frames if f.type is not RecordType.GAP
        )
        assert journal.verify().ok
        dropped = journal.usage.dropped
        assert dropped is not None
        assert sum((dropped.counts or {}).values()) == dropped.last - dropped.first + 1
        ranges = [(note.first, note.last) for note in journal.verify().gaps]
        assert len(ranges) == len(set(ranges))  # declared once, though the removal was tried twice
        survivor = open_journal(disk.after_kill(), quota_bytes=64 << 10)
        due = survivor.usage.first_seq  # finishes a removal that the error had cut short
        assert due == frames[0].seq or due <= survivor.delivered.seq + 1
        assert [f.seq for f in survivor.frames()] == [f.seq for f in frames if f.seq >= due]
        assert survivor.findings == ()


def test_J6_a_failed_sync_is_never_believed():
    """After a failed sync the records are written anew: what that sync dropped is not counted on."""
    fails = [False]
    disk = CrashDisk(fail=lambda op: errno.EIO if op.kind == "sync" and fails[0] else None)
    journal = open_journal(disk)
    fill(journal, 2)
    fails[0] = True
    with pytest.raises(StorageError, match="hardware error"):
        fill(journal, 1)
    assert journal.durable_seq == 6
    fails[0] = False
    assert journal.commit() == 9
    disk.note("acknowledged 9")
    states = [s for s in crash_states(disk) if s.notes]
    assert states
    for state in states:
        survivor = open_journal(state.disk())
        assert survivor.durable_seq == 9
        assert [f.payload for f in survivor.frames()] == [payload_of(n) for n in range(1, 10)]


@pytest.mark.parametrize("ending", ["close", "kill"])
def test_J6_a_failed_sync_is_not_believed_by_the_next_process_either(ending):
    """What a failed sync left is written anew at the start before it counts: a clean page proves nothing."""
    disk = CrashDisk()
    journal = open_journal(disk)
    fill(journal, 2)
    disk.note(6)
    disk.fail = _syncs_fail
    with pytest.raises(StorageError, match="hardware error"):
        fill(journal, 1)
    disk.reboot()
    if ending == "close":
        journal.close()
    journal = open_journal(disk)
    counted = journal.durable_seq
    assert counted in (6, 9)
    disk.note(counted)
    for state in crash_states(disk):
        survivor = open_journal(state.disk())
        assert survivor.durable_seq >= (state.notes[-1] if state.notes else 0)
        assert [f.payload for f in survivor.frames()] == [
            payload_of(n) for n in range(1, survivor.durable_seq + 1)
        ]


def _syncs_fail(op: Op) -> int | None:
    return errno.EIO if op.kind == "sync" else None


def test_J6_a_journal_opens_on_a_full_disk():
    """A device that restarts with a full disk can read its journal, and goes on when there is room."""
    disk = CrashDisk()
    journal = open_journal(disk)
    fill(journal, 5)
    full = disk.after_kill()
    full.capacity = full.used
    again = open_journal(full)
    assert [f.seq for f in again.frames()] == list(range(1, 16))
    with pytest.raises(StorageError):
        fill(again, 1)
    full.capacity = None
    assert again.commit() == 18


def test_J6_closing_after_a_refusal_leaves_a_sound_journal():
    """What a refused commit left half-written is gone when the journal is closed."""
    disk = CrashDisk()
    journal = open_journal(disk)
    fill(journal, 2)
    disk.capacity = disk.used + 100
    with pytest.raises(StorageError):
        fill(journal, 1, size=400)
    assert not journal.verify().ok
    disk.capacity = None
    journal.close()
    assert verify_folder(disk).ok


def test_J6_a_torn_group_is_cut_off_on_a_full_disk_too():
    """With no room to write the segment anew it is cut in place, and that is durable when it counts."""
    disk = CrashDisk()
    journal = open_journal(disk)
    fill(journal, 2)
    disk.capacity = disk.used + 100
    with pytest.raises(StorageError):
        fill(journal, 1, size=400)
    torn = disk.after_kill()
    torn.capacity = torn.used
    again = open_journal(torn)
    assert again.durable_seq == 6
    assert "torn write" in again.findings[0]
    torn.note("open")
    torn.capacity = None
    assert again.verify().ok
    fill(again, 1)
    torn.note("committed")
    for state in crash_states(torn):
        survivor = open_journal(state.disk())
        assert survivor.durable_seq in ((9,) if len(state.notes) == 2 else (6, 9))
        if state.notes:
            assert not [finding for finding in survivor.findings if "100 bytes" in finding]
        assert survivor.verify().ok
