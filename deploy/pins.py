"""Writes ``constraints.txt`` and ``environment.yml``: the versions this project is tested with.

``python deploy/pins.py freeze`` pins what the running interpreter has installed, as far as the project
needs it (with every extra). ``python deploy/pins.py conda`` writes the conda environment with the same
pins. ``make pins`` does both; the tests prove that the two files and ``pyproject.toml`` agree.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "aiotkit"

_CONSTRAINTS_HEAD = """\
# The versions aiotkit is tested with, for every extra. Written by `make pins`; do not edit.
# torch: plain pip may pick a build with several GB of GPU libraries. For the CPU build add
#   --extra-index-url https://download.pytorch.org/whl/cpu
"""

_CONDA_HEAD = """\
# The conda way to the same versions as constraints.txt. Written by `make pins`; do not edit.
#   conda env create -f environment.yml && conda activate aiotkit
# For the CPU build of torch put this line first under `pip:`
#   - --extra-index-url https://download.pytorch.org/whl/cpu
name: aiotkit
channels:
  - conda-forge
dependencies:
  - python=3.11
  - make
  - pip
  - pip:
"""


def needed(requirement: Requirement, seen: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """(name, version) of everything installed that a requirement leads to, itself included."""
    name = canonicalize_name(requirement.name)
    todo = [extra for extra in ("", *sorted(requirement.extras)) if (name, extra) not in seen]
    seen.update((name, extra) for extra in todo)
    if not todo:
        return
    found = distribution(name)
    yield name, Version(found.version).public  # without a local part such as +cpu
    for line in found.requires or ():
        below = Requirement(line)
        if any(below.marker is None or below.marker.evaluate({"extra": extra}) for extra in todo):
            yield from needed(below, seen)


def freeze() -> str:
    """The text of ``constraints.txt`` for what is installed now."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    everything = Requirement(f"{PROJECT}[{','.join(sorted(extras))}]")
    pins = dict(needed(everything, set()))
    del pins[PROJECT]
    return _CONSTRAINTS_HEAD + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))


def read_pins(constraints: str) -> dict[str, str]:
    """Package name -> version of a constraints text."""
    lines = (line.strip() for line in constraints.splitlines())
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def conda(constraints: str) -> str:
    """The text of ``environment.yml`` with the pins of a constraints text."""
    pins = [f"{name}=={version}" for name, version in read_pins(constraints).items()]
    return _CONDA_HEAD + "".join(f"      - {line}\n" for line in [*pins, "-e .[dev]"])


def main(argv: list[str]) -> int:
    """Write one of the two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["freeze", "conda"])
    if parser.parse_args(argv).what == "freeze":
        (ROOT / "constraints.txt").write_text(freeze())
    else:
        (ROOT / "environment.yml").write_text(conda((ROOT / "constraints.txt").read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
