"""Machines in the names of columns or tags: ``PUMP01.TEMP``, ``p1_vib``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from aiotkit.core.errors import DataError
from aiotkit.lab.guess import unit_of
from aiotkit.lab.layout import NAME_NAMES, VALUE_NAMES, called, folded
from aiotkit.lab.levels import BETWEEN
from aiotkit.lab.long import is_id
from aiotkit.lab.readers import Raw

#: what the column of machines is called that comes out of names
SUBJECT = "subject"
#: share of machines that must have a signal, on average, for names to be taken apart
_FULL = 0.75
#: what figures of one sensor are called
_STATISTICS = frozenset(
    {
        "mean", "avg", "average", "std", "sd", "var", "min", "max", "rms", "median", "raw", "normalized",
        "value", "val", "kurtosis", "skew", "crest", "peak", "sum", "count", "status", "quality",
    }
)  # fmt: skip
_SIGNS = "./:_- "


def apart(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Machine and signal of each name that holds both; empty where names hold no machines.

    Machines are numbered alike (``P1`` and ``P2``, ``meter_A`` and ``meter_B``), and have the same signals.
    Of a header's two lines either may hold the machines.

    >>> apart(["time", "p1_temp", "p1_oil_temp", "p2_temp", "p2_oil_temp"])["p2_oil_temp"]
    ('p2', 'oil_temp')
    >>> apart(["temp_in", "temp_out", "press_in", "press_out"])
    {}
    """
    best: dict[str, tuple[str, str]] = {}
    for found in (_levels(names), _levels(names, turned=True)):
        best = max(best, _numbered(found), key=len)
    for sign in () if best else _SIGNS:
        for first in (True, False):
            best = max(best, _numbered(_at(names, sign, first=first)), key=len)
    return best


def _levels(names: Sequence[str], *, turned: bool = False) -> dict[str, tuple[str, str]]:
    """Both levels of names that have two; ``turned``: the machine is the second."""
    pairs = {name: name.split(BETWEEN) for name in names if name.count(BETWEEN) == 1}
    return {n: (right, left) if turned else (left, right) for n, (left, right) in pairs.items()}


def _at(names: Sequence[str], sign: str, *, first: bool) -> dict[str, tuple[str, str]]:
    """Names taken apart at the first or the last of a sign."""
    found: dict[str, tuple[str, str]] = {}
    for name in names:
        left, _, right = name.partition(sign) if first else name.rpartition(sign)
        if left and right and not right.isdigit():
            found[name] = (left, right)
    return found


