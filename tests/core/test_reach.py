"""Conditions that can never decide are found, and none is blamed wrongly."""

from __future__ import annotations

import random

import pytest
from pydantic import TypeAdapter
from worlds import gate_oracle

from aiotkit.core.conditions import Condition
from aiotkit.core.reach import contradicts_itself, implies

READ = TypeAdapter(Condition).validate_python


def x(**limit):
    return {"field": "x.last"} | limit


def y(**limit):
    return {"field": "y.last"} | limit


@pytest.mark.parametrize(
    ("first", "then", "follows"),
    [
        (x(gt=9), x(gt=7), True),
        (x(gt=7), x(gt=9), False),
        (x(gt=7), x(ge=7), True),
        (x(ge=7), x(gt=7), False),
        (x(between=[1, 2]), x(le=2), True),
        (x(between=[1, 2]), x(lt=2), False),
        (x(lt=0), x(le=0), True),
        (x(le=0), x(le=0), True),
        (x(gt=9), y(gt=7), False),
        ({"field": "x.last", "in": [1, 2]}, {"field": "x.last", "in": [1, 2, 3]}, True),
        ({"field": "x.last", "in": ["a"]}, {"field": "x.last", "not_in": ["b"]}, True),
        ({"field": "x.last", "not_in": ["a", "b"]}, {"field": "x.last", "not_in": ["b"]}, True),
        ({"all": [x(gt=9), y(gt=0)]}, x(gt=7), True),
        ({"any": [x(gt=9), y(gt=0)]}, x(gt=7), False),
        ({"any": [x(gt=9), x(gt=8)]}, x(gt=7), True),
        (x(gt=9), {"any": [x(gt=7), y(gt=0)]}, False),  # y may be bad, and then the earlier one is doubt
        ({"all": [x(gt=9), y(lt=0)]}, {"any": [x(gt=7), y(gt=0)]}, True),
        (x(gt=9, deadband=1), x(gt=7), False),
    ],
)
def test_what_follows_from_what(first, then, follows):
    """A narrower condition implies a wider one over the same fields; timed terms imply nothing else."""
    assert implies(READ(first), READ(then)) is follows


@pytest.mark.parametrize(
    ("condition", "impossible"),
    [
        ({"all": [x(gt=5), x(lt=5)]}, True),
        ({"all": [x(ge=5), x(le=5)]}, False),
        ({"all": [x(gt=5), y(lt=5)]}, False),
        ({"all": [x(**{"in": ["a"]}), x(**{"in": ["b"]})]}, True),
        ({"any": [{"all": [x(gt=5), x(lt=5)]}, y(gt=0)]}, False),
        ({"all": [{"all": [x(gt=5), x(lt=5)]}, y(gt=0)]}, True),
        (x(gt=5), False),
    ],
)
def test_a_condition_that_no_value_meets_is_found(condition, impossible):
    """Limits of one field that exclude each other can never hold together."""
    assert contradicts_itself(READ(condition)) is impossible


def test_no_condition_is_blamed_that_a_value_can_meet():
    """Random conditions and values never contradict what was claimed of them."""
    rng, claims = random.Random(7), 0
    for _ in range(1500):
        one, other = (gate_oracle.random_condition(rng, rng.randint(0, 2)) for _ in range(2))
        follows, impossible = implies(READ(one), READ(other)), contradicts_itself(READ(one))
        claims += follows + impossible
        for _ in range(60 if follows or impossible else 0):
            values = gate_oracle.random_values(rng)
            if gate_oracle.answer(one, values) is True:
                assert not impossible
                assert not follows or gate_oracle.answer(other, values) is not False
    assert claims > 10
