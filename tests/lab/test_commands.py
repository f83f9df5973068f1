"""The desk's commands: decision, init, ingest, outcomes, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")
yaml = pytest.importorskip("yaml")
pytest.importorskip("typer")
HOUR, T0 = 3_600_000_000, 1_780_012_800_000_000


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line; its exit code and what it said."""
    from aiotkit.cli.main import main

    def call(*words: object) -> tuple[int, str]:
        code = main([str(w) for w in words])
        out = capsys.readouterr()
        return code, out.out + out.err

    return call


@pytest.fixture
def file(document: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "guard.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_init_without_a_terminal_writes_a_file_that_checks(run: Any, tmp_path: Path) -> None:
    """No question is asked, and what was written is accepted, explained and placed."""
    path = tmp_path / "a.yaml"
    code, said = run("init", "pump-a", "--out", path)
    assert (code, "wrote" in said) == (0, True)
    assert run("decision", "check", path)[0] == 0
    assert "What may be done" in run("decision", "explain", path)[1]
    assert "must run here: device" in run("decision", "place", path)[1]
    code, said = run("init", "pump-a", "--out", path)
    assert (code, "is there already" in said) == (2, True)


def test_init_takes_its_answers_from_flags_and_data(run: Any, tmp_path: Path) -> None:
    """States, costs and signals given or found are in the file."""
    pd.DataFrame(
        {
            "time": pd.date_range("2026-01-01", periods=50, freq="1min", tz="UTC"),
            "oil_temp": [40, 41, 39] * 16 + [1, 2],
        }
    ).to_csv(tmp_path / "f.csv", index=False)
    costs = [w for c in ("go.fine=0", "go.ill=9", "halt.fine=1", "halt.ill=1") for w in ("--cost", c)]
    words = ["--states", "fine,ill", "--actions", "go,halt", "--data", tmp_path / "f.csv", *costs]
    code, said = run(
        "init", "x", "--out", tmp_path / "x.yaml", "--signal", "vib=mm/s@5:-1..1", *words, "--json"
    )
    assert code == 0, said
    written = yaml.safe_load((tmp_path / "x.yaml").read_text())
    assert written["costs"] == {"go": {"fine": 0, "ill": 9}, "halt": {"fine": 1, "ill": 1}}
    assert set(written["signals"]) == {"oil_temp", "vib"}
    assert run("init", "y", "--out", tmp_path / "y.yaml", "--signal", "vib")[0] == 2
    assert run("init", "y", "--out", tmp_path / "y.yaml", "--cost", "go.ill=9")[0] == 2
    assert not (tmp_path / "y.yaml").exists()


def test_check_lists_every_problem_and_exits_2(run: Any, file: Path, document: dict[str, Any]) -> None:
    """A bad file: exit code 2, all problems at once, as JSON where a program reads."""
    document["signals"]["oil"]["unit"] = "degC"
    document["site"]["time_zone"] = "Mars"
    file.write_text(yaml.safe_dump(document))
    code, said = run("decision", "check", file)
    assert code == 2
    assert "did you mean 'Cel'" in said
    assert "unknown time zone 'Mars'" in said
    code, said = run("decision", "check", file, "--json")
    assert (code, json.loads(said)["exit_code"]) == (2, 2)


def test_the_schema_accepts_the_file(run: Any, document: dict[str, Any]) -> None:
    """The exported JSON Schema is one, and our decision satisfies it."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(run("decision", "schema")[1])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)


def test_place_says_no_with_exit_code_1(run: Any, file: Path, tmp_path: Path) -> None:
    """With your own slow figures: exit code 1, and the figure that would have to change."""
    slow = {"name": "toaster", "device": {"decide_p99_ms": 900, "fsync_p99_ms": 1, "memory_mb": 500}}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({"format": 1, "target": slow}))
    code, said = run("decision", "place", file, "--target", tmp_path / "t.yaml")
    assert code == 1
    assert "needs.deadline_ms at least 900" in said
    code, said = run("decision", "place", file, "--target", "industrial-cp")
    assert (code, "did you mean 'industrial-pc'" in said) == (2, True)
    code, said = run("decision", "place", file, "--html", tmp_path / "p.html", "--json")
    assert (code, json.loads(said)["possible"]) == (0, ["device"])
    assert "Where it can run" in (tmp_path / "p.html").read_text()


def test_ingest_reports_stores_and_says_no(run: Any, file: Path, plant: Any, tmp_path: Path) -> None:
    """Telemetry goes in once with its books in the answer; a signal without any value is exit code 1."""
    at = pd.date_range("2026-05-01T10:00:00Z", periods=30, freq="10s")
    frame = pd.DataFrame({"time": at, "pump": "p1", "vib": 1.0, "oil": 40.0})
    frame.loc[4, "vib"] = 99
    frame.to_csv(tmp_path / "f.csv", index=False)
    words = ("ingest", tmp_path / "f.csv", "--decision", file, "--quarantine", tmp_path / "q.csv")
    code, said = run(*words, "--lake", plant.lake.uri, "--json")
    told = json.loads(said)
    assert (code, told["rows_in"], told["rows_kept"], told["rows_quarantined"]) == (0, 60, 59, 1)
    assert pd.read_csv(tmp_path / "q.csv")["row"].tolist() == [5]
    code, said = run(*words, "--lake", plant.lake.uri)
    assert (code, "nothing new" in said) == (0, True)
    frame.assign(oil=999).to_csv(tmp_path / "f.csv", index=False)
    assert run(*words)[0] == 1
    assert run("ingest", tmp_path / "f.csv")[0] == 2
    code, said = run("ingest", tmp_path / "f.csv", "--propose", "--json")
    assert {c["column"]: c["role"] for c in json.loads(said)["columns"]}["time"] == "time"


def test_from_journal_to_page(run: Any, file: Path, plant: Any, tmp_path: Path) -> None:
    """Outcomes are imported, labels counted, and a page is made that holds the reasons and the money."""
    plant.watch("d1", "pump-a", T0)
    for i in range(60):
        plant.decide("d1", T0 + i * HOUR, "slow" if i > 50 else "run", vib=-1.0 if i == 7 else 2.0)
    plant.store()
    at = [str(pd.Timestamp(T0 + h * HOUR, unit="us")) for h in (30, 31)]
    rows = pd.DataFrame({"subject": ["pump-a", "pump-q"], "state": "broken", "at": at, "source": "crew"})
    rows.to_csv(tmp_path / "o.csv", index=False)
    words = ("outcomes", "import", tmp_path / "o.csv", "--lake", plant.lake.uri, "--decision", file)
    assert run(*words)[0] == 2  # no zone
    code, said = run(*words, "--zone", "UTC")
    assert code == 1
    assert "unknown subject 'pump-q'; did you mean 'pump-a'?" in said
    when = "2027-01-01T00:00:00Z"
    code, said = run(
        "outcomes", "status", "--lake", plant.lake.uri, "--decision", file, "--as-of", when, "--json"
    )
    counts = {(c["status"], c["state"]): c["decisions"] for c in json.loads(said)["counts"]}
    assert counts[("mature", "broken")] == 24  # hours 7 to 30: an episode ends before its horizon
    assert sum(counts.values()) == 60
    page = tmp_path / "r.html"
    assert run("report", "--lake", plant.lake.uri, "--decision", file, "--as-of", when, "--out", page)[0] == 0
    text = page.read_text()
    for piece in (
        "Why, in words",
        "oil.last &gt; 10: -1",
        "EUR per subject-day",
        "The books",
        "Machines over time",
    ):
        assert piece in text
    assert run("report", "--lake", plant.lake.uri, "--out", page)[0] == 0
    code, said = run("report", "--lake", tmp_path / "none", "--out", page)
    assert (code, "there is no lake" in said) == (2, True)


def test_real_files_are_proposed_and_read(run: Any, datasets: Path, tmp_path: Path) -> None:
    """On public data the guesses lead to a decision file that checks, and to a file that is read in full."""
    drives = datasets / "backblaze_toshiba/toshiba_mq01abf050_last10days_raw.csv"
    told = json.loads(run("ingest", drives, "--propose", "--json")[1])
    roles = {c["column"]: c["role"] for c in told["columns"]}
    assert (roles["date"], roles["serial_number"], roles["failure"], roles["smart_9_raw"]) == (
        "time", "subject", "label", "counter",
    )  # fmt: skip
    assert told["zone_needed"]
    path = tmp_path / "d.yaml"
    assert run("init", "drives", "--data", drives, "--out", path)[0] == 0
    assert run("decision", "check", path)[0] == 0
    words = ("--subject-column", "serial_number", "--zone", "UTC", "--json")
    code, said = run("ingest", drives, "--decision", path, *words)
    report = json.loads(said)
    assert (code, report["file_rows"], report["subjects"]) == (0, 5335, 534)
    assert report["rows_in"] == report["rows_kept"] + report["rows_quarantined"]
    rig = datasets / "hydraulic_uci/native_1hz/TS1.txt"
    told = json.loads(run("ingest", rig, "--propose", "--json")[1])
    assert (told["shape"], told["rows"], len(told["columns"])) == ("window", 2205, 60)
