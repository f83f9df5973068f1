"""A lake: one folder (or object-store prefix) of Delta tables, with a watermark inside each commit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from pyarrow.compute import Expression
from pyarrow.parquet import filters_to_expression

from aiotkit.core.errors import LakeError, NoLakeError, did_you_mean
from aiotkit.lake.conform import check_table, conform
from aiotkit.lake.schemas import FORMAT, FORMAT_PROPERTY, TABLES, TableSchema
from aiotkit.lake.store import Store, local_path, make_folder, open_store, storage_error, sync_path

Filter: TypeAlias = Sequence[tuple[str, str, Any]] | Expression
"""Which rows: ``[(column, operator, value), …]`` that must all hold, or an Arrow expression."""

_APPEND_ONLY = "delta.appendOnly"
_PROPERTIES = {
    FORMAT_PROPERTY: str(FORMAT),
    _APPEND_ONLY: "true",  # rows are facts: only compaction and Lake.replace may rewrite files
    "delta.enableExpiredLogCleanup": "false",  # a pinned version needs its log entry for ever
}


class Lake:
    """The tables of ``lake.schemas.TABLES`` under one URI. Use from one thread; processes may share it.

    What ``append`` has returned is durable, also when the power goes.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.uri = uri.rstrip("/")
        self._options = dict(storage_options) if storage_options else None
        self._folder = local_path(self.uri)
        self.store: Store = open_store(self.uri, storage_options)

    @classmethod
    def create(cls, uri: str | Path, *, storage_options: Mapping[str, str] | None = None) -> Lake:
        """Create all tables that are not there yet, and open the lake.

        Tables are made up front, by one process: several that create the same table would race.

        Raises:
            LakeError: when a table is there with another format or other columns.
            StorageError: when the folder cannot be made.
        """
        lake = cls(str(uri), storage_options)
        if lake._folder is not None:
            try:
                make_folder(lake._folder)
            except OSError as error:
                raise storage_error(lake._folder, error) from error
        for table in TABLES.values():
            lake._create_table(table)
        return cls.open(uri, storage_options=storage_options)

    @classmethod
    def open(cls, uri: str | Path, *, storage_options: Mapping[str, str] | None = None) -> Lake:
        """Open a lake and check that every table has the format this version reads.

        Raises:
            NoLakeError: when the folder is not there.
            LakeError: when a table is missing, or has another format or other columns.
        """
        lake = cls(str(uri), storage_options)
        if lake._folder is not None and not lake._folder.exists():
            raise _no_lake(lake._folder)
        for table in TABLES.values():
            check_table(table, lake.table(table.name))
        return lake

    def table(self, name: str, version: int | None = None) -> DeltaTable:
        """The Delta table itself, as it is now or as it was at a version (for Spark, Polars, DuckDB too).

        Raises:
            LakeError: when there is no such table or version.
        """
        _known(name)
        place = self.table_uri(name)
        try:
            return DeltaTable(place, version=version, storage_options=self._options)
        except TableNotFoundError as error:
            raise LakeError(
                f"{place}: table '{name}' is not there",
                do="Create the lake with Lake.create, or check the path.",
            ) from error
        except (DeltaError, OSError) as error:
            wanted = "" if version is None else f" at version {version}"
            raise LakeError(
                f"{place}: table '{name}'{wanted} cannot be opened", found=_first_line(error)
            ) from error

    def table_uri(self, name: str) -> str:
        """Where a table lies."""
        return f"{self.uri if self._folder is None else self._folder}/{name}"

    def append(self, table: str, rows: pa.Table, *, transactions: Mapping[str, int] | None = None) -> int:
        """Add rows, and move watermarks, in one atomic and durable commit.

        Args:
            table: name of the table.
            rows: columns by name; empty ones may be left out; ``month`` is derived.
            transactions: application id -> new watermark, larger than the present one.

        Returns:
            The version of the table that holds the rows.

        Raises:
            LakeError: when the rows do not fit, a watermark would not grow, or another process moved the
                same watermark meanwhile. Nothing was added then.
        """
        marks = dict(transactions or {})
        target = self.table(table)
        fitting = conform(TABLES[table], rows)
        if not fitting.num_rows and not marks:
            return target.version()
        _growing(target, table, marks)
        self._commit(target, fitting, marks)
        return target.version()

    def replace(
        self, table: str, rows: pa.Table, where: str, *, transactions: Mapping[str, int] | None = None
    ) -> int:
        """Put rows in the place of others, and move watermarks, in one atomic and durable commit.

        A correction asked for by a person, never routine: tables are append-only, and that is lifted around
        the commit. What was removed stays readable at earlier versions.

        Args:
            table: name of the table.
            rows: as in ``append``; they must fit ``where`` themselves.
            where: which rows go, as SQL.
            transactions: as in ``append``.

        Returns:
            The version of the table that holds the rows.

        Raises:
            LakeError: as ``append``; nothing was removed or added then.
        """
        target, fitting = self.table(table), conform(TABLES[table], rows)
        _growing(target, table, transactions or {})
        self._append_only(target, "false")
        try:
            self._commit(target, fitting, transactions or {}, where)
        finally:
            self._append_only(target, "true")
        return target.version()

    def read(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        where: Filter | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Rows of a table, in no promised order.

        Args:
            table: name of the table.
            columns: which columns (default: all).
            where: which rows; files that cannot hold any are not read.
            version: as the table was then (default: now).

        Raises:
            LakeError: when the table, the version, a column or a file of it is gone.
        """
        source = self._dataset(table, version)
        try:
            return source.to_table(columns=_columns(table, columns), filter=_expression(where))
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(table, version, error) from error

    def batches(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        where: Filter | None = None,
        version: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Like ``read``, a batch at a time, for tables larger than memory."""
        source = self._dataset(table, version)
        try:
            yield from source.to_batches(columns=_columns(table, columns), filter=_expression(where))
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(table, version, error) from error

    def watermark(self, app_id: str, *, table: str = "decisions") -> int | None:
        """The watermark an application committed last, ``None`` when it never did."""
        return self.watermarks([app_id], table=table).get(app_id)

    def watermarks(self, app_ids: Sequence[str], *, table: str = "decisions") -> dict[str, int]:
        """Several watermarks at once; applications that never committed are left out."""
        target = self.table(table)
        found = ((app_id, target.transaction_version(app_id)) for app_id in app_ids)
        return {app_id: mark for app_id, mark in found if mark is not None}

    def versions(self) -> dict[str, int]:
        """The present version of every table."""
        return {name: self.table(name).version() for name in TABLES}

    def sync(self, table: str) -> None:
        """Make the newest commit of a table durable (local folders; object stores are durable)."""
        if self._folder is not None:
            sync_commit(self._folder / table, self.table(table).version())

    def _create_table(self, table: TableSchema) -> None:
        place = self.table_uri(table.name)
        try:
            DeltaTable.create(
                place,
                table.schema,
                mode="ignore",
                partition_by=list(table.partitions),
                name=table.name,
                description=table.description,
                configuration=_PROPERTIES,
                storage_options=self._options,
                raise_if_key_not_exists=False,
            )
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"{place}: table '{table.name}' cannot be created", found=_first_line(error)
            ) from error
        if self._folder is not None:
            log = self._folder / table.name / "_delta_log"
            for path in (log / f"{0:020d}.json", log, log.parent, self._folder):
                sync_path(path)

    def _append_only(self, target: DeltaTable, flag: str) -> None:
        try:
            target.alter.set_table_properties({_APPEND_ONLY: flag})
        except (DeltaError, OSError) as error:
            what = f"{target.table_uri}: its properties cannot be changed"
            raise LakeError(what, found=_first_line(error)) from error
        if self._folder is not None:  # a log entry that is lost would break the log for those behind it
            sync_commit(self._folder / target.metadata().name, target.version())

    def _commit(
        self, target: DeltaTable, rows: pa.Table, marks: Mapping[str, int], instead_of: str | None = None
    ) -> None:
        """Add rows; ``instead_of``: of those that fit this SQL."""
        properties = CommitProperties(
            app_transactions=[Transaction(app_id, mark) for app_id, mark in marks.items()]
        )
        try:
            if instead_of is None:
                write_deltalake(target, rows, mode="append", commit_properties=properties)
            else:
                write_deltalake(
                    target, rows, mode="overwrite", predicate=instead_of, commit_properties=properties
                )
        except CommitFailedError as error:
            raise LakeError(
                f"{target.table_uri}: the commit lost against another process",
                found=_first_line(error),
                do="Nothing was added. Two writers use the same watermark: stop one of them, then repeat.",
            ) from error
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"{target.table_uri}: rows cannot be written", found=_first_line(error)
            ) from error
        if self._folder is not None:
            sync_commit(self._folder / target.metadata().name, target.version())

    def _dataset(self, table: str, version: int | None) -> Any:
        opened = self.table(table, version)
        # A local table is read by Arrow itself: faster, and its threads need no Python at exit.
        files = (
            None
            if self._folder is None
            else pa.fs.SubTreeFileSystem(str((self._folder / table).resolve()), pa.fs.LocalFileSystem())
        )
        return opened.to_pyarrow_dataset(filesystem=files, schema=TABLES[table].schema)


