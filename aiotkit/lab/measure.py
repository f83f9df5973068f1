"""Measure the figures that placement asks for, on the computer this runs on.

What is measured here is true here: run it on the target (``aiotkit decision place --measure``), on the
disk that will hold the journal, while the machine does its usual work.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from aiotkit.bundle.engine import Engine
from aiotkit.core.canonical import JSON
from aiotkit.core.decision import Decision
from aiotkit.core.errors import StorageError
from aiotkit.core.placement import Host, Target
from aiotkit.core.records import DecisionInput, EngineState, Reading

RECORD_SIZE = 1000  # bytes of one synced write: about one decision record
WARM_UP = 10


@dataclass(frozen=True, slots=True)
class Timing:
    """Percentiles of a repeated operation (ms), after ``warm_up`` runs that do not count."""

    what: str
    runs: int
    warm_up: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    machine: str

    def to_json(self) -> JSON:
        """Plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


def measure_fsync(folder: Path | str, *, runs: int = 200, size: int = RECORD_SIZE) -> Timing:
    """How long one appended and synced record takes on the disk of a folder.

    Args:
        folder: on the disk that will hold the journal; a file in it is made and removed again.
        runs: how many writes count.
        size: bytes of one write.

    Raises:
        StorageError: the folder cannot be written.
    """
    sync = getattr(os, "fdatasync", os.fsync)
    data = os.urandom(size)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:

            def once() -> None:
                file.write(data)
                sync(file.fileno())

            return _timed(f"append and sync {size} bytes", once, runs)
    except OSError as error:
        raise StorageError(
            f"cannot measure in {folder}",
            found=error.strerror or str(error),
            do="Name a folder on the journal's disk that you may write to.",
        ) from error


def measure_decide(files: Mapping[str, bytes], *, runs: int = 200, seed: int = 0) -> Timing:
    """How long one whole decision of a bundle takes here (one thread, windows of plausible noise).

    Args:
        files: the files of a verified bundle.
        runs: how many decisions count.
        seed: of the noise.
    """
    engine = Engine(files)
    given, state = _plausible(engine.decision, seed), EngineState()

    def once() -> None:
        engine.decide(state, given)

    return _timed(f"decide {engine.decision.id}", once, runs)


def measured(target: Target, *, fsync: Timing | None = None, decide: Timing | None = None) -> Target:
    """The target with its device's figures replaced by what was measured on it."""
    figures: dict[str, float] = {}
    if fsync is not None:
        figures["fsync_p99_ms"] = fsync.p99_ms
    if decide is not None:
        figures["decide_p99_ms"] = decide.p99_ms
    device = Host.model_validate(target.device.model_dump() | figures)
    return target.model_copy(update={"device": device})


def _timed(what: str, once: Callable[[], None], runs: int) -> Timing:
    took = []
    for i in range(-WARM_UP, runs):
        started = perf_counter_ns()
        once()
        if i >= 0:
            took.append((perf_counter_ns() - started) / 1e6)
    p50, p95, p99 = (float(q) for q in np.percentile(took, (50, 95, 99), method="higher"))
    return Timing(what, runs, WARM_UP, p50, p95, p99, max(took), platform.machine())


def _plausible(decision: Decision, seed: int) -> DecisionInput:
    """Windows of uniform noise within the middle half of each range, and fresh context."""
    rng = np.random.default_rng(seed)
    windows = {}
    for name, signal in decision.signals.items():
        low, high = signal.range
        quarter = (high - low) / 4
        noise = rng.uniform(low + quarter, high - quarter, decision.samples(name))
        windows[name] = noise.astype(np.float32)
    context = {}
    for name, entry in decision.context.items():
        middle = 0.0 if entry.range is None else sum(entry.range) / 2
        context[name] = Reading(middle if entry.values is None else entry.values[0], 0.0)
    return DecisionInput("measure/0/1", 1_700_000_000_000_000, 1_700_000_000_000_000, windows, context)
