"""U12 and G3 with real processes: a bundle on probation that hangs, crashes, or is only restarted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from worlds.bundles import expectation, trust_and_keys
from worlds.device import DEVICE, edge, install, make_device, packet
from worlds.graphs import model_archive

from aiotkit.core.records import RecordType
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.journal import Journal
from aiotkit.edge.slots import Slots
from aiotkit.edge.sources import encode_packet

SICK = 25.0
STARTS = 3


def device(folder: Path, ill: str) -> Path:
    """A device with a proven bundle and, in force, one whose model is ill."""
    rules = {"decisions": 24, "least": 6, "starts": STARTS, "hang_s": 0.5}
    state = make_device(folder, archive=model_archive(1), probation=rules)
    config = json.loads((state / "device.json").read_text())
    (state / "device.json").write_text(json.dumps(config | {"actuator": None, "uplink": None}))
    slots(state).note_passed(slots(state).active().digest)
    install(state, model_archive(2, ill))
    return state


def slots(state: Path) -> Slots:
    return Slots.open(RealDisk(state), trust_and_keys()[0], expectation())


@contextmanager
def living(state: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An agent that is ended by its own id if the test does not, at the latest after half a minute."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = edge("run", "--state", state, "--drain-s", "0", **pipes)
    latest = threading.Timer(30, process.kill)
    latest.start()
    try:
        yield process
    finally:
        latest.cancel()
        if process.poll() is None:
            process.kill()
        process.wait()
        for end in (process.stdin, process.stdout, process.stderr):
            assert end is not None
            end.close()


def send(process: subprocess.Popen[bytes], i: int, vib: float = 1.0) -> bytes:
    """Give it a packet; its credit, or nothing when it died on it."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(encode_packet(packet(i, vib=vib)))
    process.stdin.flush()
    return process.stdout.readline()


def records(state: Path, kind: RecordType) -> list[dict[str, Any]]:
    with Journal.open(RealDisk(state), DEVICE) as journal:
        return [json.loads(f.payload) for f in journal.frames() if f.type is kind and f.payload]


def test_G3_U12_a_bundle_that_hangs_is_ended_and_after_three_starts_taken_back(tmp_path):
    """The process says where it hung and ends; the fourth start runs the bundle before."""
    state = device(tmp_path, "hangs")
    began = time.monotonic()
    for life in range(STARTS):
        with living(state) as process:
            assert send(process, 10 * life)
            assert send(process, 10 * life + 1, SICK) == b""
            assert process.stderr is not None
            said = process.stderr.read()
            assert process.wait(10) == 3
            assert b"the bundle has not come back for 0.5 s" in said
            assert b"in decide" in said
    with living(state) as process:
        assert send(process, 90, SICK)
    assert time.monotonic() - began < 60
    good, bad = (slots(state).install(model_archive(1)).digest, model_archive(2, "hangs"))
    decided = records(state, RecordType.DECISION)
    assert [r["bundle"] == good for r in decided] == [False] * STARTS + [True]
    (event,) = [r for r in records(state, RecordType.SECURITY) if r["kind"] == "probation"]
    assert (event["event"], event["to"]) == ("rolled back", good)
    assert event["why"] == "3 starts on probation ended in a crash, a hang or a cut"
    with pytest.raises(Exception, match="it failed its probation on this device"):
        install(state, bad)


def test_U12_a_bundle_under_which_the_process_dies_is_taken_back_at_the_fourth_start(tmp_path):
    """Killed three times as by a segmentation fault or for want of memory, decisions in between or not."""
    state = device(tmp_path, "well")
    new = slots(state).active().digest
    for life in range(STARTS):
        with living(state) as process:
            for i in range(2):
                assert send(process, 10 * life + i)
            assert slots(state).active().digest == new
            process.send_signal(signal.SIGSEGV)
            assert process.wait(10) == -signal.SIGSEGV
    with living(state) as process:
        assert send(process, 90)
        assert slots(state).active().digest != new
    denial = slots(state).trials.denial(new)
    assert denial is not None
    assert "3 starts" in denial.why


def test_U12_restarts_in_order_take_nothing_back(tmp_path):
    """Five times SIGTERM or the end of its input: the new bundle decides on, and its decisions count."""
    state = device(tmp_path, "well")
    new = slots(state).active().digest
    for life in range(5):
        with living(state) as process:
            assert send(process, life)
            assert process.stdin is not None
            if life % 2:
                process.send_signal(signal.SIGTERM)
            else:
                process.stdin.close()
            assert process.wait(20) == 0
    trial = slots(state).trials.of(new)
    assert trial is not None
    assert (trial.starts, trial.counts.decisions) == (0, 5)


HANGS = {
    "sleeping": ("time.sleep(60)", 3),
    "code that lets no other thread run": ("re.match('(a+)+$', 'a' * 60 + 'b')", 1),
}


@pytest.mark.parametrize(("hang", "code"), HANGS.values(), ids=HANGS.keys())
def test_G3_whatever_hangs_under_watch_ends(hang, code):
    """Installs, loading and deciding are watched alike, even by a timer that needs no interpreter."""
    script = f"import re, time\nfrom aiotkit.edge.watch import watched\nwith watched(0.3):\n    {hang}\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=False)
    assert done.returncode == code
    assert b"most recent call first" in done.stderr


def test_G3_what_comes_back_in_time_is_left_alone():
    """A watch that has ended nothing ends nothing later."""
    script = (
        "import time\nfrom aiotkit.edge.watch import watched\n"
        "with watched(0.3):\n    time.sleep(0.1)\ntime.sleep(2.5)\nprint('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, b"alive\n")
