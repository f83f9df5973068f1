"""U1: real processes killed for real while they install and roll back; U8 with real system calls."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from worlds import slot_worker
from worlds.crash import CrashDisk
from worlds.releases import release, release_digest, slots_on
from worlds.slot_promises import Promise, broken_promises, found_after

from aiotkit.edge.disk import RealDisk

WORKER = Path(slot_worker.__file__)
TESTS = WORKER.parent.parent
LIFE = ("up", "up", "back", "up", "again")
FILES = (
    "",
    "/lock",
    "/ptr0",
    "/ptr1",
    "/ptr0.new",
    "/ptr1.new",
    "/slot0.aiot",
    "/slot1.aiot",
    "/staged.aiot",
)
RENAMES = "rename,renameat,renameat2"
CALLS = ("openat", "write,pwrite64", "fsync", RENAMES, "unlink,unlinkat", "mkdir,mkdirat", "ftruncate")
WRITING = ("write", "fsync", RENAMES, "mkdir,mkdirat")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


class Nursery:
    """A process that bears and kills workers; see ``worlds.slot_worker``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), "nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self._answer() == "ready"

    def kill(self, when: str, root: Path, acts: tuple[str, ...] = LIFE) -> str:
        """Let a worker act on a folder and kill it; ``killed``, or ``ended N`` when it was done before."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join((when, str(root), *acts)) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        assert self._process.wait(timeout=30) == 0
        self._process.stdout.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(TESTS)}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    found = Nursery()
    yield found
    found.close()


def told(root: Path, start: Promise) -> tuple[Promise, set[str]]:
    """What a worker had acknowledged, and what it had begun and not finished."""
    promised, under_way = start, set()
    path = root / "acts"
    for line in path.read_text().splitlines() if path.exists() else ():
        word, digest, floor = line.split()
        if word == "done":
            promised, under_way = Promise(digest, int(floor)), set()
        else:
            under_way = {digest}
    return promised, under_way


def judge(root: Path, start: Promise) -> Promise:
    """Every promise holds on what a killed worker left, and booting takes less than five seconds."""
    promised, under_way = told(root, start)
    started = time.monotonic()
    slots_on(RealDisk(root)).status()
    assert time.monotonic() - started < 5
    folder = root / "slots"
    files = {f"slots/{p.name}": p.read_bytes() for p in folder.iterdir()} if folder.exists() else {}
    left = CrashDisk(files, frozenset({"slots"}) if folder.exists() else frozenset())
    assert list(broken_promises(left, promised, under_way=under_way)) == []
    (root / "acts").unlink(missing_ok=True)
    return found_after(left)


def kill_at_random(nursery: Nursery, folder: Path, kills: int, seed: int) -> int:
    """Kill workers at random instants, each going on where the last one fell; how many were really killed."""
    rng = random.Random(seed)
    root, killed, promised = folder / "0", 0, Promise()
    for trial in range(kills):
        if promised.floor > slot_worker.RELEASES - len(LIFE):
            root, promised = folder / str(trial), Promise()
        root.mkdir(exist_ok=True)
        killed += nursery.kill(f"in:{rng.uniform(0, 0.06):.5f}", root) == "killed"
        promised = judge(root, promised)
    return killed


def test_U1_kills_at_random_instants_sampled(nursery: Nursery, tmp_path: Path) -> None:
    """Whenever the process dies, the old or new bundle runs at once, and what was acknowledged stays."""
    assert kill_at_random(nursery, tmp_path, kills=40, seed=1) > 15


@pytest.mark.faults
def test_U1_kills_at_random_instants_campaign(nursery: Nursery, tmp_path: Path) -> None:
    """As sampled, ten thousand times."""
    assert kill_at_random(nursery, tmp_path, kills=10_000, seed=2) > 5_000


def prepared(root: Path, kind: str) -> Promise:
    """A folder before a worker begins: empty, or running release 2 with what a dead installer left."""
    root.mkdir()
    if kind == "empty":
        return Promise()
    slots = slots_on(RealDisk(root))
    slots.install(release(1))
    slots.install(release(2))
    for name in ("staged.aiot", "ptr1.new"):
        (root / "slots" / name).write_bytes(b"left behind")
    return Promise(release_digest(2), 2)


@pytest.mark.parametrize("kind", ["empty", "untidy"])
def test_U1_killed_before_and_within_every_operation(nursery: Nursery, tmp_path: Path, kind: str) -> None:
    """Dying before any disk operation, or halfway through a file's bytes, breaks no promise."""
    start = prepared(tmp_path / "template", kind)
    for at in itertools.count(1):
        root = tmp_path / str(at)
        shutil.copytree(tmp_path / "template", root)
        answer = nursery.kill(f"at:{at}", root, ("up", "back", "up"))
        judge(root, start)
        if answer != "killed":
            assert answer == "ended 0"
            assert at > 30
            return


