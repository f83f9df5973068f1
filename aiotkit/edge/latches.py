"""What the actuator process must still know after a restart: the stop, and commands without an end."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import StorageError
from aiotkit.edge.control import InForce, Refused
from aiotkit.edge.disk import Disk, replace
from aiotkit.edge.envelope import MAX_INSTANT_US, Limit, refusal
from aiotkit.edge.wire import loads, unicode_only

log = logging.getLogger(__name__)
STOP_FILE = "stop.json"
HELD_FILE = "held.json"
Limits = Mapping[str, Mapping[str, Limit]]


def write_stop(disk: Disk, by: str, why: str, now_us: int) -> None:
    """Latch the stop on disk, durably: it holds at the next start of the actuator process."""
    said = {"format": 1, "by": unicode_only(by), "why": unicode_only(why), "at_us": now_us}
    replace(disk, STOP_FILE, canonical_bytes(said))


def read_stop(disk: Disk) -> int | None:
    """When the stop was pressed (µs; 0 = nobody knows), or None.

    Whatever has the latch's name stops, whether it can be read or not.
    """
    if STOP_FILE not in disk.list(""):
        return None
    try:
        at_us = loads(disk.read(STOP_FILE))["at_us"]
    except (StorageError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read: the stop holds: %s", STOP_FILE, error)
        return 0
    return at_us if type(at_us) is int and 0 <= at_us <= MAX_INSTANT_US else 0


def clear_stop(disk: Disk) -> None:
    """Forget the stop, durably; ``StorageError`` when what has its name cannot be removed."""
    if STOP_FILE in disk.list(""):
        remove = disk.rmdir if disk.size(STOP_FILE) is None else disk.unlink
        remove(STOP_FILE)
        disk.sync_folder("")


def write_held(disk: Disk, held: Mapping[str, InForce]) -> None:
    """Keep the commands without an end, durably; nothing is written when nothing has changed."""
    data = canonical_bytes({"format": 1, "held": {name: one.to_json() for name, one in held.items()}})
    there = disk.size(HELD_FILE) is not None
    if (held or there) and not (there and disk.read(HELD_FILE) == data):
        replace(disk, HELD_FILE, data)


def read_held(disk: Disk, actuators: Limits) -> tuple[dict[str, InForce], list[Refused]]:
    """The commands that were held, as far as the envelope allows them now, and those that it does not.

    Args:
        disk: the state folder.
        actuators: the envelope; it may have been tightened since a command was taken.

    Returns:
        (by actuator, what may be in force again; what may not). Of a file that cannot be read every
        actuator is refused: there may have been a trip, and undoing it is not an option.
    """
    if HELD_FILE not in disk.list(""):
        return {}, []
    try:
        document = loads(disk.read(HELD_FILE))
        held = document["held"].items() if document["format"] == 1 else None
    except (StorageError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, [Refused(name, "", "", f"{HELD_FILE} cannot be read: {error}") for name in actuators]
    if held is None:
        return {}, [Refused(name, "", "", f"{HELD_FILE} is not of format 1") for name in actuators]
    good: dict[str, InForce] = {}
    refused = []
    for name, one in held:
        words = _wrong(name, one, actuators)
        if words:
            refused.append(Refused(name, _word(one, "id"), _word(one, "action"), words))
        else:
            good[name] = InForce(one["id"], one["action"], one["values"], None, None)
    return good, refused


def _wrong(actuator: str, one: object, actuators: Limits) -> str:
    """Why a held command may not be in force again, or an empty string."""
    if not isinstance(one, dict) or not (
        isinstance(one.get("id"), str) and isinstance(one.get("action"), str)
    ):
        return f"{HELD_FILE}: {actuator[:64]} is no command"
    words = refusal(actuators, actuator, one.get("values"))
    return f"held, and outside the envelope: {words}" if words else ""


def _word(one: object, name: str) -> str:
    found = one.get(name) if isinstance(one, dict) else None
    return found if isinstance(found, str) else ""
