"""Alarms (any action but the quiet one): how many there are a subject-day, what they find, how early."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.lab.books import DAY_US, Actions
from aiotkit.lab.evaluate import EventFigures, event_figures


def quiet_action(decision: Decision) -> str:
    """What is done when nothing is unusual: the rule's last line."""
    return decision.rule[-1].action


def subject_days(rows: pd.DataFrame) -> int:
    """How many days of how many subjects these rows saw."""
    day = rows["at_us"].to_numpy(dtype=np.int64) // DAY_US
    return len(pd.DataFrame({"subject": rows["subject"].to_numpy(), "day": day}).drop_duplicates())


def events_of(rows: pd.DataFrame, decision: Decision) -> pd.DataFrame:
    """Events the labels tell of: the last row of each stretch in a state other than the normal one.

    The normal state is ``Decision.uneventful``. A stretch longer than the horizon counts as one
    event a horizon.

    Returns:
        Columns ``subject``, ``at_us``.
    """
    normal = decision.uneventful
    horizon = round(decision.outcome.horizon_s * 1e6)
    ordered = rows[["subject", "at_us", "state"]].sort_values(["subject", "at_us"], kind="stable")
    found: list[tuple[str, int]] = []
    last: tuple[str, int] | None = None  # subject and begin of the stretch that is open
    for subject, at, state in zip(*(ordered[c].tolist() for c in ordered.columns), strict=True):
        if state is None or state == normal:
            last = None
        elif last is None or last[0] != subject or at - last[1] > horizon:
            last = (subject, at)
            found.append((subject, at))
        else:
            found[-1] = (subject, at)
    return pd.DataFrame(found, columns=["subject", "at_us"]).astype({"at_us": np.int64})


def stretches(rows: pd.DataFrame, decision: Decision) -> int:
    """How many times a subject came into a state other than the normal one; each counts once."""
    ordered = rows[["subject", "at_us", "state"]].sort_values(["subject", "at_us"], kind="stable")
    bad = (ordered["state"].notna() & (ordered["state"] != decision.uneventful)).to_numpy()
    subject = ordered["subject"].to_numpy()
    goes_on = np.append(False, bad[:-1] & (subject[1:] == subject[:-1]))
    return int((bad & ~goes_on).sum())


def alarm_figures(
    rows: pd.DataFrame, actions: Actions, decision: Decision, *, events: pd.DataFrame | None = None
) -> EventFigures:
    """Alarms per subject-day, events detected and missed, lead times; see ``evaluate.event_figures``.

    Args:
        rows: ``subject``, ``at_us``, and ``state`` if no events are given.
        actions: one a row; every one but the quiet action counts as an alarm.
        decision: its horizon says how early an alarm may come, and which alarms are one.
        events: ``subject`` and ``at_us`` of what happened; by default ``events_of`` the labels.
    """
    rung = np.asarray(actions, dtype=object) != quiet_action(decision)
    horizon = decision.outcome.horizon_s
    return event_figures(
        rows.loc[rung, ["subject", "at_us"]],
        events_of(rows, decision) if events is None else events,
        subject_days=subject_days(rows),
        horizon_s=horizon,
        merge_s=horizon,
    )
