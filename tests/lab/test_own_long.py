"""Files as historians and spreadsheets write them: long tables, lines of units, quality, sentinels."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.desk
np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
yaml = pytest.importorskip("yaml")
pytest.importorskip("deltalake")
pytest.importorskip("typer")

N = 300


def long(machine: str, time: str, name: str, value: str, unit: str | None = None) -> Any:
    """Two machines, two signals, an hour a value."""
    rng, at = np.random.default_rng(3), pd.date_range("2026-03-02", periods=N, freq="h", tz="UTC")
    parts = []
    for m in ("P-1", "P-2"):
        for tag, said, base in (("Oil_Temp", "degC", 60), ("Speed", "rpm", 1480)):
            column = {} if unit is None else {unit: said}
            data = {time: at, machine: m, name: tag, value: (base + rng.normal(0, 2, N)).round(2), **column}
            parts.append(pd.DataFrame(data))
    return pd.concat(parts).sort_values([time, machine], kind="stable")


def look(run: Any, *words: object) -> dict[str, Any]:
    """What a file seems to hold."""
    code, said = run("ingest", *words, "--propose", "--json")
    assert code == 0, said
    found: dict[str, Any] = json.loads(said)
    return found


NAMES = [
    ("equip", "event_time", "tagname", "val", "uom"),
    ("Asset", "Timestamp", "TagName", "Value", None),
    ("asset", "time", "tag_name", "value", None),
    ("machine", "time", "parameter", "measurement", None),
    ("machine", "ts", "signal_name", "signal_value", None),
    ("machine", "time", "item_id", "value", None),
    ("Anlage", "Zeit", "Messstelle", "Messwert", "Einheit"),
    ("Anlage", "Zeit", "Kanal", "Wert", None),
    ("Anlage", "Zeit", "Bezeichnung", "Zahl", None),  # by what they hold alone
]


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[2])
def test_long_data_of_historians_is_seen(run: Any, names: tuple[str, str, str, str, str | None]) -> None:
    """By names or by content; what is proposed reads the file, and all of it."""
    machine, time, name, value, unit = names
    long(machine, time, name, value, unit).to_csv("tele.csv", index=False)
    found = look(run, "tele.csv")
    assert found["shape"] == "long"
    roles = {c["column"]: c["role"] for c in found["columns"]}
    expected = {machine: "subject", time: "time", name: "name", value: "value"}
    assert roles == expected | ({} if unit is None else {unit: "unit"})
    code, said = run("init", "pump", "--from", "tele.csv", "--yes", "--json")
    assert code == 0, said
    assert set(yaml.safe_load(Path("pump.yaml").read_text())["signals"]) == {"Oil_Temp", "Speed"}
    command = json.loads(said)["commands"][2]
    code, said = run(*shlex.split(command)[1:])
    assert (code, f"stored {4 * N:,} values" in said) == (0, True), said
    words = ("--decision", "pump.yaml", "--subject-column", machine, "--time", time)
    code, said = run("ingest", "tele.csv", *words)  # ingest sees it too, by the decision's names
    assert (code, f"kept         {4 * N:,}" in said) == (0, True), said


@pytest.mark.parametrize("machine", ["Maschine", "machine", "Ort"])
def test_one_signal_of_several_machines_stays_wide(run: Any, machine: str) -> None:
    """A column of machines beside one of numbers: machines measure alike, so they are no signals."""
    frame = long(machine, "time", "tag", "Temperatur")
    frame[frame["tag"] == "Oil_Temp"].drop(columns="tag").to_csv("tele.csv", index=False)
    found = look(run, "tele.csv")
    assert found["shape"] == "wide"
    assert {c["column"]: c["role"] for c in found["columns"]}[machine] == "subject"


def test_a_look_honours_how_the_file_is_to_be_read(run: Any) -> None:
    """Shape, columns, times, decimals, names and units as told: in the guesses, the draft and the command."""
    frame = long("who", "k1", "k2", "k3").rename(columns={"k3": "zahl"})
    frame["k1"] = frame["k1"].dt.strftime("%y%m%d%H%M")
    frame["zahl"] = frame["zahl"].astype(str).str.replace(".", ",")
    frame.assign(other=range(len(frame))).to_csv("tele.csv", index=False, sep=";")
    told = ("--shape", "long", "--name-column", "k2", "--value-column", "zahl", "--time", "k1",
            "--zone", "UTC", "--time-format", "%y%m%d%H%M", "--decimal", ",", "--subject-column",
            "who")  # fmt: skip
    found = look(run, "tele.csv", *told)
    assert found["shape"] == "long"
    for words in (
        "--time k1",
        "--time-format %y%m%d%H%M",
        "--decimal ,",
        "--value-column zahl",
        "--zone UTC",
    ):
        assert words in found["command"]
    assert found["command"].count("--decimal") == found["command"].count("--time-format") == 1
    code, said = run("init", "pump", "--from", "tele.csv", "--yes", *told, "--json")
    assert code == 0, said
    code, said = run(*shlex.split(json.loads(said)["commands"][2])[1:])
    assert (code, f"stored {4 * N:,} values" in said) == (0, True), said

    wide = long("who", "time", "tag", "value").pivot_table(
        index=["time", "who"], columns="tag", values="value"
    )
    wide.reset_index().to_csv("wide.csv", index=False)
    told = ("--only", "oil", "--column", "oil=Oil_Temp", "--unit", "oil=degF", "--start", "2026-01-01T00:00Z")
    found = look(run, "wide.csv", *told, "--every-s", "60", "--subject", "P1")
    assert 'oil: {unit: "[degF]"' in found["fragment"]
    assert "Speed" not in found["fragment"]
    for words in ("--column oil=Oil_Temp", "--only oil", "--unit oil=degF", "--every-s 60", "--subject P1"):
        assert words in found["command"]
    code, said = run("ingest", "wide.csv", "--propose", "--time", "who")
    assert (code, "column 'who' does not read as times" in said, "--time-format" in said) == (2, True, True)


def test_a_line_of_units_below_the_header_is_read(run: Any) -> None:
    """Its units are believed and converted, and it is no row; nothing of it is quarantined."""
    frame = pd.DataFrame({
        "Zeit": pd.date_range("2026-03-02", periods=N, freq="h").astype(str),
        "Temperatur": 150 + 30 * np.random.default_rng(2).random(N).round(2),
        "Druck": 60 + np.random.default_rng(1).random(N).round(2),
    })  # fmt: skip
    lines = frame.to_csv(index=False, sep=";", decimal=",").splitlines()
    Path("tele.csv").write_text("\n".join([lines[0], ";°F;psi", *lines[1:]]) + "\n")
    found = look(run, "tele.csv")
    assert {c["column"]: c["unit"] for c in found["columns"][1:]} == {
        "Temperatur": "[degF]",
        "Druck": "[psi]",
    }
    assert run("init", "pump", "--from", "tele.csv", "--yes")[0] == 0
    document = yaml.safe_load(Path("pump.yaml").read_text())
    document["signals"]["Temperatur"] |= {"unit": "Cel", "range": [0, 100]}
    document["rule"][0]["when"]["gt"] = 75
    Path("pump.yaml").write_text(yaml.safe_dump(document))
    words = ("--decision", "pump.yaml", "--subject", "P1", "--zone", "UTC", "--decimal", ",")
    _, said = run("ingest", "tele.csv", *words)
    assert "quarantined  0" in said, said
    assert "Temperatur: [degF] converted to Cel" in said


@pytest.mark.parametrize(("low", "high"), [(150, 180), (290, 310), (640, 650)])
def test_a_temperature_is_in_celsius_first(low: float, high: float) -> None:
    """Where nothing names Fahrenheit or Kelvin they are only what it could be, and the unit is in doubt."""
    from aiotkit.lab.guess import unit_of

    unit, sure, why = unit_of("Temperatur", low, high)
    assert unit == "Cel"
    assert sure < 0.5
    assert "could be" in why
    assert unit_of("temp_K", low, high)[0] == "K"


def noisy() -> Any:
    """A machine's heat with a quality and a sentinel, and two switches beside it."""
    rng = np.random.default_rng(5)
    heat = (60 + rng.normal(0, 2, N)).round(2)
    quality = np.where(np.arange(N) % 30 == 7, "BAD", "GOOD")
    heat[np.arange(N) % 50 == 20] = -9999.0
    return pd.DataFrame({
        "time": pd.date_range("2026-03-02", periods=N, freq="h", tz="UTC"), "valve": rng.integers(0, 2, N),
        "heat": np.where(quality == "BAD", 7777.0, heat), "quality": quality,
        "failure": np.arange(N) % 60 == 59,
    })  # fmt: skip


