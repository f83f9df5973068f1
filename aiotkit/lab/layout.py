"""Which column of a file means what, settled before any value is read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError, did_you_mean
from aiotkit.lab.instants import Clock
from aiotkit.lab.readers import Raw
from aiotkit.lab.units import EVERYDAY, Conversion, conversion, unit_problem
from aiotkit.lab.windows import numbered

Shape = Literal["wide", "long", "window"]
TIME_NAMES = ("time", "timestamp", "at", "datetime", "date", "ts", "t", "time_utc", "date_time")
_TIME_LIKE = r"time|date|stamp|datum|zeit"
#: joins the names of two columns that hold date and time of day
BOTH = "+"
#: what columns of long data are called, folded
NAME_NAMES = (
    "name", "signal", "tag", "variable", "metric", "channel", "sensor", "point", "parameter", "tagname",
    "tagid", "signalname", "variablename", "metricname", "channelname", "sensorname", "pointname",
    "parametername", "item", "itemid", "itemname", "nodeid", "datapoint", "messstelle", "messgrosse", "kanal",
    "datenpunkt", "merkmal",
)  # fmt: skip
VALUE_NAMES = (
    "value", "val", "reading", "measurement", "signalvalue", "tagvalue", "itemvalue", "sensorvalue",
    "datavalue", "numericvalue", "valuenum", "valuedouble", "wert", "messwert", "pv",
)  # fmt: skip
UNIT_NAMES = ("unit", "units", "uom", "einheit", "unitofmeasure", "eu", "engunit", "engunits", "masseinheit")
QUALITY_NAMES = (
    "quality", "qc", "opcquality", "qualitycode", "qualityflag", "qualitat", "valuequality", "status",
    "opcstatus", "statuscode", "qflag",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller knows about a file; whatever is left out is found by name, and said.

    ``columns``: signal or context name -> column. ``units``: name -> unit in the file (default: the
    decision's). ``only``: read these names and no others. ``start`` and ``every_s`` place windows that
    carry no time, and rows of wide data too. ``time`` may be two columns, ``DATE+TIME``. ``unit_column``:
    long data that says each value's unit. ``rate_tolerance``: relative difference of measured and declared
    rate that is fine. ``encoding``: of a text file that is not UTF-8.
    """

    shape: Shape | None = None
    time: str | None = None
    subject: str | None = None
    subject_column: str | None = None
    name_column: str | None = None
    value_column: str | None = None
    unit_column: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    only: Sequence[str] = ()
    start: str | None = None
    every_s: float | None = None
    decimal: str = "."
    encoding: str | None = None
    rate_tolerance: float = 0.05
    clock: Clock = field(default_factory=Clock)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is. ``columns``: name -> its column(s), in order of samples for windows.

    ``units``: name -> unit, where a header says it (``Temp [°C]``).
    """

    shape: Shape
    time: str | None
    subject_column: str | None
    subject: str | None
    columns: Mapping[str, tuple[str, ...]]
    name_column: str | None = None
    value_column: str | None = None
    unit_column: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def settle(raw: Raw, decision: Decision, options: Options) -> Layout:
    """Find every column.

    Raises:
        DataError: a column that is needed is not there, or what a column means cannot be told.
    """
    known = [*decision.signals, *decision.context]
    for what, names in (("column", options.columns), ("unit", options.units), ("only", options.only)):
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known) or f"Names: {', '.join(known)}."
                raise DataError(f"{what} for '{name}': the decision has no such signal or context", do=hint)
    shape = options.shape or _shape(raw, decision, options)
    if shape not in get_args(Shape):
        raise DataError(f"shape '{shape}'", expected=f"one of {', '.join(get_args(Shape))}")
    time = _time(raw, options)
    subject_column, subject = _subject(raw, decision, options)
    notes = [f"shape: {shape}", f"time: {time or 'row number'}"]
    notes.append(f"subject: column '{subject_column}'" if subject_column else f"subject: '{subject}'")
    if shape == "long":
        held = options.name_column or _names_of(raw, decision, options)
        name = held or _called(raw, NAME_NAMES, "name column of long data", "--name-column")
        only = options.value_column or _values_of(raw, {time, subject_column, name})
        value = only or _called(raw, VALUE_NAMES, "value column of long data", "--value-column")
        raw.column(name, "names of signals"), raw.column(value, "values")
        units = options.unit_column or next(iter(called(raw.frame.columns, UNIT_NAMES)), None)
        if units is not None:
            raw.column(units, "units of values")
            notes.append(f"units: column '{units}'")
        return Layout(shape, time, subject_column, subject, {}, name, value, units, notes=tuple(notes))
    find = _wide_columns if shape == "wide" else _window_columns
    taken = {c for c in (*(time.split(BOTH) if time else ()), time, subject_column) if c is not None}
    columns, said = find(raw, decision, options, taken)
    units_said = {
        name: unit
        for name, mine in columns.items()
        if len(mine) == 1
        and name not in options.units
        and (unit := raw.units.get(mine[0]) or header_unit(mine[0]))
    }
    unused = [c for c in raw.frame.columns if c not in taken | {x for xs in columns.values() for x in xs}]
    if unused:
        more = f" and {len(unused) - 12} more" if len(unused) > 12 else ""
        notes.append(f"columns not used: {', '.join(unused[:12])}{more}")
    return Layout(shape, time, subject_column, subject, columns, units=units_said, notes=(*notes, *said))


def time_column(raw: Raw, name: str) -> pd.Series:
    """The column of times; of two columns (``DATE+TIME``), the date and the time of day as one text."""
    if name in raw.frame.columns:
        return raw.frame[name]
    parts = [raw.column(c, "time").astype(object) for c in name.split(BOTH)]
    days, *hours = [p.where(p.notna(), "").astype(str).str.strip() for p in parts]
    days = days.str.removesuffix(" 00:00:00")
    for one in hours:
        days = days + " " + one
    return days.str.strip()


def header_unit(column: str) -> str | None:
    """The unit that stands in brackets (or with its sign °) behind a column's name, as UCUM; else None.

    >>> header_unit("Oil temp [°C]"), header_unit("Oil temp °F"), header_unit("load (raw)")
    ('Cel', '[degF]', None)
    """
    match = re.fullmatch(r".*[^\s]\s*[\[(]\s*([^\[\]()]+?)\s*[\])]|.*[^\s]\s+(°[A-Za-z])", column)
    if match is None:
        return None
    said = match[1] or match[2]
    unit = EVERYDAY.get(said, said)
    return unit if unit_problem(unit) is None else None


def bare(column: str) -> str:
    """A column's name without what stands in brackets behind it.

    >>> bare("Oil temp [°C]"), bare("load")
    ('Oil temp', 'load')
    """
    return re.sub(r"\s*[\[(][^\[\]()]*[\])]\s*$", "", column) or column


def conversions(decision: Decision, options: Options, said: Mapping[str, str]) -> dict[str, Conversion]:
    """How the values of each numeric name become the decision's unit; ``said``: units that headers name."""
    units = {n: s.unit for n, s in decision.signals.items()}
    units |= {n: c.unit for n, c in decision.context.items() if c.unit is not None}
    for name in options.units:
        if name not in units:
            raise DataError(f"unit for '{name}': it holds words, not numbers")
    given = dict(said) | dict(options.units)
    return {name: _converted(name, given.get(name, unit), unit) for name, unit in units.items()}


