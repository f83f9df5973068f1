"""Every family keeps the same promises; trees, networks and estimators of one's own are no exceptions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.desk
pytest.importorskip("sklearn")
torch = pytest.importorskip("torch")

from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.ensemble import GradientBoostingClassifier  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402
from sklearn.model_selection import TunedThresholdClassifierCV  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.svm import LinearSVC  # noqa: E402

from aiotkit.core.errors import DataError  # noqa: E402
from aiotkit.lab.heads import FAMILIES  # noqa: E402
from aiotkit.lab.heads.base import Fitted, Rows  # noqa: E402
from aiotkit.lab.heads.cnn import Cnn  # noqa: E402
from aiotkit.lab.heads.detectors import DETECTORS  # noqa: E402
from aiotkit.lab.heads.lda import Lda  # noqa: E402
from aiotkit.lab.heads.linear import segments  # noqa: E402
from aiotkit.lab.heads.mlp import Mlp  # noqa: E402
from aiotkit.lab.heads.own import chosen_families  # noqa: E402
from aiotkit.lab.heads.trees import snapped  # noqa: E402
from aiotkit.lab.onnx_graph import Graph, run_graph  # noqa: E402
from aiotkit.lab.prepare import informative, learn_preparation  # noqa: E402

COLUMNS = 8


def rows_of(classes: int = 3, n: int = 500, seed: int = 0) -> Rows:
    """Columns that show the state, with long tails, counters, infinities and unknown values among them."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n).astype(np.int64)
    x = rng.standard_normal((n, COLUMNS))
    x[:, 0] += 2 * y
    x[:, 1] -= 2 * (y == 1)
    x[:, 2] = np.exp(2 * x[:, 2])
    x[:, 3] = 1e6 + y + 0.3 * x[:, 3]
    x[rng.random(x.shape) < 0.05] = np.nan
    x[5, 4], x[6, 4] = np.inf, -np.inf
    windows = {"vib": ((1 + y[:, None]) * rng.standard_normal((n, 32))).astype(np.float32)}
    windows["vib"][3, 7] = np.nan
    return Rows(x.astype(np.float32), y, np.ones(n), windows)


def graph_of(fitted: Fitted, rows: Rows) -> bytes:
    graph = Graph()
    x = graph.input("x", rows.x.shape[1])
    windows = {name: graph.input(name, rows.windows[name].shape[1]) for name in fitted.signals}
    logits = fitted.add_to(graph, x, windows)
    return graph.model({"logits": (logits, rows.classes)})


def ran(graph: bytes, fitted: Fitted, rows: Rows) -> NDArray[np.float32]:
    given = {"x": rows.x} | {name: rows.windows[name] for name in fitted.signals}
    return run_graph(graph, given, ("logits",))[0]


def quiet(_: float) -> None:
    return


@pytest.fixture(scope="module", params=[(name, k) for name in FAMILIES for k in (2, 3)], ids=str)
def learnt(request: pytest.FixtureRequest) -> tuple[str, Fitted, Rows]:
    """Each family, fitted to two and to three states."""
    name, classes = request.param
    rows = rows_of(classes)
    return name, FAMILIES[name].fit(rows, seed=7, progress=quiet), rows


def test_a_family_learns_what_is_there(learnt: tuple[str, Fitted, Rows]) -> None:
    """On fresh rows nearly every state is found, and logits are finite whatever is missing."""
    name, fitted, rows = learnt
    fresh = rows_of(rows.classes, seed=1)
    logits = fitted.logits(fresh.x, fresh.windows)
    assert logits.shape == (500, rows.classes)
    assert np.isfinite(logits).all()
    assert (logits.argmax(axis=1) == fresh.y).mean() > (0.6 if name == "cnn" else 0.85)


