"""U2 and U8: power cuts and failing disks at every operation of install and rollback."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from worlds.crash import CrashDisk, Op, crash_states
from worlds.releases import release, release_digest, slots_on
from worlds.slot_promises import Promise, broken_promises, found_after

from aiotkit.core.errors import AiotkitError, SlotError, StorageError
from aiotkit.edge.slots import Slots

#: the life of a device: a number installs that release, "back" rolls back to the release named after it
LIFE: tuple[tuple[str, int], ...] = (
    ("install", 1),
    ("install", 2),
    ("back", 1),
    ("install", 3),
    ("install", 3),
    ("install", 4),
    ("back", 3),
    ("repair", 3),
    ("install", 5),
)


def act(slots: Slots, what: str, counter: int) -> None:
    if what == "install":
        slots.install(release(counter))
    elif what == "back":
        slots.rollback()
    else:
        slots.repair()


def lived(disk: CrashDisk, life: tuple[tuple[str, int], ...]) -> CrashDisk:
    """A disk on which a life was lived; each act's promise is noted when it returns."""
    floor = 0
    for what, counter in life:
        act(slots_on(disk), what, counter)
        floor = max(floor, counter)
        disk.note(Promise(release_digest(counter), floor))
    return disk


def violations(disk: CrashDisk, life: tuple[tuple[str, int], ...], **sampling: int) -> Iterator[str]:
    """Broken promises over all crash states of a life."""
    for state in crash_states(disk, **sampling):
        promised = state.notes[-1] if state.notes else Promise()
        assert isinstance(promised, Promise)
        rest = life[len(state.notes) :]
        under_way = {release_digest(rest[0][1])} if rest else set()
        for broken in broken_promises(state.disk(), promised, under_way=under_way):
            yield f"after {state.after} operations: {broken}"


def test_U2_no_power_cut_breaks_a_promise() -> None:
    """At every cut the old or the new bundle runs, after an acknowledgement the new; floors never fall."""
    disk = lived(CrashDisk(), LIFE)
    assert list(violations(disk, LIFE, per_cut=2000)) == []


def test_U2_an_interrupted_install_can_be_done_again() -> None:
    """From every state a power cut leaves, the same install succeeds and leaves nothing behind."""
    before = lived(CrashDisk(), LIFE[:2]).after_kill()
    slots_on(before).install(release(3))
    for state in crash_states(before, per_cut=12):
        disk = state.disk()
        assert slots_on(disk).install(release(3)).digest == release_digest(3)
        assert slots_on(disk).boot().events == ()
        assert leftovers(disk) == []


@dataclass
class Forgetful(CrashDisk):
    """A disk that ignores one of the syncs it is asked for, and knows how many there were."""

    forget: int = -1
    syncs: int = 0

    def sync(self, path: str) -> None:
        self.syncs += 1
        if self.syncs - 1 != self.forget:
            super().sync(path)

    def sync_folder(self, folder: str) -> None:
        self.syncs += 1
        if self.syncs - 1 != self.forget:
            super().sync_folder(folder)


@pytest.mark.parametrize("act_", [("install", 3), ("back", 1)])
def test_U2_every_single_sync_is_needed(act_: tuple[str, int]) -> None:
    """Leaving out any one sync of an install or rollback lets some power cut break a promise."""
    start = lived(CrashDisk(), LIFE[:2]).after_kill()
    promised = Promise(release_digest(2), 2)

    def trial(forget: int) -> tuple[Forgetful, list[str]]:
        disk = Forgetful(start.files, frozenset({"slots"}), forget=forget)
        disk.note(promised)
        lived(disk, (act_,))
        if act_[0] == "back":  # the floor stays that of the newest release
            disk.ops[-1].note = Promise(release_digest(1), 2)
        return disk, list(violations(disk, (("install", 2), act_), per_cut=500))

    disk, broken = trial(-1)
    assert broken == []
    assert disk.syncs == {"install": 5, "back": 2}[act_[0]]
    for forgotten in range(disk.syncs):
        assert trial(forgotten)[1], f"sync {forgotten} is not needed"


def test_U2_the_folder_itself_is_made_durable() -> None:
    """Leaving out the sync of the root folder lets the first install vanish."""
    disk = Forgetful(forget=0)
    lived(disk, LIFE[:1])
    assert any("brick" in broken for broken in violations(disk, LIFE[:1], per_cut=500))


