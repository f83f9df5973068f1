"""Tables of one's own as they come: signs too many, names too few, words among numbers, meters."""

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

ROWS = 400
RNG = np.random.default_rng(5)
AT = pd.date_range("2026-03-02", periods=ROWS, freq="h", tz="UTC")


def proposed(run: Any, *words: object) -> dict[str, Any]:
    """What a file seems to hold."""
    code, said = run("ingest", *words, "--propose", "--json")
    assert code == 0, said
    found: dict[str, Any] = json.loads(said)
    return found


def drafted(found: dict[str, Any]) -> Any:
    """Its part of a decision file."""
    return yaml.safe_load(found["fragment"])


def roles(found: dict[str, Any]) -> dict[str, str]:
    """What columns seem to be."""
    return {c["column"]: c["role"] for c in found["columns"]}


def ingested(run: Any, file: str, *words: object) -> dict[str, Any]:
    """What was read of a file with the decision drafted from it."""
    code, said = run("init", "own", "--from", file, "--yes", "--zone", "UTC")
    assert code == 0, said
    code, said = run("ingest", file, "--decision", "own.yaml", "--lake", "lake", "--json", *words)
    assert code == 0, said
    found: dict[str, Any] = json.loads(said)
    return found


def test_a_sheet_with_empty_columns_and_rows_behind_the_table_is_read(run: Any) -> None:
    """Signs behind the last column, rows of nothing but signs, times of day with points, decimal commas."""
    heat = RNG.normal(20, 2, ROWS).round(1)
    heat[::40] = -200
    table = pd.DataFrame({"Date": AT.strftime("%d/%m/%Y"), "Time": AT.strftime("%H.%M.%S"), "T": heat})
    lines = table.to_csv(sep=";", decimal=",", index=False).splitlines()
    Path("air.csv").write_text("".join(f"{line};;\n" for line in lines) + ";;;;\n" * 9)
    found = proposed(run, "air.csv")
    assert found["command"].count("--time Date+Time") == 1
    assert roles(found) == {"Date+Time": "time", "T": "signal"}
    assert drafted(found)["signals"]["T"]["range"][0] > -200, "far below all others: no value"
    words = ("--time", "Date+Time", "--time-format", "%d/%m/%Y %H.%M.%S", "--decimal", ",", "--subject", "s")
    read = ingested(run, "air.csv", *words, "--zone", "UTC")
    assert read["rows_kept"] == ROWS - 10
    assert read["rows_quarantined"] == 10
    assert any("9 rows hold nothing" in note for note in read["notes"])
    assert any("2 columns without name or value" in note for note in read["notes"])


def test_a_header_that_leaves_out_the_first_column_is_a_header(run: Any) -> None:
    """As R writes tables: row names have no name; none of the data is taken for the header."""
    table = pd.DataFrame({"date": AT.strftime("%Y-%m-%d %H:%M:%S"), "temp": RNG.normal(20, 1, ROWS)})
    header, *lines = table.to_csv().splitlines()
    Path("rows.txt").write_text("\n".join(['"date","temp"', *lines]) + "\n")
    found = proposed(run, "rows.txt")
    assert found["rows"] == ROWS, header
    assert roles(found) == {"column_1": "counter", "date": "time", "temp": "signal"}


def test_a_sign_behind_the_header_alone_does_no_harm(run: Any) -> None:
    """``a;b;c;`` above ``1;2;3``: every row is read."""
    table = pd.DataFrame({"ts": AT.strftime("%Y-%m-%dT%H:%M:%SZ"), "temp": RNG.normal(20, 1, ROWS)})
    header, rest = table.to_csv(sep=";", index=False).split("\n", 1)
    Path("t.csv").write_text(f"{header};\n{rest}")
    assert ingested(run, "t.csv", "--time", "ts", "--subject", "s")["rows_kept"] == ROWS


