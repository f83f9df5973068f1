"""Files as columns of text or typed values; every row is numbered, and none is lost that holds anything.

Rows count from 1; a header is not counted.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.errors import DataError, EmptyFileError, did_you_mean
from aiotkit.lab.csv_text import (
    TextTable,
    check_quotes,
    is_numeric,
    laid_out,
    not_utf8,
    refuse_doubles,
    refuse_many,
)
from aiotkit.lab.files import told_by_folders
from aiotkit.lab.levels import flat
from aiotkit.lab.units import EVERYDAY, unit_problem
from aiotkit.lab.windows import spread

#: why a line is no row that is the header again
HEADER_AGAIN = "the header once more"
#: what a frame is called where a file has a name
FRAME = "frame"
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that does not have the columns of the others."""

    row: int
    reason: str
    content: str


@dataclass(frozen=True, slots=True)
class Raw:
    """What a file holds before anything is believed: ``frame`` is indexed by row number.

    ``units``: column -> unit (UCUM), where a line below the header says it.
    """

    name: str
    frame: pd.DataFrame
    digest: str
    malformed: tuple[Malformed, ...] = ()
    notes: tuple[str, ...] = ()
    headless: bool = field(default=False)
    units: Mapping[str, str] = field(default_factory=dict)

    def column(self, name: str, what: str) -> pd.Series:
        """A column; raises ``DataError`` naming it and what it was to be."""
        if name not in self.frame.columns:
            known = [str(c) for c in self.frame.columns]
            hint = did_you_mean(name, known) or f"Columns: {', '.join(known[:30])}."
            raise DataError(f"{self.name}: column '{name}' ({what}) is missing", do=hint)
        return self.frame[name]


def read_raw(
    source: str | Path | pd.DataFrame | Raw, *, delimiter: str | None = None, encoding: str | None = None
) -> Raw:
    """Read a CSV or Parquet file (also gzipped), or take a frame as it is.

    A CSV's delimiter is found by counting in the first lines unless given (also runs of spaces); lines above
    the header that have no columns, or begin with ``#``, are skipped and said; a first line that is a row as
    those below means that there is no header, and columns are named ``c0``, ``c1``, … A byte-order mark tells
    UTF-16; anything else is UTF-8 unless ``encoding`` says otherwise, or Western text (cp1252) where it is no
    UTF-8 and reads so. Folders named ``key=value`` add a column each.

    Raises:
        DataError: the file is missing, empty, of another encoding, names a column twice, or has too many.
    """
    if isinstance(source, Raw):
        return source
    if isinstance(source, pd.DataFrame):
        return _from_frame(source)
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read", found=error.strerror or str(error)) from error
    placed = told_by_folders(path.resolve())
    digest = "sha256:" + hashlib.sha256(data + repr(placed).encode() if placed else data).hexdigest()
    if data[:4] == b"PAR1":
        return _with_columns(_read_parquet(path, digest), placed)
    _refuse_other_kinds(path, data[:64])
    data, note = _as_utf8(path, data, encoding)
    raw = _read_csv(path, data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), digest, delimiter)
    return _with_columns(replace(raw, notes=(*note, *raw.notes)), placed)


