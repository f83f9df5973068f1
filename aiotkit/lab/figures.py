"""The look of every figure: a plot with its title and the caption that says what to see.

Figures are made without pyplot, so that nothing global is touched and a batch job needs no display.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, FAINT, PAPER = "#22303c", "#8a97a3", "#ffffff"
#: told apart by people with any colour vision (Okabe and Ito 2008)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6b2c", "#5b5b5b")
_LARGEST_SVG = 400_000  # bytes; beyond it a figure is embedded as pixels


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure, its title, and a caption that says what to see. Shows itself in a notebook."""

    figure: Figure
    title: str
    caption: str

    def png(self, dpi: int = 144) -> bytes:
        """The figure in pixels."""
        out = io.BytesIO()
        self.figure.savefig(out, format="png", dpi=dpi, facecolor=PAPER, metadata={"Software": None})
        return out.getvalue()

    def svg(self) -> bytes:
        """The figure as SVG: the same bytes each time, text as outlines."""
        out = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "aiotkit", "svg.fonttype": "path"}):
            self.figure.savefig(out, format="svg", facecolor=PAPER, metadata={"Date": None})
        return out.getvalue()

    def to_html(self) -> str:
        """A ``<figure>`` that needs nothing from outside."""
        image, kind = self.svg(), "svg+xml"
        if len(image) > _LARGEST_SVG:
            image, kind = self.png(), "png"
        width = round(float(self.figure.get_figwidth()) * 96)
        data = base64.b64encode(image).decode()
        words = html.escape(self.caption)
        alt = html.escape(f"{self.title}. {self.caption}", quote=True)
        return (
            f'<figure><img alt="{alt}" width="{width}" src="data:image/{kind};base64,{data}">'
            f"<figcaption>{words}</figcaption></figure>"
        )

    def _repr_html_(self) -> str:
        return self.to_html()


def canvas(
    title: str, *, width: float = 7.6, height: float = 3.8, ratios: Sequence[float] = (1,)
) -> tuple[Figure, list[Axes]]:
    """A figure of stacked panels that share their x axis, with a title at the top left.

    Sizes are in inches; ``ratios`` gives the relative height of each panel.
    """
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(ratios), 1, sharex=len(ratios) > 1, squeeze=False, height_ratios=list(ratios))
    axes: list[Axes] = [grid[i, 0] for i in range(len(ratios))]
    for ax in axes:
        quiet(ax)
    axes[0].set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=10)
    return figure, axes


def quiet(ax: Axes) -> None:
    """Axes that stay behind the data."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)
    ax.tick_params(colors=INK, labelsize=8.5, length=3)
    ax.grid(axis="y", color="#e4e8eb", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.xaxis.label.set(color=INK, fontsize=9)
    ax.yaxis.label.set(color=INK, fontsize=9)


def colour_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, in the order given."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(names))}


def legend(ax: Axes, **options: Any) -> None:
    """A legend without a frame."""
    ax.legend(frameon=False, fontsize=8.5, labelcolor=INK, **options)


def span_in_words(seconds: float) -> str:
    """A span of time for people.

    >>> span_in_words(0.25), span_in_words(90), span_in_words(86400), span_in_words(5400)
    ('250 ms', '90 s', '24 h', '1.5 h')
    """
    if not np.isfinite(seconds):
        return str(seconds)
    if abs(seconds) < 1:
        return f"{seconds * 1e3:.3g} ms"
    for size, unit, upto in ((1, "s", 120), (60, "min", 90 * 60), (3600, "h", 72 * 3600)):
        if abs(seconds) <= upto and not (unit == "min" and abs(seconds) >= 5400):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"


def side_by_side(title: str, *, width: float = 8.6, height: float = 3.4) -> tuple[Figure, tuple[Axes, Axes]]:
    """Two panels that share their y axis, for the same rows in two measures."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, 2, sharey=True, squeeze=False)
    left, right = grid[0, 0], grid[0, 1]
    for ax in (left, right):
        quiet(ax)
        ax.grid(axis="y", visible=False)
        ax.grid(axis="x", color="#e4e8eb", linewidth=0.7)
    left.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=10)
    return figure, (left, right)
