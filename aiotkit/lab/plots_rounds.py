"""Figures over time: money round by round, one subject's probabilities, features that have moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError, did_you_mean
from aiotkit.core.policy import ASK
from aiotkit.lab.figures import COLOURS, INK, Plot, canvas, colour_of

GOOD, BAD = COLOURS[2], COLOURS[1]


def money_by_round(
    rounds: pd.DataFrame,
    *,
    currency: str = "EUR",
    drift_from: float | None = None,
    words: Mapping[str, str] | None = None,
) -> Plot:
    """The figure that matters: what each policy costs, round by round.

    Args:
        rounds: ``round``, ``policy``, ``money_per_subject_day``; and, where known, ``low`` and ``high`` of
            the interval and ``verdict`` ('approved' or 'refused': of the candidate judged after that
            round; on any row of the round). The policy named first is the one that the figure is about.
        currency: of the money.
        drift_from: the first round in which the world had changed.
        words: policy -> what the legend calls it; without, its name with spaces for underscores.
    """
    for name in ("round", "policy", "money_per_subject_day"):
        if name not in rounds.columns:
            raise DataError(f"rounds: column '{name}' is missing", do=did_you_mean(name, rounds.columns))
    title = "What a subject-day costs, round by round"
    figure, (ax,) = canvas(title, width=8, height=4.2)
    policies = list(dict.fromkeys(rounds["policy"]))
    colours, about = colour_of(policies), policies[0]
    told = {name: name.replace("_", " ") for name in policies} | dict(words or {})
    for policy in policies:
        mine = rounds[rounds["policy"] == policy].sort_values("round")
        line = "--" if policy == "oracle" else "-"
        at, money = mine["round"].to_numpy(float), mine["money_per_subject_day"].to_numpy(float)
        ax.plot(at, money, color=colours[policy], marker="o", ms=4.5, lw=2.6 if policy == about else 1.5,
                ls=line, label=told[policy])  # fmt: skip
        if {"low", "high"} <= set(mine.columns):
            ax.fill_between(
                at,
                mine["low"].to_numpy(float),
                mine["high"].to_numpy(float),
                color=colours[policy],
                alpha=0.12,
                lw=0,
            )
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]), top=ax.get_ylim()[1] * 1.08)
    if drift_from is not None:
        ax.axvspan(drift_from - 0.5, float(rounds["round"].max()) + 0.5, color=COLOURS[4], alpha=0.10, lw=0)
        ax.annotate(
            "the world has changed", (drift_from - 0.5, 1), (5, -4), xycoords=("data", "axes fraction"),
            textcoords="offset points", va="top", fontsize=8.5, color=INK,
        )  # fmt: skip
    _verdicts(ax, rounds)
    ax.set_xlim(float(rounds["round"].min()) - 0.5, float(rounds["round"].max()) + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("round")
    ax.set_ylabel(f"{currency} per subject-day")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)
    return Plot(
        figure,
        title,
        "Lower is better. Shaded: 95 % intervals. A triangle marks a round after which a candidate was "
        f"approved and released, a cross one whose candidate was refused. The thick line ({told[about]}) "
        "should leave the written rule and come near the oracle, which knows how the machines wear and sees "
        "what the devices see.",
    )


def _verdicts(ax: Axes, rounds: pd.DataFrame) -> None:
    if "verdict" not in rounds.columns:
        return
    looks = {"approved": ("^", GOOD), "refused": ("x", BAD)}
    told = rounds.dropna(subset=["verdict"]).drop_duplicates("round")
    for verdict, (marker, colour) in looks.items():
        at = told.loc[told["verdict"] == verdict, "round"].to_numpy(float)
        if len(at):
            ax.plot(
                at, np.full(len(at), 0.03), marker, color=colour, ms=8, mew=2, ls="none", clip_on=False,
                transform=ax.get_xaxis_transform(), label=f"candidate {verdict}",
            )  # fmt: skip


def probabilities_over_time(
    rows: pd.DataFrame, p: NDArray[Any], actions: Sequence[str], decision: Decision, *, subject: str
) -> Plot:
    """One subject over time: what the model believed, what was done, and what turned out to be so.

    Args:
        rows: ``subject``, ``at_us`` and, where believed, ``state``.
        p: ``[rows, states]`` in the order of ``decision.states``.
        actions: one a row.
        decision: its states.
        subject: which one.
    """
    mine = (rows["subject"] == subject).to_numpy()
    if not mine.any():
        known = rows["subject"].astype(str).unique()
        raise DataError(f"subject '{subject}'", expected="one of the rows'", do=did_you_mean(subject, known))
    order = np.argsort(rows["at_us"].to_numpy()[mine], kind="stable")
    at = pd.Series(pd.to_datetime(rows["at_us"].to_numpy()[mine][order], unit="us", utc=True))
    title = f"What the model believed of {subject}, and what was done"
    figure, (ax, strip, truth) = canvas(title, width=9, height=4.4, ratios=(5, 1, 1))
    colours = _state_colours(decision)
    ax.stackplot(
        at.to_numpy(), p[mine][order].T, colors=[colours[s] for s in decision.states],
        labels=list(decision.states),
        step="post", lw=0,
    )  # fmt: skip
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_ylabel("probability")
    done = pd.Series(np.asarray(actions, dtype=object)[mine][order])
    done = done.replace(ASK, "ask a person")
    ax.margins(x=0)
    _strip(strip, at, done, _action_colours(decision), "done")
    states = pd.Series(rows["state"].to_numpy(dtype=object)[mine][order])
    _strip(truth, at, states, colours, "it was")
    _dates(truth)
    handles = [h for a in (ax, strip) for h in a.get_legend_handles_labels()[0]]
    names = [n for a in (ax, strip) for n in a.get_legend_handles_labels()[1]]
    figure.legend(handles, names, loc="outside lower center", ncols=6, frameon=False, fontsize=8.5)
    return Plot(
        figure,
        title,
        "Above: the probabilities of the states, stacked. Then the action each decision led to, and below "
        "the state that was reported or found (same colours as above). Look for colour that rises before the "
        "state changes, and for actions that nothing below bears out.",
    )


def _strip(ax: Axes, at: pd.Series, names: pd.Series, colours: Mapping[str, str], label: str) -> None:
    """A coloured bar for each stretch of one name; grey where there is none."""
    names = names.astype(object).where(names.notna(), "")
    usual = at.diff().median() if len(at) > 1 else pd.Timedelta(seconds=1)
    stretch = ((names != names.shift()) | (at.diff() > 5 * usual)).cumsum()
    for name in sorted(set(names)):
        bars: list[Any] = [
            (g.iloc[0].to_pydatetime(), (g.iloc[-1] - g.iloc[0] + usual).to_pytimedelta())
            for _, g in at[names == name].groupby(stretch[names == name])
        ]
        ax.broken_barh(bars, (0, 1), color=colours.get(name, "#ffffff"), label=name or "none", lw=0)
    ax.set_ylim(0, 1)
    ax.set_yticks([])
    ax.set_ylabel(label, rotation=0, ha="right", va="center")


def _dates(ax: Axes) -> None:
    locator: Any = AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    ax.set_xlabel("time (UTC)")


def _state_colours(decision: Decision) -> dict[str, str]:
    """Warm colours for states, grey for the normal one."""
    normal = decision.uneventful
    others = [s for s in decision.states if s != normal]
    picked = (COLOURS[4], COLOURS[1], COLOURS[3], COLOURS[6])
    return {normal: "#dfe5e9"} | {s: picked[i % len(picked)] for i, s in enumerate(others)}


def _action_colours(decision: Decision) -> dict[str, str]:
    """Cold colours for actions, grey for the one that is taken when nothing is wrong."""
    quiet = decision.rule[-1].action
    others = [a for a in (*decision.actions, "ask a person") if a != quiet]
    picked = (COLOURS[0], COLOURS[2], COLOURS[5], COLOURS[7])
    return {quiet: "#c3ccd3"} | {a: picked[i % len(picked)] for i, a in enumerate(others)}


def drift_figure(table: pd.DataFrame, *, limit: float | None = None, most: int = 15) -> Plot:
    """How far each feature has moved from what the bundle was built from.

    Args:
        table: as ``drift.drift_table`` gives it.
        limit: ``trigger.drift``.
        most: features to show.
    """
    shown = table[table["drift"].notna()].head(most)
    title = "Which features have moved?"
    figure, (ax,) = canvas(title, height=1.7 + 0.26 * max(1, len(shown)))
    y = np.arange(len(shown))
    over = shown["drift"] >= (0.25 if limit is None else limit)
    ax.barh(y, shown["drift"], color=[BAD if o else COLOURS[0] for o in over], height=0.62)
    ax.set_yticks(y, shown["feature"].tolist())
    for i, row in enumerate(shown.to_dict("records")):
        words = (
            f"{row['drift']:.2f}, mean {row['mean_shift']:+.1f} sd" if row["drift"] else "no more than chance"
        )
        ax.annotate(
            words,
            (row["drift"], i),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
    ax.axvline(0.25 if limit is None else limit, color=INK, lw=1.2, ls="--",
               label="a large shift" if limit is None else "retraining is triggered")  # fmt: skip
    ax.set_xlim(0, 1.35 * max(0.3, float(shown["drift"].max()) if len(shown) else 0.3, limit or 0.0))
    ax.set_ylim(max(0.6, len(shown) - 0.4), -0.6)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color="#e4e8eb", linewidth=0.7)
    ax.set_xlabel("excess PSI against the bundle's reference")
    figure.legend(loc="outside lower center", frameon=False, fontsize=8.5)
    hidden = len(table) - len(shown)
    left_out = f"Not shown: {hidden}, with less drift or too few windows. " if hidden else ""
    return Plot(
        figure,
        title,
        "The population stability index beyond what chance would give for so few windows: 0 is no drift, "
        f"above 0.25 a large shift. {left_out}"
        "A feature that moved alone may be a sensor; many together are another way of operating.",
    )
