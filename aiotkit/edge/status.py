"""What can be said of a device from its state folder alone: bundles, probation, and whether an agent runs."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiotkit.edge.config import DeviceConfig
from aiotkit.edge.health import HEALTH_FILE, read_health
from aiotkit.edge.journal_files import LOCK_FILE
from aiotkit.edge.slots import Slots

#: a health file is replaced every second; one this old was left behind
FRESH_S = 5.0


def look(state: Path, config: DeviceConfig, slots: Slots) -> dict[str, Any]:
    """Everything, as plain data."""
    found, trials, health = slots.status(), slots.trials, read_health(state)
    active = found.active
    trial = None if active is None else trials.of(active.bundle)
    passed = active is not None and active.bundle in trials.passed
    standing = "passed" if passed else "on probation" if active is not None else None
    return {
        "device": config.device,
        "site": config.site,
        "slots": asdict(found),
        "probation": {
            "standing": standing,
            "of": config.probation.decisions,
            "trial": None if trial is None else trial.model_dump(mode="json"),
            "denied": [one.model_dump(mode="json") for one in trials.denied],
        },
        "agent": _agent(state, health),
        "health": health,
    }


def _agent(state: Path, health: Mapping[str, Any] | None) -> dict[str, Any]:
    """Whether an agent runs, and how long ago it last said how it is (s; None: nobody can tell)."""
    wall_us = None if health is None else health.get("wall_us")
    age_s = time.time() - wall_us / 1e6 if type(wall_us) is int and abs(wall_us) < 1 << 62 else None
    running = _held(state / "journal" / LOCK_FILE)
    unreadable = health is None and (state / HEALTH_FILE).exists()
    words = _running(age_s) if running else _idle(age_s, unreadable=unreadable)
    return {"running": running, "age_s": None if age_s is None else round(age_s, 1), "words": words}


def _running(age_s: float | None) -> str:
    if age_s is None:
        return "runs; it has not said yet how it is"
    return "runs" if abs(age_s) < FRESH_S else f"runs, and has said nothing for {age_s:.0f} s"


def _idle(age_s: float | None, *, unreadable: bool) -> str:
    if age_s is not None:
        return f"is not running; what follows is {age_s:.0f} s old"
    return "is not running; health.json cannot be read" if unreadable else "the agent never ran"


def _held(path: Path) -> bool:
    """Whether a process holds a lock file; nothing is created or kept."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def status_lines(said: Mapping[str, Any]) -> Iterator[str]:
    """The same for people."""
    active, probation = said["slots"]["active"], said["probation"]
    yield f"device    {said['device']} at {said['site']}"
    yield "bundle    " + ("none" if active is None else f"{active['decision']} revision {active['revision']}")
    if active is not None:
        yield f"          {active['bundle']}"
        yield f"probation {_standing(probation)}"
    for one in probation["denied"]:
        yield f"refused   {one['bundle']}: {one['why']}"
    for event in said["slots"]["events"]:
        yield f"warning   {event['detail']}"
    yield f"agent     {said['agent']['words']}"
    for name, value in (said["health"] or {}).items():
        yield f"{name:<24}{value}"


def _standing(probation: Mapping[str, Any]) -> str:
    trial = probation["trial"]
    if probation["standing"] == "passed" or trial is None:
        return str(probation["standing"])
    counts = trial["counts"]
    bad = ", ".join(f"{counts[name]} {name}" for name in ("undecided", "novel", "late"))
    done = f"{counts['decisions']} of {probation['of']} decisions, {bad}"
    return f"{probation['standing']}: {done}; {trial['starts']} starts without a proper end"
