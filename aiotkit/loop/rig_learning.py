"""What the rig's desk learns: a head from the cycles labelled so far, what it says of others, how it fared.

Everything is judged on a frame of *cycles*, one row a cycle in order of time: ``cycle``, ``state`` (noted),
``label`` (the likeliest state; None where the written rule decided), ``novelty`` (NaN without a model),
``action`` (proposed, or ``ask``), ``novel`` (unlike anything in training, so asked about), ``round``, and
``family`` (of the head that decided, or the written rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.bundle.interface import FEATURES, PROBABILITIES
from aiotkit.core.decision import Decision
from aiotkit.core.features import NOVELTY
from aiotkit.core.policy import ASK
from aiotkit.lab.assemble import from_frames
from aiotkit.lab.books import Actions, Floats
from aiotkit.lab.examples import Examples
from aiotkit.lab.judge import actions_with, compare, money_of, references
from aiotkit.lab.onnx_graph import run_graph
from aiotkit.lab.recipe import recipe
from aiotkit.lab.splits import forward
from aiotkit.lab.train import Training, train
from aiotkit.lab.trained import Trained
from aiotkit.loop.lookout import keep_a_lookout
from aiotkit.loop.rig import CYCLE_S, START_US, Rig
from aiotkit.release.in_force import rule_actions

#: mean and standard deviation of six parts of a cycle: its load levels last some ten seconds each
RECIPE = "segments:6"
CYCLES_PER_DAY = 86400 / CYCLE_S
#: how many cycles "at first" means
FIRST = 10
#: who decides where nothing was learned
RULE = "written rule"
_CYCLE_US = CYCLE_S * 1_000_000


def noted_states(rig: Rig, part: str, cycles: Sequence[int] | range) -> pd.DataFrame:
    """What was noted of some cycles, as ``outcomes import`` reads it."""
    at = pd.to_datetime([START_US + (c + 1) * _CYCLE_US for c in cycles], unit="us", utc=True)
    said = [rig.states[part][c] for c in cycles]
    return pd.DataFrame({"subject": part, "state": said, "at": at, "source": "fitter"})


def rig_examples(rig: Rig, part: str, decision: Decision, kind: str = RECIPE) -> Examples:
    """Examples of a part from the whole record, as they come from a user's own files."""
    seconds = START_US + 1_000_000 * np.arange(rig.cycles * CYCLE_S)
    signals = {name: rig.sensors[name].reshape(-1) for name in decision.signals}
    telemetry = pd.DataFrame({"time": pd.to_datetime(seconds, unit="us", utc=True)} | signals)
    return from_frames(
        {part: telemetry},
        noted_states(rig, part, range(rig.cycles)),
        decision,
        names=recipe(decision, kind),
        as_of_us=START_US + (rig.cycles + 1) * _CYCLE_US + round(decision.outcome.maturity_s * 1e6),
    )


@dataclass(frozen=True)
class Learned:
    """A head, and the contest it won (None for a lookout, which has none)."""

    trained: Trained
    training: Training | None = None


def learn(
    examples: Examples, decision: Decision, families: Sequence[str], *, folds: int, seed: int
) -> Learned:
    """The best family, or a lookout where only one state is known.

    Raises:
        DataError: there is too little to learn from.
    """
    if examples.labelled().rows["state"].nunique() == 1:
        return Learned(keep_a_lookout(examples, decision, seed=seed))
    found = train(examples, decision, families=families, folds=folds, seed=seed, audited=False)
    return Learned(found.trained, found)


def speaks_against(
    learned: Learned, examples: Examples, in_force: Actions, since_us: int, decision: Decision
) -> str:
    """Why what was learned should not be released; empty = nothing speaks against it.

    It must not be surely worse than what is in force on the cycles since that was learned: those it was
    itself tested on by heads that had not seen their block.

    Args:
        learned: the candidate; a lookout has nothing to be compared on.
        examples: what it was learned from.
        in_force: actions of what is in force, one for each row of ``examples.known()``.
        since_us: from when on what is in force knows nothing.
        decision: its costs.
    """
    training = learned.training
    if training is None:
        return ""
    new = (training.oof_rows["at_us"] >= since_us).to_numpy(dtype=bool)
    if new.sum() < FIRST:
        return ""
    mine = training.actions(decision)
    policies = {"candidate": mine[new], "in force": np.asarray(in_force, dtype=object)[new]}
    rows = examples.known().rows.loc[new].reset_index(drop=True)
    table = compare(rows, policies, decision, baseline="in force", seed=0).set_index("policy")
    low = float(table["low"].to_dict()["candidate"])
    words = f"on the newest cycles surely worse than what is in force, by {low:.0f} {decision.currency} a day"
    return words if low > 0 else ""


def say(trained: Trained, examples: Examples) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``p`` ``[rows, states]`` and novelty ``[rows]``, by the head's own graph."""
    p, novelty = run_graph(
        trained.head, {FEATURES: examples.with_columns(trained.columns).x}, (PROBABILITIES, NOVELTY)
    )
    return p, novelty[:, 0]


def cycles_of(
    rows: pd.DataFrame, p: NDArray[Any], novelty: NDArray[Any], decision: Decision, margin: float | Floats
) -> pd.DataFrame:
    """The frame of cycles of a head's outputs, decided as the device decides with the margin."""
    states = np.array(list(decision.states), dtype=object)
    return pd.DataFrame(
        {
            "cycle": cycle_numbers(rows["at_us"]),
            "at_us": rows["at_us"].to_numpy(),
            "state": rows["state"].to_numpy(dtype=object),
            "label": states[p.argmax(axis=1)],
            "novelty": novelty,
            "action": actions_with(margin, p, decision, novelty),
            "novel": np.asarray(novelty) > 1,
        }
    )


