"""The collector takes each record exactly once, in order, and says what it could not take."""

from __future__ import annotations

import json
import random
import shutil
import threading

import pytest

from aiotkit.bundle.sign import WATERMARK_TYPE, open_envelope, parse_envelope
from aiotkit.bundle.trust import make_trust
from aiotkit.core.canonical import digest
from aiotkit.core.errors import LakeError, SignatureError, StorageError
from aiotkit.core.records import RecordType, unpack_windows

pytest.importorskip("deltalake")
pytestmark = pytest.mark.desk


@pytest.fixture
def collector(lake, inbox, key):
    from aiotkit.fleet.collector import Collector

    return Collector(lake, inbox, key)


def reasons(inbox, device="press-1"):
    """Name of a quarantined file -> why."""
    folder = inbox / device / "quarantine"
    notes = [json.loads(p.read_text()) for p in folder.glob("*.reason.json")]
    return {n["file"]: n["reason"] for n in notes}


def test_collect_brings_every_record_of_every_device(lake, inbox, collector, world):
    """Records of several devices arrive complete, decisions with their fields, windows as blobs."""
    devices = [world.Device(f"press-{i}", f"{i}{i}aa00aa00aa00aa") for i in range(3)]
    for device in devices:
        device.decide(20)
        device.deliver_all(inbox, 7)
    done = collector.collect_once()
    assert (done.records, done.batches, done.commits) == (120, 18, 2)
    rows, blobs = world.world_of(lake)
    assert [(r["device"], r["seq"]) for r in rows] == [(d.name, s) for d in devices for s in range(1, 41)]
    row, frame = rows[1], devices[0].frames[1]
    assert row["payload"].encode() == frame.payload
    assert (row["digest"], row["head"]) == (digest(frame.payload), frame.head.hex())
    assert (row["decision_id"], row["revision"], row["bundle"]) == ("press-guard", 3, world.BUNDLE)
    assert (row["proposed"], row["verdict"], row["final"], row["mode"]) == ("slow", "ALLOW", "slow", "act")
    assert row["at"].timestamp() == (world.START_US + 2 * world.STEP_US) / 1e6
    assert (row["verify_p"], row["verify_hit"], row["upload_hit"]) == (0.5, True, True)
    assert unpack_windows(blobs[row["window"]])["vib"].size == 50
    assert rows[0]["payload"] is None
    assert not rows[0]["withheld"]


def test_collected_batches_leave_and_the_watermark_says_so(inbox, collector, key, world):
    """After a round the batches are gone and a signed watermark names the last record and its head."""
    device = world.Device()
    device.decide(10)
    device.deliver_all(inbox, 6)
    collector.collect_once()
    folder = inbox / device.name
    assert world.names(folder.iterdir()) == ["watermark.json"]
    envelope = parse_envelope((folder / "watermark.json").read_bytes())
    trust = make_trust({"collector": ([key.public], 1)})
    said = json.loads(open_envelope(envelope, trust, "collector", WATERMARK_TYPE))
    head = device.head(20).hex()
    assert said == {
        "format": 1,
        "device": "press-1",
        "journal_id": device.journal_id,
        "seq": 20,
        "head": head,
    }
    with pytest.raises(SignatureError, match="names no keys"):
        open_envelope(envelope, trust, "operator", WATERMARK_TYPE)


def test_watermark_lies_in_the_same_commit_as_the_rows(lake, inbox, collector, world):
    """Whoever reads any version of the table finds exactly the rows up to that version's watermark."""
    device = world.Device()
    device.decide(30)
    for first in range(1, 61, 20):
        device.deliver(inbox, first, first + 19)
        collector.collect_once()
    for version in range(lake.table("decisions").version() + 1):
        mark = lake.table("decisions", version).transaction_version(f"press-1/{device.journal_id}") or 0
        assert lake.read("decisions", version=version).num_rows == mark


def test_J4_hole_waits_and_is_reported(lake, inbox, collector, world):
    """Batches behind a hole wait, the hole is named, and nothing is taken out of order."""
    device = world.Device()
    device.decide(15)
    device.deliver(inbox, 1, 10)
    device.deliver(inbox, 21, 30)
    done = collector.collect_once()
    assert done.records == 10
    (waiting,) = done.waiting
    assert (waiting.device, waiting.needed, waiting.found) == ("press-1", 11, 21)
    device.deliver(inbox, 11, 20)
    done = collector.collect_once()
    assert (done.records, done.waiting) == (20, ())
    assert [r["seq"] for r in world.world_of(lake)[0]] == list(range(1, 31))