def test_lines_that_end_in_a_sign_and_have_no_header_are_read(run: Any) -> None:
    """``7,Walking,123,0.1;``: commas part columns, the first line is a row, words and numbers as they are."""
    rows = [
        f"{who},{('rest', 'walk')[k // 25 % 2]},{1_772_400_000_000 + 50 * k},{x:.3f};"
        for who in (1, 2, 3)
        for k, x in enumerate(RNG.normal(0, 1, 100))
    ]
    Path("raw.txt").write_text("\n".join(rows) + "\n")
    found = proposed(run, "raw.txt")
    assert found["rows"] == 300
    assert roles(found) == {"c0": "subject", "c1": "choice", "c2": "time", "c3": "signal"}
    words = ("--shape", "wide", "--time", "c2", "--epoch", "ms", "--subject-column", "c0")
    read = ingested(run, "raw.txt", *words)
    assert read["kept_by_name"] == {"c1": 300, "c3": 300}


@pytest.mark.parametrize("names", ["1,2,3", "site,400.5,401.5", "when,0.5,0.1"])
def test_a_header_with_numbers_as_names_stays_a_header(run: Any, names: str) -> None:
    """Spectra and windows have numbers for names: what stands below decides."""
    first = [f"m{i}" for i in range(50)] if not names.startswith("1") else [str(i) for i in range(50)]
    if names.startswith("when"):
        first = [f"2026-03-02T{i // 60:02d}:{i % 60:02d}:00Z" for i in range(50)]
    lines = [f"{who},{a:.4f},{b:.4f}" for who, (a, b) in zip(first, RNG.normal(0, 1, (50, 2)), strict=True)]
    Path("spectra.csv").write_text("\n".join([names, *lines]) + "\n")
    from aiotkit.lab.readers import read_raw

    raw = read_raw("spectra.csv")
    assert raw.headless == names.startswith("1"), "all numbers: a row as those below"
    assert len(raw.frame) == 50 + raw.headless


def test_machines_are_found_however_their_column_is_written(run: Any) -> None:
    """Numbers in ``machineID`` name machines; numbers in ``motor_speed`` do not."""
    parts = [
        pd.DataFrame({"datetime": AT, "machineID": m, "motor_speed": RNG.integers(900, 950, ROWS)})
        for m in (1, 2, 3)
    ]
    pd.concat(parts).to_csv("t.csv", index=False)
    found = roles(proposed(run, "t.csv"))
    assert found == {"datetime": "time", "machineID": "subject", "motor_speed": "signal"}
    assert ingested(run, "t.csv", "--time", "datetime")["subjects"] == 3
    assert yaml.safe_load(Path("own.yaml").read_text())["subject"] == "machine"


def test_files_of_several_kinds_are_refused_with_what_each_holds(run: Any) -> None:
    """Telemetry beside lists of failures and of machines: no guess out of whichever comes first."""
    Path("data").mkdir()
    pd.DataFrame({"at": AT, "machine": 1, "volt": RNG.normal(9, 1, ROWS)}).to_csv("data/b.csv", index=False)
    pd.DataFrame({"at": AT[:3], "machine": 1, "failure": "comp1"}).to_csv("data/a.csv", index=False)
    for words in (("ingest", "data", "--propose"), ("init", "x", "--from", "data", "--yes")):
        code, said = run(*words)
        assert code == 2
        assert "2 files of 2 kinds" in said
        assert "a.csv (failure)" in said
        assert "such as data/b.csv" in said, "the one with most in it"
        assert "outcomes import" in said


def test_an_alarm_in_words_is_a_label_and_rows_for_training_no_condition(run: Any) -> None:
    """A context that is the label would tell a model the answer."""
    on = np.arange(ROWS) % 50 > 40
    table = pd.DataFrame({"ts": AT, "temp": RNG.normal(20, 1, ROWS), "Alarm": np.where(on, "ON", "OFF")})
    table["mode"], table["set"] = np.where(on, "eco", "boost"), np.where(on, "train", "test")
    table.to_csv("t.csv", index=False)
    found = roles(proposed(run, "t.csv"))
    assert (found["Alarm"], found["mode"], found["set"]) == ("label", "choice", "words")


