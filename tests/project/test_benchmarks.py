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


def test_a_decision_is_timed_against_a_bare_run_of_the_pinned_graph(tmp_path):
    """The engine's share is measured beside its floor; peers that were not run are null with the reason."""
    done = run("--quick", "--results", str(tmp_path), "decide")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "decide.json").read_text())
    figures, peers = result["figures"], result["peers"]
    assert 1 < figures["p50_over_bare"] < 20
    assert figures["p50_us"] > peers["bare_p50_us"] > 0
    assert figures["durable_p50_ms"] > figures["p50_us"] / 1e3
    nothing = {k for k, v in (figures | peers).items() if v is None}
    assert nothing == {"explain_extra_runs", "mlflow_serve_ms", "tsfresh_ms"} <= result["notes"].keys()
    assert "sha256:" in result["notes"]["graph"]


def test_another_graph_than_the_pinned_one_is_refused():
    """A figure always belongs to the graph whose digest stands beside it."""
    words = "import reference, pathlib, tempfile; reference.FOLDER = pathlib.Path(tempfile.mkdtemp()); "
    words += (
        "[(reference.FOLDER / n).write_bytes(b'x') for n in reference.NAMES]; reference.reference_files()"
    )
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=BENCHMARKS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "expected sha256:" in done.stderr


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