def test_J4_overlapping_batches_add_only_what_is_new(lake, inbox, collector, world):
    """A batch that begins before the watermark brings its tail, and its known part is counted."""
    device = world.Device()
    device.decide(10)
    device.deliver(inbox, 1, 12)
    collector.collect_once()
    device.deliver(inbox, 5, 20)
    done = collector.collect_once()
    assert (done.records, done.duplicates) == (8, 8)
    assert [r["seq"] for r in world.world_of(lake)[0]] == list(range(1, 21))


@pytest.mark.parametrize("seed", range(10))
def test_J4_any_delivery_gives_the_same_lake(seed, tmp_path, key, world):
    """Duplicated, reordered, delayed and lost-then-resent batches leave the lake of a quiet day."""
    from aiotkit.fleet.collector import Collector
    from aiotkit.lake.lake import Lake

    rng = random.Random(seed)
    root = tmp_path
    devices = [world.Device("press-1"), world.Device("press-2", "bb11bb11bb11bb11")]
    calm, rough = Lake.create(root / "calm"), Lake.create(root / "rough")
    for device in devices:
        device.decide(rng.randint(5, 15))
        device.deliver_all(root / "quiet", len(device.frames))
    Collector(calm, root / "quiet", key).collect_once()
    flight = [
        (d, f, min(f + rng.randint(0, 8), len(d.frames)))
        for d in devices
        for f in range(1, len(d.frames) + 1)
        for _ in range(rng.choice((0, 1, 1, 3)))
    ]
    rng.shuffle(flight)
    inbox = root / "inbox"
    inbox.mkdir()
    collector = Collector(rough, inbox, key, round_bytes=4000)
    for device, first, last in flight:
        device.deliver(inbox, first, last)
        if rng.random() < 0.2:
            collector.collect_once()
    for device in devices:  # what was lost is sent again: the device still holds it
        mark = rough.watermark(f"{device.name}/{device.journal_id}") or 0
        if mark < len(device.frames):
            device.deliver(inbox, mark + 1, len(device.frames))
    collector.collect_once()
    assert world.world_of(rough) == world.world_of(calm)
    assert not list(inbox.rglob("*.ajb"))


def test_J8_changed_batch_is_quarantined(inbox, collector, lake, world):
    """A flipped byte anywhere in a batch keeps all of it out of the lake, with the reason beside it."""
    device = world.Device()
    device.decide(2, samples=4)
    data = device.batch(1, 4)
    rng = random.Random(1)
    for at in sorted(rng.sample(range(len(data)), 40)):
        bad = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        path = device.deliver(inbox, 1, 4, bad)
        done = collector.collect_once()
        assert (done.records, len(done.quarantined)) == (0, 1), at
        assert not path.exists()
    assert len(reasons(inbox)) == 1
    assert len(list((inbox / "press-1" / "quarantine").glob("*.reason.json"))) == 40
    device.deliver(inbox, 1, 4, data)
    assert collector.collect_once().records == 4


def test_J8_splice_from_another_journal_is_quarantined(inbox, collector, lake, world):
    """Frames of another device under this device's header do not continue its chain."""
    mine, other = world.Device(), world.Device("press-2")
    mine.decide(4)
    other.decide(8)
    mine.deliver(inbox, 1, 8)
    collector.collect_once()
    spliced = other.batch(9, 16, lies={"device": "press-1"})
    path = mine.deliver(inbox, 9, 16, spliced)
    collector.collect_once()
    assert "does not continue what was collected" in reasons(inbox)[path.name]
    forged = other.batch(9, 16, lies={"device": "press-1", "previous": mine.head(8).hex()})
    path = mine.deliver(inbox, 9, 16, forged)
    collector.collect_once()
    assert reasons(inbox)
    assert lake.read("decisions").num_rows == 8