def cycle_numbers(at_us: pd.Series) -> NDArray[np.int64]:
    """The cycle (from 0) that ended at each instant."""
    return (at_us.to_numpy(dtype=np.int64) - START_US) // _CYCLE_US - 1


def by_the_rule(examples: Examples, decision: Decision) -> pd.DataFrame:
    """The frame of cycles that the written rule decides."""
    rows = examples.rows
    return pd.DataFrame(
        {
            "cycle": cycle_numbers(rows["at_us"]),
            "at_us": rows["at_us"].to_numpy(),
            "state": rows["state"].to_numpy(dtype=object),
            "label": np.full(len(rows), None, dtype=object),
            "novelty": np.nan,
            "action": rule_actions(examples, decision),
            "novel": False,
            "family": RULE,
        }
    )


def in_time_order(
    examples: Examples, decision: Decision, families: Sequence[str], *, blocks: int, folds: int, seed: int
) -> pd.DataFrame:
    """Strict time order without devices: each block by what was learned before it, the first by the rule.

    What was learned decides, whatever held-out blocks say of it.

    Returns:
        The frame of cycles; ``round`` is the block, from 0.
    """
    cuts = forward(examples.rows, decision, blocks)
    first = np.setdiff1d(np.arange(len(examples)), np.concatenate([block for _, block in cuts]))
    parts = [by_the_rule(examples.take(first), decision).assign(round=0)]
    for number, (before, block) in enumerate(cuts, 1):
        trained = learn(examples.take(before), decision, families, folds=folds, seed=seed).trained
        given = examples.take(block)
        found = cycles_of(given.rows, *say(trained, given), decision, trained.figures["margin"])
        parts.append(found.assign(round=number, family=trained.family))
    return pd.concat(parts, ignore_index=True)


def money_per_day(cycles: pd.DataFrame, decision: Decision, actions: Actions | None = None) -> float:
    """What the actions cost per day of running."""
    given = cycles["action"].to_numpy(dtype=object) if actions is None else actions
    ledger = money_of(cycles.assign(subject="rig"), given, decision)
    return float(ledger["money"].sum()) / len(cycles) * CYCLES_PER_DAY


def fared(cycles: pd.DataFrame, decision: Decision) -> dict[str, Any]:
    """How some cycles were decided.

    Returns:
        ``decided``; ``asked`` and, among those, ``novel``; ``accuracy`` of the labels (None without a
        model), and ``accuracy_known``, of those that were not asked about as novel; ``money`` a day beside
        the ``best_constant`` action's, the ``oracle``'s and, where the frame has it, the ``rule``'s.
    """
    held = cycles["label"].notna()
    told = cycles[held]
    quiet = told[~told["novel"]]
    fixed = {name: money_per_day(cycles, decision, actions)
             for name, actions in references(cycles.assign(subject="rig"), decision).items()}  # fmt: skip
    oracle = fixed.pop("oracle")
    return {
        "decided": len(cycles),
        "asked": int((cycles["action"] == ASK).sum()),
        "novel": int(cycles["novel"].sum()),
        "accuracy": _share(told["label"] == told["state"]),
        "accuracy_known": _share(quiet["label"] == quiet["state"]),
        "money": money_per_day(cycles, decision),
        "best_constant": min(fixed.values()),
        "oracle": oracle,
    } | ({"rule": money_per_day(cycles, decision, cycles["rule"])} if "rule" in cycles else {})


def first_seen(cycles: pd.DataFrame, first: int = FIRST) -> list[dict[str, Any]]:
    """What was done at each state's first appearance, in order of time.

    Returns:
        One entry a state: ``state``; ``cycle`` it began; ``by`` whom it was decided; over its ``first``
        cycles ``novel_share`` (None without a model), ``asked_share``, ``actions`` and ``misjudged`` (label
        that was acted on -> cycles); and over the ``unlearned`` ones, all up to the round's end, at which the
        desk could first learn from it, ``unlearned_novel_share`` and ``unlearned_asked_share``.
    """
    out = []
    for state, cycle in cycles.groupby("state")["cycle"].min().sort_values().items():
        mine = cycles[cycles["state"] == state].sort_values("cycle")
        until = mine[mine["round"] == mine["round"].iloc[0]]
        opening = until.head(first)
        model = bool(opening["label"].notna().any())
        sure = opening[(opening["action"] != ASK) & opening["label"].notna()]
        wrong = sure.loc[sure["label"] != state, "label"]
        out.append(
            {
                "state": str(state),
                "cycle": int(cycle),
                "by": str(opening["family"].iloc[0]),
                "first": len(opening),
                "novel_share": _share(opening["novel"]) if model else None,
                "asked_share": _share(opening["action"] == ASK),
                "actions": _counts(opening["action"]),
                "misjudged": _counts(wrong),
                "unlearned": len(until),
                "unlearned_novel_share": _share(until["novel"]) if model else None,
                "unlearned_asked_share": _share(until["action"] == ASK),
            }
        )
    return out


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(name): int(n) for name, n in values.value_counts().items()}


def _share(flags: pd.Series) -> float | None:
    return round(float(flags.mean()), 4) if len(flags) else None
