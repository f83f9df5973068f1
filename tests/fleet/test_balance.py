"""The books of a journal: what was made, delivered, dropped and told, lost, doubled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("deltalake")
np = pytest.importorskip("numpy")
pytestmark = pytest.mark.desk


@given(
    seqs=st.lists(st.integers(1, 30), max_size=40),
    dropped=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 10)), max_size=4),
)
def test_books_agree_with_counting_one_by_one(seqs, dropped):
    """For any rows and any told ranges, each record is in exactly one column of the books."""
    from aiotkit.fleet.balance import count

    ranges = [(first, first + length) for first, length in dropped]
    watermark = max(seqs, default=0)
    told = {s for first, last in ranges for s in range(first, last + 1)}
    missing = set(range(1, watermark + 1)) - set(seqs)
    found = count(np.array(seqs, dtype=np.int64), watermark, ranges)
    assert (found.delivered, found.gaps) == (len(set(seqs)), len(missing & told))
    assert (found.lost, found.duplicates) == (len(missing - told), len(seqs) - len(set(seqs)))
    assert found.produced == found.delivered + found.gaps + found.lost
    assert found.balanced == (not missing - told and len(seqs) == len(set(seqs)))


def test_books_of_a_device_sum_its_journals_and_see_tampering(lake, inbox, key, world):
    """Two journals add up; rows doubled or removed by another program show as doubled or lost."""
    from aiotkit.fleet.balance import Balance, balance
    from aiotkit.fleet.collector import Collector

    for journal_id in ("00aa00aa00aa00aa", "dd33dd33dd33dd33"):
        device = world.Device(journal_id=journal_id)
        device.decide(5)
        device.deliver(inbox, 1, 10)
    other = world.Device("press-2", "ee44ee44ee44ee44")
    other.decide(2)
    other.deliver(inbox, 1, 4)
    Collector(lake, inbox, key).collect_once()
    assert balance(lake, "press-1") == Balance(produced=20, delivered=20)
    assert balance(lake, "press-2") == Balance(produced=4, delivered=4)
    assert balance(lake, "nobody") == Balance()
    version = lake.versions()["decisions"]
    lake.append("decisions", lake.read("decisions", where=[("device", "=", "press-2"), ("seq", "=", 2)]))
    far = lake.read("decisions", where=[("device", "=", "press-2"), ("seq", "=", 4)])
    moved = far.set_column(far.column_names.index("seq"), "seq", [[6]])
    lake.append("decisions", moved)
    assert balance(lake, "press-2") == Balance(produced=6, delivered=5, lost=1, duplicates=1)
    assert balance(lake, "press-2", version=version).balanced
