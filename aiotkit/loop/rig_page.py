"""What the rig's rounds left, for summary and page: rounds, first appearances, a figure for each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from aiotkit.core.decision import Decision
from aiotkit.core.policy import ASK
from aiotkit.lab.figures import COLOURS, FAINT, INK, Plot, canvas
from aiotkit.lab.report import Report
from aiotkit.loop.rig_learning import FIRST, RULE, fared, first_seen
from aiotkit.loop.rig_rounds import Rounds

RIGHT, WRONG, ASKED = COLOURS[2], COLOURS[1], COLOURS[0]


def rounds_summary(rounds: Rounds, decisions: Mapping[str, Decision]) -> dict[str, Any]:
    """Part -> ``rounds``, ``first_seen`` and ``learning`` (all rounds together), as plain data."""
    out = {}
    for part, decision in decisions.items():
        cycles = rounds.cycles[part]
        rows = []
        for number, mine in cycles.groupby("round"):
            lesson = rounds.lessons[part][int(str(number))]
            rows.append(
                {
                    "round": int(str(number)) + 1,
                    "cycles": [int(mine["cycle"].min()), int(mine["cycle"].max()) + 1],
                    "policy": str(mine["family"].iloc[-1]),
                    "bundle": str(mine["bundle"].iloc[-1]),
                    "labelled": lesson.labelled,
                    "refused": lesson.refused,
                }
                | fared(mine, decision)
            )
        after = cycles[cycles["round"] > 0]
        out[part] = {
            "rounds": rows,
            "first_seen": first_seen(cycles),
            "learning": fared(after if len(after) else cycles, decision),
        }
    return out


def add_learning(page: Report, summary: Mapping[str, Any], rounds: Rounds) -> None:
    """The sections that tell of the rounds: what was done, and for each part what happened."""
    page.section(
        "Learning, in strict time order",
        f"The same record again, on four devices of their own, in {len(rounds.cuts) - 1} rounds. In the "
        "first the written rule decides. At each round's end the desk learns from what was noted by then, "
        "and the same devices decide the next round with the new bundle. While only one state is known "
        "nothing can be told apart: a **lookout** says that state and asks about all that is unlike it. "
        "Later a trained head decides, and what is unlike anything in training is **asked** about instead of "
        f"decided. A fitter's look costs 1 {summary['currency']}.\n\n{_parity_words(rounds)} The table tells "
        f"what was done in (at most) the first {FIRST} cycles of each state, and in all up to the end of the "
        "round, when it could be learned from.",
        table=pd.DataFrame(
            [
                {
                    "part": part,
                    "state": one["state"].replace("_", " "),
                    "from cycle": one["cycle"],
                    "decided by": one["by"],
                    "novel": _percent(one["novel_share"]),
                    "asked": _percent(one["asked_share"]),
                    "misjudged": _listed(one["misjudged"]),
                    "until learned": f"{_percent(one['unlearned_asked_share'])} of {one['unlearned']} asked",
                }
                for part, found in summary["parts"].items()
                for one in found["first_seen"]
            ]
        ),
    )
    for part, found in summary["parts"].items():
        page.section(
            f"The {part}, round by round",
            _part_words(found) + _refusals(found["rounds"]),
            figure=timeline(rounds.cycles[part], part, list(rounds.cuts), list(summary["states"][part])),
            table=pd.DataFrame([_round_row(row) for row in found["rounds"]]),
        )


def _parity_words(rounds: Rounds) -> str:
    made = [one for found in rounds.lessons.values() for one in found if one.parity]
    if not made:
        return "Nothing could be learned."
    flips, gap = sum(one.parity["label_flips"] for one in made), max(one.parity["max_abs"] for one in made)
    return (
        f"{len(made)} bundles were released: {flips:g} labels flipped by a graph, p at most {gap:.1g} apart."
    )


def _part_words(found: Mapping[str, Any]) -> str:
    late = found["learning"]
    right = "" if late["accuracy_known"] is None else (
        f"Where a model decided and did not call the cycle novel, **{late['accuracy_known']:.1%}** of states "
        "were right. "
    )  # fmt: skip
    return (
        f"{right}From the second round on {late['asked']:,} of {late['decided']:,} cycles were asked about, "
        f"{late['novel']:,} of them as novel. A day cost {late['money']:,.0f}; with the written rule, whose "
        f"limits were chosen in hindsight, {late['rule']:,.0f}; with the best constant action "
        f"{late['best_constant']:,.0f}; with the state known beforehand {late['oracle']:,.0f}. In the table "
        "`right` is the share of states that were right where the cycle was not called novel."
    )


def _refusals(rows: Sequence[Mapping[str, Any]]) -> str:
    """Why no new bundle was released before some rounds."""
    lines = [f"- before round {row['round']} nothing was released: {row['refused']}"
             for row in rows if row["refused"]]  # fmt: skip
    return "\n\n" + "\n".join(lines) if lines else ""


def _round_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "round": row["round"],
        "to cycle": row["cycles"][1] - 1,
        "decided by": row["policy"] + (" (of before)" if row["refused"] else ""),
        "learned from": row["labelled"],
        "asked": row["asked"],
        "right": _percent(row["accuracy_known"]),
        "a day cost": round(row["money"]),
        "written rule": round(row["rule"]),
        "constant": round(row["best_constant"]),
        "oracle": round(row["oracle"]),
    }


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _listed(wrong: Mapping[str, int]) -> str:
    return ", ".join(f"{n} as {state.replace('_', ' ')}" for state, n in wrong.items()) or "none"


def timeline(cycles: pd.DataFrame, part: str, cuts: list[int], states: list[str]) -> Plot:
    """The noted state over time, what was decided about each cycle, and when people were asked.

    Args:
        cycles: the frame of cycles of ``loop.rig_learning``.
        part: its name, for the title.
        cuts: where rounds begin, and the end.
        states: from bottom to top.
    """
    title = f"The {part}: what was so, and what the loop said"
    figure, (ax, asked) = canvas(title, width=9, height=1.9 + 0.32 * len(states), ratios=(len(states) + 1, 1))
    at, level = cycles["cycle"].to_numpy(), {state: i for i, state in enumerate(states)}
    noted = cycles["state"].map(level).to_numpy(dtype=float)
    ax.plot(at, noted, color=FAINT, lw=5, alpha=0.45, drawstyle="steps-mid", label="noted state", zorder=1)
    told = cycles["label"].notna() & (cycles["action"] != ASK)
    right = told & (cycles["label"] == cycles["state"])
    said = cycles["label"].map(level).to_numpy(dtype=float)
    for which, colour, words in ((right, RIGHT, "said rightly"), (told & ~right, WRONG, "said wrongly")):
        ax.scatter(at[which], said[which], s=5, color=colour, label=words, zorder=3, linewidths=0)
    ax.set_yticks(range(len(states)), [state.replace("_", " ") for state in states])
    ax.set_ylim(-0.6, len(states) - 0.1)
    novel = (cycles["action"] == ASK) & cycles["novel"]
    doubt = (cycles["action"] == ASK) & ~cycles["novel"]
    for which, colour, words in ((novel, ASKED, "asked: novel"), (doubt, COLOURS[4], "asked: in doubt")):
        if which.any():
            asked.vlines(at[which], 0, 1, color=colour, lw=0.7, label=words)
    asked.set_ylim(0, 1)
    asked.set_yticks([0.5], ["asked"])
    asked.set_xlabel("cycle (one a minute)")
    _mark_rounds((ax, asked), cycles, cuts)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8.5, markerscale=2.5)
    return Plot(
        figure,
        title,
        "Grey: the state that was noted for each cycle. Dots: what the model said where it decided, green if "
        "it was so, red if not. Blue marks below: a person was asked because the cycle was unlike anything "
        "in training. Broken lines: a new round, decided by what was learned before it. A state that appears "
        "for the first time should show blue marks and no red dots, and green ones from the next round on.",
    )


def _mark_rounds(axes: tuple[Axes, Axes], cycles: pd.DataFrame, cuts: list[int]) -> None:
    names = cycles.groupby("round")["family"].last()
    for ax in axes:
        for cut in cuts[1:-1]:
            ax.axvline(cut - 0.5, color=INK, lw=0.7, ls=(0, (4, 3)), alpha=0.6)
        ax.set_xlim(-10, cuts[-1] + 10)
    for number, name in names.items():
        lo, hi = cuts[int(str(number))], cuts[int(str(number)) + 1]
        words = "rule" if name == RULE else str(name)
        axes[0].annotate(
            words, (float(np.mean((lo, hi))), 1), (0, -2), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="top", fontsize=7.5, color=INK,
        )  # fmt: skip
