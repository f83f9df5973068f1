"""Tables of one's own in which a row is a window, with its time, its subject and more beside the samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
yaml = pytest.importorskip("yaml")
pytest.importorskip("torch")
pytest.importorskip("deltalake")
pytest.importorskip("typer")

HOURS, SAMPLES = 240, 64


def bursts(bearings: int = 2) -> Any:
    """A burst of 64 samples an hour, of each bearing; it shakes more before it is worn."""
    rng = np.random.default_rng(1)
    frames = []
    for i in range(bearings):
        near = np.clip(((np.arange(HOURS) + 31 * i) % 80 - 60) / 20, 0, None)
        shake = rng.normal(0, 1 + 2 * near[:, None], (HOURS, SAMPLES))
        frame = pd.DataFrame(shake, columns=[f"acc_{j}" for j in range(SAMPLES)]).round(4)
        frame.insert(0, "stamp", pd.date_range("2026-02-01", periods=HOURS, freq="h", tz="UTC").astype(str))
        frame.insert(1, "bearing", f"b{i}")
        frame.insert(2, "rpm", (1500 + rng.normal(0, 30, HOURS)).round(1))
        frame.insert(3, "mode", rng.choice(["eco", "full"], HOURS))
        frames.append(frame.assign(label=np.where(near > 0, "worn", "ok")))
    return pd.concat(frames, ignore_index=True)


def as_lists(frame: Any) -> Any:
    """The same with the samples of a row as one list."""
    samples = frame.filter(like="acc_")
    return frame.drop(columns=samples.columns).assign(acc=list(samples.to_numpy()))


def proposed(run: Any, *words: object) -> dict[str, Any]:
    """What files seem to hold."""
    code, said = run("ingest", *words, "--propose", "--json")
    assert code == 0, said
    found: dict[str, Any] = json.loads(said)
    return found


def took(run: Any, *words: object) -> dict[str, int]:
    """Values kept by name."""
    code, said = run("ingest", *words, "--decision", "b.yaml", "--json")
    assert code == 0, said
    kept: dict[str, int] = json.loads(said)["kept_by_name"]
    return kept


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own database
def test_numbered_columns_that_look_alike_are_a_window(run: Any, tmp_path: Path) -> None:
    """From the file to a candidate: samples, a number a row, words and labels, each as what it is."""
    bursts().to_csv("b.csv", index=False)
    found = proposed(run, "b.csv")
    assert found["shape"] == "window"
    roles = {c["column"]: c["role"] for c in found["columns"]}
    assert roles["acc_63"] == "sample"
    assert (roles["bearing"], roles["rpm"], roles["mode"]) == ("subject", "signal", "choice")
    assert any("64 columns acc… are taken for samples (if not: --shape wide)" in d for d in found["doubts"])
    code, said = run("init", "b", "--from", "b.csv", "--cost-act", 80, "--cost-miss", 900, "--yes", "--json")
    assert code == 0, said
    decision = yaml.safe_load(Path("b.yaml").read_text())
    assert decision["window"] == {"length_s": 1, "every_s": 3600}
    assert decision["outcome"]["horizon_s"] == 3600
    assert decision["signals"]["acc"]["sampling"] == {"kind": "regular", "rate_hz": 64}
    rows = 2 * HOURS
    assert took(run, "b.csv", "--lake", "lake") == {"acc": rows * SAMPLES, "mode": rows, "rpm": rows}
    both = ("--decision", "b.yaml", "--lake", "lake")
    assert run("outcomes", "import", "b.csv", "--label", "label", *both)[0] == 0
    code, said = run("run", "retrain", *both, "--families", "lda", "--in-process", "--json")
    assert code == 0, said


def test_lists_of_samples_are_windows_too(run: Any) -> None:
    """A Parquet file with a list a row is read as the table with a column a sample."""
    bursts().to_csv("b.csv", index=False)
    as_lists(bursts()).to_parquet("b.parquet")
    assert proposed(run, "b.parquet")["fragment"] == proposed(run, "b.csv")["fragment"]
    assert run("init", "b", "--from", "b.parquet", "--yes")[0] == 0
    assert took(run, "b.parquet") == took(run, "b.csv")


def test_lists_of_different_lengths_are_refused() -> None:
    """A row is a window, or it is none."""
    from aiotkit.lab.readers import read_raw

    frame = pd.DataFrame({"stamp": ["2026-01-01"] * 2, "acc": [[1.0, 2.0], [1.0]]})
    with pytest.raises(DataError, match=r"column 'acc' holds lists of different lengths.*found 1 to 2"):
        read_raw(frame)
    missing = pd.DataFrame({"acc": [None, [1.0, 2.0]]})
    assert read_raw(missing).frame.to_numpy().tolist() == [[None, None], [1.0, 2.0]]


def test_columns_called_by_numbers_alone_are_of_the_one_signal(run: Any) -> None:
    """As a frame of an array writes them; rows without time are placed as told."""
    samples = bursts(1).filter(like="acc_")
    samples.columns = range(SAMPLES)
    samples.assign(label=bursts(1)["label"]).to_csv("b.csv", index=False)
    where = ("--start", "2026-01-01T00:00Z", "--every-s", 900, "--subject", "b0")
    found = proposed(run, "b.csv", *where)
    assert found["shape"] == "window"
    assert "length_s: 1, every_s: 900" in found["fragment"]
    assert run("init", "b", "--from", "b.csv", "--every-s", 900, "--yes")[0] == 0
    assert took(run, "b.csv", *where) == {"signal": HOURS * SAMPLES}


def test_many_sensors_are_no_window(run: Any) -> None:
    """Numbered columns of different sizes, a gap in the numbers, or what is told to be wide."""
    frame = bursts(1).drop(columns=["label"])
    frame.to_csv("b.csv", index=False)
    assert proposed(run, "b.csv", "--shape", "wide")["shape"] == "wide"
    sensors = frame.copy()
    sensors[[f"acc_{j}" for j in range(SAMPLES)]] += 50.0 * (np.arange(SAMPLES) % 7)
    sensors.to_csv("sensors.csv", index=False)
    assert proposed(run, "sensors.csv")["shape"] == "wide"
    frame.rename(columns={"acc_20": "acc_200"}).to_csv("gap.csv", index=False)
    assert proposed(run, "gap.csv")["shape"] == "wide"


def test_a_file_of_one_machine_that_says_which(run: Any, tmp_path: Path) -> None:
    """A column that never changes is the subject; not where every file says the same."""
    for i, name in enumerate(("left", "right")):
        bursts(1).assign(bearing=f"b{i}", logger="l7").to_csv(f"{name}.csv", index=False)
    roles = {c["column"]: c["role"] for c in proposed(run, "left.csv")["columns"]}
    assert (roles["bearing"], roles["logger"]) == ("subject", "constant")
    assert "--subject-column bearing" in proposed(run, "*.csv")["command"]
    for name in ("left", "right"):
        bursts(1).assign(bearing="b").to_csv(f"{name}.csv", index=False)
    assert "--subject-from filename" in proposed(run, "*.csv")["command"]


def test_samples_that_a_decision_does_not_expect_are_refused(run: Any) -> None:
    """As many columns as rate and length say, and a signal that has any."""
    bursts(1).to_csv("b.csv", index=False)
    assert run("init", "b", "--from", "b.csv", "--yes")[0] == 0
    bursts(1).drop(columns="acc_63").to_csv("short.csv", index=False)
    code, said = run("ingest", "short.csv", "--decision", "b.yaml")
    assert code == 2
    assert "windows of 'acc'; expected 64 samples (rate × length_s of the decision); found 63 columns" in said
    bursts(1).rename(columns=lambda c: c.replace("acc_", "g_")).to_csv("other.csv", index=False)
    code, said = run("ingest", "other.csv", "--decision", "b.yaml", "--shape", "window")
    assert code == 2
    assert "no columns acc_0, acc_1, … (samples of a window)" in said
    assert took(run, "other.csv", "--column", "acc=g")["acc"] == HOURS * SAMPLES
