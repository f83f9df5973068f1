"""``aiotkit demo`` from beginning to end: field run, desk work, report and summary."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd

from aiotkit.lake.assets import Assets
from aiotkit.lake.lake import Lake
from aiotkit.loop.aftermath import (
    books,
    import_reports,
    label_counts,
    labelled,
    ledgers,
    money,
    replay,
)
from aiotkit.loop.arms import ARMS, ArmsResult
from aiotkit.loop.demo import DECISION, FieldRun, Options, Progress, arms_in_background, run_field
from aiotkit.loop.ledger import CATEGORIES
from aiotkit.loop.page import WORDS, Told, demo_report
from aiotkit.release.registry import log_run

FORMAT = 1


def run_demo(options: Options, progress: Progress) -> dict[str, Any]:
    """Run the circle; writes ``report.html`` and ``summary.json`` into the work folder.

    Returns:
        The summary.
    """
    began = monotonic()
    with arms_in_background(options) as arms:
        run = run_field(options, lambda stage, share: progress(stage, 0.7 * share))
        return _desk(run, arms, progress, began)


def _desk(run: FieldRun, arms: Future[ArmsResult], progress: Progress, began: float) -> dict[str, Any]:
    lake, decision, twin = Lake.open(run.place.lake), run.decision, run.twin
    end_us = twin.time_us(twin.steps)
    progress("outcomes: import what people wrote down, resolve labels", 0.72)
    reports = import_reports(run.place, lake, decision, twin.reports_until(end_us), end_us)
    labels, decisions = labelled(lake, decision, end_us)
    devices = sorted({a.device for a in Assets(lake).assignments()})
    found = books(lake, decision.id, run.credited, devices)
    progress(f"replay of {found.delivered:,} decisions in a fresh process", 0.78)
    replayed = replay(run.place, [run.bundle])
    progress("waiting for the other policies (same fleet, same luck)", 0.85)
    result = arms.result()
    progress("money and report", 0.96)
    by_policy = ledgers(twin.ledger.money()[0], result)
    policy_money, table = money(by_policy, decision, run.options.seed)
    summary: dict[str, Any] = {
        "format": FORMAT,
        "seed": run.options.seed,
        "fleet": run.options.fleet,
        "days": run.options.days,
        "bundle": run.bundle.name,
        "policy_money": policy_money,
        "outage": found.to_json(),
        "replayed": {n: replayed[n] for n in ("checked", "identical")},
        "outcomes": label_counts(labels),
        "arms": {
            "tuned_threshold": result.details["tuned_threshold"]["policy"],
            "hindsight_threshold": result.details["hindsight_threshold"]["policy"],
            "rule_in_process": float(by_policy["rule_in_process"]["money"].mean()),
        },
        "field": {
            "devices": len(devices),
            "packets_missed": run.missed,
            "questions": run.asked,
            "random_checks": run.inspections,
        },
    }
    told = Told(
        decision, summary, table, decisions, labels, reports, _arrivals(run, decisions, end_us),
        _outage_us(run), found, _spent(run, result),
    )  # fmt: skip
    demo_report(told).write(run.place.root / "report.html")
    summary["elapsed_s"] = round(monotonic() - began, 1)
    (run.place.root / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    progress("MLflow: figures and report", 0.98)
    _log(run, summary)
    progress("done", 1.0)
    return summary


def _log(run: FieldRun, summary: dict[str, Any]) -> None:
    """Enter the run into the MLflow store of the work folder."""
    money = {f"money.{name}": row["money"] for name, row in summary["policy_money"].items()}
    counts = {
        f"{part}.{n}": v for part in ("outage", "replayed", "outcomes") for n, v in summary[part].items()
    }
    root = run.place.root
    log_run(
        root,
        run.decision.id,
        f"written rule, seed {run.options.seed}",
        params={n: summary[n] for n in ("seed", "fleet", "days", "bundle")},
        metrics=money | counts | {"elapsed_s": summary["elapsed_s"]},
        artifacts=[root / "report.html", root / "summary.json", run.bundle],
    )


def _arrivals(run: FieldRun, decisions: pd.DataFrame, end_us: int) -> list[int]:
    keys = zip(decisions["device"], decisions["journal_id"], decisions["seq"], strict=True)
    return [run.deliveries.arrived_us(d, j, int(s), end_us) for d, j, s in keys]


def _outage_us(run: FieldRun) -> tuple[int, int]:
    first, last = run.schedule.outage
    return run.twin.time_us(first), run.twin.time_us(last)


def _spent(run: FieldRun, result: ArmsResult) -> pd.DataFrame:
    """EUR by policy (rows) and category (columns), over the whole run."""
    rows = {arm: result.details[arm]["spent"] for arm in ARMS}
    rows["rule"] = {c: float(v[0]) for c, v in run.twin.ledger.by_category().items()}
    return pd.DataFrame(rows).T[list(CATEGORIES)].loc[list(WORDS)]


def words(summary: dict[str, Any], workdir: Path) -> str:
    """The table the demo ends with."""
    lines = [f"\n{'policy':<48} {'EUR per machine and day':>24}   {'against the rule':>24}"]
    for name, label in WORDS.items():
        row = summary["policy_money"][name]
        own = f"{row['money']:8.1f} [{row['low']:.0f}, {row['high']:.0f}]"
        gap = row["minus_rule"]
        against = (
            "" if name == "rule" else f"{gap['difference']:+8.1f} [{gap['low']:+.0f}, {gap['high']:+.0f}]"
        )
        lines.append(f"{label:<48} {own:>24}   {against:>24}")
    o, r, s = summary["outage"], summary["replayed"], summary["outcomes"]
    lines += [
        "",
        f"decisions  {o['decided']:,} decided = {o['delivered']:,} delivered + {o['gaps']:,} gaps; "
        f"{o['lost']} lost, {o['duplicates']} duplicates (through an outage, a kill and a swap)",
        f"replayed   {r['identical']:,} of {r['checked']:,} bit for bit",
        f"outcomes   {s['mature']:,} mature, {s['censored']:,} censored, {s['verified']:,} verified, "
        f"{s['pending']:,} pending",
        f"report     {workdir / 'report.html'}",
        f"summary    {workdir / 'summary.json'}   ({summary['elapsed_s']:.0f} s)",
        "",
        "look further",
        f"  aiotkit decision explain {workdir / DECISION}",
        f"  aiotkit journal show {workdir / 'devices' / 'edge-02'} --last 5",
        f"  aiotkit replay --lake {workdir / 'lake'} --bundle {workdir / 'bundles' / summary['bundle']}",
        f"  aiotkit report --lake {workdir / 'lake'} --decision {workdir / DECISION} --out page.html",
    ]
    return "\n".join(lines)
