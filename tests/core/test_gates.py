"""Gates: what may withhold a proposed action, and what happens in doubt (fault catalogue G1, G4, G5)."""

from __future__ import annotations

import json
import math
import time
import tracemalloc
from itertools import pairwise

import pytest
from pydantic import ValidationError

from aiotkit.core.gates import Change, Gate, GateKeeper, Verdict, model_knows

ALLOW, ASK, HOLD, DOUBT = Verdict.ALLOW, Verdict.ASK, Verdict.HOLD, Verdict.INDETERMINATE


def ask_gates(gates, values, *, proposed="slow", memory=None, changes=(), now_s=0.0, is_change=True):
    keeper = GateKeeper([Gate.model_validate(g) for g in gates])
    return keeper.judge(proposed, values, memory or {}, changes, now_s, is_change=is_change)


def cool(**more):
    return {"name": "cool", "require": {"field": "oil.mean", "lt": 90}} | more


DEEP = 1.0
for _ in range(100_000):
    DEEP = [DEEP]
HARMFUL = {
    "nan": math.nan,
    "inf": math.inf,
    "minus_inf": -math.inf,
    "null": None,
    "bool": False,
    "text": "12",
    "empty_text": "",
    "list": [71.0],
    "dict": {"value": 71.0},
    "bytes_10_mb": b"7" * 10_000_000,
    "text_10_mb": "7" * 10_000_000,
    "deep_nesting": DEEP,
    "integer_beyond_floats": 10**400,
    "function": len,
}


@pytest.mark.parametrize("wrap", ["plain", "not", "any", "all", "not_any"])
@pytest.mark.parametrize("harm", HARMFUL.values(), ids=HARMFUL.keys())
def test_G1_a_harmful_value_is_indeterminate_under_every_operator(harm, wrap):
    """No spelling of a bad value, and no operator above it, ever lets an action through."""
    bad, good = {"field": "oil.mean", "lt": 90}, {"field": "vib.rms", "lt": 90}
    require = {
        "plain": bad,
        "not": {"not": {"field": "oil.mean", "ge": 90}},
        "any": {"any": [good, bad]},
        "all": {"all": [good, bad]},
        "not_any": {"not": {"any": [{"not": good}, {"field": "oil.mean", "ge": 90}]}},
    }[wrap]
    ruling = ask_gates([{"name": "g", "require": require}], {"oil.mean": harm, "vib.rms": 1.0})
    assert ruling.verdict is DOUBT
    assert "cannot be judged: " in ruling.verdicts[0].reason
    assert len(ruling.verdicts[0].reason) < 400


@pytest.mark.parametrize("value", [-0.0, 5e-324, -5e-324, -1e308, 89, 89.999999])
def test_G1_unusual_but_finite_numbers_are_judged_as_numbers(value):
    """Negative zero, denormals and huge values are numbers like others."""
    assert ask_gates([cool()], {"oil.mean": value}).verdict is ALLOW
    assert ask_gates([cool()], {"oil.mean": 1e308}).verdict is HOLD


def test_G1_missing_and_look_alike_keys_are_not_the_field():
    """A missing key is doubt, and neither spaces nor look-alike letters stand in for it."""
    for values in ({}, {"oil.mean ": 1.0}, {"οil.mean": 1.0}, {"oil": {"mean": 1.0}}, {"OIL.MEAN": 1.0}):
        assert ask_gates([cool()], values).verdict is DOUBT


def test_G1_extra_keys_make_no_difference():
    """A hundred thousand fields nobody asked for change neither the verdict nor the time."""
    values = {f"x{i}.mean": math.nan for i in range(100_000)} | {"oil.mean": 71.0, "ключ": "値"}
    keeper = GateKeeper([Gate.model_validate(cool())])
    start = time.perf_counter()
    for _ in range(1000):
        assert keeper.judge("slow", values, {}, (), 0.0, is_change=True).verdict is ALLOW
    assert time.perf_counter() - start < 1.0


