from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from worlds.bundles import bundle_files, decision_of

from aiotkit.bundle.golden import golden_files
from aiotkit.core.decision import Decision
from aiotkit.release.cases import MAX_WINDOW_BYTES, MIN_CASES, golden_cases

DECISION = decision_of()


def expected(decision: Decision) -> dict[str, dict[str, object]]:
    made = golden_files(bundle_files(), golden_cases(decision))
    return {case["name"]: case["expected"] for case in json.loads(made["golden.json"])["cases"]}


EXPECTED = expected(DECISION)


def test_the_same_decision_gives_the_same_cases() -> None:
    """Cases follow from the decision alone; another decision has others."""
    assert _bytes(golden_cases(DECISION)) == _bytes(golden_cases(decision_of()))
    assert _bytes(golden_cases(DECISION)) != _bytes(golden_cases(decision_of(revision=2)))


def _bytes(cases: object) -> bytes:
    return golden_files(bundle_files(), cases)["golden.bin"]  # type: ignore[arg-type]


def test_cases_reach_every_way_a_decision_can_go() -> None:
    """Every action is proposed, and every verdict and mode that this decision knows comes up."""
    assert {e["proposed"] for e in EXPECTED.values()} == {"run", "slow", "stop", None}
    assert {e["verdict"] for e in EXPECTED.values()} >= {"ALLOW", "HOLD", "INDETERMINATE"}
    assert {e["mode"] for e in EXPECTED.values()} >= {"act", "confirm", "recovery", "bypass", "override"}


def test_bad_inputs_are_among_the_cases() -> None:
    """NaN and impossible samples of every signal, missing and stale context of every kind."""
    for signal in DECISION.signals:
        assert EXPECTED[f"nan-{signal}"]["faults"] == [signal]
        assert EXPECTED[f"beyond-{signal}"]["faults"] == [signal]
    for context in DECISION.context:
        assert EXPECTED[f"missing-{context}"]["faults"] == [context]
        assert EXPECTED[f"stale-{context}"]["faults"] == [context]


@pytest.mark.parametrize(
    ("field", "limit"),
    [("vib.rms", 7.1), ("vib.rms", 11), ("vib.p2p", 150), ("temp.slope", 2), ("temp.max", 120),
     ("oil.last", 1), ("vib.kurtosis", 2), ("vib.crest", 9)],
)  # fmt: skip
def test_cases_lie_on_both_sides_of_every_limit_and_clear_of_it(field: str, limit: float) -> None:
    """Each limit has a window on either side, within 20 % of it and no nearer than a thousandth."""
    below = EXPECTED[f"{field}-below-{limit:g}"]["features"][field]  # type: ignore[index]
    above = EXPECTED[f"{field}-above-{limit:g}"]["features"][field]  # type: ignore[index]
    assert 0.8 * limit < below < limit * (1 - 1e-3)
    assert limit * (1 + 1e-3) < above < 1.2 * limit


def test_windows_stay_within_their_range_unless_they_are_meant_not_to() -> None:
    """Only the cases named for it hold samples that cannot be believed."""
    for case in golden_cases(DECISION):
        for name, signal in DECISION.signals.items():
            window = case.given.windows[name]
            inside = bool(((window >= signal.range[0]) & (window <= signal.range[1])).all())
            assert inside is (case.name not in (f"nan-{name}", f"beyond-{name}")), case.name
            assert window.dtype == np.float32


def test_names_and_seeds_are_distinct() -> None:
    """Each case is a decision of its own."""
    cases = golden_cases(DECISION)
    assert len({case.name for case in cases}) == len(cases) == len({case.given.seed for case in cases})


def test_large_windows_make_fewer_cases() -> None:
    """Golden windows are bounded: with long ones there are fewer cases, but never hardly any."""
    signals = {"vib": {"unit": "m/s2", "sampling": {"kind": "regular", "rate_hz": 20_000}, "range": [-9, 9]}}
    rule = [{"when": {"field": "vib.rms", "gt": 3}, "do": "slow"}, {"otherwise": "run"}]
    long = decision_of(signals=signals, rule=rule, gates=[], history={})
    cases = golden_cases(long)
    assert MIN_CASES - 6 <= len(cases) <= math.ceil(MAX_WINDOW_BYTES / (4 * 80_000)) + MIN_CASES
    assert {case.name for case in cases} >= {"vib.rms-below-3", "vib.rms-above-3", "nan-vib"}


def _crossings(x: np.ndarray) -> float:
    above = x > x.mean()
    return float((above[1:] != above[:-1]).mean())


@pytest.mark.parametrize(
    ("word", "limit", "part", "measure"),
    [
        ("q95", 3.0, (0, 256), lambda x: float(np.quantile(x, 0.95))),
        ("q05_2of4", 3.0, (64, 128), lambda x: float(np.quantile(x, 0.05))),
        ("zcr", 0.25, (0, 256), _crossings),
        ("rms_3of3", 7.0, (171, 256), lambda x: float(np.sqrt(np.square(x).mean()))),
        ("mean_1of3", 7.0, (0, 85), lambda x: float(x.mean())),
    ],
)
def test_quantiles_crossings_and_parts_of_windows_get_cases_too(
    word: str, limit: float, part: tuple[int, int], measure: Callable[[np.ndarray], float]
) -> None:
    """The statistic of the named part lies a little to either side of the limit; the rest stays ordinary."""
    rule = [{"when": {"field": f"vib.{word}", "gt": limit}, "do": "slow"}, {"otherwise": "run"}]
    cases = {c.name: c.given.windows["vib"] for c in golden_cases(decision_of(rule=rule, gates=[]))}
    below, above = (cases[f"vib.{word}-{side}-{limit:g}"] for side in ("below", "above"))
    assert 0.8 * limit < measure(below[slice(*part)]) < limit < measure(above[slice(*part)]) < 1.2 * limit
    if part != (0, 256):
        rest = np.delete(above, np.arange(*part))
        assert 1 < rest.std() < 3


@pytest.mark.parametrize("word", ["band_3of8", "x_hum", "x_hum_1of2"])
def test_a_limit_on_a_band_or_an_own_word_makes_no_case_and_no_trouble(word: str) -> None:
    """What cannot be made without the graph's own transform is left to windows of the caller."""
    rule = [{"when": {"field": f"vib.{word}", "gt": 1}, "do": "slow"}, {"otherwise": "run"}]
    names = {case.name for case in golden_cases(decision_of(rule=rule, gates=[], history={}))}
    assert not any(word in name for name in names)
    assert "ordinary-0" in names


def test_a_model_gets_cases_of_all_its_context() -> None:
    """Every word, both ends of every number and nothing at all, each with a past; a rule's cases stay."""
    plain, more = golden_cases(DECISION), golden_cases(DECISION, model=True)
    assert [case.name for case in more[: len(plain)]] == [case.name for case in plain]
    added = {case.name: case for case in more[len(plain) :]}
    assert added["context-unknown"].given.context == {}
    assert {
        added[f"context-mode-is-{w}"].given.context["mode"].value for w in ("production", "cleaning")
    } == {
        "production",
        "cleaning",
    }
    assert [added[f"context-load-{e}"].given.context["load"].value for e in ("lowest", "highest")] == [0, 200]
    assert all(case.after == "ordinary-3" for case in added.values())
