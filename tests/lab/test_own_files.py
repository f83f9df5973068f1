"""A newcomer's own files: what is guessed leads on, and what is odd about them is said."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from aiotkit.core.errors import AlreadyStoredError, ContradictionError, DecisionFileError

pytestmark = pytest.mark.desk
np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
yaml = pytest.importorskip("yaml")
pytest.importorskip("torch")
pytest.importorskip("deltalake")
pytest.importorskip("typer")

HOURS = 480


def telemetry(seed: int = 0, **more: Any) -> Any:
    """An hour a row, wall-clock times without offset: Zeit, what is given, Temperatur °C, vib."""
    rng = np.random.default_rng(seed)
    near = np.clip((np.arange(HOURS) % 120 - 90) / 30, 0, None)
    return pd.DataFrame(
        {
            "Zeit": pd.date_range("2026-03-02", periods=HOURS, freq="h").astype(str),
            **more,
            "Temperatur °C": (60 + 18 * near + rng.normal(0, 1, HOURS)).round(2),
            "vib": (2 + 3 * near + rng.gamma(2, 0.2, HOURS)).round(3),
        }
    )


def write(frame: Any, name: str = "pump.csv") -> str:
    """A file in the folder of the test."""
    frame.to_csv(name, index=False)
    return name


def roles(run: Any, *words: object) -> dict[str, str]:
    """What columns seem to be."""
    code, said = run("ingest", *words, "--propose", "--json")
    assert code == 0, said
    return {c["column"]: c["role"] for c in json.loads(said)["columns"]}


SWITCH = np.random.default_rng(1).random(HOURS) > 0.3


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("running", SWITCH),
        ("running", SWITCH.astype(int)),
        ("running", np.arange(HOURS) // 240),  # in two blocks, as two machines one below the other
        ("pump_on", SWITCH.astype(int)),
        ("device_on", np.where(SWITCH, "ja", "nein")),
        ("mode", np.where(SWITCH, "eco", "full")),  # words that change within one steady series
    ],
)
def test_a_switch_is_no_subject(run: Any, column: str, values: Any) -> None:
    """What says yes or no, or changes within one steady series, does not say whom a row is about."""
    file = write(telemetry(**{column: values}))
    assert roles(run, file)[column] in ("choice", "signal")
    said = run("ingest", file, "--propose")[1]
    assert "give --subject, --subject-column, or --subject-from filename" in said
    assert "--subject …" in said
    telemetry(**{column: values}).to_parquet("typed.parquet")
    assert roles(run, "typed.parquet")[column] in ("choice", "signal")
    if column != "mode":
        gappy = telemetry(**{column: values}).sample(frac=0.6, random_state=1).sort_index()
        assert roles(run, write(gappy))[column] in ("choice", "signal")


def test_columns_that_name_machines_are_still_found(run: Any) -> None:
    """Side by side, one below the other, with or without a telling name, in words or numbers."""
    one, two = telemetry(1), telemetry(2)
    beside = pd.concat([one.assign(Anlage="A"), two.assign(Anlage="B")]).sort_values("Zeit", kind="stable")
    assert roles(run, write(beside))["Anlage"] == "subject"
    beside["pump_flow"] = beside["vib"].round(1)  # its name hints at a pump, its values are measured
    assert roles(run, write(beside))["pump_flow"] == "signal"
    assert roles(run, write(pd.concat([one.assign(pump=7), two.assign(pump=8)])))["pump"] == "subject"
    later = two.assign(Zeit=pd.date_range("2026-03-22", periods=HOURS, freq="h").astype(str))
    assert roles(run, write(pd.concat([one.assign(pump="p7"), later.assign(pump="p8")])))["pump"] == "subject"


def test_a_file_a_subject_is_led_to_the_option(run: Any) -> None:
    """Several files without a subject column: the command names the files' names as subjects, and says so."""
    for i in range(3):
        write(telemetry(i, running=SWITCH), f"pump-{i}.csv")
    code, said = run("init", "own", "--from", "pump-*.csv", "--yes", "--zone", "UTC")
    assert code == 0, said
    assert "whether each file is one subject, called as the file is (pump-0, pump-1, pump-2)" in said
    command = next(line.strip() for line in said.splitlines() if "aiotkit ingest" in line)
    assert "--subject-from filename" in command
    code, told = run(*shlex.split(command)[1:], "--json")
    assert (code, json.loads(told)["stored"]) == (0, 3 * 3 * HOURS), told
    said = run("init", "own", "--from", "pump-*.csv", "--yes", "--force", "--subject-from", "folder")[1]
    assert "--subject-from folder" in said
    code, said = run("ingest", "pump-0.csv", "--decision", "own.yaml", "--zone", "UTC", "--time", "Zeit")
    assert (code, "(--subject-from filename)" in said) == (2, True)


