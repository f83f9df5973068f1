"""Folds that keep apart what the field keeps apart."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.desk
pytest.importorskip("pandas")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from aiotkit.core.decision import Decision  # noqa: E402
from aiotkit.core.errors import DataError  # noqa: E402
from aiotkit.lab.splits import blocks, folds, forward, purged  # noqa: E402

HOUR_US = 3_600_000_000


def rows_of(subjects: list[str], hours: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"subject": subjects, "at_us": np.array(hours, dtype=np.int64) * HOUR_US})


def by_block(document: dict[str, Any], **outcome: float) -> Decision:
    from aiotkit.core.decision import parse_decision

    return parse_decision(
        document | {"resample": "block", "outcome": document["outcome"] | outcome}, "blocks"
    )


def test_no_subject_is_on_both_sides(guard: Decision) -> None:
    """With subjects resampled, each is tested in one fold only and every row is tested once."""
    rng = np.random.default_rng(0)
    rows = rows_of([f"P{i}" for i in rng.integers(0, 11, 400)], list(range(400)))
    found = folds(rows, guard, 5, seed=3)
    assert len(found) == 5
    assert sorted(np.concatenate([test for _, test in found]).tolist()) == list(range(400))
    for train, test in found:
        assert not set(rows["subject"][train]) & set(rows["subject"][test])
        assert 400 / 5 * 0.6 < len(test) < 400 / 5 * 1.5


def test_fewer_subjects_than_folds_give_a_fold_each(guard: Decision) -> None:
    """Three subjects and five folds: three folds, not an error and not a split subject."""
    rows = rows_of(["a", "b", "c"] * 20, list(range(60)))
    assert [len(test) for _, test in folds(rows, guard, 5, seed=0)] == [20, 20, 20]


def test_folds_depend_on_the_seed_alone(guard: Decision) -> None:
    """The same seed deals the same folds, another seed others."""
    rows = rows_of([f"P{i % 12}" for i in range(240)], list(range(240)))
    one, same, other = (folds(rows, guard, 4, seed=s) for s in (1, 1, 2))
    assert all((a[1] == b[1]).all() for a, b in zip(one, same, strict=True))
    assert any(a[1].tolist() != b[1].tolist() for a, b in zip(one, other, strict=True))


def test_one_subject_is_cut_into_blocks_of_time(guard: Decision) -> None:
    """A single machine cannot be held out: contiguous blocks are, whatever the row order."""
    order = np.random.default_rng(1).permutation(300)
    rows = rows_of(["P1"] * 300, order.tolist())
    for _, test in folds(rows, guard, 3, seed=0):
        held = np.sort(order[test])
        assert held.tolist() == list(range(held[0], held[-1] + 1))


def test_rows_whose_outcome_was_open_are_purged(document: dict[str, Any]) -> None:
    """Within a horizon before and after a test row of the same subject nothing is learned from."""
    decision = by_block(document, horizon_s=3 * 3600)
    rows = rows_of(["P1"] * 100, list(range(100)))
    for train, test in folds(rows, decision, 4, seed=0):
        gap = np.abs(train[:, None] - test[None, :]).min()
        assert gap == 3
        assert len(train) >= 100 - 25 - 4


def test_other_subjects_are_not_purged(document: dict[str, Any]) -> None:
    """The horizon binds the rows of one subject, not of its neighbour."""
    rows = rows_of(["a", "b"] * 50, [i // 2 for i in range(100)])
    test = np.arange(50)
    kept = purged(rows, test[rows["subject"][test].to_numpy() == "a"], 5 * 3600)
    assert (rows["subject"][kept] == "b").sum() == 50
    assert rows.loc[kept].query("subject == 'a'")["at_us"].min() == (24 + 5) * HOUR_US


@given(st.integers(2, 9), st.lists(st.integers(0, 40), min_size=12, max_size=60))
@settings(max_examples=60, deadline=None)
def test_blocks_are_contiguous_and_complete(n: int, hours: list[int]) -> None:
    """Blocks cover every row once, follow each other in time, and never cut an instant in two."""
    rows = rows_of(["x"] * len(hours), hours)
    if n > len(set(hours)):
        with pytest.raises(DataError, match=f"{n} blocks of time; expected an instant for each"):
            blocks(rows, n)
        return
    found = blocks(rows, n)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(hours)))
    at = rows["at_us"].to_numpy()
    assert all(at[a].max() < at[b].min() for a, b in pairwise(found))


def test_strict_time_order_learns_from_the_past_only(document: dict[str, Any]) -> None:
    """Forward folds train on nothing later than what they test, less the horizon."""
    decision = by_block(document, horizon_s=2 * 3600)
    rows = rows_of(["P1"] * 60, list(range(60)))
    found = forward(rows, decision, 6)
    assert len(found) == 5
    assert all(train.max() + 2 <= test.min() for train, test in found)


def test_a_horizon_over_everything_is_said(document: dict[str, Any]) -> None:
    """Where purging leaves nothing to learn from, the message says why and what to do."""
    decision = by_block(document, horizon_s=86400.0, maturity_s=172800.0)
    with pytest.raises(DataError, match=r"no training rows; found a horizon of 86400 s .* longer time"):
        folds(rows_of(["P1"] * 20, list(range(20))), decision, 4, seed=0)


def test_two_folds_are_the_least(guard: Decision) -> None:
    """One fold is no split."""
    with pytest.raises(DataError, match="1 folds of 4 rows; expected at least 2 folds"):
        folds(rows_of(["a", "b"] * 2, [1, 2, 3, 4]), guard, 1, seed=0)
