"""Outcomes in a column: a row a moment, which says how it was then."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aiotkit.core.decision import Decision, Regular
from aiotkit.core.errors import OutcomeError
from aiotkit.lab.labels import from_column
from aiotkit.lab.layout import folded
from aiotkit.lab.outcome_rows import labels, read_states, subjects_of, texts, times_of, unknown
from aiotkit.lab.outcome_told import Told
from aiotkit.lab.readers import Raw


def of_column(raw: Raw, decision: Decision, told: Told) -> tuple[pd.DataFrame, list[str]]:
    """Reports of the states that a label column says, as many as are needed; and notes."""
    found = labels(raw) if told.label is None else [told.label]
    if len(found) != 1:
        raise OutcomeError(
            f"{raw.name}: which column is the label?",
            found=", ".join(found) or f"columns {', '.join(map(str, raw.frame.columns[:20]))}",
            do="Give --label COLUMN.",
        )
    values = texts(raw.column(found[0], "label"))
    state, notes = read_states(values, decision, told)
    at, reason, said = times_of(raw, decision, told)
    rows = pd.DataFrame({"row": raw.frame.index, "subject": subjects_of(raw, decision, told), "state": state})
    rows = rows.assign(at_us=at, reason=unknown(state, decision, reason))
    good = rows[rows["reason"] == ""]
    if _are_events(good, decision, told):
        covers, why = 0, ["no row says that all was well: each is an event, at its instant"]
    else:
        covers, why = _covered(good, decision, told)
    rows["at_us"] += np.where(rows["reason"] == "", covers, 0)
    rows["reported_us"] = rows["at_us"]
    dense = min(
        decision.outcome.horizon_s, decision.window.every_s
    )  # so that a horizon may be shortened later
    kept = _thinned(rows[rows["state"] != ""], round(dense * 1e6)).assign(provenance=from_column(found[0]))
    same = len(rows[rows["state"] != ""]) - len(kept)
    notes += [f"{same:,} rows say what those beside them say, and are not needed"] if same else []
    notes = [f"label: column '{found[0]}'", *notes, *said, *why, *_ahead(rows, decision)]
    return kept, [*notes, *_read_too(found[0], decision)]


def _ahead(rows: pd.DataFrame, decision: Decision) -> list[str]:
    """A word when the horizon reaches over many labelled rows: then labels tell of what comes."""
    steps = rows.sort_values(["subject", "at_us"]).groupby("subject")["at_us"].diff().dropna()
    horizon = decision.outcome.horizon_s
    if steps.empty or not 0 < float(steps.median()) * 2 < horizon * 1e6 or horizon <= decision.window.every_s:
        return []
    return [
        f"outcome.horizon_s is {horizon:g} s: a decision gets the first eventful label within that time; for "
        f"how it is at the moment set it to window.every_s ({decision.window.every_s:g} s), and import again"
    ]


def _read_too(label: str, decision: Decision) -> list[str]:
    """A word when the decision reads what is to be its label."""
    same = [n for n in (*decision.signals, *decision.context) if folded(n) == folded(label)]
    kind = "signal" if same and same[0] in decision.signals else "context"
    return [
        f"'{name}' is a {kind} of the decision too: a model is told the answer. Take it out of the decision "
        "file, unless a device knows it before the state shows"
        for name in same
    ]


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


def _thinned(rows: pd.DataFrame, dense_us: int) -> pd.DataFrame:
    """Of rows in which a state lasts as many as are needed: first, last, and two each ``dense_us``."""
    rows = rows.sort_values(["subject", "at_us", "row"], kind="stable")
    new = (rows["subject"] != rows["subject"].shift()) | (rows["state"] != rows["state"].shift())
    new |= (rows["at_us"].diff() > dense_us) | (rows["reason"] != "") | (rows["reason"].shift() != "")
    run = new.cumsum()
    place = (rows["at_us"] - rows.groupby(run)["at_us"].transform("first")) // max(1, dense_us // 2)
    keep = new | new.shift(-1, fill_value=True) | (place != place.shift())
    return rows[keep]
