"""U2, U8 and U12: power cuts and failing disks while a bundle is given up, refused, or its trial is noted."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from worlds.crash import CrashDisk, crash_states
from worlds.releases import release, release_digest, slots_on
from worlds.slot_promises import Promise, broken_promises

from aiotkit.core.errors import AiotkitError, BundleError, SlotError, StorageError
from aiotkit.edge.probation import Counts, Trial
from aiotkit.edge.slots import Slots

WHY = "20 of 20 decisions were undecided"
OLD, NEW = release_digest(1), release_digest(2)


def device(*counters: int) -> CrashDisk:
    disk = CrashDisk()
    for counter in counters:
        slots_on(disk).install(release(counter))
    return disk.after_kill()


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


def given_up(forget: int = -1) -> Forgetful:
    disk = Forgetful(device(1, 2).files, frozenset({"slots"}), forget=forget)
    disk.note("running")
    slots_on(disk).give_up(WHY)
    disk.note("given up")
    return disk


def violations(disk: CrashDisk) -> Iterator[str]:
    """What no power cut may leave: no bundle, a lower floor, or the failed one to be let in again."""
    for state in crash_states(disk, per_cut=2000):
        survivor, done = state.disk(), "given up" in state.notes
        promised = Promise(OLD if done else NEW, 2)
        yield from broken_promises(survivor, promised, under_way=() if done else (OLD,))
        slots = slots_on(survivor)
        refused = slots.trials.denial(NEW) is not None
        if slots.active().digest == OLD and not refused:
            yield "rolled back, and the failed bundle would be let in again"
        if done and not refused:
            yield "an acknowledged refusal is forgotten"


def test_U2_U12_no_power_cut_leaves_a_device_without_a_bundle_or_lets_a_failed_one_in() -> None:
    """At every cut the failed or the previous bundle runs; where the previous does, the other is refused."""
    assert list(violations(given_up())) == []


def test_U2_U12_every_single_sync_is_needed() -> None:
    """Leaving out any one sync of giving up lets some power cut break a promise."""
    syncs = given_up().syncs
    assert syncs == 4
    for forgotten in range(syncs):
        assert list(violations(given_up(forgotten))), f"sync {forgotten} is not needed"


def test_U12_an_interrupted_give_up_is_finished_by_doing_it_again() -> None:
    """From every state a power cut leaves, giving up what is refused leads to the previous bundle."""
    for state in crash_states(given_up(), per_cut=50):
        disk = state.disk()
        slots = slots_on(disk)
        if slots.active().digest == NEW:
            slots.give_up("it was refused already")
        assert slots.active().digest == OLD
        denial = slots.trials.denial(NEW)
        assert denial is not None
        assert denial.why in (WHY, "it was refused already")
        with pytest.raises(BundleError, match="it failed its probation on this device"):
            slots.install(release(2))


TRIAL = Trial(bundle=NEW, starts=1, counts=Counts(decisions=12))
NOTES: dict[str, Callable[[Slots], None]] = {
    "trial": lambda slots: slots.note_trial(TRIAL),
    "passed": lambda slots: slots.note_passed(NEW),
    "readmit": lambda slots: slots.readmit(release_digest(3)),
}


def noted() -> CrashDisk:
    """A device that has given up release 3 and runs release 2 on probation."""
    disk = device(1, 2)
    slots_on(disk).install(release(3))
    slots_on(disk).give_up(WHY)
    slots_on(disk).note_trial(TRIAL.model_copy(update={"starts": 3}))
    return disk.after_kill()


@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES.keys())
def test_U2_a_note_is_there_as_a_whole_or_not_at_all(note: Callable[[Slots], None]) -> None:
    """At every cut the old or the new record is there, the new once it returned; nothing else moves."""
    disk = noted()
    before = slots_on(disk).trials
    note(slots_on(disk))
    after = slots_on(disk).trials
    assert after != before
    disk.note("noted")
    for state in crash_states(disk, per_cut=2000):
        slots = slots_on(state.disk())
        assert slots.boot().events == ()
        assert slots.active().digest == NEW
        assert slots.trials in ((after,) if "noted" in state.notes else (before, after))


def test_what_is_noted_again_is_not_written_again() -> None:
    """Flash wears: the same note costs no write."""
    disk = noted()
    slots_on(disk).note_trial(TRIAL)
    ops = len(disk.ops)
    slots_on(disk).note_trial(TRIAL)
    slots_on(disk).readmit(release_digest(9))
    assert len(disk.ops) == ops


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_U8_giving_up_on_a_failing_disk_can_be_done_again(number: int) -> None:
    """Whichever operation fails, the failed or the previous bundle runs, and the next try succeeds."""
    operations = len(given_up().ops) - 2
    assert operations > 8
    for at in range(operations):
        disk = device(1, 2)
        left = [at]

        def fail(_: object, left: list[int] = left) -> int | None:
            left[0] -= 1
            return number if left[0] == -1 else None

        disk.fail = fail
        with pytest.raises(StorageError) as caught:
            slots_on(disk).give_up(WHY)
        assert caught.value.errno == number
        slots = slots_on(disk)
        assert slots.boot().events == ()
        if at < operations - 1:  # only the last sync failed: either may run
            assert slots.active().digest == NEW
            slots.give_up(WHY)
        assert slots.active().digest == OLD


def test_U12_without_a_way_back_nothing_is_refused() -> None:
    """The only bundle of a device is not taken from it, and can be installed as ever."""
    disk = device(1)
    with pytest.raises(AiotkitError, match="nothing to roll back to"):
        slots_on(disk).give_up(WHY)
    assert slots_on(disk).trials.denied == ()
    assert slots_on(disk).install(release(1)).digest == OLD


def test_U12_a_bundle_that_failed_is_no_way_back() -> None:
    """Refused, but not left before a newer one came over the old: nobody returns to it, by hand neither."""
    disk = device(1, 2)
    disk.fail = lambda op: errno.EIO if "ptr" in op.path else None
    with pytest.raises(StorageError):
        slots_on(disk).give_up(WHY)
    disk.reboot()
    slots_on(disk).install(release(3))
    for back in (slots_on(disk).rollback, lambda: slots_on(disk).give_up("late")):
        with pytest.raises(SlotError, match=f"the other bundle failed here too; found {WHY}"):
            back()
    assert slots_on(disk).active().digest == release_digest(3)
    assert slots_on(disk).trials.denial(release_digest(3)) is None


def test_U12_a_release_with_a_higher_counter_is_let_in() -> None:
    """Only the failed bundle is refused, not its successor."""
    disk = device(1, 2)
    slots_on(disk).give_up(WHY)
    assert slots_on(disk).install(release(3)).digest == release_digest(3)
    assert slots_on(disk).rollback().digest == OLD


def test_U3_a_damaged_record_is_an_event_and_stops_nothing() -> None:
    """What runs runs on, the event names the file, and the next note replaces it."""
    disk = noted()
    data = disk.files["slots/trials"]
    disk = CrashDisk(disk.files | {"slots/trials": data[:-1] + b"x"}, frozenset({"slots"}))
    (event,) = slots_on(disk).boot().events
    assert event.kind == "trials-damaged"
    assert slots_on(disk).active().digest == NEW
    slots_on(disk).note_trial(TRIAL)
    assert slots_on(disk).boot().events == ()
