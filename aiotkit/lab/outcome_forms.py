"""The forms in which people have outcomes, each read as reports of states.

- **reports**: a row a report: ``subject``, ``state``, ``at``, ``source`` (and more, see ``lab.outcomes``).
- **column**: a row a moment, with a column that says how it was then: in the telemetry itself, or beside it.
- **failures**: a row an event: which subject, and when; what it means is said once (``state``), or by a label
  column: then rows of the silent state, or of values that were not mapped, are no events.
- **windows**: a row a span of time, from when to when it was so. CSV, or JSON ``{name: [[from, to]]}``.

A state that lasts is reported as often as needed so that no decision misses it whose horizon reaches it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision, Regular
from aiotkit.core.errors import DataError, OutcomeError, did_you_mean
from aiotkit.lab.instants import Clock, parse_instants
from aiotkit.lab.layout import BOTH, TIME_NAMES, folded, time_column
from aiotkit.lab.readers import Raw

Form = Literal["reports", "column", "failures", "windows"]
#: columns of what the forms are read into; ``reason`` '' = fine so far
READ = ["row", "subject", "state", "at_us", "reported_us", "source", "kind", "provenance", "note", "reason"]
STARTS = ("start", "begin", "from", "start_time", "started_at", "window_start", "valid_from", "onset")
ENDS = ("end", "stop", "to", "until", "end_time", "ended_at", "window_end", "valid_to")
EVENTS = ("failed_at", "failure_time", "failure_date", "failed", "event_time", "broke_at", "when")
_LABELS = r"label|fail|fault|state|status|target|class|anomal|defect|broken|outcome|condition"
_NOTHING = frozenset({"", "nan", "na", "n/a", "null", "none", "-", "<na>", "nat", "?"})
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller knows about outcomes; whatever is left out is found by name, and said.

    ``time``: column of instants (windows: of starts), ``end``: of ends, ``label``: of what was so.
    ``states``: value in the file -> state (values that are states need none; 0 and 1 mean the silent and
    the other state where there are two). ``state``: what each row of failures or windows means.
    ``source``: who says it (default: the decision's only source). ``entry``: of JSON with several names,
    which one. ``start``, ``every_s``: rows without time. ``covers_s``: what a labelled row speaks of
    (default: the window's length where rows are that far apart, otherwise one sample). ``encoding``: of text
    that is not UTF-8.
    """

    form: Form | None = None
    subject: str | None = None
    subject_column: str | None = None
    time: str | None = None
    end: str | None = None
    label: str | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    state: str | None = None
    source: str | None = None
    entry: str | None = None
    start: str | None = None
    every_s: float | None = None
    covers_s: float | None = None
    encoding: str | None = None
    clock: Clock = field(default_factory=Clock)
    #: the subject that the file's place tells: files of equal bytes then are several
    whose: str = ""


def reading_of(told: Told) -> dict[str, Any]:
    """The options that were given, as plain data."""
    clock = {n: getattr(told.clock, n) for n in ("zone", "time_format", "epoch")}
    clock |= {"ambiguous": told.clock.ambiguous} if told.clock.ambiguous != Clock().ambiguous else {}
    plain = {n: getattr(told, n) for n in Told.__slots__ if n not in ("clock", "states", "whose", "entry")}
    given = {**plain, **clock, "map": dict(told.states)}
    return {name: value for name, value in given.items() if value not in (None, {})}


@dataclass(frozen=True, slots=True)
class Reading:
    """Reports as read (columns ``READ``), before they are checked; ``content`` of each file row; notes."""

    rows: pd.DataFrame
    content: pd.Series
    notes: tuple[str, ...]


def read_form(raw: Raw, decision: Decision, told: Told) -> tuple[Form, Reading]:
    """Reports out of a file of any form but ``reports``, which ``lab.outcomes`` reads.

    Raises:
        OutcomeError: the form cannot be told, or what it needs is missing.
        DataError: times cannot be read.
    """
    form = told.form or form_of(raw, told)
    if form == "reports":
        empty = pd.DataFrame(columns=READ)
        return form, Reading(empty, pd.Series(dtype=object), ())
    source = source_of(decision, told)
    reader: Callable[[Raw, Decision, Told], tuple[pd.DataFrame, list[str]]]
    reader = {"column": _of_column, "failures": _of_failures, "windows": _of_windows}[form]
    rows, notes = reader(raw, decision, told)
    rows = rows.assign(source=source, kind="report", provenance="", note="")
    given = raw.frame.iloc[:, :12].astype(object)
    content = pd.Series(
        [", ".join(f"{k}={v}" for k, v in r.items())[:200] for r in given.to_dict("records")],
        index=raw.frame.index,
    )
    return form, Reading(rows[READ].reset_index(drop=True), content, (f"form: {form}", *notes))


