"""Figures of one decision: what it looked at, what was believed, what else would have been decided."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from aiotkit.core.decision import Decision, Regular
from aiotkit.core.policy import ASK
from aiotkit.lab.figures import COLOURS, FAINT, INK, PAPER, Plot, canvas, colour_of, quiet
from aiotkit.lab.trace import Trace
from aiotkit.lab.why import ASKED, NOTHING

_PALE, _OTHER = "#b9c3cb", "#d9dee2"
_MOST_APART = 4.0


def window_figure(trace: Trace, decision: Decision, past: pd.DataFrame | None = None) -> Plot:
    """The window of each sampled signal, and how some values came to be what they are.

    Args:
        trace: the decision.
        decision: its signals.
        past: columns to draw, indexed by instant, up to the decision; see ``trace.past_of``.
    """
    names = [n for n, s in decision.signals.items() if isinstance(s.sampling, Regular) and n in trace.windows]
    columns = [] if past is None or past.empty else list(past.columns)
    title = f"{trace.subject or trace.key[0]}, {trace.at:%Y-%m-%d %H:%M} UTC"
    if not names and not columns:
        figure, (ax,) = canvas(title, height=1.2)
        ax.set_axis_off()
        ax.text(0, 0.5, "The window never left the device.", fontsize=10, color=INK, va="center")
        return Plot(figure, title, "Nothing to draw: the record alone is here.")
    tall = max(len(names), len(columns))
    figure = Figure(figsize=(9.2, 0.9 + 1.15 * tall), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    wide = [part for part, shown in ((3, names), (2, columns)) if shown]
    parts = iter(figure.subfigures(1, len(wide), width_ratios=wide, squeeze=False)[0])
    if names:
        _windows(
            next(parts).subplots(len(names), 1, sharex=True, squeeze=False)[:, 0], names, trace, decision
        )
    if columns and past is not None:
        _past(next(parts).subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0], past)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    seen = "Left: the raw window, as the device saw it. " if names else "The window never left the device. "
    words = "Right: how these values came here; the last point is this decision." if columns else ""
    return Plot(figure, title, seen + words)


def _windows(axes: Any, names: list[str], trace: Trace, decision: Decision) -> None:
    for ax, name in zip(axes, names, strict=True):
        quiet(ax)
        sampling, values = decision.signals[name].sampling, trace.windows[name]
        assert isinstance(sampling, Regular)
        ax.plot(np.arange(len(values)) / sampling.rate_hz, values, color=COLOURS[0], lw=0.7)
        ax.set_ylabel(f"{name}\n({decision.signals[name].unit})")
        ax.margins(x=0)
    axes[-1].set_xlabel("time in the window (s)")


def _past(axes: Any, past: pd.DataFrame) -> None:
    for ax, name in zip(axes, past.columns, strict=True):
        quiet(ax)
        values = past[name].astype(float)
        ax.plot(past.index.to_numpy(), values.to_numpy(), color=COLOURS[0], lw=1)
        ax.plot(past.index[-1:].to_numpy(), values.iloc[-1:].to_numpy(), "o", color=COLOURS[1], ms=6)
        good = values[np.isfinite(values)]
        low, high = (good.quantile(0.005), good.quantile(0.995)) if len(good) else (0.0, 1.0)
        low, high = (min(low, values.iloc[-1]), max(high, values.iloc[-1])) if len(good) else (low, high)
        room = 0.1 * (high - low) or 0.5
        if np.isfinite(low + high):
            ax.set_ylim(low - room, high + room)
        ax.set_ylabel(name.removeprefix("feature.").replace(".", "\n", 1))
    locator: Any = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes[-1].xaxis.set_major_locator(locator)
    axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes[-1].set_xlabel("time (UTC)")


def belief_figure(trace: Trace, decision: Decision) -> Plot:
    """What was believed, and what each action was expected to cost; the proposed one stands out."""
    p, costs = trace.out["p"], trace.out["expected_costs"]
    title = "What was believed, and what each action would cost"
    if p is None:
        figure, (ax,) = canvas(title, height=1.2)
        ax.set_axis_off()
        ax.text(0, 0.5, trace.out["proposal_reason"], fontsize=10, color=INK, va="center", wrap=True)
        return Plot(figure, title, "The written rule proposed: there are no probabilities.")
    proposed = trace.out["proposed"]
    height = 1.2 + 0.36 * max(len(p), len(costs), 2)
    figure = Figure(figsize=(8.6, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=10)
    _bars(left, {s: float(p[s]) for s in decision.states}, "{:.1%}", max(p, key=lambda s: float(p[s])))
    left.xaxis.set_major_formatter(PercentFormatter(1))
    left.set_xlim(0, 1.15)
    left.set_xticks([0, 0.25, 0.5, 0.75, 1])
    left.set_xlabel("probability of the state")
    _bars(right, {a: float(c) for a, c in costs.items()}, "{:,.0f}", proposed)
    right.margins(x=0.2)
    right.set_xlabel(f"expected cost ({decision.currency})")
    asked = (
        f"A person was to be asked: his answer saves more than the {decision.human.cost:g} "
        f"{decision.currency} it costs. "
        if proposed == ASK and decision.human is not None
        else ""
    )
    return Plot(
        figure,
        title,
        f"{asked}Left: the states, by the model. Right: the sum over states of probability times cost. Blue: "
        "the likeliest state, and the action that was proposed; gates come after.",
    )


def _bars(ax: Axes, values: dict[str, float], form: str, marked: str | None) -> None:
    names = list(values)
    quiet(ax)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color="#e4e8eb", linewidth=0.7)
    ax.invert_yaxis()
    ax.barh(
        names, list(values.values()), color=[COLOURS[0] if n == marked else _PALE for n in names], height=0.6
    )
    for i, value in enumerate(values.values()):
        said = f" {form.format(value)}"
        ax.annotate(said, (max(value, 0), i), va="center", fontsize=8.5, color=INK)


def reference_figure(table: pd.DataFrame, *, most: int = 14) -> Plot:
    """The features that are most unlike training, each on its own scale.

    Args:
        table: as ``why.against_training`` gives it.
        most: features to show.
    """
    shown = table.head(most)
    title = "How usual was what it saw?"
    figure, (ax,) = canvas(title, height=1.6 + 0.27 * max(1, len(shown)))
    apart = shown["apart"].to_numpy(float)
    room = float(np.clip(1.1 * np.nanmax(np.abs(apart), initial=0.0), 1.6, _MOST_APART))
    clipped = np.clip(np.where(np.isnan(apart), 0.0, apart), -room, room)
    ax.axvspan(-1, 1, color=_OTHER, alpha=0.6, lw=0, label="nine in ten windows of training")
    ax.axvline(0, color=FAINT, lw=1)
    for i, (at, far) in enumerate(zip(clipped, apart, strict=True)):
        colour = FAINT if np.isnan(far) else COLOURS[1] if abs(far) > 1 else COLOURS[0]
        ax.plot([0, at], [i, i], color=colour, lw=1.4)
        marker = "x" if np.isnan(far) else "o" if abs(far) <= room else (">" if far > 0 else "<")
        ax.plot(at, i, marker, color=colour, ms=6)
    values = [
        f"{n}  {'not known' if np.isnan(v) else f'{v:.4g}'}"
        for n, v in zip(shown["feature"], shown["value"], strict=True)
    ]
    ax.set_yticks(range(len(shown)), values)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(-room * 1.06, room * 1.06)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("distance from the median of training (1 = the 5 % or 95 % level on that side)")
    figure.legend(loc="outside lower center", frameon=False, fontsize=8.5)
    out = int((table["apart"].abs() > 1).sum())
    return Plot(
        figure,
        title,
        f"{out} of {len(table)} features lie outside the grey band (orange; a tenth would by chance). "
        f"Arrowheads lie beyond the scale. Shown: the {len(shown)} most unusual.",
    )


def sweep_figure(table: pd.DataFrame, decision: Decision) -> Plot:
    """Probabilities, expected costs and the action, over one value that is changed.

    Args:
        table: as ``why.sweep`` gives it.
        decision: its states and actions.
    """
    field, now = table.attrs["field"], table.attrs["now"]
    words = isinstance(table["value"].iloc[0], str)
    x = np.arange(len(table)) if words else table["value"].to_numpy(float)
    signal = field in decision.signals
    title = f"What if {field} had been {'smaller or larger' if signal else 'something else'}?"
    figure, (top, middle, strip) = canvas(title, width=8, height=5.2, ratios=(4, 4, 1))
    look = {"marker": "o", "ms": 6, "lw": 0} if words else {"lw": 1.8}
    panels = (("p.", decision.states, top), ("cost.", decision.actions, middle))
    for start, names, ax in panels:
        for name, colour in colour_of(list(names)).items():
            ax.plot(x, table[f"{start}{name}"].to_numpy(float), color=colour, label=name, **look)
        ax.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    top.set_ylim(-0.03, 1.03)
    top.yaxis.set_major_formatter(PercentFormatter(1))
    top.set_ylabel("probability")
    middle.set_ylabel(f"expected cost\n({decision.currency})")
    middle.set_ylim(bottom=0)
    if table[[f"p.{s}" for s in decision.states]].isna().all(axis=None):
        top.text(0.5, 0.5, "the written rule proposes", transform=top.transAxes, ha="center", color=INK)
    _final(strip, x, table, decision)
    _mark_now((top, middle, strip), x, table, now)
    if words:
        strip.set_xticks(x, table["value"].tolist())
    if signal:
        strip.set_xscale("log", base=2)
        strip.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
    strip.set_xlabel(f"{field}, its window times" if signal else _named(field, decision))
    turns = int((table["ordered"] != table["ordered"].shift()).iloc[1:].sum())
    return Plot(
        figure,
        title,
        "Dashed: as it was. Below: what would be ordered, gates included ('nothing new': what is in force "
        f"stays). All else is as recorded. Along this scale the order changes {_times(turns)}. It is what "
        "the device would have done, not what would have happened.",
    )


def _times(n: int) -> str:
    return "not at all" if n == 0 else "once" if n == 1 else f"{n} times"


def _named(field: str, decision: Decision) -> str:
    declared = decision.context[field.removeprefix("context.")]
    return field if declared.values is not None or not declared.unit else f"{field} ({declared.unit})"


def _mark_now(axes: tuple[Axes, ...], x: Any, table: pd.DataFrame, now: Any) -> None:
    if now is None:
        return
    tried = table["value"].tolist()
    if isinstance(now, str) and now not in tried:
        return
    at = float(x[tried.index(now)]) if isinstance(now, str) else now
    for ax in axes:
        ax.axvline(at, color=INK, lw=1, ls="--")


def _final(ax: Axes, x: Any, table: pd.DataFrame, decision: Decision) -> None:
    """A bar below each value, coloured by what would be ordered."""
    colours = colour_of(list(decision.actions)) | {ASKED: COLOURS[4], NOTHING: _OTHER}
    room = 0.5 if isinstance(table["value"].iloc[0], str) else 0.0
    edges = np.concatenate([[x[0] - room], (x[1:] + x[:-1]) / 2, [x[-1] + room]])
    ordered = table["ordered"].to_numpy(dtype=object)
    for name in dict.fromkeys(ordered):
        spans = [(edges[i], edges[i + 1] - edges[i]) for i in np.flatnonzero(ordered == name)]
        ax.broken_barh(spans, (0, 1), color=colours.get(name, _PALE), label=name)
    ax.set_ylim(0, 1)
    ax.set_yticks([])
    ax.set_ylabel("ordered", rotation=0, ha="right", va="center")
    ax.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))


def occlusion_figure(table: pd.DataFrame, state: str, *, most: int = 14) -> Plot:
    """What each column did to the probability of one state.

    Args:
        table: as ``why.occlusion`` gives it.
        state: whose probability.
        most: columns to show.
    """
    column = f"p.{state}"
    shown = table.loc[table[column].abs().sort_values(ascending=False, kind="stable").index].head(most)
    title = f"What the probability of '{state}' leans on (by occlusion)"
    figure, (ax,) = canvas(title, height=1.5 + 0.27 * max(1, len(shown)))
    change = shown[column].to_numpy(float)
    colours = [COLOURS[1] if c > 0 else COLOURS[0] for c in change]
    ax.barh(range(len(shown)), 100 * change, color=colours, height=0.62)
    names = [f"{n} = {v}" for n, v in zip(shown["column"], shown["value"], strict=True)]
    ax.set_yticks(range(len(shown)), names)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.axvline(0, color=INK, lw=0.9)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color="#e4e8eb", linewidth=0.7)
    ax.set_xlabel("what it did to the probability (percentage points)")
    return Plot(
        figure,
        title,
        "By occlusion: one column at a time is replaced by its median in training (history and context: made "
        f"unknown). Orange: its value made '{state}' likelier, blue: less likely. Columns that tell the same "
        "can stand in for one another and then seem idle; bars do not add up.",
    )
