"""What single columns of an unknown file probably mean: guesses with reasons, and how sure each is."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.features import RESERVED
from aiotkit.lab.guess_time import TimeFound, typed
from aiotkit.lab.guessed import Guess
from aiotkit.lab.instants import Instants
from aiotkit.lab.layout import BOTH, bare, header_unit
from aiotkit.lab.long import Long
from aiotkit.lab.uneventful import LABELS, are_verdicts
from aiotkit.lab.units import EVERYDAY, unit_problem

#: below this share of rows with a value a column is sparse
SPARSE = 0.005
_SWITCH = "two different numbers: a label, or a switch"
#: how the reason begins why a column of two numbers is a signal
SWITCHES = "a switch among other signals,"
#: and why one that only rises is
METER = "only rises, as meters do,"
#: words in a column's name -> units it may have, the likelier first, with the range that fits (None: any)
_HINTS: tuple[tuple[str, tuple[tuple[str, tuple[float, float] | None], ...]], ...] = (
    (r"temp|°c|_c$|celsius", (("Cel", (-273, 2000)), ("[degF]", (-80, 500)), ("K", (200, 1500)))),
    (r"hum|rh$", (("%", (0, 100)),)),
    (r"press|bar$", (("bar", (-1, 700)), ("kPa", (0, 1e5)), ("[psi]", (-15, 1e4)), ("Pa", (0, 1e8)))),
    (r"vib|velocity", (("mm/s", (-200, 200)),)),
    (r"acc", (("m/s2", (-500, 500)),)),
    (r"wind.*speed|speed.*wind", (("m/s", (0, 150)),)),
    (r"rpm|speed|rot", (("/min", (-1e5, 1e5)),)),
    (r"flow", (("L/min", (-10, 1e5)),)),
    (r"volt", (("V", (-1e5, 1e5)),)),
    (r"curr|amp", (("A", (-1e5, 1e5)),)),
    (r"power|watt|kw$", (("kW", (-1e5, 1e5)), ("W", (-1e9, 1e9)))),
    (r"freq|hz$", (("Hz", (0, 1e7)),)),
    (r"hours|_h$", (("h", (0, 1e6)),)),
    (r"perc|pct|util|occup|share|effic|load", (("%", (-5, 200)),)),
    (r"byte|capacity", (("By", None),)),
    (r"latency|duration|travel", (("s", None), ("ms", None))),
    (r"count|number|^n_|volume", (("1", None),)),
)

#: words in the names of columns that say what comes
_FUTURE = (
    r"(?:^|_)(?:rul|ttf|eol)(?:$|_)|remaining_?(?:useful|life|time|cycle|hour)|time_?to_?(?:fail|event)|"
    + (r"(?:within|next|fails?_in|in_the_next)_?\d")
)
#: what else a column of two numbers may be called that is a verdict, and no sensor
_VERDICTS = (
    r"ausfall|st(?:ö|oe|o)rung|fehler|defekt|panne|schaden|"
    r"(?:^|_)(?:bad|good|ok|healthy|normal|alarm|error|trip|broke)(?:$|_)"
)

#: how rows are parted for training, folded
_PARTS = frozenset(
    {"train", "training", "test", "testing", "valid", "validation", "val", "dev", "prediction"}
)
#: two words that say yes and no
_SWITCHES = ("true false", "yes no", "on off", "ja nein", "an aus", "ein aus", "y n", "j n", "t f", "1 0")


def is_switch(column: pd.Series) -> bool:
    """Whether a column says yes or no, in words, as 1 and 0, or as such.

    >>> [is_switch(pd.Series(words)) for words in (["True", "False"], [0, 1], ["a", "b"])]
    [True, True, False]
    """
    if pd.api.types.is_bool_dtype(column):
        return True
    if column.nunique() > 2:
        return False
    said = {str(v).strip().lower().removesuffix(".0") for v in column.dropna().unique()}
    return bool(said) and any(said <= set(pair.split()) for pair in _SWITCHES)


def as_numbers(column: pd.Series) -> pd.Series | None:
    """The column as numbers (those that are there), if nine of ten values that are there are numbers."""
    if typed(column) or pd.api.types.is_bool_dtype(column):
        return None
    there = column[column.notna()]
    values = pd.to_numeric(there.astype(object), errors="coerce").astype(float)
    finite = values[np.isfinite(values)]
    return finite if len(there) and len(finite) / len(there) >= 0.9 else None


def decimal_of(frame: pd.DataFrame) -> str:
    """The decimal sign of numbers in text: a comma where it stands ten times as often as a point."""
    commas = points = 0
    for column in frame.columns:
        if pd.api.types.is_numeric_dtype(frame[column]) or typed(frame[column]):
            continue
        text = frame[column].dropna().astype(str).str.strip().head(500)
        commas += int(text.str.fullmatch(r"[-+]?\d[\d.]*,\d+").sum())
        points += int(text.str.fullmatch(r"[-+]?\d+\.\d+").sum())
    return "," if commas > 10 * points else "."


def with_points(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with decimal commas as points, in columns that hold numbers so written."""
    out = frame.copy(deep=False)
    for column in frame.columns:
        if pd.api.types.is_numeric_dtype(frame[column]) or typed(frame[column]):
            continue
        text = frame[column].astype(object).where(frame[column].notna(), "").astype(str).str.strip()
        given = text[text != ""]
        numbers = len(given) and float(given.str.fullmatch(r"[-+]?[\d.]*\d(,\d+)?").mean()) >= 0.9
        if numbers and bool(given.str.contains(",").any()):
            plain = text.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
            out[column] = plain.where(text != "", None)
    return out


