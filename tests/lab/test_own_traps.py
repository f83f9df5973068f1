"""Traps in data of one's own: what was read otherwise than meant, without a word."""

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

from aiotkit.lab.decision_file import read_decision  # noqa: E402
from aiotkit.lab.instants import Clock  # noqa: E402
from aiotkit.lab.leaks import audit  # noqa: E402
from aiotkit.lab.outcomes import reports_of  # noqa: E402
from aiotkit.lab.quick import Options, Told, decision_from, own_data  # noqa: E402
from aiotkit.lake.lake import Lake  # noqa: E402

HOURS = 24 * 20
AT = pd.date_range("2026-03-02", periods=HOURS, freq="h", tz="UTC")


def presses(names: int = 6, *, noise: bool = False) -> Any:
    """Hours of presses that clog for a day every four days; ``noise``: their pressure does not show it."""
    rng, parts = np.random.default_rng(7), []
    for i in range(names):
        clogged = (np.arange(HOURS) + 17 * i) % 96 >= 72
        bar = rng.normal(5, 0.3, HOURS) + (0 if noise else 3) * clogged
        said = np.where(clogged, "clogged", "fine")
        parts.append(pd.DataFrame({"time": AT, "press": f"p{i}", "bar": bar, "Condition": said}))
    return pd.concat(parts, ignore_index=True)


def done(run: Any, *words: object) -> str:
    code, said = run(*words)
    assert code == 0, said
    return str(said)


def test_a_column_that_the_label_was_read_from_may_not_be_read(run: Any) -> None:
    """Whatever init says: who puts the label's column into the decision is refused by the leak audit."""
    table = presses(noise=True)
    table.to_csv("f.csv", index=False)
    done(run, "init", "cond", "--from", "f.csv", "--yes", "--cost-act", "10", "--cost-miss", "100")
    text = Path("cond.yaml").read_text()
    assert "Condition:" not in text
    answer = 'context:\n  Condition: {values: ["fine", "clogged"], max_age_s: 86400, required: false}\n'
    Path("cond.yaml").write_text(text.replace("context: {}\n", "") + answer)
    told = own_data(table, table, read_decision(Path("cond.yaml")), told=Told(label="Condition"))
    found = next(f for f in audit(told.examples, told.decision, seed=1).findings if f.name == "giveaway")
    assert found.severity == "leak"
    assert "`context.Condition=fine`" in found.words
    assert "is what the label was read from" in found.words


def test_a_horizon_that_is_shortened_later_finds_labels_still(run: Any) -> None:
    """What a column says is stored as densely as decisions are due, whatever the horizon is."""
    presses().to_csv("f.csv", index=False)
    init = ("--cost-act", "10", "--cost-miss", "100", "--length-s", "10800", "--every-s", "10800")
    done(run, "init", "filt", "--from", "f.csv", "--horizon-s", "43200", *init, "--yes")
    done(run, "ingest", "f.csv", "--decision", "filt.yaml", "--lake", "lake")
    said = done(
        run,
        "outcomes",
        "import",
        "f.csv",
        "--label",
        "Condition",
        "--decision",
        "filt.yaml",
        "--lake",
        "lake",
    )
    assert "set it to window.every_s (10800 s), and import again" in said
    assert "rows say what those beside them say, and are not needed" in said
    reports = reports_of(Lake.open("lake"))
    clogged = reports[(reports["state"] == "clogged") & (reports["subject"] == "p0")]["at_us"].sort_values()
    assert float(clogged.diff().median()) <= 10_800e6


def test_counts_that_come_again_are_no_copies() -> None:
    """Rows of small numbers are alike under several machines by chance; rows that were copied are not."""
    rng, parts = np.random.default_rng(3), []
    for i in range(8):
        worn = (np.arange(HOURS) + 29 * i) % 120 > 90
        parts.append(
            pd.DataFrame(
                {
                    "time": AT,
                    "machine": f"m{i}",
                    "errors": rng.poisson(4 + 4 * worn),
                    "retries": rng.poisson(6, HOURS),
                }
            ).assign(state=np.where(worn, "worn", "fine"))
        )
    counts = pd.concat(parts, ignore_index=True)
    decision = decision_from(
        counts, "counts", cost_act=10, cost_miss=100, label="state", length_s=10_800, every_s=10_800
    )
    for copied in (False, True):
        table = counts
        if copied:
            twin = counts[counts["machine"] == "m0"].assign(
                machine="m0-again", errors=lambda t: t["errors"] + 0.125
            )
            exact = twin.assign(errors=twin["errors"] + np.linspace(0, 0.1, len(twin)))
            table = pd.concat([counts[counts["machine"] != "m0"], exact, exact.assign(machine="m0")])
        found = own_data(table, table, decision, told=Told(label="state"))
        finding = next(f for f in audit(found.examples, decision, seed=1).findings if f.name == "duplicates")
        assert finding.severity == ("leak" if copied else "fine"), finding


