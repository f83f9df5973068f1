"""Figures of what was learned: calibration, money, confusion, leaks, speed; rounds from ``plots_rounds``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab.figures import COLOURS, FAINT, INK, PAPER, Plot, canvas, colour_of, quiet, side_by_side
from aiotkit.lab.leaks import LeakAudit
from aiotkit.lab.plots_rounds import drift_figure, money_by_round, probabilities_over_time

__all__ = [
    "confusion",
    "drift_figure",
    "latency_bars",
    "leak_figure",
    "money_by_family",
    "money_by_round",
    "probabilities_over_time",
    "reliability_diagram",
]

GOOD, BAD = COLOURS[2], COLOURS[1]
_BINS = 10
#: scores of the leak audit, and what its columns carry: words and colour of each, from left and top
_SCORES = {
    "row-shuffled folds": ("rows shuffled", FAINT),
    "folds used": ("folds used", COLOURS[0]),
    "folds used, without columns that carry time": ("without columns\nthat carry time", COLOURS[5]),
}
_KINDS = {
    "measured": ("measured", "#b9c3cb"),
    "counter": ("follows the time", BAD),
    "calendar": ("calendar", COLOURS[3]),
}


def reliability_diagram(p: NDArray[Any], states: Sequence[str] | pd.Series, decision: Decision) -> Plot:
    """How often a state came when the model gave it a probability, with how many rows say so.

    Args:
        p: ``[rows, states]`` in the order of ``decision.states``, of rows the model had not seen.
        states: the believed state of each row.
        decision: its states; the normal one (``outcome.silence``) is left out if there are only two.
    """
    truth, names = np.asarray(states, dtype=object), list(decision.states)
    normal = decision.outcome.silence
    shown = [s for s in names if len(names) > 2 or s != normal][:4]
    title = "Do the probabilities keep their word?"
    figure, (ax, below) = canvas(title, width=6.4, height=5.0, ratios=(3, 1))
    ax.plot([0, 1], [0, 1], color=FAINT, lw=1, ls="--", label="as said")
    colours, error = colour_of(shown), {}
    for i, state in enumerate(shown):
        said, came = p[:, names.index(state)], truth == state
        place = np.minimum((said * _BINS).astype(int), _BINS - 1)
        count = np.bincount(place, minlength=_BINS)
        held = count > 0
        mean = np.bincount(place, said, _BINS)[held] / count[held]
        share = np.bincount(place, came, _BINS)[held] / count[held]
        low, high = _wilson(share, count[held])
        ax.errorbar(
            mean, share, yerr=[share - low, high - share], color=colours[state], marker="o", ms=5, lw=1.6,
            elinewidth=1, capsize=2, label=state,
        )  # fmt: skip
        width = 0.8 / _BINS / len(shown)
        below.bar((np.arange(_BINS) + 0.1) / _BINS + (i + 0.5) * width, count, width, color=colours[state])
        error[state] = float((count[held] * np.abs(mean - share)).sum() / len(truth))
    ax.set_ylabel("share in which it came")
    ax.set_ylim(-0.02, 1.02)
    below.set_yscale("symlog", linthresh=1)
    below.set_ylim(0, 2 * max(1, len(truth)))
    below.set_ylabel("rows")
    below.set_xlim(0, 1)
    below.set_xlabel("probability the model gave")
    for axis in (ax.yaxis, below.xaxis):
        axis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)
    gaps = ", ".join(f"'{s}' {e:.1%}" for s, e in error.items())
    return Plot(
        figure,
        title,
        "On the dashed line a probability can be taken at its word; above it the model says too little, "
        "below it too much. Bars are 95 % intervals that take rows for independent; below, on how many rows "
        f"each point rests. Mean gap: {gaps}.",
    )


def _wilson(share: NDArray[Any], n: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """95 % interval of a share (Wilson 1927), which holds the share itself."""
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return np.minimum(middle - half, share), np.maximum(middle + half, share)


def money_by_family(
    comparison: pd.DataFrame, *, chosen: str, currency: str = "EUR", refused: Mapping[str, str] | None = None
) -> Plot:
    """What each family of heads would cost on rows it had not seen, beside policies without a model.

    Args:
        comparison: as ``judge.compare`` gives it.
        chosen: the family that is kept.
        currency: of the money.
        refused: family -> why it was not judged, named in the caption.
    """
    baseline = str(comparison.attrs.get("baseline", ""))
    title = "What each head would cost"
    figure, (left, right) = side_by_side(title, height=1.5 + 0.34 * len(comparison))
    names, money = comparison["policy"].tolist(), comparison["money_per_subject_day"].to_numpy(float)
    left.barh(range(len(names)), money, color=[_mark(n, chosen, baseline) for n in names], height=0.62)
    for i, value in enumerate(money):
        left.annotate(
            f"{value:.2f}", (max(value, 0), i), (3, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    left.margins(x=0.16)
    left.set_yticks(range(len(names)), names)
    for label, name in zip(left.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name == chosen else "normal")
    left.set_xlabel(f"{currency} per subject-day")
    _differences(right, comparison, baseline)
    right.set_xlabel(f"difference to '{baseline}' ({comparison.attrs.get('level', 0.95):.0%} interval)")
    left.set_ylim(len(names) - 0.4, -0.6)
    made = comparison.attrs.get("words", "")
    left_out = "; ".join(f"{n}: {why}" for n, why in (refused or {}).items())
    return Plot(
        figure,
        title,
        f"Kept: '{chosen}' (bold). Left: lower is better. Right: green is surely cheaper than '{baseline}', "
        f"red surely dearer, grey undecided{f'; {made}' if made else ''}."
        + (f" Not judged: {left_out}." if left_out else ""),
    )


def _mark(name: str, chosen: str, baseline: str) -> str:
    return COLOURS[0] if name == chosen else INK if name == baseline else "#b9c3cb"


def _differences(ax: Axes, table: pd.DataFrame, baseline: str) -> None:
    """Points and intervals of the difference to the baseline, one line a row."""
    for i, row in enumerate(table.to_dict("records")):
        if row["policy"] == baseline:
            ax.annotate(
                "baseline",
                (0, i),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=FAINT,
            )
            continue
        colour = FAINT if not row["sure"] else GOOD if row["difference"] < 0 else BAD
        if np.isfinite(row["low"]):
            ax.plot([row["low"], row["high"]], [i, i], color=colour, lw=3, solid_capstyle="round")
        ax.plot(row["difference"], i, "o", color=colour, ms=6)
    ax.axvline(0, color=INK, lw=0.9)


def confusion(states: Sequence[str], said: Sequence[str], decision: Decision) -> Plot:
    """What the model took each state for, as shares of that state's rows.

    Args:
        states: the believed state of each row.
        said: the likeliest state by the model, of rows it had not seen.
        decision: its states.
    """
    names = list(decision.states)
    if not len(states):
        raise DataError("confusion", expected="rows", found="none")
    counts = pd.crosstab(
        pd.Categorical(list(states), categories=names),
        pd.Categorical(list(said), categories=names),
        dropna=False,
    )
    table = counts.reindex(index=names, columns=names, fill_value=0).to_numpy(dtype=float)
    total = table.sum(axis=1, keepdims=True)
    share = np.divide(table, total, out=np.full_like(table, np.nan), where=total > 0)
    title = "What each state is taken for"
    figure, (ax,) = canvas(title, width=2.6 + 0.85 * len(names), height=1.7 + 0.55 * len(names))
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.grid(visible=False)
    for i in range(len(names)):
        for j in range(len(names)):
            if total[i, 0]:
                ax.text(
                    j, i, f"{share[i, j]:.1%}", ha="center", va="center", fontsize=9,
                    color="white" if share[i, j] > 0.55 else INK,
                )  # fmt: skip
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(
        range(len(names)), [f"{n}\n({int(t):,} rows)" for n, t in zip(names, total[:, 0], strict=True)]
    )
    ax.set_xlabel("the likeliest state, by the model")
    ax.set_ylabel("the state it was")
    recall = np.diag(share)
    known = [i for i in range(len(names)) if total[i, 0]]
    worst = min(known, key=lambda i: recall[i])
    return Plot(
        figure,
        title,
        f"Each row adds up to 100 %. Hardest to tell: '{names[worst]}', found in {recall[worst]:.1%} of its "
        "rows. Which mistakes matter is a question of costs: the policy, not this table, decides what is "
        "done.",
    )


def leak_figure(audit: LeakAudit) -> Plot:
    """The same quick model under shuffled and honest folds, and how much each column tells alone."""
    title = "Does anything but the machine's condition give the state away?"
    columns = audit.columns.head(12) if len(audit.columns) else audit.columns
    if not audit.scores:
        return _nothing_audited(title, audit)
    figure = _two_panels(title, height=2.2 + 0.2 * max(4, len(columns)))
    left, right = figure.axes
    scores = [(*look, audit.scores[name]) for name, look in _SCORES.items() if name in audit.scores]
    left.bar(range(len(scores)), [v for _, _, v in scores], color=[c for _, c, _ in scores], width=0.62)
    for i, (_, _, value) in enumerate(scores):
        left.annotate(
            f"{value:.3f}", (i, value), (0, 3), textcoords="offset points", ha="center", fontsize=9, color=INK
        )
    left.set_xticks(range(len(scores)), [words for words, _, _ in scores])
    left.set_ylim(0, 1.1)
    left.set_ylabel("balanced accuracy")
    if len(columns):
        kinds = columns["carries"].replace("", "measured").tolist()
        colours = [_KINDS[kind][1] for kind in kinds]
        right.barh(range(len(columns)), columns["auc"] - 0.5, left=0.5, color=colours, height=0.65)
        right.set_yticks(range(len(columns)), columns["column"].tolist())
        for words, colour in (look for kind, look in _KINDS.items() if kind in kinds):
            right.barh(-9, 0, color=colour, label=words)
        right.set_ylim(len(columns) - 0.4, -0.6)
        right.set_xlim(0.5, 1)
        right.legend(frameon=False, fontsize=8.5, loc="lower right")
    right.grid(axis="y", visible=False)
    right.grid(axis="x", color="#e4e8eb", linewidth=0.7)
    right.set_xlabel("how well the column alone ranks a state (area under ROC)")
    verdict = "Passed." if audit.passed else "Not passed."
    flagged = (
        " ".join(f"{f.name} ({f.severity}): {f.words}." for f in audit.flagged) or "Nothing was flagged."
    )
    return Plot(
        figure,
        title,
        f"{verdict} Left: one quick model, tested in two ways; a high grey bar beside a low blue one means "
        "that it recognises machines, not states, and the blue one counts. Right: the columns that tell "
        f"most. {flagged}",
    )


def _nothing_audited(title: str, audit: LeakAudit) -> Plot:
    figure, (ax,) = canvas(title, height=1.6)
    ax.set_axis_off()
    ax.text(0, 0.5, "Nothing could be audited; see below.", fontsize=10, color=INK, va="center")
    return Plot(figure, title, "Not passed. " + "; ".join(f.words for f in audit.findings) + ".")


def _two_panels(title: str, height: float) -> Figure:
    figure = Figure(figsize=(8.6, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    for ax in figure.subplots(1, 2, width_ratios=(2, 3)):
        quiet(ax)
    figure.axes[0].set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=10)
    return figure


def latency_bars(variants: pd.DataFrame, *, limit_us: float | None = None) -> Plot:
    """How long one decision's graph takes in each variant, p50 and p99.

    Args:
        variants: ``variant``, ``p50_us``, ``p99_us``, and, where known, ``size_bytes``, ``flips`` (share of
            changed decisions), ``chosen`` (bool), ``note``. A variant without figures is not applicable.
        limit_us: from the decision's limits.
    """
    title = "How long does the graph take?"
    figure, (ax,) = canvas(title, height=1.7 + 0.5 * len(variants))
    longest = float(np.nanmax([*variants["p99_us"].to_numpy(float), limit_us or 0.0, 1.0]))
    for i, row in enumerate(variants.to_dict("records")):
        if not np.isfinite(row["p50_us"]):
            ax.text(0.01 * longest, i, f"not applicable: {row.get('note') or 'no reason given'}", va="center",
                    fontsize=8.5, color=INK)  # fmt: skip
            continue
        colour = COLOURS[0] if row.get("chosen") else "#b9c3cb"
        ax.barh(i, row["p50_us"], color=colour, height=0.55)
        ax.plot([row["p50_us"], row["p99_us"]], [i, i], color=INK, lw=1.2)
        ax.plot(row["p99_us"], i, "|", color=INK, ms=10, mew=1.5)
        ax.annotate(
            _about(row), (row["p99_us"], i), (6, 0), textcoords="offset points", va="center", fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    if limit_us is not None:
        ax.axvline(limit_us, color=INK, lw=1.4, ls="--", zorder=0, label="limit for p99")
        figure.legend(loc="outside lower center", frameon=False, fontsize=8.5)
    ax.set_xlim(0, 1.8 * longest)  # room for the words
    ax.set_yticks(range(len(variants)), variants["variant"].tolist())
    ax.set_ylim(len(variants) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color="#e4e8eb", linewidth=0.7)
    ax.set_xlabel("one row, one thread (µs)")
    return Plot(
        figure,
        title,
        "Bar: median (p50); line: up to p99. Blue: the variant that is released. A smaller number type is "
        "worth it only where it is faster or smaller here and changes no decision that costs money.",
    )


def _about(row: Mapping[Any, Any]) -> str:
    parts = [f"{row['p50_us']:.0f} / {row['p99_us']:.0f} µs"]
    if np.isfinite(row.get("size_bytes", np.nan)):
        parts.append(f"{row['size_bytes'] / 1e3:.0f} kB")
    if np.isfinite(row.get("flips", np.nan)):
        parts.append(f"{row['flips']:.1%} of decisions change")
    return ", ".join(parts)