def source_of(decision: Decision, told: Told) -> str:
    """Who says it: as told, or the decision's only source."""
    sources = list(decision.outcome.sources)
    if told.source is not None:
        if told.source not in sources:
            hint = did_you_mean(told.source, sources)
            raise OutcomeError(f"unknown source '{told.source}'", expected=one_of(sources), do=hint)
        return told.source
    if len(sources) > 1:
        raise OutcomeError("who says it?", expected=f"a source: {one_of(sources)}", do="Give --source NAME.")
    return sources[0]


def one_of(names: Sequence[str]) -> str:
    """A few names in words.

    >>> one_of(["ok", "worn"]), one_of(["ok"])
    ("one of 'ok', 'worn'", "'ok'")
    """
    shown = ", ".join(f"'{n}'" for n in names[:10])
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return f"one of {shown}{more}" if len(names) > 1 else shown


def check_told(told: Told, decision: Decision) -> None:
    """Refuse a form or state that there is not (``OutcomeError``)."""
    if told.form is not None and told.form not in get_args(Form):
        raise OutcomeError(f"form '{told.form}'", expected=one_of(list(get_args(Form))))
    states = list(decision.states)
    for state in (*told.states.values(), *([told.state] if told.state is not None else [])):
        if state not in states:
            hint = did_you_mean(state, states)
            raise OutcomeError(f"unknown state '{state}'", expected=one_of(states), do=hint)


def form_of(raw: Raw, told: Told) -> Form:
    """The form of a file by its columns and what was told; ``OutcomeError`` where it cannot be told."""
    lowered = {c.lower() for c in raw.frame.columns}
    reported = lowered & {"subject", "state", "at", "source"}
    if told.label is None and ({"state", "at"} <= reported or len(reported) == 3):
        return "reports"
    if told.end is not None or (lowered & set(STARTS) and lowered & set(ENDS)):
        return "windows"
    if told.label is not None or (told.state is None and _labels(raw)):
        return "column"
    if told.state is not None or lowered & set(EVENTS):
        return "failures"
    raise OutcomeError(
        f"{raw.name}: what do the rows say?",
        expected="reports (state, at), a label column, failures (a time a row), or windows (start, end)",
        found=f"columns {', '.join(map(str, raw.frame.columns[:20]))}",
        do="Give --form, and --label COLUMN or --state STATE.",
    )


def _labels(raw: Raw) -> list[str]:
    named = [c for c in map(str, raw.frame.columns) if re.search(_LABELS, c.lower())]
    return [c for c in named if c.lower() not in EVENTS and raw.frame[c].nunique() <= 20]


def _column(raw: Raw, given: str | None, names: Sequence[str], what: str, option: str) -> str:
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


def _subjects(raw: Raw, decision: Decision, told: Told) -> NDArray[np.object_]:
    if told.subject is not None and told.subject_column is None:
        return np.full(len(raw.frame), told.subject, dtype=object)
    kind = decision.subject
    names = subject_names(raw, decision) or [kind.lower()]
    column = _column(
        raw, told.subject_column, names, f"which {kind} it is (or --subject NAME)", "--subject-column"
    )
    return texts(raw.frame[column])


def _series(raw: Raw, decision: Decision, told: Told) -> NDArray[np.int64]:
    """Which subject each row is of, by number."""
    return np.asarray(pd.factorize(_subjects(raw, decision, told))[0], dtype=np.int64)


def subject_names(raw: Raw, decision: Decision) -> list[str]:
    """Columns (in small letters) that are called as the decision's subject, or so."""
    plain, like = folded(decision.subject), {folded(str(c)): str(c).lower() for c in raw.frame.columns}
    return [like[w] for w in (plain, "subject", f"{plain}id", "subjectid") if w in like]


def texts(column: pd.Series) -> NDArray[np.object_]:
    """A column as text; '' where it is empty."""
    return column.astype(object).where(column.notna(), "").astype(str).str.strip().to_numpy(dtype=object)