def test_rows_without_time_are_placed_alike_however_they_are_sorted() -> None:
    """A file of cycles sorted by cycle gives each engine the same rows as one sorted by engine."""
    rng, parts = np.random.default_rng(5), []
    for unit, n in enumerate((60, 80, 70), start=1):
        heat = 20 + np.linspace(0, 9, n) + rng.normal(0, 1, n)
        parts.append(pd.DataFrame({"unit": unit, "cycle": np.arange(1, n + 1), "heat": heat}))
    by_unit = pd.concat(parts, ignore_index=True)
    by_cycle = by_unit.sort_values(["cycle", "unit"], ignore_index=True)
    decision = decision_from(by_unit, "engine", cost_act=10, cost_miss=100, horizon_s=36_000)

    read = Options(start="2026-01-01", every_s=3600, clock=Clock(zone="UTC"))
    told = Told(form="ends", state="worn", start="2026-01-01", every_s=3600, clock=Clock(zone="UTC"))
    one, other = (own_data(t, t, decision, read=read, told=told) for t in (by_unit, by_cycle))
    pd.testing.assert_frame_equal(one.examples.rows, other.examples.rows)
    assert any("not sorted by subject" in note for note in other.telemetry[0].notes)


def test_a_date_among_times_is_the_end_of_its_day() -> None:
    """Each row is judged alone, and the note says how many there are."""
    table = presses(2).drop(columns="Condition")
    events = pd.DataFrame({"press": ["p0", "p1"], "failed": ["2026-03-05 10:00", "2026-03-06"]})
    decision = decision_from(table, "press", cost_act=10, cost_miss=100, horizon_s=86_400)
    told = Told(form="failures", state="worn", clock=Clock(zone="UTC"))
    found = own_data(table, events, decision, told=told).outcomes
    assert found is not None
    assert pd.to_datetime(found.accepted["at_us"], unit="us").dt.strftime("%d %H:%M").tolist() == [
        "05 10:00",
        "06 23:59",
    ]
    assert any("end of that day (1 of 2 rows)" in note for note in found.notes)


def test_events_at_the_end_of_a_record_are_said_to_wait() -> None:
    """The note says how many, and with which --as-of they count."""
    table = presses(2).drop(columns="Condition")
    events = pd.DataFrame({"press": ["p0", "p1"], "failed": ["2026-03-05 10:00Z", "2026-03-21 20:00Z"]})
    decision = decision_from(table, "press", cost_act=10, cost_miss=100, horizon_s=86_400)
    found = own_data(table, events, decision, told=Told(form="failures", state="worn"))
    assert found.outcomes is not None
    said = next(note for note in found.outcomes.notes if "are pending" in note)
    assert said.startswith("1 of 2 events lie within maturity_s of the record's end")
    assert "--as-of 2026-03-22T23:00:00+00:00" in said
    assert "without a label: pending" in str(found)


def test_a_file_a_day_is_looked_at_together(run: Any) -> None:
    """One row a machine and a file a day: steps, machines and what changes show in many of them alone."""
    rng = np.random.default_rng(2)
    Path("days").mkdir()
    for day in pd.date_range("2026-01-01", periods=60):
        rows = {
            "date": f"{day:%Y-%m-%d}",
            "serial_number": [f"S{i}" for i in range(6)],
            "model": ["A", "B"] * 3,
        }
        rows |= {
            "realloc": rng.poisson(2 + day.day_of_year / 9, 6),
            "failure": (rng.random(6) < 0.05).astype(int),
        }
        pd.DataFrame(rows).to_csv(f"days/{day:%Y-%m-%d}.csv", index=False)
    found = json.loads(done(run, "ingest", "days", "--propose", "--json"))
    roles = {c["column"]: c["role"] for c in found["columns"]}
    assert (roles["serial_number"], roles["realloc"], roles["failure"]) == ("subject", "signal", "label")
    assert found["rate_hz"] == pytest.approx(1 / 86_400)


