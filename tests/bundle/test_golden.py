from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from worlds.bundles import bundle_files, decision_of

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.golden import GoldenCase, feature_slack, golden_files, run_golden
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import GoldenError
from aiotkit.release.cases import golden_cases

Files = Mapping[str, bytes]


def altered(files: Files, change: Any) -> dict[str, bytes]:
    document = json.loads(files["golden.json"])
    change(document)
    return {**files, "golden.json": canonical_bytes(document)}


def test_the_committed_cases_are_decided_here_as_where_they_were_made(engine: Engine, files: Files) -> None:
    """Golden cases made on another day, maybe on another machine, give the same decisions."""
    assert run_golden(engine, files) == 47


def test_making_golden_cases_twice_gives_the_same_bytes() -> None:
    """The same cases give the same files."""
    files = bundle_files()
    cases = golden_cases(decision_of())
    made = golden_files(files, cases)
    assert made == golden_files(files, cases)
    assert run_golden(Engine(files), {**files, **made}) == len(cases)


@pytest.mark.parametrize(
    "what", ["proposed", "verdict", "final", "in_force", "mode", "faults", "features", "p"]
)
def test_any_other_decision_is_refused(engine: Engine, files: Files, what: str) -> None:
    """A case that is proposed, judged or resolved otherwise here refuses the bundle by name."""
    other: dict[str, Any] = {"faults": ["oil"], "features": {}, "p": {"ok": 1.0}}

    def change(document: Any) -> None:
        document["cases"][3]["expected"][what] = other.get(what, "other")

    with pytest.raises(GoldenError, match=f"golden case 'ordinary-3': {what}"):
        run_golden(engine, altered(files, change))


@pytest.mark.parametrize(("factor", "passes"), [(1 + 5e-5, True), (1 + 5e-4, False), (float("nan"), False)])
def test_features_may_differ_by_a_ten_thousandth(
    engine: Engine, files: Files, factor: float, passes: bool
) -> None:
    """Another processor's rounding passes, a different feature does not, NaN for a number does not."""

    def change(document: Any) -> None:
        features = document["cases"][0]["expected"]["features"]
        value = features["temp.mean"] * factor
        features["temp.mean"] = value if value == value else "nan"

    changed = altered(files, change)
    if passes:
        assert run_golden(engine, changed) == 47
    else:
        with pytest.raises(
            GoldenError, match=r"features\.temp\.mean; expected .* where the bundle was built"
        ):
            run_golden(engine, changed)


def test_a_bundle_with_another_graph_is_refused(files: Files) -> None:
    """Cases made with one rule refuse a bundle with another: the decisions differ."""
    other = bundle_files(rule=[{"otherwise": "slow"}])
    mixed = {**other, "golden.json": files["golden.json"], "golden.bin": files["golden.bin"]}
    with pytest.raises(GoldenError, match=r"'ordinary-0': proposed; expected 'run'.*found 'slow'"):
        run_golden(Engine(other), mixed)


def test_every_changed_window_is_found(engine: Engine, files: Files) -> None:
    """A changed byte of the golden windows refuses the bundle before anything is compared."""
    blob = bytearray(files["golden.bin"])
    blob[len(blob) // 2] ^= 1
    with pytest.raises(GoldenError, match="window differs from its digest"):
        run_golden(engine, {**files, "golden.bin": bytes(blob)})


def _no_cases(document: Any) -> None:
    document["cases"] = []


def _no_window(document: Any) -> None:
    document["windows"] = {}


def _no_state(document: Any) -> None:
    del document["cases"][0]["in"]["state"]


@pytest.mark.parametrize(
    ("change", "words"),
    [(_no_cases, "at least 1"), (_no_window, "cannot be run"), (_no_state, "cannot be run")],
)
def test_damaged_golden_files_refuse_the_bundle(
    engine: Engine, files: Files, change: Any, words: str
) -> None:
    """No cases, no windows, no state: the bundle is refused, nothing crashes."""
    with pytest.raises(GoldenError, match=words):
        run_golden(engine, altered(files, change))


def test_missing_golden_files_refuse_the_bundle(engine: Engine, files: Files) -> None:
    """A bundle without golden cases proves nothing and is refused."""
    for name in ("golden.json", "golden.bin"):
        with pytest.raises(GoldenError, match=f"'{name}' is missing"):
            run_golden(engine, {k: v for k, v in files.items() if k != name})


def test_a_case_may_follow_another(files: Files) -> None:
    """A case that comes after another starts from its state: a renewal is judged as one."""
    decision = decision_of()
    base = golden_cases(decision)[0]
    window = np.full(256, 9.0, dtype=np.float32)
    window[::2] = -9.0
    given = replace(base.given, windows={**base.given.windows, "vib": window})
    later = replace(given, now_us=given.now_us + 9_000_000, window_end_us=given.now_us + 9_000_000)
    cases = [GoldenCase("first", given), GoldenCase("second", later, "first"), GoldenCase("alone", later)]
    made = json.loads(golden_files(files, cases)["golden.json"])
    finals = {case["name"]: case["expected"]["final"] for case in made["cases"]}
    assert finals == {"first": None, "second": "slow", "alone": None}  # on_delay_s: 8 of gate 'loaded'
    with pytest.raises(GoldenError, match="'first' is there twice"):
        golden_files(files, [cases[0], cases[0]])


def test_a_features_slack_follows_its_unit() -> None:
    """Slack is a share of the signal's range, per second for a slope, of one where there is no unit."""
    decision = decision_of()
    assert feature_slack(decision, "vib.rms") == pytest.approx(1e-6 * 100)
    assert feature_slack(decision, "temp.slope") == pytest.approx(1e-6 * 150 / 4)
    assert feature_slack(decision, "temp.slope_2of2") == pytest.approx(1e-6 * 150 / 2)
    for word in ("kurtosis", "x_hum_1of2", "x_fed_by.hand"):
        assert feature_slack(decision, f"vib.{word}") == 1e-6


def test_bands_and_crossings_have_a_slack_of_their_own() -> None:
    """A quarter of a percent of a band's power; two crossings of the samples they are counted in."""
    decision = decision_of()
    n = decision.samples("vib")
    assert feature_slack(decision, "vib.band_3of8") == feature_slack(decision, "vib.env_1of2_1of2") == 1e-3
    assert 2 / (n - 1) < feature_slack(decision, "vib.zcr") < 3 / (n - 1)
    assert 2 / (n // 4 - 1) < feature_slack(decision, "vib.zcr_4of4") < 3 / (n // 4 - 1)