def _numbered(found: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Those of one numbered kind, where most of its machines have most of the signals; otherwise nothing."""
    kinds: dict[str, set[str]] = {}
    for machine, _ in found.values():
        kinds.setdefault(_kind(machine), set()).add(machine)
    kind, machines = max(kinds.items(), key=lambda k: len(k[1]), default=("", set[str]()))
    found = {name: pair for name, pair in found.items() if _kind(pair[0]) == kind}
    signals = {signal for _, signal in found.values()}
    if {folded(signal) for signal in signals} <= _STATISTICS:
        return {}  # one machine's sensors, each with its figures
    full = len(found) >= _FULL * len(machines) * len(signals) if machines else False
    return found if len(machines) > 1 and full and kind else {}


def _kind(machine: str) -> str:
    """What numbered names have in common: ``PUMP#`` of PUMP01; '' of one that is not numbered."""
    plain = re.sub(r"\d+", "#", machine)
    if "#" in plain:
        return plain
    return re.sub(r"(?<=[_\-. ])[A-Z]$", "@", machine) if re.search(r"[_\-. ][A-Z]$", machine) else ""


def by_machine(raw: Raw, *, name_column: str | None = None, value_column: str | None = None) -> Raw:
    """A file with a column of machines out of what its columns, or the tags of long data, are called.

    Of wide data each row becomes one a machine, with its number kept; columns without a machine go to all.

    Raises:
        DataError: no names hold machines, or a column is called ``subject`` already.
    """
    if SUBJECT in raw.frame.columns:
        raise DataError(f"{raw.name}: a column is called '{SUBJECT}' already", do="Give --subject-column.")
    tags = _tags(raw, name_column, value_column)
    found = machines_told(raw, name_column, value_column)
    if not found:
        names = list(map(str, raw.frame[tags].dropna().unique() if tags else raw.frame.columns))
        raise DataError(
            f"{raw.name}: no names that hold machine and signal",
            expected="names such as PUMP01.TEMP and PUMP02.TEMP",
            found=", ".join(names[:12]),
            do="Give --subject-column COLUMN, --subject NAME or --subject-from filename.",
        )
    machines = sorted({machine for machine, _ in found.values()})
    note = f"machines in names: {', '.join(machines[:12])}"
    if tags is None:
        units = {c: u for c, u in raw.units.items() if c not in found} | _units(raw, found)
        return replace(raw, frame=_stacked(raw.frame, found, machines), notes=(*raw.notes, note), units=units)
    said = raw.frame[tags].astype(object)
    who = said.map(lambda n: found[n][0] if n in found else None)
    what = said.map(lambda n: found[n][1] if n in found else n)
    return replace(raw, frame=raw.frame.assign(**{tags: what, SUBJECT: who}), notes=(*raw.notes, note))


def machines_told(
    raw: Raw, name_column: str | None = None, value_column: str | None = None
) -> Mapping[str, tuple[str, str]]:
    """Machine and signal by name, where somebody says that names hold them: also machines without numbers."""
    tags = _tags(raw, name_column, value_column)
    names = list(map(str, raw.frame[tags].dropna().unique() if tags else raw.frame.columns))
    found = apart(names)
    if found:
        return found
    both, turned = _levels(names), _levels(names, turned=True)
    return max(
        both, turned, key=lambda pairs: sum(unit_of(signal, 0, 1)[1] >= 0.5 for _, signal in pairs.values())
    )


def machines_in(raw: Raw) -> Mapping[str, tuple[str, str]]:
    """Machine and signal by name, of a file whose columns or tags hold them and nothing else does."""
    if raw.headless or SUBJECT in raw.frame.columns:
        return {}
    tags = _tags(raw, None, None)
    found = apart(list(map(str, raw.frame[tags].dropna().unique() if tags else raw.frame.columns)))
    others = [c for c in map(str, raw.frame.columns) if c not in found and c != tags and is_id(c)]
    return {} if any(raw.frame[c].nunique() > 1 for c in others) else found


def _tags(raw: Raw, name_column: str | None, value_column: str | None) -> str | None:
    """The column of tags of long data; None of wide data."""
    if name_column is not None:
        return name_column
    names, values = (called(raw.frame.columns, n) for n in (NAME_NAMES, VALUE_NAMES))
    return names[0] if len(names) == 1 and (values or value_column) else None


def _units(raw: Raw, found: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """The unit of each signal, the same for all machines that say one."""
    units: dict[str, str] = {}
    for column, unit in raw.units.items():
        machine, signal = found.get(column, ("", ""))
        if machine and units.setdefault(signal, unit) != unit:
            raise DataError(
                f"{raw.name}: '{signal}' of {machine}", expected=f"{units[signal]}, as of the others",
                found=unit, do="Give each machine a file of its own.",
            )  # fmt: skip
    return units


def _stacked(
    frame: pd.DataFrame, found: Mapping[str, tuple[str, str]], machines: Sequence[str]
) -> pd.DataFrame:
    shared = [c for c in map(str, frame.columns) if c not in found]
    parts = []
    for machine in machines:
        mine = {name: signal for name, (who, signal) in found.items() if who == machine}
        part = frame[[*shared, *mine]].rename(columns=mine)
        parts.append(part.assign(**{SUBJECT: machine}))
    return pd.concat(parts)
