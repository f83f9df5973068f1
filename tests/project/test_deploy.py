"""The examples in deploy/ are what the programs read."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from aiotkit.edge.command import main
from aiotkit.edge.config import read_config
from aiotkit.edge.envelope import parse_actuator_config

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted(DEPLOY.rglob("*.service"))


def test_the_example_device_is_one():
    """``device.json`` and ``actuator.json`` parse, and speak of the same device."""
    config = read_config(DEPLOY / "device")
    actuator = parse_actuator_config((DEPLOY / "device" / "actuator.json").read_bytes())
    assert config.device == actuator.device
    assert config.actuator is not None
    assert config.actuator.socket == actuator.socket


@pytest.mark.parametrize("unit", UNITS, ids=lambda p: p.name)
def test_a_unit_calls_commands_that_exist(unit, capsys):
    """What a unit starts is a command of ours, with options that its help names."""
    line = next(x for x in unit.read_text().splitlines() if x.startswith("ExecStart="))
    found = re.search(r"/bin/(aiotkit(?:-edge)?) ([^|'>]+)", line)
    assert found is not None
    words = shlex.split(found[2])
    options = [w for w in words if w.startswith("--")]
    if found[1] == "aiotkit-edge":
        with pytest.raises(SystemExit):
            main([words[0], "--help"])
        text = capsys.readouterr().out
    else:
        pytest.importorskip("typer")
        from aiotkit.cli.main import main as desk

        desk([*words[:2], "--help"])
        text = capsys.readouterr().out
    assert options
    for option in options:
        assert option in text
