"""Rows unlike anything in training are said to be so, and known ones are left in peace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.desk
pytest.importorskip("sklearn")

from aiotkit.lab.heads.base import Rows  # noqa: E402
from aiotkit.lab.novelty import learn_novelty  # noqa: E402
from aiotkit.lab.onnx_graph import Graph, run_graph  # noqa: E402


def three_states(n: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Six correlated columns; states lie apart in a direction that hardly varies within them."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n).astype(np.int64)
    load = rng.standard_normal((n, 1))
    x = load * np.arange(1, 7) + 0.1 * rng.standard_normal((n, 6))
    x[:, 1] += np.array([0.0, 2.0, -2.0])[y]
    return x.astype(np.float32), y


def test_known_rows_are_seldom_novel_and_strange_ones_always() -> None:
    """New rows of known states: few above 1. A broken relation between columns, each in range: above 1."""
    x, y = three_states(1500)
    novelty = learn_novelty(Rows(x, y, np.ones(len(y))))
    fresh, _ = three_states(1000, seed=1)
    assert 0 < (novelty.apply(fresh) > 1).mean() < 0.03
    strange = np.random.default_rng(2).permuted(fresh, axis=0)
    assert (novelty.apply(strange) > 1).mean() > 0.9


def test_a_state_never_seen_is_novel_though_every_column_is_in_range() -> None:
    """With one of three states left out, its rows are novel, whether it lies beside or between the others."""
    x, y = three_states(1500)
    for left_out in range(3):
        seen = y != left_out
        novelty = learn_novelty(
            Rows(x[seen], np.unique(y[seen], return_inverse=True)[1], np.ones(seen.sum()))
        )
        assert (novelty.apply(x[~seen]) > 1).mean() > 0.95, left_out
        assert (novelty.apply(x[seen]) > 1).mean() < 0.02, left_out


def test_what_is_not_known_is_not_novel() -> None:
    """Novelty is judged on imputed values: a missing value alone is no alarm, infinity is a missing value."""
    x, y = three_states(800)
    novelty = learn_novelty(Rows(x, y, np.ones(len(y))))
    row = np.median(x, axis=0, keepdims=True)
    gone = np.full_like(row, np.nan)
    broken = np.where(np.arange(6) == 3, np.float32(np.inf), gone)
    assert novelty.apply(gone) == pytest.approx(novelty.apply(row), rel=1e-5)
    assert novelty.apply(broken) == pytest.approx(novelty.apply(row), rel=1e-5)


def test_the_graph_measures_the_same_distance() -> None:
    """Distances of graph and library agree to a ten-thousandth, NaN rows among them."""
    x, y = three_states(600)
    x[::7, 2] = np.nan
    x[:, 5] += 1e6  # a counter: only its last digits matter
    novelty = learn_novelty(Rows(x, y, np.ones(len(y))))
    graph = Graph()
    out = novelty.add_to(graph, graph.input("x", 6))
    found = run_graph(graph.model({"novelty": (out, 1)}), {"x": x}, ("novelty",))[0]
    np.testing.assert_allclose(found[:, 0], novelty.apply(x), rtol=1e-5)


def test_more_columns_than_rows_still_have_a_limit() -> None:
    """Forty rows of sixty columns: no crash, and the next rows of the same kind are mostly known."""
    rng = np.random.default_rng(3)
    y = np.arange(40) % 2
    novelty = learn_novelty(Rows(rng.standard_normal((40, 60)).astype(np.float32), y, np.ones(40)))
    fresh = novelty.apply(rng.standard_normal((200, 60)).astype(np.float32))
    assert np.isfinite(fresh).all()
    assert (fresh > 1).mean() < 0.2


def test_on_the_rig_a_state_left_out_is_found(datasets: Path) -> None:
    """Real data: each valve state left out in turn is novel, and what was seen stays known."""
    from aiotkit.loop.rig import read_rig

    rig = read_rig(datasets / "hydraulic_uci", {"PS1", "PS2", "FS1", "SE", "EPS1"})
    parts = [np.stack([w.mean(axis=2), w.std(axis=2)], axis=2).reshape(len(w), -1) for w in _cut(rig.sensors)]
    x, states = np.concatenate(parts, axis=1).astype(np.float32), np.array(rig.states["valve"])
    for left_out in np.unique(states):
        seen = states != left_out
        y = np.unique(states[seen], return_inverse=True)[1].astype(np.int64)
        novelty = learn_novelty(Rows(x[seen], y, np.ones(seen.sum())))
        assert (novelty.apply(x[~seen]) > 1).mean() > 0.9, left_out
        assert (novelty.apply(x[seen]) > 1).mean() < 0.02, left_out


def _cut(sensors: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float64]]:
    return [w.astype(np.float64).reshape(len(w), 6, 10) for _, w in sorted(sensors.items())]
