"""U3, U5, U6 and U13: damaged bytes, replayed releases, mixed bundles, two installers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Barrier

import pytest
from worlds.bundles import expectation
from worlds.crash import CrashDisk
from worlds.releases import RELEASE_KEYS, TRUST, release, release_digest, slots_on, small_files, unsigned

from aiotkit.bundle.pack import read_archive, write_archive
from aiotkit.core.errors import (
    AiotkitError,
    BundleError,
    IntegrityError,
    MismatchError,
    RollbackRefused,
    SignatureError,
    SlotError,
    StorageError,
)
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.slots import ARCHIVES, POINTERS, Slots


@cache
def device_files() -> dict[str, bytes]:
    """A device that runs release 3 in slot 0 and has release 2 in slot 1."""
    disk = CrashDisk()
    for counter in (1, 2, 3):
        slots_on(disk).install(release(counter))
    return disk.files


def device(**lost: bool) -> CrashDisk:
    files = {path: data for path, data in device_files().items() if not lost.get(path.removeprefix("slots/"))}
    return CrashDisk(files, frozenset({"slots"}))


def flipped(data: bytes, at: int, mask: int) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


# -- U3: bytes changed in transit and at rest


def refuse_flips_in_transit(places: Iterable[tuple[int, int]]) -> int:
    """Every flipped archive is refused without one operation on the disk; how many were tried."""
    disk, archive, tried = device(), release(4), 0
    slots = slots_on(disk)
    for at, mask in places:
        with pytest.raises(BundleError):
            slots.install(flipped(archive, at, mask))
        tried += 1
    assert disk.ops == []
    assert slots.active().digest == release_digest(3)
    return tried


def test_U3_a_flip_in_transit_is_refused_sampled() -> None:
    """Any changed byte of headers, manifest and signatures, and a sample of the rest, is refused."""
    rng = random.Random(3)
    archive = release(4)
    head = archive.index(b"files/")
    everywhere = [rng.randrange(head, len(archive)) for _ in range(400)]
    places = [(at, 1 << rng.randrange(8)) for at in (*range(0, head, 3), *everywhere)]
    assert refuse_flips_in_transit(places) > 1000


@pytest.mark.faults
def test_U3_a_flip_in_transit_is_refused_campaign() -> None:
    """Every single byte of a bundle under 64 kB: changed, it is refused."""
    size = len(release(4))
    assert size < 64 << 10
    rng = random.Random(4)
    places = [(at, rng.randrange(1, 256)) for at in range(size)]
    assert refuse_flips_in_transit(places) == size


def fall_back_after_flips(path: str, places: Iterable[tuple[int, int]]) -> int:
    """Each flip in a file of the active bundle leads to release 2 with a security event."""
    files, tried = device_files(), 0
    for at, mask in places:
        disk = CrashDisk(files | {path: flipped(files[path], at, mask)}, frozenset({"slots"}))
        found = slots_on(disk).boot()
        assert found.bundle.digest == release_digest(2)
        assert len(found.events) == 1
        assert path in found.events[0].detail
        assert slots_on(disk).floor == 3
        tried += 1
    return tried


def test_U3_a_flip_in_the_active_slot_falls_back_sampled() -> None:
    """A changed byte of the active archive is reported and the previous release runs."""
    rng = random.Random(5)
    size = len(device_files()[ARCHIVES[0]])
    assert fall_back_after_flips(ARCHIVES[0], [(rng.randrange(size), 1) for _ in range(300)]) == 300


@pytest.mark.faults
def test_U3_a_flip_in_the_active_slot_falls_back_campaign() -> None:
    """Every single byte of the active archive: changed, the previous release runs."""
    size = len(device_files()[ARCHIVES[0]])
    assert fall_back_after_flips(ARCHIVES[0], [(at, 0x80) for at in range(size)]) == size


def test_U3_a_flip_in_the_active_pointer_falls_back() -> None:
    """Every single byte of the active pointer, each bit: changed, the previous release runs."""
    active = POINTERS[1]
    every = itertools.product(range(len(device_files()[active])), [1 << bit for bit in range(8)])
    assert fall_back_after_flips(active, every) > 2000


def test_U3_a_flip_in_the_other_pointer_changes_nothing_but_is_told() -> None:
    """Every single byte of the previous pointer: changed, the active release runs, with an event."""
    files, path = device_files(), POINTERS[0]
    for at in range(len(files[path])):
        disk = CrashDisk(files | {path: flipped(files[path], at, 1)}, frozenset({"slots"}))
        found = slots_on(disk).boot()
        assert found.bundle.digest == release_digest(3)
        assert [event.kind for event in found.events] == ["pointer-damaged"]
        assert slots_on(disk).floor == 3


def test_U3_cut_and_extended_slots_fall_back() -> None:
    """An archive at rest that lost or gained bytes does not run."""
    files, path = device_files(), ARCHIVES[0]
    for data in (b"", files[path][:512], files[path][:-1], files[path] + b"\0", files[path] * 2):
        found = slots_on(CrashDisk(files | {path: data}, frozenset({"slots"}))).boot()
        assert found.bundle.digest == release_digest(2)
        assert found.events[0].detail.startswith("generation 3 in slot 0: slots/slot0.aiot; expected")


def test_U3_swapped_slots_do_not_run() -> None:
    """Two valid archives in each other's place are both refused: a slot is bound to its pointer."""
    files = device_files()
    swapped = files | {ARCHIVES[0]: files[ARCHIVES[1]], ARCHIVES[1]: files[ARCHIVES[0]]}
    with pytest.raises(SlotError, match="no slot holds a bundle that verifies"):
        slots_on(CrashDisk(swapped, frozenset({"slots"}))).active()


