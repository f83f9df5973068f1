"""Whether a table is long, a row a value: by what its columns are called, and by what they hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aiotkit.lab.layout import NAME_NAMES, QUALITY_NAMES, UNIT_NAMES, VALUE_NAMES, bare, called, unaccented

_MOST_ROWS = 20_000
#: more words than this are no names of signals
_MOST_NAMES = 2000
#: what machines are called, and what stands behind that where a column names them
_MACHINES = (
    "machine|device|asset|equip|equipment|unit|drive|pump|engine|vehicle|subject|host|server|bearing|motor|"
    "turbine|meter|station|compressor|gearbox|robot|battery|fan|chiller|boiler|truck|press|rig|node|gateway|"
    "thing|sensor|site|serial|imei|vin|maschine|maschinen|anlage|anlagen|aggregat|gerat|geraet|gerate|geraete|pumpe"
)
_NUMBERS = "id|ids|no|nr|num|number|nummer|name|key|serial|tag|code|eui|uuid"
#: the same behind a small letter
_CAPITAL = "(?:ID|Id|IDs|No|Nr|Num|Number|Nummer|Name|Key|Serial|Tag|Code|EUI|UUID)"
#: what has numbers of its own and is no machine
_NO_MACHINES = "error|event|status|type|alarm|fault|message|state|class|label|model|row|record|sample|mode"


@dataclass(frozen=True, slots=True)
class Long:
    """The columns of long data, and why they are thought to be."""

    name: str
    value: str
    unit: str | None
    why: str


def find_long(frame: pd.DataFrame, taken: Collection[str], told: Collection[str | None] = ()) -> Long | None:
    """Columns of names, values and units; None where the table is wide.

    Columns that are called so are believed where there is one of each. Otherwise exactly one column must
    hold numbers, and one of words must tell numbers of different size apart: machines measure alike, signals
    do not.

    Args:
        frame: the table.
        taken: columns that are something else: the time, a subject that is known.
        told: name, value and unit column, where they are known.
    """
    name_told, value_told, unit_told = (*told, None, None, None)[:3]
    free = [c for c in map(str, frame.columns) if c not in taken]
    unit = unit_told or next(iter(called(free, UNIT_NAMES)), None)
    few = frame.iloc[:: max(1, len(frame) // _MOST_ROWS)]
    free = [c for c in free if c != unit]
    numeric = [c for c in free if c != name_told and _is_numbers(few[c])]
    values = [value_told] if value_told else called(numeric, VALUE_NAMES)
    measured = [c for c in numeric if not is_id(c)]
    words = [c for c in free if c not in (*numeric, value_told) and _is_words(few[c], c)]
    names = [name_told] if name_told else called(words, NAME_NAMES)
    if len(names) == 1 and len(values) == 1:
        return Long(names[0], values[0], unit, "its name says so")
    mixed = [c for c in called(free, VALUE_NAMES) if c not in numeric]
    named = called(names or words, NAME_NAMES)
    if not values and len(mixed) == 1 and len(named) == 1 and _some_numbers(few, named[0], mixed[0]):
        return Long(named[0], mixed[0], unit, "its name says so; some hold words")
    value = values[0] if len(values) == 1 else measured[0] if len(measured) == 1 else None
    if value is None:
        return Long(names[0], value_told, unit, "as told") if name_told and value_told else None
    if name_told:
        return Long(name_told, value, unit, "as told")
    parted = {c: _parts(few, c, value) for c in (names or [w for w in words if not is_id(w)])}
    best = max(parted, key=lambda c: parted[c], default=None)
    if best is None or (parted[best] < 3 and not (names and values)):
        return None
    return Long(best, value, unit, "its words tell numbers of different size apart")


def is_id(column: str) -> bool:
    """Whether a column's name says that it names machines.

    >>> [is_id(name) for name in ("machineID", "Asset Nr.", "motor", "motor_temp", "errorID")]
    [True, True, True, False, False]
    """
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", bare(column)).lower()
    words = [w for w in re.split(r"[^a-z0-9]+", unaccented(apart)) if w]
    last, machine = words[-1:], re.compile(rf"(?:{_MACHINES})(?:{_NUMBERS})?")
    if not last or any(re.fullmatch(_NO_MACHINES, w) for w in words):
        return False
    if last[0] in ("id", "eui") or (machine.fullmatch(last[0]) and last[0] != "sensor"):
        return True
    return bool(re.fullmatch(_NUMBERS, last[0])) and any(machine.fullmatch(w) for w in words[:-1])


def kind_of(column: str) -> str:
    """What a column of machines names, without the word that says that it names them.

    >>> [kind_of(name) for name in ("machineID", "unit_nr", "Anlage", "id")]
    ['machine', 'unit', 'Anlage', 'id']
    """
    parted = re.fullmatch(rf"(.*[a-z0-9])(?:[\s_.-]+(?i:{_NUMBERS})|{_CAPITAL})\.?", column)
    joined = re.fullmatch(rf"({_MACHINES})(?:{_NUMBERS})", column)
    return next((found[1] for found in (parted, joined) if found), column)


def _is_numbers(column: pd.Series) -> bool:
    if column.dtype.kind in "Mb":
        return False
    there = column.dropna()
    text = there.astype(str).str.replace(",", ".", regex=False) if column.dtype == object else there
    return len(there) > 0 and float(pd.to_numeric(text, errors="coerce").notna().mean()) >= 0.9


def _some_numbers(frame: pd.DataFrame, names: str, values: str) -> bool:
    """Whether what stands beside one of the names at least is numbers."""
    return any(_is_numbers(part[values]) for _, part in frame.groupby(frame[names].astype(str)))


def _is_words(column: pd.Series, name: str) -> bool:
    if column.dtype.kind == "M" or called([name], QUALITY_NAMES):
        return False
    return 2 <= column.nunique() <= min(_MOST_NAMES, len(column) / 2)


def _parts(frame: pd.DataFrame, words: str, value: str) -> float:
    """How many times larger the largest numbers of a word are than the smallest; 1 where all overlap."""
    text = frame[value].astype(str).str.replace(",", ".", regex=False)
    numbers = pd.to_numeric(text, errors="coerce").astype(float)
    groups = [g.dropna().to_numpy() for _, g in numbers.groupby(frame[words].astype(str))]
    spans = sorted(_spans(groups))
    if len(spans) < 2:
        return 1.0
    middles = [max(abs(middle), 1e-9) for middle, _, _ in spans]
    apart = any(a[2] < b[1] for a in spans for b in spans)
    return max(middles) / min(middles) if apart else 1.0


def _spans(groups: Iterable[np.ndarray]) -> list[tuple[float, float, float]]:
    """Median, and where nine of ten values lie."""
    found = (np.quantile(g, [0.5, 0.05, 0.95]) for g in groups if len(g) >= 5)
    return [(float(middle), float(low), float(high)) for middle, low, high in found]
