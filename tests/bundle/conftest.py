from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from worlds.bundles import bundle_files, signed_archive, trust_and_keys

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.keys import SigningKey
from aiotkit.bundle.trust import Trust


@dataclass(frozen=True)
class Keys:
    trust: Trust
    release: list[SigningKey]
    operator: SigningKey
    collector: SigningKey


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys(*trust_and_keys())


@pytest.fixture(scope="session")
def archive() -> bytes:
    """The whole signed test bundle."""
    return signed_archive()


@pytest.fixture(scope="session")
def files() -> Mapping[str, bytes]:
    return bundle_files()


@pytest.fixture(scope="session")
def engine(files: Mapping[str, bytes]) -> Engine:
    return Engine(files)
