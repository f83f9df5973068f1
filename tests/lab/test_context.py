"""Context joined as it was known."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")
ASKED = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3000)), min_size=1, max_size=15)
HEARD = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3000)), max_size=15, unique=True)


@pytest.fixture(scope="module")
def decision() -> Any:
    from aiotkit.core.decision import parse_decision

    return parse_decision(
        {
            "format": 1, "id": "x", "revision": 1, "subject": "pump", "question": "?",
            "site": {"name": "x", "time_zone": "Europe/Berlin"},
            "states": {"ok": {}, "bad": {}}, "actions": {"run": {}, "stop": {}}, "costs": "unknown",
            "signals": {
                "v": {"unit": "1", "sampling": {"kind": "on_change", "max_age_s": 9}, "range": [0, 1]},
            },
            "context": {
                "load": {"unit": "%", "max_age_s": 600}, "mode": {"values": ["x", "y"], "max_age_s": 60},
            },
            "window": {"length_s": 1, "every_s": 1}, "needs": {"deadline_ms": 1},
            "rule": [{"otherwise": "run"}], "recovery": "run",
            "outcome": {"horizon_s": 1, "maturity_s": 1, "sources": {"s": {"reports": ["ok", "bad"]}}},
        }
    )  # fmt: skip


@given(ASKED, HEARD)
def test_the_newest_value_of_the_past_within_tolerance_and_no_other(
    decision: Any, asked: Any, heard: Any
) -> None:
    """For any instants: the value joined is the newest of that subject, not from the future, not too old."""
    from aiotkit.lab.context import join_context

    instants = pd.DataFrame({"subject": [s for s, _ in asked], "at_us": [t * 1_000_000 for _, t in asked]})
    telemetry = pd.DataFrame(
        {
            "subject": [s for s, _ in heard], "name": "load", "at_us": [t * 1_000_000 for _, t in heard],
            "value": [float(t) for _, t in heard], "word": None,
        }
    ).astype({"at_us": "int64", "value": "float64", "subject": "object"})  # fmt: skip
    joined = join_context(instants.astype({"subject": "object"}), telemetry, decision)
    for (subject, at), value, age in zip(asked, joined["context.load"], joined["age_s.load"], strict=True):
        past = [t for s, t in heard if s == subject and 0 <= at - t <= 600]
        if past:
            assert (value, age) == (max(past), at - max(past))
        else:
            assert pd.isna(value)
    assert bool(joined["context.mode"].isna().all())


def test_local_time_and_shift_come_from_the_site(decision: Any) -> None:
    """The calendar of the desk is the one the device uses."""
    from aiotkit.core.calendar import local_context
    from aiotkit.lab.context import join_context

    at = 1_790_000_059_999_999
    none = pd.DataFrame({"subject": [], "name": [], "at_us": [], "value": [], "word": []})
    none = none.astype({"subject": "object", "name": "object", "at_us": "int64"})
    row = join_context(
        pd.DataFrame({"subject": ["a"], "at_us": [at]}).astype({"subject": "object"}), none, decision
    )
    known = local_context(decision.site, at)
    assert {n: row[f"context.{n}"][0] for n in known} == known


def test_a_missing_column_is_named(decision: Any) -> None:
    """A frame without subject cannot be joined by accident."""
    from aiotkit.lab.context import join_context

    with pytest.raises(DataError, match="instants: column 'subject' is missing"):
        join_context(pd.DataFrame({"at_us": [1]}), pd.DataFrame(), decision)
