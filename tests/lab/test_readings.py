"""A file that is read again in another way: said, refused, and put in the place of the first on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiotkit.core.errors import AlreadyStoredError, ContradictionError

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")
pytest.importorskip("deltalake")
pytest.importorskip("typer")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command line in a folder with a decision file and telemetry; its exit code and what it said."""
    from aiotkit.cli.main import main

    monkeypatch.chdir(tmp_path)
    at = pd.date_range("2026-03-02", periods=400, freq="h").astype(str)
    pd.DataFrame(
        {"Zeit": at, "heat": [n * 37 % 400 for n in range(400)], "flow": [n % 7 for n in range(400)]}
    ).to_csv("tele.csv", index=False)

    def call(*words: object) -> tuple[int, str]:
        code = main([str(w) for w in words])
        out = capsys.readouterr()
        return code, out.out + out.err

    assert call("init", "pump", "--from", "tele.csv", "--yes")[0] == 0
    return call


def rows(table: str = "telemetry", version: int | None = None) -> Any:
    """A table of the test's lake."""
    from aiotkit.lake.lake import Lake

    return Lake.open("lake").read(table, version=version).to_pandas()


INTO = ("--decision", "pump.yaml", "--lake", "lake")
WRONG = ("--zone", "UTC", "--subject", "P9")
RIGHT = ("--zone", "Europe/Berlin", "--subject", "P1")


def test_a_corrected_reading_is_refused_and_replaces(run: Any) -> None:
    """The same file with other options: both readings named; --replace leaves the right rows alone there."""
    from aiotkit.lake.lake import Lake

    assert run("ingest", "tele.csv", *INTO, *WRONG)[0] == 0
    before = Lake.open("lake").versions()["telemetry"]
    code, said = run("ingest", "tele.csv", *INTO, *RIGHT)
    assert code == 2, said
    assert "tele.csv: the lake holds this file, read otherwise" in said
    assert "expected subject P9, zone UTC; found subject P1, zone Europe/Berlin" in said
    assert "--replace" in said
    assert set(rows()["subject"]) == {"P9"}

    code, said = run("ingest", "tele.csv", *INTO, *RIGHT, "--replace")
    assert code == 0, said
    assert "replaced what the lake held of this file; earlier versions of the table keep it" in said
    now = rows()
    assert set(now["subject"]) == {"P1"}
    assert len(now) == 800
    assert str(now["at"].min()) == "2026-03-01 23:00:00+00:00"
    assert set(rows(version=before)["subject"]) == {"P9"}
    assert Lake.open("lake").table("telemetry").metadata().configuration["delta.appendOnly"] == "true"
    code, said = run("ingest", "tele.csv", *INTO, *RIGHT)
    assert (code, "nothing new" in said) == (0, True), said
    assert run("ingest", "tele.csv", *INTO, *WRONG)[0] == 2


def test_a_wider_range_takes_what_was_quarantined(run: Any) -> None:
    """A decision file that believes more now is no other reading: what is new is added."""
    path = Path("pump.yaml")
    text = path.read_text()
    path.write_text(text.replace("range: [0, 800]", "range: [0, 398]"))
    assert text != path.read_text()
    code, said = run("ingest", "tele.csv", *INTO, *RIGHT)
    assert code == 0, said
    assert (rows()["name"] == "heat").sum() == 399
    path.write_text(text)
    code, said = run("ingest", "tele.csv", *INTO, *RIGHT)
    assert (code, "stored 1 values" in said) == (0, True), said


def test_names_are_read_one_by_one(run: Any) -> None:
    """Another name of the same file may have other options; a replacement touches what was asked for."""
    assert run("ingest", "tele.csv", *INTO, *RIGHT, "--only", "heat")[0] == 0
    code, said = run("ingest", "tele.csv", *INTO, *RIGHT, "--only", "flow", "--unit", "flow=cm3/min")
    assert code == 0, said
    code, said = run("ingest", "tele.csv", *INTO, *RIGHT, "--only", "flow")
    assert code == 2
    assert "expected unit of flow cm3/min; found unit of flow L/min" in said
    assert run("ingest", "tele.csv", *INTO, *RIGHT, "--only", "flow", "--replace")[0] == 0
    assert rows().groupby("name")["value"].max().to_dict() == {"flow": 6, "heat": 399}


