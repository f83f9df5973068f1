"""Reading slots: which pointers and archives are sound, what runs, and the way back. Nothing is written."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from aiotkit.bundle.manifest import MAX_BYTES
from aiotkit.bundle.trust import Trust
from aiotkit.bundle.verify import Expectation, VerifiedBundle, verify_bundle, verify_signed
from aiotkit.core.canonical import digest
from aiotkit.core.errors import AiotkitError, BundleError, IntegrityError, SlotError, StorageError
from aiotkit.edge.disk import Disk
from aiotkit.edge.pointers import MAX_POINTER_BYTES, Content, Pointer, SlotNumber, decode_pointer
from aiotkit.edge.slot_state import SlotEvent
from aiotkit.edge.trials import MAX_BYTES as MAX_TRIALS_BYTES
from aiotkit.edge.trials import Trials, decode_trials

FOLDER = "slots"
POINTERS = (f"{FOLDER}/ptr0", f"{FOLDER}/ptr1")
ARCHIVES = (f"{FOLDER}/slot0.aiot", f"{FOLDER}/slot1.aiot")
TRIALS = f"{FOLDER}/trials"
_LOOKS = 3  # an installer in another process may commit twice at most between two looks


@dataclass(frozen=True, slots=True)
class Look:
    """The pointers that can be read (by number), what runs, and what was found wrong."""

    pointers: dict[SlotNumber, Pointer]
    running: tuple[SlotNumber, VerifiedBundle] | None
    floor: int
    trials: Trials
    events: tuple[SlotEvent, ...]

    @property
    def generation(self) -> int:
        """The newest."""
        return max((p.generation for p in self.pointers.values()), default=0)

    @property
    def keep(self) -> SlotNumber:
        """The pointer that stays: the one in force, else the newest."""
        if self.running is not None:
            return self.running[0]
        return max(self.pointers, key=lambda n: self.pointers[n].generation, default=0)

    @property
    def kept(self) -> Pointer:
        """What the pointer that stays says."""
        return self.pointers.get(self.keep, Pointer(generation=0, floor=self.floor))


class SlotReader:
    """What lies in the slots of one device; see ``edge.slots``."""

    def __init__(self, disk: Disk, trust: Trust, here: Expectation) -> None:
        self._disk, self._trust, self._here = disk, trust, here

    def look(self) -> Look:
        """Everything, at one moment."""
        for _ in range(_LOOKS):
            pointers, events = self.pointers()
            running, refused = self.running(pointers)
            # a refusal may only mean that an installer was faster: it counts if the pointers stand still
            if not refused or self.pointers()[0] == pointers:
                break
        trials, forgotten = self.trials()
        return Look(pointers, running, self.floor(pointers), trials, (*events, *refused, *forgotten))

    def trials(self) -> tuple[Trials, list[SlotEvent]]:
        """What is remembered of probations; a damaged record is none, and said."""
        if TRIALS.removeprefix(f"{FOLDER}/") not in self._disk.list(FOLDER):
            return Trials(), []
        try:
            return decode_trials(self._disk.read(TRIALS, 0, MAX_TRIALS_BYTES + 1), TRIALS), []
        except (IntegrityError, StorageError) as error:
            return Trials(), [SlotEvent("trials-damaged", str(error))]

    def running(
        self, pointers: dict[SlotNumber, Pointer]
    ) -> tuple[tuple[SlotNumber, VerifiedBundle] | None, list[SlotEvent]]:
        """The newest generation that verifies, by its pointer's number, and which did not."""
        refused: list[SlotEvent] = []
        for number in sorted(pointers, key=lambda n: pointers[n].generation, reverse=True):
            pointer = pointers[number]
            if pointer.content is None:
                continue
            try:
                return (number, self.verified(pointer.content)), refused
            except (BundleError, StorageError) as error:
                detail = f"generation {pointer.generation} in slot {pointer.content.slot}: {error}"
                refused.append(SlotEvent("slot-refused", detail))
        return None, refused

    def verified(self, content: Content) -> VerifiedBundle:
        """What a slot holds, if it is exactly what the pointer says and verifies in full."""
        name = ARCHIVES[content.slot]
        if self._disk.size(name) != content.size:
            raise IntegrityError(
                name, expected=f"{content.size} bytes", found=str(self._disk.size(name) or "nothing")
            )
        data = self._disk.read(name, 0, content.size)
        if digest(data) != content.archive:
            raise IntegrityError(name, expected=content.archive, found=digest(data))
        bundle = verify_bundle(data, self._trust, self._here)
        if bundle.digest != content.bundle:
            raise IntegrityError(f"{name}: bundle", expected=content.bundle, found=bundle.digest)
        return bundle

    def previous(self, look: Look) -> tuple[Pointer, VerifiedBundle]:
        """The way back: the other pointer's bundle, if it verifies, is not newer and never failed here.

        Raises:
            SlotError: there is none, and why.
        """
        other: SlotNumber = 1 if look.keep == 0 else 0
        pointer = look.pointers.get(other)
        if look.running is None or pointer is None or pointer.content is None:
            raise SlotError("nothing to roll back to", found="no other bundle was installed on this device")
        try:
            bundle = self.verified(pointer.content)
        except (BundleError, StorageError) as error:
            raise SlotError("nothing to roll back to: the other slot is refused", found=str(error)) from error
        counter, mine = bundle.manifest.release_counter, look.running[1].manifest.release_counter
        if counter > mine:
            raise SlotError(
                "nothing to roll back to",
                expected=f"a release counter of at most {mine}, which runs",
                found=f"{counter} in the other slot: this device was rolled back already",
                do="To return to the newer release, install it again.",
            )
        denial = look.trials.denial(bundle.digest)
        if denial is not None:
            raise SlotError("nothing to roll back to: the other bundle failed here too", found=denial.why)
        return pointer, bundle

    def known(self, look: Look) -> dict[str, int | None]:
        """Every bundle that pointers or archives name: digest -> release counter, None where it is lost."""
        found: dict[str, int | None] = {p.content.bundle: None for p in look.pointers.values() if p.content}
        for name in ARCHIVES:
            with suppress(AiotkitError):  # an empty or damaged slot proves nothing
                bundle = verify_signed(self._disk.read(name, 0, MAX_BYTES + 1), self._trust)
                found[bundle.digest] = bundle.manifest.release_counter
        return found

    def pointers(self) -> tuple[dict[SlotNumber, Pointer], list[SlotEvent]]:
        """The pointers that can be read, and what is wrong with the others."""
        found: dict[SlotNumber, Pointer] = {}
        events: list[SlotEvent] = []
        numbers: tuple[SlotNumber, ...] = (0, 1)
        for number in numbers:
            path = POINTERS[number]
            try:
                if self._disk.size(path) is None:
                    events.append(SlotEvent("pointer-missing", f"{path} is missing"))
                else:
                    data = self._disk.read(path, 0, MAX_POINTER_BYTES + 1)
                    found[number] = decode_pointer(data, path)
            except (IntegrityError, StorageError) as error:
                events.append(SlotEvent("pointer-damaged", str(error)))
        used = set(self._disk.list(FOLDER)) & {
            name.removeprefix(f"{FOLDER}/") for name in (*POINTERS, *ARCHIVES)
        }
        return found, events if used else []

    def floor(self, pointers: dict[SlotNumber, Pointer]) -> int:
        """The highest floor either pointer keeps; without pointers, what the slots themselves prove."""
        if pointers:
            return max(pointer.floor for pointer in pointers.values())
        proven = [0]
        for name in ARCHIVES:
            with suppress(AiotkitError):  # an empty or damaged slot proves nothing
                data = self._disk.read(name, 0, MAX_BYTES + 1)
                proven.append(verify_bundle(data, self._trust, self._here).manifest.release_counter)
        return max(proven)


def content_of(pointer: Pointer) -> Content:
    """What a pointer names."""
    assert pointer.content is not None  # only pointers with content are ever chosen
    return pointer.content
