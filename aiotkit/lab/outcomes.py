"""Outcomes: reports of states brought into the lake, and resolved into labels of decisions.

Joins go through the asset registry as it was when the decision was taken: a device that was moved, or a
sensor that was swapped, must not give one machine's outcome to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.core.errors import OutcomeError, did_you_mean
from aiotkit.lab.instants import Clock, parse_instants
from aiotkit.lab.labels import INSPECTION, KEY, label
from aiotkit.lab.readers import Raw, read_raw

if TYPE_CHECKING:
    from aiotkit.lake.lake import Lake

ALREADY = "in the lake already"
KINDS = ("report", INSPECTION)
NEEDED = ("subject", "state", "at", "source")
OPTIONAL = ("reported_at", "reliability", "kind", "provenance", "note")
OUTCOMES = ["subject", "state", "at_us", "reported_us", "source", "reliability", "kind", "provenance", "note"]
_SAME = ["subject", "state", "at_us", "source", "kind"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What was taken, what was not and why: ``rejected`` has ``row``, ``reason``, ``content``."""

    source: str
    accepted: pd.DataFrame
    rejected: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def rows_in(self) -> int:
        """Rows that were read: accepted and rejected."""
        return len(self.accepted) + len(self.rejected)


def import_outcomes(
    lake: Lake,
    source: str | Path | pd.DataFrame,
    decision: Decision,
    *,
    imported_us: int,
    clock: Clock | None = None,
) -> Imported:
    """Bring reports into the lake.

    Columns: ``subject``, ``state``, ``at`` (when it was so), ``source``; and if given ``reported_at``
    (default: ``at``), ``reliability`` (default: the source's), ``kind`` (report or inspection; default
    report), ``provenance``, ``note``. A row with an unknown subject, source or state, a state the source
    does not report, one said before it was so, one from the future, or one that is here already is
    rejected with its reason, and kept in the lake's ``quarantine``.

    Args:
        lake: where to, and whose registry knows the subjects.
        source: CSV, Parquet or frame.
        decision: declares states and sources.
        imported_us: now, µs UTC.
        clock: how times without offset are to be read.

    Raises:
        OutcomeError: a column is missing, or the registry is empty.
        DataError: the file cannot be read, or its times have no zone.
    """
    from aiotkit.lake.assets import Assets

    raw = read_raw(source)
    known = {a.subject for a in Assets(lake).assignments()}
    if not known:
        raise OutcomeError(
            "the asset registry of the lake is empty",
            do="Outcomes are joined to decisions through it: enter which device watches which subject first.",
        )
    rows, notes = _read(raw, decision, clock or Clock(hint=decision.site.time_zone))
    _check(rows, decision, known, imported_us)
    _mark_doubles(rows, reports_of(lake))
    good = rows["reason"] == ""
    lines = [(m.row, m.reason, m.content) for m in raw.malformed]
    rejected = (
        pd.concat(
            [
                rows.loc[~good, ["row", "reason", "content"]],
                pd.DataFrame(lines, columns=["row", "reason", "content"]),
            ]
        )
        if lines
        else rows.loc[~good, ["row", "reason", "content"]]
    )
    found = Imported(
        raw.name,
        rows.loc[good, OUTCOMES].reset_index(drop=True),
        rejected.sort_values("row", ignore_index=True),
        (*raw.notes, *notes),
    )
    _store(lake, found, raw.digest, imported_us)
    return found


def _read(raw: Raw, decision: Decision, clock: Clock) -> tuple[pd.DataFrame, tuple[str, ...]]:
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
    at = parse_instants(raw.frame["at"], clock)
    rows["at_us"], rows["reason"] = at.at_us, np.where(at.good, "", "at: " + at.reason.astype(str))
    if "reported_at" in raw.frame.columns:
        said = parse_instants(raw.frame["reported_at"], clock)
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


def _text(raw: Raw, name: str) -> Any:
    if name not in raw.frame.columns:
        return ""
    column = raw.frame[name]
    return column.astype(object).where(column.notna(), "").astype(str).str.strip().to_numpy(dtype=object)


def _check(rows: pd.DataFrame, decision: Decision, known: set[str], imported_us: int) -> None:
    """Write into ``reason`` what is wrong with each row; the first finding stays."""
    sources = decision.outcome.sources

    def refuse(bad: Any, words: Any) -> None:
        hit = (rows["reason"] == "") & bad
        rows.loc[hit, "reason"] = words if isinstance(words, str) else words[hit]

    def unknown(column: str, names: Any) -> None:
        bad = ~rows[column].isin(list(names))
        words = rows[column].map(
            lambda v: f"unknown {column} '{v}'; {did_you_mean(v, names)}".removesuffix("; ")
        )
        refuse(bad, words)

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
    again = good.duplicated(_SAME, keep="first")
    rows.loc[again[again].index, "reason"] = "duplicate of an earlier row"
    good = rows[rows["reason"] == ""]
    held = set(stored[_SAME].itertuples(index=False, name=None))
    here = [key in held for key in good[_SAME].itertuples(index=False, name=None)]
    rows.loc[good.index[here], "reason"] = ALREADY


