"""Conditions in three truths, and the timing words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from aiotkit.core.conditions import (
    MAX_DEPTH,
    MAX_NODES,
    Condition,
    Truth,
    check_size,
    compile_condition,
    describe,
    fields,
    found,
)

READ = TypeAdapter(Condition).validate_python
FALSE, TRUE, DOUBT = Truth.FALSE, Truth.TRUE, Truth.INDETERMINATE
GOOD_OR_BAD = {"t": 1.0, "f": -1.0, "b": math.nan}


def judge(document, values):
    """The truth of a condition that has seen nothing before."""
    return compile_condition(READ(document), "x")(values, {}, 0.0, {})


class Timed:
    """A condition fed sample by sample, as a device feeds it."""

    def __init__(self, document):
        self.check, self.memory = compile_condition(READ(document), "x"), {}

    def __call__(self, at_s, value):
        updates = {}
        truth = self.check({"x.last": value}, self.memory, at_s, updates)
        self.memory = updates
        return truth


def above(field):
    return {"field": field, "gt": 0}


@pytest.mark.parametrize(
    ("term", "true", "false"),
    [
        ({"gt": 5}, [5.0000001, 6, 1e308], [5, 4, -1e308, -5]),
        ({"ge": 5}, [5, 6], [4.9999999]),
        ({"lt": 5}, [4.9999999, -1e308], [5, 6]),
        ({"le": 5}, [5, -0.0], [5.0000001]),
        ({"between": [-1, 1]}, [-1, 0, -0.0, 5e-324, 1], [-1.0000001, 1.0000001]),
        ({"in": [1, 2]}, [1, 1.0, 2], [3, 0.5]),
        ({"not_in": [1, 2]}, [3], [1, 2.0]),
        ({"in": ["run"]}, ["run"], ["Run", "", "run "]),
        ({"not_in": ["run"]}, ["stop"], ["run"]),
        ({"in": [True]}, [True], [False]),
    ],
)
def test_each_comparison_is_true_and_false_where_it_says(term, true, false):
    """Edges belong to ge, le and between, and not to gt and lt."""
    assert [judge({"field": "x.last"} | term, {"x.last": v}) for v in true] == [TRUE] * len(true)
    assert [judge({"field": "x.last"} | term, {"x.last": v}) for v in false] == [FALSE] * len(false)


BAD = {
    "nan": math.nan,
    "inf": math.inf,
    "minus inf": -math.inf,
    "null": None,
    "bool": True,
    "text": "12",
    "list": [1.0],
    "dict": {"x": 1.0},
    "bytes": b"1",
    "complex": 1j,
    "integer beyond floats": 10**400,
    "integer too long to print": 10**5000,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize(
    "term", [{"gt": 0}, {"le": 0}, {"between": [-1, 1]}, {"in": [1, 2]}, {"not_in": [1]}]
)
def test_a_value_that_is_no_finite_number_is_doubt(term, bad):
    """Nothing but a finite int or float is compared with a number."""
    assert judge({"field": "x.last"} | term, {"x.last": bad}) is DOUBT


@pytest.mark.parametrize("bad", [None, 1.0, math.nan, ["run"], b"run", True])
def test_a_value_that_is_no_text_is_doubt_where_text_is_asked(bad):
    """A word is not compared with anything but words."""
    assert judge({"field": "x.last", "in": ["run"]}, {"x.last": bad}) is DOUBT
    assert judge({"field": "x.last", "not_in": ["run"]}, {"x.last": bad}) is DOUBT


def test_true_and_one_are_different_members():
    """Python says ``True == 1``; a set of choices does not."""
    assert judge({"field": "x.last", "in": [True, 5]}, {"x.last": 1.0}) is FALSE
    assert judge({"field": "x.last", "in": [1, "a"]}, {"x.last": True}) is DOUBT


def test_a_missing_field_is_doubt():
    """What was never measured is not false."""
    assert judge(above("x.last"), {}) is DOUBT
    assert judge({"not": above("x.last")}, {"y.last": 1.0}) is DOUBT


@pytest.mark.parametrize(
    ("letters", "both", "either"),
    [
        ("tt", TRUE, TRUE),
        ("tf", FALSE, TRUE),
        ("ff", FALSE, FALSE),
        ("tb", DOUBT, DOUBT),
        ("fb", DOUBT, DOUBT),
    ],
)
def test_doubt_outweighs_every_operand_in_any_order(letters, both, either):
    """A FALSE does not settle an ``all`` with doubt in it, nor a TRUE an ``any``."""
    for order in (letters, letters[::-1]):
        values = {f"s{i}.last": GOOD_OR_BAD[c] for i, c in enumerate(order)}
        operands = [above(name) for name in values]
        assert judge({"all": operands}, values) is both
        assert judge({"any": operands}, values) is either
        assert judge({"not": {"any": operands}}, values) is (DOUBT if either is DOUBT else Truth(1 - either))


@pytest.mark.parametrize(
    ("letters", "at_least", "truth"),
    [
        ("ttb", 2, TRUE),
        ("tfb", 2, DOUBT),
        ("ffb", 2, FALSE),
        ("tbb", 2, DOUBT),
        ("bbb", 1, DOUBT),
        ("tbb", 1, TRUE),
        ("ttt", 3, TRUE),
        ("ttb", 3, DOUBT),
        ("tfb", 3, FALSE),
    ],
)
def test_a_quorum_absorbs_bad_votes_only_when_they_cannot_decide(letters, at_least, truth):
    """Two of three sensors may carry a decision; a bad one is a vote not cast."""
    values = {f"s{i}.last": GOOD_OR_BAD[c] for i, c in enumerate(letters)}
    quorum = {"quorum": {"at_least": at_least, "of": [above(name) for name in values]}}
    assert judge(quorum, values) is truth


def test_deadband_holds_until_the_value_has_come_back():
    """A comparison stays TRUE within its deadband and must cross the limit again to return."""
    hot = Timed({"field": "x.last", "gt": 80, "deadband": 5})
    said = [hot(i, v) for i, v in enumerate([79, 81, 79, 75.1, 75, 79, 81])]
    assert said == [FALSE, TRUE, TRUE, TRUE, FALSE, FALSE, TRUE]
    cold = Timed({"field": "x.last", "le": 10, "deadband": 5})
    assert [cold(i, v) for i, v in enumerate([11, 10, 15, 15.1, 12])] == [FALSE, TRUE, TRUE, FALSE, FALSE]


def test_on_delay_asks_that_it_lasts():
    """TRUE is said only when the comparison has held for the delay without a break."""
    late = Timed({"field": "x.last", "gt": 0, "on_delay_s": 10})
    said = [late(t, v) for t, v in [(0, 1), (9, 1), (9.5, -1), (10, 1), (19, 1), (20, 1)]]
    assert said == [FALSE, FALSE, FALSE, FALSE, FALSE, TRUE]


def test_off_delay_asks_that_it_stays_away():
    """FALSE is said only when the comparison has failed for the delay without a break."""
    keep = Timed({"field": "x.last", "gt": 0, "off_delay_s": 10})
    said = [keep(t, v) for t, v in [(0, 1), (1, -1), (10, -1), (10.5, 1), (11, -1), (21, -1)]]
    assert said == [TRUE, TRUE, TRUE, TRUE, TRUE, FALSE]


def test_on_delay_bridges_one_bad_sample_and_no_more():
    """Within the delay a bad input holds the last answer; beyond it there is doubt."""
    term = Timed({"field": "x.last", "gt": 0, "on_delay_s": 5})
    said = [term(t, v) for t, v in [(0, 1), (5, 1), (7, math.nan), (10, math.nan), (10.1, math.nan), (12, 1)]]
    assert said == [FALSE, TRUE, TRUE, TRUE, DOUBT, TRUE]


def test_after_a_long_doubt_the_delay_begins_anew():
    """One good sample after an outage does not count as having lasted all the while."""
    term = Timed({"field": "x.last", "gt": 0, "on_delay_s": 10})
    said = [term(t, v) for t, v in [(0, 1), (5, math.nan), (100, math.nan), (101, 1), (110, 1), (111, 1)]]
    assert said == [FALSE, FALSE, DOUBT, FALSE, FALSE, TRUE]


def test_without_on_delay_a_bad_sample_is_doubt_at_once():
    """A deadband or an off delay is no grace for bad inputs."""
    term = Timed({"field": "x.last", "gt": 0, "deadband": 1, "off_delay_s": 100})
    assert [term(0, 1), term(1, math.nan), term(2, -0.5)] == [TRUE, DOUBT, TRUE]


def test_a_clock_set_back_does_not_shorten_a_delay():
    """Time that runs backwards restarts the wait."""
    term = Timed({"field": "x.last", "gt": 0, "on_delay_s": 10})
    assert [term(1000, 1), term(900, 1), term(909, 1), term(910, 1)] == [FALSE, FALSE, FALSE, TRUE]


@given(
    st.lists(st.tuples(st.floats(0.1, 8), st.sampled_from([-1.0, 1.0])), min_size=1, max_size=30),
    st.floats(0, 10),
    st.floats(0, 10),
)
def test_delays_agree_with_looking_at_the_whole_past(steps, on_delay, off_delay):
    """The incremental timer says what a reader of the complete series would say."""
    document = {"field": "x.last", "gt": 0, "on_delay_s": on_delay, "off_delay_s": off_delay}
    term, at, series, out = Timed(document), 0.0, [], False
    for span, value in steps:
        at += span
        series.append((at, value > 0))
        first = at
        for then, truth in reversed(series):  # the unbroken run that ends now
            if truth is not series[-1][1]:
                break
            first = then
        wanted = on_delay if series[-1][1] else off_delay
        if series[-1][1] is not out and at - first >= wanted:
            out = series[-1][1]
        assert term(at, value) is (TRUE if out else FALSE)


def test_conditions_do_not_change_what_they_are_given():
    """Values and memory are read only; what must be remembered comes back apart."""
    check = compile_condition(READ({"field": "x.last", "gt": 0, "on_delay_s": 5}), "x")
    values, memory, updates = {"x.last": 1.0}, {"x": (False, 1.0, 2.0)}, {}
    check(values, memory, 3.0, updates)
    assert (values, memory) == ({"x.last": 1.0}, {"x": (False, 1.0, 2.0)})
    assert updates == {"x": (False, 1.0, 3.0)}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"field": "x.last"}, "exactly one of gt, ge, lt, le, between, in, not_in; found none"),
        ({"field": "x.last", "gt": 1, "lt": 2}, r"exactly one of .*found \['gt', 'lt'\]"),
        ({"field": "x.last", "between": [2, 1]}, r"between needs low <= high; found \[2.0, 1.0\]"),
        ({"field": "x.last", "in": ["a"], "deadband": 1}, "deadband goes with gt, ge, lt or le only"),
        ({"field": "x.last", "gt": math.nan}, "finite number"),
        ({"field": "x.last", "gt": 1, "deadband": -1}, "greater than or equal to 0"),
        ({"field": "x.last", "in": []}, "at least 1 item"),
        ({"field": "", "gt": 1}, "at least 1 character"),
        ({"all": []}, "at least 1 item"),
        ({"any": [above("a"), {"or": []}]}, "Extra inputs are not permitted"),
        ({"quorum": {"at_least": 3, "of": [above("a"), above("b")]}}, "can never be reached by 2 operands"),
        ({"quorum": {"at_least": 0, "of": [above("a"), above("b")]}}, "greater than or equal to 1"),
    ],
)
def test_a_malformed_condition_is_refused_in_words(document, message):
    """What cannot be judged is refused when it is read, not when a machine runs."""
    with pytest.raises(ValidationError, match=message):
        READ(document)


def test_a_condition_has_a_bounded_size():
    """A device evaluates a condition in bounded time: parts and levels are limited."""
    check_size(READ({"all": [above("a")] * (MAX_NODES - 1)}))
    with pytest.raises(ValueError, match=f"may have {MAX_NODES} parts"):
        check_size(READ({"all": [above("a")] * MAX_NODES}))
    deep = above("a")
    for _ in range(MAX_DEPTH - 1):
        deep = {"not": deep}
    check_size(READ(deep))
    with pytest.raises(ValueError, match=f"{MAX_DEPTH} levels"):
        check_size(READ({"not": deep}))


def test_a_condition_says_what_it_reads_and_means():
    """Reasons are built from the condition itself, so they cannot drift from what was judged."""
    node = READ(
        {
            "all": [
                {"field": "vib.rms", "gt": 7.1, "deadband": 0.5, "on_delay_s": 30},
                {"any": [{"field": "oil.last", "between": [10, 60]}, {"not": above("vib.rms")}]},
                {
                    "quorum": {
                        "at_least": 1,
                        "of": [{"field": "context.mode", "not_in": ["a"]}, above("b.max")],
                    }
                },
            ]
        }
    )
    assert fields(node) == ("vib.rms", "oil.last", "context.mode", "b.max")
    assert describe(node) == (
        "vib.rms > 7.1 (deadband 0.5, for 30 s) and (oil.last in [10, 60] or not (vib.rms > 0)) "
        "and at least 1 of [context.mode not in ['a'], b.max > 0]"
    )
    values = {"vib.rms": 7.25, "oil.last": math.nan, "context.mode": "x" * 1000}
    words = found(node, values)
    assert words == f"vib.rms = 7.25, oil.last = nan, context.mode = '{'x' * 37}…', b.max = missing"


class Hostile:
    """A value whose own words cannot be had."""

    def __repr__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize("value", [Hostile(), 10**5000, ["x"] * 10**6], ids=["hostile", "long", "large"])
def test_naming_a_bad_value_is_short_and_never_fails(value):
    """A reason is written even for a value that cannot be printed."""
    words = found(READ(above("x.last")), {"x.last": value})
    assert words == f"x.last = a value of type {type(value).__name__}"
