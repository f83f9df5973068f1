"""Stages are skipped when nothing changed, go on where they were killed, and never run twice at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("papermill")
pytestmark = pytest.mark.desk

from worlds import toy_stages  # noqa: E402
from worlds.toy_stages import run_both, stages, toy_notebook  # noqa: E402

from aiotkit.core.errors import AiotkitError, DataError  # noqa: E402
from aiotkit.release.runner import NotebookError  # noqa: E402
from aiotkit.release.stages import Busy, changes, only_run, run_stage  # noqa: E402


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder, with a table of numbers beside it."""
    (tmp_path / "table.json").write_text("[1, 2, 3]")
    return tmp_path / "work"


def run(work: Path, **options: bool) -> list[tuple[str, str]]:
    return [(d.status, d.why) for d in run_both(work, work.parent / "table.json", **options)]


RAN = [("ran", "first run"), ("ran", "first run")]
UNCHANGED = [("unchanged", ""), ("unchanged", "")]


def test_notebook_and_function_give_the_same(work: Path) -> None:
    """What a kernel made is not made again in process, and the other way round; the files are the same."""
    assert run(work, in_process=False) == RAN
    assert run(work) == UNCHANGED
    files = {p.name: p.read_bytes() for p in (work / "second").iterdir() if p.name != "stage.json"}
    assert json.loads((work / "second" / "figures.json").read_bytes()) == {"total": 12.0}
    assert (work / "executed" / "20_second.ipynb").exists()
    other = work.parent / "other"
    assert run(other) == RAN
    assert {p.name: p.read_bytes() for p in (other / "second").iterdir() if p.name != "stage.json"} == files


def test_only_what_a_change_reaches_runs_again(work: Path) -> None:
    """A changed input runs the stages after it, as far as the results differ, and says what had changed."""
    run(work)
    (work.parent / "table.json").write_text("[3, 2, 1]")
    assert run(work) == [("ran", "reads.table changed"), ("unchanged", "")]
    (work.parent / "table.json").write_text("[3, 2, 2]")
    assert run(work) == [("ran", "reads.table changed"), ("ran", "reads.table changed")]
    toy_notebook(work.parent / "toy.ipynb").write_text((work.parent / "toy.ipynb").read_text() + "\n")
    assert run(work) == [("ran", "notebook changed"), ("ran", "notebook changed")]
    factor = stages(work, work.parent / "table.json", factor=3)[0]
    assert changes(factor, work) == "settings.factor changed"


@pytest.mark.parametrize("harm", ["change", "remove", "add"])
def test_an_output_that_was_touched_is_made_again(work: Path, harm: str) -> None:
    """A changed, missing or foreign file in a stage's folder is noticed."""
    run(work)
    path = work / "second" / ("sum.json" if harm != "add" else "mine.txt")
    path.unlink() if harm == "remove" else path.write_text("13")
    assert run(work) == [("unchanged", ""), ("ran", "its output was altered")]
    assert (work / "second" / "sum.json").read_text() == "[12]"
    assert not (work / "second" / "mine.txt").exists()


def test_a_stage_that_fails_leaves_what_was_there(work: Path) -> None:
    """The output of the last good run stays, whole; the failed attempt leaves nothing but its notebook."""
    run(work, in_process=False)
    before = (work / "first" / "sum.json").read_bytes()
    (work.parent / "table.json").write_text('["no number"]')
    with pytest.raises(NotebookError, match=r"notebook toy: cell 3 .*TypeError.*executed/10_first\.ipynb"):
        run(work, in_process=False)
    assert (work / "first" / "sum.json").read_bytes() == before
    (work.parent / "table.json").write_text("[1, 2, 3]")
    assert run(work) == UNCHANGED
    assert sorted(p.name for p in work.iterdir()) == ["executed", "first", "lock", "second"]


def test_a_notebook_must_end_by_sealing_what_it_wrote(work: Path) -> None:
    """Without digests there is no telling whether the output is whole."""
    toy_notebook(work.parent / "toy.ipynb", seals=False)
    with pytest.raises(DataError, match=r"stage 10_first: digests.json.*ends with steps\.seal"):
        run(work, in_process=False)
    assert not (work / "first").exists()


def test_a_parameter_the_notebook_does_not_declare_is_refused(work: Path) -> None:
    """A stage and its notebook cannot drift apart unnoticed."""
    (stage, _) = stages(work, work.parent / "table.json")
    odd = type(stage)(**(vars(stage) | {"settings": {"factr": 2}}))
    work.mkdir()
    for here in (True, False):
        with pytest.raises(DataError, match="unknown parameter 'factr'; did you mean 'factor'"):
            run_stage(odd, work, in_process=here)


def test_two_runs_at_once_are_refused(work: Path) -> None:
    """The second is told who works there and since when; it waits for nothing and changes nothing."""
    with (
        only_run(work, "the toy"),
        pytest.raises(Busy, match=rf"the toy: another run works .*process {os.getpid()} on .* since 20"),
    ):
        run(work)
    assert Busy.exit_code == 5
    assert run(work) == RAN


def start(work: Path, how: str) -> subprocess.Popen[bytes]:
    """A process that runs both stages, the second of which does not end."""
    command = [sys.executable, toy_stages.__file__, str(work), str(work.parent / "table.json"), "600", how]
    paths = os.pathsep.join([str(Path(toy_stages.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths})


def wait_for(work: Path, pattern: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not list(work.glob(pattern)):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["here", "notebook"])
def test_a_run_that_was_killed_goes_on_where_it_was(work: Path, how: str) -> None:
    """Killed in the middle of a stage: the stage before is kept, the half stage is not, and no lock stays."""
    process = start(work, how)
    try:
        wait_for(work, ".aside-second-*/sum.json", process)
        with pytest.raises(Busy, match=f"process {process.pid}"):
            run(work)
        assert not (work / "second").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert run(work) == [("unchanged", ""), ("ran", "first run")]
    assert not list(work.glob(".aside-*"))
    assert (work / "second" / "again.json").read_text() == "12 "


def test_a_work_folder_that_cannot_be_made_is_told(work: Path) -> None:
    """A file in its place ends in a sentence."""
    work.write_text("")
    with pytest.raises(AiotkitError, match=r"work folder .*File exists"):
        run(work)