def test_the_graph_says_what_the_library_says(learnt: tuple[str, Fitted, Rows]) -> None:
    """No label flips and probabilities agree to a ten-thousandth, also on rows far outside of training."""
    _, fitted, rows = learnt
    graph = graph_of(fitted, rows)
    far = Rows(rows.x * np.float32(30), rows.y, rows.weight, rows.windows)
    for given in (rows, rows_of(rows.classes, seed=2), far):
        found, expected = ran(graph, fitted, given), fitted.logits(given.x, given.windows)
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()
        np.testing.assert_allclose(probabilities(found), probabilities(expected), atol=1e-4)


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    from scipy.special import softmax

    return np.asarray(softmax(logits.astype(np.float64), axis=1))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_rows_and_seed_give_the_same_bytes(name: str) -> None:
    """Two fits with one seed make one graph; the caller's own random state is left as it was."""
    rows = rows_of(2, n=200)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    graphs = {graph_of(FAMILIES[name].fit(rows, seed=3, progress=quiet), rows) for _ in range(2)}
    assert len(graphs) == 1
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["lda", "logistic", "hgb", "forest"])
def test_a_row_of_weight_three_counts_three_times(name: str) -> None:
    """Weights move every family towards the rows that carry them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2)).astype(np.float32)
    y = (rng.random(400) < 0.5).astype(np.int64)  # no column tells: only the mix of states does
    weight = np.where(y == 1, 3.0, 1.0)
    fitted = FAMILIES[name].fit(Rows(x, y, weight / weight.mean()), seed=0, progress=quiet)
    assert probabilities(fitted.logits(x, {}))[:, 1].mean() == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize("name", ["lda", "logistic", "hgb", "forest", "mlp"])
def test_a_column_unknown_in_training_does_no_harm(name: str) -> None:
    """Neither to learning nor to the graph, even if it is known later."""
    rows = rows_of(2, n=150)
    later = rows_of(2, n=150, seed=3)
    rows.x[:, 6] = np.nan
    fitted = FAMILIES[name].fit(rows, seed=0, progress=quiet)
    found, expected = ran(graph_of(fitted, rows), fitted, later), fitted.logits(later.x, {})
    np.testing.assert_allclose(probabilities(found), probabilities(expected), atol=1e-4)


def test_a_counter_in_the_millions_keeps_its_last_digits() -> None:
    """Only the units of a column near a million tell the state: library and graph both see them."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 300).astype(np.int64)
    x = (1e6 + y[:, None] + 0.2 * rng.standard_normal((300, 1))).astype(np.float32)
    rows = Rows(x, y, np.ones(300))
    fitted = Lda().fit(rows, seed=0, progress=quiet)
    assert (ran(graph_of(fitted, rows), fitted, rows).argmax(axis=1) == y).mean() > 0.97


