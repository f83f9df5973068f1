"""Files of outcomes: CSV and Parquet as any other, and JSON that gives spans or instants by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from aiotkit.core.errors import DataError, did_you_mean
from aiotkit.lab.outcome_told import Told, one_of
from aiotkit.lab.readers import Raw, read_raw

_FILES = (".csv", ".tsv", ".txt", ".parquet", ".json", ".npz")


def read_told(source: str | Path | pd.DataFrame | Raw, told: Told) -> Raw:
    """A file or frame of outcomes; JSON too: records, or name -> spans or instants.

    Raises:
        DataError: it cannot be read.
    """
    if isinstance(source, pd.DataFrame | Raw) or Path(source).suffix.lower() != ".json":
        return read_raw(source, encoding=told.encoding)
    path = Path(source)
    try:
        data = path.read_bytes()
        document = json.loads(data)
    except OSError as error:
        raise DataError(f"{path}: cannot be read", found=error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON", found=str(error)) from error
    raw = read_raw(pd.DataFrame(list(_records(document, path, told))))
    return replace(raw, name=path.name, digest="sha256:" + hashlib.sha256(data).hexdigest())


def _records(document: Any, path: Path, told: Told) -> list[dict[str, Any]]:
    if isinstance(document, list):
        document = {"": document}
    if not isinstance(document, Mapping):
        raise DataError(f"{path}: JSON of outcomes", expected="a list, or {name: list}")
    names = [str(n) for n in document]
    if told.entry is not None and told.entry not in names:
        by_stem = {PurePosixPath(n).stem: n for n in names}
        if told.entry not in by_stem:
            raise DataError(
                f"{path}: no entry '{told.entry}'", expected=one_of(names), do=did_you_mean(told.entry, names)
            )
        told = replace(told, entry=by_stem[told.entry])
    chosen = {n: v for n, v in document.items() if told.entry in (None, n)}
    if told.subject is not None and len(chosen) > 1:
        raise DataError(
            f"{path}: which entry is '{told.subject}'?", expected=one_of(names), do="Give --entry NAME."
        )
    out = [_record(item, name, path) for name, items in chosen.items() for item in _list(items, path)]
    if not out:
        raise DataError(f"{path}: no outcome in it", found=f"{len(chosen)} empty entries")
    return out


def _list(items: Any, path: Path) -> list[Any]:
    if not isinstance(items, list):
        raise DataError(f"{path}: JSON of outcomes", expected="a list under each name", found=str(items)[:80])
    return items


def _record(item: Any, name: str, path: Path) -> dict[str, Any]:
    path_like = (
        PurePosixPath(name).suffix.lower() in _FILES
    )  # then it means what --subject-from filename gives
    who = {"subject": PurePosixPath(name).stem if path_like else name} if name else {}
    if isinstance(item, Mapping):
        return who | dict(item)
    if isinstance(item, list) and len(item) == 2:
        return who | {"start": item[0], "end": item[1]}
    if isinstance(item, str | int | float):
        return who | {"when": item}
    raise DataError(
        f"{path}: JSON of outcomes", expected="[from, to], an instant or an object", found=str(item)[:80]
    )
