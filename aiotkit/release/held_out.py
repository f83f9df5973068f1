"""What held-out rows say of a candidate: money beside other policies, slices, alarms, calibration.

Each row's probabilities come from heads that have not seen its subject or block of time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab.alarms import alarm_figures
from aiotkit.lab.books import Actions
from aiotkit.lab.judge import actions_with, compare, references
from aiotkit.release.in_force import followed

if TYPE_CHECKING:
    from aiotkit.lab.examples import Examples

CANDIDATE, RULE, CHAMPION, THRESHOLD = "candidate", "rule", "champion", "best threshold"
#: factors on what it costs to let a bad state happen, for the sensitivity table
FACTORS = (0.5, 1.0, 2.0)
_BINS = 10
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class HeldOut:
    """Rows whose states are known (``Examples.known``) and what each policy would have done on them.

    Neither a head nor a margin (where ``margins`` are given) was tuned on a row that judges it. Which family
    is the candidate was chosen on all of them.

    Attributes:
        rows: ``subject``, ``at_us``, ``state``; where there is a ``status``, those acted upon
            (``censored``) count as judged on, not as learned from.
        p: float ``[rows, states]`` in the order of ``decision.states``, by heads that had not seen the row.
        novelty: ``[rows]``, or None without it.
        policies: name -> actions of each row; ``rule`` must be there, ``champion`` when there is one; ``best
            threshold`` as ``thresholds.tuned_elsewhere`` finds it.
        slices: name -> which rows; see ``slices_of``.
        champion_until_us: the last instant that the champion learned from; None when it learned nothing.
        margins: ``[rows]`` the margin that was best on the folds a row is not of; None = the candidate's own.
        threshold: the best single threshold on all rows, in words.
        instead: ``[rows]`` what a device does where it does not follow the head (``in_force.without_head``).
    """

    rows: pd.DataFrame
    p: NDArray[Any]
    policies: Mapping[str, Actions]
    novelty: NDArray[Any] | None = None
    slices: Mapping[str, Flags] = field(default_factory=dict)
    champion_until_us: int | None = None
    margins: NDArray[Any] | None = None
    threshold: str = ""
    instead: NDArray[np.object_] | None = None

    def actions(self, decision: Decision, margin: float, factor: float = 1.0) -> NDArray[np.object_]:
        """What the candidate would have done on each row, at ``factor`` times its margin."""
        margins = margin if self.margins is None else np.asarray(self.margins, dtype=np.float64)
        said = actions_with(factor * margins, self.p, decision, self.novelty)
        return said if self.instead is None else followed(said, self.instead)

    @property
    def new(self) -> Flags:
        """``[rows]`` which of them the champion has not learned from."""
        if self.champion_until_us is None:
            return np.ones(len(self.rows), dtype=bool)
        return np.asarray(self.rows["at_us"] > self.champion_until_us, dtype=bool)


@dataclass(frozen=True)
class Books:
    """Every policy's actions, and the table of what they cost against the rule."""

    policies: Mapping[str, Actions]
    table: pd.DataFrame

    def line(self, name: str) -> dict[str, Any]:
        """One policy's row of the table."""
        return {str(k): v for k, v in self.table.set_index("policy").loc[name].to_dict().items()}


def open_books(held_out: HeldOut, decision: Decision, seed: int, margin: float = 0.0) -> Books | str:
    """The books, or why there are none in words; the candidate decides with its ``margin``."""
    if isinstance(decision.costs, str):
        return "costs are unknown: nothing can be said about money"
    if not len(held_out.rows):
        return "too little data: no held-out row has a known state"
    mine = held_out.actions(decision, margin)
    policies = {**references(held_out.rows, decision), **held_out.policies, CANDIDATE: mine}
    # the champion has learned from some of these rows: it is compared on the others (``promote``)
    beside = {name: actions for name, actions in policies.items() if name != CHAMPION}
    return Books(policies, compare(held_out.rows, beside, decision, baseline=RULE, seed=seed))


def slice_table(money: Books, held_out: HeldOut, decision: Decision, seed: int) -> list[dict[str, Any]]:
    """The candidate against the rule in what began within each slice; NaN intervals of too few clusters."""
    out = []
    for name, which in held_out.slices.items():
        if not which.any():
            continue
        part = held_out.rows.loc[which]
        policies = {n: money.policies[n] for n in (CANDIDATE, RULE)}
        table = compare(held_out.rows, policies, decision, baseline=RULE, seed=seed, within=which)
        line = table.set_index("policy").loc[CANDIDATE]
        rule = table.set_index("policy").loc[RULE, "money_per_subject_day"]
        out.append(
            {
                "slice": name,
                "rows": len(part),
                "subjects": part["subject"].nunique(),
                "candidate": line["money_per_subject_day"],
                "rule": rule,
            }
            | {c: line[c] for c in ("difference", "low", "high")}
        )
    return out


