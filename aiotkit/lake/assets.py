"""Which device watched which subject, and when: the registry that every join goes through.

An assignment holds from ``valid_from`` (included) until ``valid_to`` (excluded; empty = still). It is
never changed in place: a row with the same device and ``valid_from`` and a later ``recorded_at`` takes its
place, so that a dataset pinned yesterday still reads yesterday's registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aiotkit.core.errors import LakeError
from aiotkit.lake.lake import Lake

_WATERMARK = "assets"
_OPEN = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Assignment:
    """A device watching a subject from ``from_us`` until ``to_us`` (``None`` = still). Instants in µs UTC."""

    device: str
    subject: str
    from_us: int
    to_us: int | None = None
    sensor: str | None = None
    site: str | None = None
    hardware: str | None = None

    def overlaps(self, other: Assignment) -> bool:
        """Whether both claim the same device at the same time."""
        mine, theirs = _end(self), _end(other)
        both_last = self.from_us < mine and other.from_us < theirs
        return self.device == other.device and both_last and self.from_us < theirs and other.from_us < mine


class Assets:
    """The asset registry of a lake, as it is now or (``version``) as it was."""

    def __init__(self, lake: Lake, *, version: int | None = None) -> None:
        self._lake = lake
        self._version = version

    def assignments(self) -> tuple[Assignment, ...]:
        """What counts, sorted by device and time; voided ones are left out."""
        return tuple(a for a in self._current()[1].values() if a.from_us < _end(a))

    def assign(self, assignment: Assignment, *, recorded_us: int) -> None:
        """Enter an assignment.

        Raises:
            LakeError: the device is assigned to something else at that time, the assignment ends before
                it begins, or another process changed the registry meanwhile.
        """
        if assignment.from_us >= _end(assignment):
            raise LakeError(
                f"device '{assignment.device}': an assignment ends before it begins",
                expected=f"to_us above {assignment.from_us}",
                found=str(assignment.to_us),
            )
        mark, current, last_us = self._current()
        refuse_overlap(assignment, current.values())
        self._record([assignment], max(recorded_us, last_us + 1), mark + 1)

    def move(self, assignment: Assignment, *, recorded_us: int) -> None:
        """Move a device to another subject (or sensor) at ``assignment.from_us``: what held there ends.

        Raises:
            LakeError: nothing held at that moment, or a later assignment is in the way.
        """
        mark, current, last_us = self._current()
        ended = self._ended(current.values(), assignment.device, assignment.from_us)
        others = [a for a in current.values() if (a.device, a.from_us) != (ended.device, ended.from_us)]
        refuse_overlap(assignment, [*others, ended])
        # A move at the very start of what held replaces it: one row with the same key.
        rows = [assignment] if ended.from_us == assignment.from_us else [ended, assignment]
        self._record(rows, max(recorded_us, last_us + 1), mark + 1)

    def retire(self, device: str, at_us: int, *, recorded_us: int) -> None:
        """End what a device watches at an instant; an assignment that began just then is voided.

        Raises:
            LakeError: it watched nothing then.
        """
        mark, current, last_us = self._current()
        ended = self._ended(current.values(), device, at_us)
        self._record([ended], max(recorded_us, last_us + 1), mark + 1)

    def assignments_at(self, devices: Sequence[str] | Any, at: Any) -> pa.Table:
        """As-of join: for each (device, instant) the assignment that held.

        Args:
            devices: n device names (list, numpy or Arrow array).
            at: n instants (int µs UTC, ``datetime64`` or Arrow timestamps).

        Returns:
            n rows with ``subject``, ``sensor``, ``site``, ``hardware``, in the order asked; empty where the
            device was assigned to nothing.
        """
        found = self.assignments()
        index = as_of(found, _strings(devices), instants_us(at))
        mask = pa.array(index < 0)
        taken = pa.array(np.where(index < 0, 0, index))
        names = ("subject", "sensor", "site", "hardware")
        if not found:
            return pa.table({n: pa.nulls(len(index), pa.string()) for n in names})
        columns = {n: pa.array([getattr(a, n) for a in found], pa.string()) for n in names}
        empty = pa.nulls(len(index), pa.string())
        return pa.table({n: pc.if_else(mask, empty, c.take(taken)) for n, c in columns.items()})

    def subject_at(self, devices: Sequence[str] | Any, at: Any) -> pa.Array:
        """The subject each device watched at each instant (see ``assignments_at``); empty where none."""
        return self.assignments_at(devices, at)["subject"].combine_chunks()

    def _current(self) -> tuple[int, dict[tuple[str, int], Assignment], int]:
        """The watermark of this view, what counts in it, and when the newest row was recorded."""
        # Read before the rows: a change in between makes the commit fail instead of going unseen.
        mark = self._lake.watermark(_WATERMARK, table="assets") or 0
        rows = self._lake.read("assets", version=self._version)
        for name in ("valid_from", "valid_to", "recorded_at"):
            place = rows.column_names.index(name)
            rows = rows.set_column(place, name, rows[name].cast(pa.int64()))
        plain = sorted(rows.to_pylist(), key=lambda r: (r["device"], r["valid_from"], r["recorded_at"]))
        current = {(r["device"], r["valid_from"]): _assignment(r) for r in plain}
        return mark, current, max((r["recorded_at"] for r in plain), default=-1)

    def _ended(self, current: Iterable[Assignment], device: str, at_us: int) -> Assignment:
        for held in current:
            if held.device == device and held.from_us <= at_us < _end(held):
                return replace(held, to_us=at_us)
        raise LakeError(
            f"device '{device}'",
            expected=f"an assignment that holds at {at_us}",
            found="none",
            do="Enter one with assign.",
        )

    def _record(self, rows: Sequence[Assignment], recorded_us: int, mark: int) -> None:
        if self._version is not None:
            raise LakeError("the registry as of a version is read only", do="Open it without a version.")
        table = pa.table(
            {
                "device": [a.device for a in rows],
                "subject": [a.subject for a in rows],
                "sensor": pa.array([a.sensor for a in rows], pa.string()),
                "site": pa.array([a.site for a in rows], pa.string()),
                "hardware": pa.array([a.hardware for a in rows], pa.string()),
                "valid_from": [a.from_us for a in rows],
                "valid_to": pa.array([a.to_us for a in rows], pa.int64()),
                "recorded_at": [recorded_us] * len(rows),
            }
        )
        self._lake.append("assets", table, transactions={_WATERMARK: mark})


def refuse_overlap(new: Assignment, others: Iterable[Assignment]) -> None:
    """Refuse an assignment of a device that is assigned already at that time (pure).

    Raises:
        LakeError: naming both.
    """
    for other in others:
        if new.overlaps(other):
            raise LakeError(
                f"device '{new.device}' cannot watch '{new.subject}' from {new.from_us} to {new.to_us}",
                expected="no other assignment of the device at that time",
                found=f"'{other.subject}' from {other.from_us} to {other.to_us}",
                do="End that one first (retire), or move the device.",
            )


def as_of(
    assignments: Sequence[Assignment], devices: pa.Array, at_us: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Index of the assignment that held for each (device, instant), -1 where none did (pure).

    Args:
        assignments: sorted by device and ``from_us``, not overlapping.
        devices: [n] names.
        at_us: [n] instants, µs UTC.
    """
    if len(devices) != len(at_us):
        raise LakeError("as-of join", expected=f"{len(devices)} instants", found=str(len(at_us)))
    found = np.full(len(devices), -1, dtype=np.int64)
    encoded = devices.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    which = np.asarray(encoded.indices.fill_null(-1), dtype=np.int64)
    order = np.argsort(which, kind="stable")
    bounds = np.searchsorted(which[order], np.arange(len(names) + 1))
    for i, name in enumerate(names):
        mine = [k for k, a in enumerate(assignments) if a.device == name]
        if not mine:
            continue
        asked = order[bounds[i] : bounds[i + 1]]
        starts = np.array([assignments[k].from_us for k in mine], dtype=np.int64)
        ends = np.array([_end(assignments[k]) for k in mine], dtype=np.int64)
        place = np.searchsorted(starts, at_us[asked], side="right") - 1
        holds = (place >= 0) & (at_us[asked] < ends[np.maximum(place, 0)])
        found[asked] = np.where(holds, np.array(mine, dtype=np.int64)[np.maximum(place, 0)], -1)
    return found


