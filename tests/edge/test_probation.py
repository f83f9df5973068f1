"""The rules of probation, and what is remembered of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError
from worlds.bundles import decision_of
from worlds.graphs import model_decision, model_files

from aiotkit.bundle.engine import Engine
from aiotkit.core.errors import IntegrityError
from aiotkit.core.gates import Verdict
from aiotkit.core.records import Decided, DecisionInput, EngineState
from aiotkit.edge.config import ProbationRules
from aiotkit.edge.pointers import seal
from aiotkit.edge.probation import Counts, Senses, Trial, counted, in_doubt, judge
from aiotkit.edge.trials import MAX_BYTES, Denied, Trials, decode_trials

RULES = ProbationRules()
A, B = ("sha256:" + sign * 64 for sign in "ab")


def standing(before: Counts | None = None, **counts: int) -> str:
    return judge(RULES, Trial(bundle=A, counts=Counts(**counts), before=before)).standing


def test_U12_a_bundle_passes_after_enough_decisions_in_order() -> None:
    """Not one decision earlier, and within its shares."""
    assert standing(decisions=95) == "on probation"
    assert standing(decisions=96) == "passed"
    assert standing(decisions=96, undecided=19, novel=48, late=4) == "passed"


@pytest.mark.parametrize(("word", "allowed"), [("undecided", 0.2), ("novel", 0.5), ("late", 0.05)])
def test_U12_each_share_fails_on_its_own(word: str, allowed: float) -> None:
    """At its limit a share is allowed, one decision more fails, and the words say which and how much."""
    most = math.floor(100 * allowed)
    assert standing(decisions=100, **{word: most}) == "passed"
    failed = judge(RULES, Trial(bundle=A, counts=Counts(decisions=100, **{word: most + 1})))
    assert failed.standing == "failed"
    assert failed.why == f"{most + 1} of 100 decisions were {word}; allowed {allowed:.0%}"


def test_U12_a_hopeless_bundle_is_judged_early_and_an_accident_is_not() -> None:
    """From the twelfth decision on, and never for fewer than three bad ones."""
    assert standing(decisions=11, undecided=11) == "on probation"
    assert standing(decisions=12, undecided=12) == "failed"
    assert standing(decisions=12, late=2) == "on probation"
    assert standing(decisions=12, late=3) == "failed"


def test_U12_what_the_place_does_to_every_bundle_is_not_held_against_one() -> None:
    """A sensor that was dead before is dead still; only the share beyond that counts."""
    dead = Counts(decisions=192, undecided=192)
    assert standing(dead, decisions=96, undecided=96) == "passed"
    half = Counts(decisions=100, undecided=50)
    assert standing(half, decisions=100, undecided=70) == "passed"
    assert standing(half, decisions=100, undecided=71) == "failed"


def test_U12_a_handful_of_decisions_before_excuse_nothing() -> None:
    """Three undecided decisions after a start are no measure of the place."""
    assert standing(Counts(decisions=3, undecided=3), decisions=12, undecided=12) == "failed"


def test_rules_are_read_strictly() -> None:
    """A share beyond 1, a limit that cannot be reached and an unknown key are refused."""
    for bad in ({"max_late_share": 1.5}, {"decisions": 5, "least": 6}, {"decision": 5}, {"starts": 0}):
        with pytest.raises(ValidationError):
            ProbationRules(**bad)


def decided(**changes: Any) -> Decided:
    engine = Engine(model_files())
    found, _ = engine.decide(EngineState(), DecisionInput("a/b/1", 0, 0, {}, {}))
    return replace(found, **changes)


def test_U12_how_one_decision_counts() -> None:
    """No proposal or no judgement is undecided; NaN is novel; the smaller of two limits says what is late."""
    decision = model_decision(needs={"deadline_ms": 100}, limits={"latency_p99_ms": 50})
    good = decided(proposed="run", verdict=Verdict.ALLOW, novelty=0.5)
    assert counted(decision, good, 49.0) == Counts(decisions=1)
    assert counted(decision, good, 51.0) == Counts(decisions=1, late=1)
    assert counted(model_decision(needs={"deadline_ms": 40}), good, 41.0).late == 1
    assert counted(decision, replace(good, novelty=None), 1.0).novel == 0
    assert counted(decision, replace(good, novelty=math.nan), 1.0).novel == 1
    assert counted(decision, replace(good, novelty=1.01), 1.0).novel == 1
    assert in_doubt(replace(good, proposed=None))
    assert in_doubt(replace(good, verdict=Verdict.INDETERMINATE))
    assert not in_doubt(replace(good, proposed="ask", verdict=Verdict.HOLD))


def test_U12_an_input_that_worked_under_the_bundle_and_died_is_not_its_doing() -> None:
    """Twelve decisions in a row without one, and a later fault is the world's; one from the start is not."""
    senses = Senses(decision_of(), 12, set(), set())
    assert not any(senses.excuse({"temp": "dead"}) for _ in range(12))
    assert senses.excuse({"temp": "dead", "vib": "died"})
    assert not senses.excuse({"temp": "dead"})
    assert senses.worked == {"vib", "oil", "load", "mode"}  # an optional input leaves no decision undecided
    assert senses.broken == set()
    assert Senses(decision_of(), 12, {"vib"}, set()).excuse({"vib": "dead"})  # as after a restart


