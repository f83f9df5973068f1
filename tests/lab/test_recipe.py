"""Recipes name features that fit each signal's window."""

from __future__ import annotations

from typing import Any

import pytest
from worlds.bundles import decision_of

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
pytest.importorskip("torch")

MOMENTS = {"mean", "std", "min", "max", "rms", "p2p", "kurtosis", "crest"}


def decision_with(length_s: float = 4, **rates: float | None) -> Decision:
    """A decision of signals by rate (None = on change), whose rule reads nothing."""
    signals: dict[str, Any] = {}
    for name, rate in rates.items():
        sampling = (
            {"kind": "on_change", "max_age_s": 60} if rate is None else {"kind": "regular", "rate_hz": rate}
        )
        signals[name] = {"unit": "bar", "sampling": sampling, "range": [0, 10]}
    window = {"length_s": length_s, "every_s": length_s}
    return decision_of(signals=signals, window=window, gates=[], rule=[{"otherwise": "run"}], history={})


def words(decision: Decision, kind: str, signal: str) -> set[str]:
    from aiotkit.lab.recipe import recipe

    return {name.partition(".")[2] for name in recipe(decision, kind) if name.startswith(f"{signal}.")}


def test_auto_follows_the_samples_of_each_window() -> None:
    """One value: last; a few: no shape; tens: parts; hundreds: bands; held signals never have a spectrum."""
    decision = decision_with(60, held=None, few=0.2, tens=1, fast=100)
    assert words(decision, "auto", "held") == {"last"}
    assert words(decision, "auto", "few") == {"mean", "last", "min", "max", "slope"}
    tens = words(decision, "auto", "tens")
    assert MOMENTS | {"slope", "q50"} < tens
    assert {f"{w}_{j}of13" for w in ("mean", "std") for j in range(1, 14)} < tens
    fast = words(decision, "auto", "fast")
    assert fast == MOMENTS | {"zcr"} | {f"band_{i}of16" for i in range(1, 17)} | {
        f"env_{i}of8" for i in range(1, 9)
    }


@pytest.mark.parametrize("rate", [0.25, 0.5, 1, 3.75, 4, 5, 12, 15, 63.75, 64, 250])
@pytest.mark.parametrize("kind", ["auto", "plain", "spectral", "segments:1", "segments:13", "segments:256"])
def test_every_recipe_fits_windows_of_any_length(kind: str, rate: float) -> None:
    """What a recipe names can be computed: the front has exactly those columns."""
    from aiotkit.lab.features import Front
    from aiotkit.lab.recipe import recipe

    decision = decision_with(4, some=rate, held=None)
    names = recipe(decision, kind)
    assert {name.partition(".")[0] for name in names} == {"some", "held"}
    assert Front(decision, names).names == names


def test_what_the_decision_reads_is_always_there() -> None:
    """A recipe's names are all columns of the graph, those of rule and gates too."""
    from aiotkit.lab.recipe import recipe

    decision = decision_of()
    assert set(decision.features()) <= set(recipe(decision, "segments:2"))


def test_recipes_and_names_can_be_combined() -> None:
    """Separated by commas, spaces do not matter."""
    from aiotkit.lab.recipe import recipe

    decision = decision_with(4, a=64, b=64)
    found = set(recipe(decision, "segments:2, a.band_1of4"))
    expected = {f"{s}.{w}_{j}of2" for s in "ab" for w in ("mean", "std") for j in (1, 2)}
    assert found == expected | {"a.band_1of4"}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("autp", r"recipe 'autp'; expected auto, plain.* did you mean 'auto'\?"),
        ("segments", "recipe 'segments'.* K is 1 to 256"),
        ("segments:0", "K is 1 to 256"),
        ("segments:257", "K is 1 to 256"),
        ("", "recipe ''; expected auto"),
        ("a.kurtsis", "did you mean 'kurtosis'"),
        ("aa.rms", r"no signal 'aa'.* did you mean 'a'"),
    ],
)
def test_an_unknown_recipe_is_refused_with_a_hint(kind: str, message: str) -> None:
    """A misspelt recipe or name says what there is."""
    from aiotkit.lab.recipe import recipe

    with pytest.raises(DataError, match=message):
        recipe(decision_with(4, a=64), kind)
