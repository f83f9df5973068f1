"""A release folder: signed bundles of a decision under names that say what they are, and an index.

What is in it needs no trust: devices verify the bundles. The index is for people and for the carrier that
brings them there. It only grows; the newest release has the highest counter.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from aiotkit.bundle.document import parse_document
from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.errors import RollbackRefused, StorageError
from aiotkit.core.strict import Strict

INDEX = "index.json"


class Release(Strict):
    """One release: what it is, where its files lie beside the index, who approved it."""

    release_counter: int
    bundle: str
    evidence: str
    file: str
    sha256: str
    approval: str
    approval_file: str
    approved_by: str
    authenticated: bool
    despite_gates: tuple[str, ...] = ()
    pilot: str | None = None
    expires_us: int | None = None


class Index(Strict):
    """All releases of a decision, oldest first."""

    format: Literal[1] = 1
    decision: str
    releases: tuple[Release, ...] = Field(default=())

    @property
    def newest(self) -> Release | None:
        """The release with the highest counter."""
        return self.releases[-1] if self.releases else None

    def latest(self, group: str | None = None) -> Release | None:
        """The release that devices of a group (None: of no pilot group) should have."""
        return next((r for r in reversed(self.releases) if r.pilot in (None, group)), None)


def read_index(folder: Path, decision: str) -> Index:
    """The index of a decision's release folder; empty when nothing was released.

    Raises:
        StorageError: it cannot be read.
        BundleError: it is no index.
    """
    path = folder / decision / INDEX
    try:
        return parse_document(path.read_bytes(), Index, str(path))
    except FileNotFoundError:
        return Index(decision=decision)
    except OSError as error:
        raise StorageError(f"release index {path}", found=error.strerror or str(error)) from error


def publish_bundle(folder: Path, decision: str, signed: bytes, approval: bytes, about: Release) -> Index:
    """Put a signed bundle and its approval into the release folder, then into the index.

    Publishing the same again changes nothing. The files are whole before the index names them.

    Raises:
        RollbackRefused: a release with the same or a higher counter is there already.
        StorageError: the folder cannot be written.
    """
    index = read_index(folder, decision)
    about = about.model_copy(update={"sha256": digest(signed), "approval": digest(approval)})
    if about in index.releases and is_published(folder, decision, about.bundle):
        return index
    others = [r for r in index.releases if r.bundle != about.bundle]
    above = [r.release_counter for r in others if r.release_counter >= about.release_counter]
    if above:
        raise RollbackRefused(
            f"release {about.release_counter} of '{decision}'",
            expected=f"a counter above {max(above)}, the newest that is out",
            do="Devices never go back; make a new candidate (aiotkit run retrain) with a higher counter.",
        )
    place = folder / decision
    replace_file(place / about.file, signed)
    replace_file(place / about.approval_file, approval)
    index = Index(decision=decision, releases=(*others, about))
    replace_file(place / INDEX, canonical_bytes(index.model_dump(mode="json")) + b"\n")
    return index


def is_published(folder: Path, decision: str, bundle: str) -> bool:
    """Whether the newest release is this bundle, and its files are there as they were put there."""
    latest = read_index(folder, decision).newest
    if latest is None or latest.bundle != bundle:
        return False
    expected = {latest.file: latest.sha256, latest.approval_file: latest.approval}
    paths = {folder / decision / name: wanted for name, wanted in expected.items()}
    return all(path.is_file() and digest(path.read_bytes()) == wanted for path, wanted in paths.items())


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or as it was: aside, synced, put in place, folder synced.

    Raises:
        StorageError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise StorageError(f"file {path}", found=error.strerror or str(error)) from error