def under_strace(root: Path, calls: str, fault: str, acts: tuple[str, ...]) -> int:
    """Run a worker whose system calls on slot files are tampered with; its exit status (-9: killed)."""
    paths = [argument for name in FILES for argument in ("-P", f"{root}/slots{name}")]
    trace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"]
    worker = [sys.executable, str(WORKER), "script", str(root), *acts]
    done = subprocess.run(
        [*trace, *paths, *worker], env=environment(), capture_output=True, timeout=60, check=False
    )
    return done.returncode


def kill_in_call(folder: Path, kind: str, calls: str, number: int) -> bool:
    """Kill a worker in its Nth such system call on a slot file; whether there was one."""
    root = folder / f"{kind}-{calls.partition(',')[0]}-{number}"
    start = prepared(root, kind)
    status = under_strace(root, calls, f"signal=SIGKILL:when={number}", ("up", "back", "up"))
    assert status in (0, -9, 137)
    promised = judge(root, start)
    assert slots_on(RealDisk(root)).install(release(promised.floor + 1)).manifest.release_counter
    return status != 0


@needs_strace
@pytest.mark.parametrize(
    ("kind", "calls", "number"),
    [
        ("empty", "mkdir,mkdirat", 1),
        ("untidy", "unlink,unlinkat", 2),
        ("untidy", "write,pwrite64", 3),
        ("untidy", "fsync", 4),
        ("untidy", RENAMES, 3),
        ("untidy", "openat", 12),
    ],
)
def test_U1_killed_in_a_system_call_sampled(tmp_path: Path, kind: str, calls: str, number: int) -> None:
    """A process killed inside the kernel at a write, sync, rename, … leaves the old or new bundle running."""
    assert kill_in_call(tmp_path, kind, calls, number)


@needs_strace
@pytest.mark.faults
@pytest.mark.parametrize("kind", ["empty", "untidy"])
@pytest.mark.parametrize("calls", CALLS)
def test_U1_killed_in_a_system_call_campaign(tmp_path: Path, kind: str, calls: str) -> None:
    """As sampled, in every single system call of each kind that touches a slot file."""
    number = next(n for n in itertools.count(1) if not kill_in_call(tmp_path, kind, calls, n))
    assert number > 1 or calls.startswith(("mkdir", "unlink"))


def fail_in_call(folder: Path, calls: str, error: str, number: int) -> bool:
    """Let one system call on a slot file fail; whether there was one."""
    root = folder / f"{calls.partition(',')[0]}-{error}-{number}"
    start = prepared(root, "untidy")
    status = under_strace(root, calls, f"error={error}:when={number}", ("up",))
    assert status in (0, 1)
    judge(root, start)
    slots = slots_on(RealDisk(root))
    assert slots.install(release(4)).digest == release_digest(4)
    assert sorted(p.name for p in (root / "slots").iterdir()) == [
        "lock", "ptr0", "ptr1", "slot0.aiot", "slot1.aiot",
    ]  # fmt: skip
    return status != 0


@needs_strace
@pytest.mark.parametrize(
    ("calls", "error", "number"), [("write", "ENOSPC", 1), ("fsync", "EIO", 2), (RENAMES, "EROFS", 2)]
)
def test_U8_a_failing_system_call_sampled(tmp_path: Path, calls: str, error: str, number: int) -> None:
    """A real install whose write, sync or rename fails exits with an error, and the old bundle runs."""
    assert fail_in_call(tmp_path, calls, error, number)


@needs_strace
@pytest.mark.faults
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EROFS"])
@pytest.mark.parametrize("calls", WRITING)
def test_U8_a_failing_system_call_campaign(tmp_path: Path, calls: str, error: str) -> None:
    """As sampled, for every single such call."""
    number = next(n for n in itertools.count(1) if not fail_in_call(tmp_path, calls, error, n))
    assert number > 3 or calls.startswith("mkdir")
