"""A graph with a head: what reaches it, what is done with its answer, and when it is not believed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from worlds.bundles import bundle_files, decision_of
from worlds.model_bundles import ECHO, model_bundle_files, model_files, model_interface

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.golden import run_golden
from aiotkit.bundle.replay import replay_record
from aiotkit.bundle.tuned import POLICY_FILE, Tuned
from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.errors import BundleError, EngineError, GoldenError
from aiotkit.core.policy import least_expected_cost
from aiotkit.core.records import (
    Answer,
    Decided,
    DecisionInput,
    EngineState,
    OperatorInput,
    Reading,
    decision_payload,
    pack_windows,
)
from aiotkit.release.cases import golden_cases
from aiotkit.release.clear_cases import clear_cases

NOW = 1_767_603_600_000_000
ENGINE = Engine(model_files())
#: a head that looks at vibration only; a bad temperature then makes its novelty NaN and nothing else
VIB_ONLY = Engine(model_files(interface=model_interface(head_reads=["vib"]), gates=[]))
NO_GATES = Engine(model_files(gates=[]))
NOVEL_GATE = {"name": "known", "require": {"field": "novelty", "le": 1.2}, "family": "novelty"}


def given(rms: float = 2.0, warmth: float = 65.0, **changes: Any) -> DecisionInput:
    rng = np.random.default_rng(5)
    noise = rng.standard_normal(256)
    windows = {
        "vib": (noise / np.sqrt(np.square(noise).mean()) * rms).astype(np.float32),
        "temp": (warmth + rng.normal(0, 0.01, 8)).astype(np.float32),
        "oil": np.array([4.0], dtype=np.float32),
    }
    context = {"load": Reading(80.0, 5.0), "mode": Reading("production", 5.0), "ambient": Reading(20.0, 9.0)}
    return replace(DecisionInput("d/j/2", NOW, NOW, windows, context), **changes)


def decide(engine: Engine, what: DecisionInput, state: EngineState = EngineState()) -> Decided:  # noqa: B008
    return engine.decide(state, what)[0]


def verdict_of(decided: Decided, gate: str) -> str | None:
    return next((v.verdict.name for v in decided.verdicts if v.gate == gate), None)


@pytest.mark.parametrize(("rms", "action"), [(2.0, "run"), (5.0, "ask"), (8.0, "ask"), (14.0, "stop")])
def test_the_action_of_least_expected_cost_is_proposed(rms: float, action: str) -> None:
    """With a head the probabilities decide: cheap to run on, worth asking, sure to stop."""
    decided = decide(ENGINE, given(rms))
    assert decided.p is not None
    z = rms - 9
    assert decided.p["worn"] == pytest.approx(1 / (1 + math.exp(-z)), rel=1e-4)
    assert decided.expected_costs["run"] == pytest.approx(5000 * decided.p["worn"])
    assert decided.proposed == action


def test_a_head_changes_the_decision_where_the_rule_would_not() -> None:
    """At 8 mm/s the rule slows the pump down; the model's costs ask a person first."""
    assert decide(Engine(bundle_files()), given(8.0)).proposed == "slow"
    assert decide(ENGINE, given(8.0)).proposed == "ask"


def test_history_and_context_reach_the_graph_in_order() -> None:
    """The graph sees history as it was before this window and as it is recorded, and context one-hot."""
    first = decide(ENGINE, given(3.0, 85.0))
    again = replace(given(), now_us=NOW + 4_000_000, window_end_us=NOW + 4_000_000)
    second = decide(ENGINE, again, first.state)
    fed = [[decided.features[name] for name in ECHO] for decided in (first, second)]
    assert np.isnan(fed[0][:2]).all()
    assert fed[1][:2] == [np.float32(second.history[name]) for name in ("hot", "vib_trend")]
    assert fed[1][0] == 4.0  # seconds since it was hot
    assert fed[0][2:] == fed[1][2:] == [80.0, 1.0, 0.0]
    cleaning = replace(given(), context={**given().context, "mode": Reading("cleaning", 5.0)})
    assert [decide(ENGINE, cleaning).features[name] for name in ECHO[2:]] == [80.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("reading", "fed"),
    [
        (None, [math.nan] * 2),
        (Reading("production", 601.0), [math.nan] * 2),
        (Reading("dancing", 5.0), [math.nan] * 2),
        (Reading("production", 600.0), [1.0, 0.0]),
    ],
    ids=["absent", "stale", "unknown word", "just in time"],
)
def test_context_that_is_not_believed_is_not_known_in_any_column(
    reading: Reading | None, fed: list[float]
) -> None:
    """Missing is NaN in all columns of a choice, never 'none of them'."""
    context = {k: v for k, v in given().context.items() if k != "mode"} | (
        {"mode": reading} if reading else {}
    )
    decided = decide(ENGINE, replace(given(), context=context))
    np.testing.assert_array_equal([decided.features[name] for name in ECHO[3:]], fed)


