"""Golden cases for a bundle with a model: windows like those of training.

What golden cases are made up from a decision file alone is noise to a model: it calls it novel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aiotkit.bundle.golden import GoldenCase
from aiotkit.core.decision import Decision
from aiotkit.core.records import DecisionInput, Reading
from aiotkit.release.cases import MAX_WINDOW_BYTES

if TYPE_CHECKING:
    from aiotkit.lab.examples import Examples

#: cases from training of each state, and of rows whose state is not known
EACH = 4


def training_cases(decision: Decision, examples: Examples, *, each: int = EACH) -> list[GoldenCase]:
    """Cases from rows of the examples, ``each`` of every state, spread over them; none without windows.

    Args:
        decision: whose signals the windows are of.
        examples: with raw windows of every signal.
        each: how many of one state.
    """
    if not set(decision.signals) <= set(examples.windows):
        return []
    size = 4 * sum(decision.samples(name) for name in decision.signals)
    room = MAX_WINDOW_BYTES // 2 // size
    state = examples.rows["state"].astype(object).where(examples.rows["state"].notna(), "")
    picked: list[int] = []
    for name in ["", *decision.states]:
        at = np.flatnonzero((state == name).to_numpy())
        if len(at):
            picked += at[np.unique(np.linspace(0, len(at) - 1, each).round().astype(int))].tolist()
    return [_case(decision, examples, row) for row in sorted(picked)[:room]]


def _case(decision: Decision, examples: Examples, row: int) -> GoldenCase:
    at_us = int(examples.rows["at_us"].iloc[row])
    columns = dict(zip(examples.columns, examples.x[row].tolist(), strict=True))
    context: dict[str, Reading] = {}
    for name, declared in decision.context.items():
        if declared.values is None:
            number = columns.get(f"context.{name}", np.nan)
            value = number if np.isfinite(number) else None
        else:
            value = next((v for v in declared.values if columns.get(f"context.{name}={v}") == 1), None)
        context[name] = Reading(value, 0.0)
    given = DecisionInput(
        seed=f"golden/0/training-{row}",
        now_us=at_us,
        window_end_us=at_us,
        windows={n: np.array(examples.windows[n][row], dtype=np.float32) for n in decision.signals},
        context=context,
    )
    return GoldenCase(f"training-{row}", given)