def test_G1_judging_a_huge_payload_needs_little_memory():
    """The reason for a ten megabyte value does not carry the ten megabytes."""
    values = {"oil.mean": HARMFUL["text_10_mb"]}
    tracemalloc.start()
    ask_gates([cool()], values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


class Explodes(dict):
    """Values whose every look-up fails."""

    def get(self, key, default=None):
        raise OSError("bus error")

    __getitem__ = get


def test_G5_a_gate_that_cannot_be_evaluated_closes():
    """An exception inside a gate is doubt with the reason said; it neither escapes nor allows."""
    ruling = ask_gates([cool()], Explodes())
    assert ruling.verdict is DOUBT
    assert ruling.verdicts[0].reason == "could not be evaluated: OSError('bus error')"


def test_G5_a_broken_gate_does_not_silence_the_others():
    """Every gate has its say, whatever happened in another."""
    ruling = ask_gates([cool(), {"name": "calm", "min_interval_s": 60}], Explodes())
    assert [v.verdict for v in ruling.verdicts] == [DOUBT, ALLOW]


def test_G5_memory_of_the_wrong_shape_closes_the_gate():
    """Remembered state that was damaged is doubt, not a crash."""
    gate = cool(require={"field": "oil.mean", "lt": 90, "on_delay_s": 5})
    assert ask_gates([gate], {"oil.mean": 71.0}, memory={"cool": (1,)}).verdict is DOUBT


def test_the_worst_verdict_rules():
    """One HOLD among ALLOWs holds; doubt outweighs everything."""
    hold, ask = cool(name="hold"), cool(name="ask", otherwise="ask")
    doubt = {"name": "doubt", "require": {"field": "vib.rms", "lt": 1}}
    hot = {"oil.mean": 95.0}
    assert ask_gates([ask], hot).verdict is ASK
    assert ask_gates([ask, hold], hot).verdict is HOLD
    assert ask_gates([hold, ask, doubt], hot).verdict is DOUBT
    assert ask_gates([], {}).verdict is ALLOW


def test_a_refusal_says_why_in_words():
    """The reason names the condition, the value found and why the gate is there."""
    ruling = ask_gates([cool(because="the seals melt")], {"oil.mean": 95.0})
    assert ruling.verdicts[0].reason == "oil.mean < 90 does not hold: oil.mean = 95 (the seals melt)"


def test_a_gate_judges_only_the_actions_it_names():
    """An action that is not listed passes, and the verdict says so."""
    gate = cool(actions=["stop"])
    assert ask_gates([gate], {"oil.mean": 95.0}, proposed="slow").verdicts[0].reason == "judges stop only"
    assert ask_gates([gate], {"oil.mean": 95.0}, proposed="slow").verdict is ALLOW
    assert ask_gates([gate], {"oil.mean": 95.0}, proposed="stop").verdict is HOLD
    assert ask_gates([gate], {}, proposed="slow").verdict is ALLOW


def test_a_timed_gate_sees_samples_of_actions_it_does_not_judge():
    """Its clock runs on while another action is proposed."""
    gate = cool(require={"field": "oil.mean", "lt": 90, "on_delay_s": 10}, actions=["stop"])
    first = ask_gates([gate], {"oil.mean": 71.0}, proposed="slow", now_s=0.0)
    second = ask_gates([gate], {"oil.mean": 71.0}, proposed="stop", now_s=10.0, memory=first.memory)
    assert second.verdict is ALLOW


@pytest.mark.parametrize(("since_s", "verdict"), [(59.9, HOLD), (60, ALLOW), (61, ALLOW), (-1, HOLD)])
def test_G4_a_new_command_waits_for_its_interval(since_s, verdict):
    """At most one new command in the interval; a command dated in the future counts as just given."""
    changes = [Change(1000.0, "slow")]
    gates = [{"name": "calm", "min_interval_s": 60}]
    assert ask_gates(gates, {}, changes=changes, now_s=1000 + since_s).verdict is verdict


def test_G4_renewing_a_command_is_not_limited():
    """A command that only stays in force is no new actuation."""
    changes = [Change(1000.0, "slow")]
    gates = [{"name": "calm", "min_interval_s": 60}, {"name": "few", "at_most": {"count": 1, "per_s": 60}}]
    assert ask_gates(gates, {}, changes=changes, now_s=1001.0, is_change=False).verdict is ALLOW


def test_G4_no_more_than_so_many_commands_within_the_span():
    """The limit counts commands younger than the span and says how many there were."""
    gates = [{"name": "few", "at_most": {"count": 2, "per_s": 60}, "otherwise": "ask"}]
    changes = [Change(0.0, "slow"), Change(30.0, "run"), Change(50.0, "slow")]
    ruling = ask_gates(gates, {}, changes=changes, now_s=60.0)
    assert (ruling.verdict, ruling.verdicts[0].reason) == (
        ASK,
        "2 new commands within 60 s, at most 2 asked",
    )
    assert ask_gates(gates, {}, changes=changes, now_s=90.0).verdict is ALLOW


def test_G4_limits_of_one_action_do_not_count_another():
    """A gate that names actions counts those alone."""
    gates = [{"name": "calm", "min_interval_s": 60, "actions": ["slow"]}]
    assert ask_gates(gates, {}, changes=[Change(0.0, "run")], now_s=1.0).verdict is ALLOW
    assert ask_gates(gates, {}, changes=[Change(0.0, "slow")], now_s=1.0).verdict is HOLD


def test_G4_a_signal_that_chatters_around_its_limit_actuates_once_an_interval():
    """However a signal flickers, new commands keep their distance."""
    gates = [{"name": "calm", "min_interval_s": 60}]
    changes: list[Change] = []
    for second in range(600):
        wanted = "slow" if second % 2 else "run"
        is_change = not changes or changes[-1].action != wanted
        ruling = ask_gates(
            gates, {}, proposed=wanted, changes=changes, now_s=float(second), is_change=is_change
        )
        if is_change and ruling.verdict is ALLOW:
            changes.append(Change(float(second), wanted))
    gaps = [b.at_s - a.at_s for a, b in pairwise(changes)]
    assert len(changes) >= 9
    assert min(gaps) >= 60


def test_G4_a_deadband_stops_the_chatter_at_its_source():
    """Noise within the deadband changes the verdict once, not at every sample."""
    keeper = GateKeeper([Gate.model_validate(cool(require={"field": "oil.mean", "lt": 90, "deadband": 2}))])
    memory, verdicts = {}, []
    for i in range(200):
        ruling = keeper.judge(
            "slow", {"oil.mean": 90.9 if i % 2 else 89.1}, memory, (), float(i), is_change=True
        )
        memory = ruling.memory
        verdicts.append(ruling.verdict)
    assert verdicts == [ALLOW] * 200


def test_a_time_that_is_not_a_number_never_counts_as_long_ago():
    """NaN as clock or as a command's time holds back."""
    gates = [{"name": "calm", "min_interval_s": 60}, {"name": "few", "at_most": {"count": 1, "per_s": 60}}]
    for at_s, now_s in ((0.0, math.nan), (math.nan, 100.0)):
        ruling = ask_gates(gates, {}, changes=[Change(at_s, "slow")], now_s=now_s)
        assert [v.verdict for v in ruling.verdicts] == [HOLD, HOLD]


def test_what_gates_remember_can_be_recorded():
    """Memory is plain data: it survives JSON and goes on from there."""
    gate = cool(require={"field": "oil.mean", "lt": 90, "on_delay_s": 10})
    first = ask_gates([gate], {"oil.mean": 71.0}, now_s=0.0)
    recorded = {k: tuple(v) for k, v in json.loads(json.dumps(first.memory)).items()}
    assert ask_gates([gate], {"oil.mean": 71.0}, now_s=9.9, memory=recorded).verdict is HOLD
    assert ask_gates([gate], {"oil.mean": 71.0}, now_s=10.0, memory=recorded).verdict is ALLOW


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"name": "g"}, "exactly one of require, at_most, min_interval_s; found none"),
        (cool(min_interval_s=1), r"exactly one of .*found \['require', 'min_interval_s'\]"),
        (cool(name="Bad name"), "should match pattern"),
        (cool(otherwise="allow"), "should be 'hold' or 'ask'"),
        ({"name": "g", "at_most": {"count": 0, "per_s": 1}}, "greater than 0"),
        ({"name": "g", "min_interval_s": math.inf}, "finite number"),
        ({"name": "g", "require": {"all": [cool()["require"]] * 64}}, "may have 64 parts"),
    ],
)
def test_a_malformed_gate_is_refused_in_words(gate, message):
    """A gate that cannot work is refused when it is read."""
    with pytest.raises(ValidationError, match=message):
        Gate.model_validate(gate)


@pytest.mark.parametrize(("field", "needs"), [("p.worn", True), ("novelty", True), ("oil.mean", False)])
def test_a_gate_on_what_only_a_model_says_waits_for_one(field, needs):
    """Probabilities and novelty come from a model; a feature does not."""
    gate = Gate.model_validate({"name": "g", "require": {"any": [{"field": field, "lt": 1}]}})
    assert gate.needs_model is needs
    assert Gate.model_validate({"name": "g", "min_interval_s": 5}).needs_model is False


@pytest.mark.parametrize(
    ("novelty", "verdict"),
    [(0.0, ALLOW), (1.0, ALLOW), (1.0000001, ASK), (math.nan, DOUBT), (math.inf, DOUBT), (None, DOUBT)],
)
def test_the_gate_on_novelty_asks_beyond_training_and_doubts_what_is_no_number(novelty, verdict):
    """Up to 1 is known, above is asked, and NaN is neither."""
    assert (
        GateKeeper([model_knows()]).judge("slow", {"novelty": novelty}, {}, (), 0.0, is_change=True).verdict
        is verdict
    )
