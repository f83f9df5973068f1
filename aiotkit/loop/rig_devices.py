"""The rig's four devices: what they are given, and their runs: real processes that end with their file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from aiotkit.core.decision import Decision
from aiotkit.core.errors import AiotkitError
from aiotkit.edge.sources import encode_packet
from aiotkit.loop.rig import PARTS, Rig, rig_packets
from aiotkit.loop.setting import Place

_LONGEST_S = 600


def device(part: str) -> str:
    """The device that decides about a part."""
    return f"rig-{part}"


def packets_file(place: Place, part: str) -> Path:
    """What a part's device reads."""
    return place.root.resolve() / f"{part}.packets"


def write_packets(place: Place, part: str, rig: Rig, decision: Decision, cycles: range) -> None:
    """Put some cycles, and nothing else, where the part's device reads them."""
    with packets_file(place, part).open("wb") as out:
        out.writelines(encode_packet(p) for p in rig_packets(rig, decision, cycles))


def run_devices(place: Place) -> None:
    """All four, two at a time; each ends with its file.

    Raises:
        AiotkitError: one of them ended badly.
    """
    for pair in (PARTS[:2], PARTS[2:]):
        started = []
        for part in pair:
            state = place.device(device(part))
            argv = [sys.executable, "-m", "aiotkit.edge.command", "run", "--state", str(state)]
            with (state / "run.log").open("ab") as log:
                process = subprocess.Popen([*argv, "--drain-s", "1"], stdout=subprocess.DEVNULL, stderr=log)
            started.append((part, process))
        for part, process in started:
            if process.wait(timeout=_LONGEST_S) != 0:
                raise AiotkitError(f"device {device(part)} ended with {process.returncode}",
                                   do="See run.log in its state folder.")  # fmt: skip
