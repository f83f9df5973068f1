"""Why a decision: the trace out of a lake, what-if through the engine, occlusion, against training."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aiotkit.core.errors import DataError, LakeError, ReplayError

pytestmark = pytest.mark.desk
np = pytest.importorskip("numpy")
pytest.importorskip("pandas")
NOW = 1_767_603_600_000_000
KEY = ("d1", "j", 2)


def given(rms: float = 8.0, load: float | None = 80.0, **changes: Any) -> Any:
    """What a device would be given: vibration of known strength."""
    from aiotkit.core.records import DecisionInput, Reading

    noise = np.random.default_rng(5).standard_normal(256)
    windows = {
        "vib": (noise / np.sqrt(np.square(noise).mean()) * rms).astype(np.float32),
        "temp": np.linspace(64.99, 65.01, 8, dtype=np.float32),
        "oil": np.array([4.0], dtype=np.float32),
    }
    context = {"load": Reading(load, 5.0), "mode": Reading("production", 5.0), "ambient": Reading(20.0, 9.0)}
    return replace(DecisionInput("/".join(map(str, KEY)), NOW, NOW, windows, context), **changes)


def traced(files: Any, what: Any, *, window: bool = True) -> Any:
    """The decision as a device records it."""
    from aiotkit.bundle.engine import Engine
    from aiotkit.core.canonical import digest
    from aiotkit.core.records import EngineState, decision_payload, pack_windows
    from aiotkit.lab.trace import Trace

    decided, _ = Engine(files).decide(EngineState(), what)
    packed = pack_windows(what.windows)
    payload = decision_payload(
        what, EngineState(), decided, window_digest=digest(packed), bundle="sha256:b", timing={},
        decision=("bearing-test", 1),
    )  # fmt: skip
    return Trace(KEY, "pump-a", payload, packed if window else None)


@pytest.fixture(scope="module")
def files() -> Any:
    """The test bundle with a head whose formula is known."""
    from worlds.model_bundles import model_files

    return model_files()


@pytest.fixture
def engine(files: Any) -> Any:
    """Its engine."""
    from aiotkit.bundle.engine import Engine

    return Engine(files)


def worn(rms: float, load: float) -> float:
    """p(worn) as the head's author wrote it."""
    return 1 / (1 + math.exp(9 - rms - (load - 80) / 50))


