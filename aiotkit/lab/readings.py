"""How files were read whose values a lake holds: kept beside its tables, so that another one is noticed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import ContradictionError

if TYPE_CHECKING:
    from aiotkit.lake.lake import Lake

FORMAT = 1
UNKNOWN = "in a way that was not recorded then"


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file was read: options as they took effect.

    ``how``: what holds for every row; ``of``: name -> what holds for its values. ``ranges``: name -> range
    that was believed. ``only``: names asked for. ``whose``: the subject that the file's place tells: files of
    equal bytes then are several.
    """

    how: Mapping[str, Any] = field(default_factory=dict)
    of: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ranges: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    whose: str = ""

    def plain(self, names: Iterable[str]) -> dict[str, Any]:
        """What a lake remembers of these names."""
        return {"how": dict(self.how), "of": {n: dict(self.of.get(n, {})) for n in names}}


def remembered(lake: Lake, table: str, file: str) -> list[dict[str, Any]]:
    """What a lake remembers of a file (its digest), the oldest first; nothing where it is older than that."""
    path = _path(table, file)
    if not lake.store.exists(path):
        return []
    found: list[dict[str, Any]] = json.loads(lake.store.read(path))["readings"]
    return found


def remember(lake: Lake, table: str, file: str, entry: Mapping[str, Any]) -> None:
    """Add an entry to what a lake remembers of a file; it is durable when this returns."""
    found = remembered(lake, table, file)
    if found[-1:] != [entry]:
        text = canonical_bytes({"format": FORMAT, "readings": [*found, dict(entry)]})
        lake.store.write(_path(table, file), text)


def _path(table: str, file: str) -> str:
    return f"readings/{table}-{file.partition(':')[2]}.json"


def otherwise(source: str, was: Mapping[str, Any] | None, now: Mapping[str, Any]) -> ContradictionError:
    """The refusal of a file that the lake holds, read in another way; ``was`` None: not known how."""
    keys = [k for k in dict.fromkeys((*(was or {}), *now)) if was is None or was.get(k) != now.get(k)]
    return ContradictionError(
        f"{source}: the lake holds this file, read otherwise",
        expected=UNKNOWN if was is None else _words(was, keys),
        found=_words(now, keys),
        do="Nothing was stored. If this reading is the right one, say --replace: what the lake holds of the "
        "file is removed and stored anew (earlier versions of the table keep it).",
    )


def _words(how: Mapping[str, Any], keys: Iterable[str]) -> str:
    said = [f"{k} {'not given' if how.get(k) in (None, '', {}) else how[k]}" for k in keys]
    return ", ".join(said) or "the same options"


def quoted(word: str) -> str:
    """A word as SQL has it."""
    return "'" + word.replace("'", "''") + "'"
