"""A disk in memory that remembers every operation and can show what any power cut would have left.

The model is POSIX at its most hostile: bytes are durable only after ``sync`` of their file, names only
after ``sync_folder`` of their folder. Until then every write may be lost, torn or zeroed and every
create, rename and unlink may be lost, each independently of the others, so that reorderings are among
the outcomes. A rename is atomic. A failed sync drops what was unsynced for good: a later sync that
succeeds does not bring it back (what Linux does).

    disk = CrashDisk()
    ... run the code under test, calling disk.note(...) at each promise it makes ...
    for state in crash_states(disk):
        survivor = state.disk()      # a CrashDisk again: reboot from here
        promised = state.notes       # the promises made before the cut
"""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiotkit.core.errors import StorageError
from aiotkit.edge.disk import parent, storage_error, taken

Entry = int | None  # an inode, or None for a folder


@dataclass(slots=True)
class Op:
    """One operation that changes the disk."""

    kind: str  # write, truncate, link, unlink, rename, sync, sync_folder, note
    path: str
    inode: int = 0
    at: int = 0
    data: bytes = b""
    new: str = ""
    orphan: bool = False  # dropped by a failed sync: no later sync makes it durable
    note: object = None


class Killed(BaseException):
    """Raised by a ``fail`` callback: the process dies here, before the operation."""


def _never(op: Op) -> int | None:
    return None


def _everywhere(after: int) -> bool:
    return True


@dataclass(frozen=True)
class CrashState:
    """What a power cut after ``after`` operations may have left."""

    after: int
    choice: tuple[str, ...]
    files: dict[str, bytes]
    folders: frozenset[str]
    notes: tuple[object, ...]

    def disk(self) -> CrashDisk:
        """A disk that holds this and nothing unsynced."""
        return CrashDisk(self.files, self.folders)