@dataclass(frozen=True, slots=True)
class Found:
    """What of a table is known before single columns are looked at.

    ``units``: what a line below the header says. ``quality``: the column that says whether a row is good.
    """

    time: TimeFound = field(default_factory=TimeFound)
    subject: Guess | None = None
    long: Long | None = None
    quality: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)

    def roles(self) -> dict[str, Guess]:
        """Guesses of columns that are known."""
        known = [g for g in (self.time.guess, self.subject) if g is not None]
        if self.long is not None:
            known.append(Guess(self.long.name, "name", f"names of signals: {self.long.why}", 0.8))
            known.append(Guess(self.long.value, "value", "numbers beside a column of names", 0.8))
            known += [Guess(self.long.unit, "unit", "units beside values", 0.8)] if self.long.unit else []
        if self.quality is not None:
            why = "says whether a row is good: rows that are not are not taken"
            known.append(Guess(self.quality, "quality", why, 0.9))
        return {g.column: g for g in known}


def guess_columns(frame: pd.DataFrame, found: Found) -> Iterator[Guess]:
    """What each column probably is, in order; a time of two columns comes first."""
    time = found.time.guess
    parts = [] if time is None or time.column in frame.columns else time.column.split(BOTH)
    if parts and time is not None:
        yield time
    known = found.roles()
    guesses = [known.get(c) or _guess(frame, c, found) for c in map(str, frame.columns) if c not in parts]
    others = any(g.role == "signal" for g in guesses)
    for g in guesses:
        says = re.search(_VERDICTS, g.column.lower()) is not None
        if others and g.why == _SWITCH and not says:  # as a label it would be lost
            yield as_signal(frame, g, f"{SWITCHES} values ", found.units.get(g.column))
        elif not others and g.role == "counter" and not _counts_evenly(frame[g.column]):
            yield as_signal(frame, g, f"{METER} values ", found.units.get(g.column))
        else:
            yield g


