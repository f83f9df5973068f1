"""Telemetry from files: nothing is dropped silently, nothing unbelievable is kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotkit.core.decision import parse_decision
from aiotkit.core.errors import DataError, LakeError

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")
HOUR = "2026-05-01T10"


def take(source: Any, decision: Any, **options: Any) -> Any:
    from aiotkit.lab.ingest import ingest
    from aiotkit.lab.instants import Clock
    from aiotkit.lab.layout import Options

    clock = Clock(options.pop("zone", None), options.pop("ambiguous", "quarantine"))
    return ingest(source, decision, Options(clock=clock, **options))


def wide(n: int = 30) -> Any:
    at = pd.date_range("2026-05-01T10:00:00Z", periods=n, freq="10s")
    return pd.DataFrame({"time": at, "pump": "p1", "vib": np.linspace(1, 2, n), "oil": 40.0, "mode": "idle"})


def balanced(found: Any) -> None:
    r = found.report
    assert r.rows_in == r.rows_kept + r.rows_quarantined
    assert (r.rows_kept, r.rows_quarantined) == (len(found.rows), len(found.quarantined))
    assert sum(r.reasons.values()) == r.rows_quarantined
    assert bool((found.quarantined["reason"] != "").all())


CELLS = st.sampled_from(
    ["1.5", "2", "-3e1", "", "nan", "x", "inf", "-inf", "999", "1e400", "0x10", "True", " 7 "]
)
TIMES = st.sampled_from(
    [f"{HOUR}:00:{s:02d}Z" for s in range(0, 60, 10)] + [f"{HOUR}:03:00", "", "never", "2026-03-29 02:30"]
)
LINES = st.tuples(
    TIMES,
    st.sampled_from(["p1", "p2", ""]),
    CELLS,
    CELLS,
    st.sampled_from(["idle", "production", "party", ""]),
)


@settings(max_examples=25)
@given(st.data())
def test_every_value_is_kept_or_quarantined(
    tmp_path_factory: pytest.TempPathFactory, loose: Any, data: st.DataObject
) -> None:
    """For any mixture of lines: values in = values kept + values quarantined; blank ones are said."""
    lines = data.draw(st.lists(LINES, max_size=25))
    broken = data.draw(st.lists(st.sampled_from(["a,b", "1,2,3,4,5,6,7", ""]), max_size=3))
    good = (f"{HOUR}:00:00Z", "p9", "1", "1", "idle")
    text = "\n".join(["time,pump,vib,oil,mode", ",".join(good), *(",".join(x) for x in lines), *broken])
    path = tmp_path_factory.getbasetemp() / "mixture.csv"
    path.write_text(text + "\n", encoding="utf-8")
    found = take(path, loose, zone="Europe/Berlin")
    balanced(found)
    malformed = sum(line != "" for line in broken)
    blank = len(broken) - malformed + sum(not any(line) for line in lines)
    assert found.report.file_rows == 1 + len(lines) + len(broken) - blank
    assert found.report.rows_in == 3 * (1 + sum(any(line) for line in lines)) + malformed
    assert any(f"{blank} rows hold nothing" in note for note in found.report.notes) == (blank > 0)
    kept = found.rows
    assert bool(kept["value"].notna().where(kept["name"] != "mode", kept["word"].notna()).all())
    assert bool(kept.loc[kept["name"] == "vib", "value"].between(-50, 50).all())
    assert not kept.duplicated(["subject", "name", "at_us"]).any()


@pytest.fixture(scope="module")
def loose() -> Any:
    """The decision with signals that come when they change, so that no rate is judged."""
    changing = {"kind": "on_change", "max_age_s": 60}
    spec = {"unit": "mm/s", "sampling": changing, "range": [-50, 50]}
    return parse_decision(
        {
            "format": 1, "id": "x", "revision": 1, "subject": "pump", "question": "?", "site": {"name": "x"},
            "states": {"ok": {}, "bad": {}}, "actions": {"run": {}, "stop": {}}, "costs": "unknown",
            "signals": {"vib": spec, "oil": spec | {"range": [-1e6, 1e6]}},
            "context": {"mode": {"values": ["idle", "production"], "max_age_s": 60}},
            "window": {"length_s": 1, "every_s": 1}, "needs": {"deadline_ms": 1},
            "rule": [{"otherwise": "run"}], "recovery": "run",
            "outcome": {"horizon_s": 1, "maturity_s": 1, "sources": {"a": {"reports": ["ok", "bad"]}}},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "reason"),
    [("", "empty"), ("nan", "empty"), ("abc", "not a number"),
     ("1,5", "not a number; is the decimal sign ','? Say so"),
     ("inf", "infinite"),
     ("51", "outside its range [-50, 50] mm/s"), (True, "not a number")],
)  # fmt: skip
def test_a_value_that_cannot_be_believed_names_row_and_reason(guard: Any, cell: object, reason: str) -> None:
    """The quarantine says which row, which signal, what stood there and why it was not believed."""
    frame = wide().astype({"vib": object})
    frame.loc[6, "vib"] = cell
    found = take(frame, guard)
    balanced(found)
    bad = found.quarantined.iloc[0]
    assert (bad["row"], bad["name"], bad["reason"], bad["content"]) == (7, "vib", reason, str(cell))
    assert len(found.quarantined) == 1


def test_lines_with_other_columns_are_quarantined_by_number(guard: Any, tmp_path: Path) -> None:
    """A broken line costs itself, with its number and text, and shifts nobody else's number."""
    lines = wide(20).assign(time=lambda f: f["time"].astype(str)).to_csv(index=False).splitlines()
    lines.insert(3, "torn,line")
    lines[10] = lines[10].replace("40.0", "hot")
    (tmp_path / "f.csv").write_text("\n".join(lines))
    found = take(tmp_path / "f.csv", guard)
    balanced(found)
    rows = found.quarantined[["row", "reason", "content"]].to_numpy().tolist()
    assert rows == [[3, "malformed: 2 columns instead of 5", "torn,line"], [10, "not a number", "hot"]]


