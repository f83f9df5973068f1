"""Detectors: a score instead of probabilities, an alarm above a limit, and how many alarms are bearable.

A score says how unusual a window is, not which state is likely, so it cannot be weighed against costs. Its
limit comes from the false-alarm budget (``policy.alarms_per_day``, counted per subject-day), and an alarm
asks a person, or does what the first line of the written rule does where there is none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.core.policy import ASK
from aiotkit.lab.books import DAY_US, Actions, Names
from aiotkit.lab.evaluate import EventFigures, event_figures

_LIMITS = 400


def quiet_action(decision: Decision) -> str:
    """What is done when nothing is unusual: the rule's last line."""
    return decision.rule[-1].action


def alarm_action(decision: Decision) -> str:
    """What an alarm does: ``ask``, or without a person the first line of the rule."""
    return ASK if decision.human is not None else decision.rule[0].action


def actions_of_score(score: NDArray[Any], decision: Decision, limit: float) -> Names:
    """The action of each row of a detector: an alarm where ``score`` > ``limit``; no number: ``recovery``."""
    value = np.asarray(score, dtype=np.float64).reshape(-1)
    names = np.where(value > limit, alarm_action(decision), quiet_action(decision)).astype(object)
    names[~np.isfinite(value)] = decision.recovery
    return names


def alarm_limit(rows: pd.DataFrame, score: NDArray[Any], decision: Decision) -> float:
    """The lowest limit that keeps the false-alarm budget on these rows, as does every higher one.

    Args:
        rows: ``subject`` and ``at_us``; believed to be free of what the detector shall find.
        score: ``[rows]``.
        decision: with ``policy.alarms_per_day``; alarms within one horizon of each other count once.

    Raises:
        DataError: no budget is declared, or no score is a number.
    """
    budget = decision.policy.alarms_per_day
    if budget is None:
        raise DataError(
            f"'{decision.id}': no false-alarm budget",
            expected="policy: {kind: false_alarm_budget, alarms_per_day: …}",
            do="Say how many alarms per subject and day people can bear.",
        )
    value = np.asarray(score, dtype=np.float64).reshape(-1)
    finite = np.unique(value[np.isfinite(value)])
    if not len(finite):
        raise DataError("score", expected="numbers", found="none that is finite")
    code, _ = pd.factorize(rows["subject"].astype(object))
    at = rows["at_us"].to_numpy(dtype=np.int64)
    order = np.lexsort((at, code))
    code, at, value = code[order], at[order], value[order]
    days, merge = subject_days(rows), round(decision.outcome.horizon_s * 1e6)

    def episodes(limit: float) -> int:
        rung = np.flatnonzero(value > limit)
        apart = (np.diff(code[rung]) != 0) | (np.diff(at[rung]) > merge)
        return int(len(rung) > 0) + int(apart.sum())

    # an alarm limit lies in the upper tail: half of the grid covers the highest hundredth
    tail = np.quantile(finite, np.linspace(0.99, 1, _LIMITS // 2))
    limits = np.unique([*np.quantile(finite, np.linspace(0, 0.99, _LIMITS // 2)), *tail])
    best = float(limits[-1])
    for limit in limits[::-1]:
        if episodes(float(limit)) / days > budget:
            break
        best = float(limit)
    return best


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