def test_history_beyond_float32_reaches_the_graph_as_infinite() -> None:
    """A number that float32 cannot hold raises no error and no warning on the device."""
    state = EngineState(history={"vib_trend": (NOW / 1e6 - 4, 2.0, -4.0, 1e300, 16.0, -4e300)})
    decided = decide(ENGINE, given(), state)
    assert math.isinf(decided.features[ECHO[1]])
    assert decided.proposed == "run"


def test_what_training_never_saw_is_asked() -> None:
    """Beyond the model's limit a person decides, with no gate written for it; within it nothing is asked."""
    novel, usual = decide(ENGINE, given(warmth=110.0)), decide(ENGINE, given(warmth=99.0))
    assert novel.novelty == pytest.approx(1.25, rel=1e-3)
    assert (novel.final, novel.mode) == (None, "ask")
    assert novel.question is not None
    assert "the window is unlike anything in training" in novel.question.reason
    assert (usual.final, usual.mode, usual.question) == ("run", "act", None)
    assert (verdict_of(novel, "model_knows"), verdict_of(usual, "model_knows")) == ("ASK", "ALLOW")


def test_an_answer_lets_a_novel_window_be_acted_on() -> None:
    """What a person answers is done: the model's ignorance is no veto."""
    asked = decide(ENGINE, given(warmth=110.0))
    assert asked.question is not None
    answer = OperatorInput(answer=Answer(asked.question.id, "stop", "ann", NOW))
    assert decide(ENGINE, given(warmth=110.0, operator=answer), asked.state).final == "stop"


def test_without_a_person_the_written_rule_decides_what_training_never_saw() -> None:
    """A decision without ``human`` has nobody to ask: the model is not followed, and not simply ignored."""
    engine, rule = Engine(model_files(human=None, gates=[])), Engine(bundle_files(human=None, gates=[]))
    for rms in (2.0, 14.0):
        decided, alone = decide(engine, given(rms, warmth=110.0)), decide(rule, given(rms, warmth=110.0))
        assert decided.final == alone.final
        assert decided.proposal_reason.startswith("the window is unlike anything in training (novelty 1.25)")
        assert "by the written rule" in decided.proposal_reason
    assert decide(engine, given(2.0)).expected_costs


def test_G1_without_a_person_a_novelty_that_is_no_number_is_doubt() -> None:
    """Nobody to ask and nothing known of the window: recovery."""
    engine = Engine(model_files(interface=model_interface(head_reads=["vib"]), human=None, gates=[]))
    decided = decide(engine, given(14.0, warmth=math.nan))
    assert (decided.final, decided.mode) == (engine.decision.recovery, "recovery")


def test_a_gate_of_ones_own_takes_the_place_of_the_engines() -> None:
    """Whoever writes a gate on novelty sets its limit and what happens beyond it."""
    engine = Engine(model_files(gates=[NOVEL_GATE]))
    assert decide(engine, given(warmth=107.0)).final == "run"
    held = decide(engine, given(warmth=110.0))
    assert (held.mode, verdict_of(held, "model_knows")) == ("hold", None)


def test_gates_on_a_model_wait_for_one() -> None:
    """A gate on p or novelty sleeps in a bundle whose graph has neither."""
    gates = [NOVEL_GATE, {"name": "sure", "require": {"field": "p.worn", "lt": 0.3}}]
    rule_only = decide(Engine(bundle_files(gates=gates)), given())
    assert [v.gate for v in rule_only.verdicts] == []
    assert rule_only.final == "run"
    assert verdict_of(decide(Engine(model_files(gates=gates)), given(9.0)), "sure") == "HOLD"


