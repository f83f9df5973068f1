"""What the rounds came to, for the summary: money, what was released and refused, drift, parity, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.bundle.unsigned import read_unsigned
from aiotkit.lab.drift import drift_score, drift_table
from aiotkit.lab.evaluate import paired_bootstrap
from aiotkit.loop.aftermath import ledger
from aiotkit.loop.demo import FieldRun
from aiotkit.loop.promotion import Attempt
from aiotkit.loop.references import HINDSIGHT, ORACLE, RULE, TUNED, References
from aiotkit.release.bench import ONE

#: the fleet's own money among the policies
FIELD = "field"
#: policies that are told round by round
BY_ROUND = (FIELD, RULE, TUNED, HINDSIGHT, ORACLE)
_DAY_US = 86_400_000_000


def rounds(run: FieldRun, money: Mapping[str, Any], decisions: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a round: what the fleet ran, what it cost and the others, and why nothing better was released.

    Args:
        run: with what was in force in each round.
        money: policy -> EUR ``[machines, days]``.
        decisions: all of them, with subject and features.
    """
    out = []
    for number, (first, last) in enumerate(run.plan.spans):
        learned = tried_after(run, number)
        out.append(
            {
                "round": number,
                "days": last - first,
                "load": "changed" if number >= run.plan.drift else "usual",
                "bundle": run.in_force[number].name,
                "policy": policy_words(run, run.in_force[number]),
                "money": {name: float(money[name][:, first:last].mean()) for name in BY_ROUND},
                "drift": drift_of(run, number, decisions),
                "due": [] if learned is None else list(learned.due),
                "refused": learned.refused or None if learned is not None else None,
            }
        )
    return out


def tried_after(run: FieldRun, number: int) -> Attempt | None:
    """What was tried at a round's end; nothing at the last one's."""
    return next((a for a in run.desk.attempts if a.round == number and not a.early), None)


def policy_words(run: FieldRun, bundle: Path) -> str:
    """What decides in a bundle."""
    made = {a.signed: a.evidence for a in run.desk.attempts if a.signed is not None}
    evidence = made.get(bundle)
    return "written rule" if evidence is None else f"learned: {evidence.family}, {evidence.variant}"


def _reference(run: FieldRun, number: int) -> bytes:
    """The drift reference of the newest candidate before a round; empty where there was none."""
    return next((a.reference for a in reversed(run.desk.attempts) if a.round < number and a.reference), b"")


def windows_of(run: FieldRun, number: int, decisions: pd.DataFrame) -> pd.DataFrame:
    """The features of a round's decisions and their subject, in order of time."""
    first, last = (run.twin.start_us + day * _DAY_US for day in run.plan.spans[number])
    mine = decisions[(decisions["at_us"] >= first) & (decisions["at_us"] < last)].sort_values("at_us")
    names = [c for c in mine.columns if c.startswith("feature.")]
    return mine[["subject", *names]].rename(columns=lambda c: c.removeprefix("feature."))


def drift_of(run: FieldRun, number: int, decisions: pd.DataFrame) -> float | None:
    """How far a round's windows have moved from what the newest candidate was learned from."""
    reference, mine = _reference(run, number), windows_of(run, number, decisions)
    if not reference or mine.empty:
        return None
    score = drift_score(reference, mine.drop(columns="subject"), groups=mine["subject"])
    return score if np.isfinite(score) else None


def drift_rows(run: FieldRun, number: int, decisions: pd.DataFrame) -> pd.DataFrame | None:
    """``lab.drift.drift_table`` of a round; None where there is nothing to compare with."""
    reference, mine = _reference(run, number), windows_of(run, number, decisions)
    if not reference or mine.empty:
        return None
    return drift_table(reference, mine.drop(columns="subject"), groups=mine["subject"])