def test_U3_an_archive_put_into_a_slot_from_outside_does_not_run() -> None:
    """A valid older release copied over the active slot does not run in its name."""
    files = device_files() | {ARCHIVES[0]: release(1)}
    assert slots_on(CrashDisk(files, frozenset({"slots"}))).boot().bundle.digest == release_digest(2)


# -- U5: valid, but older


@pytest.mark.parametrize("ptr0", [False, True])
@pytest.mark.parametrize("ptr1", [False, True])
def test_U5_an_older_release_is_refused_whichever_pointers_are_lost(*, ptr0: bool, ptr1: bool) -> None:
    """Replayed releases below the floor stay out after deleting any subset of the pointers."""
    disk = device(ptr0=ptr0, ptr1=ptr1)
    for counter in (1, 2):
        slots = slots_on(disk)
        assert slots.floor == 3
        if slots.generation == 2 and counter == 2:
            continue  # the active pointer is gone and release 2 runs: installing it is a no-op
        with pytest.raises(RollbackRefused, match="expected at least 3, the floor of this device; found"):
            slots.install(release(counter))
    assert disk.ops == []
    assert slots_on(disk).install(release(4)).digest == release_digest(4)
    assert slots_on(disk).floor == 4


def test_U5_the_floor_survives_pointer_and_slot() -> None:
    """Without either pointer, the floor is proven by the archives; each slot proves its own."""
    both = device(ptr0=True, ptr1=True)
    assert slots_on(both).floor == 3
    del_active = {**both.files}
    del del_active[ARCHIVES[0]]
    assert slots_on(CrashDisk(del_active, frozenset({"slots"}))).floor == 2


def test_U5_rolled_back_and_replayed() -> None:
    """After a rollback, what was left behind comes back only as itself, and nothing older ever."""
    disk = device()
    slots_on(disk).rollback()
    for counter in (1,):
        with pytest.raises(RollbackRefused, match="at least 3"):
            slots_on(disk).install(release(counter))
    for lost in POINTERS:
        files = {path: data for path, data in disk.files.items() if path != lost}
        rest = CrashDisk(files, frozenset({"slots"}))
        assert slots_on(rest).floor == 3
        with pytest.raises(RollbackRefused, match="at least 3"):
            slots_on(rest).install(release(1))


# -- U5: one counter, two releases

USED = "release counter {} was already used by another release"


def twin(counter: int) -> bytes:
    """A valid release with the same counter as ``release(counter)`` and other content."""
    return unsigned(counter, {**small_files(), "card.json": b'{"title":"other"}'}).archive(RELEASE_KEYS)


def test_U5_another_release_with_the_floors_counter_is_refused() -> None:
    """A counter is used once: the twin gets no byte onto the disk, the same digest stays a no-op."""
    disk = CrashDisk()
    for counter in (1, 2):
        slots_on(disk).install(release(counter))
        before = disk.files
        with pytest.raises(RollbackRefused, match=USED.format(counter) + ".*Sign it with a higher counter"):
            slots_on(disk).install(twin(counter))
        assert disk.files == before
        assert slots_on(disk).install(release(counter)).digest == release_digest(counter)
        assert disk.files == before
    assert slots_on(disk).rollback().digest == release_digest(1)
    with pytest.raises(RollbackRefused, match=USED.format(2)):
        slots_on(disk).install(twin(2))  # the newer one is the way forward, and the twin is not it
    assert slots_on(disk).install(release(2)).digest == release_digest(2)
    assert slots_on(disk).install(twin(3)).manifest.release_counter == 3


@pytest.mark.parametrize(
    "lost",
    [("slot1.aiot",), ("ptr1",), ("ptr0",), ("ptr0", "ptr1"), ("ptr1", "slot1.aiot")],
    ids=lambda names: "+".join(names),
)
def test_U5_damage_does_not_free_a_used_counter(lost: tuple[str, ...]) -> None:
    """As long as pointer or archive tells whose the counter was, only that release may come back."""
    disk = CrashDisk()
    for counter in (1, 2):
        slots_on(disk).install(release(counter))
    gone = {f"slots/{name}" for name in lost}
    rest = {path: data for path, data in disk.files.items() if path not in gone}
    damaged = CrashDisk(rest, frozenset({"slots"}))
    with pytest.raises(RollbackRefused, match=USED.format(2)):
        slots_on(damaged).install(twin(2))
    assert slots_on(damaged).install(release(2)).digest == release_digest(2)


# -- U6: mixed, or meant for elsewhere


