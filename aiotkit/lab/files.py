"""Which files are meant, and what their names say: of which subject, or since when."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import unquote

from aiotkit.core.errors import DataError, EmptyFileError

SubjectFrom = Literal["filename", "folder", "names"]
SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".parquet", ".pq", ".csv.gz", ".tsv.gz", ".txt.gz")
#: parts of a table by time
_DATES = frozenset({"date", "day", "dt", "month", "year", "hour", "week", "time", "datum", "jahr", "monat"})
_OTHERS = (".md", ".pdf", ".json", ".yaml", ".yml", ".npz", ".zip", ".png", ".html", ".py")


def expand(given: Sequence[str | Path]) -> list[Path]:
    """Files out of names of files, folders and patterns, sorted within each; each once.

    Raises:
        DataError: one of them means no file at all.
    """
    found: dict[Path, None] = {}
    for one in given:
        path = Path(one)
        if path.is_dir():
            files, missing = _within(path), f"a file that ends in {', '.join(SUFFIXES[:6])}"
        elif path.exists() or not glob.has_magic(str(one)):
            files, missing = [path], ""
        else:
            files, missing = _matching(path), "a file"
        if not files:
            raise DataError(f"{one}: nothing to read", expected=missing, found="none")
        found |= dict.fromkeys(files)
    return list(found)


def _within(folder: Path) -> list[Path]:
    """Files below a folder with an ending that is known; where none has one, all but notes."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    known = [p for p in found if p.name.lower().endswith(SUFFIXES)]
    notes = ("readme", "license", "licence", "origin", "changelog")
    return known or [p for p in found if not p.name.lower().startswith(notes) and p.suffix not in _OTHERS]


def _matching(pattern: Path) -> list[Path]:
    first = next(i for i, part in enumerate(pattern.parts) if glob.has_magic(part))
    found = Path(*pattern.parts[:first]).glob("/".join(pattern.parts[first:]))
    return sorted(p for p in found if p.is_file())


def all_empty(files: Sequence[Path]) -> EmptyFileError:
    """That none of several files holds a row."""
    return EmptyFileError(
        f"all {len(files)} files are empty",
        expected="rows below a header",
        found=f"none in {named(files)}",
        do="Was the export cut short, or is it another folder?",
    )


def named(files: Sequence[Path]) -> str:
    """The first names of files, and how many more there are.

    >>> named([Path("a/x.csv"), Path("a/y.csv")])
    'x.csv, y.csv'
    """
    more = f" and {len(files) - 8:,} more" if len(files) > 8 else ""
    return ", ".join(p.name for p in files[:8]) + more


def stem(path: Path) -> str:
    """The name of a file without folder and endings that are known.

    >>> stem(Path("a/pump-1.5.csv.gz"))
    'pump-1.5'
    """
    name = path.name
    for ending in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return path.stem if path.suffix in (".json", ".npz") else name


def told_by_folders(path: Path) -> dict[str, str]:
    """What folders named ``key=value`` say, as tables in parts have them; but for dates, which rows hold.

    >>> told_by_folders(Path("data/machine=a/date=2026-03-01/part.parquet"))
    {'machine': 'a'}
    """
    pairs = [p.partition("=") for p in path.parts[:-1]]
    return {k: unquote(v) for k, _, v in pairs if v and k.isidentifier() and k.lower() not in _DATES}


def check_told_apart(files: Sequence[Path], how: SubjectFrom) -> None:
    """Refuse files of which each would be of the same subject, though there are several.

    Raises:
        DataError: saying what else may name it.
    """
    names = set() if how == "names" else {subject_of(p, how) for p in files}
    if len(files) > 1 and len(names) == 1:
        other = "folder" if how == "filename" else "filename"
        raise DataError(
            f"all {len(files)} files would be of one subject, '{min(names)}'",
            expected=f"files told apart by their {'names' if how == 'filename' else 'folders'}",
            do=f"Give --subject-from {other}, --subject-column COLUMN (folders named KEY=VALUE are columns "
            "too), or --subject NAME if it is one.",
        )


def subject_of(path: Path, how: SubjectFrom) -> str:
    """The subject a file's place tells (``names``, of columns and tags, are no place: ``lab.tags``).

    Raises:
        DataError: ``how`` is not known.
    """
    if how not in get_args(SubjectFrom):
        raise DataError(f"subject from '{how}'", expected=f"one of {', '.join(get_args(SubjectFrom))}")
    folder = path.resolve().parent.name
    return stem(path) if how == "filename" else folder.rpartition("=")[2]