@dataclass
class CrashDisk:
    """A ``Disk`` in memory; see the module.

    ``fail`` is asked before every changing operation and may answer an errno: the operation then fails
    with it (an ``append`` or ``write`` after half of its bytes). It may also raise ``Killed``; then call
    ``reboot`` before the next process uses the same disk. ``capacity`` is the size of the disk.
    """

    initial: dict[str, bytes] = field(default_factory=dict)
    initial_folders: frozenset[str] = frozenset()
    fail: Callable[[Op], int | None] = _never
    capacity: int | None = None

    def __post_init__(self) -> None:
        self.ops: list[Op] = []
        self._bytes: dict[int, bytearray] = {}
        self._names: dict[str, Entry] = dict.fromkeys(self.initial_folders)
        self._locks: set[str] = set()
        self._inodes = itertools.count(1)
        for path, data in self.initial.items():
            inode = next(self._inodes)
            self._names[path] = inode
            self._bytes[inode] = bytearray(data)
        self._initial_names = dict(self._names)
        self._initial_bytes = {inode: bytes(data) for inode, data in self._bytes.items()}

    # -- what the code under test uses

    def read(self, path: str, at: int = 0, size: int | None = None) -> bytes:
        data = self._bytes[self._file(path)]
        return bytes(data[at:] if size is None else data[at : at + size])

    def size(self, path: str) -> int | None:
        inode = self._names.get(path)
        return None if inode is None else len(self._bytes[inode])

    def list(self, folder: str) -> tuple[str, ...]:
        prefix = f"{folder}/" if folder else ""
        inside = (path[len(prefix) :] for path in self._names if path.startswith(prefix))
        return tuple(sorted(name for name in inside if name and "/" not in name))

    def append(self, path: str, data: bytes) -> None:
        self._put(path, data)

    def write(self, path: str, data: bytes) -> None:
        if path in self._names:
            self._cut(path, 0)
        self._put(path, data)

    def truncate(self, path: str, size: int) -> None:
        self._cut(path, size)

    def sync(self, path: str) -> None:
        op = Op("sync", path, self._file(path))
        number = self.fail(op)
        if number is not None:
            for earlier in self._unsynced_bytes(op.inode):
                earlier.orphan = True
            raise _error("sync", path, number)
        self.ops.append(op)

    def rename(self, old: str, new: str) -> None:
        self._do(Op("rename", old, self._file(old), new=new))
        self._names[new] = self._names.pop(old)

    def sync_folder(self, folder: str) -> None:
        if folder and folder not in self._names:
            raise _error("sync", folder, errno.ENOENT)
        self._do(Op("sync_folder", folder))

    def unlink(self, path: str) -> None:
        self._do(Op("unlink", path, self._file(path)))
        del self._names[path]

    def mkdir(self, path: str) -> None:
        if path not in self._names:
            self._in_folder(path)
            self._do(Op("link", path, inode=-1))
            self._names[path] = None

    def rmdir(self, path: str) -> None:
        if self.list(path):
            raise _error("remove", path, errno.ENOTEMPTY)
        self._do(Op("unlink", path, inode=-1))
        del self._names[path]

    def free_bytes(self) -> int:
        return (1 << 40) if self.capacity is None else self.capacity - self.used

    def lock(self, path: str) -> MemoryLock:
        if path in self._locks:
            raise taken(path, "1")
        self._locks.add(path)
        return MemoryLock(self._locks, path)

    def close(self) -> None:
        """Nothing is held open."""

    # -- what the test uses

    @property
    def used(self) -> int:
        """Bytes that files hold."""
        return sum(len(self._bytes[i]) for i in self._names.values() if i is not None)

    @property
    def files(self) -> dict[str, bytes]:
        """The files as a running process sees them (and a kill leaves them)."""
        return {p: bytes(self._bytes[i]) for p, i in self._names.items() if i is not None}

    def note(self, what: object) -> None:
        """Write down a promise at this moment; states cut later carry it."""
        self.ops.append(Op("note", "", note=what))

    def after_kill(self) -> CrashDisk:
        """The disk that the next process finds when this one is killed: everything it wrote."""
        return CrashDisk(self.files, self._folders(self._names))

    def reboot(self) -> None:
        """The process is gone, the disk goes on: nothing is synced by that, and locks are free."""
        self.fail = _never
        self._locks.clear()

    def start(self) -> tuple[dict[str, Entry], dict[int, bytes]]:
        """Names and bytes before the first operation."""
        return dict(self._initial_names), dict(self._initial_bytes)

    # -- inside

    def _file(self, path: str) -> int:
        inode = self._names.get(path)
        if inode is None:
            raise _error("open", path, errno.ENOENT if path not in self._names else errno.EISDIR)
        return inode

    def _in_folder(self, path: str) -> None:
        folder = parent(path)
        if folder and self._names.get(folder, 0) is not None:
            raise _error("create", path, errno.ENOENT)

    def _put(self, path: str, data: bytes) -> None:
        if path not in self._names:
            self._in_folder(path)
            inode = next(self._inodes)
            self._do(Op("link", path, inode))
            self._names[path] = inode
            self._bytes[inode] = bytearray()
        inode = self._file(path)
        op = Op("write", path, inode, at=len(self._bytes[inode]), data=data)
        number = self.fail(op)
        room = self.free_bytes()
        if number is None and len(data) > room:
            number = errno.ENOSPC
        if number is not None:
            op.data = data[: min(len(data) // 2, room)]
        self.ops.append(op)
        self._bytes[inode] += op.data
        if number is not None:
            raise _error("write", path, number)

    def _cut(self, path: str, size: int) -> None:
        inode = self._file(path)
        self._do(Op("truncate", path, inode, at=size))
        _cut_to(self._bytes[inode], size)

    def _do(self, op: Op) -> None:
        number = self.fail(op)
        if number is not None:
            raise _error(op.kind, op.path, number)
        self.ops.append(op)

    def _unsynced_bytes(self, inode: int) -> Iterator[Op]:
        for op in reversed(self.ops):
            if op.inode == inode and op.kind == "sync":
                return
            if op.inode == inode and op.kind in ("write", "truncate"):
                yield op

    @staticmethod
    def _folders(names: dict[str, Entry]) -> frozenset[str]:
        return frozenset(path for path, inode in names.items() if inode is None)


@dataclass
class MemoryLock:
    """A lock among the users of one ``CrashDisk``."""

    held: set[str]
    path: str

    def release(self) -> None:
        self.held.discard(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def crash_states(
    disk: CrashDisk, *, per_cut: int = 256, seed: int = 0, cuts: Callable[[int], bool] = _everywhere
) -> Iterator[CrashState]:
    """Every state that a power cut at any operation may leave, without repeats.

    Where one cut has more than ``per_cut`` outcomes, all extreme ones (everything lost, everything kept,
    each single operation lost, torn, zeroed or the only one kept) and a seeded sample of the rest are
    given. ``cuts`` chooses the numbers of operations after which to cut.
    """
    rng = random.Random(seed)
    seen = set()
    for after in range(len(disk.ops) + 1):
        if not cuts(after):
            continue
        done = disk.ops[:after]
        fates = [_fates(op) if loose else ("kept",) for op, loose in zip(done, _loose(done), strict=True)]
        notes = tuple(op.note for op in done if op.kind == "note")
        for choice in _choices(fates, per_cut, rng):
            files, folders = _outcome(disk, done, choice)
            key = (notes, folders, tuple(sorted(files.items())))
            if hash(key) not in seen:
                seen.add(hash(key))
                yield CrashState(after, choice, files, folders, notes)


_HOLES = {
    "kept": lambda data: data,
    "torn": lambda data: data[: len(data) // 2],
    "byte": lambda data: data[:1],
    "short": lambda data: data[:-1],
    "zeroed": lambda data: bytes(len(data)),
    "tail": lambda data: bytes(len(data) // 2) + data[len(data) // 2 :],
    "hole": lambda data: data[: len(data) // 3] + bytes(len(data) // 3) + data[2 * (len(data) // 3) :],
}


def _fates(op: Op) -> tuple[str, ...]:
    if op.kind == "write" and len(op.data) > 1:
        return ("kept", "lost", "torn", "byte", "short", "zeroed", "tail", "hole")
    return ("kept", "lost")


def _loose(done: list[Op]) -> list[bool]:
    """Which operations no later sync has made durable."""
    synced: set[int] = set()
    folders: set[str] = set()
    loose = []
    for op in reversed(done):
        if op.kind == "sync":
            synced.add(op.inode)
        elif op.kind == "sync_folder":
            folders.add(op.path)
        if op.kind in ("write", "truncate"):
            loose.append(op.orphan or op.inode not in synced)
        elif op.kind in ("link", "unlink"):
            loose.append(parent(op.path) not in folders)
        elif op.kind == "rename":
            loose.append(parent(op.new) not in folders or parent(op.path) not in folders)
        else:
            loose.append(False)
    return loose[::-1]


def _choices(fates: list[tuple[str, ...]], limit: int, rng: random.Random) -> Iterator[tuple[str, ...]]:
    total = 1
    for options in fates:
        total *= len(options)
    if total <= limit:
        yield from itertools.product(*fates)
        return
    yield from _extremes(fates)
    for _ in range(limit):
        yield tuple(rng.choice(options) for options in fates)


def _extremes(fates: list[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    kept = tuple("kept" for _ in fates)
    lost = tuple(options[-1] if len(options) == 1 else "lost" for options in fates)
    yield kept
    yield lost
    for i, options in enumerate(fates):
        for fate in options[1:]:
            yield (*kept[:i], fate, *kept[i + 1 :])
            yield (*lost[:i], fate, *lost[i + 1 :])
        if len(options) > 1:
            yield (*lost[:i], "kept", *lost[i + 1 :])


def _outcome(
    disk: CrashDisk, done: list[Op], choice: tuple[str, ...]
) -> tuple[dict[str, bytes], frozenset[str]]:
    names, start = disk.start()
    data = {inode: bytearray(held) for inode, held in start.items()}
    for op, fate in zip(done, choice, strict=True):
        if fate == "lost":
            continue
        if op.kind == "write":
            _land(data.setdefault(op.inode, bytearray()), op, fate)
        elif op.kind == "truncate":
            _cut_to(data.setdefault(op.inode, bytearray()), op.at)
        elif op.kind == "link":
            names[op.path] = None if op.inode < 0 else op.inode
        elif op.kind == "unlink":
            names.pop(op.path, None)
        elif op.kind == "rename":
            names.pop(op.path, None)
            names[op.new] = op.inode
    names = {path: inode for path, inode in names.items() if _reachable(path, names)}
    files = {path: bytes(data.get(inode, b"")) for path, inode in names.items() if inode is not None}
    return files, CrashDisk._folders(names)


def _land(file: bytearray, op: Op, fate: str) -> None:
    """Put a write's bytes in place; a hole before them reads as zeros."""
    landed = _HOLES[fate](op.data)
    if len(file) < op.at:
        file.extend(bytes(op.at - len(file)))
    file[op.at : op.at + len(landed)] = landed


def _cut_to(file: bytearray, size: int) -> None:
    del file[size:]
    file.extend(bytes(size - len(file)))


def _reachable(path: str, names: dict[str, Entry]) -> bool:
    folder = parent(path)
    return not folder or (names.get(folder, 0) is None and _reachable(folder, names))


def _error(verb: str, path: str, number: int) -> StorageError:
    import os

    return storage_error(f"cannot {verb} {path}", OSError(number, os.strerror(number)))
