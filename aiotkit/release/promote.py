"""Promotion: every question a candidate must answer before anyone is asked to approve it.

Money is that of held-out rows: each row's probabilities come from heads that have not seen its subject or
block of time. Where data are too few for an answer, a gate does not pass and says so; a slice (a
subject, a third of the time) that is too small to be judged is left out, and counted. What has no declared
limit is measured and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aiotkit.bundle.manifest import DecisionRef
from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.core.features import own_word
from aiotkit.lab.alarms import stretches
from aiotkit.lab.examples import BELIEVED
from aiotkit.lab.judge import compare, money_of
from aiotkit.release.bench import ONE
from aiotkit.release.choose import FLIPS_SHARE, Measured
from aiotkit.release.evidence import Evidence, GateResult, Row, cell, rows
from aiotkit.release.export import Exported
from aiotkit.release.held_out import (
    CANDIDATE,
    CHAMPION,
    RULE,
    Books,
    HeldOut,
    event_table,
    open_books,
    reliability,
    sensitivity,
    slice_table,
)
from aiotkit.release.parity import TOLERANCE
from aiotkit.release.quantize import FLOAT32

if TYPE_CHECKING:
    from aiotkit.lab.leaks import LeakAudit

#: a slice may not be surely worse than the rule by more than this share of the rule's money
SLICE_SLACK = 0.1
#: fewest subjects in a slice that may refuse a candidate, where subjects are resampled: one is an anecdote
FEWEST_SUBJECTS = 3
#: fewest labelled rows, and of each state that occurs
FEWEST_LABELS, FEWEST_OF_A_STATE = 30, 5
#: fewest events: rows that lead up to one of them say the same thing
FEWEST_EVENTS = 5
#: expected calibration error beyond which probabilities are not worth the name
WILD = 0.25


@dataclass(frozen=True)
class Candidate:
    """What is to be judged.

    Attributes:
        exported: the chosen variant.
        measured: all variants, as ``choose.measure`` gives them; the chosen one among them.
        leaks: the leak audit of the training set; None when none was made.
        dataset: digest of the examples; ``labels``: rows by status.
        bundle: digest of the unsigned bundle; ``champion`` of the one in force.
        families: what training tried, one row each.
    """

    exported: Exported
    measured: Sequence[Measured]
    leaks: LeakAudit | None
    dataset: str
    bundle: str
    labels: Mapping[str, int] = field(default_factory=dict)
    champion: str | None = None
    families: Sequence[Mapping[str, Any]] = ()

    @property
    def chosen(self) -> Measured:
        """The variant that the bundle holds."""
        return next(m for m in self.measured if m.variant.name == self.exported.variant)


def judge(candidate: Candidate, held_out: HeldOut, decision: Decision, *, seed: int) -> Evidence:
    """Ask every gate.

    Args:
        candidate: with what was measured of it.
        held_out: rows to judge money on.
        decision: its costs, limits and needs.
        seed: of the resampling.

    Raises:
        DataError: no actions of the written rule, or rows, actions and probabilities differ in length.
    """
    if RULE not in held_out.policies:
        raise DataError("held-out policies", expected="the written rule's actions under 'rule'")
    if len(held_out.p) != len(held_out.rows):
        raise DataError("held-out p", expected=f"{len(held_out.rows)} rows", found=str(len(held_out.p)))
    money = open_books(held_out, decision, seed, candidate.exported.margin)
    gates = [
        *money_gates(money, held_out, decision, seed),
        _enough_labels(held_out, candidate.exported, decision),
        _leaks(candidate.leaks),
        _calibration(held_out, decision),
        _slices(money, held_out, decision, seed),
        _alarms(money, held_out, decision),
        _parity(candidate.exported),
        _flips(candidate.chosen, decision),
        _latency(candidate.chosen, decision),
        _memory(candidate.chosen, decision),
    ]
    exported = candidate.exported
    return Evidence(
        decision=DecisionRef(id=decision.id, revision=decision.revision, digest=decision.digest),
        dataset=candidate.dataset,
        labels=dict(candidate.labels),
        family=exported.family,
        seed=exported.seed,
        variant=exported.variant,
        margin=max(exported.margin, decision.policy.margin),
        bundle=candidate.bundle,
        champion=candidate.champion,
        gates=tuple(gates),
        tables=_tables(candidate, held_out, decision, money, seed),
        quantization=tuple(m.row() for m in candidate.measured),
        bench=dict(candidate.chosen.bench),
        figures={name: cell(value) for name, value in exported.figures.items()},
    )


def money_gates(
    money: Books | str, held_out: HeldOut, decision: Decision, seed: int
) -> tuple[GateResult, ...]:
    """Surely cheaper than the rule and than always the same, not surely dearer than the champion.

    A refresh of the champion with newer rows is better as a rule, by less than a few weeks can prove: what
    speaks against it must show on rows that neither has learned from.
    """
    always = _beats_rule(money, decision), _beats_constant(money, held_out, decision, seed)
    if CHAMPION not in held_out.policies:
        return always
    return *always, _no_worse(money, held_out, decision, seed)


def _beats_rule(money: Books | str, decision: Decision) -> GateResult:
    """Surely cheaper than the written rule."""
    name = f"beats_{RULE}"
    if isinstance(money, str):
        return GateResult(name=name, passed=False, words=money)
    return _surely_cheaper(name, money.table, RULE, f"the {RULE}", decision)


def _beats_constant(money: Books | str, held_out: HeldOut, decision: Decision, seed: int) -> GateResult:
    """Surely cheaper than the best of the policies that need no data: one action always."""
    name = "beats_constant"
    if isinstance(money, str):
        return GateResult(name=name, passed=False, words=money)
    spent = money.table.set_index("policy")["money_per_subject_day"].to_dict()
    constant = min((f"always {a}" for a in decision.actions), key=lambda n: spent[n])
    pair = {n: money.policies[n] for n in (CANDIDATE, constant)}
    table = compare(held_out.rows, pair, decision, baseline=constant, seed=seed)
    return _surely_cheaper(name, table, constant, f"'{constant}', the best of what needs no data", decision)


def _surely_cheaper(
    name: str, table: pd.DataFrame, baseline: str, called: str, decision: Decision
) -> GateResult:
    """The interval of the difference to a baseline lies below zero."""
    figures, said = _difference(table, baseline, decision)
    gap, low, high = figures["difference"], figures["low"], figures["high"]
    sure = f"({decision.limits.confidence:.0%}; {table.attrs['words']})"
    if not gap < 0:
        words = f"not cheaper than {called}: {said}"
    elif not np.isfinite([low, high]).all():
        words = f"too little data: {said}, but {table.attrs['words']}"
    elif high >= 0:
        words = f"too little data: {said}, but the difference to {called} may be anything from {low:.4g}"
        words += f" to {high:.4g} {sure}"
    else:
        words = f"cheaper than {called}: {said}, difference {gap:.4g} [{low:.4g}, {high:.4g}] {sure}"
        return _result(name, figures, words, passed=True)
    return _result(name, figures, words, passed=False)


def _no_worse(money: Books | str, held_out: HeldOut, decision: Decision, seed: int) -> GateResult:
    """Not surely dearer than the champion on rows that the champion has not learned from."""
    name = f"no_worse_than_{CHAMPION}"
    if isinstance(money, str):
        return GateResult(name=name, passed=False, words=money)
    new = held_out.new
    if new.sum() < FEWEST_LABELS:
        words = f"too little data: {new.sum()} rows that the {CHAMPION} has not learned from"
        return _result(name, {"rows": int(new.sum())}, words, passed=False)
    rows = held_out.rows.loc[new].reset_index(drop=True)
    if not stretches(rows, decision):
        words = f"too little data: no event on the {len(rows)} rows that the {CHAMPION} has not learned from"
        return _result(name, {"rows": len(rows), "events": 0}, words, passed=False)
    pair = {n: money.policies[n] for n in (CANDIDATE, CHAMPION)}
    table = compare(held_out.rows, pair, decision, baseline=CHAMPION, seed=seed, within=new)
    figures, said = _difference(table, CHAMPION, decision)
    said += f" on {len(rows)} rows that neither has learned from"
    low, high = figures["low"], figures["high"]
    if not np.isfinite([low, high]).all():
        return _result(name, figures, f"too little data: {said}, but {table.attrs['words']}", passed=False)
    if low > 0:
        words = f"worse than the {CHAMPION}, by {low:.4g} at least: {said}"
        return _result(name, figures, words, passed=False)
    words = f"not surely worse than the {CHAMPION}: {said} [{low:.4g}, {high:.4g}]"
    return _result(name, figures, words, passed=True)


def _difference(table: pd.DataFrame, baseline: str, decision: Decision) -> tuple[dict[str, Any], str]:
    """The candidate against a baseline: figures, and both sums in words."""
    by_name = table.set_index("policy")
    mine, other = by_name["money_per_subject_day"].loc[[CANDIDATE, baseline]].tolist()
    gap, low, high = (by_name[c].to_dict()[CANDIDATE] for c in ("difference", "low", "high"))
    figures = {CANDIDATE: mine, baseline: other, "difference": gap, "low": low, "high": high}
    figures |= {n: table.attrs[n] for n in ("clusters", "resample", "words")}
    figures["confidence"] = decision.limits.confidence
    return figures, f"{mine:.4g} against {other:.4g} {decision.currency} per subject-day"


def _result(name: str, figures: Mapping[str, Any], words: str, *, passed: bool) -> GateResult:
    return GateResult(name=name, passed=passed, words=words, figures={k: cell(v) for k, v in figures.items()})


def _enough_labels(held_out: HeldOut, exported: Exported, decision: Decision) -> GateResult:
    rows = held_out.rows
    if "status" in rows.columns:  # what was acted upon is judged on, not learned from
        rows = rows[rows["status"].isin(BELIEVED)]
    counts = rows["state"].value_counts()
    seen = {state: int(counts.get(state, 0)) for state in decision.states}
    never = [state for state, n in seen.items() if n == 0]
    rare = [f"{state} {n}" for state, n in seen.items() if 0 < n < FEWEST_OF_A_STATE]
    total = sum(seen.values())
    faults = []
    if total < FEWEST_LABELS:
        faults.append(f"{total} labelled rows, {FEWEST_LABELS} needed")
    if len(seen) - len(never) < 2:
        faults.append("only one state occurs, nothing can be told apart")
    events = stretches(rows, decision)
    if events < FEWEST_EVENTS:
        faults.append(f"{events} events, {FEWEST_EVENTS} needed")
    if rare:
        faults.append(f"fewer than {FEWEST_OF_A_STATE} rows of: {', '.join(rare)}")
    if never and not exported.interface.novelty:
        faults.append(f"never seen: {', '.join(never)}, and the head cannot say that a window is novel")
    words = f"{total} labelled rows, {events} events: " + ", ".join(
        f"{n} {state}" for state, n in seen.items()
    )
    if never and not faults:
        words += f"; never seen, so these must come out as novel: {', '.join(never)}"
    words = "too little data: " + "; ".join(faults) if faults else words
    return _result("enough_labels", {"labelled": total, "events": events, **seen}, words, passed=not faults)


def _leaks(audit: LeakAudit | None) -> GateResult:
    if audit is None:
        return _result("leaks", {}, "too little data: no leak audit was made", passed=False)
    named = {
        kind: [f for f in audit.flagged if f.severity == kind] for kind in ("leak", "unchecked", "suspect")
    }
    figures = {kind: len(found) for kind, found in named.items()}
    if named["leak"]:
        words = "; ".join(str(finding) for finding in named["leak"])
    elif named["unchecked"]:
        words = "too little data: " + "; ".join(finding.words for finding in named["unchecked"])
    elif named["suspect"]:
        words = "no leak; to be read: " + "; ".join(str(finding) for finding in named["suspect"])
    else:
        words = "nothing but the machine's condition gives the state away"
    return _result("leaks", figures, words, passed=bool(audit.passed))


def _calibration(held_out: HeldOut, decision: Decision) -> GateResult:
    n = len(held_out.rows)
    if n < FEWEST_LABELS:
        return _result(
            "calibration", {"rows": n}, f"too little data: {n} held-out rows with a state", passed=False
        )
    error, _ = reliability(held_out.p, held_out.rows["state"].tolist(), decision)
    words = (
        f"probabilities are off by {error:.3f} on average (expected calibration error); {WILD} is too much"
    )
    return _result("calibration", {"ece": error, "rows": n}, words, passed=error <= WILD)


def _slices(money: Books | str, held_out: HeldOut, decision: Decision, seed: int) -> GateResult:
    if isinstance(money, str):
        return GateResult(name="slices", passed=False, words=money)
    table = slice_table(money, held_out, decision, seed)
    slack = SLICE_SLACK * abs(float(money.line(RULE)["money_per_subject_day"]))
    fewest = FEWEST_SUBJECTS if decision.resample == "subject" else 1
    fine = [row for row in table if np.isfinite(row["low"]) and row["subjects"] >= fewest]
    worse, judged = [row for row in fine if row["low"] > slack], len(fine)
    figures = {"slices": len(table), "judged": judged, "worse": len(worse)}
    enough = f" of {fewest} subjects or more" if fewest > 1 else ""
    words = f"{judged} of {len(table)} slices{enough} could be judged; none is surely worse than the rule"
    if worse:
        words = "surely worse than the rule in: " + ", ".join(
            f"{row['slice']} (by {row['difference']:.4g} per subject-day)" for row in worse
        )
    return _result("slices", figures, words, passed=not worse)


def _alarms(money: Books | str, held_out: HeldOut, decision: Decision) -> GateResult:
    budget = decision.policy.alarms_per_day if decision.policy.kind == "false_alarm_budget" else None
    limits = [x for x in (decision.limits.alarms_per_day, budget) if x is not None]
    if isinstance(money, str):
        words = money if limits else f"no limit declared; {money}"
        return _result("alarms_per_day", {}, words, passed=not limits)
    found = event_table(money, held_out, decision)
    figures = {str(row["policy"]): float(row["alarms_per_day"]) for row in found}
    said = f"{figures[CANDIDATE]:.3g} a subject-day (the rule: {figures[RULE]:.3g})"
    if not limits:
        return _result("alarms_per_day", figures, f"no limit declared; {said}", passed=True)
    return _result(
        "alarms_per_day",
        figures | {"limit": min(limits)},
        f"{said}; at most {min(limits):g}",
        passed=figures[CANDIDATE] <= min(limits),
    )


def _parity(exported: Exported) -> GateResult:
    found = exported.parity
    figures = {"label_flips": found["label_flips"], "max_abs": found["max_abs"], "rows": found["n"]}
    if not found["n"]:
        return _result("parity", figures, "too little data: the graph was compared on no row", passed=False)
    fine = found["label_flips"] == 0 and found["max_abs"] <= TOLERANCE
    words = (
        f"{found['label_flips']} labels of {found['n']} differ between graph and library; "
        f"probabilities by at most {found['max_abs']:.2g}"
    )
    return _result("parity", figures, words, passed=fine)


def _flips(chosen: Measured, decision: Decision) -> GateResult:
    allowed = FLIPS_SHARE if decision.limits.flips_share is None else decision.limits.flips_share
    figures = {"flips_share": chosen.flips_share, "money_lost": chosen.money_lost, "limit": allowed}
    if chosen.flips_share is None:
        return _result("flips", figures, "too little data: no decision was compared", passed=False)
    said = f"{chosen.variant.name} differs from float32 in {chosen.flips_share:.2%} of decisions"
    words = f"{said}; {allowed:.2%} allowed"
    if chosen.variant.name == FLOAT32:
        words = "the head is kept in float32: nothing was rounded"
    return _result("flips", figures, words, passed=chosen.usable and chosen.flips_share <= allowed)


def _latency(chosen: Measured, decision: Decision) -> GateResult:
    limits = {"deadline": decision.needs.deadline_ms, "limit": decision.limits.latency_p99_ms}
    known = {name: value for name, value in limits.items() if value is not None}
    if not chosen.bench:
        return _result("latency", known, "too little data: nothing was measured", passed=False)
    p99 = float(chosen.bench["threads"][ONE]["whole"]["p99_us"]) / 1e3
    tightest = min(known, key=lambda name: known[name])
    words = f"the graph takes {p99:.3g} ms (p99, one thread, here); {tightest}: {known[tightest]:g} ms"
    return _result("latency", {"p99_ms": p99, **known}, words, passed=p99 <= known[tightest])


def _memory(chosen: Measured, decision: Decision) -> GateResult:
    limit = decision.limits.memory_mb
    if not chosen.bench:
        words = "nothing was measured"
        return _result("memory", {"limit": limit}, f"too little data: {words}", passed=False)
    peak = float(chosen.bench["threads"][ONE]["peak_mb"])
    said = f"peak {peak:.0f} MB of a process with nothing but the graph"
    words = f"no limit declared; {said}" if limit is None else f"{said}; at most {limit:g} MB"
    return _result("memory", {"peak_mb": peak, "limit": limit}, words, passed=limit is None or peak <= limit)


def _guard(money: Books, held_out: HeldOut, decision: Decision, margin: float) -> list[dict[str, Any]]:
    """What the guard against novelty does: rows unlike training, and money with it and without."""
    unguarded = replace(held_out, novelty=None, instead=None).actions(decision, margin)
    ledger = money_of(held_out.rows, unguarded, decision)
    unlike = int((np.asarray(held_out.novelty).reshape(-1) > 1).sum())
    return [
        {
            "rows unlike training": unlike,
            "share": unlike / max(1, len(held_out.rows)),
            "money with it": money.line(CANDIDATE)["money_per_subject_day"],
            "money without it": float(ledger["money"].sum()) / len(ledger),
        }
    ]


def _tables(
    candidate: Candidate, held_out: HeldOut, decision: Decision, money: Books | str, seed: int
) -> dict[str, tuple[Row, ...]]:
    tables: dict[str, Callable[[], tuple[Row, ...]]] = {
        "families": lambda: rows(candidate.families),
        "reliability": lambda: rows(
            reliability(held_out.p, held_out.rows["state"].tolist(), decision)[1] if len(held_out.p) else []
        ),
        "leaks": lambda: rows(candidate.leaks.table) if candidate.leaks is not None else (),
    }
    if not isinstance(money, str):
        tables |= {
            "money": lambda: rows(money.table),
            "events": lambda: rows(event_table(money, held_out, decision)),
            "slices": lambda: rows(slice_table(money, held_out, decision, seed)),
            "sensitivity": lambda: rows(sensitivity(held_out, decision, seed, candidate.exported.margin)),
        }
    if held_out.novelty is not None and not isinstance(money, str):
        tables["novelty"] = lambda: rows(_guard(money, held_out, decision, candidate.exported.margin))
    if held_out.threshold:
        tables["threshold"] = lambda: rows([{"on all rows": held_out.threshold}])
    own = [name for name in candidate.exported.interface.features if own_word(name)]
    if own:
        file = {"digest": candidate.exported.own_words}
        tables["own_words"] = lambda: rows({"feature": name} | file for name in own)
    return {name: made() for name, made in tables.items()}
