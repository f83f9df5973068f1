"""The order of statements about one candidate: each names those that were the last when it was made.

Two that were made at once name the same one before them. Then nothing counts until a newer statement, which
names both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from aiotkit.core.errors import BundleError


class ChainError(BundleError):
    """Statements are missing, or two were made at once and none came after them."""


class Follows(Protocol):
    """A statement: when it was made, and the digests of those before it."""

    @property
    def at_us(self) -> int:
        """µs UTC."""
        ...

    @property
    def follows(self) -> tuple[str, ...]:
        """Digests; none for the first."""
        ...


def heads(statements: Mapping[str, Follows]) -> list[str]:
    """The statements that none follows, the newest first; none where there is no statement.

    Raises:
        ChainError: one that others build on is gone.
    """
    named = {before for statement in statements.values() for before in statement.follows}
    if gone := sorted(named - statements.keys()):
        raise ChainError(
            "approval statements: one that others build on is gone",
            expected=gone[0],
            do="Somebody removed a statement from the store: bring it back from a backup, or register the "
            "candidate again.",
        )
    left = [name for name in statements if name not in named]
    return sorted(left, key=lambda name: (-statements[name].at_us, name))


def last(statements: Mapping[str, Follows]) -> str:
    """The statement that counts.

    Raises:
        ChainError: there are several, or one that others build on is gone.
    """
    found = heads(statements)
    if len(found) != 1:
        raise ChainError(
            f"approval statements: {len(found)} were made at once",
            do="Approve or reject it once more: that statement comes after all of them.",
        )
    return found[0]
