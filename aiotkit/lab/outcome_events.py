"""Outcomes as events and spans: failures at instants, records that end with one, and from when to when."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import OutcomeError
from aiotkit.lab.instants import Instants, parse_instants
from aiotkit.lab.layout import TIME_NAMES
from aiotkit.lab.long import is_id
from aiotkit.lab.outcome_rows import (
    ENDS,
    EVENTS,
    NOTHING,
    STARTS,
    column_of,
    labels,
    log_of_states,
    plain,
    read_states,
    series_of,
    subject_names,
    subjects_of,
    texts,
    times_of,
    unknown,
)  # fmt: skip
from aiotkit.lab.outcome_told import Told, one_of
from aiotkit.lab.readers import Raw
from aiotkit.lab.uneventful import are_verdicts, is_uneventful

_MOST = 1_000_000


def _without_time_of_day(raw: Raw, told: Told) -> NDArray[np.bool_]:
    """Which rows hold a date alone."""
    if told.time is None or told.time not in raw.frame:
        return np.zeros(len(raw.frame), dtype=bool)
    if told.clock.time_format is not None:
        return np.full(len(raw.frame), not re.search("%[HIcXs]", told.clock.time_format))
    written = pd.Series(texts(raw.frame[told.time])).str.fullmatch(r"\d{4}-\d\d-\d\d")
    return written.to_numpy(dtype=bool)


def of_failures(raw: Raw, decision: Decision, told: Told) -> tuple[pd.DataFrame, list[str]]:
    """A report of each event; and notes."""
    state, said = _kinds(raw, decision, told)
    if told.time is None:
        found = [c for c in raw.frame.columns if str(c).lower() in EVENTS]
        told = replace(told, time=str(found[0])) if len(found) == 1 else told
    at, reason, notes = times_of(raw, decision, told)
    dates = _without_time_of_day(raw, told) & (reason == "")
    if dates.any():
        some = "" if dates.all() else f" ({int(dates.sum()):,} of {len(at):,} rows)"
        notes.append(f"dates without a time of day count as the end of that day{some}")
        at = at + np.where(dates, 86_400_000_000 - 1, 0)
    rows = pd.DataFrame({"row": raw.frame.index, "subject": subjects_of(raw, decision, told), "state": state})
    never = np.char.find(reason.astype(str), "no time") >= 0
    if never.any():
        notes.append(f"{int(never.sum()):,} rows have no time: nothing happened, nothing is reported")
    rows = rows.assign(at_us=at, reported_us=at, reason=unknown(state, decision, reason))[~never]
    silent = decision.outcome.silence or next(iter(decision.states))
    return rows[~rows["state"].isin(["", silent])], [*said, *notes]


def of_ends(raw: Raw, decision: Decision, told: Told) -> tuple[pd.DataFrame, list[str]]:
    """A report of each subject's failure, at the end of its last row; and notes."""
    if told.label is not None:
        what = f"{raw.name}: each record ends with its failure, and '{told.label}' says what each row was"
        raise OutcomeError(what, do="Give either --form ends with --state STATE, or --label COLUMN.")
    state = _state(raw, decision, told)
    at, reason, notes = times_of(raw, decision, told)
    rows = pd.DataFrame({"row": raw.frame.index, "subject": subjects_of(raw, decision, told), "state": state})
    rows = rows.assign(at_us=at, reason=reason).sort_values(["subject", "at_us", "row"], kind="stable")
    good = rows[rows["reason"] == ""]
    steps = good.groupby("subject")["at_us"].diff().groupby(good["subject"]).median().fillna(0)
    last = good.groupby("subject").tail(1)
    last = last.assign(at_us=last["at_us"] + last["subject"].map(steps).astype(np.int64))
    found = pd.concat([last, rows[rows["reason"] != ""]]).sort_values("row")
    n = f"{len(last):,} subjects" if len(last) != 1 else "1 subject"
    said = f"the last row of {n} is taken for '{state}': records that run to failure"
    return found.assign(reported_us=found["at_us"]), [said, *notes]


def _kinds(raw: Raw, decision: Decision, told: Told) -> tuple[NDArray[np.object_], list[str]]:
    """What each row of failures means: all the same, or what a label column says; '' = it is none."""
    if told.label is None:
        if told.states:
            what = f"{raw.name}: --map says what values mean, and no column holds them"
            raise OutcomeError(what, do="Give --label COLUMN too.")
        one = _state(raw, decision, told)
        notes = [f"each row means '{one}'", *_overlooked(raw, decision, told, one)]
        return np.full(len(raw.frame), one, dtype=object), notes
    values = texts(raw.column(told.label, "label"))
    state, notes = read_states(values, decision, told)
    if told.states:  # what was not mapped is no failure
        state = np.array(["" if s[:1] == "?" else s for s in state], dtype=object)
    silent = decision.outcome.silence or next(iter(decision.states))
    none = pd.Series(values[np.isin(state.astype(str), ["", silent])], dtype=object).value_counts()
    shown = ", ".join(f"'{v}'" for v in none.index[:8]) + (", …" if len(none) > 8 else "")
    notes = [note for note in notes if "have no label" not in note]
    notes += [f"{none.sum():,} of {len(values):,} rows are no failures: it says {shown}"] if len(none) else []
    return state, [f"label: column '{told.label}'", *notes]