def event_table(money: Books, held_out: HeldOut, decision: Decision) -> list[dict[str, Any]]:
    """Alarms per subject-day, events found and missed, lead times: of candidate and rule."""
    out = []
    for name in (CANDIDATE, RULE):
        if name in money.policies:
            found = alarm_figures(held_out.rows, money.policies[name], decision)
            out.append(
                {
                    "policy": name,
                    "alarms_per_day": found.alarms_per_day,
                    "false_alarms": found.false_episodes,
                    "events": found.events,
                    "detected": found.detected,
                    "missed": found.missed,
                    "median_lead_h": found.median_lead_s / 3600,
                }
            )
    return out


def reliability(
    p: NDArray[Any], states: Sequence[str], decision: Decision
) -> tuple[float, list[dict[str, Any]]]:
    """Expected calibration error and the table behind it (Guo et al. 2017, ICML, top label, equal bins).

    Args:
        p: ``[rows, states]`` in the order of ``decision.states``.
        states: the true one of each row.
        decision: its states.

    Returns:
        The error (share), and one row a bin that holds any: ``said`` (mean probability of the label),
        ``happened`` (share in which it was right), ``rows``.
    """
    truth = pd.Index(list(decision.states)).get_indexer(pd.Index(states, dtype=object))
    top, right = p.max(axis=1), p.argmax(axis=1) == truth
    bins = np.minimum((top * _BINS).astype(int), _BINS - 1)
    table = [
        {"said": float(top[at].mean()), "happened": float(right[at].mean()), "rows": int(at.sum())}
        for at in (bins == b for b in range(_BINS))
        if at.any()
    ]
    error = sum(row["rows"] * abs(row["said"] - row["happened"]) for row in table) / max(1, len(p))
    return float(error), table


def sensitivity(
    held_out: HeldOut, decision: Decision, seed: int, margin: float = 0.0
) -> list[dict[str, Any]]:
    """What the candidate saves if letting a bad state happen cost half or twice as much as declared.

    The candidate's actions follow from the same probabilities and the changed costs, with margins scaled as
    those; the rule's stay.
    """
    out = []
    for factor in FACTORS:
        changed = with_missed_costs(decision, factor)
        policies = {
            **references(held_out.rows, changed),
            RULE: held_out.policies[RULE],
            CANDIDATE: held_out.actions(changed, margin, factor),
        }
        table = compare(held_out.rows, policies, changed, baseline=RULE, seed=seed).set_index("policy")
        line, per_day = table.loc[CANDIDATE], table["money_per_subject_day"]
        out.append(
            {"missed_costs": f"× {factor:g}", **{n: per_day[n] for n in (CANDIDATE, RULE, "oracle")}}
            | {c: line[c] for c in ("difference", "low", "high")}
        )
    return out


def with_missed_costs(decision: Decision, factor: float) -> Decision:
    """The decision with another price of letting things happen; for comparison, not to be released.

    The *ordinary* action is the cheapest in the uneventful state. What it costs more than the best action, in
    every other state, is multiplied by ``factor``. All else stays.

    Raises:
        DataError: costs are unknown.
    """
    costs = decision.costs
    if isinstance(costs, str):
        raise DataError("sensitivity to costs", expected="declared costs", found="costs: unknown")
    ordinary = min(costs, key=lambda action: costs[action][decision.uneventful])
    best = {s: min(row[s] for row in costs.values()) for s in decision.states}
    missed = {s: best[s] + factor * (cost - best[s]) for s, cost in costs[ordinary].items()}
    changed = {a: dict(missed) if a == ordinary else dict(row) for a, row in costs.items()}
    return decision.model_copy(update={"costs": changed})


def slices_of(examples: Examples, *, most: int = 12) -> dict[str, Flags]:
    """Slices of examples: subjects with most rows, thirds of the time, values of context choices."""
    held, out = examples.rows, {}
    for subject in held["subject"].value_counts().index[:most]:
        out[f"subject {subject}"] = (held["subject"] == subject).to_numpy(dtype=bool)
    edges = np.quantile(held["at_us"].to_numpy(dtype=float), [1 / 3, 2 / 3]) if len(held) else [0, 0]
    third = np.digitize(held["at_us"].to_numpy(dtype=float), edges)
    for i, name in enumerate(("first third", "second third", "last third")):
        out[name] = np.asarray(third == i)
    for i, column in enumerate(examples.columns):
        if column.startswith("context.") and "=" in column:
            out[column] = np.asarray(examples.x[:, i] == 1)
    return out
