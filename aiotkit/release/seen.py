"""Which statements about candidates were seen here before: none of them may be gone.

A chain of statements shows when one is taken out of its middle, not when its end is cut off. Who saw the end
can tell: what was approved, rejected, listed or released from a work folder is noted in it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from aiotkit.core.canonical import canonical_bytes
from aiotkit.release.approve import ApprovalError
from aiotkit.release.publish import replace_file
from aiotkit.release.registry import Version

FOLDER, FORMAT = "approvals", 1


def check_seen(work: Path, version: Version, statements: Collection[str]) -> None:
    """Refuse a version of which a statement is gone that was seen from this work folder; note the new ones.

    Args:
        work: folder of all pipelines.
        version: of the candidate.
        statements: digests of those that the store holds of it.

    Raises:
        ApprovalError: one is gone.
        StorageError: the note cannot be written.
    """
    path, key = work / FOLDER / f"{version.decision_id}.json", f"{version.number} {version.bundle}"
    noted = _noted(path)
    before = set(noted.get(key, []))
    if gone := sorted(before - set(statements)):
        raise ApprovalError(
            f"{version.decision_id} version {version.number}: of its statements {len(gone)} are gone "
            "that were seen here",
            expected=gone[0],
            do="Somebody removed them from the store: bring them back from a backup. "
            f"What was seen is in {path}.",
        )
    if new := set(statements) - before:
        noted[key] = sorted(before | new)
        replace_file(path, canonical_bytes({"format": FORMAT, "seen": noted}) + b"\n")


def _noted(path: Path) -> dict[str, list[str]]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ApprovalError(f"{path}: what was seen of approvals cannot be read", found=str(error)) from error
    seen = found.get("seen") if isinstance(found, dict) else None
    if not isinstance(seen, dict) or not all(isinstance(v, list) for v in seen.values()):
        raise ApprovalError(f"{path}: not what was noted of approvals", do="Delete it if you know why.")
    return {str(k): [str(d) for d in v] for k, v in seen.items()}
