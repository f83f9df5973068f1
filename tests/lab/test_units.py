"""Units of measure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
pytest.importorskip("ucumvert")
FAMILIES = [
    ("Cel", "K", "[degF]"),
    ("mm/s", "m/s", "[in_i]/s"),
    ("bar", "kPa", "[psi]"),
    ("m/s2", "[g]"),
    ("Hz", "1/min"),
]


@given(st.sampled_from([(a, b) for f in FAMILIES for a in f for b in f]), st.floats(-1e6, 1e6))
def test_there_and_back_is_the_same_value(pair: tuple[str, str], value: float) -> None:
    """Converting to another unit of the family and back changes nothing beyond rounding."""
    from aiotkit.lab.units import conversion

    there = conversion(*pair)(np.array([value]))
    back = conversion(pair[1], pair[0])(there)
    assert back[0] == pytest.approx(value, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    ("source", "target", "value", "expected"),
    [("Cel", "[degF]", 100, 212), ("g", "m/s2", 1, 9.80665), ("psi", "bar", 14.503773, 1),
     ("rpm", "1/min", 1500, 1500), ("°C", "K", 0, 273.15), ("10*3.Pa", "bar", 100, 1)],
)  # fmt: skip
def test_known_conversions(source: str, target: str, value: float, expected: float) -> None:
    """Figures from the standards, everyday writings included."""
    from aiotkit.lab.units import conversion

    assert conversion(source, target)(np.array([float(value)]))[0] == pytest.approx(expected, rel=1e-6)


def test_a_literal_reading_goes_before_an_everyday_one() -> None:
    """'g' is a gram where a mass is wanted, gravity where an acceleration is, and that is said."""
    from aiotkit.lab.units import conversion

    assert conversion("g", "kg")(np.array([1000.0]))[0] == pytest.approx(1)
    assert conversion("g", "kg").note == ""
    assert conversion("g", "m/s2").note == "'g' read as '[g]'"


@pytest.mark.parametrize(
    ("source", "words"), [("mm/s", "does not convert to 'Cel'"), ("wibble", "UCUM code")]
)
def test_units_of_another_dimension_or_none_are_refused(source: str, words: str) -> None:
    """A wrong unit stops the reading; it never becomes a wrong number."""
    from aiotkit.lab.units import conversion

    with pytest.raises(DataError, match=words):
        conversion(source, "Cel")
