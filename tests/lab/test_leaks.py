"""The leak audit: what gives the state away is flagged, what is physics is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiotkit.core.decision import parse_decision

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

HOUR_US = 3_600_000_000
START_US = 1_767_225_600_000_000  # 2026-01-01


def examples(rows: Any, x: Any, columns: list[str], **windows: Any) -> Any:
    """Examples made by hand: everything labelled."""
    from aiotkit.lab.examples import Examples

    said = {"status": "mature", "confidence": 1.0, "in_force": "run", "verify_hit": False, "verify_p": 0.1}
    return Examples(rows.assign(**said, key=""), tuple(columns), np.asarray(x, dtype=np.float32), windows)


def wearing(seed: int = 0, subjects: int = 24, hours: int = 120) -> tuple[Any, Any]:
    """Machines that wear until they are worn, are repaired and wear again: vibration tells it, with noise."""
    rng = np.random.default_rng(seed)
    rows, x = [], []
    for i in range(subjects):
        wear = (rng.uniform(0, 1) + np.arange(hours) / rng.uniform(50, 80)) % 1
        state = np.where(wear > 0.85, "broken", np.where(wear > 0.6, "worn", "ok"))
        at = START_US + np.arange(hours) * 6 * HOUR_US
        rows.append(pd.DataFrame({"subject": f"m{i:02d}", "at_us": at, "state": state}))
        vib = 1 + 3 * wear + rng.normal(0, 0.4, hours)
        x.append(np.c_[vib, rng.normal(0, 1, (hours, 3)), rng.gamma(2, 1, hours)])
    return pd.concat(rows, ignore_index=True), np.concatenate(x)


NAMES = ["vib.rms", "a.mean", "b.mean", "c.mean", "load.max"]


def severities(found: Any) -> dict[str, str]:
    """Check -> severity."""
    return {f.name: f.severity for f in found.findings}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_honest_data_pass_without_a_flag(guard: Any, seed: int) -> None:
    """Machines that wear and are repaired at their own times raise nothing, whatever the seed."""
    from aiotkit.lab.leaks import audit

    rows, x = wearing(seed)
    found = audit(examples(rows, x, NAMES), guard, seed=seed)
    assert found.passed
    assert set(severities(found).values()) == {"fine"}
    assert found.columns["column"].iloc[0] == "vib.rms"


def two_states(document: dict[str, Any]) -> Any:
    """A decision between ok and broken."""
    document["states"] = {"ok": {}, "broken": {}}
    document["costs"] = {"run": {"ok": 0, "broken": 900}, "slow": {"ok": 60, "broken": 60}}
    for source in document["outcome"]["sources"].values():
        source["reports"] = ["broken"]
    return parse_decision(document)


def test_a_model_that_recognises_subjects_is_told_from_one_that_knows_states(
    document: dict[str, Any],
) -> None:
    """Subjects with a fingerprint and one state each: the shuffled score is high, the grouped one is not."""
    from aiotkit.lab.leaks import audit

    decision, rng = two_states(document), np.random.default_rng(1)
    rows, _ = wearing(1, subjects=60, hours=20)
    rows["state"] = np.repeat(rng.permutation(["ok", "broken"] * 30), 20)
    x = np.repeat(rng.normal(0, 1, (60, 5)), 20, axis=0) + rng.normal(0, 0.02, (1200, 5))
    found = audit(examples(rows, x, NAMES), decision, seed=1)
    assert severities(found)["grouping"] == "suspect"
    assert found.scores["row-shuffled folds"] > 0.95
    assert found.scores["folds used"] < 0.7
    assert "Report only figures with subjects kept apart" in str(found.flagged[0])


def retired(seed: int = 0) -> tuple[Any, Any]:
    """Twelve last days of each subject: the healthy all end on one date, the failing anywhere in the year."""
    rng = np.random.default_rng(seed)
    rows, x = [], []
    for i in range(90):
        bad = i % 3 == 0
        last = rng.integers(20, 350) if bad else 364
        day = last - np.arange(12)[::-1]
        rows.append(
            pd.DataFrame(
                {
                    "subject": f"d{i:02d}",
                    "at_us": START_US + day * 24 * HOUR_US,
                    "state": "broken" if bad else "ok",
                }
            )
        )
        hours = 24.0 * day + rng.uniform(0, 500)
        x.append(np.c_[hours, rng.normal(0, 1, (12, 3)) + 0.3 * bad])
    return pd.concat(rows, ignore_index=True), np.concatenate(x)


def test_a_calendar_leak_and_the_counter_that_brings_it_in_do_not_pass(document: dict[str, Any]) -> None:
    """Rows of one state end on one date: the date tells it, the hour counter carries it; both are leaks."""
    from aiotkit.lab.leaks import audit

    decision = two_states(document)
    rows, x = retired()
    found = audit(examples(rows, x, ["hours.last", "a.mean", "b.mean", "c.mean"]), decision, seed=3)
    assert not found.passed
    assert severities(found)["calendar"] == severities(found)["counter"] == "leak"
    counter = next(f for f in found.findings if f.name == "counter")
    assert counter.columns == ("hours.last",)
    assert counter.figures["grouped_without"] < found.scores["folds used"]
    without = audit(examples(rows, x[:, 1:], ["a.mean", "b.mean", "c.mean"]), decision, seed=3)
    assert without.passed
    assert severities(without)["calendar"] == "suspect"


def test_a_counter_on_honest_dates_is_only_mentioned(guard: Any) -> None:
    """Operating hours where states come at all dates pass, with a word."""
    from aiotkit.lab.leaks import audit

    rows, x = wearing()
    hours = (rows["at_us"].to_numpy() - START_US)[:, None] / HOUR_US
    found = audit(examples(rows, np.c_[x, hours], [*NAMES, "hours.last"]), guard, seed=0)
    assert found.passed
    assert severities(found)["counter"] == "suspect"
    assert severities(found)["calendar"] == "fine"


@pytest.mark.parametrize("kind", ["code", "absence"])
def test_the_label_in_disguise_does_not_pass(guard: Any, kind: str) -> None:
    """A column with one value a state, or one that is filled in only where it broke, is a leak by name."""
    from aiotkit.lab.leaks import audit

    rows, x = wearing()
    broken = (rows["state"] == "broken").to_numpy()
    code = rows["state"].map({"ok": 3.0, "worn": 1.0, "broken": 7.0}).to_numpy()
    filled = np.where(broken, np.random.default_rng(0).normal(0, 1, len(rows)), np.nan)
    extra = code if kind == "code" else filled
    found = audit(examples(rows, np.c_[x, extra], [*NAMES, "repair.last"]), guard, seed=0)
    worst = found.findings[0]
    assert (worst.name, worst.severity, worst.columns) == ("giveaway", "leak", ("repair.last",))
    assert not found.passed


def test_a_sensor_that_tells_the_state_is_named_but_passes(guard: Any) -> None:
    """One very good measurement may be physics: it is named, and a person decides."""
    from aiotkit.lab.leaks import audit

    rows, x = wearing()
    x[:, 1] = rows["state"].map({"ok": 1.0, "worn": 4.0, "broken": 9.0}) + x[:, 2] * 0.1
    found = audit(examples(rows, x, NAMES), guard, seed=0)
    giveaway = next(f for f in found.findings if f.name == "giveaway")
    assert (giveaway.severity, giveaway.columns) == ("suspect", ("a.mean",))
    assert found.passed


@pytest.mark.parametrize("kind", ["filled in for the state", "a fixed value for the state"])
def test_a_giveaway_is_found_among_many_columns(document: dict[str, Any], kind: str) -> None:
    """Neither has an order that a rank would see, and it comes last of a hundred."""
    from aiotkit.lab.leaks import audit

    rows, _ = wearing()
    rows["state"] = rows["state"].where(rows["state"] == "broken", "ok")
    rng = np.random.default_rng(4)
    x = rng.normal(size=(len(rows), 100)).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    bad = (rows["state"] == "broken").to_numpy()
    x[:, 99] = np.where(bad, np.float32(0.07), rng.normal(size=len(rows)))
    if kind.startswith("filled"):
        x[:, 99] = np.where(bad, rng.normal(size=len(rows)), np.nan)
    names = [f"s{i}.mean" for i in range(100)]
    found = audit(examples(rows, x, names), two_states(document), seed=1)
    (giveaway,) = [f for f in found.findings if f.name == "giveaway"]
    assert giveaway.severity == ("leak" if kind.startswith("filled") else "suspect")
    assert "s99.mean" in giveaway.words


def test_folds_that_share_outcomes_do_not_pass(guard: Any) -> None:
    """Handed shuffled folds, the audit says that training rows lie within one horizon of test rows."""
    from aiotkit.lab.leaks import audit

    rows, x = wearing()
    part = np.random.default_rng(0).permutation(len(rows)) % 3
    shuffled = [(np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(3)]
    found = audit(examples(rows, x, NAMES), guard, seed=0, folds=shuffled)
    assert (found.findings[0].name, found.findings[0].severity) == ("overlap", "leak")
    assert "Make folds by subject" in found.findings[0].words


def test_states_measured_in_different_ways_are_flagged(document: dict[str, Any]) -> None:
    """Windows of one state that repeat each sample (a lower rate, held) are found by that alone."""
    from aiotkit.lab.leaks import audit

    decision, rng = two_states(document), np.random.default_rng(2)
    rows, x = wearing(2, subjects=40, hours=20)
    rows["state"] = np.repeat(rng.permutation(["ok", "broken"] * 20), 20)
    vib = rng.normal(0, 1, (len(rows), 64)).astype(np.float32)
    slow = (rows["state"] == "broken").to_numpy()
    vib[slow] = np.repeat(vib[slow, ::4], 4, axis=1)
    found = audit(examples(rows, x, NAMES, vib=vib), decision, seed=0)
    sampling = next(f for f in found.findings if f.name == "sampling")
    assert sampling.severity == "suspect"
    assert "how often a sample of 'vib' repeats the one before alone tells" in sampling.words


def test_rows_copied_between_subjects_are_found(guard: Any) -> None:
    """A machine that is there twice under two names is a leak over subject folds."""
    from aiotkit.lab.leaks import audit

    rows, x = wearing(subjects=12)
    twin = rows["subject"] == "m03"
    rows = pd.concat([rows, rows[twin].assign(subject="m03-old")], ignore_index=True)
    x = np.concatenate([x, x[twin.to_numpy()]])
    found = audit(examples(rows, x, NAMES), guard, seed=0)
    copies = next(f for f in found.findings if f.name == "duplicates")
    assert (copies.severity, copies.figures["share"]) == ("leak", pytest.approx(2 / 13))


@pytest.mark.parametrize("spoil", ["one class", "three rows", "no columns", "horizon"])
def test_too_little_to_audit_does_not_pass_and_says_so(document: dict[str, Any], spoil: str) -> None:
    """A gate never passes for lack of data: one class, three rows, no columns, one long horizon."""
    from aiotkit.lab.leaks import audit

    rows, x = wearing(subjects=1)
    if spoil == "one class":
        rows["state"] = "ok"
    if spoil == "three rows":
        rows, x = rows[:3], x[:3]
    if spoil == "horizon":
        document["outcome"] |= {"horizon_s": 1e8, "maturity_s": 1e8}
    x, names = (x[:, :0], []) if spoil == "no columns" else (x, NAMES)
    found = audit(examples(rows, x, names), parse_decision(document), seed=0)
    assert not found.passed
    assert found.findings[0].severity == "unchecked"
    assert found.table["check"].tolist() == ["data"]


def test_hostile_columns_are_survived(guard: Any) -> None:
    """All-unknown, constant, infinite and very many columns change nothing and take no time."""
    from aiotkit.lab.leaks import audit

    rows, x = wearing(subjects=12)
    hostile = np.c_[x, np.full(len(x), np.nan), np.ones(len(x)), np.where(x[:, 0] > 3, np.inf, -np.inf)]
    wide = np.c_[hostile, np.random.default_rng(0).normal(0, 1, (len(x), 80))]
    names = [*NAMES, "e.mean", "f.mean", "g.mean", *(f"n{i}.mean" for i in range(80))]
    found = audit(examples(rows, wide, names), guard, seed=0)
    assert found.passed
    assert len(found.columns) == 88


def test_disks_of_one_year_show_the_calendar_the_counters_and_the_grouping(
    datasets: Path, document: dict[str, Any]
) -> None:
    """On real disk data with known leaks: dates and hour counters leak, shuffled folds flatter."""
    from aiotkit.lab.leaks import audit

    f = pd.read_csv(datasets / "backblaze_toshiba" / "toshiba_mq01abf050_last10days_raw.csv")
    document["outcome"] |= {"horizon_s": 864_000, "maturity_s": 864_000}
    decision = two_states(document)
    stamps = pd.to_datetime(f["date"], utc=True).astype("datetime64[us, UTC]").astype("int64")
    state = np.where(f["failure"] == 1, "broken", "ok")
    rows = pd.DataFrame({"subject": f["serial_number"], "at_us": stamps, "state": state})
    raw = [c for c in f.columns if c.startswith("smart")]
    given = examples(rows, f[raw].to_numpy(), [c.removesuffix("_raw") + ".last" for c in raw])
    found = audit(given, decision, seed=0)
    assert not found.passed
    said = severities(found)
    assert (said["calendar"], said["counter"], said["grouping"]) == ("leak", "leak", "suspect")
    counter = next(f for f in found.findings if f.name == "counter")
    assert set(counter.columns) == {"smart_9.last", "smart_222.last"}
    assert found.scores["row-shuffled folds"] > 0.97
    assert counter.figures["grouped_without"] < found.scores["folds used"] < 0.85


def test_a_column_that_only_some_subjects_have_is_no_crash(guard: Any) -> None:
    """A sensor that only one machine has is empty in the folds that leave this machine out."""
    from aiotkit.lab.leaks import audit

    rows, x = wearing(subjects=6)
    only = np.where(rows["subject"] == "m00", x[:, 1], np.nan)
    found = audit(examples(rows, np.c_[x, only], [*NAMES, "extra.mean"]), guard, seed=0)
    assert "vib.rms" in set(found.columns["column"])
