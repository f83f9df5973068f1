"""What the columns of an unknown file probably mean. Guesses, each with its reason and how sure it is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.errors import DataError
from aiotkit.core.features import RESERVED
from aiotkit.lab.instants import Clock, Instants, parse_instants
from aiotkit.lab.layout import NAME_NAMES, VALUE_NAMES
from aiotkit.lab.readers import Raw, read_raw
from aiotkit.lab.template import SignalDraft, signal_lines
from aiotkit.lab.units import unit_problem

Role = Literal[
    "time", "subject", "signal", "label", "counter", "constant", "words", "name", "value", "sample"
]
_MOST_ROWS = 200_000

#: words in a column's name -> units it may have, the likelier first, with the range that fits (None: any)
_HINTS: tuple[tuple[str, tuple[tuple[str, tuple[float, float] | None], ...]], ...] = (
    (r"temp|°c|_c$|celsius", (("Cel", (-60, 160)), ("[degF]", (-80, 500)), ("K", (200, 1500)))),
    (r"hum|rh$", (("%", (0, 100)),)),
    (r"press|bar$", (("bar", (-1, 700)), ("kPa", (0, 1e5)), ("Pa", (0, 1e8)))),
    (r"vib|velocity", (("mm/s", (-200, 200)),)),
    (r"acc", (("m/s2", (-500, 500)),)),
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
_IDS = (
    r"(?:^|_)(?:id|serial|machine|device|asset|unit|drive|pump|engine|vehicle|subject|host|server|rig)(?:$|_)"
)
_LABELS = r"fail|fault|label|target|class|anomal|state|status|defect|broken|outcome"


@dataclass(frozen=True, slots=True)
class Guess:
    """One column: what it probably is, why, and how sure (0 to 1). ``unit`` only for signals."""

    column: str
    role: Role
    why: str
    sure: float
    unit: str | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a file probably holds. ``doubts`` say what only a person can settle."""

    path: str
    rows: int
    shape: str
    guesses: tuple[Guess, ...]
    rate_hz: float | None
    steady: float | None
    zone_needed: bool
    doubts: tuple[str, ...]
    signals: dict[str, SignalDraft]
    columns: dict[str, str]

    def one(self, role: Role) -> Guess | None:
        """The likeliest column of a role, if any."""
        found = [g for g in self.guesses if g.role == role]
        return max(found, key=lambda g: g.sure) if found else None

    @property
    def fragment(self) -> str:
        """Signals and window as a decision file has them, to be read and corrected."""
        lines = ["signals:", *signal_lines(self.signals)]
        return (
            "\n".join([*lines, f"window: {{length_s: {self.length_s:g}, every_s: {self.length_s:g}}}"]) + "\n"
        )

    @property
    def length_s(self) -> float:
        """A window that holds some ten samples, or those of a row where a row is a window."""
        if self.rate_hz is None:
            return 3600.0
        samples = sum(g.role == "sample" for g in self.guesses) if self.shape == "window" else 12
        return float(f"{samples / self.rate_hz:.6g}")

    @property
    def command(self) -> str:
        """The command that reads the file, with what was found filled in and ``…`` where nobody can know."""
        words = ["aiotkit", "ingest", shlex.quote(self.path), "--decision", "DECISION.yaml"]
        time, subject = self.one("time"), self.one("subject")
        if time is not None:
            words += ["--time", shlex.quote(time.column)]
        else:
            words += ["--start", "…", "--every-s", "…"]
        words += ["--subject-column", shlex.quote(subject.column)] if subject else ["--subject", "…"]
        for name, column in self.columns.items():
            if name != column:
                words += ["--column", shlex.quote(f"{name}={column}")]
        return " ".join(words + (["--zone", "…"] if self.zone_needed else []))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "path": self.path, "rows": self.rows, "shape": self.shape, "rate_hz": self.rate_hz,
            "steady": self.steady, "zone_needed": self.zone_needed, "doubts": list(self.doubts),
            "columns": [{n: getattr(g, n) for n in g.__slots__} for g in self.guesses],
            "fragment": self.fragment, "command": self.command,
        }  # fmt: skip

    def __str__(self) -> str:
        shown = [g for g in self.guesses if g.role != "sample"]
        width = max((len(g.column) for g in shown), default=1)
        lines = [f"{self.path}: {self.rows:,} rows, shape {self.shape}. These are guesses; read them."]
        for g in shown:
            unit = f" {g.unit}" if g.unit else ""
            lines.append(f"  {g.column:<{width}}  {g.role + unit:<14} {g.sure:>4.0%} sure: {g.why}")
        samples = sum(g.role == "sample" for g in self.guesses)
        lines += [f"  {samples} columns of samples: each row is a window"] if samples else []
        if self.rate_hz is not None and self.steady is not None:
            lines.append(f"  one value every {1 / self.rate_hz:g} s ({self.steady:.0%} of intervals agree)")
        lines += [f"  not known: {doubt}" for doubt in self.doubts]
        return "\n".join([*lines, "", "For the decision file:", self.fragment, "To read it:", self.command])