def test_U12_a_first_outage_is_excused_early_and_a_flickering_input_is_not() -> None:
    """Three decisions in a row will do, once; what comes and goes may be believed too little."""
    senses = Senses(decision_of(), 12, set(), set())
    said = [senses.excuse({"vib": "bad"} if i % 4 == 3 else {}) for i in range(96)]
    assert said.index(True) == 3
    assert sum(said) == 1
    often = Senses(decision_of(), 12, set(), set())
    assert not any(often.excuse({"vib": "bad"} if i % 3 == 0 else {}) for i in range(96))


def test_U12_an_outage_that_the_bundle_before_had_too_is_excused_until_it_ends() -> None:
    """What was dead for both is nobody's doing; once it was alive, it must prove itself."""
    senses = Senses(decision_of(), 12, set(), {"vib"})
    assert all(senses.excuse({"vib": "dead"}) for _ in range(50))
    assert not senses.excuse({})
    assert not senses.excuse({"vib": "bad"})


# -- what is remembered


def test_trials_are_found_again_as_they_were_written() -> None:
    """Trial, passed and denied bundles survive the file."""
    trial = Trial(bundle=A, starts=2, counts=Counts(decisions=5), before=Counts(), worked=("vib",))
    denied = Denied(bundle=B, release_counter=7, why="it raised “Fail”")
    trials = Trials().done(B).deny(denied).on(trial)
    assert decode_trials(trials.encode(), "trials") == trials
    assert trials.of(A) == trial
    assert trials.of(B) is None
    assert trials.denial(B) == denied
    assert trials.passed == ()  # what has failed has not passed
    assert trials.readmit(B).denied == ()


def test_only_the_newest_are_remembered() -> None:
    """The file stays small, whatever is released: sixteen refused bundles and four that passed."""
    trials = Trials()
    for i in range(40):
        name = f"sha256:{i:064x}"
        trials = trials.done(name).deny(Denied(bundle=name, release_counter=i, why="ü" * 400))
        trials = trials.done(f"sha256:{i + 100:064x}")
    trials = trials.on(Trial(bundle=A, worked=tuple(f"{i:063}" for i in range(256))))
    assert len(trials.denied) == 16
    assert len(trials.passed) == 4
    assert len(trials.encode()) < MAX_BYTES
    assert decode_trials(trials.encode(), "trials") == trials


def test_U3_a_damaged_record_is_refused_whatever_byte_it_is() -> None:
    """Each changed byte, a cut and a longer file are noticed before anything is read."""
    good = Trials().deny(Denied(bundle=A, release_counter=1, why="it hung")).encode()
    for at in range(len(good)):
        with pytest.raises(IntegrityError, match="trials is damaged"):
            decode_trials(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], "trials")
    for bad in (b"", good[:-1], good + b" ", seal(b" " * MAX_BYTES)):
        with pytest.raises(IntegrityError, match="trials is damaged"):
            decode_trials(bad, "trials")


def test_a_sample_of_format_1_is_read_and_no_other() -> None:
    """What devices have written stays readable; another number, or endless brackets, is refused by name."""
    sample = (
        b'{"denied":[{"bundle":"' + B.encode() + b'","release_counter":7,"why":"it raised"}],"format":1,'
        b'"passed":["'
        + A.encode()
        + b'"],"trial":{"before":null,"broken":[],"bundle":"'
        + A.encode()
        + b'","counts":'
        b'{"decisions":12,"late":0,"novel":1,"undecided":2},"starts":1,"worked":["vib"]}}'
    )
    trials = decode_trials(seal(sample), "trials")
    assert trials.encode() == seal(sample)
    assert trials.of(A) is not None
    for bad in (sample.replace(b'"format":1', b'"format":2'), b"[" * 40_000):
        with pytest.raises(IntegrityError, match="trials is no record of format 1"):
            decode_trials(seal(bad), "trials")
