"""Figures and pages: they carry words, need nothing from outside, and are the same each time."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiotkit.core.decision import parse_decision
from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")


def field(n: int = 200) -> Any:
    at = pd.date_range("2026-05-01", periods=n, freq="10min", tz="UTC")
    rows = {"at": at, "feature.vib.rms": np.linspace(1, 9, n), "in_force": ["run"] * (n - 20) + ["slow"] * 20}
    return pd.DataFrame(rows).drop(index=range(50, 80))


def surface(document: dict[str, Any]) -> Any:
    from aiotkit.lab.plots import policy_surface

    return policy_surface(parse_decision(document))


def two_states(document: dict[str, Any]) -> Any:
    from aiotkit.lab.plots import policy_surface

    return policy_surface(parse_decision(document), ("ok", "broken"))


def curves(document: dict[str, Any]) -> Any:
    from aiotkit.lab.plots import break_even_curves

    return break_even_curves(parse_decision(document))


def curves_unknown(document: dict[str, Any]) -> Any:
    from aiotkit.lab.plots import break_even_curves

    return break_even_curves(parse_decision(document | {"costs": "unknown"}))


def bars(document: dict[str, Any]) -> Any:
    from aiotkit.lab.plots import placement_bars

    return placement_bars({"device": {"decide": 3.0}, "cloud": {"decide": 1.0, "round trip": 900.0}}, 500.0)


def history(document: dict[str, Any]) -> Any:
    from aiotkit.lab.plots import timeline

    seen = pd.DataFrame({"at": [pd.Timestamp("2026-05-02T01:00Z")], "state": ["worn"]})
    return timeline(
        field(), ["feature.vib.rms"], outcomes=seen, limits={"feature.vib.rms": [7.0]}, subject="pump"
    )


def money(document: dict[str, Any]) -> Any:
    from aiotkit.lab.evaluate import policy_table
    from aiotkit.lab.plots import money_intervals

    base = pd.DataFrame({"subject": list("aabbcc"), "day": [1, 2] * 3, "money": [5.0, 9, 4, 8, 7, 2]})
    table = policy_table({"rule": base, "never": base.assign(money=base["money"] + 3)}, "rule", seed=1, n=50)
    return money_intervals(table)


def outage(document: dict[str, Any]) -> Any:
    from aiotkit.lab.plots import outage_timeline

    decided = np.arange(100) * 60_000_000
    arrived = np.where((decided > 2e9) & (decided < 4e9), 4_000_000_000, decided + 1000)
    return outage_timeline(decided, arrived, outages=[(2_000_000_000, 4_000_000_000)])


def gates(document: dict[str, Any]) -> Any:
    from aiotkit.lab.plots import gate_counts

    return gate_counts(pd.DataFrame({"gate": ["a", "a", "b"], "verdict": ["ALLOW", "HOLD", "INDETERMINATE"]}))


def statuses(document: dict[str, Any]) -> Any:
    from aiotkit.lab.plots import label_statuses

    return label_statuses(
        pd.DataFrame({"state": ["ok", None, "worn"], "status": ["mature", "pending", "verified"]})
    )


PLOTS: list[Callable[[dict[str, Any]], Any]] = [
    surface, two_states, curves, curves_unknown, bars, history, money, outage, gates, statuses,
]  # fmt: skip


@pytest.mark.parametrize("make", PLOTS, ids=lambda f: f.__name__)
def test_a_figure_has_title_axes_with_words_and_a_caption(make: Any, document: dict[str, Any]) -> None:
    """Every figure says what it shows, in which unit, and what to see."""
    plot = make(document)
    assert plot.title
    assert len(plot.caption) > 60
    assert plot.figure.axes[0].get_title(loc="left") == plot.title
    named = [ax.get_xlabel() or ax.get_ylabel() for ax in plot.figure.axes if ax.axison]
    assert all(named)
    assert plot.png(60).startswith(b"\x89PNG")


@pytest.mark.parametrize("make", [surface, history], ids=lambda f: f.__name__)
def test_a_figure_is_the_same_bytes_each_time(make: Any, document: dict[str, Any]) -> None:
    """Two runs give one SVG, without a date in it."""
    first, second = make(document).svg(), make(document).svg()
    assert first == second
    assert b"<dc:date>" not in first


def test_a_surface_shows_what_the_device_would_propose(document: dict[str, Any]) -> None:
    """Between three states too, with a person of little reliability and a margin: one price for asking."""
    from aiotkit.core.policy import least_expected_cost

    document["actions"]["slow"]["intervenes"] = True
    human = {"cost": 8, "delay_s": 60, "reliability": 0.8}
    decision = parse_decision(document | {"human": human, "policy": {"margin": 10}})
    ax = surface(document | {"human": human, "policy": {"margin": 10}}).figure.axes[0]
    shown = np.ma.filled(ax.collections[0].get_array(), np.nan)
    names, seen = [*decision.actions, "ask"], set()
    for i, j in np.random.default_rng(3).integers([20, 100], [400, 500], (400, 2)):
        top, at = float(i / 520), float(j / 600)
        p = (1 - top - (at - top / 2), at - top / 2, top)
        if min(p) > 0:
            said = least_expected_cost(dict(zip(decision.states, p, strict=True)), decision).action
            assert names[int(shown[i, j])] == said
            seen.add(said)
    assert "ask" in seen
    assert len(seen) > 1


def test_nothing_was_lost_is_only_said_when_it_is_so(document: dict[str, Any]) -> None:
    """The title of the outage figure follows the numbers."""
    from aiotkit.lab.plots import outage_timeline

    assert outage(document).title == "Nothing was lost while the link was down"
    assert outage_timeline(np.arange(10), np.arange(8)).title == "2 decisions are not delivered yet"


def test_figures_leave_pyplot_alone() -> None:
    """Drawing imports no pyplot: no window system, no global figures, safe in a batch job."""
    code = "import sys, aiotkit.lab.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_figures_refuse_what_they_cannot_show(document: dict[str, Any]) -> None:
    """Unknown costs and mistyped columns are refused in words."""
    from aiotkit.lab.plots import policy_surface, timeline

    unknown = parse_decision(document | {"costs": "unknown"})
    with pytest.raises(DataError, match="costs are unknown"):
        policy_surface(unknown)
    with pytest.raises(DataError, match="two or three states"):
        policy_surface(unknown, ("ok",))
    with pytest.raises(DataError, match=r"did you mean 'feature\.vib\.rms'"):
        timeline(field(), ["feature.vib.rsm"])


def test_a_page_needs_nothing_from_outside(document: dict[str, Any], tmp_path: Path) -> None:
    """Every source is inline; nothing that was written as text becomes markup."""
    from aiotkit.lab.report import Report

    table = [{"why": "<script>alert(1)</script>", "money_spent": 1234.5, "known": None, "sure": True}]
    page = Report("A & B", "sub <b>").section(
        "One", "text with `code` & **weight**\n\n- a\n- b", figure=two_states(document)
    )
    page.section("Two", "<img src=http://x>", table=table).section(
        "Three", figure=[gates(document), statuses(document)]
    )
    text = page.write(tmp_path / "deep" / "page.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources
    assert all(s.startswith(("data:image/", "#s")) for s in sources)
    assert "<script" not in text
    assert "<img src=http" not in text
    assert text.count("<figure>") == 3
    for piece in (
        "<strong>weight</strong>",
        "<code>code</code>",
        "<li>a</li><li>b</li>",
        "1,234",
        "money spent",
        "viewport",
    ):
        assert piece in text


def test_a_decision_becomes_a_page(guard: Any) -> None:
    """The page of a decision file holds its words, its policy and where it can run."""
    from aiotkit.core.placement import EXAMPLE_LINKS, EXAMPLE_TARGETS
    from aiotkit.lab.decision_page import decision_page

    page = decision_page(guard, EXAMPLE_TARGETS["gateway-site-cloud"], EXAMPLE_LINKS["plant-ethernet"]).html()
    for heading in ("What is decided", "What it costs", "What may hold it back", "Where it can run"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<figure>") == 3
