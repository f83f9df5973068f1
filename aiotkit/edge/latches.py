"""What the actuator process must still know after a restart: the stop, and commands without an end."""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Mapping

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import ActuatorError
from aiotkit.edge.control import InForce
from aiotkit.edge.disk import Disk, replace

log = logging.getLogger(__name__)
STOP_FILE = "stop.json"
HELD_FILE = "held.json"


def write_stop(disk: Disk, by: str, why: str, now_us: int) -> None:
    """Latch the stop on disk, durably: it holds at the next start of the actuator process."""
    replace(disk, STOP_FILE, canonical_bytes({"format": 1, "by": by, "why": why, "at_us": now_us}))


def read_stop(disk: Disk) -> int | None:
    """When the stop was pressed (µs), or None; a file that cannot be read still stops."""
    if disk.size(STOP_FILE) is None:
        return None
    try:
        return int(json.loads(disk.read(STOP_FILE))["at_us"])
    except (ValueError, KeyError, TypeError):
        log.warning("%s cannot be read: the stop holds", STOP_FILE)
        return 0


def clear_stop(disk: Disk) -> None:
    """Forget the stop, durably."""
    if disk.size(STOP_FILE) is not None:
        disk.unlink(STOP_FILE)
        disk.sync_folder("")


def write_held(disk: Disk, held: Mapping[str, InForce]) -> None:
    """Keep the commands without an end, durably; nothing is written when nothing has changed."""
    data = canonical_bytes({"format": 1, "held": {name: one.to_json() for name, one in held.items()}})
    there = disk.size(HELD_FILE) is not None
    if (held or there) and not (there and disk.read(HELD_FILE) == data):
        replace(disk, HELD_FILE, data)


def read_held(disk: Disk, known: Container[str]) -> dict[str, InForce]:
    """The commands that were held, for actuators that still exist.

    Raises:
        ActuatorError: the file cannot be read; undoing a trip because of that is not an option.
    """
    if disk.size(HELD_FILE) is None:
        return {}
    try:
        held = json.loads(disk.read(HELD_FILE))["held"]
        return {
            name: InForce(one["id"], one["action"], one["values"], None, None)
            for name, one in held.items()
            if name in known
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ActuatorError(
            HELD_FILE, found=str(error), do="Look at the machine; then remove the file to start from rest."
        ) from error