def test_J8_rewritten_history_is_quarantined(inbox, collector, lake, world):
    """A journal that was rewritten from the middle does not pass as a continuation."""
    device, copy = world.Device(), world.Device()
    device.decide(4)
    device.deliver(inbox, 1, 8)
    collector.collect_once()
    copy.decide(3)
    copy.decide(3, samples=7)
    for first, last in ((5, 10), (1, 8)):
        path = copy.deliver(inbox, first, last)
        done = collector.collect_once()
        assert "collected with another content" in reasons(inbox)[path.name]
        assert done.records == 0


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"device": "press-9"}, "another device"),
        ({"last": 5}, "file name"),
        ({"format": 2}, "format"),
        ({"color": "red"}, "color"),
        ({"previous": "00"}, "previous"),
        ({"gap": {"first": 1, "last": 3}}, "gap"),
    ],
)
def test_J8_lying_header_is_quarantined(inbox, collector, world, header, words):
    """A header that contradicts its folder, name or format is put aside with the reason."""
    device = world.Device()
    device.decide(2)
    path = device.deliver(inbox, 1, 4, device.batch(1, 4, lies=header))
    assert collector.collect_once().records == 0
    assert words in reasons(inbox)[path.name]


def test_J8_batch_with_fewer_records_than_it_says_is_quarantined(inbox, collector, world):
    """A batch cut at a record's end, or with one record too many, is not taken in part."""
    device = world.Device()
    device.decide(3)
    for last in (3, 5):
        path = device.deliver(inbox, 1, 4, device.batch(1, last, lies={"last": 4}))
        assert collector.collect_once().records == 0
        assert f"record {last}: the batch ends here; expected records up to 4" in reasons(inbox)[path.name]
        shutil.rmtree(inbox / "press-1" / "quarantine")


def test_quarantined_batch_does_not_stop_the_good_copy(inbox, collector, lake, world):
    """When a bad and a good batch of the same records lie there, the good one is taken."""
    device = world.Device()
    device.decide(4)
    device.deliver(inbox, 1, 6, device.batch(1, 6)[:-3])
    device.deliver(inbox, 1, 8)
    done = collector.collect_once()
    assert (done.records, len(done.quarantined)) == (8, 1)


def test_stray_files_are_put_aside(inbox, collector, world):
    """A file of the batch suffix with another name is quarantined; half-written ones are left alone."""
    folder = inbox / "press-1"
    folder.mkdir()
    (folder / "hello.ajb").write_bytes(b"x")
    (folder / ".batch-x.ajb.part").write_bytes(b"x")
    done = collector.collect_once()
    assert done.quarantined[0][0] == "press-1/hello.ajb"
    assert (folder / ".batch-x.ajb.part").exists()


def test_oversized_batch_is_refused_unread(inbox, collector, world):
    """A file above the size limit is put aside by its size alone."""
    device = world.Device()
    device.decide(2)
    path = device.deliver(inbox, 1, 4)
    with path.open("r+b") as file:
        file.truncate((256 << 20) + 1)
    collector.collect_once()
    assert "at most 268435456 bytes" in reasons(inbox)[path.name]


def test_J3_dropped_records_are_taken_down(inbox, collector, lake, world):
    """After a drop the batch that tells of the gap is taken, and the books balance before and after."""
    from aiotkit.fleet.balance import Balance, balance

    device = world.Device()
    device.decide(10)
    device.deliver(inbox, 1, 6)
    collector.collect_once()
    device.deliver(inbox, 15, 20)
    assert collector.collect_once().waiting[0].needed == 7
    device.deliver(inbox, 15, 20, gap=(5, 14))
    done = collector.collect_once()
    assert (done.records, done.dropped) == (6, 8)
    assert balance(lake, "press-1") == Balance(produced=20, delivered=12, gaps=8)
    world.tell_gap(device, 1, 14)
    device.deliver(inbox, 21, 21)
    collector.collect_once()
    assert balance(lake, "press-1") == Balance(produced=21, delivered=13, gaps=8)
    assert balance(lake, "press-1").balanced


def test_J3_journal_that_lost_its_beginning_starts_behind_the_gap(inbox, collector, lake, world):
    """A device that dropped its oldest records before anything left it is collected from there on."""
    from aiotkit.fleet.balance import balance

    device = world.Device()
    device.decide(10)
    device.deliver(inbox, 11, 20, gap=(1, 10))
    done = collector.collect_once()
    assert (done.records, done.dropped) == (10, 10)
    assert balance(lake, "press-1").gaps == 10
    device.decide(1)
    device.deliver(inbox, 21, 22)
    assert collector.collect_once().records == 2


