"""``aiotkit demo --source hydraulic``: a recorded rig through real device processes.

Four decisions (cooler, valve, pump, accumulator) are each taken by a device of their own, which replays the
record in time order. The recorded condition takes the twin's place: it cannot react, so devices suggest, and
money is what the suggested action would have cost in the recorded condition.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.core.errors import AiotkitError
from aiotkit.fleet.balance import Balance, balance
from aiotkit.fleet.collector import Collector
from aiotkit.lab import plots
from aiotkit.lab.evaluate import paired_bootstrap, policy_table
from aiotkit.lab.outcomes import import_outcomes
from aiotkit.lab.report import Report
from aiotkit.lake.assets import Assets, Assignment
from aiotkit.lake.lake import Lake
from aiotkit.loop.aftermath import labelled, replay
from aiotkit.loop.demo import Progress, install, release
from aiotkit.loop.rig import CYCLE_S, PARTS, START_US, Rig, read_rig, rig_decision
from aiotkit.loop.rig_devices import device, packets_file, run_devices, write_packets
from aiotkit.loop.rig_learning import CYCLES_PER_DAY, noted_states
from aiotkit.loop.rig_page import add_learning, rounds_summary
from aiotkit.loop.rig_rounds import Rounds, run_rounds
from aiotkit.loop.rounds_page import NAMES
from aiotkit.loop.setting import Keys, Place, commission, prepare

BLOCKS = 10
#: what people are told a policy is: the fleet's names, but a rig is not throttled
POLICIES = NAMES | {"always": "always act"}
QUICK_CYCLES = 600
Choice = tuple[str, pd.Series]


def run_rig_demo(data: Path, workdir: Path, progress: Progress, *, quick: bool = False) -> dict[str, Any]:
    """Replay the rig and price the rules; then again in rounds, with devices that run what was learned.

    Args:
        data: the data set's folder.
        workdir: where everything is written; ends with ``report.html`` and ``summary.json``.
        progress: told what is going on.
        quick: the first 600 cycles only.

    Raises:
        DataError: the folder does not hold the record.
    """
    began = monotonic()
    decisions = {part: rig_decision(part) for part in PARTS}
    progress("reading the record", 0.0)
    rig = read_rig(data, {signal for d in decisions.values() for signal in d.signals})
    rig = rig.first(QUICK_CYCLES) if quick else rig
    place, keys = prepare(workdir)
    first = {part: (decision, release(place, keys, decision)) for part, decision in decisions.items()}
    summary, found = _by_the_rule(place, keys, rig, first, progress)
    learned = Place(place.root / "learning")
    rounds = run_rounds(learned, keys, rig, first, lambda stage, x: progress(stage, 0.3 + 0.6 * x))
    progress("replay in a fresh process", 0.9)
    _enter_learning(summary, rounds, decisions, replay(learned, rounds.bundles))
    summary["elapsed_s"] = round(monotonic() - began, 1)
    page = _report(summary, found, decisions)
    add_learning(page, summary, rounds)
    page.write(place.root / "report.html")
    (place.root / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    progress("done", 1.0)
    return summary


def _by_the_rule(
    place: Place, keys: Keys, rig: Rig, first: Mapping[str, tuple[Decision, Path]], progress: Progress
) -> tuple[dict[str, Any], dict[str, dict[str, pd.DataFrame]]]:
    """The whole record by the written rules; the summary so far, and ledgers by part and policy."""
    lake = Lake.create(place.lake)
    for i, (part, (decision, bundle)) in enumerate(first.items()):
        progress(f"{part}: device, packets", 0.02 + 0.03 * i)
        write_packets(place, part, rig, decision, range(rig.cycles))
        source = f"file:{packets_file(place, part)}"
        install([commission(place, keys.trust(), decision, device(part), source=source)], bundle)
        watched = Assignment(device=device(part), subject=part, from_us=START_US)
        Assets(lake).assign(watched, recorded_us=START_US)
    progress("four devices decide", 0.12)
    run_devices(place)
    progress("collecting", 0.2)
    Collector(lake, place.uplink, keys.collector).collect_once()
    _deliver_rest(place)
    progress("outcomes and labels", 0.22)
    end_us = START_US + rig.cycles * CYCLE_S * 1_000_000 + 86_400_000_000
    found = {part: _judge(lake, rig, decision, part, end_us) for part, (decision, _) in first.items()}
    progress("replay in a fresh process", 0.25)
    replayed = replay(place, [bundle for _, bundle in first.values()])
    records = sum((balance(lake, device(part)) for part in first), Balance())
    return _summary(rig, found, replayed, records), found


def _deliver_rest(place: Place) -> None:
    """Nothing may be left in the uplink folder."""
    left = sorted(p.name for p in place.uplink.glob("*/*.ajb"))
    if left:
        raise AiotkitError("uplink folder", expected="every batch collected", found=", ".join(left[:5]))


def _judge(lake: Lake, rig: Rig, decision: Decision, part: str, end_us: int) -> dict[str, pd.DataFrame]:
    """Import the noted states, join them, and price every policy; returns ledgers by policy."""
    import_outcomes(lake, noted_states(rig, part, range(rig.cycles)), decision, imported_us=end_us)
    _, decisions = labelled(lake, decision, end_us)
    return price(decisions.sort_values("at_us", ignore_index=True), decision)


def price(decisions: pd.DataFrame, decision: Decision) -> dict[str, pd.DataFrame]:
    """Ledgers of rule, thresholds, constant actions and oracle, in money per day of each time block.

    Args:
        decisions: in time order, with ``proposed``, ``state`` (the label) and ``feature.…`` columns.
        decision: its costs.
    """
    costs = pd.DataFrame(decision.costs).T
    state = decisions["state"]
    half = len(decisions) // 2
    choices = _thresholds(decisions, decision)
    total = [(name, _cost(costs, action, state)) for name, action in choices]
    tuned = min(total, key=lambda x: float(x[1].iloc[:half].sum()))
    hindsight = min(total, key=lambda x: float(x[1].sum()))
    idle = next(a for a in decision.actions if decision.actions[a].actuator is None)
    acting = next(a for a in decision.actions if decision.actions[a].intervenes)
    proposed = decisions["proposed"].where(decisions["proposed"].isin(costs.index), decision.recovery)
    money = {
        "rule": _cost(costs, proposed, state),
        "tuned_threshold": tuned[1],
        "hindsight_threshold": hindsight[1],
        "always": _cost(costs, pd.Series(acting, index=state.index), state),
        "never": _cost(costs, pd.Series(idle, index=state.index), state),
        "oracle": state.map(costs.min()),
    }
    ledgers = {name: _per_day(values) for name, values in money.items()}
    for name, (words, _) in (("tuned_threshold", tuned), ("hindsight_threshold", hindsight)):
        ledgers[name].attrs["policy"] = words
    return ledgers


def _cost(costs: pd.DataFrame, action: pd.Series, state: pd.Series) -> pd.Series:
    rows = costs.index.get_indexer(pd.Index(action))
    columns = costs.columns.get_indexer(pd.Index(state))
    return pd.Series(costs.to_numpy(dtype=float)[rows, columns], index=state.index)


def _thresholds(decisions: pd.DataFrame, decision: Decision) -> list[Choice]:
    """Every single threshold on a feature of the rule: quantiles, both directions, both kinds of action."""
    idle, *acting = decision.actions
    out: list[Choice] = []
    for column in (c for c in decisions.columns if c.startswith("feature.")):
        values = decisions[column].astype(float)
        for limit in np.unique(values.quantile(np.linspace(0.02, 0.98, 49))):
            for action in acting:
                for sign, hit in ((">", values > limit), ("<", values < limit)):
                    name = f"{action} when {column.removeprefix('feature.')} {sign} {limit:.4g}"
                    out.append((name, pd.Series(np.where(hit, action, idle), index=values.index)))
    return out


def _per_day(money: pd.Series) -> pd.DataFrame:
    """One row a contiguous block: money per day within it."""
    blocks = np.array_split(money.to_numpy(dtype=float), BLOCKS)
    rates = [float(b.mean()) * CYCLES_PER_DAY for b in blocks]
    return pd.DataFrame({"subject": "rig", "day": np.arange(BLOCKS), "money": rates})


def _summary(
    rig: Rig, found: Mapping[str, dict[str, pd.DataFrame]], replayed: dict[str, Any], records: Balance
) -> dict[str, Any]:
    parts = {}
    for part, ledgers in found.items():
        rows = {}
        for name, ledger in ledgers.items():
            own = paired_bootstrap(ledger, ledger.assign(money=0.0), "block", seed=0, block_days=1)
            rows[name] = {"money": own.estimate, "low": own.low, "high": own.high}
            if "policy" in ledger.attrs:
                rows[name]["policy"] = ledger.attrs["policy"]
        parts[part] = {"policy_money": rows}
    return {
        "format": 1,
        "source": "hydraulic",
        "cycles": rig.cycles,
        "parts": parts,
        "outage": {
            "decided": len(PARTS) * rig.cycles,
            "delivered": replayed["checked"],
            "gaps": records.gaps,
            "lost": len(PARTS) * rig.cycles - replayed["checked"],
            "duplicates": records.duplicates,
        },
        "replayed": {n: replayed[n] for n in ("checked", "identical")},
    }


def _enter_learning(
    summary: dict[str, Any], rounds: Rounds, decisions: Mapping[str, Decision], replayed: dict[str, Any]
) -> None:
    """What the rounds left, beside what the rule-only replay left."""
    for part, told in rounds_summary(rounds, decisions).items():
        summary["parts"][part] |= told
    summary["learning"] = {
        "rounds": len(rounds.cuts) - 1,
        "bundles": len(rounds.bundles),
        "decided": len(PARTS) * rounds.cuts[-1],
        **{name: replayed[name] for name in ("checked", "identical")},
    }
    summary["states"] = {part: list(decision.states) for part, decision in decisions.items()}
    summary["currency"] = next(iter(decisions.values())).currency


def _report(
    summary: dict[str, Any], found: Mapping[str, dict[str, pd.DataFrame]], decisions: Mapping[str, Decision]
) -> Report:
    page = Report(
        "Four service decisions on a recorded hydraulic rig",
        f"{summary['cycles']:,} cycles of a minute, replayed in time order through four device processes.",
        footer="Data: UCI 'Condition monitoring of hydraulic systems' (Helwig, Pignanelli, Schuetze 2015, "
        "doi 10.1109/I2MTC.2015.7151267). Made by `aiotkit demo --source hydraulic`.",
    )
    books, again = summary["outage"], summary["replayed"]
    page.section(
        "What was done",
        f"{books['decided']:,} decisions were taken, {books['delivered']:,} delivered, {books['lost']} lost, "
        f"{books['duplicates']} doubled; {again['identical']:,} of {again['checked']:,} replay bit for bit. "
        "The rig was recorded and cannot react, so devices **suggest**: money is what the suggested action "
        "costs in the condition that was noted. The written rules' limits were chosen with the whole "
        "record in view; they are a baseline to compare with, not a forecast.",
    )
    for part, ledgers in found.items():
        decision = decisions[part]
        named = {POLICIES[name]: ledger for name, ledger in ledgers.items()}
        table = policy_table(named, POLICIES["rule"], resample="block", seed=0, block_days=1)
        tuned = ledgers["tuned_threshold"].attrs["policy"]
        later = ledgers["hindsight_threshold"].attrs["policy"]
        text = (
            f"{decision.question} The tuned threshold, the best single one on the first half, is `{tuned}`; "
            f"the hindsight threshold is `{later}`. The oracle knows the recorded state. Money per day of "
            f"running, intervals from {BLOCKS} contiguous blocks."
        )
        page.section(f"The {part}", text, figure=plots.money_intervals(table, decision.currency))
    return page


def rig_words(summary: dict[str, Any], workdir: Path) -> str:
    """The table the demo ends with."""
    names = list(next(iter(summary["parts"].values()))["policy_money"])
    lines = ["", f"{'EUR per day':<14}" + "".join(f"{POLICIES[n]:>21}" for n in names)]
    for part, found in summary["parts"].items():
        row = [f"{found['policy_money'][n]['money']:.0f}" for n in names]
        lines.append(f"{part:<14}" + "".join(f"{x:>21}" for x in row))
    lines += ["", "at a state's first cycles, in strict time order:"]
    for part, found in summary["parts"].items():
        for one in found["first_seen"]:
            lines.append(f"{part:<14}{one['state']:<18}cycle {one['cycle']:<6,}{_first_words(one)}")
    o, r, late = summary["outage"], summary["replayed"], summary["learning"]
    lines += [
        "",
        f"decisions  {o['decided']:,} decided, {o['delivered']:,} delivered, {o['lost']} lost, "
        f"{o['duplicates']} duplicates",
        f"replayed   {r['identical']:,} of {r['checked']:,} bit for bit",
        f"learning   {late['rounds']} rounds, {late['decided']:,} decisions more, {late['identical']:,} of "
        f"{late['checked']:,} replay bit for bit",
        f"report     {workdir / 'report.html'}   ({summary['elapsed_s']:.0f} s)",
    ]
    return "\n".join(lines)


def _first_words(one: Mapping[str, Any]) -> str:
    """What was done at a state's first cycles, in a line."""
    if one["novel_share"] is None:
        return "written rule, before anything was learned"
    wrong = ", ".join(f"{n} taken for {state}" for state, n in one["misjudged"].items())
    return f"{one['by']}: {one['asked_share']:.0%} of {one['first']} asked" + (f", {wrong}" if wrong else "")
