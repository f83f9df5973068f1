"""The folder devices deliver to: ``<inbox>/<device>/batch-….ajb`` in, ``watermark.json`` out."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import StorageError
from aiotkit.fleet.batch import DEVICE_NAME, SUFFIX, BatchName, Stream, parse_name
from aiotkit.lake.store import LocalStore, storage_error, sync_path

WATERMARK = "watermark.json"
QUARANTINE = "quarantine"
LOCK = ".collector.lock"


@dataclass(frozen=True, slots=True)
class BatchFile:
    """A batch that lies in the inbox: where, what its name says, its size and when it was written (ns)."""

    device: str
    name: BatchName
    path: Path
    size: int
    written_ns: int

    @property
    def stream(self) -> Stream:
        """The stream it claims to continue."""
        return Stream(self.device, self.name.journal_id)


class Inbox:
    """The device folders under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._store = LocalStore(root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Work on the inbox alone; raises ``StorageError`` when another process does."""
        try:
            handle = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(self.root / LOCK, error) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError(
                    f"inbox {self.root}: another collector works here",
                    do="One collector an inbox: stop the other one, or give this one its own inbox.",
                ) from error
            yield
        finally:
            os.close(handle)

    def devices(self) -> tuple[str, ...]:
        """Devices that have a folder, sorted."""
        try:
            found = [p.name for p in self.root.iterdir() if p.is_dir() and not p.is_symlink()]
        except OSError as error:
            raise storage_error(self.root, error) from error
        return tuple(sorted(name for name in found if re.fullmatch(DEVICE_NAME, name)))

    def batches(self, device: str) -> tuple[list[BatchFile], list[Path]]:
        """What a device has delivered, sorted by journal and place; and files that bear no such name."""
        good, bad = [], []
        for path in (self.root / device).glob(f"*{SUFFIX}"):
            name = parse_name(path.name)
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if name is None or not path.is_file() or path.is_symlink():
                bad.append(path)
            else:
                good.append(BatchFile(device, name, path, status.st_size, status.st_mtime_ns))
        return sorted(good, key=lambda b: b.name), sorted(bad)

    def read(self, path: Path, size: int | None = None) -> bytes:
        """The bytes of a delivered file, or its first ``size``."""
        try:
            with path.open("rb") as file:
                return file.read() if size is None else file.read(size)
        except OSError as error:
            raise storage_error(path, error) from error

    def remove(self, path: Path) -> None:
        """Delete what was collected."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(path, error) from error

    def quarantine(self, path: Path, reason: str) -> Path:
        """Put a file aside with the reason beside it; it is never read again."""
        folder = path.parent / QUARANTINE
        target = folder / path.name
        count = 1
        while target.exists():
            target, count = folder / f"{path.name}.{count}", count + 1
        note = canonical_bytes({"format": 1, "file": path.name, "reason": reason})
        self._store.write(str(target.relative_to(self.root)) + ".reason.json", note)
        try:
            path.rename(target)
            sync_path(folder)
        except OSError as error:
            raise storage_error(path, error) from error
        return target

    def watermark(self, device: str) -> bytes | None:
        """The watermark file that lies in a device's folder."""
        path = f"{device}/{WATERMARK}"
        return self._store.read(path) if self._store.exists(path) else None

    def write_watermark(self, device: str, data: bytes) -> None:
        """Tell a device how far it is collected; unchanged bytes are not written again."""
        if self.watermark(device) != data:
            self._store.write(f"{device}/{WATERMARK}", data)
