"""Every error that aiotkit raises on purpose, in one tree.

A message names the thing, what was expected, what was found and what to do next. The exit code tells
a scheduler apart: 1 = the answer is no (a check failed), 2 = the input is wrong, 3 = the place is
(disk, folder, process).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AiotkitError(Exception):
    """Base of every deliberate error; ``exit_code`` is what the command line returns."""

    exit_code = 2

    def __init__(self, what: str, *, expected: str = "", found: str = "", do: str = "") -> None:
        self.what, self.expected, self.found, self.do = what, expected, found, do
        parts = [what]
        if expected:
            parts.append(f"expected {expected}")
        if found:
            parts.append(f"found {found}")
        text = "; ".join(parts)
        super().__init__(f"{text}. {do}" if do else text)


class DecisionFileError(AiotkitError):
    """The decision file says something that cannot be; every problem is listed."""


class ConfigError(AiotkitError):
    """A device's own configuration (``device.json``, ``actuator.json``) says something that cannot be."""


class DataError(AiotkitError):
    """Telemetry or outcomes that cannot be read at all (rows that can are quarantined instead)."""


class EmptyFileError(DataError):
    """A file holds no row; of several files the others are read."""


class ContradictionError(DataError):
    """Two sources give another value for one instant; none of them is chosen."""


class PlacementError(AiotkitError):
    """The decision cannot run anywhere with the numbers given."""


class BundleError(AiotkitError):
    """A bundle is not what it must be; nothing of it was used."""

    exit_code = 1


class IntegrityError(BundleError):
    """Bytes differ from the digest that was promised for them."""


class SignatureError(BundleError):
    """Too few valid signatures by trusted keys."""


class RollbackRefused(BundleError):
    """The release counter lies below the floor this device has already passed."""


class MismatchError(BundleError):
    """A valid bundle, for another decision, hardware, site or runtime."""


class GoldenError(BundleError):
    """The bundle decides differently here from where it was built."""


class EngineError(AiotkitError):
    """The engine was handed something its bundle does not allow."""


class ReplayError(AiotkitError):
    """A decision cannot be replayed, or replays differently."""

    exit_code = 1


class JournalError(AiotkitError):
    """The journal cannot keep its promise."""

    exit_code = 3


class ChainError(JournalError):
    """Records were changed, removed, reordered or spliced; names the first bad sequence number."""

    exit_code = 1


class StorageError(AiotkitError):
    """The disk or folder refused: full, read-only, broken or in use; ``errno`` where the system gave one."""

    exit_code = 3
    errno: int | None = None


class SlotError(AiotkitError):
    """No slot holds a bundle that verifies, or there is nothing to roll back to."""

    exit_code = 3


class SourceError(AiotkitError):
    """A source speaks another language than its contract."""

    exit_code = 3


class ActuatorError(AiotkitError):
    """The actuator process refused a command or cannot be reached."""

    exit_code = 3


class OperatorError(AiotkitError):
    """An operator's message is unsigned, stale, unknown or not permitted."""


class LakeError(AiotkitError):
    """A lake table is missing, has another schema, or a pinned version is gone."""

    exit_code = 3


class NoLakeError(LakeError):
    """No lake lies where one was said to be: most likely a typing error."""

    exit_code = 2


class AlreadyStoredError(LakeError):
    """Exactly these values are in the lake already; nothing is left to do."""


class OutcomeError(AiotkitError):
    """Outcomes cannot be joined: unknown subject, source or state."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a typing error, or an empty string.

    >>> did_you_mean("signls", ["signals", "states"])
    "did you mean 'signals'?"
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""
