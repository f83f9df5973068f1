"""Figures of two candidates side by side: where they do different things, and where that costs money."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.core.policy import ASK
from aiotkit.lab.figures import COLOURS, FAINT, INK, Plot, canvas

GOOD, BAD = COLOURS[2], COLOURS[1]


def flip_figure(
    first: Sequence[str], second: Sequence[str], names: tuple[str, str], decision: Decision
) -> Plot:
    """How often two candidates do the same, and what each does instead.

    Args:
        first: an action a row.
        second: of the other candidate, on the same rows.
        names: of the two.
        decision: its actions.
    """
    if len(first) != len(second) or not len(first):
        found = f"{len(first)} and {len(second)} rows"
        raise DataError("flips", expected="actions of two on the same rows", found=found)
    known = [a for a in (*decision.actions, ASK) if a in set(first) | set(second)]
    counts = pd.crosstab(pd.Series(list(first), dtype=object), pd.Series(list(second), dtype=object))
    table = counts.reindex(index=known, columns=known, fill_value=0).to_numpy()
    title = "On which decisions do they differ?"
    figure, (ax,) = canvas(title, width=2.9 + 0.95 * len(known), height=1.7 + 0.5 * len(known))
    off = table.astype(float) / table.sum()
    np.fill_diagonal(off, 0.0)
    ax.imshow(off, cmap="Oranges", vmin=0, vmax=max(0.02, float(off.max()) * 1.4), aspect="auto")
    ax.grid(visible=False)
    for i in range(len(known)):
        for j in range(len(known)):
            ax.text(
                j, i, f"{table[i, j]:,}", ha="center", va="center", fontsize=9, color=FAINT if i == j else INK
            )
    words = ["ask a person" if name == ASK else name for name in known]
    ax.set_xticks(range(len(known)), words)
    ax.set_yticks(range(len(known)), words)
    ax.set_xlabel(f"'{names[1]}' would do")
    ax.set_ylabel(f"'{names[0]}' would do")
    share = float(np.asarray(first, dtype=object).__ne__(np.asarray(second, dtype=object)).mean())
    return Plot(
        figure,
        title,
        f"They differ on {share:.1%} of {len(first):,} decisions (orange). On the diagonal, grey, they do "
        "the same. What a difference is worth depends on the state, and is counted in money below.",
    )


def slice_figure(table: pd.DataFrame, names: tuple[str, str], currency: str, *, most: int = 14) -> Plot:
    """Where the second candidate costs more or less than the first.

    Args:
        table: as ``slices.money_by_slice`` gives it, of the second against the first.
        names: of the two.
        currency: of the money.
        most: slices to show: those with the largest differences.
    """
    size = table["lost"].abs().sort_values(ascending=False, kind="stable")
    shown = table.loc[size.index[:most]].sort_values(["kind", "lost"], kind="stable")
    title = f"Where '{names[1]}' costs more or less than '{names[0]}'"
    figure, (ax,) = canvas(title, height=1.6 + 0.27 * max(1, len(shown)))
    lost = shown["lost"].to_numpy(float)
    ax.barh(range(len(shown)), lost, color=[BAD if v > 0 else GOOD for v in lost], height=0.62)
    labels = [
        f"{k.removeprefix('context.')}: {s}" for k, s in zip(shown["kind"], shown["slice"], strict=True)
    ]
    ax.set_yticks(range(len(shown)), labels)
    ax.set_ylim(max(0.6, len(shown) - 0.4), -0.6)
    ax.axvline(0, color=INK, lw=0.9)
    ax.margins(x=0.3)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color="#e4e8eb", linewidth=0.7)
    for i, (value, days) in enumerate(zip(lost, shown["subject_days"], strict=True)):
        ax.annotate(
            f"{days} subject-days", (value, i), (4 if value >= 0 else -4, 0), textcoords="offset points",
            va="center", ha="left" if value >= 0 else "right", fontsize=8, color=FAINT,
        )  # fmt: skip
    ax.set_xlabel(f"difference in {currency}, over all rows of the slice")
    return Plot(
        figure,
        title,
        f"Orange: '{names[1]}' costs more there, green: less. Slices overlap between kinds (subject, "
        "time, context); within one kind they add up to the whole. Few subject-days prove little; one that "
        "is worse on a whole kind of operation deserves a question.",
    )