def columns_of(path: Path, encoding: str | None = None) -> tuple[str, ...]:
    """What the columns of a file are called, out of its first lines; nothing where it has no header.

    Raises:
        DataError: as ``read_raw``, but for what stands further below.
    """
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            head = file.read(1 << 20)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                head = file.read(1 << 20)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read", found=str(error)) from error
    if head[:4] == b"PAR1":
        return tuple(map(str, pq.read_schema(path).names))
    text, _ = _as_utf8(path, head[: head.rfind(b"\n") + 1] or head, encoding)
    table = laid_out(path, text.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
    return () if table.headless else table.names


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    """Refuse what is neither text nor Parquet by how it begins, with how to come to one of them."""
    frame = "pandas.{}(…).to_parquet(…)"
    ways = {
        b"PK\x03\x04": ("a zip archive", "Unpack it; of an Excel file save the sheet as CSV."),
        b"\xd0\xcf\x11\xe0": ("an Excel file of old", "Save the sheet as CSV."),
        b"7z\xbc\xaf": ("a 7z archive", "Unpack it."),
        b"\x28\xb5\x2f\xfd": ("compressed with zstd", "Unpack it."),
        b"BZh": ("compressed with bzip2", "Unpack it."),
        b"\xfd7zXZ": ("compressed with xz", "Unpack it."),
        b"ARROW1": ("a Feather file", frame.format("read_feather")),
        b"\x89HDF": ("an HDF5 file", frame.format("read_hdf")),
        b"MATLAB": ("a MATLAB file", "Write its arrays with pandas, a column each."),
        b"{": ("JSON", frame.format("read_json")),
        b'[{"': ("JSON", frame.format("read_json")),
    }
    for magic, (what, do) in ways.items():
        if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(magic):
            raise DataError(f"{path}: {what}", expected="CSV or Parquet", do=do)


def _with_columns(raw: Raw, placed: Mapping[str, str]) -> Raw:
    """With what folders say as columns, where the file has none of that name."""
    new = {k: v for k, v in placed.items() if k not in raw.frame.columns}
    if not new or raw.headless:
        return raw
    said = ", ".join(f"{k}={v}" for k, v in new.items())
    return replace(raw, frame=raw.frame.assign(**new), notes=(*raw.notes, f"its folders say {said}"))


def read_rows(path: Path, *, encoding: str | None = None) -> Raw:
    """As ``read_raw``, of a file that must hold a row.

    Raises:
        EmptyFileError: it holds none.
        DataError: as ``read_raw``.
    """
    raw = read_raw(path, encoding=encoding)
    if raw.frame.empty and not raw.malformed:
        raise EmptyFileError(f"{path}: no rows below the header")
    return raw


def _as_utf8(path: Path, data: bytes, encoding: str | None) -> tuple[bytes, tuple[str, ...]]:
    """Text as UTF-8, and a note; what is neither that nor marked is Western text where it reads so."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: a gzip file that cannot be read", found=str(error)) from error
    known = encoding or next((name for mark, name in _BOMS if data.startswith(mark)), None)
    try:
        if known is not None:
            return data.decode(known).removeprefix("\ufeff").encode(), ()
    except (UnicodeError, LookupError) as error:
        raise DataError(f"{path}: not text in {known}", found=str(error)) from error
    try:
        data.decode()
    except UnicodeDecodeError as error:
        text = data.decode("cp1252", errors="replace")
        if not all((c.isprintable() and c != "\ufffd") or c in "\r\n\t" for c in text):
            raise not_utf8(path, error) from error
        return text.encode(), ("not UTF-8: read as cp1252 (--encoding)",)
    return data, ()


def _from_frame(frame: pd.DataFrame) -> Raw:
    refuse_many("frame", len(frame.columns))
    taken = spread(frame, FRAME).copy(deep=False)
    if taken.columns.nlevels > 1:
        taken.columns = pd.Index(flat([*taken.columns]))
    if not isinstance(taken.index, pd.RangeIndex) or taken.index.name is not None:
        taken = taken.reset_index()
    taken.columns = pd.Index([str(c) for c in taken.columns])
    refuse_doubles("frame", list(taken.columns))
    taken.index = pd.RangeIndex(1, len(taken) + 1)
    hashed = pd.util.hash_pandas_object(taken.astype(str), index=False).to_numpy()
    return Raw(FRAME, taken, "sha256:" + hashlib.sha256(hashed.tobytes()).hexdigest())


def _read_parquet(path: Path, digest: str) -> Raw:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        refuse_many(str(path), pq.read_metadata(path).num_columns)
        frame = spread(pq.read_table(path).to_pandas(), str(path))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read", found=str(error)) from error
    raw = _from_frame(frame)
    return Raw(path.name, raw.frame, digest)


def _read_csv(path: Path, data: bytes, digest: str, delimiter: str | None) -> Raw:
    text = laid_out(path, data, delimiter)
    notes = list(text.notes)
    if b'"' in text.data:
        check_quotes(path, text)
    table, bad = _parse(path, text)
    total = table.num_rows + len(bad)
    numbers = np.setdiff1d(np.arange(1, total + 1), [b.row for b in bad], assume_unique=True)
    frame = table.to_pandas()
    frame.index = pd.Index(numbers)
    if not text.headless:
        frame, again = _without_headers(frame)
        bad = sorted([*bad, *again], key=lambda line: line.row)
    frame, said = _without_nothing(frame, text.unnamed)
    notes += said
    units = {} if text.headless else units_below(frame)
    if units:
        frame = frame.iloc[1:]
        listed = ", ".join(f"{c} {u}" for c, u in list(units.items())[:8])
        notes.append(f"the first line below the header says units: {listed}")
    return Raw(path.name, frame, digest, tuple(bad), tuple(notes), text.headless, units)


def _without_nothing(frame: pd.DataFrame, unnamed: Collection[str]) -> tuple[pd.DataFrame, list[str]]:
    """Without columns that have neither name nor value, and rows that hold nothing but delimiters."""
    bare = [c for c in frame.columns if c in unnamed and not frame[c].notna().any()]
    frame, notes = frame.drop(columns=bare), []
    if bare:
        notes.append(f"{len(bare)} columns without name or value were left out")
    void = frame.isna().all(axis=1) if len(frame.columns) > 1 else pd.Series(False, index=frame.index)
    if void.any():
        notes.append(f"{int(void.sum()):,} rows hold nothing and were left out")
    return frame[~void], notes


def units_below(frame: pd.DataFrame) -> dict[str, str]:
    """Units that the first row says of columns of numbers (column -> UCUM); none where it is a row as others.

    >>> units_below(pd.DataFrame({"at": [None, "8:00"], "heat": ["°C", "20"], "p": ["[bar]", "1,5"]}))
    {'heat': 'Cel', 'p': 'bar'}
    """
    if len(frame) < 2:
        return {}
    first = {c: str(v).strip().strip("[]()") for c, v in frame.iloc[0].dropna().items()}
    found: dict[str, str] = {}
    for column, cell in first.items():
        if is_numeric(cell):
            return {}
        below = frame[column].iloc[1:50].dropna().astype(str).str.replace(",", ".", regex=False)
        numbers = len(below) > 0 and bool(below.map(is_numeric).mean() > 0.5)
        unit = EVERYDAY.get(cell, cell)
        if numbers and cell and unit_problem(unit) is None:
            found[str(column)] = unit
        elif (numbers and cell.strip("-")) or any(c.isdigit() for c in cell):
            return {}
    return found


def _without_headers(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[Malformed]]:
    """Rows without those that are the header once more, as in files that were put together."""
    if frame.empty:
        return frame, []
    names = [str(c) for c in frame.columns]
    same = frame[names[0]] == names[0]
    for name in names[1:]:
        if not same.any():
            return frame, []
        same &= frame[name] == name
    text = ",".join(names)[:200]
    return frame[~same], [Malformed(int(row), HEADER_AGAIN, text) for row in frame.index[same]]


def _parse(path: Path, text: TextTable) -> tuple[Any, list[Malformed]]:
    """All cells as text (empty = null), and the lines that have too few or too many of them."""
    import pyarrow as pa
    from pyarrow import csv

    bad: list[Malformed] = []
    first, names = 1 if text.headless else 2, list(text.names)

    def skip(line: Any) -> str:
        reason = f"malformed: {line.actual_columns} columns instead of {line.expected_columns}"
        bad.append(Malformed(line.number - first + 1, reason, line.text[:200]))
        return "skip"

    layout = csv.ParseOptions(
        delimiter=text.delimiter,
        invalid_row_handler=skip,
        ignore_empty_lines=False,
        newlines_in_values=True,
    )
    block = min(max(len(text.data) + 1, 1 << 16), 1 << 30)  # one block: rows are numbered as they stand
    options = csv.ReadOptions(
        use_threads=False, block_size=block, column_names=names if text.headless else None
    )
    cells = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )  # fmt: skip
    try:
        table = csv.read_csv(
            pa.BufferReader(text.data), read_options=options, parse_options=layout, convert_options=cells
        )
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error) or "UTF-8" in str(error):
            raise not_utf8(path, error) from error
        raise DataError(f"{path}: cannot be read as CSV", found=str(error)) from error
    return table, bad
