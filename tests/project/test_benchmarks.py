"""Benchmarks can be run and their page tells the truth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(*words):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "run_all.py"), *words], capture_output=True, text=True, check=False
    )


def test_a_benchmark_writes_its_result_and_one_page_shows_it(tmp_path):
    """The result names machine, date, floor and notes; whatever was not measured says why."""
    done = run("--quick", "--results", str(tmp_path), "gates")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gates.json").read_text())
    assert {"name", "figures", "peers", "machine", "date", "quick", "notes"} <= result.keys()
    assert result["figures"]["six_terms_us"] > 0
    assert result["peers"]["eval_us"] > 0
    assert all(value is not None or key in result["notes"] for key, value in result["figures"].items())
    page = (tmp_path / "index.html").read_text()
    assert "six_terms_us" in page
    assert "<svg" in page
    assert "http" not in page


def test_a_missed_target_is_shown_as_missed(tmp_path):
    """The page compares each figure with its target, in the right direction."""
    result = {
        "name": "made-up",
        "figures": {"small": 4.0, "slow": 9000, "unknown": None},
        "targets": {"small": "≤ 5", "slow": "≥ 10,000", "unknown": "≤ 1"},
        "peers": {},
        "notes": {"unknown": "no <scale>"},
        "machine": {"cpu": "x"},
        "date": "2026-01-01",
        "quick": False,
    }
    (tmp_path / "made-up.json").write_text(json.dumps(result))
    assert run("--quick", "--results", str(tmp_path), "gates").returncode == 0
    page = (tmp_path / "index.html").read_text()
    assert "<td>small<td class='n'>4<td class='met'>≤ 5" in page
    assert "<td>slow<td class='n'>9,000<td class='missed'>≥ 10,000" in page
    assert "<td>unknown<td class='n'>not measured<td>≤ 1" in page
    assert "no &lt;scale&gt;" in page


def test_an_unknown_benchmark_is_refused(tmp_path):
    """A misspelt name runs nothing and lists what there is."""
    done = run("--results", str(tmp_path), "gate")
    assert done.returncode == 1
    assert "unknown: gate; known: " in done.stderr
