"""``health.json``: how the agent is, for people and supervisors; replaced at most once a second."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiotkit.core.canonical import canonical_bytes, utf8_text
from aiotkit.edge.wire import loads

log = logging.getLogger(__name__)
HEALTH_FILE = "health.json"
EVERY_S = 1.0


def read_health(state: Path) -> dict[str, Any] | None:
    """What the file says; None when there is none, or none that can be read."""
    try:
        found = loads((state / HEALTH_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


@dataclass
class Counts:
    """What the agent counts for the health file."""

    packets: int = 0
    bad_packets: int = 0
    bad_in_a_row: int = 0
    time_set: int = 0
    decided: int = 0
    last_error: str = ""

    def say(self, trouble: str) -> None:
        """Tell trouble once, in the log, and keep it for the health file."""
        trouble = utf8_text(trouble)
        if trouble != self.last_error:
            log.warning("%s", trouble)
        self.last_error = trouble


def status_of(said: Mapping[str, Any]) -> str:
    """A traffic light for everything the file says."""
    if said["journal_error"] or said["actuator_error"] or said["bundle_error"]:
        return "red"
    doubts = ("uplink_error", "source_error", "bad_packets", "time_set", "rolled_back")
    return "yellow" if any(said[doubt] for doubt in doubts) else "green"


class Health:
    """Writes the file; a disk that refuses must not stop decisions."""

    def __init__(self, state: Path) -> None:
        self._path = state / HEALTH_FILE
        self._written_s = -EVERY_S

    @property
    def due(self) -> bool:
        """Whether a second has passed."""
        return time.monotonic() - self._written_s >= EVERY_S

    def write(self, said: Mapping[str, Any]) -> None:
        """Replace the file. Not synced: what it says is old after a crash anyway."""
        self._written_s = time.monotonic()
        aside = self._path.with_suffix(".new")
        try:
            aside.write_bytes(canonical_bytes({"format": 1, **said}) + b"\n")
            aside.replace(self._path)
        except OSError as error:
            log.warning("%s: %s", self._path.name, error)
