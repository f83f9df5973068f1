"""Figures of training: they show the numbers they were given, carry words, and are the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiotkit.core.decision import parse_decision
from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

START_US = 1_767_225_600_000_000  # 2026-01-01


def learned(decision: Any, n: int = 600) -> tuple[Any, Any]:
    """Rows of three pumps and probabilities that keep their word."""
    rng = np.random.default_rng(4)
    p = rng.dirichlet([2, 0.6, 0.4], n)
    states = np.array(list(decision.states), dtype=object)[
        (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    ]
    at = START_US + np.tile(np.arange(n // 3), 3) * 3_600_000_000
    rows = pd.DataFrame({"subject": np.repeat(["a", "b", "c"], n // 3), "at_us": at, "state": states})
    return rows, p


def audit_of(*, scored: bool) -> Any:
    """An audit as ``leaks.audit`` gives it."""
    from aiotkit.lab.leaks import Finding, LeakAudit

    if not scored:
        return LeakAudit((Finding("data", "unchecked", "too little to audit"),), {}, pd.DataFrame())
    columns = pd.DataFrame(
        {"column": ["hours.last", "vib.rms"], "auc": [0.97, 0.8], "state": "broken", "precision": 0.5,
         "recall": 0.5, "carries": ["counter", ""]}
    )  # fmt: skip
    scores = {
        "row-shuffled folds": 0.997,
        "folds used": 0.81,
        "folds used, without columns that carry time": 0.7,
    }
    return LeakAudit((Finding("counter", "leak", "leave out hours.last"),), scores, columns)


def rounds() -> Any:
    """Four policies over five rounds, the world changing at the third."""
    money = {"learned": [40, 41, 52, 38, 30], "rule": [40, 41, 60, 61, 60], "oracle": [20, 21, 25, 25, 24]}
    rows = [
        {"round": i, "policy": name, "money_per_subject_day": v, "low": v - 3, "high": v + 3,
         "verdict": {1: "refused", 3: "approved"}.get(i)}
        for name, values in money.items() for i, v in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def variants() -> Any:
    """One variant that is released, one that is slower, one that cannot be had."""
    rows = {
        "variant": ["float32", "dynamic", "static"], "p50_us": [180.0, 390.0, np.nan],
        "p99_us": [240.0, 520.0, np.nan], "size_bytes": [9e4, 4e4, np.nan], "flips": [0.0, 0.003, np.nan],
        "chosen": [True, False, False], "note": ["", "", "trees cannot be quantized"],
    }  # fmt: skip
    return pd.DataFrame(rows)


def moved() -> Any:
    """A drift table: one feature that moved, one that did not, one that says nothing."""
    rows = {
        "feature": ["vib.rms", "oil.last", "a.mean"],
        "drift": [0.4, 0.0, np.nan],
        "mean_shift": [1.2, 0.0, 0.1],
    }
    return pd.DataFrame(rows)


def draw(name: str, decision: Any) -> Any:
    """One of the figures."""
    from aiotkit.lab import plots_training as plots
    from aiotkit.lab.judge import actions_of, compare, references

    rows, p = learned(decision)
    actions = actions_of(p, decision)
    if name == "reliability":
        return plots.reliability_diagram(p, rows["state"], decision)
    if name == "money":
        table = compare(
            rows, references(rows, decision) | {"forest": actions}, decision, baseline="always run", seed=1
        )
        return plots.money_by_family(table, chosen="forest", refused={"cnn": "no windows"})
    if name == "confusion":
        said = np.array(list(decision.states), dtype=object)[p.argmax(axis=1)]
        return plots.confusion(rows["state"].tolist(), said.tolist(), decision)
    if name == "believed":
        return plots.probabilities_over_time(rows, p, actions.tolist(), decision, subject="b")
    if name == "rounds":
        return plots.money_by_round(rounds(), drift_from=2)
    if name == "drift":
        return plots.drift_figure(moved(), limit=0.3)
    if name == "latency":
        return plots.latency_bars(variants(), limit_us=300)
    return plots.leak_figure(audit_of(scored=name == "leaks"))


ALL = ("reliability", "money", "confusion", "believed", "rounds", "drift", "latency", "leaks", "no leaks")


@pytest.mark.parametrize("name", ALL)
def test_every_figure_has_a_title_a_caption_units_and_the_same_bytes(name: str, guard: Any) -> None:
    """Title, caption and axis labels are there, and drawing twice gives the same SVG."""
    plot, again = draw(name, guard), draw(name, guard)
    assert plot.svg() == again.svg()
    assert len(plot.caption) > 30
    assert plot.caption.endswith(".")
    assert plot.figure.axes[0].get_title(loc="left") == plot.title
    if name != "no leaks":
        assert plot.figure.axes[-1].get_xlabel()
        assert all(ax.get_xlabel() or ax.get_ylabel() for ax in plot.figure.axes)


def test_the_caption_says_the_number_that_matters(guard: Any) -> None:
    """Mean calibration gap, worst state, baseline and refusals, verdict of the audit."""
    rows, p = learned(guard)
    states = list(guard.states)
    recall = {
        s: float((p[(rows["state"] == s).to_numpy()].argmax(axis=1) == i).mean())
        for i, s in enumerate(states)
    }
    worst = min(recall, key=lambda s: recall[s])
    assert f"Hardest to tell: '{worst}', found in {recall[worst]:.1%}" in draw("confusion", guard).caption
    assert "Mean gap: 'ok'" in draw("reliability", guard).caption
    assert "than 'always run'" in draw("money", guard).caption
    assert "Not judged: cnn: no windows." in draw("money", guard).caption
    assert "Not passed." in draw("leaks", guard).caption
    assert "Not shown: 1, with less drift" in draw("drift", guard).caption


def test_a_calibrated_model_lies_on_the_line(guard: Any) -> None:
    """Points of probabilities that keep their word hold the dashed line within their bars."""
    plot = draw("reliability", guard)
    bars = plot.figure.axes[0].containers
    assert len(bars) == 3
    inside = []
    for bar in bars:
        x, y = bar.lines[0].get_data()
        lows = [segment[0][1] for segment in bar.lines[2][0].get_segments()]
        highs = [segment[1][1] for segment in bar.lines[2][0].get_segments()]
        inside += [low <= at <= high for at, low, high in zip(x, lows, highs, strict=True)]
        assert len(y) == len(x)
    assert np.mean(inside) > 0.85


def test_rounds_show_drift_and_verdicts(guard: Any) -> None:
    """The legend names policies and verdicts; a missing column is named with a hint."""
    from aiotkit.lab.plots_training import money_by_round

    plot = draw("rounds", guard)
    words = [t.get_text() for t in plot.figure.legends[0].get_texts()]
    assert words == ["learned", "rule", "oracle", "candidate approved", "candidate refused"]
    bare = rounds()[["round", "policy", "money_per_subject_day"]]
    assert len(money_by_round(bare).figure.legends[0].get_texts()) == 3
    with pytest.raises(DataError, match="column 'round' is missing"):
        money_by_round(bare.rename(columns={"round": "rnd"}))


def test_the_legend_speaks_in_plain_words_and_the_first_policy_is_drawn_thick() -> None:
    """Names for people where they are given, else without underscores; the caption names the thick line."""
    from aiotkit.lab.plots_training import money_by_round

    table = rounds().replace({"policy": {"learned": "field", "rule": "tuned_threshold"}})
    plot = money_by_round(table, words={"field": "the fleet"})
    names = [t.get_text() for t in plot.figure.legends[0].get_texts()]
    assert names[:3] == ["the fleet", "tuned threshold", "oracle"]
    widths = [line.get_linewidth() for line in plot.figure.axes[0].get_lines()[:3]]
    assert widths[0] > max(widths[1:])
    assert "The thick line (the fleet) should" in plot.caption


def test_leak_colours_follow_the_kind_not_the_order() -> None:
    """An audit read back from a file has its scores sorted by name, and looks the same."""
    from matplotlib.colors import to_hex

    from aiotkit.lab.figures import COLOURS, FAINT
    from aiotkit.lab.leaks import LeakAudit
    from aiotkit.lab.plots_training import leak_figure

    audit = audit_of(scored=True)
    other = LeakAudit(audit.findings, dict(sorted(audit.scores.items())), audit.columns)
    assert list(other.scores) != list(audit.scores)
    assert leak_figure(other).svg() == leak_figure(audit).svg()
    left = leak_figure(other).figure.axes[0]
    shown = zip(left.get_xticklabels(), left.patches, strict=True)
    colours = {label.get_text(): to_hex(bar.get_facecolor()) for label, bar in shown}
    assert (colours["rows shuffled"], colours["folds used"]) == (FAINT, COLOURS[0])
    turned = LeakAudit(audit.findings, audit.scores, audit.columns.iloc[::-1].reset_index(drop=True))
    legends = [leak_figure(a).figure.axes[1].get_legend() for a in (audit, turned)]
    assert [[t.get_text() for t in found.get_texts()] for found in legends] == [
        ["measured", "follows the time"]
    ] * 2


def test_what_cannot_be_drawn_is_refused(document: dict[str, Any], guard: Any) -> None:
    """An unknown subject and an empty confusion are named; one row, or one state, still draws."""
    from aiotkit.lab import plots_training as plots

    rows, p = learned(guard)
    with pytest.raises(DataError, match="subject 'd'"):
        plots.probabilities_over_time(rows, p, ["run"] * len(rows), guard, subject="d")
    with pytest.raises(DataError, match="confusion; expected rows"):
        plots.confusion([], [], guard)
    assert plots.confusion(["ok"], ["worn"], guard).svg()
    assert plots.probabilities_over_time(rows[:1], p[:1], ["run"], guard, subject="a").svg()
    assert plots.reliability_diagram(p[:1], rows["state"][:1], guard).svg()
    alone = parse_decision(document | {"human": {"cost": 1, "delay_s": 1, "reliability": 1}})
    hidden = rows.assign(state=None)
    assert plots.probabilities_over_time(hidden, p, ["ask"] * len(rows), alone, subject="a").svg()
    assert plots.drift_figure(moved()[2:]).svg()
