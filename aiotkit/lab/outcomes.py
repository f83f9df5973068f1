"""Outcomes: reports of states brought into the lake, and resolved into labels of decisions.

Joins go through the asset registry as it was when the decision was taken: a device that was moved, or a
sensor that was swapped, must not give one machine's outcome to another.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.core.errors import OutcomeError
from aiotkit.lab.instants import Clock
from aiotkit.lab.labels import KEY, label
from aiotkit.lab.outcome_files import read_told
from aiotkit.lab.outcome_reports import ALREADY, OUTCOMES, SAME, Imported, Span, read_outcomes
from aiotkit.lab.outcome_told import Told, reading_of
from aiotkit.lab.readers import FRAME, Raw
from aiotkit.lab.readings import otherwise, quoted, remember, remembered

if TYPE_CHECKING:
    from aiotkit.lake.lake import Lake


def import_outcomes(
    lake: Lake,
    source: str | Path | pd.DataFrame | Raw,
    decision: Decision,
    *,
    imported_us: int,
    clock: Clock | None = None,
    told: Told | None = None,
    replacing: bool = False,
) -> Imported:
    """Bring reports into the lake, from any form of ``lab.outcome_forms``.

    Columns of reports: ``subject``, ``state``, ``at`` (when it was so), ``source`` (default: the decision's
    only one); and if given ``reported_at`` (default: ``at``), ``reliability`` (default: the source's),
    ``kind`` (report or inspection; default report), ``provenance``, ``note``. A row with an unknown subject,
    source or state, a state the source does not report, one said before it was so, one from the future, or
    one that is here already is rejected with its reason, and kept in the lake's ``quarantine``.

    Args:
        lake: where to; a subject is known when a device watched it, or telemetry of it is there.
        source: CSV, Parquet, JSON or frame.
        decision: declares states and sources.
        imported_us: now, µs UTC.
        clock: how times without offset are to be read (default: as ``told`` says).
        told: what form it has and what its columns mean.
        replacing: in the place of what the lake holds of this file.

    Raises:
        ContradictionError: the lake holds other reports of this file, read with other options.
        OutcomeError: a column is missing, the form cannot be told, or the lake knows no subject.
        DataError: the file cannot be read, or its times have no zone.
    """
    known = known_subjects(lake)
    if not known:
        raise OutcomeError(
            "the lake knows no subject: it holds no telemetry, and its asset registry is empty",
            do="Bring in telemetry (aiotkit ingest … --lake), or say which device watches which subject.",
        )
    told = told or Told()
    told = told if clock is None else replace(told, clock=clock)
    raw, held = read_told(source, told), reports_of(lake)
    part = f"{raw.digest} for {decision.id}" + "".join(f" {p}" for p in (told.entry, told.whose) if p)
    mine = _of_file(held, raw.digest, part, decision)
    others = held.drop(index=mine.index) if replacing else held
    found = read_outcomes(raw, decision, told, known=known, now_us=imported_us, stored=others)
    how = reading_of(told)
    if len(mine) and not replacing:
        again = read_outcomes(raw, decision, told, known=known, now_us=imported_us)
        _refuse_otherwise(lake, (raw, part, how), mine, again.accepted)
    if raw.name != FRAME and (len(found.accepted) or replacing):
        remember(lake, "outcomes", raw.digest, {"part": part, "how": how})
    instead = None if not replacing else sql_of(raw.digest, part, decision)
    _store(lake, found, (found.digest, part), imported_us, instead)
    return found


def _of_file(held: pd.DataFrame, digest: str, part: str, decision: Decision) -> pd.DataFrame:
    """What a lake holds of a file (of lakes from before parts were written too)."""
    said = held["provenance"].fillna("")
    before = said.str.endswith(digest) & held["state"].isin(list(decision.states))
    return held[said.str.endswith(part) | before]


def sql_of(digest: str, part: str, decision: Decision) -> str:
    """The same rows as SQL."""
    states = ", ".join(map(quoted, decision.states))
    before = f"provenance LIKE {quoted('%' + digest)} AND state IN ({states})"
    return f"provenance LIKE {quoted('%' + part)} OR ({before})"


def _refuse_otherwise(
    lake: Lake, this: tuple[Raw, str, dict[str, Any]], mine: pd.DataFrame, now: pd.DataFrame
) -> None:
    """Refuse a file of which the lake holds reports that it does not make when read in this way."""
    raw, part, how = this
    entries = [e for e in remembered(lake, "outcomes", raw.digest) if e["part"] == part]
    was = entries[-1]["how"] if entries else None
    held, made = (set(one[SAME].itertuples(index=False, name=None)) for one in (mine, now))
    if was != how and held - made:
        raise otherwise(raw.name, was, how)


def known_subjects(lake: Lake) -> dict[str, Span | None]:
    """Subjects of the registry and of the telemetry, with the span of their telemetry where there is any."""
    import pyarrow as pa

    from aiotkit.lake.assets import Assets

    known: dict[str, Span | None] = {a.subject: None for a in Assets(lake).assignments()}
    for batch in lake.batches("telemetry", columns=["subject", "at"]):
        if not batch.num_rows:
            continue
        at = batch["at"].cast(pa.int64())
        spans = pa.table({"subject": batch["subject"], "at": at}).group_by("subject")
        for row in spans.aggregate([("at", "min"), ("at", "max")]).to_pylist():
            held = known.get(row["subject"]) or (row["at_min"], row["at_max"])
            known[row["subject"]] = (min(held[0], row["at_min"]), max(held[1], row["at_max"]))
    return known


def reports_of(lake: Lake, version: int | None = None) -> pd.DataFrame:
    """All reports in a lake: columns ``OUTCOMES``."""
    frame: pd.DataFrame = lake.read("outcomes", version=version).to_pandas()
    for name, column in (("at_us", "at"), ("reported_us", "reported_at")):
        frame[name] = _us(frame[column])
    return frame[OUTCOMES]


def _us(stamps: pd.Series) -> Any:
    return pd.to_datetime(stamps, utc=True).to_numpy(dtype="datetime64[us]").astype(np.int64)


def _store(lake: Lake, found: Imported, file: tuple[str, str], imported_us: int, instead: str | None) -> None:
    """Append quarantine and reports; ``instead``: in the place of the rows that this SQL names."""
    import pyarrow as pa

    digest, part = file

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
    if len(good) or instead is not None:
        columns = {n: pa.array(good[n], pa.string()) for n in ("subject", "state", "source", "kind")}
        columns["note"] = pa.array(good["note"].where(good["note"] != "", None), pa.string())
        this = f"outcomes {found.source} {part}"
        named = good["provenance"] if found.source == FRAME else good["provenance"] + f"; {this}"
        columns["provenance"] = pa.array(named.where(good["provenance"] != "", this), pa.string())
        columns["reliability"] = pa.array(good["reliability"], pa.float64())
        for name, column in (("at", "at_us"), ("reported_at", "reported_us")):
            columns[name] = pa.array(good[column].to_numpy(dtype=np.int64), pa.int64()).cast(instant)
        if instead is None:
            lake.append("outcomes", pa.table(columns))
        else:
            lake.replace("outcomes", pa.table(columns), instead)


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
