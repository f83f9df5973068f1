"""The books of a device's journals: every record it made was delivered, or it said that it dropped it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from aiotkit.core.records import RecordType
from aiotkit.fleet.rows import DROPPED, ranges
from aiotkit.lake.lake import Lake


@dataclass(frozen=True, slots=True)
class Balance:
    """Records up to the watermark: ``produced = delivered + gaps + lost``; ``lost`` and ``duplicates`` are 0.

    ``gaps`` = not delivered, and the device told so; ``lost`` = not delivered and nobody knows why;
    ``duplicates`` = rows too many.
    """

    produced: int = 0
    delivered: int = 0
    gaps: int = 0
    lost: int = 0
    duplicates: int = 0

    @property
    def balanced(self) -> bool:
        """Whether nothing was lost or doubled."""
        return self.lost == 0 and self.duplicates == 0 and self.produced == self.delivered + self.gaps

    def __add__(self, other: Balance) -> Balance:
        """Two journals together."""
        return Balance(
            self.produced + other.produced,
            self.delivered + other.delivered,
            self.gaps + other.gaps,
            self.lost + other.lost,
            self.duplicates + other.duplicates,
        )


def balance(lake: Lake, device: str, *, version: int | None = None) -> Balance:
    """The books of all journals of a device, from table ``decisions`` (at a version) alone."""
    mine = pc.field("device") == device
    rows = lake.read("decisions", columns=["journal_id", "seq", "type"], where=mine, version=version)
    told = lake.read(
        "decisions",
        columns=["journal_id", "type", "payload"],
        where=mine & pc.field("type").isin([DROPPED, RecordType.GAP.name]),
        version=version,
    )
    total = Balance()
    for journal_id in rows["journal_id"].unique().to_pylist():
        part = rows.filter(pc.equal(rows["journal_id"], journal_id))
        gaps = told.filter(pc.equal(told["journal_id"], journal_id))
        records = part.filter(pc.not_equal(part["type"], DROPPED))["seq"]
        total += count(
            np.asarray(records, dtype=np.int64),
            pc.max(part["seq"]).as_py(),
            ranges(gaps["payload"].to_pylist(), gaps["type"].to_pylist()),
        )
    return total


def count(seqs: NDArray[np.int64], watermark: int, dropped: Iterable[tuple[int, int]]) -> Balance:
    """The books of one journal (pure).

    Args:
        seqs: sequence numbers of the delivered rows, in any order.
        watermark: the last record known of.
        dropped: ranges (first, last) the device said it dropped; they may overlap and hold delivered ones.

    >>> count(np.array([1, 2, 5, 5]), 6, [(3, 4)])
    Balance(produced=6, delivered=3, gaps=2, lost=1, duplicates=1)
    """
    delivered = np.unique(seqs)
    missing = np.setdiff1d(np.arange(1, watermark + 1), delivered)
    told = np.zeros(len(missing), dtype=bool)
    for first, last in dropped:
        told[np.searchsorted(missing, first) : np.searchsorted(missing, last, side="right")] = True
    gaps = int(told.sum())
    return Balance(watermark, len(delivered), gaps, len(missing) - gaps, len(seqs) - len(delivered))
