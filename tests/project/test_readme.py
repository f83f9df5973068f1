"""The README tells the truth: its commands run and its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(README)
KINDS = {"sh": "make and git, not run here", "bash": "run", "python": "run", "text": "shown", "yaml": "shown"}


def blocks(kind):
    return [code for found, code in BLOCKS if found == kind]


def test_every_block_says_what_it_is():
    """A block of a kind nobody tests does not slip in."""
    assert {kind for kind, _ in BLOCKS} <= KINDS.keys()
    assert README.count("```") == 2 * len(BLOCKS)


def test_every_make_command_names_a_target():
    """What a person is told to type exists in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in "".join(blocks("sh")).splitlines():
        words = line.split("#")[0].split()
        if words and words[0] == "make":
            assert targets >= {word for word in words[1:] if "=" not in word}, line
        else:
            assert not words or words[0] in ("git", "cd", "pip", "conda"), line


@pytest.mark.desk
def test_the_commands_run_one_after_the_other(tmp_path):
    """All ``bash`` and ``python`` blocks, in order and in one folder, end well."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = 0
    for kind, code in BLOCKS:
        if kind not in ("bash", "python"):
            continue
        command = ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran > 0


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "DECISIONS.md", "CHANGELOG.md"])
def test_links_to_files_lead_somewhere(name):
    """Every relative link of a text names a file or folder that is there."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / name).read_text())
    missing = [x for x in links if not x.startswith("http") and not (ROOT / x).exists()]
    assert missing == []
