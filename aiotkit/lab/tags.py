"""Machines in the names of columns or tags: ``PUMP01.TEMP``, ``p1_vib``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from aiotkit.core.errors import DataError
from aiotkit.lab.layout import NAME_NAMES, VALUE_NAMES, called, folded
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

    >>> apart(["time", "p1_temp", "p1_oil_temp", "p2_temp", "p2_oil_temp"])["p2_oil_temp"]
    ('p2', 'oil_temp')
    >>> apart(["temp_in", "temp_out", "press_in", "press_out"])
    {}
    """
    best: dict[str, tuple[str, str]] = {}
    for sign in _SIGNS:
        for first in (True, False):
            found = _at(names, sign, first=first)
            if len(found) > len(best):
                best = found
    return best


def _at(names: Sequence[str], sign: str, *, first: bool) -> dict[str, tuple[str, str]]:
    """Names taken apart at the first or the last of a sign, where what comes out are machines."""
    found: dict[str, tuple[str, str]] = {}
    for name in names:
        left, _, right = name.partition(sign) if first else name.rpartition(sign)
        if left and right and not right.isdigit():
            found[name] = (left, right)
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
    names = list(map(str, raw.frame[tags].dropna().unique() if tags else raw.frame.columns))
    found = apart(names)
    if not found:
        raise DataError(
            f"{raw.name}: no names that hold machine and signal",
            expected="names such as PUMP01.TEMP and PUMP02.TEMP",
            found=", ".join(names[:12]),
            do="Give --subject-column COLUMN, --subject NAME or --subject-from filename.",
        )
    machines = sorted({machine for machine, _ in found.values()})
    note = f"machines in names: {', '.join(machines[:12])}"
    if tags is None:
        return replace(raw, frame=_stacked(raw.frame, found, machines), notes=(*raw.notes, note))
    said = raw.frame[tags].astype(object)
    who = said.map(lambda n: found[n][0] if n in found else None)
    what = said.map(lambda n: found[n][1] if n in found else n)
    return replace(raw, frame=raw.frame.assign(**{tags: what, SUBJECT: who}), notes=(*raw.notes, note))


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
