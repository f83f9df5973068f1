"""Releases of one small test bundle that differ in their counter only, and slots to install them in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from worlds.bundles import bundle_files, decision_of, expectation, trust_and_keys

from aiotkit.bundle.unsigned import Unsigned, make_unsigned
from aiotkit.edge.disk import Disk
from aiotkit.edge.slots import Slots

TRUST, RELEASE_KEYS, OPERATOR_KEY, _ = trust_and_keys()


@cache
def small_files() -> Mapping[str, bytes]:
    """The files of the small test bundle (about 37 kB as an archive)."""
    return bundle_files(small=True)


def unsigned(counter: int, files: Mapping[str, bytes] | None = None, **places: Any) -> Unsigned:
    """A release before signing, with other files or places on request."""
    return make_unsigned(decision_of(), files or small_files(), release_counter=counter, **places)


@cache
def release(counter: int) -> bytes:
    """The signed archive of release ``counter``."""
    return unsigned(counter).archive(RELEASE_KEYS)


@cache
def release_digest(counter: int) -> str:
    """The bundle digest of release ``counter``."""
    return unsigned(counter).digest


def slots_on(disk: Disk) -> Slots:
    """The slots of a test device on a disk."""
    return Slots.open(disk, TRUST, expectation())