def test_units_become_the_decisions(guard: Any) -> None:
    """An inch per second is 25.4 mm/s, 40 °F is 4.4 °C, and the report says so."""
    found = take(wide(), guard, units={"vib": "in/s", "oil": "[degF]"})
    oil = found.rows[found.rows["name"] == "oil"]
    assert oil["value"].iloc[0] == pytest.approx((40 - 32) / 1.8)
    vib = found.rows[found.rows["name"] == "vib"]
    assert vib["value"].iloc[0] == pytest.approx(25.4)
    assert set(found.rows["unit"].dropna()) == {"mm/s", "Cel"}
    assert any("[in_i]/s converted to mm/s ('in/s' read as '[in_i]/s')" in n for n in found.report.notes)


@pytest.mark.parametrize(
    ("rename", "options", "words"),
    [
        ({"vib": "vibr"}, {}, "column 'vib' is missing .signal of the decision.*[Dd]id you mean 'vibr'"),
        ({"time": "clock"}, {"only": ["vib"]}, "no column is called time"),
        ({"pump": "serial"}, {}, "which pump do the rows belong to"),
        ({}, {"subject_column": "pmp"}, "column 'pmp' .subject: which pump. is missing.*did you mean 'pump'"),
        ({}, {"columns": {"vibb": "vib"}}, "no such signal or context.*did you mean 'vib'"),
        ({}, {"units": {"oil": "mm/s"}}, "does not convert to 'Cel'"),
        ({}, {"units": {"mode": "1"}}, "holds words, not numbers"),
        ({}, {"shape": "cube"}, "one of wide, long, window"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_a_hint(
    guard: Any, rename: dict[str, str], options: dict[str, Any], words: str
) -> None:
    """What a whole file gets wrong stops it, naming the column and the likely one."""
    frame = wide().assign(time=lambda f: f["time"].astype(str)).rename(columns=rename)
    with pytest.raises(DataError, match=words):
        take(frame, guard, **options)


def test_a_wrong_rate_is_refused_with_both_figures(guard: Any) -> None:
    """A rate declared wrongly would make every window mean something else."""
    frame = wide()
    frame["time"] = pd.date_range("2026-05-01T10:00:00Z", periods=len(frame), freq="1s")
    with pytest.raises(DataError, match=r"signal 'vib': sampling rate; expected 0.1 Hz ± 5% .*found 1 Hz"):
        take(frame, guard)
    assert take(frame, guard, only=["oil"]).report.rows_kept == 30


def test_one_subject_of_another_rate_is_quarantined_alone(guard: Any) -> None:
    """Mixed rates under one name poison only their own series."""
    other = wide().assign(pump="p2", time=pd.date_range("2026-05-01T10:00:00Z", periods=30, freq="5s"))
    found = take(pd.concat([wide(), other]), guard, only=["vib"])
    balanced(found)
    assert found.report.reasons == {"rate 0.2 Hz instead of 0.1 Hz": 30}
    assert set(found.rows["subject"]) == {"p1"}


def test_gaps_are_counted_not_filled(guard: Any) -> None:
    """A hole in a regular signal is reported with its length, and no value is invented."""
    found = take(wide(60).drop(index=range(20, 30)), guard, only=["vib"])
    rate = found.report.rates[0]
    assert (rate.gaps, rate.longest_gap_s, found.report.rows_kept) == (1, 110.0, 50)


def test_rows_out_of_order_are_sorted_and_reported(guard: Any) -> None:
    """Order is restored, and how many values stood wrong is said."""
    frame = wide()
    swapped = pd.concat([frame.iloc[:10], frame.iloc[11:12], frame.iloc[10:11], frame.iloc[12:]])
    found = take(swapped, guard, only=["vib"])
    assert found.report.out_of_order == 1
    assert found.rows["at_us"].is_monotonic_increasing
    assert found.rows["value"].is_monotonic_increasing


def test_doubles_that_agree_leave_one_and_those_that_differ_leave_none(guard: Any) -> None:
    """Of two equal values the first stays; of two different ones nobody knows which is true."""
    frame = wide()
    found = take(pd.concat([frame, frame.iloc[[3]], frame.iloc[[5]].assign(vib=9.9)]), guard, only=["vib"])
    balanced(found)
    assert found.report.reasons == {"several values for one instant": 2, "duplicate of an earlier row": 1}
    assert found.report.rows_kept == 29


def test_the_night_of_two_equal_hours_is_quarantined_unless_told(guard: Any) -> None:
    """Six of forty local times occur twice: quarantined with count and reason, or settled when asked."""
    at = pd.date_range("2026-10-24T22:00:00Z", periods=400, freq="1min").tz_convert("Europe/Berlin")
    frame = pd.DataFrame(
        {"time": at.tz_localize(None).astype(str), "pump": "p1", "oil": np.arange(400) % 90.0}
    )
    refused = take(frame, guard, only=["oil"], zone="Europe/Berlin")
    balanced(refused)
    assert refused.report.reasons == {"local time occurs twice in Europe/Berlin (clocks were set back)": 120}
    told = take(frame, guard, only=["oil"], zone="Europe/Berlin", ambiguous="infer-order")
    assert told.report.rows_quarantined == 0
    assert bool((np.diff(told.rows["at_us"]) == 60_000_000).all())
    with pytest.raises(DataError, match=r"times have no zone.*Europe/Berlin"):
        take(frame, guard, only=["oil"])


def test_long_data_gives_the_same_rows_as_wide(guard: Any) -> None:
    """The shape of a file makes no difference to what is read from it."""
    frame = wide()
    long = frame.melt(id_vars=["time", "pump"], var_name="tag", value_name="reading")
    long = long.rename(columns={"reading": "value"})
    same = ["subject", "name", "at_us", "value", "word", "unit"]
    left, right = take(frame, guard).rows[same], take(long, guard).rows[same]
    pd.testing.assert_frame_equal(left, right)
    strange = pd.concat([long, long.iloc[[0]].assign(tag="ghost")])
    assert take(strange, guard).report.reasons == {"unknown name 'ghost'": 1}


def test_a_row_a_window_becomes_samples_at_their_instants(guard: Any, tmp_path: Path) -> None:
    """Ten columns at 0.1 Hz lie ten seconds apart, row after row; another count of columns is refused."""
    rows = np.arange(30).reshape(3, 10)
    (tmp_path / "vib.txt").write_text("\n".join("\t".join(map(str, r)) for r in rows))
    given = {"only": ["vib"], "subject": "p1", "start": "2026-01-01T00:00:00Z", "every_s": 100.0}
    found = take(tmp_path / "vib.txt", guard, **given)
    assert found.rows["value"].tolist() == list(range(30))
    assert set(np.diff(found.rows["at_us"])) == {10_000_000}
    named = pd.DataFrame(rows, columns=[f"vib_{i}" for i in range(10)]).assign(
        pump="p1", time=["2026-01-01T00:00:00Z", "2026-01-01T00:01:40Z", "2026-01-01T00:03:20Z"]
    )
    assert take(named, guard, shape="window", only=["vib"]).rows["value"].tolist() == list(range(30))
    (tmp_path / "vib.txt").write_text("1\t2\t3\n4\t5\t6\n")
    with pytest.raises(DataError, match=r"expected 10 samples.*found 3 columns"):
        take(tmp_path / "vib.txt", guard, **given)


def test_parquet_and_csv_give_the_same_rows(guard: Any, tmp_path: Path) -> None:
    """Typed and written values are read alike, to the last bit."""
    frame = wide().assign(vib=np.random.default_rng(1).normal(size=30))
    frame.to_parquet(tmp_path / "f.parquet")
    frame.to_csv(tmp_path / "f.csv", index=False)
    pd.testing.assert_frame_equal(
        take(tmp_path / "f.parquet", guard).rows, take(tmp_path / "f.csv", guard).rows
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "empty"), (b"time,vib,vib\n", "two columns are named 'vib'"), (b"time,\x81\x9d\n1,2\n", "UTF-8"),
     (b"PAR1nonsense", "not a Parquet file")],
)  # fmt: skip
def test_files_that_cannot_be_read_say_why(guard: Any, tmp_path: Path, data: bytes, words: str) -> None:
    """Empty, doubled, not text, not Parquet: each has its own sentence."""
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(DataError, match=words):
        take(tmp_path / "f", guard)


def test_what_is_read_reaches_the_lake_once(guard: Any, plant: Any) -> None:
    """Rows and quarantine arrive, and the same values a second time are refused."""
    frame = wide()
    frame.loc[0, "vib"] = math.nan
    found = take(frame, guard)
    found.to_lake(plant.lake, ingested_us=1, device="d1")
    assert plant.lake.read("telemetry").num_rows == found.report.rows_kept
    held = plant.lake.read("quarantine").to_pylist()
    assert [(r["row"], r["reason"]) for r in held] == [(1, "vib: empty")]
    with pytest.raises(LakeError, match="in the lake already"):
        found.to_lake(plant.lake, ingested_us=2)
    assert plant.lake.read("telemetry").num_rows == found.report.rows_kept


def test_real_machine_data_balance(document: dict[str, Any], datasets: Path) -> None:
    """A public file of machine temperatures: every row is accounted for, its doubled hours are found."""
    document["signals"] = {
        "value": {"unit": "[degF]", "sampling": {"kind": "regular", "rate_hz": 1 / 300}, "range": [0, 200]}
    }
    document["rule"][0]["when"]["field"] = "value.max"
    document["gates"] = []
    document["window"] = {"length_s": 3600, "every_s": 3600}
    path = datasets / "nab/data/realKnownCause/machine_temperature_system_failure.csv"
    found = take(path, parse_decision(document), subject="m", zone="UTC", only=["value"])
    balanced(found)
    assert found.report.file_rows == 22_695
    assert found.report.reasons == {"several values for one instant": 24}


def test_old_line_ends_are_read_and_an_open_quote_is_refused(tmp_path: Path, loose: Any) -> None:
    """CR alone ends a line; a quote that is not closed never swallows rows."""
    text = f"time,pump,oil\n{HOUR}:00:00Z,p1,20\n{HOUR}:00:10Z,p1,21\n{HOUR}:00:20Z,p1,22\n"
    path = tmp_path / "a.csv"
    path.write_bytes(text.replace("\n", "\r").encode())
    assert take(path, loose, only=("oil",)).report.rows_kept == 3
    path.write_text(text.replace("p1", '"p1', 2), encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2: .*quote"):
        take(path, loose, only=("oil",))


def test_years_without_machines_are_quarantined(loose: Any) -> None:
    """Before 1970, after 2100, and the future where now is known."""
    from aiotkit.lab.ingest import ingest
    from aiotkit.lab.layout import Options

    times = ["1600-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "2200-01-01T00:00:00Z"]
    frame = pd.DataFrame({"time": times, "pump": "p1", "oil": 20.0})
    assert set(take(frame, loose, only=("oil",)).report.reasons) == {"time before 1970", "time after 2100"}
    found = ingest(frame, loose, Options(only=("oil",)), now_us=1_780_000_000_000_000)
    balanced(found)
    assert found.report.reasons == {"time more than a day in the future": 2, "time before 1970": 1}