def test_bad_quality_and_sentinels_are_not_taken(run: Any) -> None:
    """Rows that say they are bad are quarantined and counted; a sentinel is a doubt, and out of range."""
    noisy().to_csv("tele.csv", index=False)
    found = look(run, "tele.csv")
    assert {c["column"]: c["role"] for c in found["columns"]}["quality"] == "quality"
    assert any("what -9999 of 'heat' means" in d for d in found["doubts"])
    assert any("'quality' calls bad" in d and d.count("10") for d in found["doubts"])
    assert run("init", "pump", "--from", "tele.csv", "--yes", "--states", "ok,worn")[0] == 0
    low, high = yaml.safe_load(Path("pump.yaml").read_text())["signals"]["heat"]["range"]
    assert -9999 < low < 50 < 70 < high < 999
    _, said = run("ingest", "tele.csv", "--decision", "pump.yaml", "--subject", "P1", "--lake", "lake")
    assert "10 rows are not good and were not taken" in said, said
    assert "20  quality says 'BAD'" in said
    assert "6  outside its range" in said


@pytest.mark.parametrize("codes", [("192", "0"), ("Good", "Uncertain"), ("gut", "schlecht")])
def test_quality_is_read_as_it_is_written(codes: tuple[str, str]) -> None:
    """OPC's numbers and words of two languages; a column of other words is none."""
    from aiotkit.lab.quality import poor, quality_column

    frame = pd.DataFrame({"v": [1.0, 2.0, 3.0], "status": [codes[0], codes[1], None]})
    assert quality_column(frame) == "status"
    assert poor(frame["status"]).tolist() == [False, True, False]
    assert quality_column(frame.replace({codes[0]: "running"})) is None