def test_a_meter_is_read_where_there_is_nothing_else_and_a_row_number_is_not(run: Any) -> None:
    """What only rises is left out as a rule; a meter alone is a signal, with how to train on it."""
    used = RNG.gamma(2, 0.1, (4, ROWS)).cumsum(axis=1).round(3)
    parts = [
        pd.DataFrame({"ts": AT, "meter": f"m{i}", "kwh_total": u, "n": range(ROWS)})
        for i, u in enumerate(used)
    ]
    pd.concat(parts).to_csv("t.csv", index=False)
    found = proposed(run, "t.csv")
    assert roles(found) == {"ts": "time", "meter": "subject", "kwh_total": "signal", "n": "counter"}
    assert any("--recipe kwh_total.slope,kwh_total.p2p" in doubt for doubt in found["doubts"])
    read = ingested(run, "t.csv", "--time", "ts", "--subject-column", "meter")
    assert read["rows_kept"] == 4 * ROWS


def test_long_data_with_words_among_values_is_long(run: Any) -> None:
    """Names whose values are words of a few are conditions; events are said, and left out."""
    parts = []
    for m in ("fan-1", "fan-2"):
        parts.append(
            pd.DataFrame({"ts": AT, "device": m, "metric": "temp", "value": RNG.normal(50, 1, ROWS)})
        )
        mode = np.where(np.arange(ROWS) % 24 < 8, "night", "day")
        parts.append(pd.DataFrame({"ts": AT, "device": m, "metric": "mode", "value": mode}))
        parts.append(pd.DataFrame({"ts": AT[::24], "device": m, "metric": "log", "value": "start"}))
    pd.concat(parts).sort_values("ts").to_csv("long.csv", index=False)
    found = proposed(run, "long.csv")
    assert found["shape"] == "long"
    assert list(drafted(found)["signals"]) == ["temp"]
    assert drafted(found)["context"]["mode"]["values"] == ["day", "night"]
    assert any(doubt.startswith("what log say") for doubt in found["doubts"])
    read = ingested(run, "long.csv", "--time", "ts", "--subject-column", "device")
    assert read["kept_by_name"] == {"mode": 2 * ROWS, "temp": 2 * ROWS}


def test_a_label_that_the_decision_reads_is_said(run: Any) -> None:
    """Nothing is refused: a device may know how it is now, and be asked what comes."""
    word = np.where(np.arange(ROWS) % 50 > 40, "walk", "rest")
    pd.DataFrame({"ts": AT, "temp": RNG.normal(20, 1, ROWS), "doing": word}).to_csv("t.csv", index=False)
    code, said = run("init", "own", "--from", "t.csv", "--yes", "--states", "rest,walk")
    assert code == 0, said
    told = ("--decision", "own.yaml", "--lake", "lake", "--subject", "s", "--time", "ts")
    assert run("ingest", "t.csv", *told)[0] == 0
    code, said = run("outcomes", "import", "t.csv", "--label", "doing", *told)
    assert code == 0, said
    assert "'doing' is a context of the decision too" in said


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"PK\x03\x04....", "a zip archive; expected CSV or Parquet. Unpack it"),
        (
            b'{"ts": "2026-03-02T00:00:00Z", "temp": 3}\n' * 9,
            "JSON; expected CSV or Parquet. pandas.read_json",
        ),
        (b"ARROW1\0\0....", "a Feather file"),
    ],
)
def test_files_of_other_kinds_are_named_with_what_to_do(run: Any, head: bytes, words: str) -> None:
    """No words about UTF-8 to somebody who gave an archive."""
    Path("export.csv").write_bytes(head)
    code, said = run("ingest", "export.csv", "--propose")
    assert code == 2
    assert words in said


def test_units_behind_a_name_in_capitals_are_read() -> None:
    """As telematics write them; a unit of its own spelling is not torn apart."""
    from aiotkit.lab.guess import unit_of

    found = {n: unit_of(n, 20, 90)[0] for n in ("CoolantTempF", "OilPressPSI", "tempC", "pressure_kPa")}
    assert found == {"CoolantTempF": "[degF]", "OilPressPSI": "[psi]", "tempC": "Cel", "pressure_kPa": "kPa"}


