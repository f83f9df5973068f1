"""What a policy would have cost: actions from probabilities, money of actions, policies side by side.

Money counts episodes, not samples: an episode begins with a row and costs what the table declares for its
action in the state believed of that row. One that intervenes lasts to the horizon; one that does not lasts
until the action changes, and costs nothing of its own when that is before the horizon and before what it
let happen (see ``lab.books``).
The states are those that were observed: what another action would have changed of them is not known here
(the closed loop in ``loop/`` shows it).

Asking costs what ``core.policy.cost_of_asking`` says of the true state: the person, and the action that is
best for the state he names, which is the true one as often as he is reliable. It is charged again as often as
the answer ceases to hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.bundle.tuned import tuned
from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.core.policy import ASK, LeastExpectedCost
from aiotkit.lab.books import DAY_US, Actions, Book, Floats, Ints, Names, asking_row, cheapest, declared_costs
from aiotkit.lab.evaluate import paired_bootstrap, policy_table
from aiotkit.lab.thresholds import Threshold, thresholds

__all__ = [
    "ORACLE",
    "Threshold",
    "actions_of",
    "actions_with",
    "compare",
    "declared_costs",
    "money_of",
    "references",
    "thresholds",
]

ORACLE = "oracle"
#: two costs closer than this share of the largest are judged one by one, by the device's own code
_TIE = 1e-9
#: blocks of consecutive time an interval should rest on, and the length one has where there is plenty
_BLOCKS, _BLOCK_DAYS = 8, 7


def actions_of(p: NDArray[Any], decision: Decision, novelty: NDArray[Any] | None = None) -> Names:
    """The action of each row, as the device would propose it: ``core.policy.least_expected_cost``, at once.

    Args:
        p: ``[rows, states]`` in the order of ``decision.states``; a row that is no distribution gives
            ``recovery``, as on the device.
        decision: with known costs.
        novelty: ``[rows]`` or ``[rows, 1]``; above 1 a person is asked (without one: ``recovery``, where a
            device lets the written rule propose: ``release.in_force.without_head``), and what is not a number
            gives ``recovery``.

    Returns:
        ``[rows]`` names of actions, or ``ask``.
    """
    table, names = declared_costs(decision), np.array([*decision.actions, ASK], dtype=object)
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != table.shape[1]:
        raise DataError("p", expected=f"[rows, {table.shape[1]} states]", found=str(list(p.shape)))
    total = p.sum(axis=1)
    with np.errstate(invalid="ignore"):
        sane = ((p >= 0) & (p <= 1)).all(axis=1) & (np.abs(total - 1) <= 1e-3)
    safe = np.where(sane[:, None], p, 1 / p.shape[1])
    chosen, close = _least(safe, table, decision)
    out = names[chosen]
    near = sane & close | (np.abs(np.abs(total - 1) - 1e-3) < _TIE)
    if near.any():  # ties follow the device's order, which is worth its own code
        rows, back = np.unique(p[near], axis=0, return_inverse=True)
        policy, states = LeastExpectedCost(decision), tuple(decision.states)
        said = [policy.propose(dict(zip(states, row, strict=True))).action for row in rows.tolist()]
        out[near] = np.array(said, dtype=object)[back.ravel()]
        sane[near] = out[near] != np.array(None)
    out[~sane] = decision.recovery
    return out if novelty is None else _with_novelty(out, sane, novelty, decision)


def actions_with(
    margins: float | Floats, p: NDArray[Any], decision: Decision, novelty: NDArray[Any] | None = None
) -> Names:
    """``actions_of`` under a margin, or under one for each row (``[rows]``)."""
    if isinstance(margins, float):
        return actions_of(p, tuned(decision, margins), novelty)
    out = np.empty(len(p), dtype=object)
    for margin in np.unique(margins):
        mine = margins == margin
        beside = None if novelty is None else np.asarray(novelty)[mine]
        out[mine] = actions_of(p[mine], tuned(decision, float(margin)), beside)
    return out


def _least(p: Floats, table: Floats, decision: Decision) -> tuple[Ints, NDArray[np.bool_]]:
    """Codes of the actions of least expected cost (the last is ``ask``), and where rounding could tip one."""
    expected, margin = p @ table.T, decision.policy.margin
    tie = _TIE * max(1.0, float(np.abs(table).max()))
    chosen, every = expected.argmin(axis=1), np.arange(len(p))
    close = _gap(expected) <= tie
    waits = np.array([i for i, a in enumerate(decision.actions.values()) if not a.intervenes], dtype=np.int64)
    waiting = np.ones(len(p), dtype=bool)  # whether what is chosen is the best that does not intervene
    if len(waits):
        wait = waits[expected[:, waits].argmin(axis=1)]
        saved = expected[every, wait] - expected[every, chosen]
        if margin > 0:
            close |= (np.abs(saved - margin) <= tie) | (_gap(expected[:, waits]) <= tie)
            chosen = np.where(saved < margin, wait, chosen)
        waiting = chosen == wait
    if decision.human is None:
        return chosen, close
    asking = p @ asking_row(decision) + np.where(waiting, margin, 0.0)
    close |= np.abs(asking - expected[every, chosen]) <= tie
    return np.where(asking < expected[every, chosen], len(table), chosen), close


def _gap(costs: Floats) -> Floats:
    """How far the second cheapest lies above the cheapest."""
    if costs.shape[1] < 2:
        return np.full(len(costs), np.inf)
    two = np.partition(costs, 1, axis=1)
    return np.asarray(two[:, 1] - two[:, 0], dtype=np.float64)


def _with_novelty(out: Names, sane: NDArray[np.bool_], novelty: NDArray[Any], decision: Decision) -> Names:
    distance = np.asarray(novelty, dtype=np.float64).reshape(-1)
    if len(distance) != len(out):
        raise DataError("novelty", expected=f"{len(out)} values", found=str(len(distance)))
    unlike = ASK if decision.human is not None else decision.recovery
    out[sane & (distance > 1)] = unlike
    out[~np.isfinite(distance)] = decision.recovery
    return out


def money_of(rows: pd.DataFrame, actions: Actions, decision: Decision) -> pd.DataFrame:
    """What these actions would have cost: a ledger (``subject``, ``day``, ``money``) for ``evaluate``.

    Args:
        rows: ``subject``, ``at_us``, and a believed ``state`` on every row (``Examples.labelled().rows``).
        actions: one a row, in its order; None (nothing can be proposed) is ``recovery``, as on the device.
        decision: with known costs.

    Raises:
        DataError: costs are unknown, an action or state is, or the lengths differ.
    """
    book = Book.of(rows, decision)
    return book.ledger(book.codes(actions))


def references(rows: pd.DataFrame, decision: Decision) -> dict[str, Names]:
    """Policies that need no model: each action always, and the oracle (the true state's cheapest action).

    Where a person can be asked, asking always is one of them.
    """
    table = declared_costs(decision)
    actions = [*decision.actions, *([ASK] if decision.human is not None else [])]
    out = {f"always {a}": np.full(len(rows), a, dtype=object) for a in actions}
    best = {state: cheapest(table[:, k], decision) for k, state in enumerate(decision.states)}
    return out | {ORACLE: rows["state"].map(best).to_numpy(dtype=object)}


def compare(
    rows: pd.DataFrame,
    policies: Mapping[str, Actions],
    decision: Decision,
    *,
    baseline: str,
    seed: int,
    within: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Policies side by side on the same rows, cheapest first; see ``evaluate.policy_table``.

    Intervals (of level ``limits.confidence``) resample subjects or blocks of time, as the decision file says;
    of fewer subjects than ``fewest_clusters`` blocks, which holds for these subjects alone. Blocks are 7
    days, shorter (but never shorter than the horizon, within which outcomes overlap) where that would leave
    fewer than 8. Of fewer clusters than ``fewest_clusters`` ``low`` and ``high`` are NaN.

    Args:
        rows: as ``money_of`` takes them.
        policies: name -> actions of each row.
        decision: with known costs.
        baseline: the policy that differences are to.
        seed: of the resampling.
        within: ``[rows]`` count only episodes that began here; they are cut on all rows all the same.

    Returns:
        One row a policy, cheapest first; ``attrs``: ``baseline``, ``level``, ``resample``, ``clusters`` and
        ``words``, which say how the intervals were made or why there are none.
    """
    book = Book.of(rows, decision)
    codes = {name: book.codes(a, name=f"policy '{name}'") for name, a in policies.items()}
    here = np.ones(len(rows), dtype=bool) if within is None else np.asarray(within, dtype=bool)[book.order]
    ledgers = {name: book.ledger(c, within=here) for name, c in codes.items()}
    if baseline not in ledgers:
        raise DataError(f"baseline '{baseline}'", expected=f"one of {sorted(ledgers)}")
    plan = _plan(book, decision, here)
    if plan.resample == "subject":
        table = policy_table(ledgers, baseline, seed=seed, level=decision.limits.confidence)
    else:
        fine = {
            name: book.ledger(c, period_us=plan.period_us, at0=int(book.at_us[here].min()), within=here)
            for name, c in codes.items()
        }
        table = _by_blocks(ledgers, fine, baseline, seed, plan, decision.limits.confidence)
    table.attrs.update(
        baseline=baseline,
        level=decision.limits.confidence,
        resample=plan.resample,
        clusters=plan.clusters,
        words=plan.words,
    )
    return table


@dataclass(frozen=True, slots=True)
class _Plan:
    resample: str
    clusters: int
    period_us: int
    words: str
    enough: bool = True


def fewest_clusters(level: float) -> int:
    """Subjects, or blocks of time, that an interval of this level needs.

    By luck alone all differences of k clusters have one sign, and all that is resampled from them, with
    probability 2 · 2^−k; that must not exceed what the interval may miss.
    """
    return max(2, math.ceil(1 - math.log2(1 - level)))


def _plan(book: Book, decision: Decision, here: NDArray[np.bool_]) -> _Plan:
    at = book.at_us[here]
    subjects, fewest = len(np.unique(book.subject[here])), fewest_clusters(decision.limits.confidence)
    if decision.resample == "subject" and subjects >= fewest:
        return _Plan("subject", subjects, DAY_US, f"intervals resample {subjects} subjects")
    span = int(at.max() - at.min()) + 1
    horizon = max(1, round(decision.outcome.horizon_s * 1e6))
    period = max(horizon, min(_BLOCK_DAYS * DAY_US, -(-span // _BLOCKS)))
    clusters = len(np.unique((at - at.min()) // period))
    few = ""
    if decision.resample == "subject":
        many = "subjects" if subjects > 1 else "subject"
        few = f"{subjects} {many} alone ({fewest} are needed to resample them): "
    length = f"{period / DAY_US:.3g} days" if period >= DAY_US else f"{period / 3.6e9:.3g} h"
    blocks = f"{clusters} block{'s' if clusters > 1 else ''} of {length}"
    if clusters < fewest:
        words = f"{few}no interval of {blocks}, {fewest} are needed"
        return _Plan("block", clusters, period, words, enough=False)
    return _Plan("block", clusters, period, f"{few}intervals resample {blocks}")


def _by_blocks(
    ledgers: Mapping[str, pd.DataFrame],
    fine: Mapping[str, pd.DataFrame],
    baseline: str,
    seed: int,
    plan: _Plan,
    level: float,
) -> pd.DataFrame:
    """The table with intervals over blocks; ``fine`` has a row a subject and block."""
    rows = []
    days = len(ledgers[baseline])
    for name, ledger in ledgers.items():
        gap = float(ledger["money"].sum() - ledgers[baseline]["money"].sum()) / days
        low, high = (0.0, 0.0) if name == baseline else (np.nan, np.nan)
        if name != baseline and plan.enough:
            found = paired_bootstrap(
                fine[name], fine[baseline], "block", seed=seed, level=level, block_days=1
            )
            per_day = len(fine[name]) / days  # from money a block to money a subject-day
            low, high = found.low * per_day, found.high * per_day
        rows.append(
            {
                "policy": name,
                "money_per_subject_day": float(ledger["money"].sum()) / days,
                "difference": gap,
                "low": low,
                "high": high,
                "sure": bool(low > 0 or high < 0),
                "subject_days": days,
            }
        )
    return pd.DataFrame(rows).sort_values(["money_per_subject_day", "policy"], ignore_index=True)
