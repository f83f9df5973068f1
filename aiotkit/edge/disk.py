"""The seam between what a device keeps and the disk it keeps it on.

Journal and slots write only through a ``Disk``, so that a test can put the power cut of its choice
behind every operation. Paths are relative, with ``/``. Nothing is durable until it is synced: a file's
bytes by ``sync``, its name (create, rename, unlink) by ``sync_folder`` of the folder that holds it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Protocol, Self

from aiotkit.core.errors import StorageError

ASIDE = ".new"
_FILE_MODE = 0o640
_FOLDER_MODE = 0o750
_DO = {
    errno.ENOSPC: "Free space on the disk; nothing that was acknowledged is lost.",
    errno.EDQUOT: "Raise the disk quota; nothing that was acknowledged is lost.",
    errno.EROFS: "The disk is mounted read-only: check it, then mount it writable.",
    errno.EIO: "The disk reports a hardware error: replace it.",
    errno.EACCES: "Give the device's user access to the state folder.",
}


class Lock(Protocol):
    """A single-writer lock that is held until released; the system frees it when the process dies."""

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""

    def __enter__(self) -> Self:
        """Hold the lock for a ``with`` block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release it."""


class Disk(Protocol):
    """What writers may do to a disk. Every method raises ``StorageError`` with ``errno`` kept."""

    def read(self, path: str, at: int = 0, size: int | None = None) -> bytes:
        """The bytes from ``at``, all or at most ``size``; fewer where the file ends. ENOENT when missing."""

    def size(self, path: str) -> int | None:
        """Bytes of the file; ``None`` when there is no such file."""

    def list(self, folder: str) -> tuple[str, ...]:
        """Names of files and folders in a folder, sorted; empty when there is no such folder."""

    def append(self, path: str, data: bytes) -> None:
        """Add bytes at the end, creating the file. After an error any part of them may be there."""

    def write(self, path: str, data: bytes) -> None:
        """Create the file, or cut it to nothing, and write: for files aside. Use ``replace`` for others."""

    def truncate(self, path: str, size: int) -> None:
        """Cut the file to ``size`` bytes."""

    def sync(self, path: str) -> None:
        """Return once the file's bytes are durable. After an error none of the unsynced are, ever."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name in one step, replacing what had it."""

    def sync_folder(self, folder: str) -> None:
        """Return once the names in the folder are durable (``""`` is the root)."""

    def unlink(self, path: str) -> None:
        """Remove a file. ENOENT when missing."""

    def mkdir(self, path: str) -> None:
        """Make one folder; nothing when it is there."""

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""

    def free_bytes(self) -> int:
        """Bytes that may still be written."""

    def lock(self, path: str) -> Lock:
        """Become the single writer; ``StorageError`` at once when another process is."""

    def close(self) -> None:
        """Close what is held open; the disk stays usable."""


def replace(disk: Disk, path: str, data: bytes) -> None:
    """Give a file new content so that a crash leaves the old or the new, and durably the new on return."""
    disk.write(path + ASIDE, data)
    disk.sync(path + ASIDE)
    disk.rename(path + ASIDE, path)
    disk.sync_folder(parent(path))


def make_folder(disk: Disk, path: str) -> None:
    """Make a folder and those above it, durably."""
    parts = PurePosixPath(path).parts
    for depth in range(1, len(parts) + 1):
        folder = "/".join(parts[:depth])
        disk.mkdir(folder)
        disk.sync_folder(parent(folder))


def parent(path: str) -> str:
    """The folder that holds a path; ``""`` is the root.

    >>> parent("journal/base.json"), parent("journal")
    ('journal', '')
    """
    return path.rpartition("/")[0]


