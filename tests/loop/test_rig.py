"""A recorded rig goes through real devices; a broken record is refused with its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("deltalake")
pytestmark = pytest.mark.desk

from aiotkit.core.errors import DataError  # noqa: E402
from aiotkit.loop.rig import PARTS, read_rig, rig_decision  # noqa: E402
from aiotkit.loop.rig_demo import rig_words, run_rig_demo  # noqa: E402
from aiotkit.loop.rig_learning import by_the_rule, first_seen, in_time_order, rig_examples  # noqa: E402
from aiotkit.loop.rig_learning import fared as fared_of  # noqa: E402

SENSORS = sorted({s for part in PARTS for s in rig_decision(part).signals})
RECORD = Path(__file__).resolve().parents[3] / "shared" / "datasets" / "hydraulic_uci"
CYCLES = 60


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A small record in the layout of the real one: efficiency falls with the cooler's condition."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "record"
    (folder / "native_1hz").mkdir(parents=True)
    cooler = np.repeat([3, 20, 100], CYCLES // 3)
    valve, pump, accumulator = (
        rng.choice(c, CYCLES) for c in ([73, 80, 90, 100], [0, 1, 2], [90, 100, 115, 130])
    )
    for sensor in SENSORS:
        low, high = next(d.signals[sensor].range for d in map(rig_decision, PARTS) if sensor in d.signals)
        level = low + (high - low) * (0.2 + 0.3 * cooler[:, None] / 100)
        values = level + rng.normal(0, (high - low) / 100, (CYCLES, 60))
        np.savetxt(folder / "native_1hz" / f"{sensor}.txt", values, delimiter="\t", fmt="%.4f")
    profile = np.column_stack([cooler, valve, pump, accumulator, np.zeros(CYCLES)])
    np.savetxt(folder / "profile.txt", profile, delimiter="\t", fmt="%d")
    return folder


def silent(_stage: str, _share: float) -> None:
    """Nobody is told."""


def test_a_small_record_goes_round(record: Path, tmp_path: Path) -> None:
    """Four devices decide about every cycle, by rule and in rounds; all arrives, replays and is priced."""
    summary = run_rig_demo(record, tmp_path / "run", silent)
    assert summary["outage"] == {
        "decided": 4 * CYCLES, "delivered": 4 * CYCLES, "gaps": 0, "lost": 0, "duplicates": 0,
    }  # fmt: skip
    assert summary["replayed"] == {"checked": 4 * CYCLES, "identical": 4 * CYCLES}
    for part in PARTS:
        money = {name: row["money"] for name, row in summary["parts"][part]["policy_money"].items()}
        assert money["oracle"] <= min(money.values()) + 1e-9
        assert money["hindsight_threshold"] <= money["tuned_threshold"] + 1e-9
        rounds = summary["parts"][part]["rounds"]
        assert [row["cycles"] for row in rounds] == [[0, 40], [40, 60]]
        assert [row["labelled"] for row in rounds] == [0, 30]
        assert rounds[0]["policy"] == "written rule"
    assert summary["learning"]["identical"] == summary["learning"]["checked"] == 4 * CYCLES
    seen = {one["state"]: one for one in summary["parts"]["cooler"]["first_seen"]}
    assert [seen[s]["cycle"] for s in ("failing", "reduced", "full")] == [0, 20, 40]
    assert seen["full"]["by"] == "lda"
    assert seen["full"]["novel_share"] == seen["full"]["asked_share"] == 1.0
    said = rig_words(summary, tmp_path)
    assert "100% of 10 asked" in said
    assert "written rule      tuned threshold  hindsight threshold" in said
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


@pytest.mark.skipif(not RECORD.is_dir(), reason="the real record is not beside this checkout")
def test_the_written_rules_beat_constant_actions_on_the_real_record() -> None:
    """Over the four parts the rules cost less than each one's best constant action, and more than oracles."""
    decisions = {part: rig_decision(part) for part in PARTS}
    rig = read_rig(RECORD, {"CE", "CP", "SE", "FS1"}).first(600)
    fares = []
    for part, decision in decisions.items():
        few = {name: s for name, s in decision.signals.items() if name in rig.sensors}
        small = decision.model_copy(update={"signals": few})
        fares.append(fared_of(by_the_rule(rig_examples(rig, part, small, "plain"), small), small))
    total = {name: sum(fare[name] for fare in fares) for name in ("oracle", "money", "best_constant")}
    assert total["oracle"] < total["money"] < total["best_constant"]


@pytest.mark.skipif(not RECORD.is_dir(), reason="the real record is not beside this checkout")
def test_states_the_valve_never_had_are_asked_about_on_the_real_record() -> None:
    """In strict time order, each of three new states is called novel in at least half of its first cycles."""
    decision = rig_decision("valve")
    rig = read_rig(RECORD, set(decision.signals)).first(400)
    examples = rig_examples(rig, "valve", decision)
    seen = first_seen(in_time_order(examples, decision, ("lda",), blocks=2, folds=3, seed=0))
    assert [one["state"] for one in seen] == ["optimal", "failing", "severe_lag", "small_lag"]
    for one in seen[1:]:
        assert one["by"] == "lookout"
        assert one["novel_share"] == one["asked_share"] >= 0.5


def test_a_missing_sensor_is_named(record: Path) -> None:
    """The file that is not there is named, with where it was looked for."""
    (record / "native_1hz" / "SE.txt").unlink()
    with pytest.raises(DataError, match=r"sensor SE.*SE.txt or SE.csv"):
        read_rig(record, {"SE"})


def test_a_folder_that_is_no_record_is_refused(tmp_path: Path) -> None:
    """An empty folder ends in a sentence, not in a traceback."""
    with pytest.raises(DataError, match=r"profile.txt.*no such file"):
        read_rig(tmp_path, {"SE"})


def test_a_row_too_short_is_refused(record: Path) -> None:
    """Every cycle must have its sixty values."""
    path = record / "native_1hz" / "SE.txt"
    path.write_text("\n".join(line.rsplit("\t", 1)[0] for line in path.read_text().splitlines()))
    with pytest.raises(DataError, match="60 rows of 60 values"):
        read_rig(record, {"SE"})


def test_an_unknown_condition_is_refused(record: Path) -> None:
    """A condition code that means nothing is named."""
    path = record / "profile.txt"
    path.write_text(path.read_text().replace("100\t", "55\t", 1))
    with pytest.raises(DataError, match=r"condition of the .*found \[55\]"):
        read_rig(record, {"SE"})


def test_words_between_the_numbers_are_refused(record: Path) -> None:
    """A cell that is no number is told."""
    path = record / "native_1hz" / "SE.txt"
    path.write_text(path.read_text().replace("\t", "\tbroken\t", 1))
    with pytest.raises(DataError, match=r"SE.txt.*numbers separated by tabs"):
        read_rig(record, {"SE"})