def test_U6_files_of_two_valid_bundles_do_not_mix() -> None:
    """Manifest of one, files or signatures of the other: refused, and nothing is written."""
    other = unsigned(5, {**small_files(), "card.json": b'{"title":"other"}'}).archive(RELEASE_KEYS)
    mine, theirs = read_archive(release(4)), read_archive(other)
    disk = device()
    mixes = {
        "files": (write_archive(mine.manifest, mine.signatures, theirs.blobs.values()), IntegrityError),
        "both": (
            write_archive(mine.manifest, mine.signatures, [*mine.blobs.values(), *theirs.blobs.values()]),
            IntegrityError,
        ),
        "signatures": (
            write_archive(mine.manifest, theirs.signatures, mine.blobs.values()),
            SignatureError,
        ),
        "manifest": (
            write_archive(theirs.manifest, mine.signatures, theirs.blobs.values()),
            SignatureError,
        ),
        "one signature each": (
            write_archive(mine.manifest, (mine.signatures[0], theirs.signatures[1]), mine.blobs.values()),
            SignatureError,
        ),
    }
    for name, (archive, error) in mixes.items():
        with pytest.raises(error, match=r"bundle|signature"):
            slots_on(disk).install(archive)
        assert disk.ops == [], name
    assert slots_on(disk).install(other).digest != release_digest(4)


@pytest.mark.parametrize(
    ("here", "words"),
    [
        ({"hardware": "aarch64"}, "bundle: hardware; expected aarch64; found x86_64"),
        ({"site": "hall-2"}, "bundle: site; expected hall-2; found hall-1"),
        ({"decision_id": "other"}, "bundle: decision; expected other; found bearing-test"),
        ({"runtime": "0.0.9"}, r"bundle: min_runtime; expected at most 0\.0\.9"),
    ],
    ids=["hardware", "site", "decision", "runtime"],
)
def test_U6_a_valid_bundle_for_elsewhere_is_refused(here: dict[str, str], words: str) -> None:
    """The right bundle for other hardware, another site, decision or runtime does not get in."""
    archive = unsigned(1, hardware=("x86_64",)).archive(RELEASE_KEYS)
    disk = CrashDisk()
    slots = Slots.open(disk, TRUST, expectation(**here))
    with pytest.raises(MismatchError, match=words):
        slots.install(archive)
    assert not any(path.startswith("slots/slot") for path in disk.files)
    assert slots_on(disk).install(archive).manifest.hardware == ("x86_64",)


# -- U13: two at once


def test_U13_a_second_installer_is_told_and_changes_nothing() -> None:
    """While one writer is at work, install, rollback and repair of another are refused at once."""
    disk = device()
    before = disk.files
    with disk.lock("slots/lock"):
        for attempt in (lambda s: s.install(release(4)), lambda s: s.rollback(), lambda s: s.repair()):
            with pytest.raises(StorageError, match="slots/lock is in use; expected one writer"):
                attempt(slots_on(disk))
        assert slots_on(disk).active().digest == release_digest(3)
    assert disk.files == before
    assert slots_on(disk).install(release(4)).digest == release_digest(4)


def test_U13_an_install_within_an_install_is_refused() -> None:
    """Whenever the second one starts, the first one wins and the second changes nothing."""
    start = device().files
    count = CrashDisk(dict(start), frozenset({"slots"}))
    slots_on(count).install(release(4))
    for at in range(len(count.ops)):
        disk = CrashDisk(dict(start), frozenset({"slots"}))
        meddler = Meddler(disk, at)
        disk.fail = meddler
        assert slots_on(disk).install(release(4)).digest == release_digest(4)
        assert meddler.refused == 1
        assert slots_on(disk).boot().events == ()
        assert disk.files == count.files


class Meddler:
    """Starts a second install before the ``at``-th operation of the first."""

    def __init__(self, disk: CrashDisk, at: int) -> None:
        self.disk, self.at, self.seen, self.refused = disk, at, 0, 0

    def __call__(self, op: object) -> None:
        self.seen += 1
        if self.seen == self.at + 1:
            with pytest.raises(StorageError, match="in use"):
                slots_on(self.disk).install(release(5))
            self.refused += 1


def test_U13_installers_in_a_race_leave_one_winner(tmp_path: Path) -> None:
    """Two installers released at the same instant on a real disk: each wins or is told, none breaks."""
    slots_on(RealDisk(tmp_path)).install(release(1))
    together = Barrier(2)

    def compete(counter: int) -> AiotkitError | None:
        slots = slots_on(RealDisk(tmp_path))
        together.wait(timeout=30)
        try:
            slots.install(release(counter))
        except (StorageError, RollbackRefused) as error:
            return error
        return None

    with ThreadPoolExecutor(2) as pool:
        for round_ in range(1, 11):
            pair = (2 * round_, 2 * round_ + 1)
            results = dict(zip(pair, pool.map(compete, pair), strict=True))
            winners = [counter for counter, error in results.items() if error is None]
            assert winners
            found = slots_on(RealDisk(tmp_path)).boot()
            assert found.bundle.manifest.release_counter == max(winners)
            assert found.events == ()
            for error in results.values():
                assert error is None or "in use" in str(error) or "the floor" in str(error)
