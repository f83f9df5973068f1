"""One's own data: files of any shape become a decision, telemetry and labels; nothing is guessed silently."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from aiotkit.core.errors import DataError, OutcomeError

pytestmark = pytest.mark.desk
np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
pytest.importorskip("torch")
pytest.importorskip("deltalake")
pytest.importorskip("typer")

START = pd.Timestamp("2025-10-24T00:00:00Z")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line; its exit code and what it said."""
    from aiotkit.cli.main import main

    def call(*words: object) -> tuple[int, str]:
        code = main([str(w) for w in words])
        out = capsys.readouterr()
        return code, out.out + out.err

    return call


def machine(n: int = 1200, *, seed: int = 0, period_s: int = 60) -> Any:
    """A machine of three bad stretches: time, temp, vib, bad."""
    rng = np.random.default_rng(seed)
    bad = np.zeros(n, dtype=int)
    for begin in (n // 5, n // 2, 4 * n // 5):
        bad[begin : begin + n // 15] = 1
    return pd.DataFrame(
        {
            "time": pd.date_range(START, periods=n, freq=f"{period_s}s"),
            "temp": (40 + rng.normal(0, 0.5, n) + 4 * bad).round(2),
            "vib": np.abs(rng.normal(2, 0.3, n) + bad).round(3),
            "bad": bad,
        }
    )


def examples(lake: Path, decision: Path, *names: str) -> Any:
    """What there is to learn from."""
    from aiotkit.lab.assemble import assemble
    from aiotkit.lab.decision_file import read_decision
    from aiotkit.lake.lake import Lake

    return assemble(Lake.open(lake), read_decision(decision), names=names, as_of_us=2_000_000_000_000_000)


def column(found: Any, name: str) -> Any:
    """The values of a column."""
    return found.x[:, found.columns.index(name)]


def start(run: Any, folder: Path, source: Any, *words: object) -> Path:
    """A decision file out of a look at a file; it checks."""
    path = folder / "d.yaml"
    costs = ("--cost-act", 50, "--cost-miss", 900, "--yes", "--out", path)
    code, said = run("init", "own", "--from", source, *costs, *words)
    assert code == 0, said
    code, said = run("decision", "check", path)
    assert code == 0, said
    return path


def test_long_files_with_units_and_mixed_rates(run: Any, tmp_path: Path) -> None:
    """Rows in any order, a column of units (one machine in °F), a slow and a fast signal: all is kept."""
    parts = []
    for i in range(3):
        frame = machine(seed=i)
        fahrenheit = i == 2
        slow = frame.iloc[::10]
        temp = slow["temp"] * 1.8 + 32 if fahrenheit else slow["temp"]
        unit = "°F" if fahrenheit else "°C"
        parts += [
            pd.DataFrame(
                {"Stamp": slow["time"], "Pump": f"P{i}", "Tag": "Oil Temp", "Value": temp, "Unit": unit}
            ),
            pd.DataFrame(
                {"Stamp": frame["time"], "Pump": f"P{i}", "Tag": "vib", "Value": frame["vib"], "Unit": "mm/s"}
            ),
        ]
    pd.concat(parts).sample(frac=1, random_state=1).to_csv(tmp_path / "long.csv", index=False)
    path = start(run, tmp_path, tmp_path / "long.csv", "--subject", "pump", "--states", "ok,worn")
    code, said = run("ingest", tmp_path / "long.csv", "--decision", path, "--lake", tmp_path / "lake")
    assert code == 0, said
    assert "quarantined  0" in said
    assert "Oil_Temp: [degF] converted to Cel" in said
    found = examples(tmp_path / "lake", path, "Oil_Temp.mean")
    assert found.rows["subject"].unique().tolist() == ["P0", "P1", "P2"]
    assert len(found) == 3 * 20
    assert column(found, "Oil_Temp.mean").min() > 39
    assert column(found, "Oil_Temp.mean").max() < 46


def test_a_spreadsheet_export_of_another_country(run: Any, tmp_path: Path) -> None:
    """Semicolons, decimal commas, cp1252, lines above the header, date beside time, an hour that is twice."""
    frame = machine(4000)
    local = frame["time"].dt.tz_convert("Europe/Berlin")
    comma = {"Öltemperatur [°C]": frame["temp"], "Schwingung (mm/s)": frame["vib"]}
    table = pd.DataFrame(
        {"Datum": local.dt.strftime("%d.%m.%Y"), "Uhrzeit": local.dt.strftime("%H:%M:%S")}
        | {name: [f"{v:.3f}".replace(".", ",") for v in values] for name, values in comma.items()}
        | {"Ausfall": frame["bad"]}
    )
    text = "Export Anlage 7\nerstellt am 1.12.\n\n" + table.to_csv(index=False, sep=";")
    file = tmp_path / "export.csv"
    file.write_bytes(text.encode("cp1252"))
    code, said = run("ingest", file, "--propose")
    assert (code, "which encoding the text has: cp1252 is taken (--encoding)" in said) == (0, True)
    code, said = run("ingest", file, "--propose", "--encoding", "cp1252")
    assert code == 0
    for piece in ("--decimal ,", "--time Datum+Uhrzeit", "--time-format '%d.%m.%Y %H:%M:%S'", "--zone …"):
        assert piece in said
    assert 'Oltemperatur: {unit: "Cel"' in said
    path = start(
        run, tmp_path, file, "--encoding", "cp1252", "--states", "gut,aus", "--zone", "Europe/Berlin"
    )
    words = ("--encoding", "cp1252", "--zone", "Europe/Berlin", "--time-format", "%d.%m.%Y %H:%M:%S")
    told = ("--subject", "a7", "--lake", tmp_path / "lake", "--decision", path, "--time", "Datum+Uhrzeit")
    code, said = run("ingest", file, *words, *told, "--decimal", ",")
    assert code == 0, said
    assert "240  local time occurs twice in Europe/Berlin" in said
    settled = ("--ambiguous", "first", "--label", "Ausfall", "--covers-s", 0)
    code, said = run("outcomes", "import", file, *words, *told, *settled)
    assert code == 0, said
    assert "0 was read as 'gut', 1 as 'aus'" in said
    states = examples(tmp_path / "lake", path).labelled().rows["state"].value_counts()
    assert states.min() > 3


def test_parquet_with_categories_zones_and_empty_columns(run: Any, tmp_path: Path) -> None:
    """Nanoseconds with a zone, categorical subjects and labels, an all-NaN and a nearly empty column."""
    parts = []
    for i in range(3):
        frame = machine(seed=i)
        frame["time"] = frame["time"].dt.as_unit("ns").dt.tz_convert("America/New_York")
        frame["state"] = np.where(frame.pop("bad"), "degraded", "normal")
        parts.append(
            frame.assign(unit_id=f"U{i}", nothing=np.nan, mode=np.where(frame.index < 600, "eco", "full"))
        )
    table = pd.concat(parts, ignore_index=True)
    table["rare"] = np.where(table.index == 7, 1.0, np.nan)
    table = table.astype({"unit_id": "category", "state": "category"})
    table.to_parquet(tmp_path / "f.parquet")
    code, said = run("ingest", tmp_path / "f.parquet", "--propose")
    assert "nothing  empty" in said
    assert "only 1 of 3,600 rows hold a value" in said
    assert "constant" not in said
    assert 'mode: {values: ["eco", "full"]' in said
    path = start(run, tmp_path, tmp_path / "f.parquet")
    lake = ("--lake", tmp_path / "lake", "--decision", path)
    assert run("ingest", tmp_path / "f.parquet", *lake)[0] == 0
    code, said = run("outcomes", "import", tmp_path / "f.parquet", *lake, "--label", "state")
    assert code == 0, said
    found = examples(tmp_path / "lake", path, "vib.mean").labelled()
    truth = table.groupby("unit_id", observed=True)["state"].apply(lambda s: (s == "degraded").mean()).mean()
    assert (found.rows["state"] == "degraded").mean() == pytest.approx(truth, abs=0.1)
    assert {c for c in found.columns if c.startswith("context.")} == {"context.mode=eco", "context.mode=full"}


def test_one_file_a_subject_and_labelled_spans(run: Any, tmp_path: Path) -> None:
    """A folder of tab-separated files with byte-order marks and epochs; spans of time beside them."""
    spans = []
    for i in range(3):
        frame = machine(seed=i, period_s=10)
        at = frame["time"]
        frame["t_ms"] = at.dt.as_unit("ms").astype("int64")
        path = tmp_path / "per" / f"pump-{i}.csv"
        path.parent.mkdir(exist_ok=True)
        frame[["t_ms", "temp", "vib"]].to_csv(path, index=False, sep="\t", encoding="utf-8-sig")
        edges = np.flatnonzero(np.diff(np.r_[0, frame["bad"], 0]))
        spans += [(f"pump-{i}", at[a].isoformat(), at[b - 1].isoformat()) for a, b in edges.reshape(-1, 2)]
    pd.DataFrame(spans, columns=["pump", "begin", "end"]).to_csv(tmp_path / "spans.csv", index=False)
    path = start(
        run, tmp_path, tmp_path / "per", "--subject", "pump", "--states", "ok,bad", "--horizon-s", 600
    )
    given = ("--decision", path, "--lake", tmp_path / "lake")
    words = (
        "ingest",
        str(tmp_path / "per" / "*.csv"),
        *given,
        "--subject-from",
        "filename",
        "--time",
        "t_ms",
    )
    code, said = run(*words)
    assert (code, "3 files: 7,200 values, 7,200 kept" in said) == (0, True), said
    code, said = run(*words)
    assert (code, "nothing new" in said, "3 of 3 files were in the lake already" in said) == (0, True, True)
    code, said = run("outcomes", "import", tmp_path / "spans.csv", *given)
    assert code == 0, said
    found = examples(tmp_path / "lake", path, "vib.mean").labelled()
    level = pd.Series(column(found, "vib.mean")).groupby(found.rows["state"].to_numpy()).mean()
    assert set(found.rows["subject"]) == {"pump-0", "pump-1", "pump-2"}
    assert level["bad"] > level["ok"]


def test_rows_without_time_or_header_and_failures(run: Any, tmp_path: Path) -> None:
    """Runs to failure as columns of numbers between spaces: rows an hour apart, a failure at each end."""
    rng = np.random.default_rng(4)
    runs = [int(n) for n in rng.integers(60, 90, 6)]
    rows = [
        (u + 1, c + 1, 600 + 9 * (c / n) ** 3 + rng.normal(0, 0.3), rng.normal())
        for u, n in enumerate(runs)
        for c in range(n)
    ]
    np.savetxt(tmp_path / "train.txt", rows, fmt="%.4f", delimiter="  ")
    code, said = run("ingest", tmp_path / "train.txt", "--propose")
    assert "c0  subject" in said
    path = start(run, tmp_path, tmp_path / "train.txt", "--states", "ok,failed", "--horizon-s", 36000)
    given = ("--decision", path, "--lake", tmp_path / "lake")
    clock = ("--start", "2020-01-01T00:00Z", "--every-s", 3600)
    code, said = run(
        "ingest", tmp_path / "train.txt", *given, "--shape", "wide", "--subject-column", "c0", *clock
    )
    assert code == 0, said
    ends = pd.Timestamp("2020-01-01T00:00Z") + pd.to_timedelta(np.cumsum(runs) - 1, unit="h")
    failed = pd.DataFrame({"id": [f"{u + 1}.0000" for u in range(6)], "failed_at": ends.astype(str)})
    failed.to_csv(tmp_path / "failures.csv", index=False)
    words = (
        "outcomes",
        "import",
        tmp_path / "failures.csv",
        *given,
        "--subject-column",
        "id",
        "--state",
        "failed",
    )
    code, said = run(*words)
    assert code == 0, said
    found = examples(tmp_path / "lake", path, "c2.last")
    assert (found.rows["state"] == "failed").sum() == 6 * 10
    last = column(found, "c2.last")
    assert last[(found.rows["state"] == "failed").to_numpy()].min() > last.min()


def test_a_file_a_burst_whose_name_is_its_time(run: Any, tmp_path: Path) -> None:
    """Snapshots of a fast signal, a file each, no header: the name says when, rows are samples."""
    for k in range(6):
        at = pd.Timestamp("2004-02-12T10:32:00") + pd.Timedelta(minutes=10 * k)
        path = tmp_path / "set" / at.strftime("%Y.%m.%d.%H.%M.%S")
        path.parent.mkdir(exist_ok=True)
        np.savetxt(
            path, np.random.default_rng(k).normal(0, 0.1 + 0.1 * k, (256, 2)), fmt="%.3f", delimiter="\t"
        )
    path = start(run, tmp_path, tmp_path / "set")
    words = (
        "--start-from",
        "filename",
        "--time-format",
        "%Y.%m.%d.%H.%M.%S",
        "--zone",
        "UTC",
        "--shape",
        "wide",
    )
    given = ("--decision", path, "--lake", tmp_path / "lake", "--subject", "b1", "--every-s", 1 / 256)
    code, said = run("ingest", tmp_path / "set", *words, *given)
    assert (code, "3,072 kept" in said) == (0, True), said
    found = examples(tmp_path / "lake", path, "c0.std")
    assert len(found) == 6
    assert column(found, "c0.std").tolist() == pytest.approx([0.1 + 0.1 * k for k in range(6)], rel=0.2)


def test_a_row_a_day_becomes_snapshots(run: Any, tmp_path: Path) -> None:
    """Days with gaps, dates of another order: windows of a day, features .last, a date counts to its end."""
    parts = []
    for i in range(8):
        days = pd.date_range("2025-03-01", periods=30)
        keep = np.random.default_rng(i).random(30) > 0.2
        errors = np.random.default_rng(i).poisson(3, 30)
        parts.append(
            pd.DataFrame({"Date": days.strftime("%m/%d/%Y"), "Serial Number": f"S{i}", "errors": errors})[
                keep
            ]
        )
    pd.concat(parts).to_csv(tmp_path / "daily.csv", index=False)
    path = start(run, tmp_path, tmp_path / "daily.csv", "--states", "ok,failed", "--horizon-s", 86400)
    text = path.read_text()
    assert "window: {length_s: 86400, every_s: 86400}" in text
    assert "errors.last" in text
    given = ("--decision", path, "--lake", tmp_path / "lake", "--zone", "America/Chicago")
    code, said = run("ingest", tmp_path / "daily.csv", *given, "--time-format", "%m/%d/%Y")
    assert (code, "subject: column 'Serial Number'" in said) == (0, True), said
    pd.DataFrame({"serial_number": ["S3"], "failure_date": ["2025-03-20"]}).to_csv(
        tmp_path / "x.csv", index=False
    )
    code, said = run("outcomes", "import", tmp_path / "x.csv", *given)
    assert (code, "dates without a time of day count as the end of that day" in said) == (0, True), said
    found = examples(tmp_path / "lake", path)
    failed = found.rows[found.rows["state"] == "failed"]
    assert set(failed["subject"]) == {"S3"}
    last = pd.Timestamp(failed["at_us"].max(), unit="us", tz="America/Chicago")
    assert last.date() <= pd.Timestamp("2025-03-20").date()


def test_json_spans_and_instants_by_name(tmp_path: Path) -> None:
    """JSON of spans or instants under names of files finds its subject by the file's stem."""
    import json

    from aiotkit.lab.outcome_reports import read_outcomes
    from aiotkit.lab.outcome_told import Told

    decision = small()
    span = [["2025-10-24T01:00:00Z", "2025-10-24T03:30:00Z"]]
    (tmp_path / "w.json").write_text(json.dumps({"set/m1.csv": span, "set/m2.csv": []}))
    found = read_outcomes(tmp_path / "w.json", decision, known={"m1": None})
    assert found.form == "windows"
    assert set(found.accepted["subject"]) == {"m1"}
    assert found.accepted["at_us"].diff().max() <= decision.outcome.horizon_s * 1e6
    assert found.accepted["at_us"].max() == pd.Timestamp(span[0][1]).value // 1000
    (tmp_path / "p.json").write_text(
        json.dumps({"m1": ["2025-10-24T01:00:00Z"], "m2": ["2025-10-24T02:00:00Z"]})
    )
    found = read_outcomes(tmp_path / "p.json", decision, Told(state="bad", entry="m2"), known={"m2": None})
    assert (found.form, len(found.accepted)) == ("failures", 1)
    with pytest.raises(DataError, match=r"no entry 'm3'.*one of 'm1', 'm2'"):
        read_outcomes(tmp_path / "p.json", decision, Told(state="bad", entry="m3"), known={"m2": None})


def small(**changes: Any) -> Any:
    """A decision about two states with one signal a minute."""
    from aiotkit.core.decision import parse_decision

    document = {
        "format": 1, "id": "own", "revision": 1, "subject": "machine", "question": "?", "site": {"name": "x"},
        "states": {"ok": {}, "bad": {}}, "actions": {"run": {}, "stop": {}},
        "costs": {"run": {"ok": 0, "bad": 900}, "stop": {"ok": 50, "bad": 50}},
        "signals": {
            "vib": {"unit": "mm/s", "sampling": {"kind": "regular", "rate_hz": 1 / 60}, "range": [0, 20]}
        },
        "window": {"length_s": 3600, "every_s": 3600}, "needs": {"deadline_ms": 500},
        "rule": [{"otherwise": "run"}], "recovery": "run",
        "outcome": {
            "horizon_s": 3600, "maturity_s": 3600, "silence": "ok",
            "sources": {"records": {"reports": ["ok", "bad"]}},
        },
    }  # fmt: skip
    return parse_decision(document | changes)


def test_labels_of_rows_reach_the_window_they_are_of() -> None:
    """A label a row is seen by exactly the windows whose horizon reaches it, thinned or not."""
    from aiotkit.lab.assemble import from_frames

    frame = machine(4000).assign(machine="m1")
    told = frame[["machine", "time", "bad"]].rename(columns={"bad": "label"})
    found = from_frames(frame[["machine", "time", "vib"]], told, small(), names=("vib.mean",)).labelled()
    at = frame["time"].astype("datetime64[us, UTC]").astype("int64").to_numpy()
    truth = [
        bool(frame["bad"].to_numpy()[(at + 60_000_000 >= t) & (at + 60_000_000 <= t + 3_600_000_000)].any())
        for t in found.rows["at_us"]
    ]
    assert (found.rows["state"] == "bad").tolist() == truth
    assert 0 < sum(truth) < len(truth)


def test_a_row_a_window_is_labelled_by_its_own_row() -> None:
    """Where a row covers a whole window, its label belongs to that window and to no other."""
    from aiotkit.lab.assemble import from_frames
    from aiotkit.lab.layout import Options
    from aiotkit.lab.outcome_told import Told

    rng = np.random.default_rng(1)
    bad = rng.integers(0, 2, 200)
    rows = pd.DataFrame(
        rng.normal(5 + 3 * bad[:, None], 1, (200, 60)).clip(0, 20), columns=[f"vib_{i}" for i in range(60)]
    )
    first = "2026-01-01T00:00Z"
    changed = {"horizon_s": 3600, "maturity_s": 3600, "sources": {"records": {"reports": ["ok", "bad"]}}}
    decision = small(outcome=changed)
    for horizon in (3600, 900):
        decision = small(outcome=changed | {"horizon_s": horizon})
        found = from_frames(
            rows, pd.DataFrame({"label": bad}), decision, names=("vib.mean",),
            read=Options(subject="m1", shape="window", start=first, every_s=3600),
            told=Told(subject="m1", label="label", start=first, every_s=3600),
        ).labelled()  # fmt: skip
        assert (found.rows["state"] == "bad").to_numpy().astype(int).tolist() == bad[: len(found)].tolist()
        assert len(found) >= 198


@pytest.mark.parametrize(
    ("table", "told", "words"),
    [
        (
            {"machine": ["m1"], "when": ["x"]},
            {"state": "bda"},
            "unknown state 'bda'; expected one of 'ok', 'bad'",
        ),
        ({"machine": ["m1"], "label": [1]}, {"states": {"1": "no"}}, "unknown state 'no'; expected one of"),
        ({"machine": ["m1"], "label": [1]}, {"source": "crew"}, "unknown source 'crew'; expected 'records'"),
        ({"machine": ["m1"], "label": [1]}, {}, "which column says when it was"),
        (
            {"label": [1], "device": ["x"], "at": ["2025-10-24T01:00Z"]},
            {},
            r"which machine it is \(or --subject NAME\)",
        ),
        ({"a": [1], "b": [2]}, {}, "2 things are not known; expected .*when it was; what rows say"),
        ({"start": ["x"], "end": ["y"]}, {"form": "window"}, "form 'window'"),
    ],
)
def test_outcomes_that_cannot_be_told_say_what_is_valid(
    table: dict[str, Any], told: dict[str, Any], words: str
) -> None:
    """Each refusal names what was expected and what to say."""
    from aiotkit.lab.outcome_reports import read_outcomes
    from aiotkit.lab.outcome_told import Told

    with pytest.raises((OutcomeError, DataError), match=words):
        read_outcomes(pd.DataFrame(table), small(), Told(**told), known={"m1": None})


def test_labels_that_can_mean_nothing_are_rejected_or_said() -> None:
    """Unknown subjects and values, spans that end before they begin, outcomes before any telemetry."""
    from aiotkit.lab.outcome_reports import read_outcomes
    from aiotkit.lab.outcome_told import Told

    span = (pd.Timestamp("2025-10-24T00:00Z").value // 1000, pd.Timestamp("2025-10-25T00:00Z").value // 1000)
    table = pd.DataFrame(
        {
            "machine": ["m1", "m9", "m1", "m1"],
            "start": ["2025-10-24T05:00Z", "2025-10-24T05:00Z", "2025-10-24T09:00Z", "2020-01-01T00:00Z"],
            "end": ["2025-10-24T06:00Z", "2025-10-24T06:00Z", "2025-10-24T08:00Z", "2020-01-01T00:30Z"],
        }
    )
    found = read_outcomes(table, small(), known={"m1": span})
    reasons = dict(zip(found.rejected["row"], found.rejected["reason"], strict=True))
    assert reasons == {2: "unknown subject 'm9'; expected 'm1'", 3: "ends before it begins"}
    assert any("from before the telemetry of their subject: they label nothing" in n for n in found.notes)
    table = pd.DataFrame(
        {"machine": "m1", "time": ["2025-10-24T05:00Z", "2025-10-24T06:00Z"], "label": ["3", None]}
    )
    found = read_outcomes(table, small(), Told(states={"1": "bad"}), known={"m1": span})
    assert found.rejected["reason"].tolist() == [
        "unknown state '3'; expected one of 'ok', 'bad' (or --map 3=STATE)"
    ]
    assert any("1 rows have no label and say nothing" in n for n in found.notes)


def test_three_rows_and_empty_signals_are_refused_in_words() -> None:
    """Too little for one window, and a signal without any value: the error says which."""
    from aiotkit.lab.assemble import from_frames

    frame = machine(3).assign(machine="m1")
    with pytest.raises(
        DataError, match=r"no instant at which it could have been taken.*full window of 3600 s"
    ):
        from_frames(frame, None, small(), names=("vib.mean",))
    with pytest.raises(DataError, match=r"no value of the telemetry can be used; found 3 × empty"):
        from_frames(frame.assign(vib=np.nan), None, small(), names=("vib.mean",))


def test_a_million_columns_are_refused_at_once(run: Any, tmp_path: Path) -> None:
    """A table on its side is refused before it is read, in a second."""
    import time

    (tmp_path / "wide.csv").write_text(",".join(f"c{i}" for i in range(1_000_000)) + "\n")
    began = time.monotonic()
    code, said = run("ingest", tmp_path / "wide.csv", "--propose")
    assert (code, "too many columns; expected at most 100,000; found 1,000,000" in said) == (2, True), said
    assert time.monotonic() - began < 5


def test_a_header_in_the_middle_is_no_row(run: Any, tmp_path: Path) -> None:
    """Files put together with their headers lose no row and gain none."""
    lines = machine(300).to_csv(index=False).splitlines()
    lines.insert(100, lines[0])
    (tmp_path / "twice.csv").write_text("\n".join(lines))
    path = start(run, tmp_path, tmp_path / "twice.csv")
    code, said = run("ingest", tmp_path / "twice.csv", "--decision", path, "--subject", "m1")
    assert (code, "1  the header once more" in said, "600 of 1 subjects" in said) == (0, True, True), said


def test_made_up_costs_are_said_to_be(run: Any, tmp_path: Path) -> None:
    """Without the two numbers the file is valid, and file and command say that its costs are made up."""
    machine().drop(columns="bad").to_csv(tmp_path / "f.csv", index=False)
    path = tmp_path / "d.yaml"
    code, said = run("init", "own", "--from", tmp_path / "f.csv", "--yes", "--out", path)
    assert (code, "MADE UP" in said) == (0, True)
    assert "THESE COSTS ARE MADE UP" in path.read_text()
    assert run("decision", "check", path)[0] == 0
    path = start(run, tmp_path / ".", tmp_path / "f.csv", "--force")
    assert "MADE UP" not in path.read_text()
    code, said = run("ingest", tmp_path / "f.csv", "--propose", "--write", tmp_path / "e.yaml")
    assert (code, "wrote" in said) == (0, True)
    assert run("decision", "check", tmp_path / "e.yaml")[0] == 0


def test_what_is_proposed_pastes_into_a_decision_file(run: Any, tmp_path: Path) -> None:
    """The fragment is YAML whose blocks replace those of a decision file, and the file still checks."""
    import yaml

    from aiotkit.lab.propose import propose

    machine().assign(mode="a").to_csv(tmp_path / "f.csv", index=False)
    path = start(run, tmp_path, tmp_path / "f.csv")
    document = yaml.safe_load(path.read_text())
    fragment = yaml.safe_load(propose(tmp_path / "f.csv").fragment)
    assert document["signals"] == fragment["signals"]
    path.write_text(yaml.safe_dump(document | fragment))
    assert run("decision", "check", path)[0] == 0


def test_in_a_notebook_it_is_a_line_each() -> None:
    """A decision out of frames, examples with their books, for a mapping of frames too."""
    from aiotkit.lab.quick import decision_from, own_data

    frames = {f"m{i}": machine(seed=i)[["time", "temp", "vib"]] for i in range(3)}
    labels = pd.concat([machine(seed=i)[["time", "bad"]].assign(subject=f"m{i}") for i in range(3)])
    labels = labels.rename(columns={"bad": "fault"})
    decision = decision_from(frames, "own", cost_act=50, cost_miss=900, horizon_s=3600.0)
    own = own_data(frames, labels, decision, names=("vib.mean",))
    assert set(own.examples.rows["subject"]) == {"m0", "m1", "m2"}
    assert len(own.telemetry) == 3
    assert "reports, 0 rejected" in str(own)
    assert set(own.examples.labelled().rows["state"]) == {"healthy", "worn"}


def test_a_list_of_failures_labels_what_came_before_them_in_every_form() -> None:
    """As failures, as rows with a state, or as reports: the day before is worn, the day after is not."""
    from aiotkit.lab.quick import Told, decision_from, own_data

    hours = pd.date_range("2026-03-02", periods=20 * 24, freq="h", tz="UTC")
    heat = np.random.default_rng(1).normal(60, 2, len(hours))
    telemetry = pd.DataFrame({"time": hours, "machine": "c0", "temp_degC": heat})
    failures = pd.DataFrame({"machine": "c0", "failed": hours[[119, 239, 359]]})
    decision = decision_from(telemetry, "own", cost_act=80, cost_miss=900, horizon_s=86_400)
    stated = failures.assign(state="worn")
    ways = [
        own_data(telemetry, failures, decision, told=Told(state="worn")),
        own_data(telemetry, stated, decision),
        own_data(telemetry, stated.rename(columns={"failed": "at", "machine": "subject"}), decision),
    ]
    first, *others = (own.examples.rows[["at_us", "state", "status"]] for own in ways)
    for other in others:
        pd.testing.assert_frame_equal(first, other)
    worn = pd.to_datetime(first.loc[first["state"] == "worn", "at_us"], unit="us", utc=True)
    ahead = [min(t - at for t in failures["failed"] if t >= at) for at in worn]
    assert len(worn) == 6
    assert max(ahead) < pd.Timedelta(days=1)


@pytest.mark.parametrize("data", ["drives", "machine"])
def test_public_data_go_all_the_way(run: Any, datasets: Path, tmp_path: Path, data: str) -> None:
    """Daily snapshots with a label column, a series with labelled spans in JSON: by commands to examples."""
    lake = ("--lake", tmp_path / "lake", "--zone", "UTC")
    if data == "drives":
        file = datasets / "backblaze_toshiba/toshiba_mq01abf050_last10days_raw.csv"
        path = start(run, tmp_path, file)
        assert run("ingest", file, "--decision", path, *lake)[0] == 0
        assert run("outcomes", "import", file, "--decision", path, *lake)[0] == 0
        expected = {"healthy": 4559, "failed": 776}
    else:
        file = datasets / "nab/data/realKnownCause/machine_temperature_system_failure.csv"
        path = start(run, tmp_path, file, "--states", "normal,odd", "--horizon-s", 3600)
        told = ("--decision", path, *lake)
        assert run("ingest", file, *told, "--subject-from", "filename")[0] == 0
        spans = datasets / "nab/labels/combined_windows.json"
        assert run("outcomes", "import", spans, *told, "--entry", file.stem)[0] == 0
        expected = {"normal": 1698, "odd": 192}
    found = examples(tmp_path / "lake", path).labelled()
    counts = found.rows["state"].value_counts().to_dict()
    assert counts == pytest.approx(expected, abs=6)


class Terminal(io.StringIO):
    """Someone who types answers."""

    def isatty(self) -> bool:
        """A terminal."""
        return True


def test_init_asks_for_what_is_open_and_for_two_costs(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal subject, question, states, actions, horizon and the two costs are asked, once each."""
    import yaml

    machine().drop(columns="bad").to_csv(tmp_path / "f.csv", index=False)
    answers = ["pump", "Stop it?", "fine, leaking", "run, stop", "7200", "-80", "80", "500"]
    monkeypatch.setattr("sys.stdin", Terminal("\n".join(answers) + "\n"))
    path = tmp_path / "d.yaml"
    code, said = run("init", "own", "--from", tmp_path / "f.csv", "--out", path)
    assert (code, "'-80' is no cost; expected a number, 0 or more" in said) == (0, True), said
    written = yaml.safe_load(path.read_text())
    assert (written["subject"], written["question"]) == ("pump", "Stop it?")
    assert written["costs"] == {"run": {"fine": 0, "leaking": 500}, "stop": {"fine": 80, "leaking": 80}}
    assert written["outcome"]["horizon_s"] == written["outcome"]["maturity_s"] == 7200
    assert run("decision", "check", path)[0] == 0
