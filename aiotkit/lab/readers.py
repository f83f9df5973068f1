"""Files as columns of text or typed values; every row is numbered and none is lost.

Rows count from 1; a header is not counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.errors import DataError, did_you_mean

_DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that does not have the columns of the others."""

    row: int
    reason: str
    content: str


@dataclass(frozen=True, slots=True)
class Raw:
    """What a file holds before anything is believed: ``frame`` is indexed by row number."""

    name: str
    frame: pd.DataFrame
    digest: str
    malformed: tuple[Malformed, ...] = ()
    notes: tuple[str, ...] = ()
    headless: bool = field(default=False)

    def column(self, name: str, what: str) -> pd.Series:
        """A column; raises ``DataError`` naming it and what it was to be."""
        if name not in self.frame.columns:
            known = [str(c) for c in self.frame.columns]
            hint = did_you_mean(name, known) or f"Columns: {', '.join(known[:30])}."
            raise DataError(f"{self.name}: column '{name}' ({what}) is missing", do=hint)
        return self.frame[name]


def read_raw(source: str | Path | pd.DataFrame, *, delimiter: str | None = None) -> Raw:
    """Read a CSV or Parquet file, or take a frame as it is.

    A CSV's delimiter is found by counting in the first lines unless given; a first line of nothing but
    numbers means that there is no header, and columns are named ``c0``, ``c1``, …

    Raises:
        DataError: the file is missing, empty, not UTF-8, or names a column twice.
    """
    if isinstance(source, pd.DataFrame):
        return _from_frame(source)
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read", found=error.strerror or str(error)) from error
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    if data[:4] != b"PAR1":
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if data[:4] == b"PAR1":
        return _read_parquet(path, digest)
    return _read_csv(path, data, digest, delimiter)


def _from_frame(frame: pd.DataFrame) -> Raw:
    taken = frame.copy(deep=False)
    if not isinstance(taken.index, pd.RangeIndex) or taken.index.name is not None:
        taken = taken.reset_index()
    taken.columns = pd.Index([str(c) for c in taken.columns])
    _refuse_doubles("frame", list(taken.columns))
    taken.index = pd.RangeIndex(1, len(taken) + 1)
    hashed = pd.util.hash_pandas_object(taken.astype(str), index=False).to_numpy()
    return Raw("frame", taken, "sha256:" + hashlib.sha256(hashed.tobytes()).hexdigest())


def _read_parquet(path: Path, digest: str) -> Raw:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        frame = pq.read_table(path).to_pandas()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read", found=str(error)) from error
    raw = _from_frame(frame)
    return Raw(path.name, raw.frame, digest)


def _read_csv(path: Path, data: bytes, digest: str, delimiter: str | None) -> Raw:
    try:
        head = data[:65536].decode("utf-8-sig", errors="strict" if len(data) <= 65536 else "ignore")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    lines = [line for line in head.splitlines()[:20] if line.strip()]
    if not lines:
        raise DataError(f"{path}: the file is empty")
    found = delimiter or _sniff(lines)
    headless = all(_is_numeric(cell) for cell in lines[0].split(found))
    notes = [] if delimiter else [f"columns are parted by {found!r}"]
    if headless:
        notes.append("the first line holds numbers: no header, columns are named c0, c1, …")
    if b'"' in data:
        _check_quotes(path, data, found, len(lines[0].split(found)))
    table, bad = _parse(path, data, found, headless, len(lines[0].split(found)))
    total = table.num_rows + len(bad)
    numbers = np.setdiff1d(np.arange(1, total + 1), [b.row for b in bad], assume_unique=True)
    frame = table.to_pandas()
    frame.index = pd.Index(numbers)
    return Raw(path.name, frame, digest, tuple(bad), tuple(notes), headless)


def _parse(
    path: Path, data: bytes, delimiter: str, headless: bool, width: int
) -> tuple[Any, list[Malformed]]:
    """All cells as text (empty = null), and the lines that have too few or too many of them."""
    import pyarrow as pa
    from pyarrow import csv

    bad: list[Malformed] = []
    first = 1 if headless else 2

    def skip(line: Any) -> str:
        reason = f"malformed: {line.actual_columns} columns instead of {line.expected_columns}"
        bad.append(Malformed(line.number - first + 1, reason, line.text[:200]))
        return "skip"

    layout = csv.ParseOptions(
        delimiter=delimiter, invalid_row_handler=skip, ignore_empty_lines=False, newlines_in_values=True
    )
    names = [f"c{i}" for i in range(width)] if headless else _header(path, data, delimiter)
    block = min(max(len(data) + 1, 1 << 16), 1 << 30)  # one block: rows are numbered as they stand
    options = csv.ReadOptions(use_threads=False, block_size=block, column_names=names if headless else None)
    text = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )  # fmt: skip
    try:
        table = csv.read_csv(
            pa.BufferReader(data), read_options=options, parse_options=layout, convert_options=text
        )
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error) or "UTF-8" in str(error):
            raise _not_utf8(path, error) from error
        raise DataError(f"{path}: cannot be read as CSV", found=str(error)) from error
    return table, bad


def _check_quotes(path: Path, data: bytes, delimiter: str, width: int) -> None:
    """Refuse a quote that is not closed: it would swallow the rows below it."""
    import csv
    import io

    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    reader, begin = csv.reader(text, delimiter=delimiter, strict=True), 1
    do = "Is a quote not closed? Double a quote within a quoted value."
    try:
        for cells in reader:
            below = [line for cell in cells if "\n" in cell for line in cell.split("\n")[1:]]
            if width > 1 and any(line.count(delimiter) >= width - 1 for line in below):
                raise DataError(f"{path}, line {begin}: a quoted value holds whole rows", do=do)
            begin = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except csv.Error as error:
        raise DataError(f"{path}, line {begin}: cannot be read as CSV", found=str(error), do=do) from error


def _header(path: Path, data: bytes, delimiter: str) -> list[str]:
    import csv
    import io

    text = data[: 1 << 20].decode("utf-8-sig", errors="ignore")
    try:
        names = next(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path}, line 1: cannot be read as CSV", found=str(error)) from error
    _refuse_doubles(str(path), names)
    return names


def _refuse_doubles(name: str, columns: Sequence[str]) -> None:
    for i, column in enumerate(columns):
        if column in columns[:i]:
            raise DataError(f"{name}: two columns are named '{column}'", do="Rename one of them.")


def _not_utf8(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not UTF-8 text", found=str(error), do="Save it as UTF-8 (iconv -t utf-8).")


def _sniff(lines: Sequence[str]) -> str:
    """The delimiter that occurs in every line, most often; a comma when none does."""
    least = {d: min(line.count(d) for line in lines) for d in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda d: least[d])
    return best if least[best] else ","


def _is_numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