def walk(seed: int, steps: int) -> int:
    """Crash, recover, go on, crash again: a life with a power cut in every act; states checked."""
    rng = random.Random(seed)
    disk, promised, checked, top = CrashDisk(), Promise(), 0, 0
    for _ in range(steps):
        slots, digest = slots_on(disk), promised.bundle
        what = rng.choice(("install", "install", "again", "back", "repair"))
        disk.note(promised)
        counter = top + (what != "again" or top == 0)
        done = True
        try:
            act(slots, "install" if what == "again" else what, counter)
        except SlotError:
            assert what == "back"
            done = False
        under_way = {release_digest(counter)} | ({slots.active().digest} if slots.generation else set())
        if slots.generation and done:
            disk.note(Promise(slots.active().digest, slots.floor))
        states = list(crash_states(disk, per_cut=6, seed=rng.randrange(1 << 30)))
        for state in states:
            last = state.notes[-1] if state.notes else promised
            assert isinstance(last, Promise)
            broken = list(broken_promises(state.disk(), last, under_way=under_way | {digest or ""}))
            assert broken == [], f"seed {seed}: {broken}"
        checked += len(states)
        disk = rng.choice(states).disk()
        top, promised = slots_on(disk).floor, found_after(disk)
    return checked


def test_U2_crash_upon_crash_sampled() -> None:
    """A device that loses power in every single act never bricks and never lets its floor fall."""
    assert sum(walk(seed, steps=8) for seed in range(6)) > 500


@pytest.mark.faults
def test_U2_crash_upon_crash_campaign() -> None:
    """As sampled, over more than a hundred thousand states."""
    assert sum(walk(seed, steps=30) for seed in range(100, 500)) > 100_000


def leftovers(disk: CrashDisk) -> list[str]:
    return [path for path in disk.files if path.endswith(".new") or "staged" in path]


class Trouble:
    """Fails the ``at``-th changing operation, once or from then on, until it is over."""

    def __init__(self, at: int, number: int, *, lasting: bool) -> None:
        self.at, self.number, self.lasting, self.seen = at, number, lasting, 0

    def __call__(self, op: Op) -> int | None:
        self.seen += 1
        now = self.seen > self.at if self.lasting else self.seen == self.at + 1
        return self.number if now else None


def untidy(fail: Trouble) -> CrashDisk:
    """A device that runs release 2, has 1 to go back to, and leftovers of an install that was killed."""
    files = lived(CrashDisk(), LIFE[:2]).files | {"slots/staged.aiot": b"left", "slots/ptr0.new": b"left"}
    return CrashDisk(files, frozenset({"slots"}), fail=fail)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_U8_a_disk_that_fails_anywhere(number: int, *, lasting: bool) -> None:
    """Whichever operation fails, the old bundle runs and the install succeeds once the trouble is over."""
    never = Trouble(1 << 30, 0, lasting=False)
    slots_on(untidy(never)).install(release(3))
    operations = never.seen
    assert operations > 15
    for at in range(operations):
        disk = untidy(Trouble(at, number, lasting=lasting))
        with pytest.raises(StorageError, match="cannot") as caught:
            slots_on(disk).install(release(3))
        assert caught.value.errno == number
        found = slots_on(disk).boot()
        last = at == operations - 1  # the name is there, only its sync has failed: then either may run
        assert found.bundle.digest in {release_digest(2), release_digest(3) if last else ""}
        assert found.events == ()
        if not lasting and at > 1:  # the first two remove what was there before
            assert leftovers(disk) == []
        disk.fail = never
        assert slots_on(disk).install(release(3)).digest == release_digest(3)
        assert leftovers(disk) == []
        assert slots_on(disk).active().digest == release_digest(3)


def test_U8_a_full_disk_keeps_both_slots() -> None:
    """Without room for a third archive nothing changes, not even the way back; with room it goes on."""
    disk = lived(CrashDisk(), LIFE[:2])
    before = disk.files
    disk.capacity = disk.used + len(release(3)) // 2
    with pytest.raises(StorageError, match=r"cannot write slots/staged\.aiot; found No space left"):
        slots_on(disk).install(release(3))
    assert disk.files == before
    disk.capacity += len(release(3)) + 4096
    assert slots_on(disk).install(release(3)).digest == release_digest(3)


def test_U8_a_full_disk_at_the_pointers_keeps_the_way_back() -> None:
    """With room for the archive and not for the pointers, the previous release is still there."""
    disk = lived(CrashDisk(), LIFE[:2])
    disk.capacity = disk.used + len(release(3)) + 100
    with pytest.raises(StorageError, match="No space left"):
        slots_on(disk).install(release(3))
    assert slots_on(disk).rollback().digest == release_digest(1)


def test_U8_rollback_on_a_failing_disk() -> None:
    """A rollback that fails leaves what runs; tried again it succeeds."""
    for at in range(5):
        disk = CrashDisk(lived(CrashDisk(), LIFE[:2]).files, frozenset({"slots"}))
        disk.fail = Trouble(at, errno.EIO, lasting=False)
        with pytest.raises(AiotkitError, match="Input/output error"):
            slots_on(disk).rollback()
        if at < 4:  # up to the rename; when only the last sync fails, the previous release runs
            assert slots_on(disk).active().digest == release_digest(2)
            assert slots_on(disk).rollback().digest == release_digest(1)
        assert slots_on(disk).active().digest == release_digest(1)