def test_gap_that_leaves_a_hole_before_it_waits(inbox, collector, world):
    """A gap accounts for what it names only: a hole before it must still be filled."""
    device = world.Device()
    device.decide(10)
    device.deliver(inbox, 15, 20, gap=(9, 14))
    assert collector.collect_once().waiting[0].needed == 1
    device.deliver(inbox, 1, 8)
    assert collector.collect_once().records == 14


def test_records_that_arrive_before_their_gap_is_used_are_kept(inbox, collector, lake, world):
    """What was declared dropped but lies in the inbox all the same is taken, not skipped."""
    device = world.Device()
    device.decide(10)
    device.deliver(inbox, 11, 20, gap=(1, 10))
    device.deliver(inbox, 1, 10)
    assert collector.collect_once().dropped == 0
    assert lake.read("decisions").num_rows == 20


def test_records_that_arrive_while_the_inbox_is_listed_are_kept(inbox, collector, lake, world):
    """A gap is not taken down when what it names has come between the listing and the reading."""
    from aiotkit.fleet.inbox import Inbox

    class LateInbox(Inbox):
        """Lists a folder, and finds a batch more the next time."""

        def batches(self, device):
            found = super().batches(device)
            late.deliver(inbox, 1, 10)
            return found

    late = world.Device()
    late.decide(10)
    late.deliver(inbox, 11, 20, gap=(1, 10))
    collector._inbox = LateInbox(inbox)
    assert collector.collect_once().records == 0
    done = collector.collect_once()
    assert (done.records, done.dropped) == (20, 0)


def test_reinstalled_device_starts_a_new_stream(inbox, collector, lake, world):
    """A new journal of a known device begins at 1 beside the old one, and its watermark is told."""
    old, new = world.Device(), world.Device(journal_id="cc22cc22cc22cc22")
    old.decide(5)
    new.decide(3)
    old.deliver(inbox, 1, 8)
    collector.collect_once()
    new.deliver(inbox, 1, 6)
    collector.collect_once()
    assert world.payload_of(inbox / "press-1" / "watermark.json")["journal_id"] == new.journal_id
    old.deliver(inbox, 9, 10)  # a straggler of the old journal
    done = collector.collect_once()
    assert (done.records, done.quarantined) == (2, ())
    new.deliver(inbox, 1, 6)  # the device sends again, because it heard nothing
    collector.collect_once()
    assert world.payload_of(inbox / "press-1" / "watermark.json")["seq"] == 6
    assert lake.read("decisions").num_rows == 16


def test_withheld_payloads_keep_their_place(inbox, collector, lake, world):
    """Records whose payload stays on the device are rows with digest and head, and no blob."""
    device = world.Device()
    device.decide(5)
    device.deliver(inbox, 1, 4, withheld=lambda f: f.type is RecordType.WINDOW)
    device.deliver(inbox, 5, 10, withheld=bool)
    collector.collect_once()
    rows, blobs = world.world_of(lake)
    assert [r["withheld"] for r in rows] == [True, False, True, False] + [True] * 6
    assert blobs == {}
    assert rows[5]["payload"] is None
    assert rows[5]["at"] is None
    assert rows[5]["digest"] == f"sha256:{device.frames[5].digest.hex()}"


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xfe not text",
        b"[" * 100_000,
        b'{"in": 1, "out": 2}',
        b'{"bundle":"\\ud800","in":{"now_us":1e400},"out":{"verify":[0.5,true],"upload":["x",1]}}',
        b'{"in":{"now_us":99999999999999999999999},"out":{"verify":[1,0],"upload":[1,0]}}',
        b"",
    ],
)
def test_T7_record_of_odd_content_is_kept_and_harms_nothing(inbox, collector, lake, world, payload):
    """A sound chain around nonsense is collected as it is: its bytes stay readable, its fields empty."""
    device = world.Device()
    device.record(RecordType.DECISION, payload)
    device.decide(1)
    device.deliver(inbox, 1, 3)
    assert collector.collect_once().records == 3
    rows, blobs = world.world_of(lake)
    kept = rows[0]["payload"]
    assert (kept.encode() if kept is not None else blobs[rows[0]["digest"]]) == payload
    assert rows[0]["at"] is None


