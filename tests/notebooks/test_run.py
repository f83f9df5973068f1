"""Every notebook runs from its first to its last cell and leaves what it promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from worlds.small_plant import decision_file, small_lake

from aiotkit.core.canonical import digest

pytest.importorskip("papermill")
pytestmark = pytest.mark.desk

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "tests" / "data" / "bearing" / "decision.yaml"
#: notebook, parameters, files it must leave
RUNS = [
    ("10_define_decision", {}, ["define-decision/decision.json", "define-decision/trial.csv"]),
    ("10_define_decision", {"decision_path": str(EXAMPLE), "output_folder": "mine"}, ["mine/decision.json"]),
]
#: notebooks that show the sample plant, with the files they must leave
ON_SAMPLE = {
    "30_label_outcomes": ["label-outcomes/labels.csv", "label-outcomes/queue.csv"],
    "40_train": ["trained/trained.json", "trained/head.onnx", "trained/probes.npz", "trained/audit.csv"],
    "50_compare_candidates": ["compared/money.csv", "compared/slices.csv", "compared/latency.csv"],
    "60_why_this_decision": ["why/record.json", "why/what_if.csv", "why/occlusion.csv", "why/gates.csv"],
}


def run(name: str, parameters: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / f"{name}.ipynb"), "out.ipynb"]
    command += ["--no-progress-bar", "--kernel", "python3"]
    for key, value in parameters.items():
        command += ["-p", key, value]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(("name", "parameters", "files"), RUNS, ids=["its own example", "another decision"])
def test_a_notebook_runs_and_leaves_its_artefacts(
    name: str, parameters: dict[str, str], files: list[str], tmp_path: Path
) -> None:
    """From the first cell to the last, in an empty folder."""
    done = run(name, parameters, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for file in files:
        assert (tmp_path / file).stat().st_size > 0


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample plant, made once for all notebooks as each would make it."""
    from aiotkit.loop.sample import SHOWN, sample_plant

    return sample_plant(tmp_path_factory.mktemp("plant") / "sample-plant", SHOWN).folder


def printed(folder: Path) -> str:
    """Everything that the executed notebook shows as text."""
    cells = json.loads((folder / "out.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    texts = [output.get("text", output.get("data", {}).get("text/html", "")) for output in outputs]
    return "\n".join("".join(text) for text in texts)


@pytest.mark.parametrize("name", ON_SAMPLE)
def test_a_notebook_shows_the_sample_plant(name: str, plant: Path, tmp_path: Path) -> None:
    """With nothing but its defaults, and it prints the digest of each file it leaves."""
    done = run(name, {"sample_folder": str(plant)}, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    said = printed(tmp_path)
    for file in ON_SAMPLE[name]:
        assert digest((tmp_path / file).read_bytes()) in said


def test_the_level_of_intervals_is_explained_before_they_are_shown() -> None:
    """60 % is no slip: the words above the figure name the limit in the decision file that asks for it."""
    cells = json.loads((ROOT / "notebooks" / "40_train.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    (shown,) = [i for i, source in enumerate(sources) if "money_by_family" in source]
    assert "`limits.confidence`" in sources[shown - 1]


def test_a_decision_is_shown_by_its_key_and_is_the_same_again(plant: Path, tmp_path: Path) -> None:
    """One by the written rule: replayed bit for bit, and the page says that there is no model to ask."""
    from aiotkit.lake.lake import Lake

    rows = Lake.open(plant / "lake").read("decisions").to_pylist()
    first = min((r for r in rows if r["upload_hit"]), key=lambda r: (r["seq"], r["device"]))
    key = f"{first['device']}/{first['journal_id']}/{first['seq']}"
    done = run("60_why_this_decision", {"sample_folder": str(plant), "key": key, "change": "vib_x"}, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    said = printed(tmp_path)
    assert "identical, bit for bit" in said
    assert key in said
    assert not (tmp_path / "why" / "occlusion.csv").exists()


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("30_label_outcomes", {"lake": "somewhere"}, "both, or neither for the sample plant"),
        ("50_compare_candidates", {"candidates": "lda"}, "at least two, each once"),
        ("60_why_this_decision", {"key": "edge-01/sample/99999"}, "is not in the lake"),
    ],
)
def test_a_notebook_stops_on_bad_parameters(
    name: str, given: dict[str, str], words: str, plant: Path, tmp_path: Path
) -> None:
    """And says what is wrong with them."""
    done = run(name, {"sample_folder": str(plant)} | given, tmp_path)
    assert done.returncode != 0
    assert words in done.stderr


def test_own_data_go_through_training_and_comparison(tmp_path: Path) -> None:
    """A lake and a decision file, named by parameters; the head is what the pipeline's export reads."""
    from aiotkit.lab.trained import Trained

    small_lake(tmp_path / "lake", pumps=6, days=24)
    own = {"lake": "lake", "decision": str(decision_file(tmp_path)), "recipe": "plain"}
    for name, more in (("40_train", {"families": "logistic"}), ("50_compare_candidates", {})):
        done = run(name, own | more, tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
    assert Trained.load(tmp_path / "trained").family == "logistic"
    assert (tmp_path / "compared" / "differences.csv").is_file()
    assert not (tmp_path / "sample-plant").exists()


def test_the_page_works_without_costs(tmp_path: Path) -> None:
    """``costs: unknown`` still gives break-even curves, placement and trials."""
    text = re.sub(r"^costs:\n(?:  .*\n)+", "costs: unknown\n", EXAMPLE.read_text(), flags=re.MULTILINE)
    (tmp_path / "unknown.yaml").write_text(text)
    assert "costs: unknown" in text
    done = run("10_define_decision", {"decision_path": str(tmp_path / "unknown.yaml")}, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_notebook_fails_on_a_broken_decision_file(tmp_path: Path) -> None:
    """Bad input stops the page at its first cell that reads it, and the error says why."""
    broken = tmp_path / "broken.yaml"
    broken.write_text(EXAMPLE.read_text().replace("vib.rms, gt: 11", "vib.rsm, gt: 11"))
    done = run("10_define_decision", {"decision_path": str(broken)}, tmp_path)
    assert done.returncode != 0
    assert "did you mean 'vib.rms'?" in done.stderr