def test_lda_takes_the_operating_point_where_slopes_depend_on_it() -> None:
    """The sign of the effect turns with the load: a plain linear head is blind to it, this one is not."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 900).astype(np.int64)
    load = rng.standard_normal(900)
    x = np.stack([load + 0.05 * rng.standard_normal(900) for _ in range(4)], axis=1)
    x = np.c_[x, np.sign(load) * (2 * y - 1) + 0.4 * rng.standard_normal(900)].astype(np.float32)
    fitted = Lda().fit(Rows(x, y, np.ones(900)), seed=0, progress=quiet)
    assert fitted.settings["operating_point"] == 1
    assert (fitted.logits(x, {}).argmax(axis=1) == y).mean() > 0.9


def test_thresholds_are_snapped_to_the_float_below() -> None:
    """For every float32 v and float64 t: v <= t exactly when v <= snapped(t)."""
    rng = np.random.default_rng(1)
    t = np.r_[rng.normal(0, 1e3, 2000), 0.1, -0.1, np.inf, 1e-46, -1e-46]
    near = t.astype(np.float32)
    values = np.r_[near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
    for v, limit in zip(values, np.tile(t, 3), strict=True):
        assert (float(v) <= limit) == bool(v <= snapped(np.array([limit]))[0]), (v, limit)


def test_segments_of_a_feature_are_read_from_its_name() -> None:
    """Bands are no parts of a window."""
    names = ("p.mean_2of6", "p.env_3of8", "p.band_1of8_2of4", "p.rms", "context.load", "history.band_1of2")
    assert [segments(n) for n in names] == [6, 1, 4, 1, 0, 0]


def test_columns_that_say_nothing_are_left_out_with_a_note() -> None:
    """Constant and all-unknown columns go, named; when none is left, that is an error with a next step."""
    x = np.array([[1, np.nan, 5, 0.1], [2, np.nan, 5, 0.1], [3, np.inf, 5, 0.1]], dtype=np.float32)
    keep, notes = informative(x, ["good", "empty", "constant", "rounded"])
    assert keep.tolist() == [0]
    assert notes == (
        "left out, without a value on any row: empty",
        "left out, constant on every row: constant, rounded",
    )
    with pytest.raises(DataError, match="2 columns, none of which can tell states apart; found left out"):
        informative(x[:, 1:3], ["empty", "constant"])


def test_a_long_tail_is_tamed_and_a_few_strange_rows_are_not_taken_for_one() -> None:
    """A column over decades is put on a logarithmic scale; three outliers in a thousand do not do that."""
    rng = np.random.default_rng(0)
    decades = np.exp(3 * rng.standard_normal(1000))
    outliers = rng.standard_normal(1000)
    outliers[:3] = 500
    found = learn_preparation(np.stack([decades, outliers], axis=1).astype(np.float32))
    assert found.long_tailed.tolist() == [True, False]


def test_a_loss_that_is_no_number_is_refused() -> None:
    """A learning rate that blows up ends in words that name the family, not in a head of NaN."""
    rows = rows_of(2, n=200)
    with pytest.raises(DataError, match=r"family 'mlp': the loss is (nan|inf) in pass"):
        Mlp(rate=1e30).fit(rows, seed=0, progress=quiet)


def test_a_network_over_windows_needs_windows() -> None:
    """Without raw windows, or with very short ones, the family says so."""
    rows = rows_of(2, n=60)
    with pytest.raises(DataError, match="raw windows; expected 16 to 16384 samples; found none at hand"):
        Cnn().fit(Rows(rows.x, rows.y, rows.weight), seed=0, progress=quiet)
    short = {"vib": rows.windows["vib"][:, :4]}
    with pytest.raises(DataError, match="found 4"):
        Cnn().fit(Rows(rows.x, rows.y, rows.weight, short), seed=0, progress=quiet)


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        (
            TunedThresholdClassifierCV(LogisticRegression()),
            "TunedThresholdClassifierCV is not supported: its thre",
        ),
        (
            CalibratedClassifierCV(make_pipeline(StandardScaler(), LogisticRegression())),
            "CalibratedClassifierCV is not supported: it converts wrongly .* give the estimator inside it",
        ),
        (CalibratedClassifierCV(LogisticRegression(), method="isotonic"), "isotonic regression"),
        (LinearSVC(), "LinearSVC; expected a classifier with predict_proba"),
        (LinearRegression(), "LinearRegression; expected a classifier"),
        (LogisticRegression, "family 'mine'; expected a scikit-learn classifier.* Give an instance"),
        (object(), "family 'mine'; expected a scikit-learn classifier, or an object"),
    ],
    ids=["tuned", "calibrated", "isotonic", "no-proba", "regressor", "class", "object"],
)
def test_an_estimator_that_cannot_become_a_graph_is_refused_by_name(estimator: Any, words: str) -> None:
    """Before any training, and with the reason."""
    with pytest.raises(DataError, match=words):
        chosen_families({"mine": estimator})


def test_an_unknown_family_gets_a_hint() -> None:
    """A typing error is answered with the name that was meant."""
    with pytest.raises(DataError, match=r"family 'logistc'; expected one of lda, .* did you mean 'logistic'"):
        chosen_families(["lda", "logistc"])


@pytest.mark.parametrize(
    "estimator",
    [
        GradientBoostingClassifier(n_estimators=10),
        KNeighborsClassifier(),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=["boosting", "neighbours", "pipeline"],
)
def test_an_estimator_of_ones_own_keeps_the_promise(estimator: Any) -> None:
    """It learns, and its graph decides what it decides."""
    rows = rows_of(3, n=300)
    fitted = chosen_families({"mine": estimator})["mine"].fit(rows, seed=0, progress=quiet)
    expected = fitted.logits(rows.x, {})
    found = ran(graph_of(fitted, rows), fitted, rows)
    assert (expected.argmax(axis=1) == rows.y).mean() > 0.85
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()
    np.testing.assert_allclose(probabilities(found), probabilities(expected), atol=1e-4)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_finds_what_is_strange(name: str) -> None:
    """Rows off the usual relation score higher than usual ones, in library and graph alike."""
    rng = np.random.default_rng(5)
    hidden = rng.standard_normal((600, 2))
    x = (hidden @ rng.standard_normal((2, 6)) + 0.1 * rng.standard_normal((600, 6))).astype(np.float32)
    strange = rng.normal(0, 4, (100, 6)).astype(np.float32)
    strange[::9, 2] = np.nan
    score = DETECTORS[name].learn(Rows(x, np.zeros(600, np.int64), np.ones(600)), seed=1)
    assert np.quantile(score.score(strange), 0.2) > np.quantile(score.score(x), 0.95)
    graph = Graph()
    out = score.add_to(graph, graph.input("x", 6))
    found = run_graph(graph.model({"score": (out, 1)}), {"x": strange}, ("score",))[0]
    np.testing.assert_allclose(found[:, 0], score.score(strange), rtol=1e-5)
