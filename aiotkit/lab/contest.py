"""Who wins: families beside each other in money, probability and accuracy, and the rule for a tie.

A table of costs prices waiting as if nobody looked again until the horizon. How much an action must be
expected to save before it beats waiting for the next look (``policy.margin``) is measured: of ``MARGINS``,
as shares of the largest difference between two costs of a state, the one that costs least. Each fold's
actions follow the margin that was best on the other folds. Without an action that intervenes it is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from aiotkit.bundle.tuned import tuned
from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab import judge
from aiotkit.lab.calibrate import brier, log_loss
from aiotkit.lab.heads.base import Floats
from aiotkit.lab.problem import Problem

FIGURES = ("margin", "money", "difference", "low", "high", "log_loss", "brier", "accuracy")
BASELINE = "baseline"
#: how much more log-loss is no difference
ALIKE = 1.02
#: shares of the largest difference between two costs of one state
MARGINS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)


class Entry(Protocol):
    """A family's out-of-fold probabilities, or why it is refused."""

    p: Floats
    refused: str


def judged(
    problem: Problem,
    entries: Mapping[str, Entry],
    novelty: Floats,
    baseline: Sequence[str] | None,
    seed: int,
) -> tuple[list[dict[str, Any]], pd.DataFrame, dict[str, Floats]]:
    """One row a family, and families beside reference policies.

    Returns:
        Rows of ``family``, ``FIGURES`` (``money`` per subject-day; ``difference`` to the cheapest family with
        its interval ``low`` to ``high``; NaN where costs are unknown or it is refused) and ``refused``; and
        the frame of ``judge.compare`` against ``baseline`` (else the best constant action); and of each
        family that is not refused the margin ``[rows]`` that each row is judged under.
    """
    fine = {name: entry for name, entry in entries.items() if not entry.refused}
    margins = {name: np.full(len(problem.y), problem.decision.policy.margin) for name in fine}
    priced: dict[str, dict[str, float]] = {}
    comparison = pd.DataFrame()
    if fine and not isinstance(problem.decision.costs, str):
        chosen = {name: chosen_actions(problem, entry.p, novelty) for name, entry in fine.items()}
        margins = {name: one.margins for name, one in chosen.items()}
        priced, comparison = _priced(problem, chosen, baseline, seed)
    y, weight = problem.y[problem.learn], problem.weight[problem.learn]
    table = []
    for name, entry in entries.items():
        row: dict[str, Any] = (
            {"family": name} | dict.fromkeys(FIGURES, float("nan")) | {"refused": entry.refused}
        )
        if not entry.refused:
            p = entry.p[problem.learn]
            row |= {"margin": 0.0, "log_loss": log_loss(p, y, weight), "brier": brier(p, y, weight)}
            row |= {"accuracy": float(np.mean(p.argmax(axis=1) == y))} | priced.get(name, {})
        table.append(row)
    return table, comparison, margins


def _priced(
    problem: Problem, chosen: Mapping[str, Chosen], baseline: Sequence[str] | None, seed: int
) -> tuple[dict[str, dict[str, float]], pd.DataFrame]:
    decision, rows = problem.decision, problem.examples.rows
    actions = {name: one.actions for name, one in chosen.items()}
    first = judge.compare(rows, actions, decision, baseline=next(iter(actions)), seed=seed)
    cheapest = str(first["policy"].iloc[0])
    beside = judge.compare(rows, actions, decision, baseline=cheapest, seed=seed)
    priced = {
        str(row["policy"]): {
            "margin": chosen[str(row["policy"])].margin,
            "money": float(row["money_per_subject_day"]),
            **{k: float(row[k]) for k in ("difference", "low", "high")},
        }
        for row in beside.to_dict("records")
    }
    known = dict(judge.references(rows, decision))
    reference = _best_constant(problem, known)
    if baseline is not None and len(baseline) == len(rows):
        known[BASELINE] = np.asarray(baseline, dtype=object)
        reference = BASELINE
    elif baseline is not None:
        raise DataError(
            "baseline", expected=f"an action for each of {len(rows)} known rows", found=f"{len(baseline)}"
        )
    whole = judge.compare(rows, {**known, **actions}, decision, baseline=reference, seed=seed)
    return priced, whole


@dataclass(frozen=True)
class Chosen:
    """What a family would have done on each row, its margin, and the margin that judges each row."""

    actions: Any
    margin: float
    margins: Floats


def chosen_actions(problem: Problem, p: Floats, novelty: Floats) -> Chosen:
    """Actions of out-of-fold probabilities; each fold's under the margin that was best on the others."""
    decision, rows = problem.decision, problem.examples.rows
    margins = margins_of(decision)
    judged_as = [tuned(decision, margin) for margin in margins]
    actions = [judge.actions_of(p, one, novelty) for one in judged_as]
    if len(margins) == 1:
        return Chosen(actions[0], margins[0], np.full(len(rows), margins[0]))
    spent = np.zeros((len(problem.folds), len(margins)))
    for i, (_, test) in enumerate(problem.folds):
        part = rows.iloc[test].reset_index(drop=True)
        for j, one in enumerate(actions):
            spent[i, j] = float(judge.money_of(part, one[test], decision)["money"].sum())
    said, each = actions[0].copy(), np.zeros(len(rows))
    for i, (_, test) in enumerate(problem.folds):
        best = _least(spent.sum(axis=0) - spent[i])
        said[test], each[test] = actions[best][test], margins[best]
    return Chosen(said, margins[_least(spent.sum(axis=0))], each)


def _least(spent: Floats) -> int:
    """The cheapest; the smallest margin of equals."""
    return int(np.argmin(np.round(spent, 6)))


def margins_of(decision: Decision) -> list[float]:
    """Margins to try, the declared one first; only that where no action intervenes."""
    declared = decision.policy.margin
    if isinstance(decision.costs, str) or not any(a.intervenes for a in decision.actions.values()):
        return [declared]
    table = np.array([[row[s] for s in decision.states] for row in decision.costs.values()])
    largest = float(np.ptp(table, axis=0).max())
    return [declared, *(m for m in (share * largest for share in MARGINS) if m > declared)]


def _best_constant(problem: Problem, known: Mapping[str, Any]) -> str:
    constant = {name: actions for name, actions in known.items() if name != judge.ORACLE}
    rows, decision = problem.examples.rows, problem.decision
    found = judge.compare(rows, constant, decision, baseline=next(iter(constant)), seed=0)
    return str(found["policy"].iloc[0])


def winner(table: Sequence[Mapping[str, Any]], *, money: bool) -> str:
    """Of the families that cannot be told from the cheapest the one whose probabilities are best.

    Money of a few events is luck long after log-loss has told families apart. Of those within ``ALIKE`` of
    the least the first: ``table`` is in the order of simplicity. Where there is no interval, only equal money
    is a tie; where there is no money, log-loss alone decides.

    Raises:
        DataError: every family was refused.
    """
    fine = [row for row in table if not row["refused"]]
    if not fine:
        reasons = "; ".join(f"{row['family']}: {row['refused']}" for row in table)
        raise DataError("no family is left", found=reasons, do="Look at the reasons; other families may do.")
    if not money:
        return str(min(fine, key=lambda row: round(row["log_loss"], 6))["family"])
    least = min(row["money"] for row in fine)
    tied = [row for row in fine if row["low"] <= 0 <= row["high"] or row["money"] == least]
    sharpest = min(row["log_loss"] for row in tied)
    return str(next(row for row in tied if row["log_loss"] <= ALIKE * sharpest)["family"])
