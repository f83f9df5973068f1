"""House rules that no linter knows."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {
    ".git",
    ".venv",
    ".venv-device",
    "build",
    "dist",
    "demo-run",
    "mlruns",
    "results",
    ".hypothesis",
    ".ipynb_checkpoints",
}
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".ipynb", ".html", ".cfg", ""}


def files(*suffixes, below=ROOT):
    """Files of the project, without what runs and tools leave."""
    found = []
    for folder, folders, names in os.walk(below):
        folders[:] = [
            f for f in folders if f not in SKIPPED and not f.endswith(("cache__", "_cache", ".egg-info"))
        ]
        found += [Path(folder, name) for name in names if Path(name).suffix in (suffixes or TEXT)]
    return sorted(found)


def _name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", files(".py", below=ROOT / "tests"), ids=_name)
def test_every_test_says_its_promise_in_one_sentence(path):
    """A test without a docstring promises nothing."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            promise = (ast.get_docstring(node) or "").split("\n\n")[0]
            assert promise.endswith("."), node.name


def test_no_file_knows_the_machine_it_was_written_on():
    """No text holds the path of this checkout or of a home folder."""
    paths = {str(ROOT), str(Path.home())} - {"/"}
    guilty = [_name(p) for p in files() if any(f"{x}/" in p.read_text(errors="replace") for x in paths)]
    assert guilty == []


def test_every_fault_test_carries_an_id_of_the_catalogue():
    """An id in a test's name is one of the fault model's: a letter and a number that exist there."""
    known = {"U": 14, "J": 9, "I": 5, "G": 9, "F": 3, "T": 12}
    ids = [
        (match[1], int(match[2]))
        for path in files(".py", below=ROOT / "tests")
        for match in re.finditer(r"def test_([A-Z])(\d+)_", path.read_text())
    ]
    assert len(ids) > 20
    assert [(letter, n) for letter, n in ids if not 1 <= n <= known.get(letter, 0)] == []


def test_the_top_level_has_nothing_unexpected():
    """A person who opens the repository knows every folder and file by the design."""
    folders = {
        "aiotkit", "tests", "notebooks", "pipelines", "deploy", "benchmarks", ".ci", ".git",
    }  # fmt: skip
    texts = {
        "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "DECISIONS.md", "Makefile",
        "pyproject.toml", "constraints.txt", "environment.yml", ".gitignore",
    }  # fmt: skip
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    found = {
        p.name
        for p in ROOT.iterdir()
        if not any(Path(p.name).match(pattern) for pattern in ignored if pattern)
    }
    assert found - folders - texts == set()
    assert texts - found == set()


def test_make_help_lists_every_target_a_person_needs():
    """Each target has its line of help."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    helped = {line.split(":")[0] for line in lines if re.match(r"[a-z-]+:.*## ", line)}
    assert {
        "setup", "demo", "test", "check", "lint", "bench", "lab", "mlflow", "faults", "format", "clean",
    } <= helped  # fmt: skip


def test_the_changelog_knows_the_version():
    """What is released or about to be has a section, in the order of Keep a Changelog."""
    import aiotkit

    heads = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == "Unreleased" or heads[0] == aiotkit.__version__