def instants_us(at: Any) -> NDArray[np.int64]:
    """Instants in any of the usual forms as int64 µs UTC; naive ``datetime64`` counts as UTC.

    >>> instants_us(np.array(["1970-01-01T00:00:01"], dtype="datetime64[s]")).tolist()
    [1000000]
    """
    if isinstance(at, pa.Array | pa.ChunkedArray):
        kind = at.type
        plain = at.cast(pa.timestamp("us", tz=kind.tz)) if pa.types.is_timestamp(kind) else at
        return np.asarray(plain.cast(pa.int64()), dtype=np.int64)
    values = np.asarray(at)
    if values.dtype.kind == "M":
        values = values.astype("datetime64[us]")
    if values.dtype.kind not in "iuM" and values.size:
        raise LakeError("instants", expected="int µs UTC or timestamps", found=str(values.dtype))
    return values.astype(np.int64)


def _strings(values: Any) -> pa.Array:
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, pa.string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _end(assignment: Assignment) -> int:
    return _OPEN if assignment.to_us is None else assignment.to_us


def _assignment(row: dict[str, Any]) -> Assignment:
    return Assignment(
        row["device"],
        row["subject"],
        row["valid_from"],
        row["valid_to"],
        row["sensor"],
        row["site"],
        row["hardware"],
    )
