"""A word of one's own goes from one Python file into the graph that a device runs, or is refused in words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlflow")
pytestmark = [pytest.mark.desk, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

from worlds.own_words import words_file  # noqa: E402
from worlds.small_plant import decision_file, small_decision, small_lake  # noqa: E402

from aiotkit.bundle.unsigned import read_unsigned  # noqa: E402
from aiotkit.core.errors import DataError  # noqa: E402
from aiotkit.lab.examples import OWN_WORDS, Examples  # noqa: E402
from aiotkit.lab.own_words import own_words  # noqa: E402
from aiotkit.lab.trained import Trained  # noqa: E402
from aiotkit.release import steps  # noqa: E402
from aiotkit.release.bundle import build_bundle  # noqa: E402
from aiotkit.release.export import export  # noqa: E402
from aiotkit.release.in_force import as_it_sees, champion_actions  # noqa: E402
from aiotkit.release.kept import load_exported  # noqa: E402
from aiotkit.release.pipeline import Outcome, Retrain, read_params, retrain  # noqa: E402
from aiotkit.release.registry import Registry  # noqa: E402
from aiotkit.release.rivals import train_rivals  # noqa: E402
from aiotkit.release.store import store_uri  # noqa: E402

NAME = "vib.x_swing"
RECIPE = f"{NAME},temp.mean"
#: what a device may not need: decides with a bundle's archive on a machine without the desk
DEVICE = """
import json, sys
for absent in ("torch", "onnx", "pandas", "sklearn", "mlflow", "aiotkit.lab", "aiotkit.release"):
    sys.modules[absent] = None
import numpy as np
from pathlib import Path
from aiotkit.bundle.engine import Engine
from aiotkit.bundle.unsigned import read_unsigned
from aiotkit.core.records import DecisionInput, EngineState

engine = Engine(read_unsigned(Path("bundle.aiot").read_bytes())[0].files)
windows = {k: np.array(v, dtype=np.float32) for k, v in json.load(sys.stdin).items()}
at_us = 1_767_603_600_000_000
found, _ = engine.decide(EngineState(), DecisionInput("seed", at_us, at_us, windows, {}))
print(json.dumps({"features": dict(found.features), "p": dict(found.p), "action": found.proposed}))
"""


class Desk:
    """A lake, a decision and a user's file, and the command that retrains."""

    def __init__(self, folder: Path, lake: Path) -> None:
        self.folder, self.lake, self.file = folder, lake, folder / "my_words.py"
        self.work = folder / "work" / "retrain" / "small-pump"
        self.registry = Registry(store_uri(folder / "store"))

    def run(self, progress: Callable[[str, float], None] = lambda _s, _f: None, **changes: Any) -> Outcome:
        recipe = changes.pop("recipe", RECIPE)
        params = read_params(families="lda", recipe=recipe, folds=4, bench_runs=20)
        given = {"decision": self.folder / "pump.yaml", "lake": str(self.lake), "own_words": self.file}
        given |= {"work": self.folder / "work", "store": store_uri(self.folder / "store")}
        return retrain(Retrain(**(given | {"params": params, "in_process": True} | changes)), progress)

    def step(self, name: str, out: Path) -> Any:
        """A stage by hand, on what the run has left."""
        places = {n: self.work / n for n in ("examples", "trained")} | {"decision": self.folder / "pump.yaml"}
        return getattr(steps, name)(**places, own_words=self.file, out=out)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, Outcome]:
    """One whole run with a word of one's own; the tests work on copies of its folders."""
    folder = tmp_path_factory.mktemp("own")
    small_lake(folder / "lake")
    decision_file(folder)
    words_file(folder)
    desk = Desk(folder, folder / "lake")
    return desk, desk.run()


@pytest.fixture
def desk(first: tuple[Desk, Outcome], tmp_path: Path) -> Desk:
    """A copy of the finished run."""
    place = shutil.copytree(first[0].folder, tmp_path / "desk", ignore=shutil.ignore_patterns("lake"))
    return Desk(Path(place), first[0].lake)


def ran(found: Outcome) -> dict[str, str]:
    """Stages that were done again, and why."""
    return {d.name: d.why for d in found.stages if d.status == "ran"}


def swing(x: Any) -> float:
    return float(np.sqrt(np.square(np.diff(np.asarray(x, dtype=float))).mean()))