@pytest.mark.parametrize("form", ["wide", "long", "bursts", "timeless"])
def test_the_first_rule_fires_within_the_data(run: Any, tmp_path: Path, form: str) -> None:
    """Its limit lies among what windows reach, so that some go above it; file and command say how many."""
    frame = telemetry()
    source = tmp_path / "f.csv"
    reached = frame["Temperatur °C"].groupby(np.arange(HOURS) // 12).max()
    if form == "wide":
        write(frame, "f.csv")
    elif form == "long":
        columns = {"name": "a_temp", "value": frame["Temperatur °C"]}, {"name": "vib", "value": frame["vib"]}
        write(pd.concat([pd.DataFrame({"time": frame["Zeit"], **c}) for c in columns]), "f.csv")
    elif form == "timeless":
        write(frame.drop(columns="Zeit"), "f.csv")
        reached = frame["Temperatur °C"]
    else:
        source = tmp_path / "set"
        source.mkdir()
        for k in range(4):
            noise = np.random.default_rng(k).normal(0, 0.1 + 0.1 * k, (256, 2))
            np.savetxt(source / f"2004.02.12.10.{k}2.39", noise, fmt="%.3f", delimiter="\t")
        reached = pd.Series([np.loadtxt(p)[:, 0].max() for p in sorted(source.iterdir())])
    code, said = run("init", "own", "--from", source, "--yes")
    assert code == 0, said
    limit = yaml.safe_load(Path("own.yaml").read_text())["rule"][0]["when"]["gt"]
    above = int((reached > limit).sum())
    assert 1 <= above <= max(1, 0.1 * len(reached))
    words = f"{above} of {len(reached)} "
    assert words in said
    assert f"The limit is a guess: {words}" in Path("own.yaml").read_text()


def test_what_is_told_is_not_asked(run: Any) -> None:
    """A zone or a subject that is given goes into the command and out of the doubts."""
    file = write(telemetry())
    words = ("ingest", file, "--propose", "--zone", "Europe/Berlin", "--subject", "p 1")
    code, said = run(*words)
    assert (code, "time zone" in said, "which subject" in said) == (0, False, False)
    assert "--zone Europe/Berlin" in said
    assert "--subject 'p 1'" in said
    assert not json.loads(run(*words, "--json")[1])["zone_needed"]
    assert "which time zone" not in run("init", "own", "--from", file, "--yes", "--zone", "Europe/Berlin")[1]
    code, said = run("ingest", file, "--propose", "--subject-column", "vbi")
    assert (code, "did you mean 'vib'" in said.lower()) == (2, True)


@pytest.mark.parametrize("given", [("--cost-act", "-5"), ("--cost-miss", "-0.01"), ("--cost-miss", "nan")])
def test_a_negative_cost_is_refused(run: Any, given: tuple[str, str]) -> None:
    """Named, before anything is written; in a notebook too."""
    from aiotkit.lab.quick import decision_from

    code, said = run("init", "own", "--yes", *given)
    assert code == 2
    assert f"{given[0]}; expected what it costs, 0 or more; found {float(given[1]):g}" in said
    assert not Path("own.yaml").exists()
    with pytest.raises(DecisionFileError, match="--cost-act; expected what it costs, 0 or more; found -1"):
        decision_from(telemetry(), "own", cost_act=-1, cost_miss=5)


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        ("Temperatur °C", "Cel"), ("Temperatur [°C]", "Cel"), ("oil_temp_degC", "Cel"),
        ("Oil temp °F", "[degF]"), ("vib_mm_s", "mm/s"), ("Druck bar", "bar"), ("flow_l_min", "L/min"),
    ],
)  # fmt: skip
def test_a_unit_in_the_name_is_believed(column: str, unit: str) -> None:
    """Where the name writes the unit, the guess is sure; a word that only looks like one is none."""
    from aiotkit.lab.guess import unit_of

    found, sure, _ = unit_of(column, 20, 80)
    assert (found, sure >= 0.9) == (unit, True)
    assert unit_of("load_min", 20, 80)[:2] == ("%", 0.6)
    assert unit_of("temp_max", 20, 80)[1] == 0.5


