"""What the rows of a file of outcomes say, whatever its form: of whom, when, and which state."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import OutcomeError
from aiotkit.lab.instants import parse_instants, placed
from aiotkit.lab.layout import BOTH, TIME_NAMES, called_so, folded, time_column
from aiotkit.lab.outcome_told import Told, one_of
from aiotkit.lab.readers import Raw
from aiotkit.lab.uneventful import LABELS, NO, YES, is_uneventful, yes_or_no

STARTS = (
    "start", "begin", "from", "start_time", "started_at", "window_start", "valid_from", "onset", "since",
    "von", "beginn", "debut", "début", "inicio", "inizio",
)  # fmt: skip
ENDS = (
    "end", "stop", "to", "until", "end_time", "ended_at", "window_end", "valid_to", "bis", "ende", "fin",
    "fine",
)  # fmt: skip
EVENTS = ("failed_at", "failure_time", "failure_date", "failed", "event_time", "broke_at", "when")
#: words that say that there is no label
NOTHING = frozenset({"", "nan", "na", "n/a", "null", "none", "-", "<na>", "nat", "?"})


def labels(raw: Raw) -> list[str]:
    """Columns whose names sound like labels and that hold few values."""
    named = [c for c in map(str, raw.frame.columns) if re.search(LABELS, c.lower())]
    return [c for c in named if c.lower() not in EVENTS and raw.frame[c].nunique() <= 20]


def log_of_states(raw: Raw, told: Told) -> bool:
    """Whether rows say since when a state holds, with no end: until the next row of the same subject.

    One of the states must be uneventful: otherwise rows are events.
    """
    lowered = {str(c).lower() for c in raw.frame.columns}
    found = [told.label] if told.label is not None else labels(raw)
    if told.end is not None or not lowered & set(STARTS) or lowered & set(ENDS) or len(found) != 1:
        return False
    words = set(texts(raw.column(found[0], "label"))) - NOTHING
    return len(words) > 1 and any(is_uneventful(w) for w in words)


def column_of(raw: Raw, given: str | None, names: Sequence[str], what: str, option: str) -> str:
    """A column as given or found by its name."""
    if given is not None:
        raw.column(given, what)
        return given
    found = [c for c in map(str, raw.frame.columns) if c.lower() in names]
    if len(found) == 1:
        return found[0]
    many = f"several could be it: {', '.join(found)}" if found else "none of " + ", ".join(names[:5])
    columns = ", ".join(map(str, raw.frame.columns[:20]))
    raise OutcomeError(
        f"{raw.name}: which column says {what}?",
        found=f"{many} among {columns}" if not found else many,
        do=f"Give {option} COLUMN.",
    )


def as_known(subjects: pd.Series, known: Collection[str]) -> tuple[pd.Series, list[str]]:
    """Subjects as the lake writes them, if one alone is written so but for case, zeros and signs; and a note.

    >>> as_known(pd.Series(["press 1", "02", "x"]), ["PRESS-1", "2.0"])[0].tolist()
    ['PRESS-1', '2.0', 'x']
    """
    alike: dict[str, set[str]] = {}
    for name in known:
        alike.setdefault(_alike(name), set()).add(name)
    meant = {
        s: next(iter(found))
        for s in map(str, subjects.dropna().unique())
        if s not in known and len(found := alike.get(_alike(s), set())) == 1
    }
    if not meant:
        return subjects, []
    return subjects.replace(meant), [f"subjects that are written otherwise were taken: {_pairs(meant)}"]


def _pairs(meant: Mapping[str, str]) -> str:
    """What is meant by each spelling, in words."""
    more = f" and {len(meant) - 6:,} more" if len(meant) > 6 else ""
    return ", ".join(f"'{a}' for '{b}'" for a, b in sorted(meant.items())[:6]) + more


def _alike(name: str) -> str:
    """What two spellings of a subject have in common."""
    plain = re.sub(r"[\s_.-]+", "-", name.strip().removesuffix(".0").casefold())
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", plain)


def subjects_of(raw: Raw, decision: Decision, told: Told) -> NDArray[np.object_]:
    """The subject of each row; '' where it does not say."""
    if told.subject is not None and told.subject_column is None:
        return np.full(len(raw.frame), told.subject, dtype=object)
    kind = decision.subject
    names = subject_names(raw, decision) or [kind.lower()]
    column = column_of(
        raw, told.subject_column, names, f"which {kind} it is (or --subject NAME)", "--subject-column"
    )
    return texts(raw.frame[column])


def series_of(raw: Raw, decision: Decision, told: Told) -> NDArray[np.int64]:
    """Which subject each row is of, by number."""
    return np.asarray(pd.factorize(subjects_of(raw, decision, told))[0], dtype=np.int64)


def subject_names(raw: Raw, decision: Decision) -> list[str]:
    """Columns (in small letters) that are called as the decision's subject, or so."""
    plain, like = folded(decision.subject), {folded(str(c)): str(c).lower() for c in raw.frame.columns}
    return [like[w] for w in (plain, "subject", "subjectid", *called_so(plain)) if w in like]