def test_a_device_needs_nothing_but_the_bundle(first: tuple[Desk, Outcome], tmp_path: Path) -> None:
    """Without torch, onnx, the desk's code or the user's file the bundle computes the word and decides."""
    shutil.copy(first[1].folder / "candidate" / "bundle.aiot", tmp_path)
    rng, told = np.random.default_rng(2), []
    for level in (2.0, 4.0):
        windows = {
            "vib": (level * rng.normal(0, 1, 8)).tolist(),
            "temp": (40 + 8 * level + rng.normal(0, 2, 8)).tolist(),
        }
        done = subprocess.run(
            [sys.executable, "-c", DEVICE], input=json.dumps(windows), cwd=tmp_path, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
        assert told[-1]["features"][NAME] == pytest.approx(swing(windows["vib"]), rel=1e-5)
    assert told[0]["p"]["worn"] < 0.3 < 0.7 < told[1]["p"]["worn"]
    assert [t["action"] for t in told] == ["run", "stop"]


def test_the_word_passes_every_stage_and_leaves_its_digest(first: tuple[Desk, Outcome]) -> None:
    """Trained on, compared, exported, judged: the file's digest is with examples, head, card and evidence."""
    desk, found = first
    said = own_words(desk.file).digest
    assert found.evidence is not None
    assert found.evidence.passed, [g.words for g in found.evidence.refused]
    assert Examples.load(desk.work / "examples").sources[OWN_WORDS] == said
    head = Trained.load(desk.work / "trained")
    assert NAME in head.columns
    assert head.own_words == said
    exported = load_exported(desk.work / "exported")
    assert exported.own_words == said
    assert exported.parity["label_flips"] == 0
    unsigned = read_unsigned((desk.work / "candidate" / "bundle.aiot").read_bytes())[0]
    assert json.loads(unsigned.files["card.json"])["model"]["own_words"] == said
    assert found.evidence.tables["own_words"] == ({"feature": NAME, "digest": said},)
    assert said in found.report.read_text()
    for name, data in unsigned.files.items():
        assert b"my_words" not in data, name
        assert str(desk.folder).encode() not in data, name


def test_the_same_file_means_nothing_to_do_and_another_means_all(desk: Desk) -> None:
    """Where it lies does not count, every byte of it does: another candidate with another digest."""
    desk.file = words_file(desk.folder / "work", name="moved.py")
    again = desk.run()
    assert (ran(again), again.status) == ({}, "unchanged")
    desk.file.write_text(desk.file.read_text() + "# a remark\n")
    other = desk.run()
    assert ran(other)["10_assemble"] == "reads.own_words changed"
    assert list(ran(other)) == [d.name for d in other.stages]
    assert other.evidence is not None
    assert again.evidence is not None
    assert other.evidence.tables["own_words"][0]["digest"] == own_words(desk.file).digest
    assert other.evidence.dataset != again.evidence.dataset


def test_a_file_changed_during_a_run_counts_from_the_next_on(desk: Desk) -> None:
    """Every stage of a run sees the file as it was when the run began."""
    words_file(desk.folder, ("mean(dim=1)", "mean(dim=1).mul(4)"))
    before = own_words(desk.file).digest

    def edit(stage: str, _share: float) -> None:
        if stage.startswith("20_train"):
            words_file(desk.folder, ("mean(dim=1)", "mean(dim=1).mul(9)"))

    found = desk.run(edit)
    assert own_words(desk.file).digest != before
    assert found.evidence is not None
    assert found.evidence.tables["own_words"][0]["digest"] == before
    assert ran(desk.run())["10_assemble"] == "reads.own_words changed"


def test_a_file_changed_between_stages_by_hand_is_refused(desk: Desk, tmp_path: Path) -> None:
    """A head is exported with the file it was trained with: another, or none, is an error that says so."""
    out = tmp_path / "out"
    assert desk.step("export", out).own_words == own_words(desk.file).digest
    words_file(desk.folder, ("mean(dim=1)", "mean(dim=1).mul(4)"))
    wrong = (
        r"my_words\.py is not the file that head 'lda' was made with; expected sha256.*found sha256.*train"
    )
    with pytest.raises(DataError, match=wrong):
        desk.step("export", out)
    decision, head = small_decision(), Trained.load(desk.work / "trained")
    with pytest.raises(DataError, match=r"vib\.x_swing.*is nobody's.*--own-words FILE"):
        export(decision, head)
    made, windows = load_exported(desk.work / "exported"), _windows(20)
    with pytest.raises(DataError, match=r"is not the file that model 'lda' was made with"):
        build_bundle(decision, release_counter=2, model=made, reference=windows, words=own_words(desk.file))
    right = own_words(words_file(desk.folder))
    build_bundle(decision, release_counter=2, model=made, reference=windows, words=right)


def _windows(n: int) -> dict[str, Any]:
    rng = np.random.default_rng(4)
    middle = {"vib": 0.0, "temp": 56.0}
    return {name: rng.normal(m, 2, (n, 8)).astype(np.float32) for name, m in middle.items()}


@pytest.mark.parametrize(
    ("change", "recipe", "words"),
    [
        (None, RECIPE, r"own words: my_words\.py; expected a Python file; found No such file"),
        ((), "vib.x_swin", r"'x_swin' is nobody's; expected x_swing\. did you mean 'x_swing'\?"),
        ((), "plain", r"no feature asks for a word of my_words\.py; .*'auto,temp\.x_swing'"),
        (
            ("import torch", "import torch, nothing_there"),
            RECIPE,
            r"my_words\.py does not run.*nothing_there",
        ),
        (
            (".mean(dim=1)", ".mean()"),
            RECIPE,
            r"feature 'vib\.x_swing': own feature: result; expected float32",
        ),
        ((".sqrt()", ".log()"), RECIPE, r"feature 'vib\.x_swing': own feature: not finite.*Give silence"),
        (("x[:, 1:]", "x[:, 2:]"), RECIPE, r"feature 'vib\.x_swing': own feature: fails in gives_one_number"),
    ],
    ids=["missing", "misspelt", "unused", "does not run", "wrong shape", "not finite", "raises"],
)
def test_a_file_that_will_not_do_stops_the_run_before_anything_is_made(
    first: tuple[Desk, Outcome], tmp_path: Path, change: Any, recipe: str, words: str
) -> None:
    """Missing file, missing word, broken promise: named, with the next step, and nothing is registered."""
    decision_file(tmp_path)
    desk = Desk(tmp_path, first[0].lake)
    if change is not None:
        words_file(tmp_path, *([change] if change else []))
    with pytest.raises(DataError, match=words):
        desk.run(recipe=recipe)
    assert desk.registry.candidates("small-pump") == []
    assert not (desk.work / "examples").exists()


def test_without_the_file_the_word_is_nobodys(desk: Desk) -> None:
    """A recipe that names a word needs the file: the message says how to give it."""
    with pytest.raises(DataError, match=r"'x_swing' is nobody's.*--own-words FILE"):
        desk.run(own_words=None)


def test_a_champion_is_judged_by_its_own_definition_of_a_word(desk: Desk) -> None:
    """When the word means something else by now, or nothing, the champion's graph says what it meant."""
    desk.registry.set_champion(desk.registry.version("small-pump"))
    words_file(desk.folder, ("mean(dim=1)", "mean(dim=1).mul(10000)"))
    champion = desk.registry.version("small-pump", 1)
    bundle = read_unsigned(desk.registry.fetch(champion)[0])[0].files
    for changes in ({}, {"own_words": None, "recipe": "plain"}):
        found = desk.run(**changes)
        assert found.evidence is not None
        assert found.evidence.champion == champion.bundle
        examples = Examples.load(desk.work / "examples")
        seen = as_it_sees(bundle, examples)
        values, windows = seen.x[:, seen.columns.index(NAME)], examples.windows["vib"]
        assert values.tolist() == pytest.approx([swing(w) for w in windows], rel=1e-5, nan_ok=True)
        actions = champion_actions(bundle, examples, small_decision()).tolist()
        assert actions.count("run") > actions.count("stop") > len(actions) / 20
    bare = Examples(examples.rows, examples.columns, examples.x, {}, examples.sources)
    with pytest.raises(DataError, match=r"computes vib\.x_swing by a word of its own; .*windows=True"):
        champion_actions(bundle, bare, small_decision())


def test_a_rule_may_read_a_word_before_there_is_a_model(tmp_path: Path) -> None:
    """A decision file that names it is built with the file, and refused without it or with a broken one."""
    rule = [{"when": {"field": NAME, "gt": 5.0}, "do": "stop"}, {"otherwise": "run"}]
    decision = small_decision(rule=rule)
    made = build_bundle(decision, release_counter=1, words=own_words(words_file(tmp_path)))
    assert NAME in json.loads(made.files["interface.json"])["features"]
    with pytest.raises(DataError, match="is nobody's"):
        build_bundle(decision, release_counter=1)
    broken = own_words(words_file(tmp_path, (".sqrt()", ".log()")))
    with pytest.raises(DataError, match=r"feature 'vib\.x_swing': own feature: not finite"):
        build_bundle(decision, release_counter=1, words=broken)


def test_candidates_with_and_without_a_word_are_compared(desk: Desk) -> None:
    """``train_rivals`` trains and exports with words of one's own, as everything else does."""
    words, examples = own_words(desk.file), Examples.load(desk.work / "examples")
    found = train_rivals(examples, small_decision(), ["lda temp.mean", f"lda {NAME}"], seed=1, words=words)
    assert [r.name for r in found.listed] == ["lda temp.mean", f"lda {NAME}"]