def test_the_next_lines_lead_to_a_report(run: Any) -> None:
    """From the decision file to the report, with the names of files; what they say can be run."""
    file = write(telemetry(running=SWITCH))
    words = (
        "init",
        "own",
        "--from",
        file,
        "--subject-from",
        "filename",
        "--zone",
        "UTC",
        "--out",
        "my own.yaml",
    )
    code, said = run(*words, "--json")
    assert code == 0, said
    commands = json.loads(said)["commands"]
    both = "--decision 'my own.yaml' --lake lake"
    assert [c.partition("my own.yaml")[0].split()[1] for c in commands] == [
        "decision", "decision", "ingest", "outcomes", "run", "report",
    ]  # fmt: skip
    assert commands[-2:] == [f"aiotkit run retrain {both}", f"aiotkit report {both}"]
    write(pd.DataFrame({"subject": ["pump"], "failed": ["2026-03-06 23:00"]}), "failures.csv")
    for command in commands[:4]:
        code, said = run(*shlex.split(command.replace("…", "failures.csv"))[1:])
        assert code == 0, (command, said)
    assert "1 accepted" in said
    code, said = run("init", "bare", "--yes")
    assert f"aiotkit report {both}".replace("'my own.yaml'", "bare.yaml") in said


def told(file: str) -> tuple[str, ...]:
    """How the test's file is read."""
    return ("ingest", file, "--decision", "own.yaml", "--zone", "UTC", "--time", "Zeit", "--column",
            "Temperatur_C=Temperatur °C", "--subject", "p1", "--lake", "lake")  # fmt: skip


@pytest.fixture
def begun(run: Any) -> Any:
    """A decision and a file of it."""
    write(telemetry(), "a.csv")
    assert run("init", "own", "--from", "a.csv", "--yes")[0] == 0
    return run


def rows_of(table: str) -> Any:
    """A table of the test's lake."""
    from aiotkit.lake.lake import Lake

    return Lake.open("lake").read(table).to_pandas()


@pytest.mark.parametrize("at_once", [True, False])
def test_values_that_contradict_are_refused(begun: Any, at_once: bool) -> None:
    """Two files with other values for one instant, at once or in turn: told with the first and a way out."""
    other = telemetry()
    other.loc[[7, 9], "vib"] = 9.5
    write(other, "b.csv")
    if at_once:
        words = list(told("a.csv"))
        words.insert(2, "b.csv")
        code, said = begun(*words)
    else:
        assert begun(*told("a.csv"))[0] == 0
        code, said = begun(*told("b.csv"))
    assert code == 2
    vib = telemetry()["vib"][7]
    assert "b.csv: 2 values contradict the lake, first vib of 'p1' at 2026-03-02T07:00:00Z" in said
    assert f"expected {vib}, as in a.csv; found 9.5 (row 8)" in said
    assert "--clash quarantine" in said
    assert len(rows_of("telemetry")) == 2 * HOURS
    assert rows_of("quarantine").empty
    code, said = begun(*told("b.csv"), "--clash", "quarantine")
    assert (code, "2 values contradict the lake: quarantined there" in said) == (0, True)
    assert len(rows_of("telemetry")) == 2 * HOURS
    assert rows_of("quarantine")[["row", "content"]].values.tolist() == [[8, "9.5"], [10, "9.5"]]


def test_the_lake_takes_each_value_once(begun: Any) -> None:
    """A file that has grown adds what is new; the same file again adds nothing, and that is no failure."""
    assert begun(*told("a.csv"))[0] == 0
    more = telemetry().tail(1).assign(Zeit="2026-05-01 00:00:00")
    write(pd.concat([telemetry(), more]), "a.csv")
    code, said = begun(*told("a.csv"), "--json")
    data = json.loads(said)
    assert (code, data["stored"], data["values_stored_before"]) == (0, 2, 2 * HOURS)
    code, said = begun(*told("a.csv"))
    assert (code, "nothing new for lake" in said) == (0, True)
    assert len(rows_of("telemetry")) == 2 * HOURS + 2


