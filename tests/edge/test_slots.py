"""Slots: what runs, how a new bundle gets in, and the way back."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, dataclass, replace
from pathlib import Path

import pytest
from worlds.bundles import expectation, signing_key
from worlds.crash import CrashDisk
from worlds.releases import (
    RELEASE_KEYS,
    TRUST,
    release,
    release_digest,
    slots_on,
    small_files,
    unsigned,
)

from aiotkit.bundle.trust import make_trust
from aiotkit.core.errors import (
    GoldenError,
    IntegrityError,
    MismatchError,
    RollbackRefused,
    SignatureError,
    SlotError,
    StorageError,
)
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.pointers import MAX_POINTER_BYTES, Content, Pointer, decode_pointer
from aiotkit.edge.slots import ARCHIVES, POINTERS, Slots


def device(*counters: int) -> CrashDisk:
    """A disk on which these releases were installed one after the other."""
    disk = CrashDisk()
    for counter in counters:
        slots_on(disk).install(release(counter))
    return disk


def changed(disk: CrashDisk, **files: bytes | None) -> CrashDisk:
    """A copy of a disk with files of ``slots/`` replaced, or removed (None); ``_aiot`` stands for .aiot."""
    names = {f"slots/{name.replace('_aiot', '.aiot')}": data for name, data in files.items()}
    kept = {path: data for path, data in disk.files.items() if path not in names}
    return CrashDisk(kept | {p: d for p, d in names.items() if d is not None}, frozenset({"slots"}))


def test_a_fresh_device_says_what_to_do() -> None:
    """Without a bundle, booting fails with the command to run, and the status is empty and calm."""
    slots = slots_on(CrashDisk())
    with pytest.raises(
        SlotError, match=r"no bundle was ever installed\. Install a signed bundle: aiotkit-edge"
    ):
        slots.active()
    status = slots.status()
    assert (status.active, status.previous, status.generation, status.floor) == (None, None, 0, 0)
    assert status.events == ()


def test_an_installed_bundle_runs() -> None:
    """After an install that bundle is active, in every later look at the disk."""
    disk = CrashDisk()
    installed = slots_on(disk).install(release(1))
    found = slots_on(disk.after_kill()).boot()
    assert found.bundle.digest == installed.digest == release_digest(1)
    assert found.bundle.files["decision.json"] == small_files()["decision.json"]
    assert found.events == ()


def test_the_real_disk_serves_as_well(tmp_path: Path) -> None:
    """On a real folder: install twice, roll back, and nothing but slots, pointers and lock is left."""
    slots = slots_on(RealDisk(tmp_path))
    slots.install(release(1))
    slots.install(release(2))
    assert slots.rollback().digest == release_digest(1)
    assert slots_on(RealDisk(tmp_path)).active().digest == release_digest(1)
    assert sorted(p.name for p in (tmp_path / "slots").iterdir()) == [
        "lock",
        "ptr0",
        "ptr1",
        "slot0.aiot",
        "slot1.aiot",
    ]


def test_the_running_slot_is_never_written() -> None:
    """Ten installs in turn: the archive that runs keeps its bytes until the other one has taken over."""
    disk = device(1)
    for counter in range(2, 12):
        running = ARCHIVES[slots_on(disk).boot().slot]
        before, ops = disk.files[running], len(disk.ops)
        slots_on(disk).install(release(counter))
        touched = {name for op in disk.ops[ops:] for name in (op.path, op.new)}
        assert running not in touched
        assert disk.files[running] == before
        assert slots_on(disk).generation == counter


def test_status_names_both_slots_and_is_frozen() -> None:
    """The status says what runs, what a rollback would run, generation and floor."""
    status = slots_on(device(1, 3)).status()
    assert status.active is not None
    assert status.previous is not None
    assert (status.active.release_counter, status.previous.release_counter) == (3, 1)
    assert (status.active.decision, status.active.revision) == ("bearing-test", 1)
    assert (status.generation, status.floor) == (2, 3)
    with pytest.raises(FrozenInstanceError):
        status.floor = 0


def test_the_same_bundle_again_is_a_success_that_writes_nothing() -> None:
    """Installing what runs already changes no byte and takes no generation."""
    disk = device(1, 2)
    before, ops = disk.files, len(disk.ops)
    assert slots_on(disk).install(release(2)).digest == release_digest(2)
    assert (disk.files, len(disk.ops)) == (before, ops)


def test_the_same_bundle_with_other_signatures_keeps_the_way_back() -> None:
    """One more signature is no new bundle: nothing changes and the previous release stays."""
    disk = device(1, 2)
    resigned = unsigned(2).archive([*RELEASE_KEYS, signing_key("a third")])
    assert resigned != release(2)
    assert slots_on(disk).install(resigned).digest == release_digest(2)
    assert slots_on(disk).rollback().digest == release_digest(1)


def test_rollback_keeps_the_floor() -> None:
    """After going back the older release runs, and still cannot be let in from outside."""
    disk = device(1, 2)
    assert slots_on(disk).rollback().digest == release_digest(1)
    again = slots_on(disk)
    assert again.active().digest == release_digest(1)
    assert again.floor == 2
    with pytest.raises(RollbackRefused, match="expected at least 2, the floor of this device; found 1"):
        again.install(_another_first())
    assert again.install(release(2)).digest == release_digest(2)


def test_a_rolled_back_release_can_be_installed_again_only_where_it_runs() -> None:
    """The release that runs after a rollback is a no-op to install, though it lies below the floor."""
    disk = device(1, 2)
    slots_on(disk).rollback()
    assert slots_on(disk).install(release(1)).digest == release_digest(1)
    slots_on(disk).install(release(3))
    with pytest.raises(RollbackRefused, match="at least 3"):
        slots_on(disk).install(release(1))


def test_rollback_is_one_step() -> None:
    """A second rollback would lead to the newer release again, and is refused with what to do."""
    disk = device(1, 2)
    slots_on(disk).rollback()
    with pytest.raises(SlotError, match=r"rolled back already\. To return to the newer release, install it"):
        slots_on(disk).rollback()
    assert slots_on(disk).active().digest == release_digest(1)


def test_nothing_to_roll_back_to() -> None:
    """On the first bundle, or on none, a rollback is refused and changes nothing."""
    with pytest.raises(SlotError, match="nothing to roll back to; found no other bundle was installed"):
        slots_on(CrashDisk()).rollback()
    disk = device(1)
    before = disk.files
    with pytest.raises(SlotError, match="nothing to roll back to; found no other bundle was installed"):
        slots_on(disk).rollback()
    assert disk.files == before


def test_a_damaged_previous_release_is_no_way_back() -> None:
    """A rollback onto bytes that do not verify is refused, and the active bundle runs on."""
    disk = changed(device(1, 2), slot0_aiot=release(1)[:-1])
    with pytest.raises(SlotError, match=r"the other slot is refused; found slots/slot0\.aiot"):
        slots_on(disk).rollback()
    assert slots_on(disk).active().digest == release_digest(2)


def _golden_gone_wrong() -> dict[str, bytes]:
    """Files whose golden cases expect another decision than the one this device takes."""
    files = dict(small_files())
    golden = json.loads(files["golden.json"])
    case = golden["cases"][0]["expected"]
    case["proposed"] = "stop" if case["proposed"] != "stop" else "run"
    files["golden.json"] = json.dumps(golden).encode()
    return files


def test_a_bundle_that_decides_differently_here_is_refused() -> None:
    """Golden cases run on this device before anything is put in place; both slots stay as they were."""
    disk = device(1, 2)
    before = disk.files
    with pytest.raises(GoldenError, match="decides differently on this hardware"):
        slots_on(disk).install(unsigned(3, _golden_gone_wrong()).archive(RELEASE_KEYS))
    assert disk.files == before
    assert slots_on(disk).floor == 2
    assert slots_on(disk).rollback().digest == release_digest(1)


def test_golden_cases_run_before_a_rollback_too() -> None:
    """A previous release that decides differently by now (its runtime changed) is not put into force."""
    disk = device(1)
    bad = unsigned(2, _golden_gone_wrong())
    archive = bad.archive(RELEASE_KEYS)
    content = Content(slot=1, archive=_sha(archive), size=len(archive), bundle=bad.digest)
    disk = changed(
        disk,
        slot1_aiot=archive,
        ptr1=disk.files["slots/ptr1"],
        ptr0=Pointer(generation=2, floor=2, content=content).encode(),
    )
    slots_on(disk).install(release(3))  # over slot 0: the bad one is the way back now
    for back in (slots_on(disk).rollback, lambda: slots_on(disk).give_up("late")):
        with pytest.raises(GoldenError, match="decides differently on this hardware"):
            back()
    assert slots_on(disk).active().digest == release_digest(3)
    assert slots_on(disk).trials.denied == ()


class Flipping(CrashDisk):
    """A disk that stores one bit wrongly in what is staged."""

    def write(self, path: str, data: bytes) -> None:
        if "staged" in path:
            data = data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]
        super().write(path, data)


def test_what_the_disk_gives_back_is_verified_again() -> None:
    """A bit that flips on the way to the disk is found before the slot is put into force."""
    disk = Flipping(device(1).files, frozenset({"slots"}))
    with pytest.raises(IntegrityError, match="bundle"):
        slots_on(disk).install(release(2))
    assert slots_on(disk).active().digest == release_digest(1)
    assert set(disk.files) == set(device(1).files)


def test_a_damaged_active_slot_falls_back_and_says_so() -> None:
    """The previous release runs, the event names slot and reason, and a new install repairs it."""
    disk = changed(device(1, 2), slot1_aiot=release(2)[:-700] + b"x" + release(2)[-699:])
    found = slots_on(disk).boot()
    assert found.bundle.digest == release_digest(1)
    assert [event.kind for event in found.events] == ["slot-refused"]
    assert found.events[0].detail.startswith("generation 2 in slot 1: slots/slot1.aiot; expected sha256:")
    assert found.events[0].to_json()["kind"] == "slot-refused"
    assert found.generation == slots_on(disk).generation == 2  # nothing new: no reason to look again
    assert slots_on(disk).install(release(2)).digest == release_digest(2)
    assert slots_on(disk).boot().events == ()


def test_an_install_beside_a_damaged_slot_spares_what_runs() -> None:
    """When the fallback runs, the next install overwrites the damaged slot and not the fallback."""
    disk = changed(device(1, 2), slot1_aiot=None)
    slots_on(disk).install(release(3))
    found = slots_on(disk).status()
    assert found.active is not None
    assert found.previous is not None
    assert (found.active.slot, found.active.release_counter, found.previous.release_counter) == (1, 3, 1)


def test_both_slots_damaged_is_an_error_with_every_reason() -> None:
    """When nothing verifies nothing runs, and both reasons are told."""
    disk = changed(device(1, 2), slot0_aiot=b"", slot1_aiot=None)
    with pytest.raises(SlotError, match=r"generation 2 in slot 1.*found nothing; generation 1 in slot 0"):
        slots_on(disk).active()
    assert slots_on(disk).floor == 2
    assert slots_on(disk).install(release(2)).digest == release_digest(2)


@dataclass
class BadSector(CrashDisk):
    """A disk on which one file cannot be read."""

    bad: str = ""

    def read(self, path: str, at: int = 0, size: int | None = None) -> bytes:
        if path == self.bad:
            raise StorageError(f"cannot read {path}", found="Input/output error")
        return super().read(path, at, size)


def test_an_unreadable_slot_counts_as_damaged() -> None:
    """A read error in the active slot leads to the previous one, not to an exception."""
    healthy = device(1, 2)
    for bad, runs, kind in (
        ("slots/slot1.aiot", 1, "slot-refused"),
        ("slots/ptr0", 1, "pointer-damaged"),
        ("slots/ptr1", 2, "pointer-damaged"),
    ):
        found = slots_on(BadSector(healthy.files, frozenset({"slots"}), bad=bad)).boot()
        assert found.bundle.digest == release_digest(runs)
        assert [event.kind for event in found.events] == [kind]
        assert "Input/output error" in found.events[0].detail


def test_repair_brings_back_a_lost_pointer() -> None:
    """A lost pointer is reported, written again as keeper of the floor, and reported no more."""
    for lost in ("ptr0", "ptr1"):
        disk = changed(device(1, 2), **{lost: None})
        assert [event.kind for event in slots_on(disk).repair()] == ["pointer-missing"]
        after = slots_on(disk)
        assert after.repair() == ()
        for other in POINTERS:
            rest = changed(disk, **{other.removeprefix("slots/"): None})
            assert slots_on(rest).floor == 2


def test_repair_of_a_fresh_device_writes_nothing() -> None:
    """There is no floor to keep before the first bundle."""
    disk = CrashDisk()
    assert slots_on(disk).repair() == ()
    assert disk.files == {}


def test_trust_that_changed_refuses_what_runs() -> None:
    """A bundle signed by keys that are trusted no more does not boot."""
    other = make_trust({"release": ([signing_key("new").public], 1)})
    slots = Slots.open(device(1), other, expectation())
    with pytest.raises(SlotError, match="valid signatures by 1 of 1 trusted keys; found 0"):
        slots.active()


def test_a_device_that_became_another_refuses_what_runs() -> None:
    """Site, hardware and decision are asked at every boot, not only at the install."""
    disk = CrashDisk()
    slots_on(disk).install(release(1))
    elsewhere = Slots.open(disk, TRUST, expectation(site="hall-2"))
    with pytest.raises(SlotError, match="bundle: site; expected hall-2; found hall-1"):
        elsewhere.active()


def test_the_expectations_floor_is_not_used() -> None:
    """The slots keep their own floor: one passed in neither refuses nor admits anything."""
    disk = device(1, 2)
    slots = Slots.open(disk, TRUST, replace(expectation(), floor=99))
    assert slots.active().digest == release_digest(2)
    assert slots.install(release(3)).digest == release_digest(3)
    assert slots.floor == 3


@pytest.mark.parametrize(
    ("archive", "error", "words"),
    [
        (b"", IntegrityError, "ends within a header"),
        (release(2)[:-1], IntegrityError, "bundle archive"),
        (unsigned(2).archive(RELEASE_KEYS[:1]), SignatureError, "valid signatures by 2 of 2 trusted keys"),
        (unsigned(2, site=("hall-9",)).archive(RELEASE_KEYS), MismatchError, "bundle: site"),
    ],
    ids=["empty", "cut", "half signed", "other site"],
)
def test_what_is_refused_leaves_no_trace(archive: bytes, error: type[Exception], words: str) -> None:
    """A refused archive writes not one byte to the disk."""
    disk = device(1)
    before, ops = disk.files, len(disk.ops)
    with pytest.raises(error, match=words):
        slots_on(disk).install(archive)
    assert (disk.files, len(disk.ops)) == (before, ops)


def test_a_pointer_is_read_only_with_its_own_hash() -> None:
    """Right content under a wrong hash, other formats and oversize files are refused with the name."""
    good = Pointer(generation=0, floor=3).encode()
    assert decode_pointer(good, "ptr0") == Pointer(generation=0, floor=3)
    for bad in (b"", good[:-1], good + b" ", b"sha256:" + good, good.replace(b"3", b"2", 1)):
        with pytest.raises(IntegrityError, match="ptr0 is damaged"):
            decode_pointer(bad, "ptr0")
    body = b'{"content":null,"floor":3,"format":2,"generation":0}'
    with pytest.raises(IntegrityError, match="ptr0 is no pointer of format 1"):
        decode_pointer(_sha(body).encode() + b"\n" + body, "ptr0")
    padded = body + b" " * MAX_POINTER_BYTES
    with pytest.raises(IntegrityError, match="ptr0 is damaged"):
        decode_pointer(_sha(padded).encode() + b"\n" + padded, "ptr0")


def test_a_pointer_of_nested_brackets_is_damaged_not_a_crash() -> None:
    """A right hash over JSON that no parser can follow: an event, and the other slot runs."""
    body = b"[" * 3500
    disk = changed(device(1, 2), ptr0=_sha(body).encode() + b"\n" + body)
    status = slots_on(disk).status()
    assert status.active is not None
    assert [event.kind for event in status.events] == ["pointer-damaged"]
    assert "ptr0 is no pointer of format 1" in status.events[0].detail


def test_a_pointer_that_names_another_bundle_than_its_slot_holds_is_refused() -> None:
    """A pointer is believed only where archive digest and bundle digest both agree with the slot."""
    disk = device(1)
    content = decode_pointer(disk.files["slots/ptr1"], "ptr1").content
    assert content is not None
    lie = content.model_copy(update={"bundle": release_digest(9)})
    disk = changed(disk, ptr1=Pointer(generation=1, floor=1, content=lie).encode())
    with pytest.raises(SlotError, match=r"slot0\.aiot: bundle; expected sha256"):
        slots_on(disk).active()


def test_a_generation_without_content_is_no_pointer() -> None:
    """Only generation 0 may hold the floor alone."""
    for generation, content in ((1, None), (0, _content())):
        with pytest.raises(ValueError, match="generation 0 holds nothing but the floor"):
            Pointer(generation=generation, floor=1, content=content)


def test_a_reader_is_not_misled_by_two_installs_while_it_reads() -> None:
    """Archives that change under a reader are looked at again: no false alarm, and the newest runs."""

    class Overtaken(CrashDisk):
        looks = 0

        def read(self, path: str, at: int = 0, size: int | None = None) -> bytes:
            if path == "slots/slot1.aiot" and not self.looks:
                self.looks += 1
                slots_on(self).install(release(3))
                slots_on(self).install(release(4))
            return super().read(path, at, size)

    disk = Overtaken(device(1, 2).files, frozenset({"slots"}))
    found = slots_on(disk).boot()
    assert disk.looks == 1
    assert found.bundle.digest == release_digest(4)
    assert found.events == ()


def _sha(data: bytes) -> str:
    from aiotkit.core.canonical import digest

    return digest(data)


def _content() -> Content:
    return Content(slot=0, archive=_sha(b""), size=0, bundle=_sha(b""))


def _another_first() -> bytes:
    """A valid release with counter 1 that is not the one of these tests."""
    return unsigned(1, {**small_files(), "card.json": b"{}"}).archive(RELEASE_KEYS)
