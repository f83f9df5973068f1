"""The decisions of a lake as a frame: what was known, proposed, ordered and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aiotkit.core.errors import LakeError

if TYPE_CHECKING:
    from aiotkit.lake.lake import Lake

#: columns every frame of decisions has, in this order
COLUMNS = (
    "device", "journal_id", "seq", "at_us", "at", "decision_id", "revision", "bundle", "mode", "proposed",
    "proposal_reason", "verdict", "final", "final_reason", "in_force", "window", "verify_p", "verify_hit",
)  # fmt: skip
KEY = ["device", "journal_id", "seq"]


def decisions_frame(
    lake: Lake, decision_id: str | None = None, *, version: int | None = None
) -> pd.DataFrame:
    """All decisions of a lake, one row each, by device and sequence number.

    Args:
        lake: where the journals were collected.
        decision_id: only this decision's.
        version: of the table ``decisions`` (default: now).

    Returns:
        ``COLUMNS`` and, where the records hold them, ``feature.<name>``, ``history.<name>``,
        ``context.<name>``, ``p.<state>``, ``cost.<action>`` and ``gates`` (list of gate, verdict,
        reason). A record that was withheld keeps what the lake extracted; the rest is empty.
    """
    where: list[tuple[str, str, Any]] = [("type", "=", "DECISION")]
    if decision_id is not None:
        where.append(("decision_id", "=", decision_id))
    table = lake.read("decisions", where=where, version=version).to_pandas()
    return expand(table)


def expand(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the lake's table ``decisions`` (type DECISION) with their payloads unfolded (pure)."""
    table = table.sort_values(KEY, ignore_index=True)
    records = pd.DataFrame([_unfold(p, k) for p, k in zip(table["payload"], _keys(table), strict=True)])
    frame = table.drop(columns=["payload", "type", "head", "digest", "length", "withheld"], errors="ignore")
    frame = pd.concat([frame.drop(columns=records.columns, errors="ignore"), records], axis=1)
    stamps = pd.to_datetime(frame["at"], utc=True)
    frame["at_us"] = stamps.to_numpy(dtype="datetime64[us]").astype(np.int64)
    for column in COLUMNS:
        if column not in frame.columns:
            frame[column] = pd.Series([None] * len(frame), dtype=object)
    rest = [c for c in frame.columns if c not in COLUMNS]
    return frame[[*COLUMNS, *rest]]


def _keys(table: pd.DataFrame) -> list[str]:
    return [f"{d}/{j}/{s}" for d, j, s in table[KEY].itertuples(index=False, name=None)]


def _unfold(payload: str | None, key: str) -> dict[str, Any]:
    if not isinstance(payload, str):
        return {}
    try:
        record = json.loads(payload)
        given, out = record["in"], record["out"]
        row: dict[str, Any] = {
            "proposal_reason": out["proposal_reason"],
            "final_reason": out["final_reason"],
            "gates": [tuple(v) for v in out["verdicts"]],
            "faults": dict(out["faults"]),
        }
        row |= {f"feature.{k}": float(v) for k, v in out["features"].items()}
        row |= {f"history.{k}": float(v) for k, v in out["history"].items()}
        row |= {f"p.{k}": float(v) for k, v in (out["p"] or {}).items()}
        row |= {f"cost.{k}": float(v) for k, v in out["expected_costs"].items()}
        row |= {f"context.{k}": _reading(v) for k, (v, _) in given["context"].items()}
    except (ValueError, KeyError, TypeError) as error:
        raise LakeError(
            f"decision record {key} is not of format 1", found=str(error), do="Which device wrote it?"
        ) from error
    return row


def _reading(value: Any) -> float | str | None:
    """A context value as it was recorded: words are marked, numbers may be spelled ('nan')."""
    if isinstance(value, dict):
        return str(value["word"])
    return None if value is None else float(value)


def gate_verdicts(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a gate and decision.

    Columns: ``device``, ``journal_id``, ``seq``, ``at``, ``gate``, ``verdict``, ``reason``.
    """
    columns = [*KEY, "at", "gates"]
    given = frame[columns] if "gates" in frame else pd.DataFrame(columns=columns)
    rows = [
        (*key, *verdict)
        for *key, verdicts in given.itertuples(index=False, name=None)
        if isinstance(verdicts, Sequence)
        for verdict in verdicts
    ]
    return pd.DataFrame(rows, columns=[*KEY, "at", "gate", "verdict", "reason"])


def changes(frame: pd.DataFrame) -> pd.DataFrame:
    """The decisions at which the action in force changed, per journal; the first one counts."""
    before = frame.groupby(["device", "journal_id"])["in_force"].shift()
    first = frame.groupby(["device", "journal_id"]).cumcount() == 0
    same = (frame["in_force"] == before) | (frame["in_force"].isna() & before.isna())
    return frame[first | ~same]
