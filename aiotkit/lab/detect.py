"""Training without labels: a score of strangeness, its tail probability, and p(state) from what was declared.

With π(s) = P(a usual row scores at least s), from out-of-fold scores of the training rows
(rank / (n + 1), its logarithm linear between quantiles and beyond the last one):

*Declared prevalence* q of the rarer state (``policy.prevalence``). A tail probability is no probability of a
state. The most that the odds may grow by on the strength of π is 1 / (−e·π·ln π) for π < 1/e (Sellke, Bayarri
and Berger 2001, The American Statistician 55(1)), so p = 1 / (1 + (1 − q)/q · (−e·π·ln π)): what is believed
of the state when the evidence is read as strongly as it can be. Where π ≥ 1/e, p = q.

*False-alarm budget* (``policy.kind: false_alarm_budget`` with ``alarms_per_day``). The score s* is the lowest
at which the training rows raise no more alarm episodes a subject-day (alarms within one horizon are one). The
log-odds are those at which the policy changes its mind, plus ln π(s*) − ln π(s): it acts above s*, and asks
or acts harder the stranger the row is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab import judge, splits
from aiotkit.lab.calibrate import no_calibration
from aiotkit.lab.contest import FIGURES, judged, winner
from aiotkit.lab.evaluate import merge_alarms
from aiotkit.lab.examples import BELIEVED, OWN_WORDS, Examples
from aiotkit.lab.heads.alarm import Alarm, learn_tail
from aiotkit.lab.heads.base import Floats, Ints, Rows
from aiotkit.lab.heads.detectors import DETECTORS, Detector, Score
from aiotkit.lab.heads.whole import WholeHead
from aiotkit.lab.prepare import informative
from aiotkit.lab.problem import FEWEST, Problem, check_width, fewer_folds
from aiotkit.lab.trained import Trained, probes

DAY_US = 86_400_000_000
Report = Callable[[str, float], None]


def rare_state(decision: Decision) -> tuple[int, float]:
    """The position of the state a detector points to, and its declared share (0.5 where only a budget is).

    Raises:
        DataError: there are not two states, or neither a prevalence nor a budget is declared.
    """
    states = list(decision.states)
    policy = decision.policy
    budget = policy.kind == "false_alarm_budget" and policy.alarms_per_day is not None
    if len(states) != 2:
        raise DataError(
            f"a detector for decision '{decision.id}'",
            expected="two states: the usual one and another",
            found=f"{len(states)}",
            do="Collect labels and train a head, or declare a decision between two states.",
        )
    given = dict(policy.prevalence)
    if not given and not budget:
        raise DataError(
            f"a detector for decision '{decision.id}': how often is the rarer state met?",
            do="Declare policy.prevalence, e.g. {" + f"{states[1]}: 0.01" + "}, or policy.kind: "
            "false_alarm_budget with alarms_per_day: a score alone is no probability.",
        )
    if not given:
        return 1, 0.5
    shares = [given.get(states[i], 1 - given.get(states[1 - i], 0.0)) for i in (0, 1)]
    rare = int(shares[1] <= shares[0])
    share = shares[rare]
    if not 0 < share < 1:
        raise DataError("policy.prevalence", expected="more than 0 and less than 1", found=str(given))
    return rare, share


def make_alarm(scorer: Score, out_of_fold: Floats, rows: pd.DataFrame, decision: Decision) -> Alarm:
    """From a score to a head, by the decision's prevalence or budget.

    Args:
        scorer: learnt from all rows.
        out_of_fold: ``[n]`` scores of the rows by detectors that had not seen them.
        rows: ``subject`` and ``at_us`` of the same rows.
        decision: two states.
    """
    rare, share = rare_state(decision)
    tail = learn_tail(out_of_fold)
    policy = decision.policy
    if policy.kind == "false_alarm_budget" and policy.alarms_per_day is not None:
        limit = budgeted(out_of_fold, rows, decision, policy.alarms_per_day)
        turn = turning_point(decision, rare)
        offset = float(np.log(turn / (1 - turn)) + tail.log(np.array([limit]))[0])
        return Alarm(scorer, tail, rare, offset, False, {"score_limit": limit})
    return Alarm(scorer, tail, rare, float(np.log(share / (1 - share))), True, {"prevalence": share})


def budgeted(scores: Floats, rows: pd.DataFrame, decision: Decision, per_day: float) -> float:
    """The lowest score above which these rows raise at most ``per_day`` alarm episodes a subject-day."""
    days = pd.DataFrame({"subject": rows["subject"], "day": rows["at_us"] // DAY_US}).drop_duplicates()

    def episodes(limit: float) -> float:
        alarms = rows.loc[scores > limit, ["subject", "at_us"]]
        return len(merge_alarms(alarms, decision.outcome.horizon_s)) / len(days) if len(alarms) else 0.0

    limits = np.unique(scores)
    low, high = 0, len(limits) - 1  # at the largest score nothing is above it
    while low < high:
        middle = (low + high) // 2
        if episodes(float(limits[middle])) <= per_day:  # fewer alarms never make more episodes
            high = middle
        else:
            low = middle + 1
    return float(limits[high])


def turning_point(decision: Decision, rare: int) -> float:
    """p(rarer state) at which the proposed action first changes; 0.5 if costs are unknown.

    Raises:
        DataError: one action is best whatever the state.
    """
    if isinstance(decision.costs, str):
        return 0.5
    grid = np.linspace(0, 1, 2001)
    p = np.stack([1 - grid, grid] if rare == 1 else [grid, 1 - grid], axis=1)
    actions: Sequence[str] = judge.actions_of(p, decision).tolist()
    changed = [i for i, action in enumerate(actions) if action != actions[0]]
    if not changed:
        raise DataError(
            f"decision '{decision.id}': '{actions[0]}' costs least whatever the state",
            do="Look at the costs: a detector could change nothing.",
        )
    return float(np.clip((grid[changed[0]] + grid[changed[0] - 1]) / 2, 1e-6, 1 - 1e-6))


@dataclass
class Detection:
    """A detector's out-of-fold probabilities of all rows, and its head from all usual ones."""

    p: Floats
    alarm: Alarm | None
    refused: str = ""


