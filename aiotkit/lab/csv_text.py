"""How the text of a table is laid out: what parts its columns, where it begins, and what they are called."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aiotkit.core.errors import DataError, EmptyFileError
from aiotkit.lab.levels import two_lines

_DELIMITERS = ";\t|,"
#: more columns than this are a table on its side, or parted wrongly
MOST_COLUMNS = 100_000
#: so many lines are looked at
_FEW = 20


@dataclass(frozen=True, slots=True)
class TextTable:
    """Lines of a table, the header first unless ``headless``; ``unnamed``: names that we gave."""

    data: bytes
    delimiter: str
    names: tuple[str, ...]
    headless: bool
    unnamed: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def laid_out(path: Path, data: bytes, delimiter: str | None = None) -> TextTable:
    """Find the table in UTF-8 text with line feeds; ``delimiter``: what parts columns, where it is known.

    Lines above the table go; a header of two lines becomes one; a sign that closes every line goes; columns
    without a name get one; a first column that the header leaves out gets one too.

    Raises:
        EmptyFileError: there is no line.
        DataError: it has too many columns, names one twice, or opens a quote that is not closed.
    """
    lines = _first_lines(path, data)
    notes: list[str] = []
    if delimiter is None and _spaced(lines):
        data = re.sub(rb"(?m)^[ \t]+|[ \t]+$", b"", data)
        data, delimiter = re.sub(rb"[ \t]+", b"\t", data), "\t"
        lines = _first_lines(path, data)
        notes.append("columns are parted by spaces")
    last = "" if delimiter else _closing(lines)
    if last:
        data = re.sub(rb"(?m)" + re.escape(last.encode()) + rb"[ \t]*$", b"", data)
        lines = _first_lines(path, data)
        notes.append(f"the {last!r} at the end of each line was left out")
    found = delimiter or _sniff(lines)
    notes += [] if delimiter else [f"columns are parted by {found!r}"]
    above = _preamble(lines, found)
    if above:
        data = data.split(b"\n", above)[above]
        lines = lines[above:]
        notes.append(f"{above} lines above the header were skipped: they hold no columns")
    refuse_many(str(path), lines[0].count(found) + 1)
    rows = [_cells(line, found) for line in lines if line.strip()]
    levels = two_lines(rows)
    if levels is not None:
        joined, used = levels
        data = _line(joined, found) + b"\n" + data.split(b"\n", used)[used]
        rows = [joined, *rows[used:]]
        notes.append(f"the header has two lines, groups and names: '{joined[-1]}'")
    if _holds_data(rows):
        notes.append("the first line holds values: no header, columns are named c0, c1, …")
        names = tuple(f"c{i}" for i in range(len(rows[0])))
        return TextTable(data, found, names, True, notes=tuple(notes))
    return _named(path, data, found, rows, notes)


def _named(
    path: Path, data: bytes, delimiter: str, rows: Sequence[Sequence[str]], notes: list[str]
) -> TextTable:
    """With a name for each column that the rows have."""
    written = _header(path, data, delimiter)
    names = _as_wide_as(rows[1:], written)
    if len(names) > len(written) and not names[0]:
        notes.append("the header leaves out the first column: called column_1")
    unnamed = {i for i, name in enumerate(names) if not name.strip()}
    for i in sorted(unnamed):
        names[i] = next(n for n in (f"column_{i + 1}", f"column_{i + 1}_") if n not in names)
    refuse_doubles(str(path), names)
    if names != written:
        line, _, rest = data.partition(b"\n")
        if len(_cells(line.decode("utf-8-sig", errors="ignore"), delimiter)) == len(written):
            data = _line(names, delimiter) + b"\n" + rest
    ours = frozenset(names[i] for i in unnamed)
    return TextTable(data, delimiter, tuple(names), False, ours, tuple(notes))


def _line(cells: Sequence[str], delimiter: str) -> bytes:
    """Cells as a line of text, without its end."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="").writerow(cells)
    return out.getvalue().encode()


def _as_wide_as(rows: Sequence[Sequence[str]], written: Sequence[str]) -> list[str]:
    """Names as many as most rows have cells, where that is one more or one less (a sign too many)."""
    widths = Counter(len(row) for row in rows)
    usual = widths.most_common(1)[0][0] if widths else len(written)
    if usual == len(written) + 1 and len(written) not in widths:
        after = all(not row[-1].strip() for row in rows if len(row) == usual)
        return [*written, ""] if after else ["", *written]
    if usual == len(written) - 1 and len(written) not in widths and not written[-1].strip():
        return list(written[:-1])
    return list(written)


def _first_lines(path: Path, data: bytes) -> list[str]:
    """The first lines, from the first that is not empty; the first one always whole."""
    end = data.find(b"\n", 65536)
    head = data if end < 0 else data[:end]
    if head.count(b",", 0, 1 << 24) > _FEW * MOST_COLUMNS:  # before lines of a million are taken apart
        head = head.split(b"\n", 1)[0]
    try:
        lines = head.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    if not any(line.strip() for line in lines):
        raise EmptyFileError(f"{path}: the file is empty")
    return lines[:_FEW]


def _spaced(lines: Sequence[str]) -> bool:
    """Whether lines are numbers parted by runs of spaces, with no other delimiter."""
    if any(d in line for line in lines for d in _DELIMITERS):
        return False
    widths = {len(line.split()) for line in lines if line.strip()}
    return len(widths) == 1 and widths != {1} and all(map(is_numeric, lines[-1].split()))


