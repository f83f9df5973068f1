"""The engine decides from its arguments alone, the same bits wherever its inputs lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from worlds.bundles import bundle_files

from aiotkit.bundle.engine import Engine
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import AiotkitError, BundleError
from aiotkit.core.records import DecisionInput, EngineState, OperatorInput, Reading

NOW = 1_767_603_600_000_000


def given(engine: Engine, seed: int = 3, **changes: object) -> DecisionInput:
    rng = np.random.default_rng(seed)
    windows = {
        "vib": rng.normal(0, 2, engine.decision.samples("vib")).astype(np.float32),
        "temp": rng.normal(60, 1, engine.decision.samples("temp")).astype(np.float32),
        "oil": np.array([4.0], dtype=np.float32),
    }
    context = {"load": Reading(80.0, 5.0), "mode": Reading("production", 5.0), "ambient": Reading(20.0, 9.0)}
    return replace(DecisionInput("d/j/2", NOW, NOW, windows, context), **changes)


def out(engine: Engine, what: DecisionInput, state: EngineState = EngineState()) -> bytes:  # noqa: B008
    return canonical_bytes(engine.decide(state, what)[0].to_json())


def test_where_the_samples_lie_in_memory_does_not_matter(engine: Engine) -> None:
    """Windows at any alignment give the same bits: a replay reads them from other places than a device."""
    first = given(engine)
    expected = out(engine, first)
    for shift in range(1, 16):
        moved = {}
        for name, values in first.windows.items():
            room = np.zeros(values.size + shift, dtype=np.float32)
            room[shift:] = values
            moved[name] = room[shift:]
        assert out(engine, replace(first, windows=moved)) == expected


def test_a_decision_depends_on_its_arguments_only(engine: Engine, files: Mapping[str, bytes]) -> None:
    """Neither earlier decisions nor another engine change what comes out."""
    expected = out(engine, given(engine))
    for seed in range(5):
        out(engine, given(engine, seed))
    assert out(engine, given(engine)) == expected == out(Engine(files), given(engine))


@pytest.mark.parametrize("name", ["decision.json", "interface.json", "graph.onnx"])
def test_G5_a_missing_file_keeps_the_engine_shut(files: Mapping[str, bytes], name: str) -> None:
    """Without decision (and its gates), interface or graph nothing decides."""
    with pytest.raises(BundleError, match=f"'{name}' is missing"):
        Engine({k: v for k, v in files.items() if k != name})


def test_a_graph_that_does_not_open_is_refused(files: Mapping[str, bytes]) -> None:
    """Bytes that are no graph end in a clear error."""
    with pytest.raises(BundleError, match="onnxruntime cannot open it"):
        Engine({**files, "graph.onnx": b"not a graph"})


def test_a_graph_for_another_interface_is_refused(files: Mapping[str, bytes]) -> None:
    """Inputs and outputs must be the declared ones."""
    interface = json.loads(files["interface.json"])
    interface["features"] = interface["features"][:-1]
    with pytest.raises(AiotkitError, match=r"outputs|features"):
        Engine({**files, "interface.json": canonical_bytes(interface)})


BAD_WINDOWS = {
    "missing": None,
    "NaN": np.full(256, np.nan, dtype=np.float32),
    "infinite": np.full(256, np.inf, dtype=np.float32),
    "out of range": np.full(256, 1e30, dtype=np.float32),
    "too short": np.zeros(255, dtype=np.float32),
    "wrong type": np.zeros(256, dtype=np.float64),
    "wrong shape": np.zeros((2, 128), dtype=np.float32),
}


@pytest.mark.parametrize("kind", BAD_WINDOWS)
def test_G1_a_bad_window_ends_in_recovery(engine: Engine, kind: str) -> None:
    """Whatever is wrong with a window that the rule reads, only the recovery is ordered, with the reason."""
    first, bad = given(engine), BAD_WINDOWS[kind]
    windows = {**first.windows, "vib": bad} if bad is not None else {"temp": first.windows["temp"]}
    decided, _ = engine.decide(EngineState(), replace(first, windows=windows))
    assert (decided.proposed, decided.final) == (None, engine.decision.recovery)
    assert "vib" in decided.faults
    assert "vib" in decided.final_reason


@pytest.mark.parametrize(
    "reading",
    [None, Reading(None, 1.0), Reading("dancing", 1.0), Reading("production", 601.0),
     Reading("production", -1.0), Reading("production", float("nan")), Reading(3.0, 1.0)],
    ids=["absent", "null", "unknown word", "stale", "from the future", "age unknown", "a number"],
)  # fmt: skip
def test_G1_bad_required_context_ends_in_recovery(engine: Engine, reading: Reading | None) -> None:
    """A required condition of operation that cannot be believed leaves only the recovery."""
    first = given(engine)
    context = {k: v for k, v in first.context.items() if k != "mode"}
    if reading is not None:
        context["mode"] = reading
    decided, _ = engine.decide(EngineState(), replace(first, context=context))
    assert decided.final == engine.decision.recovery
    assert "required context 'mode'" in decided.final_reason


def test_few_bad_samples_are_bridged_as_declared(engine: Engine) -> None:
    """Up to ``max_bad_share`` of a window may be bad; one more and the signal is not believed."""
    first = given(engine)
    allowed = int(engine.decision.window.max_bad_share * 256)
    for count, trusted in ((allowed, True), (allowed + 1, False)):
        vib = first.windows["vib"].copy()
        vib[:count] = np.nan
        decided, _ = engine.decide(EngineState(), replace(first, windows={**first.windows, "vib": vib}))
        assert ("vib" not in decided.faults) is trusted


def test_history_excludes_the_present_window(engine: Engine) -> None:
    """The first decision knows no past; the same window again does not count twice."""
    first = given(engine)
    decided, _ = engine.decide(EngineState(), first)
    again, _ = engine.decide(decided.state, first)
    assert again.state.history == decided.state.history
    later = replace(first, window_end_us=NOW + 4_000_000, now_us=NOW + 4_000_000)
    assert engine.decide(decided.state, later)[0].state.history != decided.state.history


def test_bypass_still_decides_and_says_so(engine: Engine) -> None:
    """In maintenance the device looks, proposes and journals, and orders nothing."""
    decided, stages = engine.decide(EngineState(), given(engine, operator=OperatorInput(bypass=True)))
    assert (decided.mode, decided.command) == ("bypass", None)
    assert decided.proposed is not None
    assert set(stages) == {"check", "graph", "policy", "gates", "resolve"}


def test_G1_nothing_is_bridged_from_nothing() -> None:
    """Where every sample may be bad and every sample is, the signal is not believed; nothing crashes."""
    engine = Engine(bundle_files(window={"length_s": 4, "every_s": 4, "max_bad_share": 1.0}))
    first = given(engine)
    windows = {**first.windows, "vib": np.full(256, np.nan, dtype=np.float32)}
    decided, _ = engine.decide(EngineState(), replace(first, windows=windows))
    assert "vib" in decided.faults
    assert decided.final == engine.decision.recovery
