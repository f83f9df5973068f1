"""``aiotkit demo`` from beginning to end: field run, desk work, report and summary."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd

from aiotkit.lake.assets import Assets
from aiotkit.lake.lake import Lake
from aiotkit.loop import reckoning
from aiotkit.loop.aftermath import Books, books, label_counts, labelled, ledgers, money, records, replay
from aiotkit.loop.demo import FieldRun, Options, Progress, set_up
from aiotkit.loop.field import Story
from aiotkit.loop.ledger import CATEGORIES
from aiotkit.loop.page import WORDS, Told, demo_report
from aiotkit.loop.promotion import DECISION
from aiotkit.loop.references import HINDSIGHT, RULE, TUNED, References, in_background
from aiotkit.release.registry import log_run

FORMAT = 1
#: what must be said beside every figure of one run
LUCK = (
    "One fleet with one seed: a few breakdowns more or less decide who is ahead, so this is mostly luck. "
    "benchmarks/closed_loop.py has five seeds, with intervals."
)


def run_demo(options: Options, progress: Progress) -> dict[str, Any]:
    """Run the circle; writes ``report.html`` and ``summary.json`` into the work folder.

    Returns:
        The summary.
    """
    began = monotonic()
    with in_background(options.plan) as references:
        run = set_up(options, progress)
        Story(run, lambda stage, share: progress(stage, 0.85 * share)).tell()
        return _desk(run, references, progress, began)


@dataclass(frozen=True)
class _Found:
    """What the desk found in the lake when all was over."""

    labels: pd.DataFrame
    decisions: pd.DataFrame
    records: pd.DataFrame
    books: Books
    devices: list[str]
    replayed: dict[str, int]


def _desk(run: FieldRun, references: Future[References], progress: Progress, began: float) -> dict[str, Any]:
    end_us = run.twin.time_us(run.twin.steps)
    found = _look(run, end_us, progress)
    progress("waiting for the other policies (same fleet, same luck)", 0.94)
    others = references.result()
    progress("money and report", 0.96)
    spent = reckoning.all_money(run, others)
    summary, table = _summary(run, found, others, spent)
    told = Told(
        run.decision, summary, table, found.decisions, found.labels, run.outcomes.frame,
        _arrivals(run, found.decisions, end_us), _outage_us(run), found.books, _spent(run, others),
        reckoning.figure_rows(run, spent),
        reckoning.drift_rows(run, min(run.plan.drift, len(run.plan.rounds) - 1), found.decisions),
    )  # fmt: skip
    demo_report(told).write(run.place.root / "report.html")
    summary["elapsed_s"] = round(monotonic() - began, 1)
    (run.place.root / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    progress("MLflow: figures and report", 0.98)
    _log(run, summary)
    progress("done", 1.0)
    return summary


def _look(run: FieldRun, end_us: int, progress: Progress) -> _Found:
    """Everything that can be known from the lake; the replay runs beside it, in a process of its own."""
    with ThreadPoolExecutor(1) as pool:
        replaying = pool.submit(replay, run.place, run.bundles)
        progress("outcomes: import what people wrote down, resolve labels", 0.86)
        lake = Lake.open(run.place.lake)
        run.outcomes.take(lake, run.twin.reports_until(end_us), end_us, all_of_it=True)
        labels, decisions = labelled(lake, run.decision, end_us)
        devices = sorted({a.device for a in Assets(lake).assignments()})
        taken = records(lake, run.decision.id)
        told = books(lake, taken, run.credited, devices)
        bundles = f"{len(run.bundles)} bundle{'s' if len(run.bundles) > 1 else ''}"
        progress(f"replay of {told.delivered:,} decisions by {bundles}, in a fresh process", 0.89)
        said = replaying.result()
    return _Found(labels, decisions, taken, told, devices, {n: said[n] for n in ("checked", "identical")})


def _summary(
    run: FieldRun, found: _Found, others: References, spent: dict[str, Any]
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The summary, and the table of ``lab.evaluate.policy_table``."""
    by_policy = ledgers({name: spent[name] for name in WORDS})
    policy_money, table = money(by_policy, run.decision, run.options.seed)
    attempts = run.desk.attempts
    summary: dict[str, Any] = {
        "format": FORMAT,
        "seed": run.options.seed,
        "fleet": run.options.fleet,
        "days": run.plan.days,
        "bundle": run.bundle.name,
        "policy_money": policy_money,
        "outage": found.books.to_json(),
        "replayed": found.replayed,
        "outcomes": label_counts(found.labels),
        "arms": {
            TUNED: others.chosen[TUNED],
            HINDSIGHT: others.chosen[HINDSIGHT],
            "rule_in_process": float(spent[RULE].mean()),
        },
        "field": {
            "devices": len(found.devices),
            "packets_missed": run.missed,
            "questions": run.asked,
            "random_checks": run.inspections,
        },
        "rounds": reckoning.rounds(run, spent, found.decisions),
        "gain_over_oracle_gap": reckoning.gap_closed(run, spent),
        "words": LUCK,
        "parity": reckoning.parity(attempts),
        "quantization": reckoning.quantization(attempts),
        "approvals": run.desk.approvals,
        "latency_us": reckoning.latency(attempts, found.records, run.bundles),
        "mishaps": reckoning.mishaps(run),
        "candidates": reckoning.candidates(attempts),
    }
    return summary, table


