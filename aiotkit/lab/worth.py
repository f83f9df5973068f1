"""The decisions of a lake with what was believed at each, and what knowing more would have been worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab.judge import declared_costs
from aiotkit.lab.labels import KEY

if TYPE_CHECKING:
    from aiotkit.lake.lake import Lake

_COLUMNS = [*KEY, "at", "payload", "in_force", "verify_hit", "mode", "proposed", "final", "window"]


def seen_decisions(lake: Lake, decision: Decision, now_us: int) -> pd.DataFrame:
    """Every decision up to an instant (µs UTC) whose subject and record are known, by subject and time.

    Returns:
        ``device``, ``journal_id``, ``seq``, ``name`` (the three in one word), ``subject``, ``at_us``,
        ``in_force``, ``verify_hit``, ``mode``, ``proposed``, ``final``, ``window``; ``p`` (state ->
        probability, or None), ``novelty`` (NaN = not said), ``opened``: it put a question to a person.

    Raises:
        DataError: a record is not of format 1.
    """
    from aiotkit.lake.assets import Assets

    where = [("type", "=", "DECISION"), ("decision_id", "=", decision.id)]
    frame = lake.read("decisions", columns=_COLUMNS, where=where).to_pandas()
    stamps = pd.to_datetime(frame["at"], utc=True)
    frame["at_us"] = stamps.to_numpy(dtype="datetime64[us]").astype(np.int64)
    frame = frame[(frame["at_us"] <= now_us) & frame["payload"].notna()].reset_index(drop=True)
    watched = Assets(lake).subject_at(frame["device"].tolist(), frame["at_us"].to_numpy(dtype=np.int64))
    frame["subject"] = pd.Series(watched.to_pylist(), dtype=object)
    frame["name"] = [f"{d}/{j}/{s}" for d, j, s in frame[KEY].itertuples(index=False, name=None)]
    said = [_told(payload, name) for payload, name in zip(frame["payload"], frame["name"], strict=True)]
    told = pd.DataFrame(said, columns=["p", "novelty", "opened"], index=frame.index)
    frame = frame.drop(columns=["payload"]).join(told)
    kept: pd.DataFrame = frame[frame["subject"].notna()]
    return kept.sort_values(["subject", "at_us"], ignore_index=True)


def _told(payload: str, name: str) -> tuple[dict[str, float] | None, float, bool]:
    """Probabilities, novelty, and whether this decision put a question to a person."""
    try:
        out, seed = json.loads(payload)["out"], json.loads(payload)["in"]["seed"]
        question = out["question"]
        p = None if out["p"] is None else {s: float(v) for s, v in out["p"].items()}
        asks = question is not None and question["kind"] == "ask" and question["id"] == seed
        return p, float(out.get("novelty", "nan")), asks
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"decision record {name} is not of format 1", found=str(error)) from error


def probabilities(seen: pd.DataFrame, states: Sequence[str]) -> NDArray[np.float64]:
    """``[rows, states]`` out of the column ``p`` of ``seen_decisions``; NaN where there was no model."""
    rows = [[np.nan] * len(states) if p is None else [p.get(s, np.nan) for s in states] for p in seen["p"]]
    return np.array(rows, dtype=np.float64).reshape(len(seen), len(states))


def value_of_knowing(p: NDArray[Any], decision: Decision) -> NDArray[np.float64]:
    """What it would have been worth to know the state: ``[rows]`` in the decision's currency.

    ``Σ p · cost(best without knowing) − Σ p · cost(best for the state)``, the expected value of perfect
    information (Howard 1966, IEEE Trans. Systems Science and Cybernetics 2(1)).

    Args:
        p: ``[rows, states]`` in the order of ``decision.states``; a row that is not known gives NaN.
        decision: with known costs.
    """
    table = declared_costs(decision)
    worth: NDArray[np.float64] = (p @ table.T).min(axis=1) - p @ table.min(axis=0)
    return worth


def most_telling(lake: Lake, decision: Decision, now_us: int) -> tuple[str, str, int]:
    """The decision that is most worth a closer look.

    Its window is here, it intervened or asked, and knowing the state would have been worth most (without a
    model: the latest).

    Returns:
        Device, journal, sequence number.

    Raises:
        DataError: no decision has its window in the lake.
    """
    from aiotkit.lake.blobs import Blobs

    seen = seen_decisions(lake, decision, now_us)
    kept = Blobs(lake).find(seen["window"].dropna().unique())
    seen = seen[seen["window"].isin(kept)].reset_index(drop=True)
    if seen.empty:
        raise DataError(
            f"decision '{decision.id}': no window of any decision reached the lake",
            do="Say 'upload: selected' (or raw) in the decision's needs, or replay where it was taken.",
        )
    acts = [name for name, action in decision.actions.items() if action.intervenes]
    tier = np.where(seen["final"].isin(acts) | seen["opened"], 2, seen["final"].notna())
    worth = np.full(len(seen), np.nan)
    if not isinstance(decision.costs, str):
        worth = value_of_knowing(probabilities(seen, tuple(decision.states)), decision)
    rank = seen.assign(tier=tier, worth=np.nan_to_num(worth, nan=-1.0))
    row = rank.sort_values(["tier", "worth", "at_us", "name"], ascending=False).iloc[0]
    return str(row["device"]), str(row["journal_id"]), int(row["seq"])
