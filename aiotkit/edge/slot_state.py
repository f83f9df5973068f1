"""What the slots say about themselves: what runs, what could, and what was found wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from aiotkit.bundle.verify import VerifiedBundle
from aiotkit.core.canonical import JSON
from aiotkit.core.errors import RollbackRefused
from aiotkit.edge.pointers import SlotNumber


@dataclass(frozen=True, slots=True)
class SlotEvent:
    """Something found wrong while booting, for the journal (a security record).

    ``kind``: ``pointer-missing``, ``pointer-damaged``, ``slot-refused`` or ``trials-damaged``.
    """

    kind: Literal["pointer-missing", "pointer-damaged", "slot-refused", "trials-damaged"]
    detail: str

    def to_json(self) -> JSON:
        """Plain data."""
        return {"kind": self.kind, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Boot:
    """What runs, and everything that was found wrong on the way to it.

    ``generation``: the newest on the disk, whether it verified or not; look again when ``Slots.generation``
    differs from it.
    """

    bundle: VerifiedBundle
    slot: SlotNumber
    generation: int
    events: tuple[SlotEvent, ...]


@dataclass(frozen=True, slots=True)
class SlotState:
    """What one slot holds, verified."""

    slot: SlotNumber
    generation: int
    bundle: str
    decision: str
    revision: int
    release_counter: int


@dataclass(frozen=True, slots=True)
class Status:
    """What runs, what a rollback would run, the newest generation, the floor, and what is wrong."""

    active: SlotState | None
    previous: SlotState | None
    generation: int
    floor: int
    events: tuple[SlotEvent, ...]


def check_counter(counter: int, bundle: str, floor: int, passed: Mapping[str, int | None]) -> None:
    """Refuse a release whose counter another one has used: neither would be the newer one.

    Args:
        counter: the release counter of a bundle, not below the floor.
        bundle: its digest.
        floor: of the device.
        passed: bundles that were here: digest -> counter; None: it cannot be read any more, and as the
            floor is kept by some bundle, it may be that one's.

    Raises:
        RollbackRefused: the counter is the floor, and another bundle's.
    """
    if counter > floor or bundle in passed:
        return
    mine = [name for name, used in passed.items() if used == counter]
    lost = [name for name, used in passed.items() if used is None]
    if mine or lost:
        raise RollbackRefused(
            f"bundle: release counter {counter} was already used by another release",
            expected=(mine or lost)[0],
            found=bundle,
            do="Sign it with a higher counter.",
        )
