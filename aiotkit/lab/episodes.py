"""Episodes: stretches of one action on one subject, priced by the declared costs.

An episode begins with a decision and lasts until the action in force changes or the horizon is over; its
state is the label of the decision it began with. An action that does not intervene and is replaced before
the horizon costs what it costs when nothing happens, for the time it lasted, as long as its state is still to
come: then it is the next episode's. A state other than the uneventful one that the next decision does not
have came before it, and is paid. Where the state is not known the cost is the row's if it is the same in
every state, else it is only bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.lab.labels import KEY
from aiotkit.lab.policy_regions import known_costs
from aiotkit.lab.schedule import early_us

EPISODES = ["subject", "start_us", "end_us", "action", "ended", "state", "status", "cost", "low", "high"]
_KNOWN = ("mature", "verified", "censored")


def episodes(decisions: pd.DataFrame, labels: pd.DataFrame, decision: Decision) -> pd.DataFrame:
    """Episodes with their costs.

    Args:
        decisions: ``device``, ``journal_id``, ``seq``, ``in_force``.
        labels: of the same decisions, as ``outcomes.resolve`` gives them.
        decision: with known costs.

    Returns:
        Columns ``EPISODES``; ``cost`` is NaN where only ``low`` and ``high`` are known; ``ended`` is
        ``horizon``, ``changed``, or ``open`` (the last one seen).
    """
    frame = labels.merge(decisions[[*KEY, "in_force"]], on=KEY, how="inner")
    frame = frame[frame["subject"].map(bool) & frame["subject"].notna()]
    frame = frame.sort_values(["subject", "at_us", *KEY], ignore_index=True)
    horizon_us = round(decision.outcome.horizon_s * 1e6)
    rows = [
        _priced(episode, decision)
        for _, mine in frame.groupby("subject", sort=True)
        for episode in _cut(mine, horizon_us, early_us(decision))
    ]
    return pd.DataFrame(rows, columns=EPISODES)


def _cut(mine: pd.DataFrame, horizon_us: int, early_us: int) -> Iterator[dict[str, Any]]:
    columns = ["subject", "at_us", "in_force", "state", "status"]
    current: dict[str, Any] | None = None
    for subject, at_us, action, state, status in zip(*(mine[c].tolist() for c in columns), strict=True):
        action = action if isinstance(action, str) else None
        if current is not None:
            changed, over = action != current["action"], at_us >= current["start_us"] + horizon_us - early_us
            if not changed and not over:
                continue
            end = current["start_us"] + horizon_us if over else at_us
            ended = {"end_us": end, "ended": "horizon" if over else "changed"}
            yield current | ended | {"next": (state, status)}
        current = {"subject": subject, "start_us": at_us, "action": action, "state": state, "status": status}
    if current is not None:
        yield current | {"end_us": current["start_us"] + horizon_us, "ended": "open"}


def _priced(episode: dict[str, Any], decision: Decision) -> dict[str, Any]:
    action, state = episode["action"], episode["state"]
    row = known_costs(decision).get(action) if isinstance(action, str) else None
    if row is None:
        return episode | {"cost": np.nan, "low": np.nan, "high": np.nan}
    known = isinstance(state, str) and episode["status"] in _KNOWN
    low, high = (row[state], row[state]) if known else (min(row.values()), max(row.values()))
    if episode["ended"] == "changed" and not decision.actions[action].intervenes:
        following, status = episode["next"]
        lasted = (episode["end_us"] - episode["start_us"]) / (decision.outcome.horizon_s * 1e6)
        calm = row[decision.uneventful] * lasted
        if not known or state in (decision.uneventful, following):
            low = high = calm
        elif status == "pending":
            low, high = min(calm, low), max(calm, high)
    return episode | {"cost": low if low == high else np.nan, "low": low, "high": high}


def ledger_of(found: pd.DataFrame, observed: pd.DataFrame) -> pd.DataFrame:
    """What is known to have been spent, by subject and UTC day an episode began; see ``evaluate``.

    Args:
        found: episodes.
        observed: ``subject`` and ``at_us`` of all decisions: each day with one counts, also without cost.
    """
    spent = pd.DataFrame(
        {"subject": found["subject"], "day": _day(found["start_us"]), "money": found["cost"].fillna(0.0)}
    )
    seen = pd.DataFrame({"subject": observed["subject"], "day": _day(observed["at_us"])}).drop_duplicates()
    seen = seen[seen["subject"].isin(set(found["subject"]))].assign(money=0.0)
    return pd.concat([spent, seen], ignore_index=True)


def _day(at_us: pd.Series) -> pd.Series:
    return pd.to_datetime(at_us, unit="us", utc=True).dt.floor("D")


def money_by_action(found: pd.DataFrame) -> pd.DataFrame:
    """One row an action: ``episodes``, ``priced``, ``money``, and bounds of what is not known."""
    named = found.assign(action=found["action"].astype(object).where(found["action"].notna(), "none ordered"))
    unknown = named["cost"].isna()
    grouped = named.groupby("action", sort=True)
    return pd.DataFrame(
        {
            "episodes": grouped.size(),
            "priced": (~unknown).groupby(named["action"]).sum(),
            "money": grouped["cost"].sum(),
            "unknown_at_least": named["low"].where(unknown, 0.0).groupby(named["action"]).sum(),
            "unknown_at_most": named["high"].where(unknown, 0.0).groupby(named["action"]).sum(),
        }
    ).reset_index()
