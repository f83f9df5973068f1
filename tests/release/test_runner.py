"""The strict wrapper around papermill: what it refuses before, during and after a run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("papermill")
pytestmark = pytest.mark.desk

from aiotkit.core.errors import DataError  # noqa: E402
from aiotkit.release.runner import (  # noqa: E402
    Limits,
    NotebookError,
    check_parameters,
    declared,
    execute,
    read_notebook,
)

PARAMETERS = (
    'lake: str = ""  # required: folder of the lake\nseed: int = 7\nshare: float = 0.5\nquick: bool = False'
)


def notebook(path: Path, *cells: str, parameters: str = PARAMETERS, tags: tuple[str, ...] = ()) -> Path:
    """A notebook with a parameters cell and code cells; the last one carries ``tags``."""
    sources = [(parameters, ["parameters"])] if parameters else []
    sources += [(source, list(tags) if source is cells[-1] else []) for source in cells]
    made = [
        {
            "cell_type": "code", "id": f"c{i}", "metadata": {"tags": tag} if tag else {}, "source": source,
            "outputs": [], "execution_count": None,
        }
        for i, (source, tag) in enumerate(sources)
    ]  # fmt: skip
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    document = {"cells": made, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(document))
    return path


def run(
    folder: Path, *cells: str, limits: Limits | None = None, tags: tuple[str, ...] = (), **given: Any
) -> str:
    """Run a made-up notebook in a folder; gives the outputs of the executed one as text."""
    made = notebook(folder / "20_try.ipynb", *cells, tags=tags)
    execute(made, {"lake": "here"} | given, folder / "out.ipynb", folder=folder, limits=limits)
    return (folder / "out.ipynb").read_text()


def test_a_notebook_runs_with_its_parameters_in_its_folder(tmp_path: Path) -> None:
    """Values arrive with their types, the kernel is this interpreter, and the source is not changed."""
    before = notebook(tmp_path / "20_try.ipynb", "print()").read_bytes()
    told = run(tmp_path, "import sys; print(lake, seed, share, quick, sys.executable)", seed=3, share=1)
    import sys

    assert f"here 3 1.0 False {sys.executable}" in told
    run(tmp_path, "print()")
    assert (tmp_path / "20_try.ipynb").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sede": 3}, "unknown parameter 'sede'; did you mean 'seed'"),
        ({"nothing_like_it": 3}, "it declares lake, seed, share, quick"),
        ({"seed": "3"}, "'seed': expected int, found str '3'"),
        ({"seed": True}, "'seed': expected int, found bool"),
        ({"share": float("nan")}, "'share': expected float"),
        ({"quick": 1}, "'quick': expected bool, found int"),
        ({"lake": ""}, "'lake' is required"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_runs(
    tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    """Undeclared, mistyped and missing parameters are named; no kernel starts and no notebook is written."""
    began = time.monotonic()
    with pytest.raises(DataError, match=words):
        run(tmp_path, "open('ran', 'w')", **given)
    assert time.monotonic() - began < 0.5
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out.ipynb").exists()


def test_every_wrong_parameter_is_named_at_once() -> None:
    """One look tells all that is wrong."""
    known = declared({"cells": [{"metadata": {"tags": ["parameters"]}, "source": PARAMETERS}]}, "x")
    assert known["lake"].required
    assert not known["seed"].required
    with pytest.raises(DataError, match=r"seed.*sahre.*'lake' is required"):
        check_parameters(known, {"seed": 1.5, "sahre": 1}, "x")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("", "cells tagged 'parameters'; expected exactly one; found 0"),
        ("seed = 7", "expected name: str"),
        ("seed: int = 'seven'", "found seed: int = 'seven'"),
        ("seed: int = 3 + len('x')", "a plain value"),
        ("seeds: list = [1]", "found seeds: list"),
        ("seed: int", "a plain value"),
    ],
)
def test_a_parameters_cell_holds_annotated_scalars_only(tmp_path: Path, parameters: str, words: str) -> None:
    """A notebook whose parameters cannot be checked is refused."""
    made = notebook(tmp_path / "x.ipynb", "print()", parameters=parameters)
    with pytest.raises(DataError, match=words):
        execute(made, {}, tmp_path / "out.ipynb", folder=tmp_path)


def test_two_parameters_cells_are_refused(tmp_path: Path) -> None:
    """Which of them counts would be a guess."""
    made = notebook(tmp_path / "x.ipynb", "a: int = 1", tags=("parameters",))
    with pytest.raises(DataError, match="exactly one; found 2"):
        declared(read_notebook(made), "x")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["x = 1", "import sys; sys.exit(0)", "print('never')"], r"cell 3 .*SystemExit: 0"),
        (["1 / 0", "print()"], r"20_try: cell 2 \(In \[3\]\): ZeroDivisionError: division by zero.*kept in"),
        (["raise ValueError('a\\nb\\nthe end')"], r"ValueError: the end\."),
        (["import os; os._exit(0)"], "its kernel died in cell 2"),
    ],
)
def test_a_cell_that_fails_or_leaves_fails_the_notebook(tmp_path: Path, cells: list[str], words: str) -> None:
    """Notebook, cell and the error's last line are named, and what was executed is kept."""
    with pytest.raises(NotebookError, match=words):
        run(tmp_path, *cells)
    assert (tmp_path / "out.ipynb").stat().st_size > 500


@pytest.mark.parametrize(
    ("tag", "words"), [("raises-exception", "ValueError"), ("skip-execution", "did not run")]
)
def test_no_tag_excuses_a_cell(tmp_path: Path, tag: str, words: str) -> None:
    """A cell that is tagged to be skipped, or to be allowed to fail, is a failure all the same."""
    with pytest.raises(NotebookError, match=f"cell 2.*{words}"):
        run(tmp_path, "raise ValueError('x')", tags=(tag,))


def test_our_own_errors_keep_their_exit_code(tmp_path: Path) -> None:
    """A scheduler sees the same code as if the function had been called without a notebook."""
    with pytest.raises(NotebookError, match="LakeError: table 'x' is gone") as caught:
        run(tmp_path, "from aiotkit.core.errors import LakeError\nraise LakeError(\"table 'x' is gone\")")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(cell_s=0.7), "a cell took longer than 0.7 s in cell 3"),
        (Limits(notebook_s=1.5), "longer than 1.5 s"),
    ],
)
def test_a_notebook_that_does_not_end_is_ended(tmp_path: Path, limits: Limits, words: str) -> None:
    """Each cell and the whole have a deadline; the kernel is gone afterwards."""
    began = time.monotonic()
    with pytest.raises(NotebookError, match=words):
        run(
            tmp_path, "import os; open('pid', 'w').write(str(os.getpid()))", "while True: pass", limits=limits
        )
    assert time.monotonic() - began < 8
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}/cmdline").exists()


def test_what_is_no_notebook_is_refused(tmp_path: Path) -> None:
    """A missing or broken file is told apart from a failing one."""
    with pytest.raises(DataError, match=r"notebook none\.ipynb; expected a Jupyter notebook"):
        read_notebook(tmp_path / "none.ipynb")
