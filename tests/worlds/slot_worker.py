"""A process that installs and rolls back until it is killed.

``python slot_worker.py script ROOT ACT…`` acts once. ``python slot_worker.py nursery`` imports everything
once and then forks a child for every line ``WHEN ROOT ACT…`` on its input: WHEN is ``in:S`` (killed after
S seconds) or ``at:N`` (kills itself before its Nth disk operation). It answers ``killed`` or ``ended``.
Every act is told in ROOT/acts before and after: ``begin DIGEST FLOOR``, ``done DIGEST FLOOR``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from worlds.releases import release, release_digest, slots_on

from aiotkit.core.errors import SlotError
from aiotkit.edge.disk import RealDisk

RELEASES = 48


class DyingDisk(RealDisk):
    """A disk whose process is killed before its Nth changing operation."""

    def __init__(self, root: Path, at: int) -> None:
        super().__init__(root)
        self.left = at

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, path: str, data: bytes) -> None:
        self.count()
        super().write(path, data[: len(data) // 2])
        self.count()  # in the middle of the bytes
        super().write(path, data)

    def sync(self, path: str) -> None:
        self.count()
        super().sync(path)

    def rename(self, old: str, new: str) -> None:
        self.count()
        super().rename(old, new)

    def sync_folder(self, folder: str) -> None:
        self.count()
        super().sync_folder(folder)

    def unlink(self, path: str) -> None:
        self.count()
        super().unlink(path)

    def mkdir(self, path: str) -> None:
        self.count()
        super().mkdir(path)


def play(disk: RealDisk, acts: list[str]) -> None:
    """``up`` installs the release above the floor, ``again`` the one at it, ``back`` rolls back."""
    told = os.open(disk.root / "acts", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    slots = slots_on(disk)
    for act in acts:
        counter = slots.floor + (act == "up" or slots.floor == 0)
        previous = slots.status().previous
        target = release_digest(counter) if act != "back" else previous.bundle if previous else "none"
        os.write(told, f"begin {target} {slots.floor}\n".encode())
        if act != "back":
            slots.install(release(counter))
        else:
            try:
                slots.rollback()
            except SlotError:
                target = slots.active().digest
        os.write(told, f"done {target} {slots.floor}\n".encode())


def child(when: str, root: Path, acts: list[str]) -> None:
    """One life; never returns."""
    kind, _, value = when.partition(":")
    disk = DyingDisk(root, int(value)) if kind == "at" else RealDisk(root)
    status = 70
    try:
        play(disk, acts)
        status = 0
    finally:
        os._exit(status)


def answer(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def nursery() -> None:
    """Fork, kill, answer, until the input ends."""
    for counter in range(1, RELEASES + 1):
        release(counter), release_digest(counter)
    answer("ready")
    for line in sys.stdin:
        when, root, *acts = line.split()
        born = os.fork()
        if born == 0:
            child(when, Path(root), acts)
        if when.startswith("in:"):
            time.sleep(float(when[3:]))
            os.kill(born, signal.SIGKILL)
        _, status = os.waitpid(born, 0)
        answer("killed" if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}")


if __name__ == "__main__":
    if sys.argv[1] == "nursery":
        nursery()
    else:
        play(RealDisk(Path(sys.argv[2])), sys.argv[3:])