def propose(path: str | Path) -> Proposal:
    """Look at a file and say what it probably holds. Nothing is stored.

    Raises:
        DataError: the file cannot be read at all.
    """
    raw = read_raw(path)
    frame = raw.frame.iloc[:_MOST_ROWS]
    if frame.empty:
        raise DataError(f"{path}: no rows below the header")
    if raw.headless:
        return _of_windows(str(path), raw)
    time, instants, naive = _find_time(frame)
    subject = _find_subject(frame, time)
    guesses = list(_guess_columns(frame, time, subject, instants))
    names, values = (next((g for g in guesses if g.role == r), None) for r in ("name", "value"))
    shape = "long" if names is not None and values is not None else "wide"
    who = [g.column for g in (subject, names) if g is not None and (g is subject or shape == "long")]
    rate, steady = _rate(frame, instants, who)
    regular = rate if steady is None or steady >= 0.9 else None
    if names is not None and values is not None:
        signals, columns = _long_drafts(frame, names.column, values.column, regular), dict[str, str]()
    else:
        signals, columns = _drafts(guesses, regular)
    doubts = list(_doubts(guesses, time, subject, naive, steady, len(raw.malformed)))
    return Proposal(
        str(path), len(raw.frame), shape, tuple(guesses), rate, steady, naive, tuple(doubts), signals, columns
    )


def _of_windows(path: str, raw: Raw) -> Proposal:
    values = raw.frame.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    name, n = _identifier(Path(path).stem), values.shape[1]
    unit, sure, why = _unit_of(name, float(np.nanmin(values)), float(np.nanmax(values)))
    low, high = _span(values)
    guesses = tuple(Guess(str(c), "sample", "numbers without a header", 0.7, unit) for c in raw.frame.columns)
    doubts = (
        "where a row begins in time: give --start and --every-s",
        f"the sampling rate: 1 Hz is assumed below, so that a row lasts {n} s",
        f"the unit: {why}" if sure < 0.9 else "",
        "which subject it is",
    )
    drafts = {name: SignalDraft(unit, 1.0, low, high, f"{sure:.0%} sure of the unit: {why}")}
    return Proposal(
        path, len(raw.frame), "window", guesses, 1.0, None, False, tuple(d for d in doubts if d), drafts, {}
    )


def _find_time(frame: pd.DataFrame) -> tuple[Guess | None, Instants | None, bool]:
    best: tuple[Guess | None, Instants | None, bool] = (None, None, False)
    for column in frame.columns:
        hint = bool(re.search(r"time|date|(?:^|_)ts$|^at$|stamp", str(column).lower()))
        number = (
            pd.to_numeric(frame[column], errors="coerce").notna().mean() > 0.5
            if not _typed(frame[column])
            else False
        )
        if number and not hint:
            continue  # a number is a time only where its name says so
        try:
            found, naive = _as_time(frame[column])
        except DataError:
            continue
        share = float(found.good.mean())
        sure = share * (0.98 if hint else 0.8)
        if share >= 0.9 and sure > (best[0].sure if best[0] else 0):
            zone = "without zone" if naive else "with offset, or epochs"
            best = (
                Guess(str(column), "time", f"{share:.0%} of rows read as times, {zone}", sure),
                found,
                naive,
            )
    return best