def sync_commit(table: Path, version: int) -> None:
    """Make one commit of a local table durable: its data files, then its log entry.

    The Delta library syncs nothing itself; without this a power cut could take back rows whose
    watermark the device has already been told.
    """
    log = table / "_delta_log"
    entry = log / f"{version:020d}.json"
    try:
        for line in entry.read_text().splitlines():
            added = json.loads(line).get("add")
            if added is not None:
                path = table / unquote(added["path"])
                sync_path(path)
                sync_path(path.parent)
        for path in (*log.glob(f"{version:020d}*"), *log.glob("_last_checkpoint"), log, table):
            sync_path(path)
    except OSError as error:
        raise storage_error(entry, error) from error


def _growing(target: DeltaTable, table: str, marks: Mapping[str, int]) -> None:
    """Refuse watermarks that would not grow."""
    for app_id, mark in marks.items():
        held = target.transaction_version(app_id)
        if held is not None and held >= mark:
            raise LakeError(
                f"table '{table}': watermark '{app_id}'",
                expected=f"a value above {held}",
                found=str(mark),
                do="These rows are in the table already; read the watermark and go on from there.",
            )


def _first_line(error: Exception) -> str:
    """What the library says, without the trace of its own calls that may follow."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _no_lake(folder: Path) -> NoLakeError:
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    hint = did_you_mean(folder.name, [p.name for p in beside if (p / "telemetry" / "_delta_log").is_dir()])
    return NoLakeError(
        f"{folder}: there is no lake",
        expected="the folder of a lake",
        found="no such folder",
        do=hint.replace("did", "Did")
        or "Check the path; or create the lake: 'aiotkit ingest … --lake' and 'collector run --create' do.",
    )


def _known(table: str) -> None:
    if table not in TABLES:
        raise LakeError(
            f"there is no table '{table}'", expected=", ".join(TABLES), do=did_you_mean(table, TABLES)
        )


def _columns(table: str, columns: Sequence[str] | None) -> list[str] | None:
    names = TABLES[table].schema.names
    for name in columns or ():
        if name not in names:
            raise LakeError(f"table '{table}' has no column '{name}'", do=did_you_mean(name, names))
    return None if columns is None else list(columns)


def _expression(where: Filter | None) -> Expression | None:
    if isinstance(where, Sequence):
        return filters_to_expression(list(where)) if where else None
    return where


def _unreadable(table: str, version: int | None, error: Exception) -> LakeError:
    at = "" if version is None else f" at version {version}"
    return LakeError(
        f"table '{table}'{at} cannot be read",
        found=_first_line(error),
        do="A file of it is gone or damaged: was it vacuumed without a manifest that pins the version?",
    )