def as_signal(frame: pd.DataFrame, guess: Guess, why: str, below: str | None = None) -> Guess:
    """A column as a signal, whatever else it seemed to be; ``why`` goes before the values seen."""
    values = as_numbers(frame[guess.column])
    if values is None or values.empty:
        return replace(guess, role="signal", why=why, unit="1", low=0.0, high=1.0)
    low, high = float(values.min()), float(values.max())
    unit, sure, _ = unit_of(guess.column, low, high, below)
    if values.nunique() <= 2:
        said, switch = below or header_unit(guess.column), (low, high) in ((0, 1), (0, 0), (1, 1))
        least, most = (low, high) if switch else span_of(values.to_numpy(dtype=float))
        return Guess(guess.column, "signal", f"{why}{low:g} and {high:g}", 0.5, said or "1", least, most)
    least, most = span_of(values.to_numpy(dtype=float))
    return Guess(guess.column, "signal", f"{why}{low:g} to {high:g}", sure, unit, least, most)


def _counts_evenly(column: pd.Series) -> bool:
    """Whether numbers rise by the same again and again, as the numbers of rows or hours of operation do."""
    values = as_numbers(column)
    steps = pd.Series(dtype=float) if values is None else values.diff().dropna()
    return steps.empty or float((steps == steps.mode()[0]).mean()) > 0.5


def _guess(frame: pd.DataFrame, column: str, found: Found) -> Guess:
    raw, lowered = frame[column], column.lower()
    there, distinct = int(raw.notna().sum()), int(raw.nunique())
    if not there:
        return Guess(column, "empty", "no row holds a value", 0.95)
    if there < max(3, SPARSE * len(frame)):
        return Guess(column, "sparse", f"only {there:,} of {len(frame):,} rows hold a value", 0.7)
    if distinct == 1:
        rows = "on every row" if there == len(frame) else f"wherever there is a value ({there:,} rows)"
        return Guess(column, "constant", f"the same {rows}", 0.95 if there == len(frame) else 0.6)
    if re.search(_FUTURE, lowered):
        return Guess(column, "future", "its name says what comes: no device knows that", 0.8)
    hint = re.search(LABELS, lowered)
    if hint and distinct <= 20:
        return Guess(column, "label", f"{distinct} different values, and its name says '{hint[0]}'", 0.8)
    values = as_numbers(raw)
    if values is None:
        return _of_words(frame, column, distinct)
    if distinct == 2:
        return Guess(column, "label", _SWITCH, 0.4)
    if _is_counter(frame, values, found.subject, found.time.instants):
        return Guess(column, "counter", "never falls within a subject: it carries the date along", 0.8)
    unit, sure, why = unit_of(column, float(values.min()), float(values.max()), found.units.get(column))
    low, high = span_of(values.to_numpy(dtype=float))
    return Guess(column, "signal", why, sure, unit, low, high)


def coded(column: str, value: str) -> str:
    """The name of a state that a label column gives a number.

    >>> coded("class", "3")
    'class_3'
    """
    return identifier(f"{column}_{value}")


def _of_words(frame: pd.DataFrame, column: str, distinct: int) -> Guess:
    words = choices_of(frame[column]) if 2 <= distinct <= 12 else ()
    if words and are_verdicts(words):
        return Guess(column, "label", f"{distinct} verdicts: {', '.join(words)}", 0.8)
    if words and set(map(str.lower, words)) <= _PARTS:
        return Guess(column, "words", "says which rows others trained with: no condition of operation", 0.8)
    said = re.search(_VERDICTS, column.lower())
    if words and said and is_switch(frame[column]):
        return Guess(column, "label", f"{' and '.join(words)}, and its name says '{said[0]}'", 0.8)
    if words and float(frame[column].notna().mean()) >= 0.5:
        return Guess(column, "choice", f"{distinct} different words: perhaps a condition of operation", 0.5)
    return Guess(column, "words", f"{distinct} different words", 0.6)


def _is_counter(
    frame: pd.DataFrame, values: pd.Series, subject: Guess | None, instants: Instants | None
) -> bool:
    order = pd.Series(np.arange(len(frame)) if instants is None else instants.at_us, index=frame.index)
    groups = frame[subject.column] if subject is not None else pd.Series(0, index=frame.index)
    sorted_values = values.loc[order.loc[values.index].sort_values(kind="stable").index]
    steps = sorted_values.groupby(groups.loc[sorted_values.index]).diff().dropna()
    return len(steps) >= 20 and bool((steps >= 0).all()) and float((steps > 0).mean()) > 0.5


