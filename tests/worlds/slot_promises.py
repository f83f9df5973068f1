"""What slots promise at every moment, checked on any disk; each broken promise in words."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from worlds.crash import CrashDisk
from worlds.releases import slots_on

from aiotkit.core.errors import SlotError
from aiotkit.edge.slots import POINTERS


@dataclass(frozen=True)
class Promise:
    """What an install or rollback that returned has promised: the bundle (None: none yet) and the floor."""

    bundle: str | None = None
    floor: int = 0


def broken_promises(disk: CrashDisk, promised: Promise, *, under_way: Collection[str] = ()) -> Iterator[str]:
    """Every promise that does not hold on a disk found after a crash.

    Args:
        disk: what the crash left.
        promised: what was acknowledged before it.
        under_way: digests of bundles whose install or rollback had begun and not returned.
    """
    slots = slots_on(disk)
    try:
        boot = slots.boot()
    except SlotError as error:
        if promised.bundle is not None:
            yield f"brick: {error}"
        return
    if boot.bundle.digest not in {promised.bundle, *under_way}:
        yield f"runs {boot.bundle.digest}, neither what was promised nor what was under way"
    if boot.events:
        yield f"a power cut is reported as tampering: {boot.events}"
    least = max(promised.floor, boot.bundle.manifest.release_counter)
    kept = kept_floor(disk)
    if kept < least:
        yield f"after the loss of one pointer the floor may be {kept}, below {least}"


def kept_floor(disk: CrashDisk) -> int:
    """The floor that no loss of a single pointer can lower."""
    without = ({p: data for p, data in disk.files.items() if p != lost} for lost in POINTERS)
    return min(slots_on(CrashDisk(files, frozenset({"slots"}))).floor for files in without)


def found_after(disk: CrashDisk) -> Promise:
    """What a device that starts from here may rely on from now on."""
    found = slots_on(disk).status().active
    return Promise(found.bundle if found else None, kept_floor(disk))
