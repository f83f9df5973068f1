"""Every figure of the desk, in one place to import from. Each has title, units and a caption."""

from __future__ import annotations

from aiotkit.lab.figures import Plot
from aiotkit.lab.plots_field import gate_counts, label_statuses, outage_timeline, timeline
from aiotkit.lab.plots_policy import break_even_curves, money_intervals, placement_bars, policy_surface

__all__ = [
    "Plot",
    "break_even_curves",
    "gate_counts",
    "label_statuses",
    "money_intervals",
    "outage_timeline",
    "placement_bars",
    "policy_surface",
    "timeline",
]