def _converted(name: str, source: str, target: str) -> Conversion:
    try:
        return conversion(source, target)
    except DataError as error:
        raise DataError(
            f"'{name}': {error.what}", expected=error.expected, found=error.found, do=error.do
        ) from error


def _shape(raw: Raw, decision: Decision, options: Options) -> Shape:
    lowered = {c.lower() for c in raw.frame.columns}
    names = {n.lower() for n in (*decision.signals, *decision.context)} | {
        c.lower() for c in options.columns.values()
    }
    if options.name_column or (not lowered & names and _is_long(raw, decision, options)):
        return "long"
    if raw.headless:
        return "wide" if options.columns else "window"
    return "window" if _holds_windows(raw, decision, options) else "wide"


def _holds_windows(raw: Raw, decision: Decision, options: Options) -> bool:
    """Whether a signal has no column of its own, but eight numbered ones or more; or none has either."""
    samples = {folded(n): c for n, c in numbered(raw.frame.columns).items() if len(c) >= 8}
    columns = {folded(c) for c in raw.frame.columns}
    written = {folded(options.columns.get(n, n)) for n in decision.signals}
    if samples and not columns & (written | {folded(n) for n in decision.context}):
        return True
    return bool((written - columns) & set(samples))


def called(columns: Iterable[str], names: Collection[str]) -> list[str]:
    """Columns whose folded name is one of these.

    >>> called(["Tag_Name", "Zeit"], NAME_NAMES)
    ['Tag_Name']
    """
    return [c for c in map(str, columns) if folded(c) in names]