def reports_of(lake: Lake, version: int | None = None) -> pd.DataFrame:
    """All reports in a lake: columns ``OUTCOMES``."""
    frame: pd.DataFrame = lake.read("outcomes", version=version).to_pandas()
    for name, column in (("at_us", "at"), ("reported_us", "reported_at")):
        frame[name] = _us(frame[column])
    return frame[OUTCOMES]


def _us(stamps: pd.Series) -> Any:
    return pd.to_datetime(stamps, utc=True).to_numpy(dtype="datetime64[us]").astype(np.int64)


def _store(lake: Lake, found: Imported, digest: str, imported_us: int) -> None:
    import pyarrow as pa

    instant = pa.timestamp("us", tz="UTC")
    bad, good = found.rejected, found.accepted
    source = f"outcomes {found.source} {digest}"
    again = bad["reason"] == ALREADY  # a file imported twice must not fill the quarantine
    kept = bad[~again]
    if len(kept):
        columns = {
            "source": pa.array([source] * len(kept), pa.string()),
            "row": pa.array(kept["row"].astype(int), pa.int64()),
            "reason": pa.array(kept["reason"], pa.string()),
            "content": pa.array(kept["content"], pa.string()),
            "at": pa.array(np.full(len(kept), imported_us), pa.int64()).cast(instant),
        }
        if lake.watermark(f"outcomes/{digest}", table="quarantine") is None:
            lake.append("quarantine", pa.table(columns), transactions={f"outcomes/{digest}": 1})
    if len(good):
        columns = {n: pa.array(good[n], pa.string()) for n in ("subject", "state", "source", "kind")}
        columns["note"] = pa.array(good["note"].where(good["note"] != "", None), pa.string())
        columns["provenance"] = pa.array(
            good["provenance"].where(good["provenance"] != "", source), pa.string()
        )
        columns["reliability"] = pa.array(good["reliability"], pa.float64())
        for name, column in (("at", "at_us"), ("reported_at", "reported_us")):
            columns[name] = pa.array(good[column].to_numpy(dtype=np.int64), pa.int64()).cast(instant)
        lake.append("outcomes", pa.table(columns))


def resolve(lake: Lake, decision: Decision, as_of_us: int, *, write: bool = False) -> pd.DataFrame:
    """Labels of all decisions of a lake with what was known at ``as_of_us`` (µs UTC); rules in ``labels``.

    Args:
        lake: decisions, outcomes and registry.
        decision: states, actions and outcome rules; decisions of its id are labelled.
        as_of_us: reports said later do not count, decisions younger than maturity are pending.
        write: append the labels to the lake's table ``labels`` too; the newest ``as_of`` counts.

    Returns:
        Columns ``labels.LABELS``.
    """
    from aiotkit.lake.assets import Assets

    columns = [*KEY, "revision", "at", "in_force", "verify_hit"]
    where = [("type", "=", "DECISION"), ("decision_id", "=", decision.id)]
    frame = lake.read("decisions", columns=columns, where=where).to_pandas()
    frame["at_us"] = _us(frame["at"])
    frame = frame[frame["at_us"] <= as_of_us].reset_index(drop=True)
    watched = Assets(lake).subject_at(frame["device"].tolist(), frame["at_us"].to_numpy(dtype=np.int64))
    frame["subject"] = pd.Series(watched.to_pylist(), dtype=object)
    labels = label(frame, reports_of(lake), decision, as_of_us)
    if write and len(labels):
        _append_labels(lake, labels.merge(frame[[*KEY, "revision"]], on=KEY), decision.id, as_of_us)
    return labels


def _append_labels(lake: Lake, labels: pd.DataFrame, decision_id: str, as_of_us: int) -> None:
    import pyarrow as pa

    instant = pa.timestamp("us", tz="UTC")
    texts = ("device", "journal_id", "state", "status", "source", "provenance")
    columns = {
        n: pa.array(labels[n].astype(object).where(labels[n].notna(), None), pa.string()) for n in texts
    }
    columns |= {
        "decision_id": pa.array([decision_id] * len(labels), pa.string()),
        "subject": pa.array(
            labels["subject"].astype(object).where(labels["subject"].notna(), ""), pa.string()
        ),
        "revision": pa.array(labels["revision"], pa.int64(), from_pandas=True),
        "seq": pa.array(labels["seq"], pa.int64()),
        "confidence": pa.array(labels["confidence"].to_numpy(dtype=float), from_pandas=True),
        "at": pa.array(labels["at_us"], pa.int64()).cast(instant),
        "as_of": pa.array([as_of_us] * len(labels), pa.int64()).cast(instant),
    }
    lake.append("labels", pa.table(columns))


def current_labels(lake: Lake, decision_id: str) -> pd.DataFrame:
    """The labels written last, one row a decision: of several, the newest ``as_of`` counts."""
    frame: pd.DataFrame = lake.read("labels", where=[("decision_id", "=", decision_id)]).to_pandas()
    return frame.sort_values([*KEY, "as_of"]).drop_duplicates(KEY, keep="last").reset_index(drop=True)