def _states(
    values: NDArray[np.object_], decision: Decision, told: Told
) -> tuple[NDArray[np.object_], list[str]]:
    """State of each value; '' where the value says nothing, '?…' where it is not known."""
    known = {name: name for name in decision.states}
    notes: list[str] = []
    silent = decision.outcome.silence or next(iter(decision.states))
    if not told.states and len(decision.states) == 2:
        other = next(s for s in decision.states if s != silent)
        for words, state in (({"0", "false", "no"}, silent), ({"1", "true", "yes"}, other)):
            known |= dict.fromkeys(words - known.keys(), state)
        if {_plain(v) for v in set(values)} & {"0", "1", "true", "false", "yes", "no"}:
            notes.append(f"0 was read as '{silent}', 1 as '{other}'; say otherwise with --map VALUE=STATE")
    known |= {_plain(k): v for k, v in told.states.items()}
    of = {
        v: known.get(v, known.get(_plain(v), "" if v.lower() in _NOTHING else f"?{v}")) for v in set(values)
    }
    empty = sum(1 for v in values if of[v] == "")
    if empty:
        notes.append(f"{empty:,} rows have no label and say nothing")
    return np.array([of[v] for v in values], dtype=object), notes


def _plain(value: str) -> str:
    """'1.0' and 'True' as people mean them."""
    return re.sub(r"(?<=\d)\.0+$", "", value.strip().lower())


def _of_column(raw: Raw, decision: Decision, told: Told) -> tuple[pd.DataFrame, list[str]]:
    found = _labels(raw) if told.label is None else [told.label]
    if len(found) != 1:
        raise OutcomeError(
            f"{raw.name}: which column is the label?",
            found=", ".join(found) or f"columns {', '.join(map(str, raw.frame.columns[:20]))}",
            do="Give --label COLUMN.",
        )
    values = texts(raw.column(found[0], "label"))
    state, notes = _states(values, decision, told)
    at, reason, said = _times(raw, decision, told)
    rows = pd.DataFrame({"row": raw.frame.index, "subject": _subjects(raw, decision, told), "state": state})
    rows = rows.assign(at_us=at, reason=_unknown(state, decision, reason))
    good = rows[rows["reason"] == ""]
    if _are_events(good, decision, told):
        covers, why = 0, ["no row says that all was well: each is an event, at its instant"]
    else:
        covers, why = _covered(good, decision, told)
    rows["at_us"] += np.where(rows["reason"] == "", covers, 0)
    rows["reported_us"] = rows["at_us"]
    kept = _thinned(rows[rows["state"] != ""], round(decision.outcome.horizon_s * 1e6))
    return kept, [f"label: column '{found[0]}'", *notes, *said, *why, *_ahead(rows, decision)]


def _ahead(rows: pd.DataFrame, decision: Decision) -> list[str]:
    """A word when the horizon reaches over many labelled rows: then labels tell of what comes."""
    steps = rows.sort_values(["subject", "at_us"]).groupby("subject")["at_us"].diff().dropna()
    horizon = decision.outcome.horizon_s
    if steps.empty or not 0 < float(steps.median()) * 2 < horizon * 1e6 or horizon <= decision.window.every_s:
        return []
    return [
        f"outcome.horizon_s is {horizon:g} s: a decision gets the first eventful label within that time; for "
        f"how it is at the moment set it to window.every_s ({decision.window.every_s:g} s) or less"
    ]


def _unknown(
    state: NDArray[np.object_], decision: Decision, reason: NDArray[np.object_]
) -> NDArray[np.object_]:
    expected = one_of(list(decision.states))
    words = [
        f"unknown state '{s[1:]}'; expected {expected} (or --map {s[1:]}=STATE)" if s[:1] == "?" else ""
        for s in state
    ]
    return np.where(reason == "", np.array(words, dtype=object), reason)


def _are_events(rows: pd.DataFrame, decision: Decision, told: Told) -> bool:
    """Whether rows tell of events, like failures: none says the silent state, and they are far apart."""
    silent, window = decision.outcome.silence, decision.window
    if told.covers_s is not None or silent is None or silent in set(rows["state"]):
        return False
    steps = rows.sort_values(["subject", "at_us"]).groupby("subject")["at_us"].diff().dropna()
    apart = float(steps.median()) if len(steps) else np.inf
    return apart > 2e6 * max(window.length_s, window.every_s)


