"""Drafts of signals out of values: of the names of long data, and without what stands for 'no value'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from aiotkit.core.errors import DataError
from aiotkit.lab.first_limit import limit_of
from aiotkit.lab.guess import as_numbers, choices_of, identifiers, span_of, unit_of
from aiotkit.lab.guess_time import TimeFound
from aiotkit.lab.long import Long
from aiotkit.lab.pace import Pace, pace_of, sampling, window_s
from aiotkit.lab.proposal import Known
from aiotkit.lab.quality import sentinel_of
from aiotkit.lab.template import ContextDraft, SignalDraft
from aiotkit.lab.units import EVERYDAY, conversion, unit_problem

#: more words than this are no choices
_MOST_CHOICES = 12


def drafts_of_names(
    frame: pd.DataFrame, columns: tuple[str, str, str | None], time: TimeFound, who: Sequence[str]
) -> tuple[dict[str, Pace], dict[str, SignalDraft], dict[str, str]]:
    """Pace and draft of each name in long data, and how the file writes it."""
    names, values, units = columns
    numbers = pd.to_numeric(frame[values].astype(object), errors="coerce").astype(float)
    groups = frame.groupby(list(who), dropna=False, observed=True).ngroup().to_numpy() if who else None
    found: dict[str, Pace] = {}
    mine: dict[str, pd.Series] = {}
    for name, part in numbers.groupby(frame[names].astype(str)):
        if not bool(part.notna().any()):
            continue
        mine[str(name)] = part
        if time.instants is None:
            continue
        places = frame.index.get_indexer(part.index[part.notna()])
        places = places[time.instants.good[places]]
        series = np.zeros(len(places), dtype=np.int64) if groups is None else groups[places]
        pace = pace_of(time.instants.at_us[places], series)
        if pace is not None:
            found[str(name)] = pace
    length = window_s(found)
    idents = identifiers(list(mine))
    drafts: dict[str, SignalDraft] = {}
    for name, part in mine.items():
        said = choices_of(frame.loc[part.index, units]) if units is not None else ()
        part = _in_one_unit(part, frame.loc[part.index, units], said) if units is not None else part
        unit, sure, why = _said_unit(said) or unit_of(name, float(part.min()), float(part.max()))
        low, high = span_of(part.to_numpy(dtype=float))
        rate, age, grid = sampling(found.get(name), length)
        limit = limit_of(part.dropna(), frame, time.instants, who, length) if not drafts else None
        remark = f"unit {sure:.0%} sure: {why}"
        drafts[idents[name]] = SignalDraft(unit, rate, low, high, remark, age, grid, limit)
    return found, drafts, {ident: name for name, ident in idents.items()}


def words_of_names(
    frame: pd.DataFrame, columns: tuple[str, str, str | None], found: Mapping[str, Pace]
) -> tuple[dict[str, ContextDraft], dict[str, str], list[str]]:
    """Names in long data whose values are words: those of a few as choices; the others."""
    names, values, _ = columns
    period = min((p.period_s for p in found.values()), default=window_s(found))
    age = float(f"{max(3 * period, 2 * window_s(found)):.6g}")
    drafts: dict[str, ContextDraft] = {}
    others: list[str] = []
    wordy = {str(n): part for n, part in frame[values].groupby(frame[names].astype(str)) if _all_words(part)}
    idents = identifiers(list(wordy))
    for name, part in wordy.items():
        words = tuple(sorted(choices_of(part)))
        if 2 <= len(words) <= _MOST_CHOICES:
            drafts[idents[name]] = ContextDraft(words, age)
        else:
            others.append(name)
    return drafts, {idents[n]: n for n in wordy if idents[n] in drafts}, others


def _all_words(values: pd.Series) -> bool:
    there = values.dropna()
    return len(there) > 0 and not bool(pd.to_numeric(there.astype(object), errors="coerce").notna().any())


def _in_one_unit(values: pd.Series, units: pd.Series, said: Sequence[str]) -> pd.Series:
    """The values of a name in the unit that most of its rows give."""
    target = _said_unit(said)
    if target is None:
        return values
    out = values.copy()
    for one in said[1:]:
        mine = (units.astype(str).str.strip() == one) & out.notna()
        try:
            out[mine] = conversion(one, target[0])(out[mine].to_numpy(dtype=float))
        except DataError:
            out[mine] = np.nan  # ingest quarantines them
    return out


def _said_unit(said: Sequence[str]) -> tuple[str, float, str] | None:
    """The unit that the rows of a name give, as UCUM."""
    for one in said:
        unit = EVERYDAY.get(one, one)
        if unit_problem(unit) is None:
            others = f"; also {', '.join(said[1:4])}" if len(said) > 1 else ""
            return unit, 0.95, f"its rows say '{one}'{others}"
    return None


def without_sentinels(frame: pd.DataFrame, long: Long | None) -> tuple[pd.DataFrame, dict[str, float]]:
    """The table without numbers that stand for 'no value', and which they were: by column, long by name."""
    out, far = frame.copy(deep=False), dict[str, float]()
    for column in map(str, frame.columns) if long is None else [long.value]:
        values = as_numbers(frame[column])
        if values is None:
            continue
        names = pd.Series(column, index=values.index)
        names = names if long is None else frame.loc[values.index, long.name].astype(str)
        gone = pd.Series(False, index=frame.index)
        for name, part in values.groupby(names):
            one = sentinel_of(part.to_numpy(dtype=float))
            if one is not None:
                far[str(name)] = one
                gone.loc[part.index[part == one]] = True
        if gone.any():
            out[column] = frame[column].astype(object).where(~gone, None)
    return out, far


def kept(
    signals: Mapping[str, SignalDraft], far: Mapping[str, float], columns: Mapping[str, str], known: Known
) -> dict[str, SignalDraft]:
    """Signals that are asked for, in the units that are told, with ranges that leave sentinels out."""
    out = {}
    for name, s in signals.items():
        if known.only and name not in known.only:
            continue
        one, unit = far.get(columns.get(name, name)), known.units.get(name)
        if one is not None and s.low <= one <= s.high:
            s = replace(s, high=one / 2) if one > 0 else replace(s, low=one / 2)
        out[name] = s if unit is None else replace(s, unit=EVERYDAY.get(unit, unit), remark="unit as told")
    return out


def doubts_of_values(far: Mapping[str, float], quality: str | None, bad: int) -> Iterator[str]:
    """What values leave open: sentinels, and rows of bad quality."""
    for name, one in list(far.items())[:8]:
        what = f"what {one:g} of '{name}' means"
        yield f"{what}: it stands far from all else, as 'no value' does, and out of the range proposed"
    if bad:
        what = f"whether rows that '{quality}' calls bad are to go"
        yield f"{what}: {bad:,} are not looked at, and ingest takes none"