def test_words_contradict_too(guard: Any, plant: Any) -> None:
    """A choice is compared as a number is; an equal one is held, and a second time is told apart."""
    from aiotkit.lab.ingest import ingest
    from aiotkit.lab.layout import Options

    def take(mode: str) -> Any:
        frame = pd.DataFrame({"time": ["2026-01-01T00:00:00Z"], "pump": "p1", "mode": mode})
        return ingest(frame, guard, Options(only=("mode",)))

    assert take("idle").to_lake(plant.lake, ingested_us=1).new == 1
    with pytest.raises(AlreadyStoredError, match="in the lake already"):
        take("idle").to_lake(plant.lake, ingested_us=1)
    with pytest.raises(ContradictionError, match=r"expected idle, as in frame; found production \(row 1\)"):
        take("production").to_lake(plant.lake, ingested_us=1)


def test_frames_that_contradict_are_refused() -> None:
    """In a notebook too no value is chosen silently; frames that overlap and agree are fine."""
    from aiotkit.lab.quick import decision_from, own_data

    frame = telemetry()
    frame["Zeit"] = pd.to_datetime(frame["Zeit"], utc=True)
    frame = frame.rename(columns={"Zeit": "time", "Temperatur °C": "temp"}).assign(machine="m1")
    decision = decision_from(frame, "own", cost_act=5, cost_miss=50)
    halves = [frame.head(300), frame.tail(300)]
    assert len(own_data(halves, None, decision).examples) == len(own_data(frame, None, decision).examples)
    halves[1] = halves[1].assign(vib=halves[1]["vib"] + 1)
    words = (
        r"120 values of one instant differ, first vib of 'm1' at 2026-03-09T12:00:00.*; expected one value"
    )
    with pytest.raises(ContradictionError, match=words):
        own_data(halves, None, decision)


def test_empty_files_are_named(begun: Any, tmp_path: Path) -> None:
    """Those without a byte or a row are passed over and said; nothing but them is an error."""
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(8):
        write(telemetry(i), str(folder / f"p{i}.csv"))
    (folder / "o.csv").write_bytes(b"")
    write(telemetry().head(0), str(folder / "p3.csv"))
    words = [w for w in told(str(folder)) if w not in ("--subject", "p1")] + ["--subject-from", "filename"]
    code, said = begun(*words)
    assert (code, "2 of 9 files are empty: o.csv, p3.csv" in said) == (0, True), said
    assert json.loads(begun(*words, "--json")[1])["empty"] == [str(folder / n) for n in ("o.csv", "p3.csv")]
    code, said = begun("init", "more", "--from", folder, "--yes")
    assert (code, "why o.csv hold no row: passed over" in said) == (0, True), said
    write(telemetry().head(0), "h.csv")
    code, said = begun(*words[:1], "h.csv", folder / "o.csv", *words[2:])
    assert (code, "all 2 files are empty" in said, "found none in h.csv, o.csv" in said) == (2, True, True), (
        said
    )
    code, said = begun(*words[:1], "h.csv", *words[2:])
    assert (code, "h.csv: no rows below the header" in said) == (2, True)
    code, said = begun("init", "more", "--from", "[ho].csv", "--yes", "--force")
    assert (code, "h.csv: no rows below the header" in said) == (2, True)


def test_empty_files_of_outcomes_are_named(begun: Any, tmp_path: Path) -> None:
    """Among several one without a byte is passed over and said; alone it is an error."""
    assert begun(*told("a.csv"))[0] == 0
    (tmp_path / "f0.csv").write_bytes(b"")
    write(pd.DataFrame({"subject": ["p1"], "failed": ["2026-03-06 23:00"]}), "f1.csv")
    words = ("--decision", "own.yaml", "--lake", "lake", "--state", "worn", "--zone", "UTC")
    code, said = begun("outcomes", "import", "f*.csv", *words)
    assert (code, "f0.csv: the file is empty, nothing was read" in said, "1 accepted" in said) == (
        0,
        True,
        True,
    )
    code, said = begun("outcomes", "import", "f0.csv", *words)
    assert (code, "f0.csv: the file is empty" in said) == (2, True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("yesterday", "found no date and time that can be read"),
        ("2026-03-01", "found no offset. Write the offset behind the time: Z for UTC"),
    ],
)
def test_an_instant_is_asked_for_in_words(begun: Any, given: str, words: str) -> None:
    """What cannot be read as an instant is named, with the forms that can."""
    assert begun(*told("a.csv"))[0] == 0
    code, said = begun("outcomes", "status", "--decision", "own.yaml", "--lake", "lake", "--as-of", given)
    assert code == 2
    assert (
        f"instant '{given}'; expected date, time and offset in ISO 8601, such as 2026-03-01T08:00:00Z" in said
    )
    assert words in said