def test_switches_among_other_signals_are_kept(run: Any) -> None:
    """A digital sensor is a signal unless its name says label; how to keep or drop it is said."""
    noisy().to_csv("tele.csv", index=False)
    found = look(run, "tele.csv")
    roles = {c["column"]: c["role"] for c in found["columns"]}
    assert (roles["valve"], roles["failure"]) == ("signal", "label")
    assert any("what valve say" in d and "drop their lines" in d and "--label" in d for d in found["doubts"])
    assert found["fragment"].index("heat:") < found["fragment"].index(
        "valve:"
    )  # the first rule reads no switch
    noisy()[["time", "valve"]].to_csv("alone.csv", index=False)
    assert {c["column"]: c["role"] for c in look(run, "alone.csv")["columns"]}["valve"] == "label"


@pytest.mark.parametrize(
    ("classes", "first", "asked"),
    [
        (("inner", "outer", "normal"), "normal", False),
        (("Riss", "Bruch", "Gut"), "Gut", False),
        (("leak", "no_failure", "block"), "no_failure", False),
        (("inner", "outer", "ball"), "inner", True),
    ],
)
def test_the_uneventful_state_comes_first(
    run: Any, classes: tuple[str, ...], first: str, asked: bool
) -> None:
    """A class called normal, good or no failure, in several languages; else the most frequent one."""
    frame = noisy().drop(columns=["failure", "quality"])
    words = np.array([classes[0]] * (N // 2) + [classes[1]] * (N // 4) + [classes[2]] * (N // 4))
    frame.assign(fault=words).to_csv("tele.csv", index=False)
    code, said = run("init", "pump", "--from", "tele.csv", "--yes")
    assert code == 0, said
    states = yaml.safe_load(Path("pump.yaml").read_text())["states"]
    assert next(iter(states)) == first
    assert set(states) == set(classes)
    assert (f"not known: which state is the uneventful one: '{first}' is taken" in said) is asked
