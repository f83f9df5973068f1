"""A decision file as a page: its words, its policy, where it can run."""

from __future__ import annotations

from aiotkit.core import placement
from aiotkit.core.decision import Decision
from aiotkit.core.placement import Link, Target
from aiotkit.lab.explain import explain
from aiotkit.lab.figures import Plot
from aiotkit.lab.plots import break_even_curves, placement_bars, policy_surface
from aiotkit.lab.report import Report


def decision_page(decision: Decision, target: Target | None = None, link: Link | None = None) -> Report:
    """Words and figures of a decision file; with a target, where it can run."""
    name = decision.title or decision.id
    page = Report(name, f"{decision.id}, revision {decision.revision}, {decision.digest}")
    figures = {"What it costs": policy_figures(decision)}
    for heading, words in explain(decision).items():
        page.section(heading, words, figure=figures.get(heading))
    if target is not None:
        found = placement.place(decision, target, link)
        rows = [
            {
                "place": c.place,
                "question": k.name,
                "answer": k.holds,
                "because": k.reason,
                "would need": k.change if not k.holds else "",
            }
            for c in found.candidates
            for k in c.checks
        ]
        page.section(
            "Where it can run", found.verdict, figure=placement_figure(decision, target, link), table=rows
        )
    return page


def policy_figures(decision: Decision) -> list[Plot]:
    """Break-even curves, and the policy's surface where costs are known and states few enough to draw."""
    figures = [break_even_curves(decision)]
    if not isinstance(decision.costs, str) and len(decision.states) <= 3:
        figures.insert(0, policy_surface(decision))
    return figures


def placement_figure(decision: Decision, target: Target, link: Link | None) -> Plot | None:
    """Time a decision takes at each place there is, stage by stage; None when there is none."""
    sent = placement.window_bytes(decision) * 8
    places: dict[str, dict[str, float]] = {}
    for name in placement.PLACES:
        host = getattr(target, name)
        route = None if name == "device" or link is None else getattr(link, name)
        if host is None or (name != "device" and route is None):
            continue
        stages = {"decide (p99)": host.decide_p99_ms}
        if placement.needs_intent(decision):
            stages["intent on disk (p99)"] = host.fsync_p99_ms
        if route is not None:
            stages |= {
                "round trip (p99)": route.rtt_p99_ms,
                "sending the window": sent / (route.up_mbit_s * 1e3),
            }
        places[name] = stages
    return placement_bars(places, decision.needs.deadline_ms) if places else None
