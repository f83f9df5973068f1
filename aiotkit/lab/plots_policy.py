"""Figures of what was planned: the policy, its break-even points, where it runs, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, PercentFormatter

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.core.policy import ASK, cost_of_asking
from aiotkit.lab.books import asking_row, declared_costs
from aiotkit.lab.figures import (
    COLOURS,
    FAINT,
    INK,
    Plot,
    canvas,
    colour_of,
    legend,
    side_by_side,
    span_in_words,
)
from aiotkit.lab.judge import actions_of
from aiotkit.lab.policy_regions import Region, known_costs, policy_regions, trades


def policy_surface(decision: Decision, states: tuple[str, ...] | None = None) -> Plot:
    """Expected cost of each action, and which is proposed, over the probabilities of two or three states.

    Args:
        decision: with known costs.
        states: the two or three states to show, others having probability 0; by default all.

    Raises:
        DataError: costs are unknown, or more than three states and none chosen.
    """
    shown = tuple(decision.states) if states is None else states
    if len(shown) not in (2, 3):
        raise DataError(
            "policy surface", expected="two or three states", found=f"{len(shown)}", do="Choose with states=."
        )
    return _two_states(decision, *shown) if len(shown) == 2 else _three_states(decision, *shown)


def _two_states(decision: Decision, good: str, bad: str) -> Plot:
    costs, regions = known_costs(decision), policy_regions(decision, good, bad)
    colours = colour_of((*costs, ASK))
    title = f"What the policy proposes as '{bad}' becomes likelier"
    figure, (ax,) = canvas(title)
    p = np.linspace(0, 1, 401)
    for action, row in costs.items():
        ax.plot(p, (1 - p) * row[good] + p * row[bad], color=colours[action], lw=2, label=action)
    if decision.human is not None:
        human = decision.human
        asking = [cost_of_asking({good: 1 - x, bad: x}, costs, human) for x in p]
        ax.plot(p, asking, color=colours[ASK], lw=2, ls="--", label="ask a person")
    _shade(ax, regions, colours)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel(f"probability of '{bad}' (against '{good}')")
    ax.set_ylabel(f"expected cost of one episode ({decision.currency})")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)
    steps = "; ".join(f"{_word(r.action)} from {r.low:.3g} to {r.high:.3g}" for r in regions)
    return Plot(
        figure,
        title,
        f"Each line is one action; the lowest line is proposed, and the background shows which. Proposed, by "
        f"probability of '{bad}': {steps}.",
    )


def _word(action: str) -> str:
    return "ask" if action == ASK else f"'{action}'"


def _shade(ax: Axes, regions: tuple[Region, ...], colours: Mapping[str, str]) -> None:
    top = ax.get_ylim()[1]
    for region in regions:
        ax.axvspan(region.low, region.high, color=colours[region.action], alpha=0.10, lw=0)
    for left, right in pairwise(regions):
        ax.axvline(left.high, color=INK, lw=0.8, ls=":")
        near = right.high - right.low < 0.1
        ax.annotate(
            f"{left.high:.1%}", (left.high, top), (-3 if near else 3, -3), textcoords="offset points",
            va="top", ha="right" if near else "left", fontsize=8.5, color=INK,
        )  # fmt: skip


def _three_states(decision: Decision, a: str, b: str, c: str) -> Plot:
    costs = known_costs(decision)
    title = "What the policy proposes between three states"
    figure, (ax,) = canvas(title, width=6.4, height=5.2)
    x, y = np.meshgrid(np.linspace(0, 1, 601), np.linspace(0, np.sqrt(3) / 2, 521))
    top = y / (np.sqrt(3) / 2)
    right = x - top / 2
    p = np.stack([1 - top - right, right, top])
    inside = (p >= -1e-9).all(axis=0)
    given = np.zeros((int(inside.sum()), len(decision.states)))
    given[:, [list(decision.states).index(s) for s in (a, b, c)]] = p[:, inside].clip(0).T
    given /= given.sum(axis=1, keepdims=True)
    names, table = [*decision.actions, ASK], declared_costs(decision)
    if decision.human is not None:
        table = np.vstack([table, asking_row(decision)])
    said = pd.Index(names).get_indexer(pd.Index(actions_of(given, decision)))
    chosen, least = np.full((2, *x.shape), np.nan)
    chosen[inside], least[inside] = said, (given * table[said]).sum(axis=1)
    colours = colour_of((*costs, ASK))
    used = np.unique(said).tolist()
    ax.pcolormesh(
        x, y, chosen, cmap=ListedColormap([colours[n] for n in names]), vmin=-0.5,
        vmax=len(names) - 0.5, alpha=0.45, rasterized=True, shading="nearest",
    )  # fmt: skip
    lines = ax.contour(x, y, least, levels=8, colors=INK, linewidths=0.6)
    ax.clabel(lines, fontsize=7.5, fmt="%g")
    ax.plot([0, 1, 0.5, 0], [0, 0, np.sqrt(3) / 2, 0], color=INK, lw=1)
    for word, (px, py), (dx, dy) in (
        (a, (0, 0), (0, -14)),
        (b, (1, 0), (0, -14)),
        (c, (0.5, np.sqrt(3) / 2), (0, 5)),
    ):
        ax.annotate(
            f"surely '{word}'", (px, py), (dx, dy), textcoords="offset points", ha="center", fontsize=9
        )
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_xlim(-0.12, 1.12)
    ax.set_ylim(-0.1, 0.96)
    handles = [
        Patch(color=colours[names[i]], alpha=0.45, label="ask a person" if names[i] == ASK else names[i])
        for i in used
    ]
    legend(ax, handles=handles, loc="upper left")
    return Plot(
        figure,
        title,
        f"Each corner is certainty of one state, the middle is doubt between all three. Colour: the "
        f"action of least expected cost. Lines: that cost in {decision.currency} an episode.",
    )


def break_even_curves(decision: Decision) -> Plot:
    """From which probability acting pays, against how many times worse missing is. Needs no costs.

    With known costs the declared trades are marked on the curve.
    """
    title = "From which probability does acting pay?"
    figure, (ax,) = canvas(title)
    known = () if isinstance(decision.costs, str) else trades(decision)
    ratios = [t.ratio for t in known]
    low, high = min(0.3, *ratios, 1) / 1.5, max(300, *ratios, 1) * 1.5
    r = np.geomspace(low, high, 400)
    ax.plot(r, 1 / (1 + r), color=INK, lw=2)
    ax.fill_between(r, 1 / (1 + r), 1, color=COLOURS[1], alpha=0.10, lw=0)
    ax.fill_between(r, 0, 1 / (1 + r), color=COLOURS[0], alpha=0.10, lw=0)
    ax.text(
        0.97, 0.93, "acting costs less", transform=ax.transAxes, ha="right", va="top", fontsize=9, color=INK
    )
    ax.text(0.03, 0.07, "waiting costs less", transform=ax.transAxes, fontsize=9, color=INK)
    colours = colour_of([f"{t.wait}{t.act}{t.good}{t.bad}" for t in known])
    for t in known:
        words = f"'{t.act}' rather than '{t.wait}': '{t.bad}' above {t.threshold:.1%}"
        ax.plot(
            t.ratio, t.threshold, "o", ms=8, color=colours[f"{t.wait}{t.act}{t.good}{t.bad}"], label=words
        )
    for ratio in () if known else (1, 10, 100):
        ax.plot(ratio, 1 / (1 + ratio), "o", ms=5, color=FAINT)
        ax.annotate(
            f"{ratio} to 1: above {1 / (1 + ratio):.1%}", (ratio, 1 / (1 + ratio)), (6, 5),
            textcoords="offset points", fontsize=8.5, color=INK,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(0, 1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("cost of missing it ÷ cost of acting needlessly")
    ax.set_ylabel("break-even probability")
    if known:
        legend(ax, loc="upper center", bbox_to_anchor=(0.62, 0.87))
    marked = (
        "The dots are the trades the declared costs make."
        if known
        else ("Costs are not declared yet: read off the threshold for the ratio you believe in.")
    )
    return Plot(figure, title, f"Above the curve acting is cheaper, below it waiting is. {marked}")


def placement_bars(places: Mapping[str, Mapping[str, float]], deadline_ms: float) -> Plot:
    """Where a decision can run: time a decision takes at each place, stage by stage, against the deadline.

    Args:
        places: place -> stage -> milliseconds (say in the stage's name which percentile).
        deadline_ms: from the decision file.
    """
    title = f"Does the decision meet its deadline of {span_in_words(deadline_ms / 1e3)}?"
    figure, (ax,) = canvas(title, height=1.6 + 0.55 * len(places))
    stages = tuple(dict.fromkeys(stage for row in places.values() for stage in row))
    colours = colour_of(stages)
    totals = {place: sum(row.values()) for place, row in places.items()}
    for i, (place, row) in enumerate(places.items()):
        left = 0.0
        for stage in stages:
            ax.barh(
                i,
                row.get(stage, 0.0),
                left=left,
                height=0.6,
                color=colours[stage],
                label=stage if i == 0 else None,
            )
            left += row.get(stage, 0.0)
        ok = totals[place] <= deadline_ms
        ax.annotate(
            f" {span_in_words(totals[place] / 1e3)} {'within' if ok else 'TOO LATE'}", (left, i), va="center",
            fontsize=8.5, color=INK, fontweight="normal" if ok else "bold",
        )  # fmt: skip
    ax.axvline(deadline_ms, color=INK, lw=1.6, ls="--", label="deadline")
    ax.set_xlim(
        0,
        max(deadline_ms * 1.05, 1.25 * max(totals.values()))
        if max(totals.values()) > deadline_ms / 20
        else None,
    )
    ax.set_yticks(range(len(places)), list(places))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color="#e4e8eb", linewidth=0.7)
    ax.set_xlabel("time a decision takes (ms)")
    columns = min(len(stages) + 1, 6)
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5)
    late = [p for p, total in totals.items() if total > deadline_ms]
    verdict = f"Too late: {', '.join(late)}." if late else "Every place shown is in time."
    return Plot(
        figure, title, f"A place can take the decision when its bar ends before the dashed line. {verdict}"
    )


def money_intervals(table: pd.DataFrame, currency: str = "EUR") -> Plot:
    """Money per subject-day of several policies, and their paired difference to the baseline.

    Args:
        table: as ``evaluate.policy_table`` gives it.
        currency: unit of the money.
    """
    baseline = str(table.attrs.get("baseline", ""))
    level = float(table.attrs.get("level", 0.95))
    title = "What each policy costs"
    figure, (left, right) = side_by_side(title, height=1.7 + 0.42 * len(table))
    y = np.arange(len(table))
    marks = [FAINT if p == baseline else COLOURS[0] for p in table["policy"]]
    left.barh(y, table["money_per_subject_day"], color=marks, height=0.6)
    for i, value in enumerate(table["money_per_subject_day"]):
        left.annotate(f" {value:.2f}", (max(value, 0.0), i), va="center", fontsize=8.5, color=INK)
    left.margins(x=0.18)
    left.set_yticks(y, list(table["policy"]))
    left.set_xlabel(f"{currency} per subject-day")
    for i, row in enumerate(table.to_dict("records")):
        if row["policy"] == baseline:
            right.text(0, i, " baseline", va="center", fontsize=8.5, color=FAINT)
            continue
        colour = FAINT if not row["sure"] else COLOURS[2] if row["difference"] < 0 else COLOURS[1]
        right.plot([row["low"], row["high"]], [i, i], color=colour, lw=3, solid_capstyle="round")
        right.plot(row["difference"], i, "o", color=colour, ms=7)
    right.axvline(0, color=INK, lw=0.9)
    right.set_xlabel(f"difference to the baseline ({level:.0%} interval)")
    left.set_ylim(len(table) - 0.4, -0.6)
    return Plot(
        figure,
        title,
        f"Left: what was spent; lower is better. Right: the difference to '{baseline}' on the same subjects "
        f"and days, {table.attrs.get('resample', 'subject')}s resampled; green is surely cheaper, red surely "
        "dearer, grey undecided.",
    )
