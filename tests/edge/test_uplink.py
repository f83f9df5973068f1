from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds.bundles import signing_key, trust_and_keys

from aiotkit.bundle.sign import WATERMARK_TYPE, sign
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.frames import Frame, decode_all, genesis, make_frame
from aiotkit.core.records import RecordType
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.journal import Journal
from aiotkit.edge.uplink import MAX_RECORDS, FolderUplink, Pace, next_batch, withheld
from aiotkit.edge.watermark import Watermark

TRUST, _, _, COLLECTOR = trust_and_keys()
DEVICE = "pump-1"


@pytest.fixture
def journal(tmp_path: Path):
    with Journal.open(RealDisk(tmp_path / "state"), DEVICE) as one:
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "up").mkdir()
    return tmp_path / "up"


def fill(journal: Journal, count: int) -> None:
    for i in range(count):
        journal.append(RecordType.RESULT, b'{"i":%d}' % i)
    journal.commit()


def collected(folder: Path, journal: Journal) -> list[Frame]:
    """What a collector would take from the batches, verified against the chain."""
    frames: list[Frame] = []
    head = genesis(DEVICE, journal.journal_id)
    for path in sorted((folder / DEVICE).glob("batch-*.ajb")):
        line, _, body = path.read_bytes().partition(b"\n")
        said = json.loads(line)
        assert path.name == f"batch-{said['journal_id']}-{said['first']:012d}-{said['last']:012d}.ajb"
        assert bytes.fromhex(said["previous"]) == head or "gap" in said
        batch = list(decode_all(body, bytes.fromhex(said["previous"]), said["first"]))
        assert batch[-1].seq == said["last"]
        frames += batch
        head = batch[-1].head
    return frames


def mark(folder: Path, journal: Journal, seq: int, key=None) -> None:
    head = journal.head_before(seq + 1)
    assert head is not None
    said = Watermark(device=DEVICE, journal_id=journal.journal_id, seq=seq, head=head.hex())
    envelope = sign(WATERMARK_TYPE, said.canonical(), [key or COLLECTOR]).to_bytes()
    (folder / DEVICE / "watermark.json").write_bytes(envelope)


def test_everything_durable_arrives_in_order_and_in_bounded_batches(journal, folder):
    """Batches chain to one another from the first record to the last; none is larger than the bound."""
    fill(journal, 2 * MAX_RECORDS + 5)
    uplink = FolderUplink(folder, journal, TRUST, "raw")
    assert uplink.step()
    assert uplink.sent_seq == MAX_RECORDS  # bounded work a step
    while uplink.step(flush=True):
        pass
    frames = collected(folder, journal)
    assert [f.seq for f in frames] == list(range(1, journal.durable_seq + 1))
    assert not [p for p in (folder / DEVICE).iterdir() if not p.name.startswith("batch-")]


def test_records_wait_for_company(journal, folder):
    """A few fresh records are not sent one by one; after batch_s, or at the end, they leave."""
    uplink = FolderUplink(folder, journal, TRUST, "raw", Pace(batch_s=60))
    fill(journal, 3)
    assert not uplink.step()
    assert uplink.step(flush=True)
    assert len(collected(folder, journal)) == 3
    eager = FolderUplink(folder, journal, TRUST, "raw", Pace(batch_s=0))
    assert eager.step()


def test_what_is_not_durable_does_not_leave(journal, folder):
    """Only acknowledged records are sent."""
    journal.append(RecordType.RESULT, b"{}")
    assert not FolderUplink(folder, journal, TRUST, "raw").step(flush=True)


def test_J5_only_the_collectors_signed_watermark_trims(journal, folder):
    """A batch taken away, or a watermark by another key, ends no record's stay; the right one does."""
    fill(journal, 10)
    uplink = FolderUplink(folder, journal, TRUST, "raw")
    uplink.step(flush=True)
    shutil.rmtree(folder / DEVICE)
    uplink.step()
    assert journal.delivered.seq == 0
    (folder / DEVICE).mkdir()
    mark(folder, journal, 10, signing_key("somebody"))
    uplink.step()
    assert journal.delivered.seq == 0
    assert "found 0" in uplink.last_error
    uplink = FolderUplink(folder, journal, TRUST, "raw")
    mark(folder, journal, 7)
    uplink.step()
    assert (journal.delivered.seq, uplink.delivered_seq) == (7, 7)
    assert uplink.step(flush=True)
    assert [p.name[-16:-4] for p in (folder / DEVICE).glob("batch-*")] == ["000000000010"]