@dataclass(frozen=True)
class Found:
    """What training without labels found; rows are the known ones, which may be none."""

    trained: Trained
    p: Floats
    rows: pd.DataFrame
    fold: Ints
    margins: Floats
    comparison: pd.DataFrame


def detect(
    examples: Examples,
    decision: Decision,
    names: Sequence[str],
    *,
    folds: int,
    seed: int,
    report: Report,
    baseline: Sequence[str] | None = None,
) -> Found:
    """Let detectors learn from all rows but those believed to be of the rarer state.

    Rows whose state is known judge between them, in money; without such rows the first one named is taken.

    Raises:
        DataError: too few rows, no column that varies, no two states, no declared prevalence or budget.
    """
    check_width(examples)
    rare, _ = rare_state(decision)
    if len(examples) < FEWEST:
        raise DataError(f"{len(examples)} rows", expected=f"at least {FEWEST}", do="Collect more telemetry.")
    bad = examples.rows["status"].isin(BELIEVED) & (examples.rows["state"] == list(decision.states)[rare])
    usual = ~bad.to_numpy(dtype=bool)
    keep, notes = informative(examples.x[usual], examples.columns)
    examples = examples.with_columns([examples.columns[i] for i in keep])
    cuts = splits.folds(examples.rows, decision, folds, seed)
    notes += fewer_folds(len(cuts), folds, examples.rows, decision)
    found: dict[str, Detection] = {}
    for i, name in enumerate(names):
        report(f"{name}: {len(cuts)} folds", i / (len(names) + 1))
        found[name] = _detection(DETECTORS[name], examples, decision, usual, cuts, seed)
    known = _known(examples, decision, cuts)
    rows = [
        {"family": n} | dict.fromkeys(FIGURES, float("nan")) | {"refused": d.refused}
        for n, d in found.items()
    ]
    name, comparison = winner(rows, money=False), pd.DataFrame()
    margins: dict[str, Floats] = {}
    if known is not None:
        where = _places(examples)
        entries = {n: replace(d, p=d.p[where]) for n, d in found.items()}
        rows, comparison, margins = judged(known, entries, np.zeros(len(where)), baseline, seed)
        name = winner(rows, money=not isinstance(decision.costs, str))
    trained = _trained(name, found[name], examples, decision, rows, notes, seed)
    report("done", 1.0)
    if known is None:
        none = examples.rows.iloc[:0]
        return Found(trained, np.zeros((0, 2)), none, np.zeros(0, np.int64), np.zeros(0), comparison)
    p = found[name].p[where]
    return Found(trained, p, known.examples.rows, known.fold_of, margins[name], comparison)


