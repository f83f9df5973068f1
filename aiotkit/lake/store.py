"""Plain files beside the tables of a lake (packs, manifests), in a local folder or an object store."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from aiotkit.core.errors import LakeError, StorageError


class Store(Protocol):
    """Files by relative path. A written file is whole and durable when ``write`` returns."""

    def write(self, path: str, data: bytes) -> None:
        """Put a file in one step, replacing an older one."""

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes of a file; raises ``LakeError`` when it is missing or shorter."""

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""

    def list(self, folder: str) -> tuple[str, ...]:
        """Paths of the files directly within a folder, sorted; empty when there is none."""

    def remove(self, path: str) -> None:
        """Delete a file; a missing one is fine."""


def local_path(uri: str) -> Path | None:
    """The folder a URI means, or ``None`` when it lies in an object store.

    >>> local_path("s3://bucket/lake") is None, str(local_path("file:///srv/my%20lake"))
    (True, '/srv/my lake')
    """
    if "://" not in uri:
        return Path(uri)
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def open_store(uri: str, storage_options: Mapping[str, str] | None = None) -> Store:
    """The store for the root of a lake."""
    folder = local_path(uri)
    return ObjectStore(uri, storage_options) if folder is None else LocalStore(folder)


class LocalStore:
    """A folder. Files are written aside, synced, renamed, and the folder is synced."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, path: str, data: bytes) -> None:
        """See ``Store``; raises ``StorageError`` when the disk refuses."""
        target = self._root / path
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            make_folder(target.parent)
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
            sync_path(target.parent)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise storage_error(target, error) from error

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See ``Store``."""
        try:
            with (self._root / path).open("rb") as file:
                file.seek(offset)
                data = file.read() if size is None else file.read(size)
        except FileNotFoundError as error:
            raise _missing(path) from error
        except OSError as error:
            raise storage_error(self._root / path, error) from error
        return _whole(path, data, size)

    def exists(self, path: str) -> bool:
        """See ``Store``."""
        return (self._root / path).is_file()

    def list(self, folder: str) -> tuple[str, ...]:
        """See ``Store``."""
        place = self._root / folder
        if not place.is_dir():
            return ()
        found = (p.name for p in place.iterdir() if p.is_file() and not p.name.startswith("."))
        return tuple(f"{folder}/{name}" for name in sorted(found))

    def remove(self, path: str) -> None:
        """See ``Store``."""
        (self._root / path).unlink(missing_ok=True)


class ObjectStore:
    """Any object store that Delta can write to, with the same options; a put is atomic and durable."""

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        # The handler below deltalake.fs: its Arrow wrapper cannot write bytes (deltalake 1.6).
        from deltalake._internal import DeltaFileSystemHandler

        self._files: Any = DeltaFileSystemHandler(uri.rstrip("/") + "/", dict(storage_options or {}))

    def write(self, path: str, data: bytes) -> None:
        """See ``Store``; raises ``StorageError`` when the store refuses."""
        try:
            file = self._files.open_output_stream(path)
            file.write(data)
            file.close()  # completes the upload; without it the store keeps what it had
        except OSError as error:
            raise storage_error(path, error) from error

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See ``Store``."""
        try:
            file = self._files.open_input_file(path)
            file.seek(offset)
            data = bytes(file.read(size))
            file.close()
        except FileNotFoundError as error:
            raise _missing(path) from error
        except OSError as error:
            raise storage_error(path, error) from error
        return _whole(path, data, size)

    def exists(self, path: str) -> bool:
        """See ``Store``."""
        from pyarrow.fs import FileType

        return bool(self._files.get_file_info([path])[0].type == FileType.File)

    def list(self, folder: str) -> tuple[str, ...]:
        """See ``Store``."""
        from pyarrow.fs import FileType

        found = self._files.get_file_info_selector(folder, True, False)  # a missing folder is fine
        return tuple(sorted(i.path for i in found if i.type == FileType.File))

    def remove(self, path: str) -> None:
        """See ``Store``."""
        if self.exists(path):
            self._files.delete_file(path)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, durably."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for place in reversed(missing):
        place.mkdir(exist_ok=True)
        sync_path(place.parent)


def sync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def storage_error(path: Path | str, error: OSError) -> StorageError:
    """What the disk said, as an error of ours."""
    return StorageError(
        f"{path}: {error.strerror or error}", do="Free space or mend the storage; nothing was half written."
    )


def _missing(path: str) -> LakeError:
    return LakeError(
        f"file '{path}' of the lake is missing", do="Restore it from a copy of the lake; tables refer to it."
    )


def _whole(path: str, data: bytes, size: int | None) -> bytes:
    if size is not None and len(data) != size:
        raise LakeError(f"file '{path}' of the lake", expected=f"{size} bytes", found=str(len(data)))
    return data
