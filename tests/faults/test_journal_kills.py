"""J1: a real process is killed, at operations and at system calls, and all it acknowledged is there."""

from __future__ import annotations

import functools
import itertools
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from worlds.journals import TRUST, kind_of, open_journal, payload_of, point, signed

from aiotkit.core.records import RecordType
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.journal import Journal
from aiotkit.edge.journal_verify import verify_folder

_ACK = struct.Struct("<Q32s")
_CHANGES = ("append", "write", "truncate", "sync", "rename", "sync_folder", "unlink", "mkdir")


def work(journal: Journal, seed: int) -> Iterator[int]:
    """What a device does: commits of all sizes, now and then a trim; yields after each commit."""
    rng = random.Random(seed)
    while True:
        for _ in range(rng.choice([1, 1, 3, 12])):
            journal.append(kind_of(journal.next_seq), payload_of(journal.next_seq, rng.randrange(10, 900)))
        yield journal.commit()
        if rng.random() < 0.1 and journal.durable_seq > journal.delivered.seq:
            seq = rng.randint(journal.delivered.seq + 1, journal.durable_seq)
            if journal.head_before(seq + 1) is not None:
                journal.trim(signed(point(journal, seq)), TRUST)


def run(disk: RealDisk, seed: int, acknowledged: int) -> None:
    """Work until killed, telling each acknowledged record and its head through a pipe."""
    with open_journal(disk, quota_bytes=96 << 10) as journal:
        for seq in itertools.islice(work(journal, seed), 400):
            os.write(acknowledged, _ACK.pack(seq, journal.head))


class DyingDisk(RealDisk):
    """Kills its own process at one chosen change: before it, after it, or half-way through a write."""

    def arm(self, nth: int, moment: str) -> None:
        counter = itertools.count()

        def dying(act, *args):
            mine = next(counter) == nth
            if mine and moment == "half" and isinstance(args[-1], bytes):
                act(*args[:-1], args[-1][: len(args[-1]) // 2])
            if mine and moment != "after":
                os.kill(os.getpid(), signal.SIGKILL)
            act(*args)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)

        for name in _CHANGES:
            setattr(self, name, functools.partial(dying, getattr(self, name)))


def kill_in_fork(root: Path, seed: int, nth: int, moment: str) -> list[tuple[int, bytes]]:
    """Work in a forked process that dies at the nth change; what it acknowledged."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        try:
            disk = DyingDisk(root)
            disk.arm(nth, moment)
            run(disk, seed, into)
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return [_ACK.unpack_from(told, at) for at in range(0, len(told) - _ACK.size + 1, _ACK.size)]


class Witness:
    """Remembers what was acknowledged over many lives, and checks each reboot against it."""

    def __init__(self) -> None:
        self.heads: dict[int, bytes] = {}

    def check(self, root: Path, acknowledged: list[tuple[int, bytes]]) -> None:
        self.heads.update(acknowledged)
        with open_journal(RealDisk(root), quota_bytes=96 << 10) as journal:
            assert journal.durable_seq >= max(self.heads, default=0)
            assert not [f for f in journal.findings if "torn write" not in f]
            frames = list(journal.frames())
            first = journal.usage.first_seq
            assert [f.seq for f in frames] == list(range(first, journal.durable_seq + 1))
            for frame in frames:
                assert self.heads.get(frame.seq, frame.head) == frame.head
                if frame.type is not RecordType.GAP and not frame.withheld:
                    assert frame.payload == payload_of(frame.seq, frame.length)
            missing = first - 1 - journal.delivered.seq
            assert missing <= 0 or journal.usage.dropped is not None
        verified = verify_folder(RealDisk(root), trust=TRUST)
        assert verified.ok, verified.problems


def _fork_campaign(root: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    witness = Witness()
    lives = 0
    for life in range(kills):
        nth = rng.choice([rng.randrange(12), rng.randrange(60), rng.randrange(400)])
        told = kill_in_fork(root, seed + life, nth, rng.choice(["before", "after", "half"]))
        witness.check(root, told)
        lives += bool(told)
    assert lives > kills // 4
    assert len(witness.heads) > kills


def test_J1_killed_at_any_operation(tmp_path):
    """One folder, forty lives, each killed at a random operation: every acknowledged record is there."""
    _fork_campaign(tmp_path, 40, seed=1)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(20))
def test_J1_killed_at_any_operation_often(tmp_path, seed):
    """The same over ten thousand kills."""
    _fork_campaign(tmp_path, 500, seed=1000 * (seed + 2))


CALLS = (
    "write",
    "fdatasync",
    "fsync",
    "rename",
    "unlink",
    "truncate",
    "mkdir",
    "openat",
    "pwrite64",
    "flock",
)


def _kill_at_call(root: Path, call: str, nth: int, seed: int) -> list[tuple[int, bytes]]:
    """Run a fresh interpreter under strace, killed at its nth call."""
    here = Path(__file__)
    command = ["strace", "-f", "-qq", "-o", os.devnull, "--seccomp-bpf", "-e", f"trace={call}"]
    command += ["-e", f"inject={call}:signal=SIGKILL:when={nth}"]
    command += [sys.executable, str(here), str(root), str(seed)]
    paths = [str(here.parents[1]), str(here.parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    told = subprocess.run(command, stdout=subprocess.PIPE, env=environment, timeout=120, check=False).stdout
    return [_ACK.unpack_from(told, at) for at in range(0, len(told) - _ACK.size + 1, _ACK.size)]


def _strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    probe = ["strace", "-f", "-qq", "-o", os.devnull, "--seccomp-bpf", "-e", "trace=write", "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _strace_campaign(root: Path, kills: int, seed: int) -> None:
    if not _strace_works():
        pytest.skip("needs strace with permission to trace")
    rng = random.Random(seed)
    witness = Witness()
    for life in range(kills):
        call = CALLS[life % len(CALLS)]
        top = {"mkdir": 3, "flock": 2, "pwrite64": 2, "openat": 900, "truncate": 2, "unlink": 6}.get(call, 40)
        told = _kill_at_call(root, call, rng.randint(1, top), seed + life)
        witness.check(root, told)
    assert witness.heads


def test_J1_killed_at_system_calls(tmp_path):
    """A real process, killed by the kernel on entering a system call, has lost nothing it acknowledged."""
    _strace_campaign(tmp_path, 4, seed=1)


@pytest.mark.faults
def test_J1_killed_at_system_calls_often(tmp_path):
    """The same over five hundred kills."""
    _strace_campaign(tmp_path, 500, seed=2)


if __name__ == "__main__":
    run(RealDisk(Path(sys.argv[1])), int(sys.argv[2]), sys.stdout.fileno())
