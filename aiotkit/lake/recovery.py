"""What a power cut can leave of a local lake, and the way back: the torn last commit is put aside.

The Delta library syncs nothing itself; ``Lake.append`` does so before it returns. A commit that was never
acknowledged may therefore be torn: an empty or cut log entry, or one whose data files are missing or cut.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

from aiotkit.core.errors import LakeError
from aiotkit.lake.lake import Lake
from aiotkit.lake.schemas import TABLES
from aiotkit.lake.store import local_path, make_folder, storage_error, sync_path

FOLDER = "torn"


def mend(lake: Lake) -> tuple[str, ...]:
    """Put aside log entries at the end of a table's log that were torn; nothing acknowledged is lost.

    Safe beside running writers: they make their log entries appear whole. Object stores have no torn
    commits. Returns the entries put aside, as ``table/version``.

    Raises:
        LakeError: a torn entry lies below sound ones; that needs a person.
    """
    root = local_path(lake.uri)
    if root is None:
        return ()
    return tuple(f"{table}/{version}" for table in TABLES for version in _mend_table(root, table))


def _mend_table(root: Path, table: str) -> list[int]:
    log = root / table / "_delta_log"
    entries = sorted(p for p in log.glob("*.json") if p.stem.isdigit())
    torn: list[Path] = []
    while entries and int(entries[-1].stem) and not is_whole(root / table, entries[-1]):
        torn.append(entries.pop())
    if len(entries) > 1 and not is_whole(root / table, entries[-2], files=False):
        raise LakeError(
            f"{entries[-2]}: a torn commit lies below sound ones",
            do="Restore the table from a copy of the lake.",
        )
    try:
        for entry in torn:
            aside = root / FOLDER / table
            make_folder(aside)
            entry.rename(aside / entry.name)
            sync_path(aside)
            sync_path(log)
    except OSError as error:
        raise storage_error(log, error) from error
    return [int(p.stem) for p in reversed(torn)]


def is_whole(table: Path, entry: Path, *, files: bool = True) -> bool:
    """Whether a log entry can be read and (``files``) its data files have the sizes it names."""
    try:
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
    except ValueError:
        return False
    added = [a["add"] for a in actions if "add" in a] if actions else None
    if added is None:
        return False
    if not files:
        return True
    paths = [(table / unquote(a["path"]), a["size"]) for a in added]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)
