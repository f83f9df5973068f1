"""What the slots say about themselves: what runs, what could, and what was found wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aiotkit.bundle.verify import VerifiedBundle
from aiotkit.core.canonical import JSON
from aiotkit.edge.pointers import SlotNumber


@dataclass(frozen=True, slots=True)
class SlotEvent:
    """Something found wrong while booting, for the journal (a security record).

    ``kind``: ``pointer-missing``, ``pointer-damaged`` or ``slot-refused``.
    """

    kind: Literal["pointer-missing", "pointer-damaged", "slot-refused"]
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
