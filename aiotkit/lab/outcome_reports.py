"""Reports of states out of a file of any form, each row checked: who said what of whom, and of when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.core.errors import OutcomeError, did_you_mean
from aiotkit.lab.instants import parse_instants
from aiotkit.lab.labels import INSPECTION
from aiotkit.lab.outcome_files import read_told
from aiotkit.lab.outcome_forms import Reading, read_form, source_of
from aiotkit.lab.outcome_guess import settle
from aiotkit.lab.outcome_rows import as_known
from aiotkit.lab.outcome_told import Told, check_told, one_of
from aiotkit.lab.readers import Raw

ALREADY = "in the lake already"
KINDS = ("report", INSPECTION)
NEEDED = ("subject", "state", "at")
OPTIONAL = ("source", "reported_at", "reliability", "kind", "provenance", "note")
OUTCOMES = ["subject", "state", "at_us", "reported_us", "source", "reliability", "kind", "provenance", "note"]
SAME = ["subject", "state", "at_us", "source", "kind"]
_REJECTED = ["row", "reason", "content"]
_NEVER = 1 << 62
#: first and last instant of a subject's telemetry, µs UTC
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Imported:
    """What was taken (reports), what was not and why: ``rejected`` has ``row``, ``reason``, ``content``.

    ``rows_in``: rows that were read; one of another form than ``reports`` may make several reports, or none.
    """

    source: str
    accepted: pd.DataFrame
    rejected: pd.DataFrame
    notes: tuple[str, ...]
    rows_in: int
    digest: str
    form: str


def read_outcomes(
    source: str | Path | pd.DataFrame | Raw,
    decision: Decision,
    told: Told | None = None,
    *,
    known: Mapping[str, Span | None],
    now_us: int | None = None,
    stored: pd.DataFrame | None = None,
) -> Imported:
    """Reports out of a file or frame, checked; nothing is stored.

    Args:
        source: CSV, Parquet, JSON or frame, in any form.
        decision: declares states and sources.
        told: what form it has and what its columns mean; found by itself where it can be.
        known: subjects, each with the first and last instant of its telemetry (None = not known).
        now_us: µs UTC; what was said later is rejected.
        stored: reports that are there already (columns ``OUTCOMES``).

    Raises:
        OutcomeError, DataError: as ``import_outcomes``.
    """
    told = told or Told()
    told = replace(told, clock=replace(told.clock, hint=decision.site.time_zone))
    raw = read_told(source, told)
    check_told(told, decision)
    told, settled = settle(raw, decision, told, known)
    form, reading = read_form(raw, decision, told)
    if form == "reports":
        rows, notes = _read(raw, decision, told)
    else:
        rows, notes = _prepared(reading, decision), reading.notes
    now_us = _NEVER if now_us is None else now_us
    if form == "ends":
        rows["reported_us"] = _closed(rows["at_us"], decision, now_us)
    rows["subject"], renamed = as_known(rows["subject"], known)
    _check(rows, decision, known, now_us)
    _mark_doubles(rows, pd.DataFrame(columns=SAME) if stored is None else stored)
    good = rows["reason"] == ""
    lines = pd.DataFrame([(m.row, m.reason, m.content) for m in raw.malformed], columns=_REJECTED)
    rejected = rows.loc[~good, _REJECTED].drop_duplicates()  # a span is many reports, and one row
    rejected = pd.concat([rejected, lines]) if len(lines) else rejected
    accepted = rows.loc[good, OUTCOMES].reset_index(drop=True)
    return Imported(
        raw.name,
        accepted,
        rejected.sort_values("row", ignore_index=True),
        (
            *raw.notes,
            *settled,
            *notes,
            *renamed,
            *_outside(accepted, known, decision),
            *_waiting(accepted, known, decision),
        ),
        len(raw.frame) + len(raw.malformed),
        raw.digest,
        form,
    )


def _closed(at_us: pd.Series, decision: Decision, now_us: int) -> pd.Series:
    """When a record that ends with a failure is known as a whole: after maturity, at most now."""
    return (at_us + round(decision.outcome.maturity_s * 1e6)).clip(upper=now_us).clip(lower=at_us)


def _prepared(reading: Reading, decision: Decision) -> pd.DataFrame:
    """Reports of a form with the columns that checks need."""
    rows = reading.rows.copy()
    reliable = {n: s.reliability for n, s in decision.outcome.sources.items()}
    rows["reliability"] = rows["source"].map(reliable).astype(float)
    written = reading.content[~reading.content.index.duplicated()]  # a row of several machines is one row
    rows["content"] = rows["row"].map(written)
    return rows


def _outside(accepted: pd.DataFrame, known: Mapping[str, Span | None], decision: Decision) -> tuple[str, ...]:
    """Say when reports can label nothing, because no telemetry of their subject is from before."""
    spans = accepted["subject"].map(lambda s: known.get(s))
    spoken = accepted[spans.notna()]
    if spoken.empty:
        return ()
    horizon = round(decision.outcome.horizon_s * 1e6)
    first = np.array([s[0] for s in spans[spans.notna()]], dtype=np.int64)
    last = np.array([s[1] for s in spans[spans.notna()]], dtype=np.int64)
    at = spoken["at_us"].to_numpy(dtype=np.int64)
    early, late = int((at < first).sum()), int((at > last + horizon).sum())
    notes = []
    if early:
        notes.append(f"{early:,} of {len(at):,} reports are from before the telemetry of their subject")
    if late:
        notes.append(f"{late:,} of {len(at):,} reports are from more than horizon_s after it")
    return tuple(f"{note}: they label nothing. Is the time zone right?" for note in notes)


def _waiting(accepted: pd.DataFrame, known: Mapping[str, Span | None], decision: Decision) -> tuple[str, ...]:
    """Say when the record ends too soon after events for all that was decided before them to be labelled."""
    ends = [span[1] for span in known.values() if span is not None]
    events = accepted.loc[accepted["state"] != decision.uneventful, "at_us"].to_numpy(dtype=np.int64)
    if not ends or not len(events):
        return ()
    newest, maturity = (
        max(*ends, int(accepted["reported_us"].max())),
        round(decision.outcome.maturity_s * 1e6),
    )
    young = int((events > newest - maturity).sum())
    if not young:
        return ()
    until = datetime.fromtimestamp((newest + maturity) / 1e6, UTC).isoformat(timespec="seconds")
    return (
        f"{young:,} of {len(events):,} events lie within maturity_s of the record's end: decisions before "
        f"them are pending. Where the record is complete say 'aiotkit run retrain --as-of {until}'",
    )


def _read(raw: Raw, decision: Decision, told: Told) -> tuple[pd.DataFrame, tuple[str, ...]]:
    clock = told.clock
    raw = _with_told(raw, decision, told)
    for name in NEEDED:
        if name not in raw.frame.columns:
            hint = did_you_mean(name, raw.frame.columns) or f"Columns: {', '.join(raw.frame.columns)}."
            raise OutcomeError(f"{raw.name}: column '{name}' is missing", expected=", ".join(NEEDED), do=hint)
    unused = [c for c in raw.frame.columns if c not in (*NEEDED, *OPTIONAL)]
    notes = [f"columns not used: {', '.join(unused)}"] if unused else []
    rows = pd.DataFrame({"row": raw.frame.index.to_numpy()})
    for name in ("subject", "state", "source", "kind", "provenance", "note"):
        rows[name] = _text(raw, name)
    rows["kind"] = rows["kind"].where(rows["kind"] != "", "report")
    series = pd.factorize(rows["subject"])[0].astype(np.int64)
    at = parse_instants(raw.frame["at"], clock, series)
    rows["at_us"], rows["reason"] = at.at_us, np.where(at.good, "", "at: " + at.reason.astype(str))
    if "reported_at" in raw.frame.columns:
        said = parse_instants(raw.frame["reported_at"], clock, series)
        rows["reported_us"] = said.at_us
        rows.loc[(rows["reason"] == "") & ~said.good, "reason"] = "reported_at: not a time"
    else:
        rows["reported_us"] = rows["at_us"]
        notes.append("no column reported_at: taken to be said when it was so")
    declared = rows["source"].map({n: s.reliability for n, s in decision.outcome.sources.items()})
    given = (
        pd.to_numeric(_text(raw, "reliability"), errors="coerce") if "reliability" in raw.frame else np.nan
    )
    silent = _text(raw, "reliability") == ""  # what is given and is no number stays NaN, and is refused
    rows["reliability"] = pd.Series(given, index=rows.index, dtype=float).where(
        ~pd.Series(silent, index=rows.index), declared.astype(float)
    )
    content = raw.frame[[c for c in (*NEEDED, *OPTIONAL) if c in raw.frame.columns]]
    rows["content"] = [", ".join(f"{k}={v}" for k, v in r.items())[:200] for r in content.to_dict("records")]
    return rows, (*notes, *at.notes)


def _with_told(raw: Raw, decision: Decision, told: Told) -> Raw:
    """The file with subject, state and source in their columns, as told."""
    frame = raw.frame.copy(deep=False)
    kind = decision.subject
    renamed = {
        "subject": told.subject_column or (kind if kind in frame and "subject" not in frame else None),
        "state": told.label,
        "at": told.time,
    }
    for name, column in renamed.items():
        if column is not None and column != name:
            frame[name] = raw.column(column, name)
    if told.subject is not None and told.subject_column is None:
        frame["subject"] = told.subject
    if told.states and "state" in frame:
        frame["state"] = frame["state"].map(lambda v: told.states.get(str(v).strip(), v))
    if "source" not in frame:
        frame["source"] = source_of(decision, told)
    return replace(raw, frame=frame)


def _text(raw: Raw, name: str) -> Any:
    if name not in raw.frame.columns:
        return ""
    column = raw.frame[name]
    return column.astype(object).where(column.notna(), "").astype(str).str.strip().to_numpy(dtype=object)


def _check(
    rows: pd.DataFrame, decision: Decision, known: Mapping[str, Span | None], imported_us: int
) -> None:
    """Write into ``reason`` what is wrong with each row; the first finding stays."""
    sources = decision.outcome.sources

    def refuse(bad: Any, words: Any) -> None:
        hit = (rows["reason"] == "") & bad
        rows.loc[hit, "reason"] = words if isinstance(words, str) else words[hit]

    def unknown(column: str, names: Any) -> None:
        bad = ~rows[column].isin(list(names))
        expected = one_of(sorted(names) if column == "subject" else list(names))
        said = {v: f"unknown {column} '{v}'; {did_you_mean(v, names) or f'expected {expected}'}"
                for v in rows.loc[bad, column].unique()}  # fmt: skip
        refuse(bad, rows[column].map(lambda v: said.get(v, "")).astype(object))

    unknown("subject", known)
    unknown("source", sources)
    unknown("state", decision.states)
    unknown("kind", KINDS)
    mute = [
        s not in sources[q].reports if q in sources else False
        for q, s in zip(rows["source"], rows["state"], strict=True)
    ]
    refuse(
        np.array(mute, dtype=bool),
        "source '" + rows["source"] + "' does not report state '" + rows["state"] + "'",
    )
    refuse(rows["reported_us"] < rows["at_us"], "said before it was so (reported_at before at)")
    refuse(rows["reported_us"] > imported_us, "said in the future")
    refuse((rows["at_us"] < 0) | (rows["reported_us"] < 0), "before 1970")
    refuse(~rows["reliability"].between(0, 1), "reliability outside [0, 1], or no number")


def _mark_doubles(rows: pd.DataFrame, stored: pd.DataFrame) -> None:
    good = rows[rows["reason"] == ""]
    again = good.duplicated(SAME, keep="first")
    rows.loc[again[again].index, "reason"] = "duplicate of an earlier row"
    good = rows[rows["reason"] == ""]
    held = set(stored[SAME].itertuples(index=False, name=None))
    here = [key in held for key in good[SAME].itertuples(index=False, name=None)]
    rows.loc[good.index[here], "reason"] = ALREADY
