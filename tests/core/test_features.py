"""Names of statistics say exactly what is computed, or why they say nothing."""

from __future__ import annotations

import pytest
from worlds.documents import press_guard

from aiotkit.core.decision import parse_decision
from aiotkit.core.errors import DecisionFileError
from aiotkit.core.features import (
    BANDED,
    RESERVED,
    STATISTICS,
    Statistic,
    feature_names,
    is_feature,
    parse_statistic,
    statistic_problem,
    unit_kind,
)


@pytest.mark.parametrize("base", STATISTICS)
def test_every_base_stands_alone_and_for_a_part_of_the_window(base: str) -> None:
    """A base is a word, and a word of a part of the window has the unit of the whole."""
    assert parse_statistic(base) == Statistic(base)
    assert parse_statistic(f"{base}_2of10") == Statistic(base, None, (2, 10))
    assert unit_kind(base) == unit_kind(f"{base}_2of10") == STATISTICS[base]


@pytest.mark.parametrize("base", BANDED)
def test_a_band_says_which_of_how_many_and_then_which_part(base: str) -> None:
    """Bands have no unit; the first pair of numbers is the band, the second the part of the window."""
    assert parse_statistic(f"{base}_3of16") == Statistic(base, (3, 16))
    assert parse_statistic(f"{base}_3of16_1of4") == Statistic(base, (3, 16), (1, 4))
    assert unit_kind(f"{base}_16of16_4of4") == "1"


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("band", "'band' needs to say which band of how many, like 'band_1of8'"),
        ("env", "'env' needs to say which band of how many, like 'env_1of8'"),
        ("band_9of8", "'band_9of8' asks for band 9 of 8; they count from 1 to 8"),
        ("mean_3of2", "'mean_3of2' asks for part 3 of 2 of the window; they count from 1 to 2"),
        ("mean_1of257", "'mean_1of257' asks for 257 parts of the window; at most 256 are possible"),
        ("band_1of2_3of2", "'band_1of2_3of2' asks for part 3 of 2 of the window; they count from 1 to 2"),
        ("mean_0of2", "'mean_0of2' is written like 'mean_2of8': which one, 'of', how many"),
        ("mean_01of2", "'mean_01of2' is written like 'mean_2of8': which one, 'of', how many"),
        ("mean_1of2_1of2", "'mean_1of2_1of2' is written like 'mean_2of8': which one, 'of', how many"),
        ("band_3/16", "'band_3/16' is written like 'band_2of8': which one, 'of', how many"),
        ("kurtsis", "did you mean 'kurtosis'?"),
        ("bnd_3of16", "did you mean 'band_3of16'?"),
        ("q50\n", "did you mean 'q50'?"),
    ],
)
def test_what_is_no_statistic_is_refused_with_a_hint(word: str, problem: str) -> None:
    """A mistyped word names what is wrong with it or what may be meant."""
    assert parse_statistic(word) is None
    assert statistic_problem(word) == problem
    with pytest.raises(KeyError):
        unit_kind(word)


def test_words_far_from_every_statistic_get_the_list() -> None:
    """Where nothing is near, the possible words are said."""
    assert statistic_problem("xyzzy").startswith("statistics are mean, std, ")
    assert statistic_problem("rms") == ""


def test_words_of_ones_own_begin_with_x() -> None:
    """They stand alone or for a part of the window, have no unit and no bands."""
    assert parse_statistic("x_hum") == Statistic("x_hum")
    assert parse_statistic("x_hum2_1of4") == Statistic("x_hum2", None, (1, 4))
    assert unit_kind("x_hum_1of4") == "1"
    assert is_feature("vib.x_hum")
    assert Statistic("x_hum").own
    assert not Statistic("rms").own
    for word in ("x_", "x_Hum", "x_2of4", "x_hum_1of2_1of2", "x_hum_3of2", "x_hum_1of257", "y_hum"):
        assert parse_statistic(word) is None, word


def test_features_are_signals_with_a_statistic() -> None:
    """History, context, probabilities, novelty and the graph's own outputs are none."""
    assert feature_names(["b.env_1of2", "a.q05", "a.q05", "a.q06", "novelty", "p.ok"]) == (
        "a.q05",
        "b.env_1of2",
    )
    assert not any(is_feature(f"{word}.mean") for word in RESERVED)


def problems_with(field: str) -> list[str]:
    document = press_guard()
    document["rule"][0]["when"] = {"field": field, "gt": 0.5}
    try:
        parse_decision(document)
    except DecisionFileError as error:
        return [line.removeprefix("  - ") for line in str(error).splitlines()[1:]]
    return []


@pytest.mark.parametrize(
    "field", ["vib.band_3of16", "vib.q95_2of10", "vib.env_8of8_1of2", "vib.zcr", "vib.x_hum", "novelty"]
)
def test_a_rule_may_read_any_of_them(field: str) -> None:
    """Bands, quantiles, parts of windows and novelty stand in a rule as a mean does."""
    assert problems_with(field) == []


def test_what_a_rule_reads_is_asked_of_the_graph() -> None:
    """A decision's features are those its rule reads, parts and bands included."""
    document = press_guard()
    document["rule"][0]["when"] = {"field": "vib.band_3of16_1of2", "gt": 0.5}
    assert "vib.band_3of16_1of2" in parse_decision(document).features()


@pytest.mark.parametrize(
    ("field", "hint"),
    [
        ("vib.band_9of8", "'band_9of8' asks for band 9 of 8; they count from 1 to 8"),
        ("vib.band", "'band' needs to say which band of how many, like 'band_1of8'"),
        ("vib.mean_3of2", "'mean_3of2' asks for part 3 of 2 of the window; they count from 1 to 2"),
        ("vib.mena_1of2", "did you mean 'vib.mean_1of2'?"),
        ("vbi.band_3of16", "did you mean 'vib.band_3of16'?"),
        ("oil.mean_1of2", "a window of 'oil' holds 1 sample, too few for 2 parts"),
        ("vib.band_1of200_1of5", "a window of 'vib' holds 1000 samples, too few for 5 parts of 200 bands"),
        ("novelti", "did you mean 'novelty'?"),
    ],
)
def test_a_mistyped_feature_in_a_rule_is_named_with_a_hint(field: str, hint: str) -> None:
    """The line says where the unknown field is read and how it may be meant."""
    assert problems_with(field) == [f"rule[0].when: unknown field '{field}'; {hint}"]


def test_limits_of_quantiles_and_crossings_must_be_reachable() -> None:
    """A limit outside the signal's range, or a share above 1, is a wrong unit."""
    document = press_guard()
    for field, limit in (("vib.q95_1of2", 60), ("vib.zcr", 2), ("novelty", -1)):
        document["rule"][0]["when"] = {"field": field, "gt": limit}
        with pytest.raises(DecisionFileError, match=rf"limit {limit} for '{field}' lies outside its range"):
            parse_decision(document)
