from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given as given_
from hypothesis import strategies as st
from worlds.bundles import bundle_files, decision_of

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.replay import Recorded, replay_all, replay_record
from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.errors import ReplayError
from aiotkit.core.records import (
    Answer,
    DecisionInput,
    EngineState,
    OperatorInput,
    Reading,
    decision_payload,
    pack_windows,
)
from aiotkit.release.cases import golden_cases

ENGINE = Engine(bundle_files())
BUNDLE = "sha256:" + "b" * 64


@dataclass(frozen=True)
class Taken:
    payload: bytes
    window: bytes


def take(engine: Engine, state: EngineState, given: DecisionInput) -> tuple[Taken, EngineState]:
    """Decide and record, as a device does."""
    decided, timing = engine.decide(state, given)
    window = pack_windows(given.windows)
    payload = decision_payload(
        given, state, decided, window_digest=digest(window), bundle=BUNDLE, decision=("x", 1), timing=timing
    )
    return Taken(payload, window), decided.state


def history() -> list[Taken]:
    """The golden cases, each from the state of the case that it follows."""
    states: dict[str | None, EngineState] = {None: EngineState()}
    out = []
    for case in golden_cases(decision_of()):
        record, states[case.name] = take(ENGINE, states[case.after], case.given)
        out.append(record)
    return out


RECORDS = history()
BASE = golden_cases(decision_of(), 16)[0].given


def busy() -> Taken:
    """A record with a command that the device gave by itself."""
    outs = {record: json.loads(record.payload)["out"] for record in RECORDS}
    return next(r for r, out in outs.items() if out["command"] is not None and out["mode"] == "act")


BUSY = busy()


def changed(record: Taken, *path: str | int, value: Any) -> bytes:
    document = json.loads(record.payload)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return canonical_bytes(document)


def test_G8_every_decision_replays_bit_for_bit() -> None:
    """A whole history, with bad inputs and people's orders in it, replays to the same bytes."""
    for record in RECORDS:
        assert replay_record(ENGINE, record.payload, record.window).identical
    fresh = Engine(bundle_files())
    assert all(replay_record(fresh, r.payload, r.window).identical for r in RECORDS[::-1])


@given_(
    st.lists(st.floats(width=32), min_size=8, max_size=8),
    st.floats(),
    st.one_of(st.none(), st.text(max_size=5), st.floats(), st.sampled_from(["production", "cleaning"])),
    st.booleans(),
    st.sampled_from([None, "run", "slow", "stop"]),
)
def test_G1_whatever_went_in_replays(
    temp: list[float], age: float, value: Any, bypass: bool, override: str | None
) -> None:
    """Any float in a window, any age, any context value: what was recorded replays to the same bytes."""
    windows = {**BASE.windows, "temp": np.array(temp, dtype=np.float32)}
    context = {**BASE.context, "mode": Reading(value, age), "load": Reading(value, 0.0)}
    answer = Answer("q", "stop", "ann", BASE.now_us)
    operator = OperatorInput(bypass=bypass, override=override, answer=answer)
    given = DecisionInput("d/j/7", BASE.now_us, BASE.now_us, windows, context, {"oil": "stuck"}, operator)
    record, _ = take(ENGINE, EngineState(), given)
    assert replay_record(ENGINE, record.payload, record.window).identical


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("out", "final"), "stop", "out.final"),
        (("out", "proposed"), "stop", "out.proposed"),
        (("out", "in_force"), "stop", "out.in_force"),
        (("out", "final_reason"), "because", "out.final_reason"),
        (("out", "command", "values", "speed"), 1.0, "out.command.values.speed"),
        (("out", "verify"), [0.05, 0.001], "out.verify"),
        (("out", "state", "changes"), [], "out.state.changes"),
        (("out", "added"), 1, "out.added"),
        (("in", "now_us"), 1, "out."),
        (("in", "seed"), "other/journal/1", "out.verify"),
        (("in", "context", "load"), [0.0, 0.0], "out."),
        (("in", "operator", "bypass"), True, "out."),
    ],
)
def test_T10_a_changed_record_is_detected(path: tuple[str, ...], value: Any, where: str) -> None:
    """A changed action, reason, command, draw, state or input replays differently, and says where."""
    replayed = replay_record(ENGINE, changed(BUSY, *path, value=value), BUSY.window)
    assert not replayed.identical
    assert any(d.where.startswith(where) for d in replayed.differences), replayed.differences


