"""Dataset manifests: which version of every table a training run saw, so that it can be read again.

A manifest is a small document in the lake's ``manifests/``; its digest is its identity. ``vacuum`` keeps
every file that a pinned version needs. Packs of blobs are never deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field, NonNegativeInt

from aiotkit.bundle.document import parse_document
from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.errors import IntegrityError, LakeError
from aiotkit.core.strict import Strict
from aiotkit.lake.lake import Filter, Lake
from aiotkit.lake.schemas import TABLES

FOLDER = "manifests"
DAY_H = 24.0


class PinnedTable(Strict):
    """A version of one table; ``id`` tells it from a table of another lake."""

    id: str
    version: NonNegativeInt


class DatasetManifest(Strict):
    """The versions of all tables at one moment, and what for. ``note`` is free text."""

    format: Literal[1] = 1
    created_us: int
    note: str = Field(default="", max_length=500)
    tables: Mapping[Annotated[str, Field(min_length=1)], PinnedTable]

    def canonical(self) -> bytes:
        """The bytes the digest is of."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """Identity of the dataset."""
        return digest(self.canonical())

    def version(self, table: str) -> int:
        """The pinned version of a table."""
        return self.tables[table].version


def pin(lake: Lake, *, created_us: int, note: str = "") -> DatasetManifest:
    """Write down the present version of every table, durably, and keep those versions from ``vacuum``."""
    opened = {name: lake.table(name) for name in TABLES}
    tables = {n: PinnedTable(id=str(t.metadata().id), version=t.version()) for n, t in opened.items()}
    manifest = DatasetManifest(created_us=created_us, note=note, tables=tables)
    lake.store.write(_path(manifest.digest), manifest.canonical())
    return manifest


def load_manifest(lake: Lake, wanted: str) -> DatasetManifest:
    """A manifest by its digest, checked to be of this lake.

    Raises:
        LakeError: it is not there, or belongs to another lake.
        IntegrityError: it was altered.
    """
    manifest = _read(lake, _path(wanted))
    if manifest.digest != wanted:
        raise IntegrityError("dataset manifest", expected=wanted, found=manifest.digest)
    for name, pinned in manifest.tables.items():
        found = str(lake.table(name).metadata().id)
        if found != pinned.id:
            raise LakeError(
                f"manifest {wanted}: table '{name}'",
                expected=f"table id {pinned.id}",
                found=found,
                do="The manifest belongs to another lake; open that one.",
            )
    return manifest


def manifests(lake: Lake) -> tuple[DatasetManifest, ...]:
    """All manifests of a lake, oldest first."""
    found = (_read(lake, path) for path in lake.store.list(FOLDER))
    return tuple(sorted(found, key=lambda m: (m.created_us, m.digest)))


def unpin(lake: Lake, manifest: DatasetManifest) -> None:
    """Forget a manifest: the next ``vacuum`` may delete what only it needed."""
    lake.store.remove(_path(manifest.digest))


def read_pinned(
    lake: Lake,
    manifest: DatasetManifest,
    table: str,
    *,
    columns: Sequence[str] | None = None,
    where: Filter | None = None,
) -> pa.Table:
    """Rows of a table as the manifest pinned it (see ``Lake.read``)."""
    return lake.read(table, columns=columns, where=where, version=manifest.version(table))


def optimise(lake: Lake, tables: Sequence[str] = tuple(TABLES)) -> dict[str, Any]:
    """Join small files into larger ones; rows and pinned versions stay. Gives files added and removed."""
    done = {}
    for name in tables:
        metrics = lake.table(name).optimize.compact()
        lake.sync(name)
        done[name] = {"added": metrics["numFilesAdded"], "removed": metrics["numFilesRemoved"]}
    return done


def vacuum(lake: Lake, *, retain_h: float = 7 * DAY_H) -> dict[str, int]:
    """Delete files that neither the present nor a pinned version of their table needs.

    Args:
        lake: the lake.
        retain_h: files younger than this stay anyway: readers of older versions and writers that have not
            committed yet may use them. 0 only when nobody else works on the lake.

    Returns:
        Files deleted, by table.
    """
    pinned = manifests(lake)
    deleted = {}
    for name in TABLES:
        table = lake.table(name)
        mine = str(table.metadata().id)
        keep = sorted({m.version(name) for m in pinned if name in m.tables and m.tables[name].id == mine})
        gone = table.vacuum(
            retention_hours=round(retain_h),
            dry_run=False,
            enforce_retention_duration=False,
            full=True,
            keep_versions=keep,
        )
        deleted[name] = len(gone)
    return deleted


def _path(wanted: str) -> str:
    return f"{FOLDER}/{wanted.removeprefix('sha256:')}.json"


def _read(lake: Lake, path: str) -> DatasetManifest:
    return parse_document(lake.store.read(path), DatasetManifest, path, LakeError)