def _overlooked(raw: Raw, decision: Decision, told: Told, one: str) -> list[str]:
    """What columns say of rows that are all to mean the same.

    Raises:
        OutcomeError: one says that some rows are of another state, or that nothing was wrong.
    """
    taken = {told.time, told.subject_column, told.end}
    whose = subject_names(raw, decision)
    notes = []
    for column in (c for c in map(str, raw.frame.columns) if c not in taken and not is_id(c)):
        if column.lower() in whose:
            continue
        values = pd.Series(texts(raw.frame[column]))
        counts = values[~values.str.lower().isin(NOTHING)].value_counts()
        words = [str(w) for w in counts.index]
        if not 2 <= len(words) <= 12 or column.lower() in (*TIME_NAMES, *EVENTS, *STARTS, *ENDS):
            continue
        if all(re.fullmatch(r"[-+\d.,:TZ ]+", w) for w in words) and column not in labels(raw):
            continue
        shown = ", ".join(f"{n:,} '{w}'" for w, n in counts.items())
        judges = column in labels(raw) or are_verdicts(words)
        calm = judges and any(is_uneventful(w) and w != "0" for w in words)
        if calm or any(w in decision.states and w != one for w in words):
            raise OutcomeError(
                f"{raw.name}: each row is to mean '{one}', but column '{column}' says {shown}",
                do=f"Give --label {column} (and --map VALUE={one} for each value that means it).",
            )
        notes.append(
            f"column '{column}' says {shown}: all are taken for '{one}'; to take some only give "
            f"--label {column} --map VALUE={one}"
        )
    return notes


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


def of_windows(raw: Raw, decision: Decision, told: Told) -> tuple[pd.DataFrame, list[str]]:
    """Reports from the start of each span to its end; and notes."""
    start = column_of(raw, told.time, STARTS, "when it began", "--time")
    series = series_of(raw, decision, told)
    first = parse_instants(raw.frame[start], told.clock, series)
    if log_of_states(raw, told):
        end, last = start, _until_next(first, subjects_of(raw, decision, told))
        span = (
            f"from column '{start}' to the next row of the same {decision.subject}; the last holds then alone"
        )
    else:
        end = column_of(raw, told.end, ENDS, "when it ended", "--end")
        last = parse_instants(raw.frame[end], told.clock, series)
        span = f"from column '{start}' to '{end}'"
    notes = [span, *first.notes]
    label = told.label or (_kind_column(raw, decision, told, {start, end}) if told.state is None else None)
    if label is None:
        state = np.full(len(raw.frame), _state(raw, decision, told), dtype=object)
        notes.append(f"each row means '{state[0]}'" if len(state) else "")
    else:
        state, said = read_states(texts(raw.column(label, "label")), decision, told)
        notes += [f"label: column '{label}'", *said]
    reason = np.where(first.good, "", f"{start}: " + first.reason.astype(str)).astype(object)
    reason = np.where((reason == "") & ~last.good, f"{end}: " + last.reason.astype(str), reason)
    both = first.good & last.good
    reason = np.where(both & (last.at_us < first.at_us), "ends before it begins", reason)
    rows = pd.DataFrame({"row": raw.frame.index, "subject": subjects_of(raw, decision, told), "state": state})
    rows = rows.assign(at_us=first.at_us, reported_us=last.at_us, reason=unknown(state, decision, reason))
    rows = rows[rows["state"] != ""]
    return _repeated(rows, round(decision.outcome.horizon_s * 1e6)), [n for n in notes if n]


def _until_next(first: Instants, who: NDArray[np.object_]) -> Instants:
    """When each state ended: where the next of its subject begins."""
    rows = pd.DataFrame({"at": first.at_us, "who": who})[first.good].sort_values("at", kind="stable")
    after = rows.groupby("who")["at"].shift(-1)
    last = first.at_us.copy()
    last[rows.index.to_numpy()] = after.fillna(rows["at"]).to_numpy(dtype=np.int64)
    return replace(first, at_us=last)


def _kind_column(raw: Raw, decision: Decision, told: Told, taken: set[str]) -> str | None:
    """The column that says what windows were of: by its name, or because it holds names of states."""
    if not len(raw.frame):
        return None
    known = {s.lower() for s in decision.states} | {plain(v) for v in told.states}
    for column in (c for c in map(str, raw.frame.columns) if c not in taken):
        words = {v.lower() for v in texts(raw.frame[column])} - NOTHING
        if words and words <= known:
            return column
    named = [c for c in labels(raw) if c not in taken]
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
