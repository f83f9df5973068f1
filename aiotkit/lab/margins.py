"""What waiting is worth: money of held-out rows by the margin an action must save before it is taken."""

from __future__ import annotations

import pandas as pd

from aiotkit.bundle.tuned import tuned
from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab.contest import margins_of
from aiotkit.lab.figures import COLOURS, INK, Plot, canvas
from aiotkit.lab.judge import actions_of, money_of
from aiotkit.lab.train import Training


def money_by_margin(training: Training, decision: Decision) -> pd.DataFrame:
    """Money per subject-day at each margin that training tried, on rows no head had seen.

    Columns ``margin``, ``money`` and ``acts`` (share of rows on which something is done or asked).

    Raises:
        DataError: costs are unknown.
    """
    if isinstance(decision.costs, str):
        raise DataError("margins", expected="known costs", found="costs: unknown")
    waits = [name for name, action in decision.actions.items() if not action.intervenes]
    rows = []
    for margin in margins_of(decision):
        actions = actions_of(training.oof_p, tuned(decision, margin), training.oof_novelty)
        ledger = money_of(training.oof_rows, actions, decision)
        acts = float((~pd.Series(actions).isin(waits)).mean())
        rows.append((margin, float(ledger["money"].sum()) / len(ledger), acts))
    return pd.DataFrame(rows, columns=["margin", "money", "acts"])


def margin_figure(table: pd.DataFrame, chosen: float, currency: str) -> Plot:
    """Money by margin.

    Args:
        table: as ``money_by_margin`` gives it.
        chosen: the margin that goes into the bundle.
        currency: of the money.
    """
    title = "How much must acting now save before it beats waiting?"
    figure, (ax, below) = canvas(title, width=6.8, height=3.8, ratios=(3, 1))
    ax.plot(table["margin"], table["money"], color=COLOURS[0], marker="o", ms=5, lw=1.8)
    below.plot(table["margin"], 100 * table["acts"], color=COLOURS[0], marker="o", ms=4, lw=1.4)
    for panel in (ax, below):
        panel.axvline(chosen, color=INK, lw=1, ls="--")
        panel.margins(y=0.15)
    ax.set_ylabel(f"{currency} per\nsubject-day")
    below.set_ylabel("acts or\nasks (%)")
    below.set_ylim(bottom=0)
    below.set_xlabel(f"margin ({currency})")
    return Plot(
        figure,
        title,
        f"Dashed: the margin that goes into the bundle, {chosen:,.4g} {currency}. One look alone would act "
        "at the least expected cost; but the next look comes soon, and knows more. Rows are held out, the "
        "margin is chosen on them: take its gain as a hint; gates judge with margins chosen on other folds.",
    )
