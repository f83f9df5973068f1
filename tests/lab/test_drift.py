"""Drift: nothing where nothing moved, however few windows; the size of the shift where something did."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from aiotkit.core.decision import parse_decision
from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")
pytest.importorskip("scipy")


def reference(x: Any, names: list[str], source: str = "reference") -> bytes:
    """What a bundle built from these windows carries."""
    from aiotkit.release.papers import drift_reference

    return drift_reference(names, np.asarray(x, dtype=np.float32), source)


def features(rng: Any, n: int) -> Any:
    """Five features of different kinds: normal, skewed, counts, a choice and a constant."""
    kinds = [
        rng.normal(5, 2, n), rng.gamma(1, 3, n), rng.poisson(1.2, n), rng.random(n) < 0.3, np.full(n, 7.0),
    ]  # fmt: skip
    return np.column_stack(kinds).astype(np.float64)


NAMES = ["a.mean", "b.max", "c.zcr", "context.mode=idle", "d.last"]


@pytest.mark.parametrize("windows", [10, 25, 60, 250, 3000])
def test_nothing_drifts_where_nothing_moved(windows: int) -> None:
    """Over 60 draws from the reference itself the score is mostly 0 and never a large shift."""
    from aiotkit.lab.drift import drift_score

    rng = np.random.default_rng(windows)
    told = reference(features(rng, 4000), NAMES)
    scores = np.array([drift_score(told, features(rng, windows), names=NAMES) for _ in range(60)])
    assert (scores == 0).mean() >= 0.9
    assert scores.max() < 0.25


@pytest.mark.parametrize("windows", [30, 250])
def test_slow_machines_do_not_seem_to_drift(windows: int) -> None:
    """Windows that resemble the one before count as few: a slow wander within the usual is no drift."""
    from aiotkit.lab.drift import drift_score

    def wander(n: int) -> Any:
        steps = rng.normal(0, 1, n + 200)
        for i in range(1, n + 200):
            steps[i] = 0.95 * steps[i - 1] + np.sqrt(1 - 0.95**2) * steps[i]
        return steps[200:, None]

    rng = np.random.default_rng(1)
    told = reference(wander(20_000), ["a.mean"])
    scores = np.array([drift_score(told, wander(windows), names=["a.mean"]) for _ in range(60)])
    assert (np.nan_to_num(scores) == 0).mean() >= 0.85


@pytest.mark.parametrize("windows", [40, 400, 4000])
def test_a_shift_is_seen_in_the_feature_that_moved(windows: int) -> None:
    """One standard deviation in one of five features drifts there and nowhere else."""
    from aiotkit.lab.drift import drift_table

    rng = np.random.default_rng(windows)
    told = reference(features(rng, 4000), NAMES)
    recent = features(rng, windows)
    recent[:, 0] += 2
    table = drift_table(told, recent, names=NAMES)
    assert table["feature"].iloc[0] == "a.mean"
    assert table["drift"].iloc[0] > 0.25
    assert table["mean_shift"].iloc[0] == pytest.approx(1, abs=0.5)
    assert (table["drift"].iloc[1:] < 0.1).all()


def test_many_windows_give_the_psi_of_the_books() -> None:
    """For many windows the figure is PSI over the quantile bins as textbooks have it."""
    from aiotkit.lab.drift import drift_table

    rng = np.random.default_rng(3)
    x, y = rng.normal(0, 1, 200_000), rng.normal(0.5, 1, 200_000)
    row = drift_table(reference(x[:, None], ["a.mean"]), y[:, None], names=["a.mean"]).iloc[0]
    cuts = np.quantile(x, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    p, q = (np.bincount(np.searchsorted(cuts, v), minlength=8) / len(v) for v in (x, y))
    assert row["psi"] == pytest.approx(float(((q - p) * np.log(q / p)).sum()), rel=0.01)
    assert row["drift"] == pytest.approx(row["psi"], rel=0.01)


@pytest.mark.parametrize("column", [2, 3, 4])
def test_counts_choices_and_constants_drift_when_they_change(column: int) -> None:
    """Where quantiles coincide a change is still seen: more counts, another share, another constant."""
    from aiotkit.lab.drift import drift_table

    rng = np.random.default_rng(5)
    told = reference(features(rng, 4000), NAMES)
    recent = features(rng, 300)
    recent[:, column] = [0, 0, rng.poisson(4, 300), rng.random(300) < 0.8, np.full(300, 6.9)][column]
    table = drift_table(told, recent, names=NAMES)
    assert table["feature"].iloc[0] == NAMES[column]
    assert table["drift"].iloc[0] > 0.25


def test_ks_is_exact_with_samples_and_a_lower_bound_without() -> None:
    """With the reference's windows KS is scipy's; from quantiles alone it is never more."""
    from scipy.stats import ks_2samp

    from aiotkit.lab.drift import drift_table

    rng = np.random.default_rng(6)
    x, y = features(rng, 900), features(rng, 300) + 1
    told = reference(x, NAMES)
    exact = drift_table(told, y, names=NAMES, samples=pd.DataFrame(x.astype(np.float32), columns=NAMES))
    bound = drift_table(told, pd.DataFrame(y, columns=NAMES)).set_index("feature")
    assert exact.set_index("feature").loc["a.mean", "ks"] == pytest.approx(
        ks_2samp(x[:, 0], y[:, 0]).statistic, abs=1e-3
    )
    for name, ks in zip(exact["feature"], exact["ks"], strict=True):
        assert bound.loc[name, "ks"] <= ks + 1e-9


def test_too_few_windows_say_nothing() -> None:
    """Seven windows, none, or only unknown values: not a number, which triggers nothing."""
    from aiotkit.lab.drift import drift_score, drift_table

    rng = np.random.default_rng(7)
    told = reference(features(rng, 500), NAMES)
    for recent in (features(rng, 7), features(rng, 0), features(rng, 50) * np.nan):
        assert np.isnan(drift_score(told, recent, names=NAMES))
    half = features(rng, 100)
    half[::2, 0] = np.nan
    assert drift_table(told, half, names=NAMES).set_index("feature").loc["a.mean", "unknown_share"] == 0.5


def test_what_is_no_reference_is_refused() -> None:
    """A reference made up for golden cases, other features, another format: each in words."""
    from aiotkit.lab.drift import drift_score

    x = features(np.random.default_rng(8), 50)
    with pytest.raises(DataError, match="made up for the bundle's golden cases"):
        drift_score(reference(x, NAMES, "golden"), x, names=NAMES)
    with pytest.raises(DataError, match="share no feature"):
        drift_score(reference(x, NAMES), pd.DataFrame({"other": [1.0]}))
    with pytest.raises(DataError, match=r"reference\.json of format 1"):
        drift_score(json.dumps({"format": 2}).encode(), x, names=NAMES)
    with pytest.raises(DataError, match="with names"):
        drift_score(reference(x, NAMES), x)


def test_a_retraining_is_due_by_labels_time_or_drift_and_never_by_what_is_unknown(
    document: dict[str, Any],
) -> None:
    """Each declared limit that is reached is named; what is not declared or not known triggers nothing."""
    from aiotkit.lab.drift import trigger

    wanted = parse_decision(document | {"trigger": {"new_labels": 50, "every_s": 86400, "drift": 0.25}})
    assert trigger(wanted, new_labels=49, since_s=86399, drift=0.24) == []
    assert trigger(wanted, new_labels=0, since_s=0, drift=float("nan")) == []
    assert trigger(wanted, new_labels=50, since_s=172800, drift=0.3) == [
        "50 new labels (trigger: 50)",
        "48 h since the last (trigger: 24 h)",
        "drift 0.30 (trigger: 0.25)",
    ]
    assert trigger(parse_decision(document), new_labels=10**6, since_s=1e9, drift=9.0) == []