@pytest.mark.parametrize("rms", [2.0, 14.0])
def test_G1_a_novelty_that_is_no_number_never_acts(rms: float) -> None:
    """NaN is not 'at most 1': only the recovery is ordered, whatever the head is sure of."""
    decided = decide(VIB_ONLY, given(rms, warmth=math.nan))
    assert decided.novelty is not None
    assert math.isnan(decided.novelty)
    assert decided.proposed in ("run", "stop")
    assert verdict_of(decided, "model_knows") == "INDETERMINATE"
    assert (decided.final, decided.mode) == ("run", "recovery")


def test_G1_where_the_head_would_guess_the_written_rule_proposes() -> None:
    """The head puts something likely in a bad signal's place; what it says is recorded and not acted on."""
    what = given(14.0)
    broken = replace(what, windows={**what.windows, "vib": np.full(256, 1000, np.float32)})
    decided = decide(NO_GATES, broken)
    assert decided.p is not None
    assert decided.p["worn"] == pytest.approx(1 / (1 + math.exp(7)), rel=1e-4)
    assert (decided.proposed, decided.final, decided.mode) == (None, "run", "recovery")
    assert "signal 'vib': 256 of 256 samples" in decided.final_reason


def test_a_signal_the_head_does_not_read_may_fail() -> None:
    """Where the interface says what the head reads, another signal's failure does not stop it."""
    what = given(14.0)
    broken = replace(what, windows={"vib": what.windows["vib"], "temp": what.windows["temp"]})
    assert decide(NO_GATES, broken).proposal_reason.startswith("signal 'oil': ")
    decided = decide(VIB_ONLY, broken)
    assert ("oil" in decided.faults, decided.proposed) == (True, "stop")
    assert decided.proposal_reason.startswith("least expected cost")


def test_a_missing_required_context_ends_in_recovery_and_an_optional_one_does_not() -> None:
    """The declaration says what the model may do without."""
    context = given().context
    for name, proposed in (("load", None), ("ambient", "run")):
        left = {k: v for k, v in context.items() if k != name}
        assert decide(NO_GATES, replace(given(), context=left)).proposed == proposed


def test_a_rules_timed_terms_remember_while_a_model_decides() -> None:
    """Whoever takes the model out again finds the rule's memory as if it had decided all along."""
    ruled, modelled = EngineState(), EngineState()
    rule_only = Engine(bundle_files())
    for i, rms in enumerate((8.0, 6.8, 2.0, 8.0)):
        at_us = NOW + i * 4_000_000
        what = replace(given(rms), now_us=at_us, window_end_us=at_us)
        ruled, modelled = decide(rule_only, what, ruled).state, decide(ENGINE, what, modelled).state
        mine = [{k: v for k, v in s.memory.items() if k.startswith("rule/")} for s in (ruled, modelled)]
        assert mine[0] == mine[1] != {}


@pytest.mark.parametrize(("day", "verdict"), [("mon", "ALLOW"), ("tue", "HOLD")])
def test_a_gate_may_read_the_calendar(day: str, verdict: str) -> None:
    """The site's clock and calendar are there for whoever reads them, and only then worked out."""
    gate = {"name": "day", "require": {"field": "context.weekday", "in": [day]}}
    decided = decide(Engine(model_files(gates=[gate])), given())
    assert verdict_of(decided, "day") == verdict


def records(engine: Engine) -> list[tuple[bytes, bytes]]:
    """The golden cases as a device would record them: (payload, window)."""
    states: dict[str | None, EngineState] = {None: EngineState()}
    out = []
    for case in golden_cases(decision_of(), model=True):
        state = states[case.after]
        decided, timing = engine.decide(state, case.given)
        states[case.name] = decided.state
        window = pack_windows(case.given.windows)
        payload = decision_payload(
            case.given,
            state,
            decided,
            window_digest=digest(window),
            bundle="b",
            decision=("x", 1),
            timing=timing,
        )
        out.append((payload, window))
    return out


RECORDS = records(ENGINE)


def test_G8_every_decision_with_a_head_replays_bit_for_bit() -> None:
    """Probabilities, novelty and what history and context fed: the same bytes in another engine."""
    fresh = Engine(model_files())
    for payload, window in RECORDS[::-1]:
        assert replay_record(fresh, payload, window).identical