def _is_long(raw: Raw, decision: Decision, options: Options) -> bool:
    if called(raw.frame.columns, NAME_NAMES) and called(raw.frame.columns, VALUE_NAMES):
        return True
    name = _names_of(raw, decision, options)
    return name is not None and _values_of(raw, {options.time, options.subject_column, name}) is not None


def _names_of(raw: Raw, decision: Decision, options: Options) -> str | None:
    """The column that holds most names of the decision, if any does."""
    wanted = {folded(n) for n in (*decision.signals, *decision.context)}
    wanted |= {folded(c) for c in options.columns.values()}
    held = {
        str(c): len(wanted & {folded(str(v)) for v in raw.frame[c].iloc[:50_000].dropna().unique()[:5000]})
        for c in raw.frame.columns
        if raw.frame[c].dtype.kind not in "Mfiub"
    }
    best = max(held, key=lambda c: held[c], default=None)
    return best if best is not None and held[best] else None


def _values_of(raw: Raw, taken: Collection[str | None]) -> str | None:
    """The column of values: called so, or the only one of numbers."""
    named = called(raw.frame.columns, VALUE_NAMES)
    if named:
        return named[0] if len(named) == 1 else None
    few = raw.frame.iloc[:500]
    columns = [c for c in map(str, few.columns) if c not in taken and few[c].dtype.kind not in "Mb"]
    plain = {c: few[c].dropna().astype(str).str.replace(",", ".", regex=False) for c in columns}
    found = [c for c, t in plain.items() if len(t) and pd.to_numeric(t, errors="coerce").notna().mean() > 0.5]
    return found[0] if len(found) == 1 else None


def _time(raw: Raw, options: Options) -> str | None:
    if options.time is not None:
        for column in [options.time] if options.time in raw.frame.columns else options.time.split(BOTH):
            raw.column(column, "time")
        return options.time
    if options.start is not None:
        return None
    typed = [str(c) for c, t in raw.frame.dtypes.items() if t.kind == "M"]
    named = [c for c in raw.frame.columns if c.lower() in TIME_NAMES]
    like = [c for c in raw.frame.columns if re.search(_TIME_LIKE, c.lower())]
    found = named or typed or (like if len(like) == 1 else [])
    if sorted(c.lower() for c in found) == ["date", "time"]:
        return BOTH.join(sorted(found, key=str.lower))
    if len(found) > 1:
        raise DataError(
            f"{raw.name}: several columns could be the time", found=", ".join(found), do="Name one."
        )
    if found:
        return found[0]
    how = "Name the time column, or give start (of the first row) and every_s (between rows)."
    raise DataError(f"{raw.name}: no column is called {', '.join(TIME_NAMES[:4])}, …", do=how)


def _subject(raw: Raw, decision: Decision, options: Options) -> tuple[str | None, str | None]:
    if options.subject_column is not None:
        raw.column(options.subject_column, f"subject: which {decision.subject}")
        return options.subject_column, None
    if options.subject is not None:
        return None, options.subject
    wanted = {folded(decision.subject), "subject", *called_so(folded(decision.subject))}
    found = [c for c in raw.frame.columns if folded(c) in wanted]
    if len(found) == 1:
        return found[0], None
    raise DataError(
        f"{raw.name}: which {decision.subject} do the rows belong to?",
        expected=f"a column called '{decision.subject}' or 'subject'",
        do="Name the subject column (--subject-column), give the one subject's name (--subject), or say that "
        "files are named after it (--subject-from filename).",
    )


def _called(raw: Raw, names: Sequence[str], what: str, option: str) -> str:
    found = called(raw.frame.columns, names)
    if len(found) != 1:
        raise DataError(f"{raw.name}: {what}", expected=f"one of {', '.join(names)}", do=f"Give {option}.")
    return found[0]