def unit_of(name: str, low: float, high: float, below: str | None = None) -> tuple[str, float, str]:
    """The likeliest unit of a column, how sure, and why; ``below``: what a line below the header says.

    >>> unit_of("Temperatur °C", 20, 80)[:2], unit_of("vib_mm_s", 0, 9)[:2], unit_of("temp", 20, 80)[:2]
    (('Cel', 0.95), ('mm/s', 0.9), ('Cel', 0.5))
    """
    seen, said = f"values {low:g} to {high:g}", below or header_unit(name)
    if said is not None:
        return said, 0.95, f"its header says so, {seen}"
    written = _written_units(name)
    for pattern, units in _HINTS:
        hit = re.search(pattern, bare(name).lower())
        if hit is None:
            continue
        for unit, span in units:
            assert unit_problem(unit) is None
            fits = span is None or (span[0] <= low and high <= span[1])
            if unit.lower() in written:
                return (
                    unit,
                    0.9 if fits else 0.6,
                    f"its name says '{hit[0]}' and '{written[unit.lower()]}', {seen}",
                )
        for unit, span in units:
            if span is None or (span[0] <= low and high <= span[1]):
                others = [u for u, s in units if u != unit and (s is None or (s[0] <= low and high <= s[1]))]
                rivals = f"; could be {', '.join(others)}" if others else ""
                usual = unit != "Cel" or (low >= -60 and high <= 160)
                sure = (0.5 if others else 0.6) if usual else 0.4
                return unit, sure, f"its name says '{hit[0]}', {seen}{rivals}"
    return "1", 0.1, f"no hint of a unit, {seen}"


def _written_units(name: str) -> dict[str, str]:
    """What the end of a name may write as a unit (folded UCUM), and how: of ``vib_mm_s`` also ``mm/s``."""
    everyday = {written.lower(): unit.lower() for written, unit in EVERYDAY.items()}
    out: dict[str, str] = {}
    for written in (bare(name), re.sub(r"(?<=[a-z])(?=[A-Z]{1,3}$)", "_", bare(name))):  # CoolantTempF
        words = [w.lower() for w in re.split(r"[\s_]+", written) if w]
        ends = [words[-1], "/".join(words[-2:])] if len(words) > 1 else []
        out |= {everyday.get(end, end): end for end in ends}
    return out


def span_of(values: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """The range seen and as much again on each side, rounded outwards; not what is physically possible.

    >>> span_of(np.array([1570.0, 1620.0])), span_of(np.array([0.0, 3.0]))
    ((1500.0, 1700.0), (0.0, 6.0))
    """
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = high - low or max(abs(high), 1.0)
    step = 10 ** math.floor(math.log10(room))
    step *= 5 if room / step >= 5 else 1
    lowest = math.floor((low - room) / step) * step
    wide_low = lowest if low < 0 or lowest > 0 else 0.0
    return float(f"{wide_low:.9g}"), float(f"{math.ceil((high + room) / step) * step:.9g}")


def choices_of(column: pd.Series) -> tuple[str, ...]:
    """The words of a column, the most frequent first."""
    text = column.dropna().astype(str).str.strip()
    return tuple(str(w) for w in text[text != ""].value_counts().index)


def identifiers(columns: Sequence[str]) -> dict[str, str]:
    """A name for each column, each once."""
    out: dict[str, str] = {}
    for column in columns:
        name, n = identifier(column), 2
        while name in out.values():
            name, n = f"{identifier(column)[:55]}_{n}", n + 1
        out[column] = name
    return out


def identifier(column: str) -> str:
    """A name that a decision file takes, as near to the column's as can be."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", bare(column)) if not unicodedata.combining(c))
    name = re.sub(r"[^A-Za-z0-9_]+", "_", plain).strip("_")[:60] or "signal"
    name = name if name[0].isalpha() else f"s_{name}"
    return f"{name}_" if name in RESERVED else name