def _detection(
    detector: Detector,
    examples: Examples,
    decision: Decision,
    usual: NDArray[np.bool_],
    cuts: Sequence[splits.Fold],
    seed: int,
) -> Detection:
    def learn(which: Ints) -> Score:
        rows = Rows(examples.x[which], np.zeros(len(which), np.int64), np.ones(len(which)))
        return detector.learn(rows, seed=seed)

    try:
        scores = np.zeros(len(examples))
        for train, test in cuts:
            scores[test] = learn(train[usual[train]]).score(examples.x[test])
        mine = examples.rows.loc[usual].reset_index(drop=True)
        alarm = make_alarm(learn(np.flatnonzero(usual)), scores[usual], mine, decision)
        whole = _whole(alarm)
        head = whole.to_onnx(examples.x.shape[1], {})
        whole.check_parity(head, examples.x[:2000], {}, detector.name)
    except DataError as error:
        return Detection(np.zeros((len(examples), 2)), None, str(error))
    return Detection(no_calibration(2).apply(alarm.of_scores(scores)), alarm)


def _whole(alarm: Alarm) -> WholeHead:
    return WholeHead(alarm, no_calibration(2), np.arange(2), 2, None)


def _places(examples: Examples) -> Ints:
    """Positions of the known rows."""
    place = examples.rows.assign(place=np.arange(len(examples)))
    return replace(examples, rows=place).known().rows["place"].to_numpy(dtype=np.int64)


def _known(examples: Examples, decision: Decision, cuts: Sequence[splits.Fold]) -> Problem | None:
    """The known rows as a problem to be judged on; None where they are too few or of one state."""
    known, where = examples.known(), _places(examples)
    states = list(decision.states)
    if (
        len(known) < FEWEST
        or known.rows["state"].nunique() < 2
        or not set(known.rows["state"]) <= set(states)
    ):
        return None
    place = np.full(len(examples), -1)
    place[where] = np.arange(len(where))
    parts = [(place[train], place[test]) for train, test in cuts]
    folds = [(train[train >= 0], test[test >= 0]) for train, test in parts]
    learn = np.ones(len(known), dtype=bool)
    y = np.array([states.index(state) for state in known.rows["state"]], dtype=np.int64)
    return Problem(decision, examples, known, learn, y, np.ones(len(y)), folds, False, ())


def _trained(
    name: str,
    found: Detection,
    examples: Examples,
    decision: Decision,
    rows: list[dict[str, Any]],
    notes: tuple[str, ...],
    seed: int,
) -> Trained:
    assert found.alarm is not None
    probe_x, _ = probes(examples, ())
    whole = _whole(found.alarm)
    head = whole.to_onnx(examples.x.shape[1], {})
    whole.check_parity(head, probe_x, {}, name)
    row = next(row for row in rows if row["family"] == name)
    figures = {k: float(row[k]) for k in FIGURES} | {"rows": float(len(examples))}
    figures |= {f"setting.{k}": v for k, v in found.alarm.settings.items()}
    return Trained(
        decision_digest=decision.digest,
        family=name,
        features=tuple(c for c in examples.columns if not c.startswith(("history.", "context."))),
        columns=examples.columns,
        signals=(),
        states=tuple(decision.states),
        head=head,
        probe_x=probe_x,
        probe_p=whole.p(probe_x, {}),
        table=[r | {"chosen": r["family"] == name} for r in rows],
        figures=figures | ({} if np.isfinite(figures["margin"]) else {"margin": 0.0}),
        seed=seed,
        notes=(*notes, "a detector: p follows from a declared prevalence or alarm budget, not from labels"),
        own_words=examples.sources.get(OWN_WORDS, ""),
    )