def _wide_columns(
    raw: Raw, decision: Decision, options: Options, taken: set[str], names: Sequence[str] = ()
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """A column of each name: of ``names``, of those that are asked for, or of all."""
    columns_left = [c for c in raw.frame.columns if c not in taken]
    alike: dict[str, list[str]] = {}
    for c in columns_left:
        for word in {folded(bare(c)), folded(c)}:
            alike.setdefault(word, []).append(c)
    columns: dict[str, tuple[str, ...]] = {}
    absent: list[str] = []
    for name in names or options.only or (*decision.signals, *decision.context):
        if name in options.columns:
            raw.column(options.columns[name], name)
            columns[name] = (options.columns[name],)
        elif name in columns_left:
            columns[name] = (name,)
        elif folded(name) in alike:
            columns[name] = (_one_of_alike(raw, name, alike[folded(name)]),)
        elif name in decision.context and not options.only:
            absent.append(name)
        else:
            kind = "signal" if name in decision.signals else "context"
            hint = did_you_mean(name, raw.frame.columns) or f"Columns: {', '.join(raw.frame.columns[:30])}."
            raise DataError(
                f"{raw.name}: column '{name}' is missing ({kind} of the decision)",
                do=f"{hint[0].upper()}{hint[1:]} Map it (--column NAME=COLUMN), or read some (--only NAME).",
            )
    return columns, [f"context without a column: {', '.join(absent)}"] if absent else []


def _one_of_alike(raw: Raw, name: str, found: Sequence[str]) -> str:
    """The one column that is called so but for case, accents and signs; best without a unit behind it."""
    exact = [c for c in found if folded(c) == folded(name)]
    if len(found) > 1 and len(exact) != 1:
        raise DataError(
            f"{raw.name}: which column is '{name}'?",
            found=f"{', '.join(map(repr, found))}: they differ in case, spaces or signs alone",
            do=f"Say it with --column {name}=COLUMN (in notebooks Options(columns=…)).",
        )
    return (exact or found)[0]


def _window_columns(
    raw: Raw, decision: Decision, options: Options, taken: set[str]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    rest = [c for c in raw.frame.columns if c not in taken]
    groups = {} if raw.headless else numbered(rest)
    if groups:
        found, notes = _numbered_columns(raw, decision, options, taken, groups)
    else:
        wanted = list(options.only or decision.signals)
        if len(wanted) != 1:
            raise DataError(
                f"{raw.name}: which signal are the windows of?",
                expected="one name",
                found=", ".join(wanted),
                do="Read only one name from this file.",
            )
        found, notes = {wanted[0]: tuple(rest)}, []
    for name, columns in found.items():
        if (groups and len(columns) == 1) or len(columns) == decision.samples(name):
            continue
        raise DataError(
            f"{raw.name}: windows of '{name}'",
            expected=f"{decision.samples(name)} samples (rate × length_s of the decision)",
            found=f"{len(columns)} columns",
            do="Check rate_hz and window.length_s against the file.",
        )
    return found, notes


def _numbered_columns(
    raw: Raw, decision: Decision, options: Options, taken: set[str], groups: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Columns of samples by name; names that have a column of their own beside them keep it."""
    samples = {folded(written): columns for written, columns in groups.items() if len(columns) > 1}
    names = [n for n in (options.only or decision.signals) if n in decision.signals]
    windows = {n: samples[p] for n in names if (p := folded(options.columns.get(n, n))) in samples}
    missing = [n for n in names if n not in windows and n not in options.columns]
    alone = {folded(c) for c in raw.frame.columns if c not in taken}
    missing = [n for n in missing if folded(n) not in alone]
    if "" in samples and len(missing) == 1:  # columns called 0, 1, 2, …: of the one that has no other
        windows[missing[0]] = samples[""]
    elif missing:
        raise DataError(
            f"{raw.name}: no columns {missing[0]}_0, {missing[0]}_1, … (samples of a window)",
            do=did_you_mean(missing[0], samples),
        )
    others = [n for n in (options.only or (*names, *decision.context)) if n not in windows]
    if not others:
        return windows, []
    beside, notes = _wide_columns(raw, decision, replace(options, only=()), taken, others)
    return windows | beside, notes


def called_so(kind: str) -> list[str]:
    """What columns are called (folded) that name things of a kind (folded).

    >>> called_so("unit")[:2]
    ['unitid', 'unitnr']
    """
    return [kind + word for word in ("id", "nr", "no", "number", "nummer", "name", "serial", "tag", "code")]


def folded(name: str) -> str:
    """A name without case, accents and signs, as two spellings of it are compared.

    >>> folded("Öl-Temp 1")
    'oltemp1'
    """
    return re.sub(r"[^a-z0-9]", "", unaccented(name).lower())


def unaccented(name: str) -> str:
    """A name in plain letters.

    >>> unaccented("Gerät")
    'Gerat'
    """
    return "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))


def subjects(raw: Raw, layout: Layout) -> pd.Series:
    """The subject of each row as text; empty where the row does not say."""
    if layout.subject_column is None:
        return pd.Series(layout.subject or "", index=raw.frame.index, dtype=object)
    column = raw.frame[layout.subject_column]
    return column.astype(object).where(column.notna(), "").astype(str).str.strip().astype(object)
