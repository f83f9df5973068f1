"""A collector that dies at any point loses nothing and doubles nothing."""

from __future__ import annotations

import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from aiotkit.bundle.keys import SigningKey

pytest.importorskip("deltalake")
pytest.importorskip("typer")
pytestmark = pytest.mark.desk

# Calls that change the disk, and up to which one each is tried (strace counts them thread by thread).
CHANGES = {"linkat": 2, "rename": 3, "mkdir": 1, "fsync": 21, "unlink": 6, "write": 30}
COMMAND = [sys.executable, "-c", "import sys; from aiotkit.cli.main import main; sys.exit(main())"]


@pytest.fixture
def place(tmp_path, lake, inbox):
    """Arguments of a collector process over the inbox and the lake."""
    key = SigningKey.generate()
    key.save(tmp_path / "key.pem")
    where = ["--lake", lake.uri, "--inbox", str(inbox), "--key", str(tmp_path / "key.pem")]
    return [*COMMAND, "collector", "run", *where, "--round-mb", "1"]


def calm_world(tmp_path, devices, world):
    """What a collector that was never disturbed brings."""
    from aiotkit.fleet.collector import Collector
    from aiotkit.lake.lake import Lake

    for device in devices:
        device.deliver_all(tmp_path / "calm-inbox", 64)
    lake = Lake.create(tmp_path / "calm")
    Collector(lake, tmp_path / "calm-inbox", SigningKey.generate()).collect_once()
    return world.world_of(lake)


def kill_while_delivering(place, inbox, devices, kills, rng):
    """Deliver batches, some twice, while collectors are started and killed at random moments."""
    batches = [
        (d, f, min(f + 7, len(d.frames))) for f in range(1, len(devices[0].frames), 8) for d in devices
    ]

    def deliver():
        for device, first, last in batches:
            device.deliver(inbox, first, last)
            if rng.random() < 0.2:
                device.deliver(inbox, max(1, first - 5), last)
            time.sleep(0.05)

    thread = threading.Thread(target=deliver)
    thread.start()
    died = 0
    while died < kills or thread.is_alive():
        process = subprocess.Popen(
            [*place, "--every-s", "0.01"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        select.select([process.stdout], [], [], 3.0)  # until it has told of its first round
        time.sleep(rng.random() * 0.3)
        process.kill()
        _, complaint = process.communicate()
        assert process.returncode == -signal.SIGKILL, complaint.decode()
        died += 1
    thread.join()
    return died


@pytest.mark.parametrize(
    ("kills", "seed"), [(4, 1), pytest.param(60, 2, marks=pytest.mark.faults)], ids=["sampled", "campaign"]
)
def test_J1_collector_killed_while_batches_keep_coming(kills, seed, tmp_path, place, inbox, lake, world):
    """Kill -9 at random moments under load: afterwards the lake equals that of an undisturbed run."""
    devices = [world.Device("press-1"), world.Device("press-2", "bb11bb11bb11bb11")]
    for device in devices:
        device.decide(150)
    expected = calm_world(tmp_path, devices, world)
    assert kill_while_delivering(place, inbox, devices, kills, random.Random(seed)) >= kills
    subprocess.run([*place, "--once"], check=True, capture_output=True, timeout=60)
    assert world.world_of(lake) == expected
    assert not list(inbox.rglob("*.ajb"))
    assert not list(inbox.rglob("*.reason.json"))
    for device in devices:
        said = world.payload_of(inbox / device.name / "watermark.json")
        assert (said["seq"], said["head"]) == (300, device.head(300).hex())


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    "points",
    [
        [("linkat", 1), ("rename", 1), ("rename", 2), ("fsync", 9), ("unlink", 2)],
        pytest.param(
            [(c, n) for c, most in CHANGES.items() for n in range(1, most + 1)], marks=pytest.mark.faults
        ),
    ],
    ids=["sampled", "campaign"],
)
def test_J1_collector_killed_at_a_syscall(points, tmp_path, place, inbox, lake, world):
    """Kill -9 at the Nth change of the disk, N by N: each restart goes on, the sum is the calm lake."""
    device = world.Device()
    device.decide(20 * len(points))
    expected = calm_world(tmp_path, [device], world)
    killed = 0
    for i, (call, n) in enumerate(points):
        for first in range(1 + 40 * i, 41 + 40 * i, 8):
            device.deliver(inbox, first, first + 7)
        inject = f"inject={call}:signal=SIGKILL:when={n}"
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", inject, *place, "--once"]
        killed += subprocess.run(command, capture_output=True, timeout=60).returncode != 0
        mark = lake.watermark(f"press-1/{device.journal_id}") or 0
        assert lake.read("decisions").num_rows == mark
        told = inbox / "press-1" / "watermark.json"
        assert not told.exists() or world.payload_of(told)["seq"] <= mark
    assert killed >= len(points) * 0.6
    subprocess.run([*place, "--once"], check=True, capture_output=True, timeout=60)
    assert world.world_of(lake) == expected
