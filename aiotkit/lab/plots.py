"""Every figure of the desk, in one place to import from. Each has title, units and a caption."""

from __future__ import annotations

from aiotkit.lab.figures import Plot
from aiotkit.lab.plots_field import gate_counts, label_statuses, outage_timeline, timeline
from aiotkit.lab.plots_policy import break_even_curves, money_intervals, placement_bars, policy_surface
from aiotkit.lab.plots_rounds import drift_figure, money_by_round, probabilities_over_time
from aiotkit.lab.plots_training import (
    confusion,
    latency_bars,
    leak_figure,
    money_by_family,
    reliability_diagram,
)

__all__ = [
    "Plot",
    "break_even_curves",
    "confusion",
    "drift_figure",
    "gate_counts",
    "label_statuses",
    "latency_bars",
    "leak_figure",
    "money_by_family",
    "money_by_round",
    "money_intervals",
    "outage_timeline",
    "placement_bars",
    "policy_surface",
    "probabilities_over_time",
    "reliability_diagram",
    "timeline",
]
