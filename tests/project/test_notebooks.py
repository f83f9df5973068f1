"""Notebooks in git are thin, clean and parameterised."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(
    path
    for folder in ("notebooks", "pipelines")
    for path in (ROOT / folder).rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)
pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)


def read(path):
    notebook = json.loads(path.read_text())
    return notebook, [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def test_a_notebook_is_kept_without_what_a_run_leaves(path):
    """No outputs, execution counts, or metadata of papermill and widgets."""
    notebook, cells = read(path)
    assert not {"papermill", "widgets"} & notebook["metadata"].keys()
    for cell in cells:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert not {"papermill", "execution"} & cell["metadata"].keys()


def test_the_first_code_cell_holds_annotated_parameters(path):
    """What a scheduler may set is declared once, with type and default."""
    _, cells = read(path)
    assert cells[0]["metadata"].get("tags") == ["parameters"]
    for statement in ast.parse(source(cells[0])).body:
        is_doc = isinstance(statement, ast.Expr | ast.ImportFrom | ast.Import)
        assert is_doc or (isinstance(statement, ast.AnnAssign) and statement.value is not None)
    assert not any("parameters" in cell["metadata"].get("tags", []) for cell in cells[1:])


def test_a_notebook_is_thin(path):
    """No logic of its own: at most 80 lines of code, 15 in a cell, and no functions, classes or magics."""
    _, cells = read(path)
    lines = [[line for line in source(cell).splitlines() if line.strip()] for cell in cells]
    assert sum(map(len, lines)) <= 80
    assert max(map(len, lines)) <= 15
    for cell in cells:
        nodes = list(ast.walk(ast.parse(source(cell))))  # a magic does not parse
        assert not any(isinstance(n, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) for n in nodes)
        texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        assert not any(text.startswith(("/", "~", "C:\\")) for text in texts)