def test_T10_the_last_digit_of_a_feature_is_detected() -> None:
    """A feature that differs by one unit in the last place is a difference."""
    value = json.loads(BUSY.payload)["out"]["features"]["vib.rms"]
    payload = changed(BUSY, "out", "features", "vib.rms", value=float(np.nextafter(value, 99)))
    (difference,) = replay_record(ENGINE, payload, BUSY.window).differences
    assert difference.where == "out.features.vib.rms"
    assert difference.replayed == value


def test_T10_a_changed_window_is_detected() -> None:
    """One changed bit of the window is found by its digest; with the digest changed too, by the decision."""
    window = bytearray(BUSY.window)
    window[-198] ^= 0x80
    (difference,) = replay_record(ENGINE, BUSY.payload, bytes(window)).differences
    assert difference.where == "in.window"
    forged = changed(BUSY, "in", "window", value=digest(bytes(window)))
    assert not replay_record(ENGINE, forged, bytes(window)).identical


def test_another_bundle_decides_otherwise() -> None:
    """A record replayed with another bundle than the one that decided differs."""
    other = Engine(bundle_files(rule=[{"otherwise": "run"}]))
    differences = replay_record(other, BUSY.payload, BUSY.window).differences
    assert {"out.proposed", "out.proposal_reason"} <= {d.where for d in differences}


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"{}", "record of another format"),
        (b"[]", "record of another format"),
        (b"\xff", "decision record"),
        (changed(BUSY, "format", value=2), "record of another format"),
        (changed(BUSY, "in", value={}), "record of another format"),
        (changed(BUSY, "in", "state", value=None), "input damaged"),
        (changed(BUSY, "in", "context", value={"load": 1}), "input damaged"),
    ],
)
def test_what_is_no_decision_record_cannot_be_replayed(payload: bytes, words: str) -> None:
    """Other formats and damaged inputs are named, not guessed at."""
    with pytest.raises(ReplayError, match=words):
        replay_record(ENGINE, payload, BUSY.window)


def test_a_window_that_does_not_add_up_cannot_be_replayed() -> None:
    """Window bytes of the right digest but the wrong form are named."""
    junk = b'{"vib": 3}\n123'
    with pytest.raises(ReplayError, match="input damaged"):
        replay_record(ENGINE, changed(BUSY, "in", "window", value=digest(junk)), junk)


def test_the_count_over_many_records_adds_up() -> None:
    """Every record is counted once: identical, different, or not replayable and why."""
    steps: list[int] = []
    engines: Mapping[str, Engine] = {BUNDLE: ENGINE}
    records = [
        *(Recorded(f"r{i}", r.payload, r.window, digest(r.payload)) for i, r in enumerate(RECORDS)),
        Recorded("withheld window", BUSY.payload, None),
        Recorded("withheld record", None, None),
        Recorded("changed", changed(BUSY, "out", "final", value="run"), BUSY.window),
        Recorded("swapped", RECORDS[0].payload, RECORDS[0].window, digest(BUSY.payload)),
        Recorded("elsewhere", changed(BUSY, "bundle", value="sha256:0"), BUSY.window),
        Recorded("junk", b"junk", BUSY.window),
    ]
    result = replay_all(records, engines.get, lambda: steps.append(1))
    assert (result.checked, len(steps)) == (len(records), len(records))
    assert result.identical == len(RECORDS)
    assert set(result.different) == {"changed", "swapped"}
    assert result.not_replayable == {
        "window withheld": 1,
        "record withheld": 1,
        "bundle not at hand": 1,
        "decision record": 1,
    }
