"""Units of measure in UCUM (https://ucum.org): checked, compared and converted.

Decision files name units in UCUM only, because a unit must mean one thing: ``g`` is a gram, and the
acceleration of gravity is ``[g]``. What people write in files and on the command line is accepted where
only one reading fits, and the reading is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.errors import DataError

#: everyday writing -> UCUM
EVERYDAY: dict[str, str] = {
    "g": "[g]",
    "G": "[g]",
    "°C": "Cel",
    "degC": "Cel",
    "celsius": "Cel",
    "C": "Cel",
    "°F": "[degF]",
    "degF": "[degF]",
    "F": "[degF]",
    "fahrenheit": "[degF]",
    "kelvin": "K",
    "rpm": "{rot}/min",
    "U/min": "{rot}/min",
    "1/min": "/min",
    "RPM": "{rot}/min",
    "psi": "[psi]",
    "PSI": "[psi]",
    "m/s²": "m/s2",
    "m/s^2": "m/s2",
    "mm/sec": "mm/s",
    "m/sec": "m/s",
    "m³/h": "m3/h",
    "percent": "%",
    "°": "deg",
    "amp": "A",
    "volt": "V",
    "watt": "W",
    "sec": "s",
    "in/s": "[in_i]/s",
    "ips": "[in_i]/s",
    "gpm": "[gal_us]/min",
    "hp": "[HP]",
    "Ah": "A.h",
    "Wh": "W.h",
    "kWh": "kW.h",
    "Nm": "N.m",
    "inHg": "[in_i'Hg]",
    "mph": "[mi_i]/h",
}


@dataclass(frozen=True, slots=True)
class Conversion:
    """How values of one unit become values of another; ``note`` says a reading that was not literal."""

    source: str
    target: str
    note: str = ""

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same quantities in the target unit."""
        if self.source == self.target:
            return values
        quantity, target = _quantity(self.source), _quantity(self.target)
        scaled = _registry().Quantity(values * float(quantity.magnitude), quantity.units)
        return np.asarray(scaled.to(target.units).magnitude / float(target.magnitude), dtype=np.float64)


@lru_cache(maxsize=1)
def _registry() -> Any:
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()


@lru_cache(maxsize=512)
def _quantity(unit: str) -> Any:
    """The pint quantity of a UCUM code; raises ``DataError`` when it is none."""
    from lark.exceptions import LarkError
    from pint.errors import PintError
    from ucumvert import InvalidUcumError

    try:
        return _registry().from_ucum(unit)
    except (InvalidUcumError, LarkError, PintError) as error:
        raise DataError(
            f"unit '{unit}'", expected="a UCUM code such as mm/s, Cel, bar or 1", do=unit_hint(unit)
        ) from error


@lru_cache(maxsize=512)
def unit_problem(unit: str) -> str | None:
    """What is wrong with a UCUM code, in words; None when nothing is.

    >>> unit_problem("mm/s") is None
    True
    >>> unit_problem("degC")
    "'degC' is no UCUM unit; did you mean 'Cel'?"
    """
    from ucumvert import InvalidUcumError, parse_ucum

    try:
        parse_ucum(unit)
    except InvalidUcumError:
        hint = unit_hint(unit)
        return f"'{unit}' is no UCUM unit; {hint[0].lower() + hint[1:]}"
    return None


def unit_hint(unit: str) -> str:
    """What was probably meant by a unit that is no UCUM code."""
    known = EVERYDAY.get(unit) or EVERYDAY.get(unit.strip()) or EVERYDAY.get(unit.strip().lower())
    if known is not None:
        return f"Did you mean '{known}'?"
    return "See https://ucum.org for the codes; '1' stands for a number without unit."


def conversion(source: str, target: str) -> Conversion:
    """How values given in ``source`` become ``target`` (UCUM).

    An everyday writing is taken where the literal reading is no UCUM code or has another dimension;
    ``note`` then says so.

    >>> conversion("Cel", "K")(np.array([20.0])).round(2).tolist()
    [293.15]
    >>> conversion("g", "m/s2").note
    "'g' read as '[g]'"

    Raises:
        DataError: when the units are of different dimension, or one is unknown.
    """
    goal = _quantity(target)
    for reading in dict.fromkeys((source, EVERYDAY.get(source, source))):
        if unit_problem(reading) is None and _quantity(reading).is_compatible_with(goal):
            return Conversion(reading, target, "" if reading == source else f"'{source}' read as '{reading}'")
    if unit_problem(source) is not None and source not in EVERYDAY:
        raise DataError(f"unit '{source}'", expected="a UCUM code such as mm/s or Cel", do=unit_hint(source))
    raise DataError(
        f"unit '{source}' does not convert to '{target}'",
        expected=f"a unit of {goal.dimensionality}",
        found=f"{_quantity(EVERYDAY.get(source, source)).dimensionality}",
        do="Check the column's unit, or the signal's unit in the decision file.",
    )