def stored(tmp_path: Path, trace: Any, *, withheld: bool = False) -> Any:
    """A lake that holds the decision, its window, and who watched what."""
    import pyarrow as pa

    from aiotkit.lake.assets import Assets, Assignment
    from aiotkit.lake.blobs import Blobs
    from aiotkit.lake.lake import Lake

    lake = Lake.create(tmp_path / "lake")
    Assets(lake).assign(Assignment("d1", "pump-a", NOW - 1), recorded_us=NOW)
    window = json.loads(trace.payload)["in"]["window"]
    if trace.window is not None:
        Blobs(lake).put({window: trace.window})
    row = {"device": "d1", "journal_id": "j", "seq": 2, "type": "DECISION", "digest": "sha256:1", "head": ""}
    row |= {
        "length": len(trace.payload),
        "withheld": withheld,
        "decision_id": "bearing-test",
        "window": window,
    }
    row |= {"payload": None if withheld else trace.payload.decode(), "verify_hit": False}
    columns = {
        name: pa.array([value], pa.string()) if value is None else [value] for name, value in row.items()
    }
    columns["at"] = pa.array([NOW], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    lake.append("decisions", pa.table(columns))
    return lake


def test_a_trace_out_of_a_lake_is_what_the_device_recorded(tmp_path: Path, files: Any, engine: Any) -> None:
    """Bytes, window and subject come back, and the record replays bit for bit."""
    from aiotkit.bundle.replay import replay_record
    from aiotkit.lab.trace import read_trace

    made = traced(files, given())
    found = read_trace(stored(tmp_path, made), *KEY)
    assert found == made
    assert found.windows["vib"] == pytest.approx(given().windows["vib"])
    assert found.context["mode"] == ("production", 5.0)
    assert replay_record(engine, found.payload, found.window).identical


def test_what_is_not_in_the_lake_is_said(tmp_path: Path, files: Any, engine: Any) -> None:
    """No such decision, a record that was withheld, a window that never left the device, another bundle."""
    from aiotkit.bundle.replay import replay_record
    from aiotkit.lab.trace import files_for, read_trace

    made = traced(files, given(), window=False)
    lake = stored(tmp_path / "a", made)
    found = read_trace(lake, *KEY)
    assert found.window is None
    with pytest.raises(LakeError, match="d1/j/3 is not in the lake"):
        read_trace(lake, "d1", "j", 3)
    with pytest.raises(LakeError, match="was withheld"):
        read_trace(stored(tmp_path / "b", made, withheld=True), *KEY)
    with pytest.raises(DataError, match="the bundle that decided is not at hand"):
        files_for(found, {"sha256:other": files})
    with pytest.raises(ReplayError, match="window withheld"):
        replay_record(engine, found.payload, found.window)


@pytest.mark.parametrize("name", ["edge-01/7", "edge-01/j/x", "", "/j/7"])
def test_a_key_is_device_journal_and_number(name: str) -> None:
    """Anything else is refused, with an example."""
    from aiotkit.lab.trace import parse_key

    with pytest.raises(DataError, match="such as edge-01/sample/42"):
        parse_key(name)


def test_bundles_are_found_by_digest(tmp_path: Path) -> None:
    """In a folder and by name; a place without any is an error."""
    from worlds.releases import release, release_digest

    from aiotkit.lab.trace import open_bundles

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.aiot").write_bytes(release(1))
    (tmp_path / "2.aiot").write_bytes(release(2))
    found = open_bundles([tmp_path / "a", tmp_path / "2.aiot"])
    assert set(found) == {release_digest(1), release_digest(2)}
    assert "decision.json" in found[release_digest(1)]
    with pytest.raises(DataError, match="no bundle"):
        open_bundles([tmp_path / "b"])


def test_what_if_nothing_had_changed_is_the_decision_itself(files: Any, engine: Any) -> None:
    """The engine is asked with what was recorded, state included."""
    from aiotkit.lab.why import what_if

    trace = traced(files, given())
    assert what_if(engine, trace).to_json() == trace.out


def test_a_sweep_follows_the_head_over_the_declared_range(files: Any, engine: Any) -> None:
    """P is the author's formula at every load, and the action is that of least expected cost."""
    from aiotkit.lab.why import sweep

    table = sweep(engine, traced(files, given(8.0)), "context.load")
    assert table["value"].iloc[[0, -1]].tolist() == [0, 200]
    assert table["p.worn"].tolist() == pytest.approx([worn(8.0, v) for v in table["value"]], rel=1e-4)
    assert table["cost.run"].tolist() == pytest.approx((5000 * table["p.worn"]).tolist())
    assert table["ordered"].iloc[0] == "ask a person"
    assert table["proposed"].iloc[-1] == "stop"
    assert (table.attrs["field"], table.attrs["now"]) == ("context.load", 80.0)


def test_a_gate_turns_the_order_where_the_belief_does_not_change(files: Any, engine: Any) -> None:
    """While cleaning, slowing down helps nobody: the gate holds it back, whatever is believed."""
    from aiotkit.lab.why import overview, sweep

    trace = traced(files, given(14.0))
    table = sweep(engine, trace, "context.mode").set_index("value")
    assert table.loc["production", "proposed"] == table.loc["cleaning", "proposed"] == "stop"
    assert table.loc["cleaning", "ordered"] == "nothing new"
    assert "producing" in table.loc["cleaning", "why"]
    turns = overview(engine, trace).set_index("field")
    assert set(turns.index) == {"context.load", "context.mode", "context.ambient", "vib", "temp", "oil"}
    assert turns.loc["vib", "swing"] > 0.9 > turns.loc["oil", "swing"] == 0


def test_a_signal_can_be_made_weaker_and_stronger(files: Any, engine: Any) -> None:
    """Its window is multiplied; twice the vibration is twice the rms."""
    from aiotkit.lab.why import sweep, what_if

    trace = traced(files, given(6.0))
    table = sweep(engine, trace, "vib", [0.5, 1, 2])
    assert table["p.worn"].tolist() == pytest.approx([worn(r, 80) for r in (3, 6, 12)], rel=1e-3)
    silent = what_if(engine, trace, windows={"vib": np.full(256, np.nan, dtype=np.float32)})
    assert "vib" in silent.faults
    assert what_if(engine, trace, context={"load": None}).faults["load"] == "never heard"


def test_what_cannot_be_asked_is_refused_with_a_hint(files: Any, engine: Any) -> None:
    """An unknown name, and a decision whose window never left the device."""
    from aiotkit.lab.why import sweep, what_if

    trace = traced(files, given())
    with pytest.raises(DataError, match=r"did you mean 'context\.load'"):
        sweep(engine, trace, "context.laod")
    with pytest.raises(DataError, match="did you mean 'load'"):
        what_if(engine, trace, context={"laod": 1.0})
    with pytest.raises(DataError, match="never left the device"):
        what_if(engine, traced(files, given(), window=False))


def test_features_are_placed_in_what_the_bundle_was_built_from(files: Any) -> None:
    """Distance 1 is the 5 % or 95 % level; the most unusual comes first, what is unknown before all."""
    from aiotkit.lab.why import against_training
    from aiotkit.release.papers import drift_reference

    rms = np.linspace(0, 10, 1001, dtype=np.float32)[:, None]
    wide = np.linspace(-1000, 1000, 1001, dtype=np.float32)[:, None]
    reference = drift_reference(["vib.rms", "oil.last"], np.hstack([rms, wide]), "training")
    table = against_training(traced(files, given(8.0)), reference).set_index("feature")
    assert list(table.index) == ["vib.rms", "oil.last"]
    assert table.loc["vib.rms", ["low", "median", "high"]].tolist() == pytest.approx([0.5, 5, 9.5])
    assert table.loc["vib.rms", "apart"] == pytest.approx(3 / 4.5, rel=1e-3)
    assert table.loc["vib.rms", "place"] == pytest.approx(0.8, abs=0.03)
    unknown = given(windows={**given().windows, "oil": np.array([np.nan], dtype=np.float32)})
    assert against_training(traced(files, unknown), reference)["feature"].iloc[0] == "oil.last"


@pytest.fixture(scope="module")
def exported() -> Any:
    """A linear head behind the decision's own front."""
    pytest.importorskip("torch")
    from worlds.heads import exported_head

    return exported_head("linear")


def test_occlusion_is_the_change_of_p_without_the_column(exported: Any) -> None:
    """Run by hand: the head on the same columns with one replaced gives the p that is left."""
    from worlds.bundles import decision_of

    from aiotkit.bundle.engine import Engine
    from aiotkit.lab.why import occlusion
    from aiotkit.release.in_force import head_of
    from aiotkit.release.papers import drift_reference

    files = {
        "decision.json": decision_of().canonical(),
        "interface.json": exported.interface.canonical(),
        "graph.onnx": exported.graph,
    }
    names = exported.interface.features
    usual = np.tile(np.linspace(-1, 3, 101, dtype=np.float32)[:, None], (1, len(names)))
    reference = drift_reference(names, usual, "training")
    trace = traced(files, given(6.0))
    table = occlusion(head_of(exported.graph), exported.interface, trace, reference)
    assert set(table["column"]) >= {"vib.rms", "context.mode"}
    assert table.filter(like="p.").sum(axis=1).abs().max() < 1e-6
    biggest = table[["p.ok", "p.worn"]].abs().max(axis=1)
    assert biggest.is_monotonic_decreasing
    assert biggest.iloc[0] > 0
    row = table.set_index("column").loc["vib.rms"]
    assert row["replaced_by"] == "1, its median"
    left = _by_hand(exported, trace, Engine(files), "vib.rms", 1.0)
    assert float(trace.out["p"]["worn"]) - row["p.worn"] == pytest.approx(left["worn"], abs=1e-6)
    spoiled = json.loads(trace.payload)
    spoiled["out"]["p"] = {"ok": 0.5, "worn": 0.5}
    other = replace(trace, payload=json.dumps(spoiled).encode())
    with pytest.raises(DataError, match="the head"):
        occlusion(head_of(exported.graph), exported.interface, other, reference)


def _by_hand(exported: Any, trace: Any, engine: Any, column: str, value: float) -> dict[str, float]:
    """The head's p for the trace's columns with one of them replaced."""
    import onnxruntime as ort

    context = {"context.mode=cleaning": 0.0, "context.mode=production": 1.0, "context.load": 80.0}
    known = {
        **trace.out["features"],
        **{f"history.{n}": v for n, v in trace.out["history"].items()},
        **context,
    }
    x = [value if c == column else float(known.get(c, 20.0)) for c in exported.columns]
    session = ort.InferenceSession(exported.head)
    p = session.run(["p"], {"features": np.array([x], dtype=np.float32)})[0][0]
    return dict(zip(engine.interface.states, map(float, p), strict=True))


def test_there_is_nothing_to_take_away_from_a_rule() -> None:
    """Where the written rule decided, occlusion says so."""
    from worlds.bundles import bundle_files

    from aiotkit.bundle.engine import Engine
    from aiotkit.lab.why import occlusion, overview

    files = bundle_files()
    trace, engine = traced(files, given(8.0)), Engine(files)
    with pytest.raises(DataError, match="the written rule decided"):
        occlusion(files["graph.onnx"], engine.interface, trace, files["reference.json"])
    assert overview(engine, trace)["swing"].isna().all()


def test_the_figures_of_a_decision_say_what_they_show(files: Any, engine: Any) -> None:
    """With and without a window, a model and choices; each has a title and a caption, and draws."""
    from worlds.bundles import bundle_files

    from aiotkit.bundle.engine import Engine
    from aiotkit.lab import plots_trace as plots
    from aiotkit.lab.why import sweep

    decision = engine.decision
    with_model, by_rule = traced(files, given(14.0)), traced(bundle_files(), given(14.0))
    fields = ("context.load", "context.mode", "vib")
    made = [
        plots.window_figure(with_model, decision),
        plots.window_figure(traced(files, given(), window=False), decision),
        plots.belief_figure(with_model, decision),
        plots.belief_figure(by_rule, decision),
        *(plots.sweep_figure(sweep(engine, with_model, f), decision) for f in fields),
        plots.sweep_figure(sweep(Engine(bundle_files()), by_rule, "context.load"), decision),
    ]
    assert all(plot.png(40)[:4] == b"\x89PNG" for plot in made)
    assert all(plot.title and plot.caption.endswith((".", ". ")) for plot in made)
    assert "never left the device" in made[1].caption + made[1].title or "record alone" in made[1].caption
    assert "written rule" in made[3].caption


def test_the_slider_asks_the_engine(files: Any, engine: Any) -> None:
    """Moving it says what would be ordered then."""
    pytest.importorskip("ipywidgets")
    from aiotkit.lab.why_panel import WhatIf

    panel = WhatIf(engine, traced(files, given(14.0)), "context.mode")
    assert panel.words.startswith("<b>nothing new</b>") or "stop" in panel.words
    panel.choose("context.mode", "cleaning")
    assert "producing" in panel.words
    panel.choose("vib", 0.25)
    assert panel.words.startswith("<b>run</b>")
