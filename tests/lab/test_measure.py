"""Figures for placement, measured here."""

from __future__ import annotations

from pathlib import Path

import pytest
from worlds.bundles import bundle_files

from aiotkit.core.errors import StorageError
from aiotkit.core.placement import Host, Target
from aiotkit.lab.measure import Timing, measure_decide, measure_fsync, measured


def is_ordered(timing: Timing) -> bool:
    return 0 < timing.p50_ms <= timing.p95_ms <= timing.p99_ms <= timing.max_ms


def test_fsync_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    """Percentiles rise, the run count is what was asked for, and the folder is empty again."""
    found = measure_fsync(tmp_path, runs=30)
    assert is_ordered(found)
    assert (found.runs, found.warm_up) == (30, 10)
    assert found.to_json()["what"] == "append and sync 1000 bytes"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A missing folder is an error with what to do, not a figure."""
    with pytest.raises(StorageError, match=r"cannot measure in .*gone; found No such file.* Name a folder"):
        measure_fsync(tmp_path / "gone")


def test_a_whole_decision_is_measured() -> None:
    """A bundle's engine decides on plausible windows, and the figure carries the decision's name."""
    found = measure_decide(bundle_files(), runs=30)
    assert is_ordered(found)
    assert found.what == "decide bearing-test"


def test_measured_figures_replace_those_of_the_device() -> None:
    """Only the device's own figures change; other hosts keep theirs."""
    host = Host(decide_p99_ms=1, fsync_p99_ms=2, memory_mb=500, journal_mb=7)
    target = Target(name="t", device=host, site=host)
    timing = Timing("x", 1, 0, 1.0, 2.0, 3.5, 4.0, "m")
    found = measured(target, fsync=timing, decide=timing)
    assert found.device == Host(decide_p99_ms=3.5, fsync_p99_ms=3.5, memory_mb=500, journal_mb=7)
    assert found.site == host
    assert measured(target) == target