def _covered(rows: pd.DataFrame, decision: Decision, told: Told) -> tuple[int, list[str]]:
    """How long after a row's instant its label still holds (µs): a window's label speaks at its end."""
    if told.covers_s is not None:
        return round(told.covers_s * 1e6), []
    rates = [s.sampling.rate_hz for s in decision.signals.values() if isinstance(s.sampling, Regular)]
    if not rates or rows.empty:
        return 0, []
    steps = rows.sort_values(["subject", "at_us"]).groupby("subject")["at_us"].diff().dropna()
    length = decision.window.length_s
    whole = len(steps) > 0 and float(steps[steps > 0].median()) >= 0.95 * length * 1e6
    if not whole:
        return round(1e6 / max(rates)), []
    # a little later, so that times that jitter, or a day of 23 hours, do not label the next window
    slack = min(0.25 * decision.window.every_s, 0.5 * decision.outcome.horizon_s)
    return round((length + slack) * 1e6), [
        f"a row covers a window of {length:g} s; its label counts at the end"
    ]


def _thinned(rows: pd.DataFrame, horizon_us: int) -> pd.DataFrame:
    """Of rows in which a state lasts as many as are needed: first, last, and two a horizon."""
    rows = rows.sort_values(["subject", "at_us", "row"], kind="stable")
    new = (rows["subject"] != rows["subject"].shift()) | (rows["state"] != rows["state"].shift())
    new |= (rows["at_us"].diff() > horizon_us) | (rows["reason"] != "") | (rows["reason"].shift() != "")
    run = new.cumsum()
    place = (rows["at_us"] - rows.groupby(run)["at_us"].transform("first")) // max(1, horizon_us // 2)
    keep = new | new.shift(-1, fill_value=True) | (place != place.shift())
    return rows[keep]


def _times(
    raw: Raw, decision: Decision, told: Told
) -> tuple[NDArray[np.int64], NDArray[np.object_], list[str]]:
    if told.time is None and told.start is not None:
        start = parse_instants(pd.Series([told.start], dtype=object), told.clock)
        if not bool(start.good.all()):
            raise DataError(f"start '{told.start}'", found=str(start.reason[0]))
        every = told.every_s or decision.window.every_s
        at = start.at_us[0] + np.rint((raw.frame.index.to_numpy() - 1) * every * 1e6).astype(np.int64)
        note = f"row n was placed at {told.start} + (n − 1) × {every:g} s"
        return at, np.full(len(at), "", dtype=object), [note]
    names = (*TIME_NAMES, *EVENTS)
    both = told.time if told.time is not None and BOTH in told.time else None
    column = both or _column(raw, told.time, names, "when it was", "--time")
    found = parse_instants(time_column(raw, column), told.clock, _series(raw, decision, told))
    reason = np.where(found.good, "", f"{column}: " + found.reason.astype(str)).astype(object)
    return found.at_us, reason, [f"time: column '{column}'", *found.notes]


def _of_failures(raw: Raw, decision: Decision, told: Told) -> tuple[pd.DataFrame, list[str]]:
    state, said = _kinds(raw, decision, told)
    if told.time is None:
        found = [c for c in raw.frame.columns if str(c).lower() in EVENTS]
        told = replace(told, time=str(found[0])) if len(found) == 1 else told
    at, reason, notes = _times(raw, decision, told)
    dates = told.time is not None and bool(
        len(at)
        and told.time in raw.frame
        and pd.Series(texts(raw.frame[told.time])).str.fullmatch(r"\d{4}-\d\d-\d\d|").all()
    )
    if dates:
        notes.append("dates without a time of day count as the end of that day")
        at = at + np.where(reason == "", 86_400_000_000 - 1, 0)
    rows = pd.DataFrame({"row": raw.frame.index, "subject": _subjects(raw, decision, told), "state": state})
    never = np.char.find(reason.astype(str), "no time") >= 0
    if never.any():
        notes.append(f"{int(never.sum()):,} rows have no time: nothing happened, nothing is reported")
    rows = rows.assign(at_us=at, reported_us=at, reason=_unknown(state, decision, reason))[~never]
    silent = decision.outcome.silence or next(iter(decision.states))
    return rows[~rows["state"].isin(["", silent])], [*said, *notes]


def _kinds(raw: Raw, decision: Decision, told: Told) -> tuple[NDArray[np.object_], list[str]]:
    """What each row of failures means: all the same, or what a label column says; '' = it is none."""
    if told.label is None:
        if told.states:
            what = f"{raw.name}: --map says what values mean, and no column holds them"
            raise OutcomeError(what, do="Give --label COLUMN too.")
        one = _state(raw, decision, told)
        return np.full(len(raw.frame), one, dtype=object), [f"each row means '{one}'"]
    values = texts(raw.column(told.label, "label"))
    state, notes = _states(values, decision, told)
    if told.states:  # what was not mapped is no failure
        state = np.array(["" if s[:1] == "?" else s for s in state], dtype=object)
    silent = decision.outcome.silence or next(iter(decision.states))
    none = pd.Series(values[np.isin(state.astype(str), ["", silent])], dtype=object).value_counts()
    shown = ", ".join(f"'{v}'" for v in none.index[:8]) + (", …" if len(none) > 8 else "")
    notes = [note for note in notes if "have no label" not in note]
    notes += [f"{none.sum():,} of {len(values):,} rows are no failures: it says {shown}"] if len(none) else []
    return state, [f"label: column '{told.label}'", *notes]


