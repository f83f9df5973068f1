"""Files of one's own whose place, columns or words say more than a plain table does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.desk
np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
yaml = pytest.importorskip("yaml")
pytest.importorskip("torch")
pytest.importorskip("deltalake")
pytest.importorskip("typer")

HOURS = 96


def hourly(seed: int = 0, **more: Any) -> Any:
    """An hour a row: ts, what is given, temp, vib."""
    rng = np.random.default_rng(seed)
    at = pd.date_range("2026-03-02", periods=HOURS, freq="h", tz="UTC")
    temp, vib = rng.normal(60, 1, HOURS).round(2), rng.gamma(2, 1, HOURS).round(3)
    return pd.DataFrame({"ts": at, **more, "temp": temp, "vib": vib})


def said_of(run: Any, *words: object) -> dict[str, Any]:
    """What files seem to hold."""
    code, said = run("ingest", *words, "--propose", "--json")
    assert code == 0, said
    found: dict[str, Any] = json.loads(said)
    return found


def roles(run: Any, *words: object) -> dict[str, str]:
    """What columns seem to be."""
    return {c["column"]: c["role"] for c in said_of(run, *words)["columns"]}


def drafted(run: Any, name: str, *words: object) -> tuple[str, str]:
    """What was said about a draft, and its file."""
    code, said = run("init", name, *words, "--yes")
    assert code == 0, said
    return said, Path(f"{name}.yaml").read_text()


def test_folders_named_as_columns_are_columns(run: Any) -> None:
    """Machines in folders, days in folders below: four subjects, nothing merged, equal files told apart."""
    for i, machine in enumerate("abcd"):
        for day, part in hourly(i % 2).groupby(lambda row: row // 24):
            folder = Path(f"data/machine={machine}/date=2026-03-{day + 2:02d}")
            folder.mkdir(parents=True)
            part.to_parquet(folder / "part.parquet")
    found = said_of(run, "data")
    assert "--subject-column machine" in found["command"]
    drafted(run, "p", "--from", "data")
    code, said = run("ingest", "data", "--decision", "p.yaml", "--lake", "lake", "--json")
    assert code == 0, said
    assert sum(one["rows_kept"] for one in json.loads(said)["files"]) == 4 * HOURS * 2
    from aiotkit.lake.lake import Lake

    rows = Lake.open("lake").read("telemetry", columns=["subject"]).to_pandas()
    assert rows["subject"].value_counts().to_dict() == dict.fromkeys("abcd", HOURS * 2)


@pytest.mark.parametrize("how", ["filename", "folder"])
def test_files_that_would_all_be_of_one_subject_are_refused(run: Any, how: str) -> None:
    """Machines would be merged into one; nothing is read."""
    for i, machine in enumerate("ab"):
        place = Path(f"{machine}/part.csv" if how == "filename" else f"one/{machine}.csv")
        place.parent.mkdir(exist_ok=True)
        hourly(i).to_csv(place, index=False)
    drafted(run, "p", "--from", "a/part.csv" if how == "filename" else "one/a.csv")
    code, said = run("ingest", ".", "--decision", "p.yaml", "--subject-from", how, "--lake", "lake")
    assert code == 2
    assert "all 2 files would be of one subject" in said
    other = "folder" if how == "filename" else "filename"
    assert f"--subject-from {other}" in said
    code, said = run("ingest", ".", "--decision", "p.yaml", "--subject-from", other, "--lake", "lake")
    assert code == 0, said


def test_columns_that_differ_in_case_are_two(run: Any) -> None:
    """Each signal reads the column that is written exactly so; what no column is exactly is asked for."""
    frame = hourly().rename(columns={"temp": "Temp", "vib": "temp"})
    frame.to_csv("two.csv", index=False)
    drafted(run, "p", "--from", "two.csv")
    code, said = run("ingest", "two.csv", "--decision", "p.yaml", "--subject", "m", "--lake", "lake")
    assert code == 0, said
    from aiotkit.lake.lake import Lake

    rows = Lake.open("lake").read("telemetry", columns=["name", "value"]).to_pandas()
    seen = {name: sorted(part["value"].round(3)) for name, part in rows.groupby("name")}
    assert sorted(seen.values()) == sorted([sorted(frame["Temp"]), sorted(frame["temp"])])
    frame.rename(columns={"Temp": "TEMP", "temp": "Temp "}).to_csv("none.csv", index=False)
    code, said = run("ingest", "none.csv", "--decision", "p.yaml", "--subject", "m2", "--only", "Temp")
    assert code == 2
    assert "which column is 'Temp'?" in said
    assert "they differ in case, spaces or signs alone" in said


def test_a_list_whose_rows_say_that_nothing_was_wrong_is_no_list_of_failures(run: Any) -> None:
    """Refused where a column holds states or an all-clear; said where it holds other words."""
    hourly(machine="a").to_csv("p.csv", index=False)
    drafted(run, "p", "--from", "p.csv", "--states", "healthy,worn")
    both = ("--decision", "p.yaml", "--lake", "lake")
    assert run("ingest", "p.csv", "--subject-column", "machine", *both)[0] == 0
    at = ["2026-03-03T05:00Z", "2026-03-04T05:00Z", "2026-03-05T05:00Z"]
    daily = pd.DataFrame({"machine": "a", "when": at, "condition": ["normal", "leak", "normal"]})
    daily.to_csv("daily.csv", index=False)
    words = ("outcomes", "import", "daily.csv", "--form", "failures", *both)
    code, said = run(*words)
    assert code == 2
    assert "each row is to mean 'worn', but column 'condition' says 2 'normal', 1 'leak'" in said
    assert "--label condition" in said
    code, said = run(*words, "--label", "condition", "--map", "leak=worn")
    assert code == 0, said
    assert "1  reports of 'worn'" in said
    orders = daily.drop(columns="condition").assign(how=["breakdown", "planned service", "breakdown"])
    orders = orders.assign(priority=["normal", "high", "normal"])
    orders.to_csv("orders.csv", index=False)
    code, said = run("outcomes", "import", "orders.csv", "--form", "failures", *both)
    assert "column 'how' says 2 'breakdown', 1 'planned service': all are taken for 'worn'" in said
    assert "--label how --map VALUE=worn" in said


def test_codes_of_several_states_are_states_of_their_own(run: Any) -> None:
    """1, 2 and 3 are no yes and no; the commands map them."""
    hourly(machine="a", label=np.arange(HOURS) // 12 % 3 + 1).to_csv("p.csv", index=False)
    said, text = drafted(run, "p", "--from", "p.csv")
    assert list(yaml.safe_load(text)["states"]) == ["label_1", "label_2", "label_3"]
    line = next(part for part in said.splitlines() if "outcomes import" in part)
    assert "--map 1=label_1 --map 2=label_2 --map 3=label_3" in line
    both = ("--decision", "p.yaml", "--lake", "lake")
    assert run("ingest", "p.csv", "--subject-column", "machine", *both)[0] == 0
    code, said = run("outcomes", "import", "p.csv", "--label", "label", *both)
    assert code == 1
    assert "reports of" not in said
    codes = [word for n in (1, 2, 3) for word in ("--map", f"{n}=label_{n}")]
    code, said = run("outcomes", "import", "p.csv", "--label", "label", *codes, *both)
    assert code == 0, said


def test_verdicts_are_labels_and_what_tells_the_future_is_no_signal(run: Any) -> None:
    """PASS and FAIL of a batch; hours until it fails, and whether it fails within a day."""
    verdict = np.where(np.arange(HOURS) % 7 == 0, "FAIL", "PASS")
    hourly(quality=verdict).to_csv("batches.csv", index=False)
    assert roles(run, "batches.csv")["quality"] == "label"
    left = np.arange(HOURS)[::-1] % 50
    frame = hourly(rul_hours=left, within_24h=(left < 24).astype(int), mode=np.where(left % 2, "eco", "full"))
    frame.to_csv("leaky.csv", index=False)
    found = roles(run, "leaky.csv")
    assert (found["rul_hours"], found["within_24h"], found["mode"]) == ("future", "future", "choice")
    _, text = drafted(run, "l", "--from", "leaky.csv")
    assert list(yaml.safe_load(text)["signals"]) == ["temp", "vib"]


def test_a_flag_a_row_labels_the_day_before_it(run: Any) -> None:
    """With a horizon of a day the failure counts, not the first 'fine' after the decision."""
    from aiotkit.lab.decision_file import read_decision
    from aiotkit.lab.quick import Told, own_data

    frame = hourly(machine="a", failure=(np.arange(HOURS) == 60).astype(int))
    frame.to_csv("p.csv", index=False)
    drafted(run, "p", "--from", "p.csv", "--horizon-s", 86_400, "--states", "healthy,failed")
    found = own_data(frame, frame, read_decision(Path("p.yaml")), told=Told(label="failure"))
    rows = found.examples.labelled().rows
    assert (rows["state"] == "failed").any()


def test_times_as_spreadsheets_and_loggers_write_them(run: Any) -> None:
    """Days since 1899, seconds in a column t, and a month that may be a day."""
    frame = hourly(machine="a")
    wall = frame["ts"].dt.tz_localize(None)
    days = ((wall - pd.Timestamp("1899-12-30")) / pd.Timedelta(days=1)).round(9)
    frame.assign(ts=days).rename(columns={"ts": "time"}).to_csv("excel.csv", index=False)
    assert "--epoch excel --zone …" in said_of(run, "excel.csv")["command"]
    drafted(run, "p", "--from", "excel.csv", "--zone", "UTC")
    words = ("--decision", "p.yaml", "--subject-column", "machine", "--json")
    code, said = run("ingest", "excel.csv", "--epoch", "excel", "--zone", "UTC", *words)
    assert code == 0, said
    report = json.loads(said)
    assert report["rows_quarantined"] == 0
    assert report["first_us"] == int(frame["ts"].iloc[0].timestamp() * 1e6)
    seconds = frame["ts"].astype("int64") // 10 ** (9 if frame["ts"].dt.unit == "ns" else 6)
    frame.assign(ts=seconds.astype(float)).rename(columns={"ts": "t"}).to_csv("t.csv", index=False)
    found = said_of(run, "t.csv")
    assert "--time t" in found["command"]
    assert "--form ends" not in str(found["doubts"])
    frame.assign(ts=wall.dt.strftime("%m/%d/%Y %H:%M")).to_csv("us.csv", index=False)
    assert "%m/%d/%Y %H:%M" in said_of(run, "us.csv")["command"]


def wide_and_long() -> tuple[Any, Any]:
    """Two pumps in the names of columns, and the same as tags of long data."""
    left, right = hourly(1), hourly(2)
    wide = left.rename(columns={"temp": "p1_temp", "vib": "p1_vib"}).assign(
        p2_temp=right["temp"], p2_vib=right["vib"], room=21.0 + left["vib"] / 10
    )
    long = wide.drop(columns="room").melt("ts", var_name="Tag", value_name="Value")
    long["Tag"] = long["Tag"].str.upper().str.replace("_", ".")
    return wide, long.sort_values(["ts", "Tag"])


def test_machines_in_the_names_of_columns_and_tags(run: Any) -> None:
    """Proposed, read and said; what belongs to no machine goes to all of them."""
    from aiotkit.lake.lake import Lake

    wide, long = wide_and_long()
    wide.to_csv("wide.csv", index=False)
    long.to_csv("long.csv", index=False)
    for name, who, signals in (
        ("wide", ["p1", "p2"], ["temp", "vib", "room"]),
        ("long", ["P1", "P2"], ["TEMP", "VIB"]),
    ):
        said, text = drafted(run, name, "--from", f"{name}.csv")
        assert f"whether {', '.join(who)} are the subjects" in said
        assert "--subject-from names" in next(part for part in said.splitlines() if "ingest" in part)
        assert sorted(yaml.safe_load(text)["signals"]) == sorted(signals)
        words = ("--decision", f"{name}.yaml", "--subject-from", "names", "--lake", f"lake-{name}")
        code, said = run("ingest", f"{name}.csv", *words)
        assert code == 0, said
        assert "quarantined  0" in said
        rows = Lake.open(f"lake-{name}").read("telemetry", columns=["subject", "name", "value"]).to_pandas()
        kept = {key: sorted(part["value"]) for key, part in rows.groupby(["subject", "name"])}
        assert sorted({subject for subject, _ in kept}) == who
        for i, subject in enumerate(who, 1):
            assert kept[subject, signals[0]] == sorted(wide[f"p{i}_temp"])
            assert kept[subject, signals[1]] == sorted(wide[f"p{i}_vib"])


def test_names_that_hold_no_machines_are_said_to(run: Any) -> None:
    """Places on one machine are none, nor are its sensors; told otherwise the error says what was sought."""
    figures = hourly().rename(columns={"temp": "s1_mean", "vib": "s1_std"}).assign(s2_mean=1.5, s2_std=0.5)
    figures.to_csv("figures.csv", index=False)
    assert "--subject-from" not in said_of(run, "figures.csv")["command"]
    wide, _ = wide_and_long()
    named = pd.concat([wide.assign(machine=name) for name in ("m1", "m2")])
    named.to_csv("named.csv", index=False)
    assert "--subject-column machine" in said_of(run, "named.csv")["command"]
    frame = (
        hourly().rename(columns={"temp": "temp_in", "vib": "temp_out"}).assign(press_in=1.0, press_out=2.0)
    )
    frame.to_csv("one.csv", index=False)
    assert "--subject-from" not in said_of(run, "one.csv")["command"]
    drafted(run, "p", "--from", "one.csv")
    code, said = run("ingest", "one.csv", "--decision", "p.yaml", "--subject-from", "names")
    assert code == 2
    assert "no names that hold machine and signal; expected names such as PUMP01.TEMP" in said
