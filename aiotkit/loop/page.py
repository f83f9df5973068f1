"""The demo's report: one page that tells what happened and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.conditions import Term, walk
from aiotkit.core.decision import Decision
from aiotkit.lab import plots
from aiotkit.lab.journal import gate_verdicts
from aiotkit.lab.report import Report
from aiotkit.loop.aftermath import Books
from aiotkit.loop.rounds_page import NAMES, LinkedReport, add_candidates, add_drift, add_mishaps, add_rounds

_MORE = {
    "field": "rule, then what it learned",
    "rule": "in every round",
    "tuned_threshold": "best single one before the change",
    "hindsight_threshold": "best single one of the run",
    "oracle": "true dynamics, same observations",
}
#: policy -> its name and what it is
WORDS = {key: f"{name}: {_MORE[key]}" if key in _MORE else name for key, name in NAMES.items()}


@dataclass(frozen=True)
class Told:
    """What the page is made of.

    ``table`` as ``evaluate.policy_table`` gives it; ``decisions`` with their subjects; ``delivered_us`` when
    each of them had arrived; ``reports`` what people wrote down; ``spent`` EUR by policy and category;
    ``by_round`` as ``plots_rounds.money_by_round`` reads it; ``drift`` as ``lab.drift.drift_table`` gives it.
    """

    decision: Decision
    summary: dict[str, Any]
    table: pd.DataFrame
    decisions: pd.DataFrame
    labels: pd.DataFrame
    reports: pd.DataFrame
    delivered_us: list[int]
    outage_us: tuple[int, int]
    books: Books
    spent: pd.DataFrame
    by_round: pd.DataFrame
    drift: pd.DataFrame | None


def demo_report(told: Told) -> Report:
    """The whole page."""
    summary = told.summary
    fleet, days = summary["fleet"], summary["days"]
    page = LinkedReport(
        told.decision.question,
        f"{fleet} simulated pumps, {days} days in {len(summary['rounds'])} rounds, {len(told.decisions):,} "
        f"decisions by {fleet + 1} device processes; seed {summary['seed']}.",
        footer="Made by `aiotkit demo`. The fleet is simulated and its life accelerated; the devices, their "
        "journals, bundles, signatures, the collector and the lake are the real ones.",
    )
    add_rounds(page, summary, told.by_round, told.decision.currency)
    add_candidates(page, summary)
    add_mishaps(page, summary)
    add_drift(page, summary, told.drift)
    _money(page, told)
    _prices(page, told)
    _outage(page, told)
    _machine(page, told)
    _why(page, told)
    _labels(page, told)
    _assumed(page, told)
    return page


def _money(page: Report, told: Told) -> None:
    table = told.table.copy()
    table["policy"] = table["policy"].map(lambda p: WORDS.get(p, p))
    table.attrs = {**told.table.attrs, "baseline": WORDS["rule"]}
    cost = {name: f"**{row['money']:.0f}**" for name, row in told.summary["policy_money"].items()}
    text = (
        f"Every policy lived the same {told.summary['days']} days with the same weather, load and luck. Per "
        f"machine and day the fleet cost {cost['field']} {told.decision.currency}, with all that went wrong "
        f"in it; the written rule would have cost {cost['rule']}, never acting {cost['never']}, and the "
        f"oracle, which knows how the machines wear but sees only what the devices see, {cost['oracle']}. "
        "What lies between rule and oracle is what learning can win at most; the interval says how sure that "
        f"is. The table gives the whole run's {told.decision.currency} by kind: production lost, service, "
        "breakdowns, inspections that were asked for, and random checks (verification)."
    )
    page.section(
        "What the whole run cost",
        text,
        figure=plots.money_intervals(table, told.decision.currency),
        table=told.spent.rename(index=WORDS).reset_index(names="policy").round(0),
    )


def at_other_prices(spent: pd.DataFrame, machine_days: float) -> pd.DataFrame:
    """Money per machine-day if a breakdown cost half or twice as much; policies do what they did.

    Args:
        spent: money by policy (index) and category (columns, one of them ``breakdown``), over the whole run.
        machine_days: how many the run had.
    """
    total = spent.sum(axis=1)
    prices = {"a breakdown at half the price": 0.5, "as declared": 1.0, "at twice the price": 2.0}
    changed = {words: total + (factor - 1) * spent["breakdown"] for words, factor in prices.items()}
    return pd.DataFrame(changed) / machine_days


def _prices(page: Report, told: Told) -> None:
    table = at_other_prices(told.spent, told.summary["fleet"] * told.summary["days"])
    page.section(
        "If the costs were other ones",
        f"What each policy costs, {told.decision.currency} per machine and day, if breakdowns cost half or "
        "twice what was declared. Every policy does what it did at the declared price; what a candidate "
        "would do differently stands on its own page.",
        table=table.rename(index=WORDS).reset_index(names="policy").round(0),
    )


def _outage(page: Report, told: Told) -> None:
    books = told.books
    text = (
        "In the first round the collector was killed and the uplink folder became unwritable (grey); devices "
        "try again less and less often, so delivery resumes some time after. Meanwhile one agent got SIGKILL "
        "with a packet in its hands and was started again. Later a device was replaced by a spare one, and "
        "the replaced device, set up anew, took over another machine. The books: "
        f"**{books.decided:,} decided = {books.delivered:,} delivered + {books.gaps:,} dropped and told**, "
        f"{books.lost} lost, {books.duplicates} duplicates; of all journal records "
        f"{books.records.produced:,} were made and {books.records.delivered:,} delivered."
    )
    delivered = np.array(told.delivered_us, dtype=np.int64)
    figure = plots.outage_timeline(told.decisions["at_us"], delivered, outages=[told.outage_us])
    page.section("Nothing was lost", text, figure=figure)


def _machine(page: Report, told: Told) -> None:
    subject = _eventful(told)
    mine = told.decisions[told.decisions["subject"] == subject]
    reports = told.reports[(told.reports["subject"] == subject) & (told.reports["kind"] == "report")]
    features = [f for f in told.decision.features() if f.endswith((".kurtosis", ".last"))][:2]
    units = {f"feature.{f}": _unit(told.decision, f) for f in features}
    limits = {f"feature.{f}": rule_limits(told.decision, f) for f in features}
    figure = plots.timeline(mine, list(limits), outcomes=reports, limits=limits, units=units, subject=subject)
    text = (
        f"What device and desk know of **{subject}**: features of each window, the action in force, and what "
        "the crew wrote down. The wear itself is hidden from both."
    )
    page.section("One machine", text, figure=figure)


def rule_limits(decision: Decision, field: str) -> tuple[float, ...]:
    """The limits that the written rule sets for a field, rising."""
    terms = (n for b in decision.rule if b.when is not None for n, _ in walk(b.when) if isinstance(n, Term))
    found = {x for t in terms if t.field == field for x in (t.gt, t.ge, t.lt, t.le) if x is not None}
    return tuple(sorted(found))


def _eventful(told: Told) -> str:
    """The subject with most stops; ties to the first."""
    stops = told.decisions[told.decisions["final"] == "stop"]["subject"].value_counts()
    return str(stops.index[0]) if len(stops) else str(told.decisions["subject"].dropna().iloc[0])


def _unit(decision: Decision, feature: str) -> str:
    signal, _, statistic = feature.partition(".")
    return decision.signals[signal].unit if statistic in ("mean", "last", "std", "rms") else ""


def _why(page: Report, told: Told) -> None:
    acted = told.decisions[told.decisions["final"] == "stop"]
    one = (acted if len(acted) else told.decisions).iloc[0]
    rows = [{"gate": g, "verdict": v, "because": r} for g, v, r in one["gates"]]
    text = (
        f"Decision `{one['device']}/{one['journal_id']}/{one['seq']}` on {one['subject']} at "
        f"{one['at']:%Y-%m-%d %H:%M} UTC proposed **{one['proposed']}**: {one['proposal_reason']}. "
        f"{_became(one)} All {told.summary['replayed']['checked']:,} journaled decisions were taken again "
        "by a fresh process from journal, bundle and blobs: "
        f"**{told.summary['replayed']['identical']:,} bit for bit the same**."
    )
    page.section(
        "Why a decision was taken",
        text,
        figure=plots.gate_counts(gate_verdicts(told.decisions)),
        table=pd.DataFrame(rows),
    )


def _became(one: pd.Series) -> str:
    if one["final"] == one["proposed"]:
        return "It was ordered."
    return f"What became of it: **{one['final'] or 'nothing new'}**, {one['final_reason']}."


def _labels(page: Report, told: Told) -> None:
    counts = told.summary["outcomes"]
    text = (
        "Outcomes came late, some never, and were joined to decisions through the asset registry as it was "
        f"at the time. {counts['mature']:,} decisions have an honest label; {counts['censored']:,} are "
        "**censored**: the device acted, so what would have happened is unknown, and counting them as "
        f"healthy would be a lie; {counts['verified']:,} were checked at random whatever was done; "
        f"{counts['pending']:,} are too young."
    )
    page.section("What we believe about them", text, figure=plots.label_statuses(told.labels))


def _assumed(page: Report, told: Told) -> None:
    decision = told.decision
    costs = (
        pd.DataFrame(decision.costs).T.reset_index(names="action") if decision.costs != "unknown" else None
    )
    arms = told.summary["arms"]
    text = (
        "- The dynamics of the fleet (bearing wear, vibration, heat, weather, crew) and their sources are "
        "written down in `aiotkit/loop/README.md`; they were fixed before any policy was tried.\n"
        "- Life is accelerated: a machine needs service about once a week.\n"
        f"- The tuned threshold is {arms['tuned_threshold']}, the hindsight threshold "
        f"{arms['hindsight_threshold']}; the tuned one has seen all rounds before the change of load, the "
        "other the very run it is judged on.\n"
        "- The fleet's money is that of the real device processes, with all that went wrong; the other "
        "policies lived undisturbed in process, without random checks.\n"
        "- The changed load is a heavier product: pumps nearer to their limit, at higher speed, for good.\n"
        "- Intervals resample machines (paired bootstrap, 95 %); with few machines they are wide.\n"
        f"- The table gives the declared costs of one episode (24 h) in {decision.currency}."
    )
    page.section("What was assumed", text, table=costs)
