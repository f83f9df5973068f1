"""Two slots for bundles: a new one is staged, tried and committed beside the one that runs.

On the disk, under ``slots/``: the archives ``slot0.aiot`` and ``slot1.aiot``, the pointers ``ptr0`` and
``ptr1`` (see ``edge.pointers``), the file ``lock``, and ``staged.aiot`` or ``*.new`` while an install
runs. The pointer with the highest generation whose hash is right and whose archive verifies in full says
what runs. Nothing that runs is ever written to: a new archive is written aside, read back, verified and
tried on its golden cases before it takes the other slot's name, and the pointer that names it is never
written over the one in force. An install that raises leaves the old bundle running; one that returns has
the new one running.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Self

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.golden import run_golden
from aiotkit.bundle.manifest import MAX_BYTES
from aiotkit.bundle.trust import Trust
from aiotkit.bundle.verify import Expectation, VerifiedBundle, verify_bundle, verify_signed
from aiotkit.core.canonical import digest
from aiotkit.core.errors import AiotkitError, BundleError, IntegrityError, SlotError, StorageError
from aiotkit.edge.disk import ASIDE, Disk, make_folder
from aiotkit.edge.disk import replace as replace_file
from aiotkit.edge.pointers import MAX_POINTER_BYTES, Content, Pointer, SlotNumber, decode_pointer
from aiotkit.edge.slot_state import Boot, SlotEvent, SlotState, Status, check_counter

FOLDER = "slots"
LOCK = f"{FOLDER}/lock"
STAGED = f"{FOLDER}/staged.aiot"
POINTERS = (f"{FOLDER}/ptr0", f"{FOLDER}/ptr1")
ARCHIVES = (f"{FOLDER}/slot0.aiot", f"{FOLDER}/slot1.aiot")
_LOOKS = 3  # an installer in another process may commit twice at most between two looks


@dataclass(frozen=True, slots=True)
class _Look:
    """The pointers that can be read (by number), what runs, and what was found wrong."""

    pointers: dict[SlotNumber, Pointer]
    running: tuple[SlotNumber, VerifiedBundle] | None
    floor: int
    events: tuple[SlotEvent, ...]

    @property
    def generation(self) -> int:
        return max((p.generation for p in self.pointers.values()), default=0)

    @property
    def keep(self) -> SlotNumber:
        """The pointer that stays: the one in force, else the newest."""
        if self.running is not None:
            return self.running[0]
        return max(self.pointers, key=lambda n: self.pointers[n].generation, default=0)

    @property
    def kept(self) -> Pointer:
        return self.pointers.get(self.keep, Pointer(generation=0, floor=self.floor))


class Slots:
    """The bundles of one device; see the module. One writer at a time, any number of readers."""

    def __init__(self, disk: Disk, trust: Trust, expectation: Expectation) -> None:
        self._disk, self._trust = disk, trust
        self._here = replace(expectation, floor=0)

    @classmethod
    def open(cls, disk: Disk, trust: Trust, expectation: Expectation) -> Self:
        """The slots on a disk; nothing is read or written yet.

        Args:
            disk: where they are; the root of the device's state.
            trust: who may release, from where the device was commissioned.
            expectation: what this device is. Its floor is not used: the slots keep their own.
        """
        return cls(disk, trust, expectation)

    def boot(self) -> Boot:
        """What runs: the newest generation that verifies in full, with an event for each that does not.

        Raises:
            SlotError: no slot holds a bundle that verifies; every reason is in the message.
        """
        look = self._look()
        if look.running is None:
            reasons = "; ".join(event.detail for event in look.events) or "no bundle was ever installed"
            raise SlotError(
                "no slot holds a bundle that verifies",
                found=reasons,
                do="Install a signed bundle: aiotkit-edge install FILE.",
            )
        number, bundle = look.running
        return Boot(bundle, _content(look.pointers[number]).slot, look.generation, look.events)

    def active(self) -> VerifiedBundle:
        """The bundle that runs; raises as ``boot``, which also tells what is wrong."""
        return self.boot().bundle

    @property
    def floor(self) -> int:
        """The highest release counter this device has passed; no lower one is installed again."""
        return self._floor(self._pointers()[0])

    @property
    def generation(self) -> int:
        """Grows by one with every install or rollback; cheap to poll."""
        return max((p.generation for p in self._pointers()[0].values()), default=0)

    def status(self) -> Status:
        """Everything at once; never raises for what is wrong with bundles, but says it in ``events``."""
        look = self._look()
        running = previous = None
        if look.running is not None:
            number, bundle = look.running
            running = _state(look.pointers[number], bundle)
            with suppress(SlotError):
                pointer, bundle = self._previous(look)
                previous = _state(pointer, bundle)
        return Status(running, previous, look.generation, look.floor, look.events)

    def install(self, archive: bytes) -> VerifiedBundle:
        """Verify, stage, try on its golden cases, and make it what runs.

        The bundle that runs already is a success that changes nothing.

        Raises:
            BundleError: the archive is refused (signatures, digests, place, floor, golden cases).
            StorageError: the disk refused, or another writer is at work.

        After an error the old bundle runs on (only if the very last sync failed it may be either), and the
        same install may be tried again.
        """
        with self._writer():
            look = self._look()
            if look.running is not None and look.running[1].archive == archive:
                self._even_out(look)
                return look.running[1]
            bundle = verify_bundle(archive, self._trust, replace(self._here, floor=look.floor))
            if look.running is not None and look.running[1].digest == bundle.digest:
                self._even_out(look)
                return look.running[1]
            check_counter(bundle.manifest.release_counter, bundle.digest, look.floor, self._passed(look))
            with self._cleaned_up():
                staged = self._stage(archive, look.floor)
                run_golden(Engine(staged.files), staged.files)
                self._commit(look, _free_slot(look), staged, staged=True)
            return staged

    def rollback(self) -> VerifiedBundle:
        """Run the previous release again. The floor stays: what is left behind is not let in from outside.

        Raises:
            SlotError: there is no previous release that verifies; a newer one is no way back.
            GoldenError: it decides differently here than where it was built (an updated runtime).
            StorageError: the disk refused, or another writer is at work.
        """
        with self._writer():
            look = self._look()
            pointer, bundle = self._previous(look)
            run_golden(Engine(bundle.files), bundle.files)
            with self._cleaned_up():
                self._commit(look, _content(pointer).slot, bundle, staged=False)
            return bundle

    def repair(self) -> tuple[SlotEvent, ...]:
        """Write again what can be: a lost or damaged pointer (as keeper of the floor), leftovers removed.

        Returns:
            What was found wrong. A slot that is refused needs a new install.
        """
        with self._writer():
            look = self._look()
            self._even_out(look)
            return look.events

    @contextmanager
    def _writer(self) -> Iterator[None]:
        """The single writer, on a folder without leftovers."""
        if FOLDER not in self._disk.list(""):
            make_folder(self._disk, FOLDER)
        with self._disk.lock(LOCK):
            self._clean()
            yield

    def _clean(self) -> None:
        for name in self._disk.list(FOLDER):
            path = f"{FOLDER}/{name}"
            if path == STAGED or name.endswith(ASIDE):
                self._disk.unlink(path)

    @contextmanager
    def _cleaned_up(self) -> Iterator[None]:
        """Leave nothing half done; what cannot be removed now is removed by the next writer."""
        try:
            yield
        except BaseException:
            with suppress(StorageError):
                self._clean()
            raise

    def _stage(self, archive: bytes, floor: int) -> VerifiedBundle:
        """The archive as the disk gives it back, verified again from those bytes."""
        self._disk.write(STAGED, archive)
        self._disk.sync(STAGED)
        data = self._disk.read(STAGED, 0, len(archive) + 1)
        return verify_bundle(data, self._trust, replace(self._here, floor=floor))

    def _commit(self, look: _Look, slot: SlotNumber, bundle: VerifiedBundle, *, staged: bool) -> None:
        """Make a bundle what runs: its slot and the floor in the old pointer first, last the new pointer.

        All is written aside before the first name changes, so that a full disk changes nothing.
        """
        content = Content(
            slot=slot, archive=digest(bundle.archive), size=len(bundle.archive), bundle=bundle.digest
        )
        floor = max(look.floor, bundle.manifest.release_counter)
        old, new = POINTERS[look.keep], POINTERS[1 - look.keep]
        kept = look.kept.model_copy(update={"floor": floor})
        moves = [(STAGED, ARCHIVES[slot])] if staged else []
        if kept != look.pointers.get(look.keep):
            self._write_aside(old, kept)
            moves.append((old + ASIDE, old))
        self._write_aside(new, Pointer(generation=look.generation + 1, floor=floor, content=content))
        for aside, path in moves:
            self._disk.rename(aside, path)
        if moves:  # before the new pointer may name the slot, and before it alone may hold the floor
            self._disk.sync_folder(FOLDER)
        self._disk.rename(new + ASIDE, new)
        self._disk.sync_folder(FOLDER)

    def _write_aside(self, path: str, pointer: Pointer) -> None:
        self._disk.write(path + ASIDE, pointer.encode())
        self._disk.sync(path + ASIDE)

    def _even_out(self, look: _Look) -> None:
        """Both pointers readable and with the same floor, so that losing either loses nothing."""
        if not look.floor:
            return
        numbers: tuple[SlotNumber, ...] = (0, 1)
        for number in numbers:
            found = look.pointers.get(number)
            if found is None or found.floor != look.floor:
                wanted = found or Pointer(generation=0, floor=look.floor)
                evened = wanted.model_copy(update={"floor": look.floor})
                replace_file(self._disk, POINTERS[number], evened.encode())

    def _look(self) -> _Look:
        for _ in range(_LOOKS):
            pointers, events = self._pointers()
            running, refused = self._running(pointers)
            # a refusal may only mean that an installer was faster: it counts if the pointers stand still
            if not refused or self._pointers()[0] == pointers:
                break
        return _Look(pointers, running, self._floor(pointers), (*events, *refused))

    def _running(
        self, pointers: dict[SlotNumber, Pointer]
    ) -> tuple[tuple[SlotNumber, VerifiedBundle] | None, list[SlotEvent]]:
        refused: list[SlotEvent] = []
        for number in sorted(pointers, key=lambda n: pointers[n].generation, reverse=True):
            pointer = pointers[number]
            if pointer.content is None:
                continue
            try:
                return (number, self._verified(pointer.content)), refused
            except (BundleError, StorageError) as error:
                detail = f"generation {pointer.generation} in slot {pointer.content.slot}: {error}"
                refused.append(SlotEvent("slot-refused", detail))
        return None, refused

    def _verified(self, content: Content) -> VerifiedBundle:
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

    def _previous(self, look: _Look) -> tuple[Pointer, VerifiedBundle]:
        """The way back: the other pointer's bundle, if it verifies and is not newer than what runs."""
        other: SlotNumber = 1 if look.keep == 0 else 0
        pointer = look.pointers.get(other)
        if look.running is None or pointer is None or pointer.content is None:
            raise SlotError("nothing to roll back to", found="no other bundle was installed on this device")
        try:
            bundle = self._verified(pointer.content)
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
        return pointer, bundle

    def _passed(self, look: _Look) -> dict[str, int | None]:
        """Every bundle that pointers or archives name: digest -> release counter, None where it is lost."""
        found: dict[str, int | None] = {p.content.bundle: None for p in look.pointers.values() if p.content}
        for name in ARCHIVES:
            with suppress(AiotkitError):  # an empty or damaged slot proves nothing
                bundle = verify_signed(self._disk.read(name, 0, MAX_BYTES + 1), self._trust)
                found[bundle.digest] = bundle.manifest.release_counter
        return found

    def _pointers(self) -> tuple[dict[SlotNumber, Pointer], list[SlotEvent]]:
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

    def _floor(self, pointers: dict[SlotNumber, Pointer]) -> int:
        """The highest floor either pointer keeps; without pointers, what the slots themselves prove."""
        if pointers:
            return max(pointer.floor for pointer in pointers.values())
        proven = [0]
        for name in ARCHIVES:
            with suppress(AiotkitError):  # an empty or damaged slot proves nothing
                data = self._disk.read(name, 0, MAX_BYTES + 1)
                proven.append(verify_bundle(data, self._trust, self._here).manifest.release_counter)
        return max(proven)


def _content(pointer: Pointer) -> Content:
    assert pointer.content is not None  # only pointers with content are ever chosen
    return pointer.content


def _free_slot(look: _Look) -> SlotNumber:
    """The slot that does not run."""
    content = look.kept.content
    return 1 if content is not None and content.slot == 0 else 0


def _state(pointer: Pointer, bundle: VerifiedBundle) -> SlotState:
    decision = bundle.manifest.decision
    return SlotState(
        _content(pointer).slot,
        pointer.generation,
        bundle.digest,
        decision.id,
        decision.revision,
        bundle.manifest.release_counter,
    )
