"""The whole circle with real processes: outage, kill, swap, late outcomes, replay, money."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deltalake")
pytestmark = pytest.mark.desk

from aiotkit.core.errors import DataError, StorageError  # noqa: E402
from aiotkit.lake.assets import Assets  # noqa: E402
from aiotkit.lake.lake import Lake  # noqa: E402
from aiotkit.loop.demo import Options, device_name  # noqa: E402
from aiotkit.loop.setting import prepare  # noqa: E402

FLEET, DAYS = 3, 4


def aiotkit(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aiotkit.cli.main", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("circle") / "run"
    size = ["--fleet", str(FLEET), "--days", str(DAYS)]
    done = aiotkit("demo", *size, "--seed", "11", "--workdir", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "summary.json").read_text())
    return folder


@pytest.fixture(scope="module")
def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def test_nothing_is_lost_and_nothing_comes_twice(summary: dict[str, Any]) -> None:
    """Through outage, kill and swap: decided = delivered + gaps."""
    books = summary["outage"]
    assert books["lost"] == books["duplicates"] == 0
    assert books["decided"] == books["delivered"] + books["gaps"]
    packets = FLEET * DAYS * 48
    missed = summary["field"]["packets_missed"]
    assert missed == 2  # the killed agent is away for three steps, and died with the first in its hands
    assert packets - missed - 1 <= books["decided"]


def test_every_decision_replays_bit_for_bit(summary: dict[str, Any]) -> None:
    """A fresh process finds the same bits in journal, bundle and blobs."""
    assert summary["replayed"]["checked"] == summary["outage"]["delivered"]
    assert summary["replayed"]["identical"] == summary["replayed"]["checked"]


def test_every_policy_has_its_price_and_interval(summary: dict[str, Any]) -> None:
    """Six policies, each with an interval that holds its estimate."""
    money = summary["policy_money"]
    assert list(money) == ["rule", "tuned_threshold", "hindsight_threshold", "always", "never", "oracle"]
    for row in money.values():
        assert row["low"] <= row["money"] <= row["high"]
    assert money["hindsight_threshold"]["money"] <= money["tuned_threshold"]["money"]


def test_every_decision_has_a_label_status(summary: dict[str, Any]) -> None:
    """Mature, pending, censored, verified and unlabelled add up to all decisions."""
    assert sum(summary["outcomes"].values()) == summary["outage"]["delivered"]
    assert summary["outcomes"]["pending"] > 0


def test_the_registry_knows_the_swap(run: Path) -> None:
    """One device watched two machines, one after the other."""
    mine = [a for a in Assets(Lake.open(run / "lake")).assignments() if a.device == device_name(FLEET)]
    assert [a.subject for a in mine] == [f"pump-{FLEET:02d}", "pump-01"]
    first_end = mine[0].to_us
    assert first_end is not None
    assert first_end <= mine[1].from_us


def test_the_report_needs_nothing_from_outside(run: Path) -> None:
    """One file, figures inside, no request to anywhere."""
    page = (run / "report.html").read_text()
    assert page.count("<figure>") >= 5
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]+"', page)


def test_what_the_devices_keep_verifies(run: Path) -> None:
    """Every device's own journal is sound, the killed one's too."""
    for number in range(1, FLEET + 2):
        state = run / "devices" / device_name(number)
        done = aiotkit("journal", "verify", str(state), "--json")
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_can_be_made_from_the_lake_alone(run: Path, tmp_path: Path) -> None:
    """``aiotkit report`` tells a lake's story without the demo."""
    target = tmp_path / "page.html"
    done = aiotkit("report", "--lake", str(run / "lake"), "--out", str(target))
    assert done.returncode == 0, done.stderr
    assert "pump-01" in target.read_text()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    """The demo replaces its own runs and nothing else."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="found other files"):
        prepare(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_run_too_small_to_tell_anything_is_refused() -> None:
    """The story needs a few machines and days."""
    with pytest.raises(DataError, match="at least 3 and at least 4 days"):
        Options(fleet=1, days=1)