def telemetry(run: Any, subjects: tuple[str, ...]) -> tuple[str, ...]:
    """Telemetry of machines in a lake; the options that every import needs."""
    parts = [pd.DataFrame({"ts": AT, "machine": m, "temp": RNG.normal(20, 1, ROWS)}) for m in subjects]
    pd.concat(parts).to_csv("tele.csv", index=False)
    code, said = run(
        "init", "own", "--from", "tele.csv", "--yes", "--horizon-s", "7200", "--states", "ok,worn"
    )
    assert code == 0, said
    told = ("--decision", "own.yaml", "--lake", "lake")
    assert run("ingest", "tele.csv", *told, "--time", "ts", "--subject-column", "machine")[0] == 0
    return told


def test_of_several_dates_the_one_of_failures_is_taken(run: Any) -> None:
    """A list of machines with when each was built and when it failed, if it did."""
    told = telemetry(run, ("a", "b", "c"))
    days = {"machine": ["a", "b", "c"], "Inbetriebnahme": ["2019-01-02", "2020-02-03", "2021-03-04"]}
    failed = ["2026-03-09", None, "2026-03-11"]
    pd.DataFrame(days | {"Ausfalldatum": failed}).to_csv("list.csv", index=False)
    how = ("--form", "failures", "--state", "worn", "--zone", "UTC")
    code, said = run("outcomes", "import", "list.csv", *how, *told)
    assert code == 0, said
    assert "2  reports of 'worn'" in said
    assert "time: column 'Ausfalldatum'" in said
    pd.DataFrame(days | {"seen": ["2026-03-09", "2026-03-10", "2026-03-11"]}).to_csv("two.csv", index=False)
    code, said = run("outcomes", "import", "two.csv", *how, *told)
    assert code == 2
    assert "which column says when it was?; expected one of 'Inbetriebnahme', 'seen'" in said
    assert "--time COLUMN" in said


def test_a_log_of_states_says_how_it_was_until_the_next_row(run: Any) -> None:
    """``since``, state: what lies between two rows is labelled, not the instants alone; the last is open."""
    told = telemetry(run, ("a", "b"))
    rows = [("a", 0, "ok"), ("a", 100, "worn"), ("a", 150, "ok"), ("b", 0, "ok"), ("b", 300, "worn")]
    log = pd.DataFrame(rows, columns=["machine", "hour", "state"])
    log["since"] = AT[0] + pd.to_timedelta(log.pop("hour"), unit="h")
    log.to_csv("log.csv", index=False)
    code, said = run("outcomes", "import", "log.csv", *told, "--json")
    assert code == 0, said
    from aiotkit.lake.lake import Lake

    found = Lake.open("lake").read("outcomes").to_pandas()
    worn = found[(found["state"] == "worn") & (found["subject"] == "a")]
    hours = (worn["at"] - AT[0]).dt.total_seconds() / 3600
    assert (hours.min(), hours.max()) == (100, 150)
    assert len(worn) == 26, "one a horizon of two hours, and the last"
    assert (found[found["subject"] == "b"]["state"] == "worn").sum() == 1, "open: reported at its start"


def test_machines_are_known_however_they_are_written(run: Any) -> None:
    """``PRESS 01`` is press-1 where nothing else could be meant; of two that could, none is taken."""
    told = telemetry(run, ("press-1", "press-2", "PRESS-2"))
    list_ = pd.DataFrame({"machine": ["PRESS 01", "Press_2"], "failed": ["2026-03-09", "2026-03-10"]})
    list_.to_csv("list.csv", index=False)
    how = ("--form", "failures", "--state", "worn", "--zone", "UTC")
    code, said = run("outcomes", "import", "list.csv", *how, *told)
    assert code == 1
    assert "2 rows, 1 accepted, 1 rejected" in said
    assert "'PRESS 01' for 'press-1'" in said
    assert "unknown subject 'Press_2'" in said


def conveyors(words: list[str]) -> Any:
    """Hours of two conveyors whose last column tells, in words of some language, how each was."""
    told = np.where(np.arange(ROWS) % 100 > 90, words[1], words[0])
    one = {"Zeit": AT.strftime("%Y-%m-%d %H:%M"), "Druck": RNG.normal(60, 1, ROWS), "Zustand": told}
    return pd.concat(pd.DataFrame(one).assign(machine=name) for name in ("a", "b"))


