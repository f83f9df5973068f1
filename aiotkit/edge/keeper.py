"""The agent's pen: appends to the journal, syncs in groups, and knows when nothing can be written."""

from __future__ import annotations

import logging
import time
from typing import Any

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import StorageError
from aiotkit.core.records import RecordType
from aiotkit.edge.journal import Journal

log = logging.getLogger(__name__)
_RETRY_S = 1.0


class Keeper:
    """Group commit over a journal. While the disk refuses, ``writable`` is False and ``trouble`` says why.

    ``lost`` counts records for which there was no room even in memory: no later commit brings them back.

    Args:
        journal: where records go.
        commit_ms: how long a record may wait for others.
    """

    def __init__(self, journal: Journal, commit_ms: float) -> None:
        self.journal, self._group_s = journal, commit_ms / 1e3
        self.writable, self.trouble = True, ""
        self.commits, self.commit_ms = 0, 0.0
        self.lost = 0
        self._open_since_s: float | None = None
        self._tried_s = 0.0

    def append(self, kind: RecordType, payload: bytes | dict[str, Any]) -> int | None:
        """Add a record; its number, or None when there is no room even in memory."""
        data = payload if isinstance(payload, bytes) else canonical_bytes({"format": 1, **payload})
        try:
            seq = self.journal.append(kind, data)
        except StorageError as error:
            self.lost += 1
            self._refused(error)
            return None
        if self._open_since_s is None:
            self._open_since_s = time.monotonic()
        return seq

    def wait_s(self) -> float | None:
        """How long until a commit is due; None when nothing waits."""
        if self._open_since_s is None:
            return None
        due_s = self._open_since_s + self._group_s
        if not self.writable:
            due_s = max(due_s, self._tried_s + _RETRY_S)
        return max(0.0, due_s - time.monotonic())

    def commit(self) -> bool:
        """Make everything durable; False when the disk refuses (the records wait)."""
        started = time.monotonic()
        try:
            self.journal.commit()
        except StorageError as error:
            self._tried_s = started
            self._refused(error)
            return False
        self.commits += 1
        self.commit_ms = (time.monotonic() - started) * 1e3
        self._open_since_s = None
        if not self.writable:
            log.warning("the journal can be written again")
        self.writable, self.trouble = True, ""
        return True

    def _refused(self, error: StorageError) -> None:
        if self.writable:
            log.error("nothing can be journaled: %s", error)
        self.writable, self.trouble = False, str(error)
