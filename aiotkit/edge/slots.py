"""Two slots for bundles: a new one is staged, tried and committed beside the one that runs.

On the disk, under ``slots/``: the archives ``slot0.aiot`` and ``slot1.aiot``, the pointers ``ptr0`` and
``ptr1`` (see ``edge.pointers``), ``trials`` (see ``edge.trials``), the file ``lock``, and ``staged.aiot``
or ``*.new`` while an install runs. The pointer with the highest generation whose hash is right and whose
archive verifies in full says what runs. Nothing that runs is ever written to: a new archive is written aside,
read back, verified and tried on its golden cases before it takes the other slot's name, and the pointer that
names it is never written over the one in force. An install that raises leaves the old bundle running; one
that returns has the new one running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Self

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.golden import run_golden
from aiotkit.bundle.trust import Trust
from aiotkit.bundle.verify import Expectation, VerifiedBundle, verify_bundle
from aiotkit.core.canonical import digest, utf8_text
from aiotkit.core.errors import AiotkitError, BundleError, GoldenError, SlotError, StorageError
from aiotkit.edge.disk import ASIDE, Disk, make_folder
from aiotkit.edge.disk import replace as replace_file
from aiotkit.edge.pointers import Content, Pointer, SlotNumber
from aiotkit.edge.probation import Trial
from aiotkit.edge.slot_look import ARCHIVES, FOLDER, POINTERS, TRIALS, Look, SlotReader, content_of
from aiotkit.edge.slot_state import Boot, SlotEvent, SlotState, Status, check_counter
from aiotkit.edge.trials import MAX_WORDS, Denied, Trials

LOCK = f"{FOLDER}/lock"
STAGED = f"{FOLDER}/staged.aiot"


class Slots:
    """The bundles of one device; see the module. One writer at a time, any number of readers."""

    def __init__(self, disk: Disk, trust: Trust, expectation: Expectation) -> None:
        self._disk, self._trust = disk, trust
        self._here = replace(expectation, floor=0)
        self._reader = SlotReader(disk, trust, self._here)

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
        look = self._reader.look()
        if look.running is None:
            reasons = "; ".join(event.detail for event in look.events) or "no bundle was ever installed"
            raise SlotError(
                "no slot holds a bundle that verifies",
                found=reasons,
                do="Install a signed bundle: aiotkit-edge install FILE.",
            )
        number, bundle = look.running
        return Boot(bundle, content_of(look.pointers[number]).slot, look.generation, look.events)

    def active(self) -> VerifiedBundle:
        """The bundle that runs; raises as ``boot``, which also tells what is wrong."""
        return self.boot().bundle

    @property
    def floor(self) -> int:
        """The highest release counter this device has passed; no lower one is installed again."""
        return self._reader.floor(self._reader.pointers()[0])

    @property
    def generation(self) -> int:
        """Grows by one with every install or rollback; cheap to poll."""
        return max((p.generation for p in self._reader.pointers()[0].values()), default=0)

    def status(self) -> Status:
        """Everything at once; never raises for what is wrong with bundles, but says it in ``events``."""
        look = self._reader.look()
        running = previous = None
        if look.running is not None:
            number, bundle = look.running
            running = _state(look.pointers[number], bundle)
            with suppress(SlotError):
                pointer, bundle = self._reader.previous(look)
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
            look = self._reader.look()
            if look.running is not None and look.running[1].archive == archive:
                self._even_out(look)
                return look.running[1]
            bundle = verify_bundle(archive, self._trust, replace(self._here, floor=look.floor))
            if look.running is not None and look.running[1].digest == bundle.digest:
                self._even_out(look)
                return look.running[1]
            _check_denial(look, bundle)
            check_counter(
                bundle.manifest.release_counter, bundle.digest, look.floor, self._reader.known(look)
            )
            with self._cleaned_up():
                staged = self._stage(archive, look.floor)
                _try(staged)
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
            look = self._reader.look()
            pointer, bundle = self._reader.previous(look)
            _try(bundle)
            with self._cleaned_up():
                self._commit(look, content_of(pointer).slot, bundle, staged=False)
            return bundle

    @property
    def trials(self) -> Trials:
        """What is remembered of probations."""
        return self._reader.trials()[0]

    def note_trial(self, trial: Trial) -> None:
        """Remember how a probation stands; ``StorageError`` when the disk refuses or a writer is at work."""
        self._change_trials(lambda trials: trials.on(trial))

    def note_passed(self, bundle: str) -> None:
        """Remember that a bundle has passed its probation; raises as ``note_trial``."""
        self._change_trials(lambda trials: trials.done(bundle))

    def readmit(self, bundle: str) -> None:
        """Let a bundle that failed here be installed again; raises as ``note_trial``."""
        self._change_trials(lambda trials: trials.readmit(bundle))

    def give_up(self, why: str) -> VerifiedBundle:
        """Refuse what runs from now on, and run the previous release again.

        The refusal is durable first: if the power goes in between, the next start finds that what runs is
        refused, and gives it up again.

        Raises:
            SlotError, GoldenError, StorageError: as ``rollback``. What runs then runs on, and without a way
                back it is not refused either.
        """
        with self._writer():
            look = self._reader.look()
            pointer, bundle = self._reader.previous(look)
            assert look.running is not None  # or there was no way back
            _try(bundle)
            failed = look.running[1]
            denial = Denied(
                bundle=failed.digest,
                release_counter=failed.manifest.release_counter,
                why=utf8_text(why)[:MAX_WORDS],
            )
            with self._cleaned_up():
                if look.trials.denial(failed.digest) is None:
                    replace_file(self._disk, TRIALS, look.trials.deny(denial).encode())
                self._commit(look, content_of(pointer).slot, bundle, staged=False)
            return bundle

    def _change_trials(self, change: Callable[[Trials], Trials]) -> None:
        with self._writer():
            before = self._reader.trials()[0]
            after = change(before)
            if after != before:
                with self._cleaned_up():
                    replace_file(self._disk, TRIALS, after.encode())

    def repair(self) -> tuple[SlotEvent, ...]:
        """Write again what can be: a lost or damaged pointer (as keeper of the floor), leftovers removed.

        Returns:
            What was found wrong. A slot that is refused needs a new install.
        """
        with self._writer():
            look = self._reader.look()
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

    def _commit(self, look: Look, slot: SlotNumber, bundle: VerifiedBundle, *, staged: bool) -> None:
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

    def _even_out(self, look: Look) -> None:
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


def _check_denial(look: Look, bundle: VerifiedBundle) -> None:
    denial = look.trials.denial(bundle.digest)
    if denial is not None:
        raise BundleError(
            f"bundle {bundle.digest}: it failed its probation on this device",
            found=denial.why,
            do="Release a better one with a higher counter, or let this one be tried again: "
            "aiotkit-edge readmit.",
        )


def _try(bundle: VerifiedBundle) -> None:
    """Run a bundle's golden cases; whatever goes wrong inside its graph is a refusal."""
    try:
        run_golden(Engine(bundle.files), bundle.files)
    except AiotkitError:
        raise
    except Exception as error:
        raise GoldenError(
            "bundle: its golden cases cannot be run here", found=repr(error)[:MAX_WORDS]
        ) from error


def _free_slot(look: Look) -> SlotNumber:
    """The slot that does not run."""
    content = look.kept.content
    return 1 if content is not None and content.slot == 0 else 0


def _state(pointer: Pointer, bundle: VerifiedBundle) -> SlotState:
    decision = bundle.manifest.decision
    return SlotState(
        content_of(pointer).slot,
        pointer.generation,
        bundle.digest,
        decision.id,
        decision.revision,
        bundle.manifest.release_counter,
    )