@pytest.mark.parametrize(
    ("words", "states"),
    [
        (["läuft", "Störung"], ["lauft", "Storung"]),
        (["No fault", "Outer race"], ["No_fault", "Outer_race"]),
        (["IO", "N.I.O."], ["IO", "N_I_O"]),
    ],
)
def test_words_of_a_label_that_no_state_can_be_called_are_states_all_the_same(
    run: Any, words: list[str], states: list[str]
) -> None:
    """Accents, spaces and points go from the state's name, and the file's words are read as it."""
    conveyors(words).to_csv("belts.csv", index=False)
    code, said = run("init", "belt", "--from", "belts.csv", "--yes", "--zone", "UTC", "--json")
    assert code == 0, said
    assert list(yaml.safe_load(Path("belt.yaml").read_text())["states"]) == states
    commands = [c.split() for c in json.loads(said)["commands"]]
    for command in (c[1:] for c in commands if c[1] in ("ingest", "outcomes")):
        code, said = run(*command)
        assert code == 0, said
    assert "0 rejected" in said
    assert f"'{words[1]}' for '{states[1]}'" in said


def test_words_without_latin_letters_are_left_to_the_user_to_map(run: Any) -> None:
    """The command names each word, with a place for the state that it means."""
    conveyors(["正常", "故障"]).to_csv("belts.csv", index=False)
    code, said = run("init", "belt", "--from", "belts.csv", "--yes", "--zone", "UTC")
    assert code == 0, said
    assert "--map 正常=…" in said.replace("'", "")
    assert "(… stands for what only you know)" in said


def test_yes_and_no_in_other_languages_are_read(run: Any) -> None:
    """A column of yes and no needs no mapping, whatever the language."""
    table = conveyors(["nein", "ja"]).rename(columns={"Zustand": "Ausfall"})
    table.to_csv("belts.csv", index=False)
    code, said = run("init", "belt", "--from", "belts.csv", "--yes", "--zone", "UTC", "--json")
    assert code == 0, said
    assert "--map" not in said
    for command in (
        c.split()[1:] for c in json.loads(said)["commands"] if c.split()[1] in ("ingest", "outcomes")
    ):
        code, said = run(*command)
        assert code == 0, said
    assert "0 rejected" in said


def test_a_label_column_that_is_not_called_so_is_told(run: Any) -> None:
    """With --label any column of few values is one; a missing or long one is refused."""
    table = conveyors(["a", "b"]).rename(columns={"Zustand": "y"})
    table["many"] = np.arange(len(table))
    table.to_csv("belts.csv", index=False)
    init = ("init", "belt", "--from", "belts.csv", "--yes", "--zone", "UTC", "--label")
    code, said = run(*init, "y")
    assert code == 0, said
    assert "outcomes import belts.csv --label y" in said
    assert list(yaml.safe_load(Path("belt.yaml").read_text())["states"]) == ["a", "b"]
    for column, words in (("z", "column 'z' (labels) is missing"), ("many", "at most 20 words or codes")):
        code, said = run(*init, column, "--force")
        assert code != 0
        assert words in said


def two_pumps() -> Any:
    """Hours of two pumps side by side, columns of two levels."""
    parts = {
        m: pd.DataFrame({"temp": RNG.normal(60, 1, ROWS), "vib": RNG.normal(2, 0.1, ROWS)})
        for m in ("p1", "p2")
    }
    return pd.concat(parts, axis=1).set_index(pd.Index(AT, name="time"))


def header_and_rows(table: Any) -> tuple[str, str]:
    """Of a frame with two levels: groups with cells merged, as sheets have them, and names; and the rows."""
    groups = ["" if i % 2 else machine for i, (machine, _) in enumerate(table.columns)]
    names = ["time", *(name for _, name in table.columns)]
    return ",".join(["", *groups]) + "\n" + ",".join(names) + "\n", table.reset_index().to_csv(
        header=False, index=False
    )


def as_pivoted(table: Any) -> None:
    table.swaplevel(axis=1).sort_index(axis=1).rename_axis(columns=["signal", "machine"]).to_csv("pumps.csv")


def as_parquet(table: Any) -> None:
    table.to_parquet("pumps.csv")


def as_sheet(table: Any) -> None:
    Path("pumps.csv").write_text("".join(header_and_rows(table)))


