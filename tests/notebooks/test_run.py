"""Every notebook runs from its first to its last cell and leaves what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("papermill")
pytestmark = pytest.mark.desk

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "tests" / "data" / "bearing" / "decision.yaml"
#: notebook, parameters, files it must leave
RUNS = [
    ("10_define_decision", {}, ["define-decision/decision.json", "define-decision/trial.csv"]),
    ("10_define_decision", {"decision_path": str(EXAMPLE), "output_folder": "mine"}, ["mine/decision.json"]),
]


def run(name: str, parameters: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / f"{name}.ipynb"), "out.ipynb"]
    command += ["--no-progress-bar", "--kernel", "python3"]
    for key, value in parameters.items():
        command += ["-p", key, value]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(("name", "parameters", "files"), RUNS, ids=["its own example", "another decision"])
def test_a_notebook_runs_and_leaves_its_artefacts(
    name: str, parameters: dict[str, str], files: list[str], tmp_path: Path
) -> None:
    """From the first cell to the last, in an empty folder."""
    done = run(name, parameters, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for file in files:
        assert (tmp_path / file).stat().st_size > 0


def test_the_page_works_without_costs(tmp_path: Path) -> None:
    """``costs: unknown`` still gives break-even curves, placement and trials."""
    text = re.sub(r"^costs:\n(?:  .*\n)+", "costs: unknown\n", EXAMPLE.read_text(), flags=re.MULTILINE)
    (tmp_path / "unknown.yaml").write_text(text)
    assert "costs: unknown" in text
    done = run("10_define_decision", {"decision_path": str(tmp_path / "unknown.yaml")}, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_notebook_fails_on_a_broken_decision_file(tmp_path: Path) -> None:
    """Bad input stops the page at its first cell that reads it, and the error says why."""
    broken = tmp_path / "broken.yaml"
    broken.write_text(EXAMPLE.read_text().replace("vib.rms, gt: 11", "vib.rsm, gt: 11"))
    done = run("10_define_decision", {"decision_path": str(broken)}, tmp_path)
    assert done.returncode != 0
    assert "did you mean 'vib.rms'?" in done.stderr