def test_J5_what_vanished_without_a_watermark_is_sent_again(journal, folder):
    """An emptied folder without a watermark is noticed, and everything since the last one comes again."""
    fill(journal, 10)
    uplink = FolderUplink(folder, journal, TRUST, "raw", Pace(resend_s=0.1))
    uplink.step(flush=True)
    shutil.rmtree(folder / DEVICE)
    time.sleep(0.1)
    uplink.step()
    uplink.step(flush=True)
    assert [f.seq for f in collected(folder, journal)] == list(range(1, 11))


def test_J5_a_batch_that_was_put_aside_is_sent_again_though_later_ones_wait(journal, folder):
    """One batch in quarantine must not stop the stream for good: the record that is needed comes again."""
    uplink = FolderUplink(folder, journal, TRUST, "raw", Pace(resend_s=0.1))
    for _ in range(2):
        fill(journal, 5)
        uplink.step(flush=True)
    first, *later = sorted((folder / DEVICE).glob("batch-*.ajb"))
    first.rename(first.with_suffix(".aside"))
    assert later
    time.sleep(0.1)
    uplink.step()
    uplink.step(flush=True)
    names = [path.name for path in (folder / DEVICE).glob("batch-*.ajb")]
    assert any(int(name.split("-")[2]) == 1 for name in names)


def test_J3_a_folder_that_is_gone_loses_nothing(journal, tmp_path):
    """Missing, a plain file, then there: an error in words meanwhile, and everything arrives in the end."""
    folder = tmp_path / "later"
    fill(journal, 5)
    uplink = FolderUplink(folder, journal, TRUST, "raw", Pace(retry_s=0))
    assert not uplink.step(flush=True)
    assert "No such file" in uplink.last_error
    folder.write_bytes(b"in the way")
    assert not uplink.step(flush=True)
    assert "Not a directory" in uplink.last_error
    folder.unlink()
    folder.mkdir()
    assert uplink.step(flush=True)
    assert uplink.last_error == ""
    assert len(collected(folder, journal)) == 5


def test_a_refusing_folder_is_not_asked_all_the_time(journal, tmp_path):
    """After a failure the next steps do nothing until a pause is over."""
    fill(journal, 5)
    uplink = FolderUplink(tmp_path / "later", journal, TRUST, "raw", Pace(retry_s=0.05))
    assert not uplink.step(flush=True)
    (tmp_path / "later").mkdir()
    assert not uplink.step(flush=True)
    time.sleep(0.06)
    assert uplink.step(flush=True)


def frames_of(*records: tuple[RecordType, bytes]) -> list[Frame]:
    frames, head = [], b"\0" * 32
    for seq, (kind, payload) in enumerate(records, 1):
        frames.append(make_frame(kind, seq, payload, head))
        head = frames[-1].head
    return frames


def decision(window: bytes, p: float, u: float) -> tuple[RecordType, bytes]:
    from aiotkit.core.canonical import digest

    return RecordType.DECISION, canonical_bytes({"in": {"window": digest(window)}, "out": {"upload": [p, u]}})


def test_windows_leave_only_when_drawn():
    """Selected: the draw of the decision that follows decides; raw: all; none: only what says nothing."""
    frames = frames_of(
        (RecordType.WINDOW, b"one"),
        decision(b"one", 0.5, 0.4),
        (RecordType.WINDOW, b"two"),
        decision(b"two", 0.5, 0.5),
        (RecordType.WINDOW, b"other"),
        decision(b"elsewhere", 1.0, 0.0),
        (RecordType.QUESTION, b"{}"),
        (RecordType.RESULT, b"{}"),
        (RecordType.WINDOW, b"three"),
        (RecordType.SHADOW, decision(b"three", 1.0, 0.0)[1]),
        (RecordType.WINDOW, b"alone"),
    )
    shown = {u: [f.seq for f in withheld(frames, u) if not f.withheld] for u in ("raw", "selected", "none")}
    assert shown["raw"] == list(range(1, 12))
    assert shown["selected"] == [1, 2, 4, 6, 7, 8, 10]
    assert shown["none"] == [8]
    assert [f.head for f in withheld(frames, "none")] == [f.head for f in frames]