def texts(column: pd.Series) -> NDArray[np.object_]:
    """A column as text; '' where it is empty."""
    return column.astype(object).where(column.notna(), "").astype(str).str.strip().to_numpy(dtype=object)


def read_states(
    values: NDArray[np.object_], decision: Decision, told: Told
) -> tuple[NDArray[np.object_], list[str]]:
    """State of each value; '' where the value says nothing, '?…' where it is not known."""
    known = {name: name for name in decision.states}
    notes: list[str] = []
    silent = decision.outcome.silence or next(iter(decision.states))
    if not told.states and len(decision.states) == 2:
        other = next(s for s in decision.states if s != silent)
        for words, state in ((NO, silent), (YES, other)):
            known |= dict.fromkeys(words - known.keys(), state)
        said = {plain(v) for v in set(values)} - NOTHING - {s.lower() for s in decision.states}
        if said and not yes_or_no(said):  # a code among others is no yes
            known = {name: name for name in decision.states}
        elif said:
            notes.append(f"0 was read as '{silent}', 1 as '{other}'; say otherwise with --map VALUE=STATE")
    known |= {plain(k): v for k, v in told.states.items()}
    of = {v: known.get(v, known.get(plain(v), "" if v.lower() in NOTHING else f"?{v}")) for v in set(values)}
    spelt = {folded(name): name for name in decision.states}
    if len(spelt) == len(decision.states):  # 'Outer race' is outer_race
        alike = {v: spelt[folded(v)] for v in set(values) if of[v][:1] == "?" and folded(v) in spelt}
        of |= alike
        notes += [f"states that are written otherwise were taken: {_pairs(alike)}"] if alike else []
    empty = sum(1 for v in values if of[v] == "")
    if empty:
        notes.append(f"{empty:,} rows have no label and say nothing")
    return np.array([of[v] for v in values], dtype=object), notes


def plain(value: str) -> str:
    """'1.0' and 'True' as people mean them."""
    return re.sub(r"(?<=\d)\.0+$", "", value.strip().lower())


def times_of(
    raw: Raw, decision: Decision, told: Told
) -> tuple[NDArray[np.int64], NDArray[np.object_], list[str]]:
    """The instant of each row (µs UTC), why it has none ('' = it has), and notes."""
    if told.time is None and told.start is not None:
        every = told.every_s or decision.window.every_s
        when = placed(told.start, every, raw.frame.index, told.clock, series_of(raw, decision, told))
        return when.at_us, when.reason, list(when.notes)
    names = (*TIME_NAMES, *EVENTS)
    both = told.time if told.time is not None and BOTH in told.time else None
    column = both or column_of(raw, told.time, names, "when it was", "--time")
    found = parse_instants(time_column(raw, column), told.clock, series_of(raw, decision, told))
    reason = np.where(found.good, "", f"{column}: " + found.reason.astype(str)).astype(object)
    return found.at_us, reason, [f"time: column '{column}'", *found.notes]


def unknown(
    state: NDArray[np.object_], decision: Decision, reason: NDArray[np.object_]
) -> NDArray[np.object_]:
    """The reason of each row, or that its state is not one of the decision's."""
    expected = one_of(list(decision.states))
    words = [
        f"unknown state '{s[1:]}'; expected {expected} (or --map {s[1:]}=STATE)" if s[:1] == "?" else ""
        for s in state
    ]
    return np.where(reason == "", np.array(words, dtype=object), reason)