def _state(raw: Raw, decision: Decision, told: Told) -> str:
    if told.state is not None:
        return told.state
    others = [s for s in decision.states if s != (decision.outcome.silence or next(iter(decision.states)))]
    if len(others) == 1:
        return others[0]
    raise OutcomeError(
        f"{raw.name}: which state does a row mean?",
        expected=one_of(others),
        do="Give --state STATE, or --label COLUMN (and --map VALUE=STATE).",
    )


def _of_windows(raw: Raw, decision: Decision, told: Told) -> tuple[pd.DataFrame, list[str]]:
    start = _column(raw, told.time, STARTS, "when it began", "--time")
    end = _column(raw, told.end, ENDS, "when it ended", "--end")
    series = _series(raw, decision, told)
    first, last = (parse_instants(raw.frame[c], told.clock, series) for c in (start, end))
    notes = [f"from column '{start}' to '{end}'", *first.notes]
    label = told.label or (_kind_column(raw, decision, told, {start, end}) if told.state is None else None)
    if label is None:
        state = np.full(len(raw.frame), _state(raw, decision, told), dtype=object)
        notes.append(f"each row means '{state[0]}'" if len(state) else "")
    else:
        state, said = _states(texts(raw.column(label, "label")), decision, told)
        notes += [f"label: column '{label}'", *said]
    reason = np.where(first.good, "", f"{start}: " + first.reason.astype(str)).astype(object)
    reason = np.where((reason == "") & ~last.good, f"{end}: " + last.reason.astype(str), reason)
    both = first.good & last.good
    reason = np.where(both & (last.at_us < first.at_us), "ends before it begins", reason)
    rows = pd.DataFrame({"row": raw.frame.index, "subject": _subjects(raw, decision, told), "state": state})
    rows = rows.assign(at_us=first.at_us, reported_us=last.at_us, reason=_unknown(state, decision, reason))
    rows = rows[rows["state"] != ""]
    return _repeated(rows, round(decision.outcome.horizon_s * 1e6)), [n for n in notes if n]


def _kind_column(raw: Raw, decision: Decision, told: Told, taken: set[str]) -> str | None:
    """The column that says what windows were of: by its name, or because it holds names of states."""
    if not len(raw.frame):
        return None
    known = {s.lower() for s in decision.states} | {_plain(v) for v in told.states}
    for column in (c for c in map(str, raw.frame.columns) if c not in taken):
        words = {v.lower() for v in texts(raw.frame[column])} - _NOTHING
        if words and words <= known:
            return column
    named = [c for c in _labels(raw) if c not in taken]
    if named or len(decision.states) == 2:
        return named[0] if named else None
    columns = [c for c in map(str, raw.frame.columns) if c not in taken]
    raise OutcomeError(
        f"{raw.name}: what was so in each window?",
        expected=f"a column that holds {one_of(list(decision.states))}",
        found=f"columns {', '.join(columns[:20])}",
        do="Give --label COLUMN (and --map VALUE=STATE), or --state STATE for all of them.",
    )


def _repeated(rows: pd.DataFrame, horizon_us: int) -> pd.DataFrame:
    """A report a horizon from each window's start to its end; each is said at the end."""
    lasts = np.where(rows["reason"] == "", rows["reported_us"] - rows["at_us"], 0).astype(np.int64)
    counts = np.ceil(lasts / max(1, horizon_us)).astype(np.int64) + 1
    if counts.sum() > _MOST:
        raise OutcomeError(
            f"horizon_s {horizon_us / 1e6:g} is too short for windows that long",
            found=f"{counts.sum():,} reports would be needed",
            do="Give a horizon_s of half the time between two decisions or more.",
        )
    which = np.repeat(np.arange(len(rows)), counts)
    out = rows.iloc[which].reset_index(drop=True)
    place = np.arange(len(out)) - (np.cumsum(counts) - counts)[which]
    ends = (rows["at_us"].to_numpy(dtype=np.int64) + lasts)[which]
    return out.assign(at_us=np.minimum(out["at_us"].to_numpy(dtype=np.int64) + place * horizon_us, ends))