class RealDisk:
    """The disk under one folder of the file system.

    Files that are appended to stay open until ``close``. Not for several threads.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._appending: dict[str, int] = {}
        with _storage("create", root):
            root.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)

    def read(self, path: str, at: int = 0, size: int | None = None) -> bytes:
        """See ``Disk.read``."""
        with _storage("read", self._at(path)), self._at(path).open("rb") as file:
            file.seek(at)
            return file.read(-1 if size is None else size)

    def size(self, path: str) -> int | None:
        """See ``Disk.size``."""
        with _storage("look at", self._at(path)):
            try:
                return self._at(path).stat().st_size if self._at(path).is_file() else None
            except FileNotFoundError:
                return None

    def list(self, folder: str) -> tuple[str, ...]:
        """See ``Disk.list``."""
        with _storage("list", self._at(folder)):
            try:
                return tuple(sorted(entry.name for entry in self._at(folder).iterdir()))
            except FileNotFoundError:
                return ()

    def append(self, path: str, data: bytes) -> None:
        """See ``Disk.append``."""
        with _storage("append to", self._at(path)):
            if path not in self._appending:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._appending[path] = os.open(self._at(path), flags, _FILE_MODE)
            _write_all(self._appending[path], data)

    def write(self, path: str, data: bytes) -> None:
        """See ``Disk.write``."""
        self._release(path)
        with _storage("write", self._at(path)):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with _opened(self._at(path), flags) as handle:
                _write_all(handle, data)

    def truncate(self, path: str, size: int) -> None:
        """See ``Disk.truncate``."""
        self._release(path)
        with _storage("truncate", self._at(path)):
            os.truncate(self._at(path), size)

    def sync(self, path: str) -> None:
        """See ``Disk.sync``."""
        with _storage("sync", self._at(path)):
            if path in self._appending:
                _sync_data(self._appending[path])
            else:
                with _opened(self._at(path), os.O_RDWR | os.O_CLOEXEC) as handle:
                    os.fsync(handle)

    def rename(self, old: str, new: str) -> None:
        """See ``Disk.rename``."""
        self._release(old)
        self._release(new)
        with _storage("rename", self._at(old)):
            self._at(old).replace(self._at(new))

    def sync_folder(self, folder: str) -> None:
        """See ``Disk.sync_folder``."""
        with (
            _storage("sync", self._at(folder)),
            _opened(self._at(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as handle,
        ):
            os.fsync(handle)

    def unlink(self, path: str) -> None:
        """See ``Disk.unlink``."""
        self._release(path)
        with _storage("remove", self._at(path)):
            self._at(path).unlink()

    def mkdir(self, path: str) -> None:
        """See ``Disk.mkdir``."""
        with _storage("create", self._at(path)):
            self._at(path).mkdir(exist_ok=True, mode=_FOLDER_MODE)

    def rmdir(self, path: str) -> None:
        """See ``Disk.rmdir``."""
        with _storage("remove", self._at(path)):
            self._at(path).rmdir()

    def free_bytes(self) -> int:
        """See ``Disk.free_bytes``."""
        with _storage("look at", self.root):
            figures = os.statvfs(self.root)
        return figures.f_bavail * figures.f_frsize

    def lock(self, path: str) -> Lock:
        """See ``Disk.lock``: an advisory ``flock``; the file names the process that holds it."""
        return _FileLock(self._at(path))

    def close(self) -> None:
        """See ``Disk.close``."""
        for path in tuple(self._appending):
            self._release(path)

    def _release(self, path: str) -> None:
        handle = self._appending.pop(path, None)
        if handle is not None:
            with _storage("close", self._at(path)):
                os.close(handle)

    def _at(self, path: str) -> Path:
        inside = PurePosixPath(path)
        if inside.is_absolute() or ".." in inside.parts:
            raise StorageError(f"path {path!r}", expected="a relative path inside the state folder")
        return self.root / path


class _FileLock:
    """``flock`` on a file; see ``Lock``."""

    def __init__(self, path: Path) -> None:
        self._handle: int | None = None
        with _storage("open", path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise storage_error(f"cannot lock {path}", error) from error
            raise taken(str(path), owner) from error
        with suppress(OSError):  # the name of the holder is a courtesy: a full disk must not stop the start
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle

    def release(self) -> None:
        """See ``Lock.release``."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def taken(path: str, owner: str) -> StorageError:
    """The error of a lock that another process holds."""
    trouble = StorageError(
        f"{path} is in use",
        expected="one writer",
        found=f"process {owner} holding it",
        do="Stop that process first, or use another state folder.",
    )
    trouble.errno = errno.EWOULDBLOCK
    return trouble


def storage_error(what: str, error: OSError) -> StorageError:
    """A ``StorageError`` that keeps the system's number and says what to do."""
    number = error.errno
    trouble = StorageError(what, found=error.strerror or str(error), do=_DO.get(number or 0, ""))
    trouble.errno = number
    return trouble


@contextmanager
def _storage(verb: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(f"cannot {verb} {path}", error) from error


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags, _FILE_MODE)
    try:
        yield handle
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


_sync_data = getattr(os, "fdatasync", os.fsync)
