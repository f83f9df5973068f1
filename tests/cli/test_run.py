"""The scheduler's and the ML lead's commands: retrain with notebooks, approve, release; and exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

for package in ("torch", "mlflow", "papermill", "typer"):
    pytest.importorskip(package)
pytestmark = [pytest.mark.desk, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

from worlds.own_words import words_file  # noqa: E402
from worlds.small_plant import decision_file, small_lake  # noqa: E402

from aiotkit.bundle.unsigned import read_unsigned  # noqa: E402
from aiotkit.release.registry import Registry  # noqa: E402
from aiotkit.release.stages import only_run  # noqa: E402
from aiotkit.release.store import store_uri  # noqa: E402

RETRAIN = [
    "run", "retrain", "--decision", "pump.yaml", "--lake", "lake", "--families", "lda", "--recipe", "plain",
    "--folds", "4",
]  # fmt: skip
RELEASE = ["run", "release", "small-pump", "--trust", "trust.json", "--key", "holder.pem", "--to", "releases"]


def aiotkit(folder: Path, *words: str | Path) -> tuple[int, str, str]:
    """Run the command as a scheduler does: a process without a terminal; MLflow's address is not set."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    code = "from aiotkit.cli.main import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def told(result: tuple[int, str, str], code: int = 0) -> dict[str, Any]:
    assert result[0] == code, result
    return dict(json.loads(result[1]))


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A lake, keys and trust, and one retraining with notebooks."""
    folder = tmp_path_factory.mktemp("plant")
    small_lake(folder / "lake")
    decision_file(folder)
    for name in ("lead", "holder"):
        assert aiotkit(folder, "keys", "new", f"{name}.pem")[0] == 0
    trust = "keys trust trust.json --release holder.pub --approval lead.pub"
    assert aiotkit(folder, *trust.split())[0] == 0
    return folder, told(aiotkit(folder, *RETRAIN, "--json"))


def test_a_scheduler_makes_a_candidate_with_notebooks(plant: tuple[Path, dict[str, Any]]) -> None:
    """One command, every notebook executed to its last cell with its figures; exit code 0."""
    folder, found = plant
    assert (found["status"], found["version"], found["passed"]) == ("registered", 1, True)
    assert [s["status"] for s in found["stages"]] == ["ran"] * 6
    assert (folder / found["report"]).stat().st_size > 10_000
    pages = sorted((folder / "work/retrain/small-pump/executed").glob("*.ipynb"))
    assert len(pages) == 6
    shown = "".join(p.read_text() for p in pages)
    assert shown.count("data:image/") >= 5
    assert "Traceback" not in shown


def test_a_word_of_ones_own_goes_through_the_notebooks(
    plant: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """``--own-words FILE`` and a name in the recipe are all there is to say; a wrong file is exit code 2."""
    folder, words = plant[0], words_file(tmp_path)
    decision_file(tmp_path)
    retrain = [*RETRAIN[:5], str(folder / "lake"), *RETRAIN[6:8]]
    retrain += ["--recipe", "vib.x_swing,temp.mean", "--json"]
    found = told(aiotkit(tmp_path, *retrain, "--own-words", words.name))
    assert (found["status"], found["passed"]) == ("registered", True)
    bundle = (tmp_path / "work/retrain/small-pump/candidate/bundle.aiot").read_bytes()
    assert "vib.x_swing" in read_unsigned(bundle)[0].files["interface.json"].decode()
    code, out, _ = aiotkit(tmp_path, *retrain, "--own-words", "absent.py")
    assert (code, "own words: absent.py; expected a Python file" in out) == (2, True)
    code, out, _ = aiotkit(tmp_path, *retrain)
    assert (code, "the word 'x_swing' is nobody's" in out) == (2, True)


def test_again_without_news_does_nothing(plant: tuple[Path, dict[str, Any]]) -> None:
    """Exit code 0, every stage skipped, the same version; also for words instead of JSON."""
    folder, found = plant
    again = told(aiotkit(folder, *RETRAIN, "--json"))
    assert (again["status"], again["version"], again["bundle"]) == ("unchanged", 1, found["bundle"])
    assert {s["status"] for s in again["stages"]} == {"unchanged"}
    code, out, err = aiotkit(folder, *RETRAIN, "--if-triggered")
    assert (code, "nothing had changed" in out, "error" in err) == (0, True, False)
    assert f"{again['family']}, float32: learned from {again['labels']['mature']:,} of " in out
    assert "beats_rule: cheaper than the rule: " in out


def test_gates_that_refuse_have_an_exit_code_of_their_own(
    plant: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """4: what is no better than the champion is registered, told why, and not approved by mistake."""
    folder, _ = plant
    place = ["--work", shutil.copytree(folder / "work", tmp_path / "work")]
    registry = Registry(store_uri(tmp_path / "work"))
    registry.set_champion(registry.version("small-pump", 1))
    words = [*RETRAIN, *place, "--counter", "5", "--in-process"]
    found = told(aiotkit(folder, *words, "--json"), 4)
    assert [g["gate"] for g in found["gates"] if not g["passed"]] == ["no_worse_than_champion"]
    code, _, err = aiotkit(folder, "approve", "small-pump", "--key", "lead.pem", *place)
    assert (code, "its gates refused it (no_worse_than_champion)" in err) == (1, True)
    assert aiotkit(folder, *words)[0] == 0  # nothing new


def test_fewer_folds_than_asked_for_are_told(plant: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """More folds than subjects cannot be had: the run goes on with as many, and says so."""
    words = [*RETRAIN[:-1], "50", "--in-process", "--work", tmp_path]
    code, out, _ = aiotkit(plant[0], *words)
    assert (code in (0, 4), "\n  note: 8 folds, not 50: there are 8 subjects\n" in out) == (True, True), out
    assert (
        "8 folds, not 50: there are 8 subjects" in json.loads(aiotkit(plant[0], *words, "--json")[1])["notes"]
    )


def test_another_run_at_work_has_an_exit_code_of_its_own(plant: tuple[Path, dict[str, Any]]) -> None:
    """5, and who works there."""
    folder, _ = plant
    with only_run(folder / "work/retrain/small-pump", "this test"):
        code, _, err = aiotkit(folder, *RETRAIN)
    assert code == 5
    assert f"another run works in work/retrain/small-pump; found process {os.getpid()}" in err


def test_from_approval_to_release_and_back(plant: tuple[Path, dict[str, Any]]) -> None:
    """Refused, approved, released with notebooks, listed as champion, revoked; each step says what it did."""
    folder, found = plant
    code, _, err = aiotkit(folder, *RELEASE)
    assert (code, "nobody has approved it" in err) == (1, True)
    made = told(aiotkit(folder, "approve", "small-pump", "--key", "lead.pem", "--by", "Ann", "--json"))
    assert (made["verdict"], made["bundle"], made["authenticated"]) == ("approved", found["bundle"], True)
    done = told(aiotkit(folder, *RELEASE, "--json"))
    assert (done["status"], done["authenticated"]) == ("released", True)
    assert (folder / done["file"]).exists()
    shutil.rmtree(folder / "work/release")
    code, out, _ = aiotkit(folder, *RELEASE, "--in-process")
    assert (code, "version 1: was released already; nothing had changed" in out) == (0, True)
    assert aiotkit(folder, "bundle", "verify", done["file"], "--trust", "trust.json")[0] == 0
    listed = told(aiotkit(folder, "approvals", "small-pump", "--trust", "trust.json", "--json"))
    (row,) = listed["candidates"]
    assert (row["champion"], row["approved"], row["gates"]) == (True, True, "passed")
    code, out, _ = aiotkit(folder, "reject", "small-pump", "--key", "lead.pem", "--note", "by mistake")
    assert (code, "this does not take it off the devices" in out, "next: aiotkit run retrain" in out) == (
        0,
        True,
        True,
    )
    code, out, _ = aiotkit(folder, "approvals", "--trust", "trust.json")
    assert (code, "by mistake; it is in force all the same" in out) == (0, True)
    assert aiotkit(folder, *RELEASE)[0] == 1


def test_single_user_mode_is_loud(plant: tuple[Path, dict[str, Any]]) -> None:
    """Without a key it works, warns on stderr, and says so in what it writes."""
    folder, _ = plant
    code, out, err = aiotkit(folder, "approve", "small-pump")
    assert code == 0
    assert "WARNING: this approval is UNAUTHENTICATED" in err
    assert "none: single user mode" in out
    assert aiotkit(folder, *RELEASE)[0] == 1  # the trust file names who may approve
    code, out, err = aiotkit(folder, "reject", "small-pump")
    assert (code, "WARNING: this rejection is UNAUTHENTICATED" in err, "approval is" in err) == (
        0,
        True,
        False,
    )
    assert "it is not released from now on, until a newer approval" in out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--families", "ldaa"], 2, "did you mean 'lda'"),
        (["--recipe", "plian"], 2, "did you mean 'plain'"),
        (["--params", "none.yaml"], 2, "expected a YAML file"),
        (["--lake", "none"], 2, "none: there is no lake"),
        (["--store", "http://127.0.0.1:9"], 3, "MLflow store http://127.0.0.1:9"),
        (["--work", "pump.yaml"], 3, "work folder"),
    ],
)
def test_bad_input_is_told_in_words(
    plant: tuple[Path, dict[str, Any]], words: list[str], code: int, told: str
) -> None:
    """Each ends with its exit code and one line that says what to do."""
    found = aiotkit(plant[0], *RETRAIN, "--in-process", *words)
    assert (found[0], told in found[2], "Traceback" in found[2]) == (code, True, False), found
