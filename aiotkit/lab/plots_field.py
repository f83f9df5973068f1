"""Figures of what happened: a machine over time, an outage, the gates, the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from numpy.typing import NDArray

from aiotkit.core.errors import DataError, did_you_mean
from aiotkit.lab.figures import COLOURS, FAINT, INK, Plot, canvas, colour_of

Instants = Sequence[pd.Timestamp] | pd.Series | NDArray[np.int64]
VERDICTS = {"ALLOW": COLOURS[2], "ASK": COLOURS[4], "HOLD": COLOURS[1], "INDETERMINATE": COLOURS[3]}
STATUSES = {
    "mature": COLOURS[2],
    "verified": COLOURS[0],
    "censored": COLOURS[4],
    "pending": COLOURS[5],
    "unlabelled": FAINT,
}
_MOST_POINTS = 4000


def timeline(
    decisions: pd.DataFrame,
    features: Sequence[str],
    *,
    outcomes: pd.DataFrame | None = None,
    limits: Mapping[str, Sequence[float]] | None = None,
    units: Mapping[str, str] | None = None,
    subject: str = "",
) -> Plot:
    """One machine over time: features, the action in force, and what was observed of it.

    Args:
        decisions: of one journal, as ``journal.decisions_frame`` gives them.
        features: columns to draw, one panel each, such as ``feature.vib.rms`` or ``p.worn``.
        outcomes: columns ``at`` and ``state``: drawn where they happened.
        limits: column -> lines to draw, such as the rule's limits.
        units: column -> unit for its axis.
        subject: its name, for the title.
    """
    for name in features:
        if name not in decisions.columns:
            raise DataError(
                f"column '{name}'", expected="a column of the frame", do=did_you_mean(name, decisions.columns)
            )
    title = f"What happened to {subject or 'the machine'}, and what was done"
    figure, axes = canvas(title, width=9, height=1.7 * len(features) + 1.3, ratios=[*[3] * len(features), 1])
    shown = decisions.sort_values("at").reset_index(drop=True)
    at = pd.to_datetime(shown["at"], utc=True)
    step = _usual_step(at)
    lines = _with_gaps(shown[list(features)].astype(float), at, step)
    for ax, name in zip(axes, features, strict=False):
        ax.plot(lines.index.to_numpy(), lines[name].to_numpy(), color=COLOURS[0], lw=1)
        for limit in (limits or {}).get(name, ()):
            ax.axhline(limit, color=INK, lw=0.9, ls="--")
        _keep_in_view(ax, lines[name], (limits or {}).get(name, ()))
        unit = (units or {}).get(name, "")
        ax.set_ylabel(f"{name.removeprefix('feature.')}" + (f"\n({unit})" if unit else ""))
    strip = axes[-1]
    _actions(strip, at, shown["in_force"], step)
    if outcomes is not None and len(outcomes):
        _mark_outcomes(axes, outcomes)
    _dates(strip)
    handles, labels = strip.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8.5)
    return Plot(
        figure,
        title,
        f"Above: what the device saw{' (dashed: the limits of the rule)' if limits else ''}; values far "
        "outside the usual are cut off. Below: the action in force after each decision. Vertical lines are "
        "states people reported, drawn where they happened. Look for actions without a rise before them, and "
        "for reports that no action preceded.",
    )


def _with_gaps(values: pd.DataFrame, at: pd.Series, step: pd.Timedelta) -> pd.DataFrame:
    """At most some thousand rows, indexed by time, with an empty row where decisions stopped coming."""
    thin = max(1, len(values) // _MOST_POINTS)
    lines = values.iloc[::thin].set_index(pd.DatetimeIndex(at.iloc[::thin]))
    late = at[at.diff() > 5 * step]
    holes = pd.DataFrame(np.nan, index=pd.DatetimeIndex(late - step), columns=values.columns)
    return lines if holes.empty else pd.concat([lines, holes]).sort_index()


def _usual_step(at: pd.Series) -> pd.Timedelta:
    steps = at.diff().dropna()
    return pd.Timedelta(steps.median()) if len(steps) else pd.Timedelta(seconds=1)


def _actions(ax: Axes, at: pd.Series, in_force: pd.Series, step: pd.Timedelta) -> None:
    """A bar for each stretch of one action, ended where decisions stopped coming."""
    names = in_force.astype(object).where(in_force.notna(), "none").astype(str)
    colours = colour_of(sorted(set(names) - {"none"})) | {"none": "#d9dee2"}
    new = (names != names.shift()) | (at.diff() > 5 * step)
    groups = new.cumsum()
    for name in sorted(set(names)):
        bars = [
            (g.iloc[0], max(g.iloc[-1] - g.iloc[0] + step, step))
            for _, g in at[names == name].groupby(groups[names == name])
        ]
        spans: list[Any] = [(start.to_pydatetime(), width.to_pytimedelta()) for start, width in bars]
        ax.broken_barh(
            spans, (0, 1), color=colours[name], label="no action in force" if name == "none" else name
        )
    ax.set_ylim(0, 1)
    ax.set_yticks([])
    ax.set_ylabel("in force")


def _keep_in_view(ax: Axes, values: pd.Series, limits: Sequence[float]) -> None:
    """Show the usual range and every limit; a faulty value must not flatten the rest."""
    good = values[np.isfinite(values)]
    if good.empty:
        return
    low, high = float(good.quantile(0.002)), float(good.quantile(0.998))
    low, high = min([low, *limits]), max([high, *limits])
    room = 0.08 * (high - low) or 0.5
    ax.set_ylim(low - room, high + room)


def _mark_outcomes(axes: Sequence[Axes], outcomes: pd.DataFrame) -> None:
    looks = [(c, line) for line in ("-", "-.", ":") for c in (COLOURS[3], INK, COLOURS[6], COLOURS[5])]
    for i, (state, rows) in enumerate(outcomes.groupby("state")):
        colour, line = looks[i % len(looks)]
        instants = pd.to_datetime(rows["at"], utc=True).to_numpy(dtype="datetime64[us]")
        for ax in axes:
            low, high = ax.get_ylim()
            label = f"reported: {state}" if ax is axes[-1] else ""
            ax.vlines(instants, low, high, color=colour, lw=1.2, ls=line, label=label)
            ax.set_ylim(low, high)


def _dates(ax: Axes) -> None:
    locator: Any = AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    ax.set_xlabel("time (UTC)")


def outage_timeline(
    decided_us: Instants, delivered_us: Instants, *, outages: Sequence[tuple[int, int]] = ()
) -> Plot:
    """Decisions made against decisions delivered, over time.

    Args:
        decided_us: when each was decided (µs UTC, or timestamps).
        delivered_us: when each delivered one arrived.
        outages: (from, to) in µs UTC in which the link was down.
    """
    title = "Nothing was lost while the link was down" if outages else "Every decision was delivered"
    decided, delivered = _sorted_us(decided_us), _sorted_us(delivered_us)
    if len(delivered) < len(decided):
        title = f"{len(decided) - len(delivered):,} decisions are not delivered yet"
    figure, axes = canvas(title, height=4.4, ratios=(3, 2))
    for start, end in outages:
        for ax in axes:
            ax.axvspan(_stamp(start), _stamp(end), color=FAINT, alpha=0.25, lw=0)
    for values, colour, label in ((decided, COLOURS[0], "decided"), (delivered, COLOURS[2], "delivered")):
        axes[0].step(
            _stamps(values), np.arange(1, len(values) + 1), where="post", color=colour, lw=1.8, label=label
        )
    axes[0].set_ylabel("decisions so far")
    axes[0].legend(frameon=False, fontsize=8.5, loc="upper left")
    grid = np.unique(np.concatenate([decided, delivered]))
    waiting = np.searchsorted(decided, grid, "right") - np.searchsorted(delivered, grid, "right")
    axes[1].fill_between(_stamps(grid), waiting, step="post", color=COLOURS[4], alpha=0.6, lw=0)
    axes[1].set_ylabel("waiting on\nthe device")
    axes[1].set_ylim(bottom=0)
    _dates(axes[1])
    most = int(waiting.max()) if len(waiting) else 0
    return Plot(
        figure,
        title,
        "Grey: the link was down. The device went on deciding (blue) and kept its journal; delivery (green) "
        f"caught up afterwards. At most {most:,} decisions waited; {len(decided):,} were decided, "
        f"{len(delivered):,} delivered.",
    )


def _sorted_us(values: Instants) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return np.sort(array.astype(np.int64))
    stamps = pd.to_datetime(pd.Series(values), utc=True).to_numpy(dtype="datetime64[us]")
    return np.sort(stamps.astype(np.int64))


def _stamp(us: int) -> Any:
    return pd.Timestamp(us, unit="us", tz="UTC").to_pydatetime()


def _stamps(us: NDArray[np.int64]) -> NDArray[np.datetime64]:
    return us.astype("datetime64[us]")


def gate_counts(verdicts: pd.DataFrame) -> Plot:
    """How often each gate said anything but ALLOW, and what.

    Args:
        verdicts: columns ``gate`` and ``verdict``, as ``journal.gate_verdicts`` gives them.
    """
    title = "When the gates spoke"
    counts = verdicts.groupby(["gate", "verdict"]).size().unstack(fill_value=0)
    names = list(counts.index)
    spoke = {v: colour for v, colour in VERDICTS.items() if v != "ALLOW"}
    judged = int(counts.sum(axis=1).max()) if len(counts) else 0
    return _stacked(
        title,
        {v: [int(counts.loc[n, v]) if v in counts else 0 for n in names] for v in spoke},
        names,
        spoke,
        "decisions",
        f"Each of {judged:,} decisions went past every gate; shown is what was not allowed: withheld, "
        "sent to a person, or not to be judged. A gate that never speaks may be mistaken, one that always "
        "speaks stops the work.",
    )


def label_statuses(labels: pd.DataFrame) -> Plot:
    """How many decisions have an honest label, by the state it names.

    Args:
        labels: columns ``status`` and ``state`` (empty where there is none).
    """
    title = "What we know of the outcomes"
    states = labels["state"].astype(object).where(labels["state"].notna(), "no state").astype(str)
    counts = pd.Series(1, index=labels.index).groupby([states, labels["status"]]).sum().unstack(fill_value=0)
    names = sorted(counts.index, key=lambda n: (n == "no state", n))
    known = {**STATUSES, **{s: COLOURS[6] for s in counts.columns if s not in STATUSES}}
    return _stacked(
        title,
        {s: [int(counts.loc[n, s]) if s in counts else 0 for n in names] for s in known},
        names,
        known,
        "decisions",
        "Mature: the waiting time is over. Verified: checked at random, whatever was done. Censored: an "
        "action may have prevented the state, so it counts neither way. Pending: too early to tell.",
    )


def _stacked(
    title: str,
    parts: Mapping[str, Sequence[int]],
    names: Sequence[str],
    colours: Mapping[str, str],
    unit: str,
    caption: str,
) -> Plot:
    figure, (ax,) = canvas(title, height=1.5 + 0.45 * max(1, len(names)))
    left = np.zeros(len(names))
    for part, values in parts.items():
        if any(values):
            ax.barh(range(len(names)), values, left=left, height=0.62, color=colours[part], label=part)
            left += np.asarray(values, dtype=float)
    for i, total in enumerate(left):
        ax.annotate(f" {total:,.0f}", (total, i), va="center", fontsize=8.5, color=INK)
    ax.set_yticks(range(len(names)), list(names))
    ax.invert_yaxis()
    ax.margins(x=0.1)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color="#e4e8eb", linewidth=0.7)
    ax.set_xlabel(unit)
    if any(any(values) for values in parts.values()):
        figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=8.5)
    return Plot(figure, title, caption)
