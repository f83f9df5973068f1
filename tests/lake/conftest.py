"""An empty lake, and rows that fit its tables."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def lake(tmp_path: Any) -> Any:
    """An empty lake in a folder."""
    from aiotkit.lake.lake import Lake

    return Lake.create(tmp_path / "lake")


@pytest.fixture
def telemetry() -> Any:
    """A function: n rows of telemetry of a subject, one a day, from a first value."""
    import pyarrow as pa

    def make(n: int, start: int = 0, subject: str = "press-1") -> Any:
        return pa.table(
            {
                "subject": [subject] * n,
                "name": ["vib"] * n,
                "at": [1_790_000_000_000_000 + (start + i) * 86_400_000_000 for i in range(n)],
                "value": [float(start + i) for i in range(n)],
                "source": ["sha256:00"] * n,
            }
        )

    return make