def as_sheet_with_units(table: Any) -> None:
    head, rows = header_and_rows(table)
    Path("pumps.csv").write_text(f"{head},°C,mm/s,°C,mm/s\n{rows}")


def as_sheet_with_titles(table: Any) -> None:
    head, rows = header_and_rows(table)
    Path("pumps.csv").write_text(f"Report of hall 3,,,,\nExported,2026-04-01,,,\n,,,,\n{head}{rows}")


@pytest.mark.parametrize("how", [as_pivoted, as_parquet, as_sheet, as_sheet_with_units, as_sheet_with_titles])
def test_a_header_of_two_levels_is_read(run: Any, how: Any) -> None:
    """Groups that are numbered are the machines, whichever level they are on and whatever stands above."""
    how(two_pumps())
    found = proposed(run, "pumps.csv")
    assert set(drafted(found)["signals"]) == {"temp", "vib"}
    assert "--subject-from names" in found["command"]
    units = [c for c in found["columns"] if "header says so" in c["why"]]
    assert len(units) == (2 if how is as_sheet_with_units else 0)
    read = ingested(run, "pumps.csv", "--subject-from", "names")
    assert (read["rows_kept"], read["rows_quarantined"], read["subjects"]) == (4 * ROWS, 0, 2)


def test_groups_without_numbers_are_parts_unless_told_otherwise(run: Any) -> None:
    """Motor and gear may be parts of one mill, or two subjects: only a person knows."""
    head, rows = header_and_rows(two_pumps().rename(columns={"p1": "motor", "p2": "gear"}))
    Path("mill.csv").write_text(head + rows)
    assert set(drafted(proposed(run, "mill.csv"))["signals"]) == {
        "motor_temp",
        "motor_vib",
        "gear_temp",
        "gear_vib",
    }
    assert set(drafted(proposed(run, "mill.csv", "--subject-from", "names"))["signals"]) == {"temp", "vib"}


def test_units_below_names_that_hold_machines_are_those_of_the_signals(run: Any) -> None:
    """They hold for all machines, or the file is refused."""
    rows = two_pumps().reset_index().to_csv(header=False, index=False)
    head = "time,p1.temp,p1.vib,p2.temp,p2.vib\n"
    Path("pumps.csv").write_text(f"{head},°C,mm/s,°C,mm/s\n{rows}")
    assert {n: s["unit"] for n, s in drafted(proposed(run, "pumps.csv"))["signals"].items()} == {
        "temp": "Cel",
        "vib": "mm/s",
    }
    Path("pumps.csv").write_text(f"{head},°C,mm/s,°F,mm/s\n{rows}")
    code, said = run("ingest", "pumps.csv", "--propose")
    assert code != 0
    assert "'temp' of p2" in said


def test_a_header_with_a_gap_below_no_title_stays_the_header(run: Any) -> None:
    """A column without a name does not make a header a title."""
    rows = "".join(f"{t:%Y-%m-%d %H:%M},{20 + i % 7},{i % 5}\n" for i, t in enumerate(AT))
    Path("gap.csv").write_text("time,heat,\n" + rows)
    assert set(roles(proposed(run, "gap.csv"))) == {"time", "heat", "column_3"}


def test_small_traps_of_text_are_no_traps(run: Any) -> None:
    """A quoted delimiter in a file without header, names such as 1_1, comments that end in a sign."""
    rows = "".join(f'"hall 1, left",{60 + i % 9}.5,{t:%Y-%m-%d %H:%M}\n' for i, t in enumerate(AT))
    Path("quoted.csv").write_text(rows)
    assert set(roles(proposed(run, "quoted.csv"))) == {"c0", "c1", "c2"}
    head = "time,1_1,1_2\n" + "".join(f"{t:%Y-%m-%d %H:%M},{i % 7},{i % 5}.5\n" for i, t in enumerate(AT))
    Path("named.csv").write_text(head)
    assert set(roles(proposed(run, "named.csv"))) == {"time", "1_1", "1_2"}
    Path("noted.csv").write_text("".join(f"# line {i};\n" for i in range(25)) + head.replace("1_1", "a;"))
    assert proposed(run, "noted.csv")["columns"]