def _typed(column: pd.Series) -> bool:
    return column.dtype.kind == "M"


def _as_time(column: pd.Series) -> tuple[Instants, bool]:
    try:
        return parse_instants(column, Clock()), False
    except DataError as error:
        if "no zone" not in str(error):
            raise
        return parse_instants(column, Clock(zone="UTC")), True


def _find_subject(frame: pd.DataFrame, time: Guess | None) -> Guess | None:
    best: Guess | None = None
    for column in frame.columns:
        if (time is not None and column == time.column) or str(column).lower() in NAME_NAMES:
            continue
        words = frame[column].astype(str)
        distinct, hint = int(words.nunique()), bool(re.search(_IDS, str(column).lower()))
        if not 2 <= distinct <= len(frame) / 2 or (not hint and _numeric(frame[column]) is not None):
            continue
        sure = 0.9 if hint else 0.4 if distinct > 10 else 0.3
        if best is None or sure > best.sure:
            why = f"{distinct} different values" + (
                ", and its name says so" if hint else "; its name does not say"
            )
            best = Guess(str(column), "subject", why, sure)
    return best


def _numeric(column: pd.Series) -> pd.Series | None:
    """The column as numbers, if nine of ten values that are there are."""
    if _typed(column) or pd.api.types.is_bool_dtype(column):
        return None
    there = column[column.notna()]
    values = pd.to_numeric(there, errors="coerce").astype(float)
    return values if len(there) and float(values.notna().mean()) >= 0.9 else None


def _guess_columns(
    frame: pd.DataFrame, time: Guess | None, subject: Guess | None, instants: Instants | None
) -> Iterator[Guess]:
    for column in map(str, frame.columns):
        known = next((g for g in (time, subject) if g is not None and g.column == column), None)
        yield known or _guess(frame, column, subject, instants)


def _guess(frame: pd.DataFrame, column: str, subject: Guess | None, instants: Instants | None) -> Guess:
    raw = frame[column]
    distinct = int(raw.nunique())
    hint = re.search(_LABELS, column.lower())
    if distinct <= 1:
        return Guess(column, "constant", "the same on every row", 0.95)
    if hint and distinct <= 20:
        return Guess(column, "label", f"{distinct} different values, and its name says '{hint[0]}'", 0.8)
    values = _numeric(raw)
    if values is None:
        named = column.lower() in NAME_NAMES
        why = f"{distinct} different words" + (" and its name says so" if named else "")
        return Guess(column, "name" if named else "words", why, 0.8 if named else 0.6)
    if column.lower() in VALUE_NAMES and any(c.lower() in NAME_NAMES for c in map(str, frame.columns)):
        return Guess(column, "value", "numbers beside a column of names", 0.8)
    if distinct == 2:
        return Guess(column, "label", "two different numbers: a label, or a switch", 0.4)
    if _is_counter(frame, values, subject, instants):
        return Guess(column, "counter", "never falls within a subject: it carries the date along", 0.8)
    unit, sure, why = _unit_of(column, float(values.min()), float(values.max()))
    low, high = _span(values.to_numpy(dtype=float))
    return Guess(column, "signal", why, sure, unit, low, high)


def _is_counter(
    frame: pd.DataFrame, values: pd.Series, subject: Guess | None, instants: Instants | None
) -> bool:
    order = pd.Series(np.arange(len(frame)) if instants is None else instants.at_us, index=frame.index)
    groups = frame[subject.column] if subject is not None else pd.Series(0, index=frame.index)
    sorted_values = values.loc[order.loc[values.index].sort_values(kind="stable").index]
    steps = sorted_values.groupby(groups.loc[sorted_values.index]).diff().dropna()
    return len(steps) >= 20 and bool((steps >= 0).all()) and float((steps > 0).mean()) > 0.5