def gap_closed(run: FieldRun, money: Mapping[str, Any]) -> float | None:
    """(rule* − field) / (rule* − oracle) after the load changed; rule* is the tuned threshold."""
    if run.plan.regime is None:
        return None
    field, best, oracle = (float(money[n][:, run.plan.regime.day :].mean()) for n in (FIELD, TUNED, ORACLE))
    return (best - field) / (best - oracle) if best > oracle else None


def figure_rows(run: FieldRun, money: Mapping[str, Any]) -> pd.DataFrame:
    """``plots_rounds.money_by_round``'s table; the fleet's own line has an interval."""
    rows = []
    for number, (first, last) in enumerate(run.plan.spans):
        learned = tried_after(run, number)
        verdict = None if learned is None else "approved" if learned.signed else "refused"
        for name in BY_ROUND:
            mine = money[name][:, first:last]
            row = {"round": number + 1, "policy": name, "verdict": verdict}
            low = high = np.nan
            if name == FIELD:
                own = ledger(mine)
                found = paired_bootstrap(own, own.assign(money=0.0), seed=run.options.seed)
                low, high = found.low, found.high
            rows.append({**row, "money_per_subject_day": float(mine.mean()), "low": low, "high": high})
    return pd.DataFrame(rows)


def parity(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Labels that flipped between library and graph, and the largest difference, over all candidates."""
    found = [a.evidence.gate("parity").figures for a in attempts if a.evidence is not None]
    return {
        "label_flips": sum(int(f["label_flips"] or 0) for f in found),
        "max_abs": max((float(f["max_abs"] or 0.0) for f in found), default=None),
    }


def candidates(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """What became of each try to learn something better."""
    return [
        {
            "round": a.round,
            "early": a.early,
            "due": list(a.due),
            "version": None if a.version is None else a.version.number,
            "bundle": None if a.candidate is None else a.candidate.digest,
            "family": None if a.evidence is None else a.evidence.family,
            "released": None if a.signed is None else a.signed.name,
            "refused": a.refused or None,
            "page": a.page or None,
        }
        for a in attempts
    ]


def quantization(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Every variant of every candidate."""
    return [
        {"round": a.round} | dict(row)
        for a in attempts
        if a.evidence is not None
        for row in a.evidence.quantization
    ]


def latency(attempts: Sequence[Attempt], records: pd.DataFrame, bundles: Sequence[Path]) -> dict[str, Any]:
    """How long decisions took on the devices (µs), beside the bare graph in the newest candidate's bench.

    Decisions with a model count where there are any. All devices share this computer: p99 tells of it.
    """
    learned = [read_unsigned(path.read_bytes())[0].digest for path in bundles[1:]]
    mine = records[records["bundle"].isin(learned)]
    taken = (mine if len(mine) else records)["decide_us"].to_numpy(dtype=float)
    bench: list[Any] = [a.evidence.bench for a in attempts if a.evidence is not None and a.evidence.bench]
    bare = bench[-1]["threads"][ONE]["whole"]["p50_us"] if bench else None
    p50, p99 = np.quantile(taken, [0.5, 0.99])
    return {"p50": float(p50), "p99": float(p99), "bare_p50": bare, "decisions": len(taken)}


def mishaps(run: FieldRun) -> list[dict[str, Any]]:
    """What must not come to pass and did not: on the devices, and the retraining that came too early."""
    early = [a for a in run.desk.attempts if a.early]
    days = [(a.at_us - run.twin.start_us) / _DAY_US for a in early]
    return [
        {
            "what": f"learning after {day:.1f} days",
            "round": a.round,
            "device": None,
            "became": "refused" if a.refused else "released",
            "answer": a.refused,
        }
        for a, day in zip(early, days, strict=True)
    ] + [m.to_json() for m in run.mishaps]


def all_money(run: FieldRun, references: References) -> dict[str, Any]:
    """Policy -> EUR ``[machines, days]``, the devices' own first."""
    return {FIELD: run.twin.ledger.money()[0], **references.money}
