"""Records go to bytes and back without loss."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import EngineError
from aiotkit.core.gates import Change, GateVerdict, Verdict
from aiotkit.core.records import (
    MAX_US,
    Answer,
    Command,
    Decided,
    DecisionInput,
    Draw,
    EngineState,
    OperatorInput,
    Posture,
    Question,
    Reading,
    RecordType,
    command_from_json,
    command_to_json,
    decision_payload,
    draw,
    input_from_json,
    input_to_json,
    later_us,
    pack_windows,
    state_from_json,
    state_to_json,
    unpack_windows,
)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
INSTANTS = st.integers(0, 2**53)
QUESTIONS = st.builds(
    Question,
    id=NAMES,
    kind=st.sampled_from(["ask", "confirm", "suggest", "inspect"]),
    proposed=st.none() | NAMES,
    until_us=INSTANTS,
    reason=NAMES,
)
STATES = st.builds(
    EngineState,
    history=st.dictionaries(NAMES, st.lists(NUMBERS, max_size=6).map(tuple), max_size=3),
    memory=st.dictionaries(
        NAMES, st.tuples(st.booleans(), st.none() | NUMBERS, st.none() | NUMBERS), max_size=3
    ),
    posture=st.none() | st.builds(Posture, NAMES, INSTANTS, st.none() | INSTANTS),
    changes=st.lists(st.builds(Change, NUMBERS, NAMES), max_size=4).map(tuple),
    question=st.none() | QUESTIONS,
)
READINGS = st.builds(
    Reading,
    st.none() | NUMBERS | NAMES | st.sampled_from([math.inf, -math.inf, "nan", "inf"]),
    st.floats(min_value=0, allow_nan=False),
)
INPUTS = st.builds(
    DecisionInput,
    seed=NAMES,
    now_us=INSTANTS,
    window_end_us=INSTANTS,
    windows=st.just({}),
    context=st.dictionaries(NAMES, READINGS, max_size=4),
    faults=st.dictionaries(NAMES, NAMES, max_size=3),
    operator=st.builds(
        OperatorInput,
        st.booleans(),
        st.booleans(),
        st.none() | NAMES,
        st.none() | st.builds(Answer, NAMES, NAMES, NAMES, INSTANTS),
    ),
)


def through_json(data):
    return json.loads(canonical_bytes(data))


@given(STATES)
def test_a_state_comes_back_equal(state):
    """What one decision hands to the next survives a restart exactly."""
    assert state_from_json(through_json(state_to_json(state))) == state


@given(INPUTS, STATES)
def test_an_input_comes_back_equal(given_input, state):
    """A replay sees what the engine saw: words that look like numbers stay words."""
    data = through_json(input_to_json(given_input, state, "sha256:0"))
    assert input_from_json(data, given_input.windows) == (given_input, state)


def test_a_reading_that_is_not_a_number_comes_back_as_that():
    """NaN as a context value is recorded by name and read back as NaN, apart from the word."""
    given_input = DecisionInput("s", 1, 1, {}, {"x": Reading(math.nan, math.inf), "y": Reading("nan", 1.0)})
    again, _ = input_from_json(through_json(input_to_json(given_input, EngineState(), "")), {})
    assert math.isnan(again.context["x"].value)
    assert again.context["x"].age_s == math.inf
    assert again.context["y"].value == "nan"


@given(
    st.builds(
        Command,
        NAMES,
        NAMES,
        st.dictionaries(NAMES, NUMBERS | NAMES | st.booleans(), max_size=3),
        st.none() | INSTANTS,
        st.booleans(),
    )
)
def test_a_command_comes_back_equal(command):
    """The actuator process reads what the engine said."""
    assert command_from_json(through_json(command_to_json(command))) == command


WINDOWS = st.dictionaries(
    NAMES, hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)), max_size=4
)


@given(WINDOWS)
def test_windows_come_back_bit_by_bit(windows):
    """Every sample keeps its bits, NaN included, and the same windows have the same digest."""
    data = pack_windows(windows)
    again = unpack_windows(data)
    assert again.keys() == windows.keys()
    assert all(again[n].tobytes() == windows[n].tobytes() for n in windows)
    assert pack_windows(dict(reversed(again.items()))) == data


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_windows_that_end_early_are_refused(cut):
    """A torn window is an error that says how many bytes were expected."""
    data = pack_windows({"vib": np.arange(3, dtype=np.float32)})
    with pytest.raises(EngineError, match=rf"expected 12 bytes of float32; found {12 - cut}"):
        unpack_windows(data[:-cut])


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"[]\n", b'{"a":"x"}\n', b"{", b"\xff\n", b'{"a":null}\n', b"[" * 100_000]
)
def test_bytes_that_are_no_windows_are_refused(data):
    """Whatever the bytes, the answer is an error of ours."""
    with pytest.raises(EngineError, match="window bytes"):
        unpack_windows(data)


@given(st.text(st.characters(codec="utf-8")), st.floats(0, 1))
def test_a_draw_can_be_repeated_by_anyone(seed, p):
    """Seed and purpose give the same number everywhere, and other purposes another."""
    one = draw(seed, "verify", p)
    assert one == draw(seed, "verify", p)
    assert 0 <= one.u < 1
    assert one.u != draw(seed, "upload", p).u
    assert one.hit is (one.u < p)


def test_draws_are_uniform():
    """A share of 5 % is drawn about five times in a hundred."""
    hits = sum(draw(f"d/j/{i}", "verify", 0.05).hit for i in range(20_000))
    assert 900 < hits < 1100
    us = np.sort([draw(f"d/j/{i}", "verify", 0.05).u for i in range(20_000)])
    assert np.abs(us - np.linspace(0, 1, us.size)).max() < 0.015  # Kolmogorov–Smirnov, p ≈ 2e-4


def test_a_draw_stays_what_it_was():
    """Recorded probabilities are only worth something if the draw never changes."""
    assert draw("press-1/00ff/17", "verify", 0.5).u == 0.1924726264198945


def decided(**more):
    parts = {
        "features": {"vib.rms": 7.25, "oil.last": math.nan},
        "history": {"trend": 0.0},
        "p": {"healthy": 0.9, "worn": 0.1},
        "expected_costs": {"run": 90.0},
        "faults": {"oil": "nothing heard for 130 s"},
        "proposed": "slow",
        "proposal_reason": "because",
        "verdict": Verdict.HOLD,
        "verdicts": (GateVerdict("cool", Verdict.HOLD, "too hot"),),
        "final": None,
        "final_reason": "held",
        "in_force": "run",
        "mode": "act",
        "command": Command("slow", "drive", {"speed": 0.5}, 7, False),
        "question": Question("q", "ask", None, 9, "why"),
        "verify": Draw(0.02, 0.5),
        "upload": Draw(1.0, 0.25),
        "state": EngineState(),
    }
    return Decided(**(parts | more))


def test_a_decision_record_says_everything_in_plain_data():
    """The record holds input, output, bundle and timing, and NaN by name."""
    given_input = DecisionInput("d/j/2", 5, 4, {}, {})
    payload = decision_payload(
        given_input,
        EngineState(),
        decided(),
        window_digest="sha256:aa",
        bundle="sha256:bb",
        decision=("pump", 3),
        timing={"graph_us": 170.5},
    )
    record = json.loads(payload)
    assert canonical_bytes(record) == payload
    assert sorted(record) == ["bundle", "decision", "format", "in", "out", "timing"]
    assert record["out"]["features"] == {"oil.last": "nan", "vib.rms": 7.25}
    assert record["out"]["verdicts"] == [["cool", "HOLD", "too hot"]]
    assert record["in"]["window"] == "sha256:aa"


def test_what_the_clocks_say_is_no_part_of_the_output():
    """Two runs that differ in timing alone have the same ``out``."""
    one, other = (
        json.loads(
            decision_payload(
                DecisionInput("d/j/2", 5, 4, {}, {}),
                EngineState(),
                decided(),
                window_digest="w",
                bundle="b",
                decision=("pump", 3),
                timing={"graph_us": us},
            )
        )
        for us in (1, 2)
    )
    assert one["out"] == other["out"]
    assert one != other


def test_a_posture_ends_at_its_time():
    """A command holds until its last microsecond, or until a person resets it."""
    assert Posture("slow", 0, 10).holds(9)
    assert not Posture("slow", 0, 10).holds(10)
    assert Posture("stop", 0, None).holds(2**62)


def test_record_types_keep_their_numbers():
    """Journals outlive code: a number is never given to another kind."""
    assert {t.name: int(t) for t in RecordType} == {
        "WINDOW": 1,
        "DECISION": 2,
        "INTENT": 3,
        "RESULT": 4,
        "EXPLANATION": 5,
        "SHADOW": 6,
        "QUESTION": 7,
        "ANSWER": 8,
        "OVERRIDE": 9,
        "OUTCOME": 10,
        "GAP": 11,
        "SECURITY": 12,
    }


@given(st.integers(0, MAX_US), st.floats(0, allow_nan=False))
def test_any_span_ends_at_an_instant_that_can_be_written(at_us, span_s):
    """Spans of any length are exact to a microsecond, or end at the last instant there is."""
    until_us = later_us(at_us, span_s)
    assert at_us <= until_us <= MAX_US
    if span_s < 1e6 and at_us < MAX_US // 2:
        assert until_us == at_us + round(span_s * 1e6)
