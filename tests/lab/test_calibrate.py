"""Probabilities that mean what they say, and only as far as there are labels to tell."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.desk
pytest.importorskip("sklearn")

from scipy.special import softmax  # noqa: E402

from aiotkit.lab.calibrate import (  # noqa: E402
    FOR_TEMPERATURE,
    NEVER,
    Calibration,
    brier,
    choose_calibration,
    fit_calibration,
    log_loss,
    no_calibration,
)
from aiotkit.lab.onnx_graph import Graph, run_graph  # noqa: E402


def drawn(n: int, temperature: float, bias: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are ``temperature`` times too sharp and lack a bias, and states drawn from the truth."""
    rng = np.random.default_rng(seed)
    truth = 2 * rng.standard_normal((n, len(bias)))
    p = softmax(truth + np.array(bias), axis=1)
    y = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1)
    return truth * temperature, y.astype(np.int64)


def test_a_known_temperature_and_bias_are_found() -> None:
    """Logits made five times too sharp and shifted come back as they were."""
    logits, y = drawn(8000, 5.0, [0.8, -0.3, -0.5])
    found = fit_calibration(logits, y, np.ones(len(y)))
    assert found.temperature == pytest.approx(5.0, rel=0.08)
    np.testing.assert_allclose(found.bias, [0.8, -0.3, -0.5], atol=0.15)
    before, after = (c.apply(logits) for c in (no_calibration(3), found))
    assert log_loss(after, y, np.ones(len(y))) < 0.6 * log_loss(before, y, np.ones(len(y)))
    assert brier(after, y, np.ones(len(y))) < brier(before, y, np.ones(len(y)))


def test_weights_count() -> None:
    """A row of weight three is worth three rows."""
    logits, y = drawn(300, 2.0, [0.2, -0.2])
    weight = np.where(np.arange(300) < 100, 3.0, 1.0)
    repeated = np.concatenate([np.arange(300), np.arange(100), np.arange(100)])
    one = fit_calibration(logits, y, weight, biased=False)
    two = fit_calibration(logits[repeated], y[repeated], np.ones(500), biased=False)
    assert one.temperature == pytest.approx(two.temperature, rel=1e-3)


def test_few_labels_mean_less_freedom() -> None:
    """Below twenty rows nothing is changed; with a rare state there is a temperature, but no bias."""
    logits, y = drawn(2000, 4.0, [1.0, 0.0])
    few = slice(0, FOR_TEMPERATURE - 1)
    untouched = fit_calibration(logits[few], y[few], np.ones(FOR_TEMPERATURE - 1))
    assert (untouched.temperature, untouched.bias.tolist()) == (1.0, [0.0, 0.0])
    rare = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:10]]
    found = fit_calibration(logits[rare], y[rare], np.ones(len(rare)))
    assert found.temperature != 1.0
    assert found.bias.tolist() == [0.0, 0.0]


def test_a_state_never_seen_stays_at_zero() -> None:
    """A logit of NEVER is no evidence: its rows are left aside and its probability is zero."""
    logits, y = drawn(600, 3.0, [0.0, 0.0, 0.0])
    logits[:200, 2] = NEVER
    found = fit_calibration(logits, y, np.ones(600))
    assert 2 < found.temperature < 4.5
    p = found.apply(logits)
    assert (p[:200, 2] == 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1)


def test_a_bias_that_does_not_carry_over_is_not_taken() -> None:
    """Blocks that each hold one state tempt to a bias that spoils the next block: temperature only."""
    rng = np.random.default_rng(4)
    part = np.repeat(np.arange(6), 100)
    y = np.where(rng.random(600) < 0.9, part % 3, rng.integers(0, 3, 600)).astype(np.int64)
    logits = 3.0 * np.eye(3)[y] + rng.standard_normal((600, 3))
    logits[:, 0] += np.where(part < 3, 2.0, -2.0)
    found = choose_calibration(logits, y, np.ones(600), part)
    assert found.bias.tolist() == [0.0, 0.0, 0.0]
    steady, drawn_y = drawn(1200, 2.0, [1.2, 0.0, -1.2], seed=5)
    kept = choose_calibration(steady, drawn_y, np.ones(1200), np.arange(1200) % 6)
    assert kept.bias[0] > 0.8 > -0.8 > kept.bias[2]


def test_the_graph_says_the_same() -> None:
    """Temperature and bias in the graph give the library's probabilities."""
    calibration = Calibration(3.7, np.array([0.4, -0.1, -0.3]))
    logits = np.random.default_rng(2).normal(0, 20, (50, 3)).astype(np.float32)
    graph = Graph()
    p = calibration.add_to(graph, graph.to64(graph.input("x", 3)))
    found = run_graph(graph.model({"p": (p, 3)}), {"x": logits}, ("p",))[0]
    np.testing.assert_allclose(found, calibration.apply(logits.astype(np.float64)), atol=1e-7)


def test_log_loss_and_brier_are_their_formulas() -> None:
    """A sure right answer costs nothing, a sure wrong one 2 in Brier's score and ln 10⁶ in log-loss."""
    p, ones = np.array([[1.0, 0.0]]), np.ones(1)
    assert log_loss(p, np.array([0]), ones) == 0
    assert log_loss(p, np.array([1]), ones) == pytest.approx(np.log(1e6))
    assert [brier(p, np.array([k]), ones) for k in (0, 1)] == [0, 2]