def test_files_of_equal_bytes_named_after_machines_are_two(run: Any) -> None:
    """Where the file's name says the subject, two files of the same bytes are two."""
    Path("data").mkdir()
    for name in ("P1", "P2"):
        Path(f"data/{name}.csv").write_bytes(Path("tele.csv").read_bytes())
    code, said = run("ingest", "data", *INTO, "--zone", "UTC", "--subject-from", "filename")
    assert code == 0, said
    assert rows()["subject"].value_counts().to_dict() == {"P1": 800, "P2": 800}
    again = (
        "ingest",
        "data/P1.csv",
        *INTO,
        "--zone",
        "Europe/Berlin",
        "--subject-from",
        "filename",
        "--replace",
    )
    assert run(*again)[0] == 0
    assert rows().groupby("subject")["at"].min().astype(str).to_dict() == {
        "P1": "2026-03-01 23:00:00+00:00", "P2": "2026-03-02 00:00:00+00:00",
    }  # fmt: skip


def test_a_lake_from_before_is_still_asked(run: Any) -> None:
    """A lake that does not remember readings: the same values again are nothing new, others are refused."""
    from aiotkit.core.canonical import canonical_bytes, digest
    from aiotkit.lab.decision_file import read_decision
    from aiotkit.lab.ingest import ingest
    from aiotkit.lab.instants import Clock
    from aiotkit.lab.layout import Options
    from aiotkit.lab.stored import _telemetry_table
    from aiotkit.lake.lake import Lake

    decision, lake = read_decision(Path("pump.yaml")), Lake.create("lake")

    def read(zone: str) -> Any:
        return ingest("tele.csv", decision, Options(subject="P1", clock=Clock(zone)))

    old = read("UTC")
    mark = f"ingest/{digest(canonical_bytes([old.digest, ['flow', 'heat']]))}"
    table = _telemetry_table(old.rows, f"tele.csv {old.digest}", None)
    lake.append("telemetry", table, transactions={mark: 1})
    with pytest.raises(AlreadyStoredError, match="in the lake already"):
        read("UTC").to_lake(lake, ingested_us=0)
    with pytest.raises(ContradictionError, match="expected in a way that was not recorded then"):
        read("Europe/Berlin").to_lake(lake, ingested_us=0)
    assert read("Europe/Berlin").to_lake(lake, ingested_us=0, replace=True).new == 800
    assert len(rows()) == 800


def test_outcomes_read_otherwise_are_refused_and_replace(run: Any) -> None:
    """Another zone of the same list: both readings named; --replace leaves only the right instants there."""
    run("ingest", "tele.csv", *INTO, *RIGHT)
    Path("f.csv").write_text("when\n2026-03-04 10:00\n2026-03-09 10:00\n")
    told = ("outcomes", "import", "f.csv", *INTO, "--subject", "P1", "--form", "failures", "--state", "worn")
    assert run(*told, "--zone", "UTC")[0] == 0
    code, said = run(*told, "--zone", "UTC")
    assert (code, "2  in the lake already" in said) == (0, True), said
    code, said = run(*told, "--zone", "Europe/Berlin")
    assert code == 2, said
    assert (
        "f.csv: the lake holds this file, read otherwise; expected zone UTC; found zone Europe/Berlin" in said
    )
    assert "--replace" in said
    code, said = run(*told, "--zone", "Europe/Berlin", "--replace")
    assert (code, "replaced what the lake held of it; earlier versions keep it" in said) == (0, True), said
    assert rows("outcomes")["at"].astype(str).tolist() == [
        "2026-03-04 09:00:00+00:00", "2026-03-09 09:00:00+00:00",
    ]  # fmt: skip


def test_outcomes_replace_their_own_file_alone(run: Any) -> None:
    """Reports of other files, and of an equal file of another machine, stay; so does who said it."""
    run("ingest", "tele.csv", *INTO, *RIGHT)
    run("ingest", "tele.csv", *INTO, *WRONG, "--replace")
    Path("data").mkdir()
    for place in ("data/P9.csv", "other.csv"):
        Path(place).write_text("subject,state,at,provenance\nP9,worn,2026-03-04 10:00,Ann's word\n")
    told = ("outcomes", "import", *INTO)
    assert run(*told, "other.csv", "--zone", "UTC")[0] == 0
    Path("other.csv").write_text("subject,state,at,provenance\nP9,worn,2026-03-05 10:00,Ann's word\n")
    assert run(*told, "other.csv", "--zone", "UTC")[0] == 0
    assert run(*told, "other.csv", "--zone", "Europe/Berlin", "--replace")[0] == 0
    held = rows("outcomes").sort_values("at")
    assert held["at"].dt.hour.tolist() == [10, 9]
    assert held["provenance"].str.startswith("Ann's word; outcomes other.csv sha256:").all()