def test_T10_a_changed_novelty_or_probability_is_detected() -> None:
    """One unit in the last place is a difference, and so is a record without its novelty."""
    payload, window = RECORDS[0]
    for change in ("novelty", "p", "gone"):
        document = json.loads(payload)
        if change == "novelty":
            document["out"]["novelty"] = float(np.nextafter(document["out"]["novelty"], 9))
        elif change == "p":
            document["out"]["p"]["ok"] = float(np.nextafter(document["out"]["p"]["ok"], 0))
        else:
            del document["out"]["novelty"]
        replayed = replay_record(ENGINE, canonical_bytes(document), window)
        wanted = "out.p.ok" if change == "p" else "out.novelty"
        assert [d.where for d in replayed.differences] == [wanted]


def test_a_record_of_a_rule_says_nothing_of_novelty() -> None:
    """Records of before are the records of today: they replay as they are."""
    decided = decide(Engine(bundle_files()), given())
    assert decided.novelty is None
    assert "novelty" not in decided.to_json()
    assert decide(ENGINE, given()).to_json()["novelty"] == decide(ENGINE, given()).novelty


MODEL_FILES = model_bundle_files()


def test_golden_cases_with_a_head_are_decided_twice_alike() -> None:
    """The cases cover every action that the costs can choose, asking, doubt and a novel window."""
    assert run_golden(Engine(MODEL_FILES), MODEL_FILES) >= 45
    expected = [case["expected"] for case in json.loads(MODEL_FILES["golden.json"])["cases"]]
    assert {e["proposed"] for e in expected} == {"run", "stop", "ask", "slow", None}
    assert any(isinstance(e["novelty"], float) and e["novelty"] > 1 for e in expected)


@pytest.mark.parametrize(
    ("what", "change", "words"),
    [
        ("p", lambda e: e["p"].update(worn=e["p"]["worn"] + 2e-3), r"'ordinary-0': p\.worn"),
        ("novelty", lambda e: e.update(novelty=e["novelty"] * 1.05), r"'ordinary-0': novelty"),
        ("no novelty", lambda e: e.pop("novelty"), r"'ordinary-0': novelty; expected None"),
        ("novelty NaN", lambda e: e.update(novelty="nan"), r"'ordinary-0': novelty"),
    ],
    ids=lambda x: x if isinstance(x, str) and "'" not in x else "",
)
def test_golden_refuses_another_probability_or_novelty(what: str, change: Any, words: str) -> None:
    """A head that says otherwise here than where it was built refuses the bundle."""
    document = json.loads(MODEL_FILES["golden.json"])
    change(document["cases"][0]["expected"])
    with pytest.raises(GoldenError, match=words):
        run_golden(Engine(MODEL_FILES), {**MODEL_FILES, "golden.json": canonical_bytes(document)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"novelty": False}, "graph.onnx: outputs; expected .*'p': 2}; found .*'novelty': 1"),
        ({"history_inputs": ["history.hot"]}, "graph.onnx: inputs; expected .*'history': 1"),
        ({"context_inputs": []}, "graph.onnx: inputs; expected .* found .*'context': 3"),
    ],
)
def test_a_graph_that_is_not_what_its_interface_says_is_refused(
    changes: Mapping[str, Any], words: str
) -> None:
    """Inputs and outputs beyond or short of the promise keep the engine shut, by name."""
    with pytest.raises(BundleError, match=words):
        Engine(model_files(interface=model_interface(**changes)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"history_inputs": ["history.hot", "history.trend"]}, "'history.trend'; expected one of"),
        ({"context_inputs": ["context.lod", "context.load", "context.mode=cleaning"]},
         "'context.lod'; expected context of the decision"),
        ({"context_inputs": ["context.load", "context.mode=idle", "context.mode=cleaning"]},
         "'context.mode=idle'; expected one of"),
        ({"context_inputs": ["context.load=1", "context.mode=production", "context.mode=cleaning"]},
         "'context.load=1'; expected the number 'context.load'"),
        ({"context_inputs": ["context.load", "context.mode", "context.mode=cleaning"]},
         "'context.mode'; expected one of"),
        ({"states": ["ok", "broken"]}, "states; expected"),
    ],
)  # fmt: skip
def test_an_interface_of_another_decision_is_refused(changes: Mapping[str, Any], words: str) -> None:
    """History, context and states must be the decision's own."""
    with pytest.raises(EngineError, match=words):
        Engine(model_files(interface=model_interface(**changes)))