def lives(units: int = 12) -> Any:
    """Cycles of engines, one below the other, each up to its failure; no dates."""
    rng = np.random.default_rng(2)
    frames = []
    for i in range(units):
        left = np.arange(int(rng.uniform(80, 160)))[::-1]
        heat = 640 + 8 * np.exp(-left / 15) + rng.normal(0, 0.4, len(left))
        noise = rng.normal(0, 1, len(left))
        frames.append(
            pd.DataFrame(
                {"unit": i + 1, "cycle": np.arange(len(left)) + 1, "t30": heat.round(3), "w": noise.round(3)}
            )
        )
    return pd.concat(frames, ignore_index=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own database
def test_records_that_run_to_failure_need_no_list_of_failures(run: Any) -> None:
    """Each subject's last row is its failure: the commands say so, and decisions before it are labelled."""
    frame = lives()
    write(frame, "engines.csv")
    code, said = run("init", "e", "--from", "engines.csv", "--horizon-s", 20 * 3600, "--yes")
    assert code == 0, said
    assert "whether each record ends with a failure: taken so in the commands (--form ends)" in said
    where = ("--subject-column", "unit", "--start", "2020-01-01T00:00Z", "--every-s", 3600)
    assert "engines.csv --form ends --state worn --subject-column unit --start … --every-s 3600" in said
    both = ("--decision", "e.yaml", "--lake", "lake")
    assert run("ingest", "engines.csv", *where, *both)[0] == 0
    code, said = run("outcomes", "import", "engines.csv", "--form", "ends", *where, *both)
    assert code == 0, said
    assert "the last row of 12 subjects is taken for 'worn'" in said
    code, said = run("run", "retrain", *both, "--families", "lda", "--in-process", "--json")
    assert code in (0, 4), said  # whether a dozen lives are enough is for the gates to say
    rows = pd.read_parquet(next(Path("work").rglob("rows.parquet")))
    worn = rows[rows["state"] == "worn"].groupby("subject").size()
    assert (worn == 19).sum() == 12  # those from which it lies ahead, less than 20 hours
    last = rows.sort_values("at_us").groupby("subject").tail(1)
    assert (last["state"] == "worn").all()  # nothing waits for what cannot come


def test_a_record_that_ends_with_its_failure_has_no_label_column(run: Any) -> None:
    """One or the other."""
    write(lives(2).assign(failed=0), "engines.csv")
    assert run("init", "e", "--from", "engines.csv", "--yes")[0] == 0
    where = ("--subject-column", "unit", "--start", "2020-01-01T00:00Z", "--every-s", 3600)
    both = ("--decision", "e.yaml", "--lake", "lake")
    assert run("ingest", "engines.csv", *where, *both)[0] == 0
    code, said = run(
        "outcomes", "import", "engines.csv", "--form", "ends", "--label", "failed", *where, *both
    )
    assert code == 2
    assert "Give either --form ends with --state STATE, or --label COLUMN" in said


def test_a_failure_whose_rows_are_too_young_is_said_to_wait(run: Any) -> None:
    """One machine that broke at the end of its record: what to do stands in the error."""
    write(telemetry())
    pd.DataFrame({"when": ["2026-03-21T20:00:00"]}).to_csv("broke.csv", index=False)
    assert run("init", "p", "--from", "pump.csv", "--zone", "UTC", "--yes")[0] == 0
    both = ("--decision", "p.yaml", "--lake", "lake")
    assert run("ingest", "pump.csv", "--subject", "p1", "--zone", "UTC", *both)[0] == 0
    assert run("outcomes", "import", "broke.csv", "--form", "failures", "--zone", "UTC", *both)[0] == 0
    code, said = run("run", "retrain", *both, "--families", "lda", "--in-process")
    assert code == 2
    assert "rows that are pending mature (where the record is complete, say so with --as-of" in said
