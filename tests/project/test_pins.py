"""Every way to install the project leads to the same versions."""

from __future__ import annotations

import importlib.util
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


def _tool():
    spec = importlib.util.spec_from_file_location("pins", ROOT / "deploy" / "pins.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = _tool()
PINS = tool.read_pins(CONSTRAINTS)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = [Requirement(r) for r in PROJECT["dependencies"]] + [
    Requirement(r) for extra in PROJECT["optional-dependencies"].values() for r in extra
]


def test_conda_and_pip_have_the_same_pins():
    """``environment.yml`` is what ``make pins`` writes from ``constraints.txt``."""
    assert (ROOT / "environment.yml").read_text() == tool.conda(CONSTRAINTS)


@pytest.mark.parametrize("asked", [r for r in ASKED if r.name != "aiotkit"], ids=lambda r: r.name)
def test_what_pyproject_asks_for_is_pinned_within_its_range(asked):
    """No direct dependency floats, and no pin lies outside what pyproject allows."""
    assert asked.specifier.contains(PINS[canonicalize_name(asked.name)])


def test_the_tests_run_on_the_pinned_versions():
    """What is installed here is what was promised."""
    found = {}
    for name in PINS.keys() - {"setuptools"}:  # every virtual environment brings its own
        try:
            found[name] = Version(version(name)).public
        except PackageNotFoundError:
            continue  # the base install has few of them
    assert "numpy" in found
    assert found == {name: PINS[name] for name in found}


@pytest.mark.desk
def test_no_package_is_pinned_in_vain_and_none_is_missing():
    """The pins are exactly what the project with all extras leads to."""
    assert tool.read_pins(tool.freeze()) == PINS


def test_the_device_installs_nothing_of_the_desk():
    """The base install stays the device's: no frame library, no trainer, no server."""
    base = {canonicalize_name(Requirement(r).name) for r in PROJECT["dependencies"]}
    assert base == {"numpy", "onnxruntime", "pydantic", "cryptography", "tzdata"}