def test_bursts_in_a_folder_a_machine_are_of_that_machine(run: Any) -> None:
    """Bursts at the same times in several folders; the step between them is that of one machine."""
    rng = np.random.default_rng(2)
    for machine in ("a", "b", "c"):
        Path("data", machine).mkdir(parents=True)
        for at in pd.date_range("2026-01-01", periods=5, freq="6h"):
            np.savetxt(
                f"data/{machine}/{at:%Y.%m.%d.%H.%M.%S}.txt", rng.normal(0, 1, (100, 2)), delimiter="\t"
            )
    found = json.loads(done(run, "ingest", "data", "--propose", "--json"))
    assert "--subject-from folder" in found["command"]
    assert yaml.safe_load(found["fragment"])["window"]["every_s"] == 21_600


def test_a_label_column_a_machine_is_read_from_names(run: Any) -> None:
    """``AHU1.Condition`` beside ``AHU1.temp``: the label is called as the names say, without the machine."""
    table, wide = presses(3), {"time": AT}
    for i in range(3):
        mine = table[table["press"] == f"p{i}"]
        wide |= {f"AHU{i}.bar": mine["bar"].to_numpy(), f"AHU{i}.Condition": mine["Condition"].to_numpy()}
    pd.DataFrame(wide).to_csv("bms.csv", index=False)
    said = json.loads(done(run, "init", "ahu", "--from", "bms.csv", "--yes", "--json"))
    commands = [c.split()[1:] for c in said["commands"]]
    for command in commands[2:4]:
        told = done(run, *command)
    assert "0 rejected" in told
    reports = reports_of(Lake.open("lake"))
    assert set(reports["subject"]) == {"AHU0", "AHU1", "AHU2"}
    assert set(reports["state"]) == {"fine", "clogged"}


def test_states_that_are_given_are_not_those_of_a_status_column(run: Any) -> None:
    """A status column is no label where other states are given: then no report means that all was well."""
    table = (
        presses(3)
        .assign(StatusCode=lambda t: np.where(t["Condition"] == "fine", 1, 7))
        .drop(columns="Condition")
    )
    table.loc[::50, "StatusCode"] = 3
    table.to_csv("f.csv", index=False)
    done(run, "init", "press", "--from", "f.csv", "--states", "healthy,worn", "--yes")
    assert yaml.safe_load(Path("press.yaml").read_text())["outcome"]["silence"] == "healthy"
    done(run, "init", "code", "--from", "f.csv", "--yes")
    assert yaml.safe_load(Path("code.yaml").read_text())["outcome"]["silence"] is None


def test_days_of_a_spreadsheet_with_decimal_commas_are_read(run: Any) -> None:
    """What is proposed is what ingest takes: no row is quarantined."""
    table = presses(2).drop(columns="Condition")
    days = (table["time"] - pd.Timestamp("1899-12-30", tz="UTC")) / pd.Timedelta(days=1)
    table.assign(time=days).to_csv("f.csv", index=False, sep=";", decimal=",")
    said = json.loads(done(run, "init", "press", "--from", "f.csv", "--yes", "--zone", "UTC", "--json"))
    told = done(run, *said["commands"][2].split()[1:])
    assert "quarantined  0" in told


def test_a_setpoint_with_a_unit_of_its_own_keeps_it(run: Any) -> None:
    """Two numbers alone, and a line of units below the header: what is proposed is what ingest takes."""
    table = (
        presses(2).drop(columns="Condition").assign(setpoint=lambda t: np.where(t.index % 100 < 50, -18, 4))
    )
    head, *rows = table.to_csv(index=False).splitlines()
    Path("f.csv").write_text("\n".join([head, ",,bar,°C", *rows]) + "\n")
    said = json.loads(done(run, "init", "press", "--from", "f.csv", "--yes", "--json"))
    found = yaml.safe_load(Path("press.yaml").read_text())["signals"]["setpoint"]
    assert found["unit"] == "Cel"
    assert found["range"][0] < -18 < 4 < found["range"][1]
    done(run, *said["commands"][2].split()[1:])


def test_several_files_of_outcomes_are_counted_together(run: Any) -> None:
    """One line says what all of them brought."""
    table = presses(2)
    table.drop(columns="Condition").to_csv("f.csv", index=False)
    done(run, "init", "press", "--from", "f.csv", "--yes")
    done(run, "ingest", "f.csv", "--decision", "press.yaml", "--lake", "lake")
    for i, day in enumerate(("05", "09")):
        Path(f"e{i}.csv").write_text(f"press,failed\np{i},2026-03-{day}T10:00Z\n")
    words = ("--form", "failures", "--state", "worn", "--decision", "press.yaml", "--lake", "lake")
    assert "2 files: 2 rows, 2 accepted: 2 of 'worn'" in done(
        run, "outcomes", "import", "e0.csv", "e1.csv", *words
    )