@pytest.mark.parametrize(
    "overrides",
    [
        {"rule": [{"when": {"field": "novelty", "gt": 1}, "do": "slow"}, {"otherwise": "run"}], "gates": []},
    ],
)
def test_a_rule_on_novelty_needs_a_graph_that_says_it(overrides: Mapping[str, Any]) -> None:
    """A written rule may act on novelty; without a detector in the graph the bundle does not open."""
    with pytest.raises(EngineError, match=r"rule\[0\] reads 'novelty'; expected a graph that says how novel"):
        Engine(bundle_files(**overrides))
    assert decide(Engine(model_files(**overrides)), given(warmth=110.0)).mode == "ask"


def test_near_ties_and_limits_are_left_out_and_their_followers_kept() -> None:
    """A case between two actions goes; the one that came after it follows the case before."""
    cases = golden_cases(decision_of(), model=True)[:4]
    kept = clear_cases(ENGINE, cases)
    assert [case.name for case in kept] == [case.name for case in cases]
    tie = replace(cases[1], given=replace(given(at_tie()), seed="golden/0/tie"))
    near_limit = replace(cases[1], given=replace(given(warmth=100.2), seed="golden/0/limit"))
    for odd in (tie, near_limit):
        left = clear_cases(ENGINE, (cases[0], odd, *cases[2:]))
        assert [(c.name, c.after) for c in left] == [
            ("ordinary-0", None),
            ("ordinary-2", "ordinary-0"),
            ("ordinary-3", "ordinary-2"),
        ]


def at_tie() -> float:
    """The vibration at which running on and asking cost the same."""
    low, high = 2.0, 8.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        worn = 1 / (1 + math.exp(9 - middle))
        runs = least_expected_cost({"ok": 1 - worn, "worn": worn}, ENGINE.decision).action == "run"
        low, high = (middle, high) if runs else (low, middle)
    return low


def holding(hours: float) -> Engine:
    human = {"cost": 15, "delay_s": 300, "reliability": 0.9, "holds_s": hours * 3600}
    return Engine(model_files(human=human, gates=[]))


@pytest.mark.parametrize(("hours", "later_h", "proposed"), [(0, 1, "ask"), (6, 1, "run"), (6, 7, "ask")])
def test_an_answer_settles_the_same_doubt_for_as_long_as_it_holds(
    hours: float, later_h: float, proposed: str
) -> None:
    """The same doubt an hour later is not put to a person again; when his answer is old, it is."""
    engine = holding(hours)
    asked = decide(engine, given(8.0))
    assert asked.question is not None
    said = OperatorInput(answer=Answer(asked.question.id, "run", "ann", NOW))
    answered = decide(engine, given(8.0, operator=said), asked.state)
    later = NOW + round(later_h * 3.6e9)
    again = decide(engine, given(8.0, now_us=later, window_end_us=later), answered.state)
    assert again.proposed == proposed


def test_an_answer_that_holds_does_not_stand_against_what_the_model_is_sure_of() -> None:
    """A held answer replaces a question, never an action."""
    engine = holding(6)
    asked = decide(engine, given(8.0))
    assert asked.question is not None
    said = OperatorInput(answer=Answer(asked.question.id, "run", "ann", NOW))
    answered = decide(engine, given(8.0, operator=said), asked.state)
    assert decide(engine, given(14.0), answered.state).proposed == "stop"


def test_the_margin_of_a_bundle_makes_waiting_worth_more() -> None:
    """``policy.json`` sets what acting must save; the decision file itself stays what people signed."""
    files = dict(model_files(gates=[]))
    patient = Engine(files | {POLICY_FILE: Tuned(margin=1e6).canonical()})
    assert decide(Engine(files), given(14.0)).proposed == "stop"
    assert decide(patient, given(14.0)).proposed == "run"
    with pytest.raises(BundleError, match=r"policy\.json.*margin"):
        Engine(files | {POLICY_FILE: b'{"format": 1, "margin": -1}'})
