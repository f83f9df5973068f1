"""The forms in which people have outcomes, each read as reports of states.

- **reports**: a row a report: ``subject``, ``state``, ``at``, ``source`` (and more, see ``lab.outcomes``).
- **column**: a row a moment, with a column that says how it was then: in the telemetry itself, or beside it.
- **failures**: a row an event: which subject, and when; what it means is said once (``state``), or by a label
  column: then rows of the silent state, or of values that were not mapped, are no events.
- **ends**: records that run to failure: the last row of each subject is its failure.
- **windows**: a row a span of time, from when to when it was so. CSV, or JSON ``{name: [[from, to]]}``.

A state that lasts is reported as often as needed so that no decision misses it whose horizon reaches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.core.errors import OutcomeError, did_you_mean
from aiotkit.lab.outcome_columns import of_column
from aiotkit.lab.outcome_events import of_ends, of_failures, of_windows
from aiotkit.lab.outcome_rows import ENDS, EVENTS, STARTS, labels, log_of_states
from aiotkit.lab.outcome_told import Form, Told, one_of
from aiotkit.lab.readers import Raw

#: columns of what the forms are read into; ``reason`` '' = fine so far
READ = ["row", "subject", "state", "at_us", "reported_us", "source", "kind", "provenance", "note", "reason"]


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
    reader = {"column": of_column, "failures": of_failures, "ends": of_ends, "windows": of_windows}[form]
    rows, notes = reader(raw, decision, told)
    said = rows.get("provenance", "")
    rows = rows.assign(source=source, kind="report", provenance=said, note="")
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


def form_of(raw: Raw, told: Told) -> Form:
    """The form of a file by its columns and what was told; ``OutcomeError`` where it cannot be told."""
    lowered = {c.lower() for c in raw.frame.columns}
    reported = lowered & {"subject", "state", "at", "source"}
    if told.label is None and ({"state", "at"} <= reported or len(reported) == 3):
        return "reports"
    if told.end is not None or (lowered & set(STARTS) and lowered & set(ENDS)) or log_of_states(raw, told):
        return "windows"
    if told.label is not None or (told.state is None and labels(raw)):
        return "column"
    if told.state is not None or lowered & set(EVENTS):
        return "failures"
    raise OutcomeError(
        f"{raw.name}: what do the rows say?",
        expected="reports (state, at), a label column, failures (a time a row), or windows (start, end)",
        found=f"columns {', '.join(map(str, raw.frame.columns[:20]))}",
        do="Give --form, and --label COLUMN or --state STATE.",
    )
