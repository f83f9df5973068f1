"""What else could have been done: the same fleet and the same luck under other policies.

``always`` throttles at every decision, ``never`` runs to breakdown, ``tuned_threshold`` is the single
threshold that cost least in the first half of the run, ``hindsight_threshold`` the one that cost least in
the whole run, ``rule`` is the decision file's written rule, ``oracle`` knows the true dynamics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.loop.look import bearing_decision, look, single_thread
from aiotkit.loop.oracle import Oracle
from aiotkit.loop.policies import Constant, Policy, Thresholds, WrittenRule, candidates
from aiotkit.loop.twin import Twin, subject_name
from aiotkit.loop.wear import Array

#: called with the share that is done, 0 to 1
Progress = Callable[[float], None]
ARMS = ("always", "never", "tuned_threshold", "hindsight_threshold", "rule", "oracle")


@dataclass(frozen=True)
class ArmsResult:
    """What every arm cost.

    ``money`` has the columns arm, subject, day (0 …) and money (EUR); ``details`` holds per arm the EUR
    by category, and for the thresholds which one was chosen.
    """

    money: pd.DataFrame
    details: dict[str, Any]


@dataclass(frozen=True)
class Lived:
    """One run of several policies: arm names, money [arms, machines, days], EUR by category and arm."""

    names: tuple[str, ...]
    money: Array
    categories: dict[str, Array]


def live(twin: Twin, policies: Sequence[Policy], progress: Progress | None = None) -> Lived:
    """Run a twin to its end; its arms are those of the policies, in order."""
    names = tuple(name for p in policies for name in p.names)
    edges = np.cumsum([0, *(len(p.names) for p in policies)])
    slices = [slice(int(a), int(b)) for a, b in pairwise(edges)]
    with single_thread():
        while not twin.done:
            seen = look(twin)
            orders = [p.order(seen, s, twin) for p, s in zip(policies, slices, strict=True)]
            twin.advance(np.concatenate(orders))
            if progress is not None:
                progress(twin.step / twin.steps)
    return Lived(names, twin.ledger.money(), twin.ledger.by_category())


def live_thresholds(seed: int, machines: int, days: int, progress: Progress | None = None) -> Lived:
    """``always``, ``never`` and every single threshold, in one run."""
    policies: list[Policy] = [Constant("always", 0.6), Constant("never", 1.0), Thresholds(candidates())]
    arms = sum(len(p.names) for p in policies)
    return live(Twin(seed, machines, days, arms=arms), policies, progress)


def live_rule_and_oracle(seed: int, machines: int, days: int, progress: Progress | None = None) -> Lived:
    """``rule`` and ``oracle``, in one run."""
    policies: list[Policy] = [WrittenRule(bearing_decision(), machines), Oracle(seed, machines)]
    return live(Twin(seed, machines, days, arms=2), policies, progress)


def run_arms(
    seed: int,
    machines: int = 12,
    days: int = 14,
    *,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> ArmsResult:
    """Run every arm on the fleet of one seed.

    Args:
        seed: of the fleet; all arms share its randomness.
        machines: how many units.
        days: how long.
        progress: called with the share that is done.
        executor: where the second half of the arms runs (default: one process of its own).
    """
    if executor is None:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:
            return run_arms(seed, machines, days, progress=progress, executor=own)
    other: Future[Lived] = executor.submit(live_rule_and_oracle, seed, machines, days)
    thresholds = live_thresholds(seed, machines, days, progress)
    return _chosen(thresholds, other.result(), days)


def _chosen(thresholds: Lived, others: Lived, days: int) -> ArmsResult:
    first = thresholds.money[2:, :, : max(1, days // 2)].sum(axis=(1, 2))
    whole = thresholds.money[2:].sum(axis=(1, 2))
    rows = {
        "always": (thresholds, 0),
        "never": (thresholds, 1),
        "tuned_threshold": (thresholds, 2 + int(np.argmin(first))),
        "hindsight_threshold": (thresholds, 2 + int(np.argmin(whole))),
        "rule": (others, 0),
        "oracle": (others, 1),
    }
    frames, details = [], {}
    for arm, (lived, i) in rows.items():
        frames.append(_frame(arm, lived.money[i]))
        spent = {category: float(values[i]) for category, values in lived.categories.items()}
        details[arm] = {"policy": lived.names[i], "spent": spent}
    return ArmsResult(pd.concat(frames, ignore_index=True), details)


def _frame(arm: str, money: Array) -> pd.DataFrame:
    machines, days = money.shape
    return pd.DataFrame(
        {
            "arm": arm,
            "subject": np.repeat([subject_name(m) for m in range(machines)], days),
            "day": np.tile(np.arange(days), machines),
            "money": money.reshape(-1),
        }
    )