def _closing(lines: Sequence[str]) -> str:
    """The sign that ends every line and stands nowhere else, where another parts columns; else nothing."""
    there = [line.rstrip() for line in lines if line.strip() and not line.startswith("#")]
    if not there:
        return ""
    for sign in _DELIMITERS:
        others = [d for d in _DELIMITERS if d != sign]
        if all(line.endswith(sign) and line.count(sign) == 1 for line in there) and any(
            all(d in line for line in there) for d in others
        ):
            return sign
    return ""


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


def _preamble(lines: Sequence[str], delimiter: str) -> int:
    """How many lines stand above the table: comments, and lines with fewer columns than all that follow."""
    counts = [0 if line.startswith("#") else line.count(delimiter) for line in lines]
    usual = Counter(counts).most_common(1)[0][0]
    first = next((i for i, c in enumerate(counts) if c >= max(1, usual) and not lines[i].startswith("#")), 0)
    if first and counts[first - 1] == usual - 1 and _is_header(_cells(lines[first - 1], delimiter)):
        first -= 1  # it leaves out the first column, or the sign behind the last
    first += _titles(lines[first:], delimiter)
    comments = next((i for i, line in enumerate(lines) if not line.startswith("#")), 0)
    return first if usual >= 1 and len(lines) - first >= 3 else comments


def _titles(lines: Sequence[str], delimiter: str) -> int:
    """How many lines above a header hold a title, or a word and its value, and delimiters for the rest."""
    rows = [[cell.strip() for cell in _cells(line, delimiter)] for line in lines]
    usual = Counter(sum(map(bool, row)) for row in rows).most_common(1)[0][0] if rows else 0
    for i, row in enumerate(rows):
        there = sum(map(bool, row))
        if there >= min(usual, 3) or there == len(row) or not all(row[:there]):
            return i if not any(is_numeric(cell) or _is_instant(cell) for cell in row) else 0
    return 0


def _is_header(cells: Sequence[str]) -> bool:
    """Whether cells are names: there, none twice, none a number."""
    names = [c.strip() for c in cells]
    return (
        len(names) > 1
        and all(names)
        and len(set(names)) == len(names)
        and not any(is_numeric(n) or _is_instant(n) for n in names)
    )


def _holds_data(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first line is a row as those below it, and no header.

    It is one of nothing but numbers; or one with numbers where all below hold numbers too, of which a word
    comes again below, or which says an instant.
    """
    first = rows[0]
    if all(is_numeric(cell) for cell in first):
        return True
    below = [row for row in rows[1:] if len(row) == len(first)]
    numeric = [i for i, cell in enumerate(first) if is_numeric(cell)]
    if len(below) < 3 or not numeric:
        return False
    if not all(is_numeric(row[i]) or not row[i].strip() for row in below for i in numeric):
        return False
    words = [i for i, cell in enumerate(first) if cell.strip() and i not in numeric]
    again = any(row[i] == first[i] for i in words for row in below)
    return again or any(_is_instant(first[i]) for i in words)


def _is_instant(cell: str) -> bool:
    """Whether a cell begins with a date, in any of the usual ways."""
    return (
        re.match(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}\b", cell.strip()) is not None
    )


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return line.split(delimiter)


def _header(path: Path, data: bytes, delimiter: str) -> list[str]:
    text = data[: 1 << 20].decode("utf-8-sig", errors="ignore")
    try:
        return next(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path}, line 1: cannot be read as CSV", found=str(error)) from error


def check_quotes(path: Path, table: TextTable) -> None:
    """Refuse a quote that is not closed: it would swallow the rows below it."""
    text = io.TextIOWrapper(io.BytesIO(table.data), encoding="utf-8-sig", newline="")
    reader, begin, width = csv.reader(text, delimiter=table.delimiter, strict=True), 1, len(table.names)
    do = "Is a quote not closed? Double a quote within a quoted value."
    try:
        for cells in reader:
            below = [line for cell in cells if "\n" in cell for line in cell.split("\n")[1:]]
            if width > 1 and any(line.count(table.delimiter) >= width - 1 for line in below):
                raise DataError(f"{path}, line {begin}: a quoted value holds whole rows", do=do)
            begin = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    except csv.Error as error:
        raise DataError(f"{path}, line {begin}: cannot be read as CSV", found=str(error), do=do) from error


def refuse_many(name: str, columns: int) -> None:
    """Refuse more columns than any table of signals has."""
    if columns > MOST_COLUMNS:
        raise DataError(
            f"{name}: too many columns",
            expected=f"at most {MOST_COLUMNS:,}",
            found=f"{columns:,}",
            do="Is the table on its side (a column a row), or parted by another sign?",
        )


def refuse_doubles(name: str, columns: Sequence[str]) -> None:
    """Refuse two columns of one name."""
    seen: set[str] = set()
    for column in columns:
        if column in seen:
            raise DataError(f"{name}: two columns are named '{column}'", do="Rename one of them.")
        seen.add(column)


def not_utf8(path: Path, error: Exception) -> DataError:
    """That text is not UTF-8, and what to do."""
    return DataError(
        f"{path}: not UTF-8 text",
        found=str(error),
        do="Say which encoding it has (such as cp1252), or save it as UTF-8.",
    )


def is_numeric(cell: str) -> bool:
    """Whether a cell is a number with a point.

    >>> is_numeric("1.5e3"), is_numeric("1,5"), is_numeric("1_1")
    (True, False, False)
    """
    if "_" in cell:  # which Python takes for digits grouped
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return True
