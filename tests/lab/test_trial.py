"""A rule and its gates can be tried before there is any data."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("pandas")
pytestmark = pytest.mark.desk

from aiotkit.core.errors import DataError  # noqa: E402
from aiotkit.lab.trial import example_cases, try_cases  # noqa: E402
from aiotkit.loop.look import bearing_decision  # noqa: E402

DECISION = bearing_decision()
HOLD_S = 2 * DECISION.window.every_s


def test_example_cases_reach_every_line_and_gate_they_are_named_after() -> None:
    """The ordinary case goes on; each rule case acts; each shut gate stops the action; doubt recovers."""
    trial = try_cases(DECISION, example_cases(DECISION), hold_s=HOLD_S).set_index("case")
    assert trial.loc["ordinary", "proposed"] == "run"
    rules = trial[trial.index.str.startswith("rule")]
    assert len(rules) == len(DECISION.rule) - 1
    assert (rules["proposed"] != "run").all()
    gates = trial[trial.index.str.startswith("gate")]
    assert len(gates) > 0
    assert (gates["verdict"] != "ALLOW").all()


def test_a_missing_value_ends_in_recovery() -> None:
    """What the rule must read and cannot is doubt, named in words."""
    case = {**example_cases(DECISION)["ordinary"], "oil_temp.last": math.nan}
    row = try_cases(DECISION, {"no oil": case}, hold_s=HOLD_S).iloc[0]
    assert (row["verdict"], row["final"]) == ("INDETERMINATE", DECISION.recovery)
    assert "oil_temp.last" in row["why"]


def test_a_misspelt_field_gets_a_hint() -> None:
    """A case that names a field the decision does not have is refused."""
    with pytest.raises(DataError, match=r"unknown field 'oil_temp.lsat'.*did you mean 'oil_temp.last'"):
        try_cases(DECISION, {"x": {"oil_temp.lsat": 3.0}})