def _log(run: FieldRun, summary: dict[str, Any]) -> None:
    """Enter the run into the MLflow store of the work folder."""
    figures = {f"money.{name}": row["money"] for name, row in summary["policy_money"].items()}
    figures |= {
        f"round.{row['round']}.{name}": value
        for row in summary["rounds"]
        for name, value in row["money"].items()
    }
    counts = {
        f"{part}.{n}": v for part in ("outage", "replayed", "outcomes") for n, v in summary[part].items()
    }
    root = run.place.root
    log_run(
        root,
        run.decision.id,
        f"demo, seed {run.options.seed}",
        params={n: summary[n] for n in ("seed", "fleet", "days", "bundle")},
        metrics=figures | counts | {"elapsed_s": summary["elapsed_s"]},
        artifacts=[root / "report.html", root / "summary.json", *run.bundles],
    )


def _arrivals(run: FieldRun, decisions: pd.DataFrame, end_us: int) -> list[int]:
    keys = zip(decisions["device"], decisions["journal_id"], decisions["seq"], strict=True)
    return [run.deliveries.arrived_us(d, j, int(s), end_us) for d, j, s in keys]


def _outage_us(run: FieldRun) -> tuple[int, int]:
    first, last = run.schedule.outage
    return run.twin.time_us(first), run.twin.time_us(last)


def _spent(run: FieldRun, others: References) -> pd.DataFrame:
    """EUR by policy (rows) and category (columns), over the whole run."""
    rows = dict(others.spent)
    rows[reckoning.FIELD] = {c: float(v[0]) for c, v in run.twin.ledger.by_category().items()}
    return pd.DataFrame(rows).T[list(CATEGORIES)].loc[list(WORDS)]


def words(summary: dict[str, Any], workdir: Path) -> str:
    """The tables the demo ends with."""
    lines = [f"\n{'policy':<50} {'EUR per machine and day':>24}   {'against the rule':>24}"]
    for name, label in WORDS.items():
        row = summary["policy_money"][name]
        own = f"{row['money']:8.1f} [{row['low']:.0f}, {row['high']:.0f}]"
        gap = row["minus_rule"]
        against = "" if name == RULE else f"{gap['difference']:+8.1f} [{gap['low']:+.0f}, {gap['high']:+.0f}]"
        lines.append(f"{label:<50} {own:>24}   {against:>24}")
    o, r, s = summary["outage"], summary["replayed"], summary["outcomes"]
    bundles = " ".join(f"--bundle {path}" for path in sorted((workdir / "bundles").glob("pump-*.aiot")))
    lines += [
        *_round_lines(summary),
        "",
        f"decisions  {o['decided']:,} decided = {o['delivered']:,} delivered + {o['gaps']:,} gaps; "
        f"{o['lost']} lost, {o['duplicates']} duplicates (through an outage, a kill and a swap)",
        f"replayed   {r['identical']:,} of {r['checked']:,} bit for bit",
        f"outcomes   {s['mature']:,} mature, {s['censored']:,} censored, {s['verified']:,} verified, "
        f"{s['pending']:,} pending",
        *(f"mishap     {m['what']}: {m['became']}" for m in summary["mishaps"]),
        f"report     {workdir / 'report.html'}",
        f"summary    {workdir / 'summary.json'}   ({summary['elapsed_s']:.0f} s)",
        "",
        "look further",
        f"  aiotkit decision explain {workdir / DECISION}",
        f"  aiotkit approvals --trust {workdir / 'trust.json'} --store {workdir}",
        f"  aiotkit journal show {workdir / 'devices' / 'edge-02'} --last 5",
        f"  aiotkit replay --lake {workdir / 'lake'} {bundles}",
        f"  aiotkit report --lake {workdir / 'lake'} --decision {workdir / DECISION} --out page.html",
    ]
    return "\n".join(lines)


def _round_lines(summary: dict[str, Any]) -> list[str]:
    lines = ["", f"{'round':<6} {'the fleet ran':<28} {'fleet':>7} {'rule':>7} {'tuned':>7} {'oracle':>7}"]
    for row in summary["rounds"]:
        spent = [row["money"][n] for n in (reckoning.FIELD, RULE, TUNED, "oracle")]
        figures = " ".join(f"{value:7.1f}" for value in spent)
        refused = f"   refused: {row['refused'][:80]}" if row["refused"] else ""
        lines.append(f"{row['round'] + 1:<6} {row['policy']:<28} {figures}{refused}")
    gap = summary["gain_over_oracle_gap"]
    if not any(row["policy"].startswith("learned") for row in summary["rounds"]):
        lines.append(
            "nothing that was learned passed its gates: the fleet ran by the written rule throughout"
        )
    if gap is not None:
        lines.append(f"of what lies between the tuned threshold and the oracle the fleet won {gap:.0%}")
    return [*lines, LUCK]