def test_round_reads_no_more_than_its_budget(inbox, lake, key, world):
    """A backlog is taken in rounds of bounded size, one commit each for all devices, none starved."""
    from aiotkit.fleet.collector import Collector

    devices = [world.Device(f"press-{i}") for i in range(4)]
    for device in devices:
        device.decide(40)
        device.deliver_all(inbox, 10)
    biggest = max(p.stat().st_size for p in inbox.rglob("*.ajb"))
    rounds = []
    collector = Collector(lake, inbox, key, round_bytes=4 * biggest, on_round=rounds.append)
    done = collector.collect_once()
    assert done.records == 320
    assert max(r.size for r in rounds) < 5 * biggest
    assert len(rounds) >= 7
    assert {r.commits for r in rounds} == {2}
    first = lake.read("decisions", version=1)
    assert set(first["device"].to_pylist()) == {d.name for d in devices}


def test_second_collector_on_an_inbox_is_refused(inbox, lake, key, world, collector):
    """Two collectors never work on one inbox at the same time."""
    from aiotkit.fleet.collector import Collector

    other = Collector(lake, inbox, key)
    seen = []

    def while_first_works(_):
        with pytest.raises(StorageError, match="another collector works here"):
            other.collect_once()
        seen.append(1)

    device = world.Device()
    device.decide(1)
    device.deliver(inbox, 1, 2)
    Collector(lake, inbox, key, on_round=while_first_works).collect_once()
    assert seen == [1]
    assert other.collect_once().records == 0


def test_two_collectors_on_one_stream_cannot_double_it(tmp_path, lake, key, world):
    """When a device delivers to two inboxes of one lake, records are still taken once."""
    from aiotkit.fleet.collector import Collector

    device = world.Device()
    device.decide(10)
    for name in ("a", "b"):
        device.deliver_all(tmp_path / name, 5)
    failed = []
    start = threading.Barrier(2)

    def work(name):
        from aiotkit.lake.lake import Lake

        collector = Collector(Lake.open(lake.uri), tmp_path / name, key, round_bytes=1)
        start.wait()
        for _ in range(20):
            try:
                collector.collect_once()
            except LakeError as error:
                failed.append(str(error))

    threads = [threading.Thread(target=work, args=(n,)) for n in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r["seq"] for r in world.world_of(lake)[0]] == list(range(1, 21))
    assert not list(tmp_path.rglob("*.ajb"))
    assert all("watermark" in text or "commit lost" in text for text in failed)


def test_restarted_collector_tells_the_watermark_from_the_table(inbox, lake, key, world, collector):
    """A watermark file that was lost, damaged or is behind is written again from the table."""
    from aiotkit.fleet.collector import Collector

    device = world.Device()
    device.decide(5)
    device.deliver(inbox, 1, 10)
    collector.collect_once()
    path = inbox / "press-1" / "watermark.json"
    told = path.read_bytes()
    for damage in (None, b"{}", told[:-9]):
        path.unlink() if damage is None else path.write_bytes(damage)
        Collector(lake, inbox, key).collect_once()
        assert path.read_bytes() == told


def test_run_stops_when_told_and_finishes_its_round(inbox, lake, key, world):
    """``run`` goes on collecting what comes until it is stopped."""
    from aiotkit.fleet.collector import Collector

    device = world.Device()
    device.decide(10)
    stop = threading.Event()
    seen = []

    def on_round(done):
        seen.append(done.records)
        if len(seen) == 1:
            device.deliver(inbox, 11, 20)
        else:
            stop.set()

    device.deliver(inbox, 1, 10)
    done = Collector(lake, inbox, key, on_round=on_round).run(stop, every_s=0.01)
    assert seen == [10, 10]
    assert done.records == 20


def test_lake_that_lost_rows_is_not_silently_continued(inbox, lake, key, world, collector):
    """A watermark without its row means that somebody changed the table: the collector stops."""
    import pyarrow as pa

    device = world.Device()
    device.decide(3)
    device.deliver(inbox, 1, 6)
    empty = pa.table({n: [] for n in ("device", "journal_id", "seq", "type", "digest", "length", "head")})
    lake.append("decisions", empty, transactions={f"press-1/{device.journal_id}": 4})
    with pytest.raises(LakeError, match="which the watermark names; expected one row; found 0"):
        collector.collect_once()
