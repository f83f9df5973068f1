from __future__ import annotations

import pytest
from worlds.bundles import rebuild

from aiotkit.bundle.unsigned import Unsigned


@pytest.fixture(scope="session")
def built() -> Unsigned:
    """The test bundle, built once from its decision file: an export takes seconds."""
    pytest.importorskip("torch")
    return rebuild()
