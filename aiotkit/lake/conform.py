"""Whether a table, and rows on their way into it, are as the schemas say."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from aiotkit.core.errors import LakeError, did_you_mean
from aiotkit.lake.schemas import FORMAT, FORMAT_PROPERTY, INSTANT, MONTH, TableSchema


def check_table(table: TableSchema, found: DeltaTable) -> None:
    """Refuse a table of another format or with other columns (pure over the table's metadata).

    Raises:
        LakeError: saying what to do.
    """
    number = found.metadata().configuration.get(FORMAT_PROPERTY)
    if number != str(FORMAT):
        newer = number is not None and number.isdigit() and int(number) > FORMAT
        raise LakeError(
            f"{found.table_uri}: {FORMAT_PROPERTY}",
            expected=str(FORMAT),
            found=str(number),
            do="Update aiotkit to open this lake."
            if newer
            else "This is no table of an aiotkit lake; create the lake elsewhere and append the rows to it.",
        )
    columns = {f.name: str(f.type) for f in pa.schema(found.schema().to_arrow())}
    wanted = {f.name: str(f.type) for f in table.schema}
    if columns != wanted:
        differing = sorted(n for n in wanted.keys() | columns.keys() if wanted.get(n) != columns.get(n))
        raise LakeError(
            f"{found.table_uri}: columns {', '.join(differing)} differ",
            expected=str({n: wanted.get(n) for n in differing}),
            found=str({n: columns.get(n) for n in differing}),
            do="The table was changed by another program; restore it, or copy its rows into a new lake.",
        )


def conform(table: TableSchema, rows: pa.Table) -> pa.Table:
    """Rows with exactly the columns of a table, in its order (pure).

    Raises:
        LakeError: naming the column that is unknown, missing, empty where it may not be, or of another type.
    """
    extra = [n for n in rows.column_names if n not in table.schema.names]
    if extra:
        raise LakeError(
            f"table '{table.name}': unknown column '{extra[0]}'",
            do=did_you_mean(extra[0], table.schema.names),
        )
    columns = [_column(table, rows, field) for field in table.schema]
    fitting = pa.table(columns, schema=table.schema)
    return fitting.sort_by([(n, "ascending") for n in table.order]) if table.order else fitting


def _column(table: TableSchema, rows: pa.Table, field: pa.Field) -> Any:
    if field.name == MONTH and table.month_of in rows.column_names:
        return pc.strftime(_column(table, rows, table.schema.field(table.month_of)), "%Y-%m")
    if field.name not in rows.column_names:
        if field.nullable or not rows.num_rows:
            return pa.nulls(rows.num_rows, field.type)
        raise LakeError(
            f"table '{table.name}': column '{field.name}' is missing", found=str(rows.column_names)
        )
    column = rows[field.name]
    if column.null_count and not field.nullable:
        raise LakeError(
            f"table '{table.name}': column '{field.name}'",
            expected="no empty values",
            found=f"{column.null_count}",
        )
    naive = pa.types.is_timestamp(column.type) and column.type.tz is None
    if naive and field.type == INSTANT:
        raise LakeError(
            f"table '{table.name}': column '{field.name}'",
            expected="instants with a time zone",
            found=str(column.type),
            do="Say which zone they are in before they enter the lake; it is never guessed here.",
        )
    try:
        return column.cast(field.type)
    except (pa.ArrowException, NotImplementedError) as error:
        raise LakeError(
            f"table '{table.name}': column '{field.name}'", expected=str(field.type), found=str(column.type)
        ) from error