def _unit_of(name: str, low: float, high: float) -> tuple[str, float, str]:
    seen = f"values {low:g} to {high:g}"
    for pattern, units in _HINTS:
        hit = re.search(pattern, name.lower())
        if hit is None:
            continue
        for unit, span in units:
            assert unit_problem(unit) is None
            if span is None or (span[0] <= low and high <= span[1]):
                others = [u for u, s in units if u != unit and (s is None or (s[0] <= low and high <= s[1]))]
                rivals = f"; could be {', '.join(others)}" if others else ""
                return unit, 0.5 if others else 0.6, f"its name says '{hit[0]}', {seen}{rivals}"
    return "1", 0.1, f"no hint of a unit, {seen}"


def _span(values: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """The range seen and a quarter more on each side, rounded outwards; not what is physically possible."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = (high - low) / 4 or max(abs(high), 1.0)
    wide_low = low - room if low < 0 or low - room > 0 else 0.0
    return float(f"{wide_low:.2g}") if wide_low else 0.0, float(f"{high + 2 * room:.2g}")


def _rate(
    frame: pd.DataFrame, instants: Instants | None, who: list[str]
) -> tuple[float | None, float | None]:
    """Values a second within a series, and the share of intervals that agree with it."""
    if instants is None:
        return None, None
    groups = frame.groupby(who, dropna=False).ngroup().to_numpy() if who else np.zeros(len(frame))
    known = pd.DataFrame({"who": groups, "at": instants.at_us})[instants.good].sort_values(["who", "at"])
    steps = known.groupby("who")["at"].diff().dropna()
    steps = steps[steps > 0]
    if steps.empty:
        return None, None
    middle = float(steps.median())
    agree = float(((steps / middle - 1).abs() <= 0.05).mean())
    return 1e6 / middle, agree


def _drafts(guesses: list[Guess], rate: float | None) -> tuple[dict[str, SignalDraft], dict[str, str]]:
    drafts: dict[str, SignalDraft] = {}
    columns: dict[str, str] = {}
    for g in guesses:
        if g.role == "signal" and g.unit is not None and g.low is not None and g.high is not None:
            name = _identifier(g.column)
            drafts[name] = SignalDraft(g.unit, rate, g.low, g.high, f"unit {g.sure:.0%} sure: {g.why}")
            columns[name] = g.column
    return drafts, columns


def _long_drafts(frame: pd.DataFrame, names: str, values: str, rate: float | None) -> dict[str, SignalDraft]:
    drafts: dict[str, SignalDraft] = {}
    numbers = pd.to_numeric(frame[values], errors="coerce").astype(float)
    for name, mine in numbers.groupby(frame[names].astype(str)):
        if bool(mine.notna().any()):
            low, high = _span(mine.to_numpy(dtype=float))
            unit, sure, why = _unit_of(str(name), float(mine.min()), float(mine.max()))
            drafts[_identifier(str(name))] = SignalDraft(
                unit, rate, low, high, f"unit {sure:.0%} sure: {why}"
            )
    return drafts


def _identifier(column: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]+", "_", column).strip("_")[:60] or "signal"
    name = name if name[0].isalpha() else f"s_{name}"
    return f"{name}_" if name in RESERVED else name


def _doubts(
    guesses: list[Guess],
    time: Guess | None,
    subject: Guess | None,
    naive: bool,
    steady: float | None,
    malformed: int,
) -> Iterator[str]:
    if time is None:
        yield "no column reads as a time"
    if naive:
        yield "which time zone the times are in: give --zone"
    if subject is None:
        yield "which subject the rows belong to: give --subject"
    elif subject.sure < 0.8:
        yield f"whether '{subject.column}' is the subject"
    if steady is not None and steady < 0.9:
        yield f"the sampling rate: only {steady:.0%} of intervals agree, so signals are drafted as on_change"
    unsure = [g.column for g in guesses if g.role == "signal" and g.sure < 0.5]
    if unsure:
        yield f"the units of {', '.join(unsure[:8])}" + (
            f" and {len(unsure) - 8} more" if len(unsure) > 8 else ""
        )
    if any(g.role == "signal" for g in guesses):
        yield "ranges: they are what was seen and some room, not what is physically possible"
    labels = [g.column for g in guesses if g.role == "label"]
    if labels:
        yield f"what {', '.join(labels)} means, and when it was known: a label is an outcome, not a signal"
    if malformed:
        yield f"{malformed} lines have another number of columns and would be quarantined"
