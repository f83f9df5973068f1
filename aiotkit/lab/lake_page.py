"""What a decision did, from its lake, as one page: actions, gates, reasons, outcomes, books, money."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.core.errors import LakeError
from aiotkit.lab.episodes import episodes, ledger_of, money_by_action
from aiotkit.lab.evaluate import money_per_subject_day
from aiotkit.lab.figures import Plot, span_in_words
from aiotkit.lab.journal import changes, decisions_frame, gate_verdicts
from aiotkit.lab.labels import KEY
from aiotkit.lab.outcomes import reports_of, resolve
from aiotkit.lab.plots import gate_counts, label_statuses, timeline
from aiotkit.lab.report import Report

if TYPE_CHECKING:
    from aiotkit.lake.lake import Lake

_MOST_CHANGES = 60
_MOST_REASONS = 25


def lake_page(
    lake: Lake,
    decision: Decision | None,
    *,
    as_of_us: int,
    books: Mapping[str, Mapping[str, Any]] | None = None,
    title: str = "",
) -> Report:
    """Build the page.

    Args:
        lake: what was collected.
        decision: its file; without it there are no labels and no money. Only its decisions are shown.
        as_of_us: what was known by then (µs UTC).
        books: device -> its balance (produced, delivered, gaps, lost, …), if it was counted.
        title: of the page.

    Raises:
        LakeError: the lake holds no decision (of that id).
    """
    frame = decisions_frame(lake, None if decision is None else decision.id)
    frame = frame[frame["at_us"] <= as_of_us].reset_index(drop=True)
    if frame.empty:
        which = "any decision" if decision is None else f"a decision '{decision.id}'"
        raise LakeError(f"{lake.uri}: the lake does not hold {which}", do="Has the collector run?")
    name = title or (decision.title or decision.id if decision is not None else "What was decided")
    page = Report(name, _subtitle(frame), footer=f"Known at {_utc(as_of_us)}. Made by `aiotkit report`.")
    page.section("In short", _short(frame, decision))
    _add_actions(page, frame)
    _add_machines(page, frame, lake, decision)
    _add_gates(page, frame)
    _add_books(page, books)
    if decision is not None:
        labels = resolve(lake, decision, as_of_us)
        page.section(
            "Outcomes", _outcome_words(labels), figure=label_statuses(labels) if len(labels) else None
        )
        if not isinstance(decision.costs, str):
            _add_money(page, frame, labels, decision)
    return page


def _subtitle(frame: pd.DataFrame) -> str:
    first, last = int(frame["at_us"].min()), int(frame["at_us"].max())
    ids = ", ".join(sorted(set(frame["decision_id"].dropna().astype(str)))) or "decision"
    devices = frame["device"].nunique()
    return f"{ids}: {len(frame):,} decisions of {devices} devices, {_utc(first)} to {_utc(last)}"


def _utc(at_us: int) -> str:
    return pd.Timestamp(at_us, unit="us", tz="UTC").strftime("%Y-%m-%d %H:%M UTC")


def _short(frame: pd.DataFrame, decision: Decision | None) -> str:
    new = changes(frame)
    spoke = gate_verdicts(frame)
    held = int((spoke["verdict"] != "ALLOW").sum())
    faulty = sum(bool(f) for f in frame["faults"] if isinstance(f, dict)) if "faults" in frame else 0
    withheld = int(frame["proposal_reason"].isna().sum())
    drawn = int(frame["verify_hit"].fillna(value=False).astype(bool).sum())
    question = f"{decision.question}\n\n" if decision is not None else ""
    lines = [
        f"- **{len(frame):,}** decisions; the action in force changed **{len(new):,}** times",
        f"- gates spoke up **{held:,}** times; **{faulty:,}** decisions had a faulty input",
        f"- **{drawn:,}** decisions drew a random check",
    ]
    lines += [f"- the contents of **{withheld:,}** records stayed on their devices"] if withheld else []
    return question + "\n".join(lines)


def _add_actions(page: Report, frame: pd.DataFrame) -> None:
    def counted(column: str) -> pd.Series:
        return frame[column].astype(object).where(frame[column].notna(), "(none)").astype(str).value_counts()

    table = (
        pd.concat({c: counted(c) for c in ("proposed", "final", "in_force")}, axis=1).fillna(0).astype(int)
    )
    table = table.rename_axis("action").reset_index().rename(columns={"final": "newly ordered"})
    reasons = frame.groupby(["final", "final_reason"], dropna=False).size().rename("decisions").reset_index()
    reasons["final_reason"] = (
        reasons["final_reason"].astype(object).where(reasons["final_reason"].notna(), "(withheld)")
    )
    reasons["why"] = (
        reasons["final_reason"].astype(str).str.replace(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", "#", regex=True)
    )
    by_why = reasons.groupby(["final", "why"], dropna=False)["decisions"].sum().reset_index()
    by_why = (
        by_why.sort_values("decisions", ascending=False)
        .head(_MOST_REASONS)
        .rename(columns={"final": "ordered"})
    )
    page.section(
        "What was proposed, ordered and in force",
        "Proposed is what the policy wanted; ordered is what was newly ordered after gates, people and "
        "autonomy; in force is what held after the decision, whoever ordered it.",
        table=table,
    )
    page.section("Why, in words", "The reasons that were recorded, numbers written as #.", table=by_why)


def _add_machines(page: Report, frame: pd.DataFrame, lake: Lake, decision: Decision | None) -> None:
    reported = reports_of(lake)
    figures = [
        p
        for p in (
            _machine(g, reported, lake, decision)
            for _, g in list(frame.groupby(["device", "journal_id"]))[:4]
        )
        if p
    ]
    rows = changes(frame).sort_values(["at_us", *KEY]).tail(_MOST_CHANGES)
    columns = ["at", "device", "seq", "in_force", "mode", "final_reason"]
    page.section(
        "Machines over time",
        f"The first {len(figures)} journals, then the last {len(rows)} changes of the action in force."
        if figures
        else "",
        figure=figures,
        table=rows[columns],
    )


def _machine(
    rows: pd.DataFrame, reported: pd.DataFrame, lake: Lake, decision: Decision | None
) -> Plot | None:
    from aiotkit.lake.assets import Assets

    shown = [f"feature.{n}" for n in (decision.fields_read() if decision is not None else ())]
    shown += [c for c in rows.columns if c.startswith("feature.")]
    usable = [c for c in dict.fromkeys(shown) if c in rows.columns and bool(rows[c].notna().any())][:3]
    if not usable:
        return None
    device = str(rows["device"].iloc[0])
    subjects = set(Assets(lake).subject_at([device] * len(rows), rows["at_us"].to_numpy()).to_pylist()) - {
        None
    }
    mine = reported[reported["subject"].isin(subjects)]
    first, last = int(rows["at_us"].min()), int(rows["at_us"].max())
    mine = mine[mine["at_us"].between(first, last)]
    outcomes = mine.assign(at=pd.to_datetime(mine["at_us"], unit="us", utc=True))
    who = f"{device} ({', '.join(sorted(map(str, subjects)))})" if subjects else device
    return timeline(rows, usable, outcomes=outcomes, units=_units(decision, usable), subject=who)


def _units(decision: Decision | None, columns: list[str]) -> dict[str, str]:
    from aiotkit.core.features import parse_statistic, unit_kind

    units: dict[str, str] = {}
    for column in columns if decision is not None else ():
        assert decision is not None
        signal, _, statistic = column.removeprefix("feature.").partition(".")
        if signal in decision.signals:
            unit = decision.signals[signal].unit
            rule = unit_kind(statistic) if parse_statistic(statistic) is not None else "1"
            units[column] = unit if rule == "same" else f"{unit}/s" if rule == "per_s" else "1"
    return units


def _add_gates(page: Report, frame: pd.DataFrame) -> None:
    verdicts = gate_verdicts(frame)
    if verdicts.empty:
        page.section("Gates", "No gate is recorded.")
        return
    spoke = verdicts[verdicts["verdict"] != "ALLOW"]
    last = spoke.sort_values("at").groupby(["gate", "verdict"]).tail(1)[["gate", "verdict", "reason", "at"]]
    counts = spoke.groupby(["gate", "verdict"]).size().rename("times").reset_index()
    table = counts.merge(last, on=["gate", "verdict"]).rename(
        columns={"reason": "last time because", "at": "last time"}
    )
    words = "How often each gate withheld an action or asked a person, and what it said the last time."
    page.section(
        "Gates",
        words if len(table) else "No gate spoke up.",
        figure=gate_counts(verdicts),
        table=table if len(table) else None,
    )


def _add_books(page: Report, books: Mapping[str, Mapping[str, Any]] | None) -> None:
    if books is None:
        return
    rows = [{"device": device, **counts} for device, counts in books.items()]
    lost = sum(int(counts.get("lost", 0)) for counts in books.values())
    words = "Records up to the collector's watermark: produced = delivered + gaps + lost."
    verdict = "**The books balance.**" if not lost else f"**{lost} records are lost.**"
    page.section("The books", f"{words} {verdict}", table=rows)


def _outcome_words(labels: pd.DataFrame) -> str:
    counts = labels["status"].value_counts()
    parts = [f"- {status}: {count:,}" for status, count in counts.items()]
    return "What is known of the state behind each decision.\n" + "\n".join(parts)


def _add_money(page: Report, frame: pd.DataFrame, labels: pd.DataFrame, decision: Decision) -> None:
    found = episodes(frame, labels, decision)
    if found.empty:
        return
    table, unknown = money_by_action(found), int(found["cost"].isna().sum())
    low, high = (float((found["cost"].fillna(found[c]).fillna(0)).sum()) for c in ("low", "high"))
    per_day = money_per_subject_day(ledger_of(found, labels))
    amount = f"{per_day:,.2f} {decision.currency} per subject-day"
    words = (
        f"By the declared costs, in {decision.currency}: one cost an episode of at most "
        f"{span_in_words(decision.outcome.horizon_s)}. Known: **{amount}**, "
        f"{found['cost'].sum():,.0f} in all. The cost of {unknown:,} of {len(found):,} episodes is not known "
        "(state pending or censored, or nothing ordered): "
        f"with them the sum lies between {low:,.0f} and {high:,.0f}."
    )
    page.section("Money", words, table=table)