def test_a_window_waits_for_its_decision():
    """A batch does not end between a window and the decision that says whether it may leave."""
    frames = frames_of((RecordType.RESULT, b"{}"), (RecordType.WINDOW, b"one"))
    batch = next_batch(frames, 0, b"\0" * 32, whole=False)
    assert [f.seq for f in batch.frames] == [1]
    assert [f.seq for f in next_batch(frames, 0, b"\0" * 32, whole=True).frames] == [1, 2]


@given(st.sets(st.integers(1, 30)), st.integers(0, 10), st.booleans())
def test_holes_are_told_and_every_batch_verifies(missing, after, known):
    """Whatever was dropped: batches are contiguous, chain from 'previous', and gaps cover what is missing."""
    whole = frames_of(*[(RecordType.RESULT, b"%d" % i) for i in range(30)])
    heads = {0: b"\0" * 32} | {f.seq: f.head for f in whole}
    here = [f for f in whole if f.seq not in missing and f.seq > after]
    told: set[int] = set()
    sent = after
    while rest := [f for f in here if f.seq > sent]:
        previous = heads[rest[0].seq - 1] if known or rest[0].seq == sent + 1 else None
        batch = next_batch(rest, sent, previous, whole=True)
        if batch is None:
            break
        first = batch.frames[0].seq
        assert batch.previous == heads[first - 1]
        assert [f.seq for f in batch.frames] == list(range(first, batch.frames[-1].seq + 1))
        assert (batch.gap is None) == (first == sent + 1)
        if batch.gap is not None:
            assert batch.gap == (sent + 1, first - 1)
            told |= set(range(batch.gap[0], batch.gap[1] + 1))
        sent = batch.frames[-1].seq
        told |= {f.seq for f in batch.frames}
    assert told == set(range(after + 1, sent + 1))
    if known:
        assert sent == max([f.seq for f in here], default=after)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


IN_THE_WAY = {
    "a pipe": (os.mkfifo, "regular file"),
    "a folder": (Path.mkdir, "regular file"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "Too many levels"),
    "a huge file": (sparse, "at most 65536 bytes"),
}


@pytest.mark.parametrize(("put", "words"), IN_THE_WAY.values(), ids=IN_THE_WAY.keys())
def test_T8_what_lies_in_the_watermarks_place_costs_nothing(journal, folder, put, words):
    """A pipe, a folder, a link or a huge file is refused in words, without waiting; a good one trims then."""
    fill(journal, 5)
    uplink = FolderUplink(folder, journal, TRUST, "raw", Pace(retry_s=0))
    uplink.step(flush=True)
    place = folder / DEVICE / "watermark.json"
    put(place)
    uplink.step()
    assert words in uplink.last_error
    assert journal.delivered.seq == 0
    place.rmdir() if place.is_dir() else place.unlink()
    mark(folder, journal, 5)
    uplink.step()
    assert journal.delivered.seq == 5


def test_T8_a_pipe_under_a_batchs_name_is_not_waited_for(journal, folder):
    """Whoever knows the name of the next batch cannot stop the device with it."""
    fill(journal, 3)
    (folder / DEVICE).mkdir()
    os.mkfifo(folder / DEVICE / f".batch-{journal.journal_id}-{1:012d}-{3:012d}.ajb.new")
    assert FolderUplink(folder, journal, TRUST, "raw").step(flush=True)
    assert len(collected(folder, journal)) == 3


@pytest.mark.parametrize("odd", [" (copy)", "-x", "²", ".1"])
def test_T8_odd_names_in_the_folder_are_passed_over(journal, folder, odd):
    """A copied batch is no batch: what it holds is sent again under its own name."""
    fill(journal, 5)
    uplink = FolderUplink(folder, journal, TRUST, "raw", Pace(resend_s=0.1))
    uplink.step(flush=True)
    (batch,) = (folder / DEVICE).glob("batch-*.ajb")
    batch.rename(batch.with_name(f"{batch.stem}{odd}.ajb"))
    time.sleep(0.1)
    uplink.step()
    uplink.step(flush=True)
    assert batch.exists()
