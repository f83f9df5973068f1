"""Files as columns of text or typed values; every row is numbered and none is lost.

Rows count from 1; a header is not counted.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.errors import DataError, EmptyFileError, did_you_mean
from aiotkit.lab.files import told_by_folders
from aiotkit.lab.units import EVERYDAY, unit_problem
from aiotkit.lab.windows import spread

_DELIMITERS = ";\t|,"
#: more columns than this are a table on its side, or parted wrongly
MOST_COLUMNS = 100_000
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
    the header that have no columns, or begin with ``#``, are skipped and said; a first line of nothing but
    numbers means that there is no header, and columns are named ``c0``, ``c1``, … A byte-order mark tells
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
    data, note = _as_utf8(path, data, encoding)
    raw = _read_csv(path, data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), digest, delimiter)
    return _with_columns(replace(raw, notes=(*note, *raw.notes)), placed)


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
            raise _not_utf8(path, error) from error
        return text.encode(), ("not UTF-8: read as cp1252 (--encoding)",)
    return data, ()


def _from_frame(frame: pd.DataFrame) -> Raw:
    _refuse_many("frame", len(frame.columns))
    taken = spread(frame, FRAME).copy(deep=False)
    if not isinstance(taken.index, pd.RangeIndex) or taken.index.name is not None:
        taken = taken.reset_index()
    taken.columns = pd.Index([str(c) for c in taken.columns])
    _refuse_doubles("frame", list(taken.columns))
    taken.index = pd.RangeIndex(1, len(taken) + 1)
    hashed = pd.util.hash_pandas_object(taken.astype(str), index=False).to_numpy()
    return Raw(FRAME, taken, "sha256:" + hashlib.sha256(hashed.tobytes()).hexdigest())


def _read_parquet(path: Path, digest: str) -> Raw:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        _refuse_many(str(path), pq.read_metadata(path).num_columns)
        frame = spread(pq.read_table(path).to_pandas(), str(path))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read", found=str(error)) from error
    raw = _from_frame(frame)
    return Raw(path.name, raw.frame, digest)


def _read_csv(path: Path, data: bytes, digest: str, delimiter: str | None) -> Raw:
    lines = _first_lines(path, data)
    notes: list[str] = []
    if delimiter is None and _spaced(lines):
        data = re.sub(rb"(?m)^[ \t]+|[ \t]+$", b"", data)
        data, delimiter = re.sub(rb"[ \t]+", b"\t", data), "\t"
        lines = _first_lines(path, data)
        notes.append("columns are parted by spaces")
    found = delimiter or _sniff(lines)
    notes += [] if delimiter else [f"columns are parted by {found!r}"]
    above = _preamble(lines, found)
    if above:
        data = data.split(b"\n", above)[above]
        lines = lines[above:]
        notes.append(f"{above} lines above the header were skipped: they hold no columns")
    _refuse_many(str(path), lines[0].count(found) + 1)
    headless = all(_is_numeric(cell) for cell in lines[0].split(found))
    if headless:
        notes.append("the first line holds numbers: no header, columns are named c0, c1, …")
    if b'"' in data:
        _check_quotes(path, data, found, len(lines[0].split(found)))
    table, bad = _parse(path, data, found, headless, len(lines[0].split(found)))
    total = table.num_rows + len(bad)
    numbers = np.setdiff1d(np.arange(1, total + 1), [b.row for b in bad], assume_unique=True)
    frame = table.to_pandas()
    frame.index = pd.Index(numbers)
    if not headless:
        frame, again = _without_headers(frame)
        bad = sorted([*bad, *again], key=lambda line: line.row)
    units = {} if headless else units_below(frame)
    if units:
        frame = frame.iloc[1:]
        said = ", ".join(f"{c} {u}" for c, u in list(units.items())[:8])
        notes.append(f"the first line below the header says units: {said}")
    return Raw(path.name, frame, digest, tuple(bad), tuple(notes), headless, units)


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
        if _is_numeric(cell):
            return {}
        below = frame[column].iloc[1:50].dropna().astype(str).str.replace(",", ".", regex=False)
        numbers = len(below) > 0 and bool(below.map(_is_numeric).mean() > 0.5)
        unit = EVERYDAY.get(cell, cell)
        if numbers and cell and unit_problem(unit) is None:
            found[str(column)] = unit
        elif (numbers and cell.strip("-")) or any(c.isdigit() for c in cell):
            return {}
    return found


def _first_lines(path: Path, data: bytes) -> list[str]:
    """The first twenty lines, from the first that is not empty; the first one always whole."""
    end = data.find(b"\n", 65536)
    head = data if end < 0 else data[:end]
    if head.count(b",", 0, 1 << 24) > 20 * MOST_COLUMNS:  # before twenty lines of a million are taken apart
        head = head.split(b"\n", 1)[0]
    try:
        lines = head.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    if not any(line.strip() for line in lines):
        raise EmptyFileError(f"{path}: the file is empty")
    return lines[:20]


def _spaced(lines: Sequence[str]) -> bool:
    """Whether lines are numbers parted by runs of spaces, with no other delimiter."""
    if any(d in line for line in lines for d in _DELIMITERS):
        return False
    widths = {len(line.split()) for line in lines if line.strip()}
    return len(widths) == 1 and widths != {1} and all(map(_is_numeric, lines[-1].split()))


def _preamble(lines: Sequence[str], delimiter: str) -> int:
    """How many lines stand above the table: comments, and lines with fewer columns than all that follow."""
    counts = [0 if line.startswith("#") else line.count(delimiter) for line in lines]
    usual = Counter(counts).most_common(1)[0][0]
    first = next((i for i, c in enumerate(counts) if c >= max(1, usual) and not lines[i].startswith("#")), 0)
    comments = next((i for i, line in enumerate(lines) if not line.startswith("#")), 0)
    return first if usual >= 1 and len(lines) - first >= 3 else comments


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


def _refuse_many(name: str, columns: int) -> None:
    if columns > MOST_COLUMNS:
        raise DataError(
            f"{name}: too many columns",
            expected=f"at most {MOST_COLUMNS:,}",
            found=f"{columns:,}",
            do="Is the table on its side (a column a row), or parted by another sign?",
        )


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
    seen: set[str] = set()
    for column in columns:
        if column in seen:
            raise DataError(f"{name}: two columns are named '{column}'", do="Rename one of them.")
        seen.add(column)


def _not_utf8(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: not UTF-8 text",
        found=str(error),
        do="Say which encoding it has (such as cp1252), or save it as UTF-8.",
    )


def _sniff(lines: Sequence[str]) -> str:
    """The delimiter that occurs equally often in most lines; a comma when none does.

    Any other sign goes before a comma that may be the decimal sign.
    """
    shares = {}
    for d in _DELIMITERS:
        counts = Counter(line.count(d) for line in lines if line.strip() and not line.startswith("#"))
        usual, lines_of = counts.most_common(1)[0] if counts else (0, 0)
        shares[d] = lines_of if usual else 0
    best = max(_DELIMITERS, key=lambda d: shares[d])  # the first of equals
    return best if shares[best] else ","


def _is_numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
