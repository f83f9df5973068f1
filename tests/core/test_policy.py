"""From probabilities and costs to a proposal."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds.documents import press_guard

from aiotkit.core.decision import Branch, parse_decision
from aiotkit.core.policy import (
    ASK,
    Rule,
    break_even,
    cost_of_asking,
    expected_costs,
    least_expected_cost,
)

SHARES = st.floats(0, 1)
MONEY = st.floats(-1e6, 1e6)


def decision(costs=None, human=None, **more):
    document = press_guard() | more
    document["gates"] = []
    if costs is not None:
        document["costs"] = costs
    if human is None:
        del document["human"]
    else:
        document["human"] = human
    return parse_decision(document)


def table(run, slow, stop):
    return {
        "run": dict(zip(("healthy", "worn"), run, strict=True)),
        "slow": dict(zip(("healthy", "worn"), slow, strict=True)),
        "stop": dict(zip(("healthy", "worn"), stop, strict=True)),
    }


ROWS = st.tuples(MONEY, MONEY)
OTHER = {"healthy": "worn", "worn": "healthy"}


@given(SHARES, ROWS, ROWS, ROWS)
def test_no_other_action_is_expected_to_cost_less(worn, run, slow, stop):
    """The proposal is the cheapest action, computed by hand from the table."""
    costs = table(run, slow, stop)
    proposal = least_expected_cost({"healthy": 1 - worn, "worn": worn}, decision(costs))
    by_hand = {a: (1 - worn) * c["healthy"] + worn * c["worn"] for a, c in costs.items()}
    assert proposal.expected_costs == pytest.approx(by_hand)
    assert by_hand[proposal.action] == pytest.approx(min(by_hand.values()))


@given(SHARES, ROWS, ROWS, ROWS, st.floats(0, 1e5), SHARES)
def test_a_human_is_asked_exactly_when_that_saves_more_than_it_costs(
    worn, run, slow, stop, cost, reliability
):
    """Asking pays when what is best for the state he names, right or wrong, saves more than his price."""
    costs = table(run, slow, stop)
    p = {"healthy": 1 - worn, "worn": worn}
    decided = decision(costs, {"cost": cost, "delay_s": 1, "reliability": reliability})
    proposal = least_expected_cost(p, decided)
    best = {s: costs[min(costs, key=lambda a: (costs[a][s], a))] for s in p}
    right, wrong = (sum(p[s] * best[said(s)][s] for s in p) for said in (str, OTHER.__getitem__))
    blind = min(sum(p[s] * row[s] for s in p) for row in costs.values())
    saving = blind - (reliability * right + (1 - reliability) * wrong)
    if abs(saving - cost) > 1e-6 * max(1, abs(blind), abs(right), abs(wrong)):
        assert (proposal.action == ASK) is (saving > cost)


def free_choice(actions):
    """A decision among these actions, each costing the same in every state."""
    document = {
        "actions": actions,
        "costs": {name: {"healthy": 1, "worn": 1} for name in actions},
        "rule": [{"otherwise": max(actions)}],
        "recovery": max(actions),
        "autonomy": {},
    }
    return least_expected_cost({"healthy": 0.5, "worn": 0.5}, decision(**document)).action


def test_ties_go_to_the_reversible_action_then_to_the_one_that_moves_nothing():
    """Where money cannot choose, what can be taken back is preferred, then what does nothing."""
    for_good, moving, still = {"reversible": False}, {"actuator": "drive"}, {}
    assert free_choice({"abort": for_good, "brake": moving, "wait": still}) == "wait"
    assert free_choice({"abort": for_good, "brake": for_good | moving, "coast": moving}) == "coast"


def test_ties_between_equals_go_by_name():
    """Two actions alike in everything are chosen between the same way everywhere."""
    assert free_choice({"zeta": {}, "alpha": {}, "run": {}}) == "alpha"


@pytest.mark.parametrize(
    "p",
    [
        {},
        {"healthy": 1.0},
        {"healthy": 0.5, "worn": 0.4, "other": 0.1},
        {"healthy": 0.6, "worn": 0.6},
        {"healthy": 1.2, "worn": -0.2},
        {"healthy": math.nan, "worn": 0.5},
        {"healthy": math.inf, "worn": -math.inf},
        {"healthy": True, "worn": 0.0},
        {"healthy": "1", "worn": 0.0},
        {"healthy": None, "worn": 1.0},
    ],
    ids=str,
)
def test_anything_but_a_distribution_proposes_nothing(p):
    """A model that returns nonsense leads to no action, and the reason says what came."""
    proposal = least_expected_cost(p, decision())
    assert proposal.action is None
    assert proposal.reason.startswith("p is no distribution over ['healthy', 'worn']: ")


def test_rounding_of_float32_is_no_nonsense():
    """A softmax that sums to one up to rounding is accepted."""
    assert least_expected_cost({"healthy": 0.9000003, "worn": 0.1000001}, decision()).action == "slow"


def test_without_costs_no_probability_proposes_anything():
    """Money cannot be minimised before it is known."""
    proposal = least_expected_cost({"healthy": 0.5, "worn": 0.5}, decision("unknown"))
    assert (proposal.action, proposal.reason) == (
        None,
        "costs are unknown: only the written rule can propose an action",
    )


def test_the_reason_compares_the_money():
    """A person can follow why an action was proposed."""
    reason = least_expected_cost({"healthy": 0.9, "worn": 0.1}, decision()).reason
    assert reason == "least expected cost in EUR: slow 48.00, run 90.00, stop 278.00"


def test_the_price_of_a_human_is_what_his_answer_leaves_to_pay():
    """A human who is always right leaves the least cost of each state; one who never is, the wrong action."""
    costs = table((0, 900), (40, 120), (300, 80))
    p = {"healthy": 0.9, "worn": 0.1}
    human = parse_decision(press_guard()).human
    sure = human.model_copy(update={"reliability": 1.0, "cost": 1.0})
    wild = human.model_copy(update={"reliability": 0.0, "cost": 1.0})
    assert cost_of_asking(p, costs, sure) == pytest.approx(1 + 0.9 * 0 + 0.1 * 80)
    assert cost_of_asking(p, costs, wild) == pytest.approx(1 + 0.9 * 300 + 0.1 * 900)


def test_acting_must_save_the_margin_against_waiting():
    """With a margin, what intervenes is proposed only when it saves that much against what does not."""
    document = press_guard() | {"costs": table((0, 900), (40, 120), (300, 80))}
    document["actions"]["slow"]["intervenes"] = document["actions"]["stop"]["intervenes"] = True
    document["human"] = {"cost": 1000.0, "delay_s": 60, "reliability": 1.0}
    p = {"healthy": 0.9, "worn": 0.1}  # run 90, slow 48: 42 are saved
    for margin, action in ((0.0, "slow"), (41.0, "slow"), (43.0, "run")):
        judged = parse_decision(document | {"policy": {"kind": "expected_cost", "margin": margin}})
        assert least_expected_cost(p, judged).action == action


def test_a_question_must_save_the_margin_too():
    """Asking is preferred to waiting only when it saves the margin."""
    document = press_guard() | {"costs": table((0, 900), (400, 120), (300, 80))}
    document["actions"]["slow"]["intervenes"] = document["actions"]["stop"]["intervenes"] = True
    document["human"] = {"cost": 1.0, "delay_s": 60, "reliability": 1.0}
    p = {"healthy": 0.9, "worn": 0.1}  # run 90, asking 9
    for margin, action in ((0.0, "ask"), (80.0, "ask"), (82.0, "run")):
        judged = parse_decision(document | {"policy": {"kind": "expected_cost", "margin": margin}})
        assert least_expected_cost(p, judged).action == action


@given(ROWS, ROWS)
def test_at_the_break_even_both_actions_cost_the_same(a, b):
    """The curve crosses where it says, and where it says nothing one action is never worse."""
    costs = {"a": {"ok": a[0], "bad": a[1]}, "b": {"ok": b[0], "bad": b[1]}}
    p = break_even(costs, "a", "b", "ok", "bad")
    if p is None:
        worse = [(a[0] - b[0]), (a[1] - b[1])]
        assert min(worse) >= 0 or max(worse) <= 0
    else:
        one, other = (expected_costs({"ok": 1 - p, "bad": p}, costs)[x] for x in "ab")
        assert one == pytest.approx(other, abs=1e-6 * max(map(abs, (*a, *b))) + 1e-9)


def rule(*lines):
    return Rule([Branch.model_validate(line) for line in lines])


HOT = {"when": {"field": "oil.last", "gt": 80}, "do": "slow", "because": "oil too hot"}
LOUD = {"when": {"field": "vib.rms", "gt": 7}, "do": "stop"}
ELSE = {"otherwise": "run"}


def test_the_first_line_that_holds_decides():
    """Order is priority, and the reason carries the line's words and values."""
    both = {"oil.last": 90.0, "vib.rms": 9.0}
    assert rule(HOT, LOUD, ELSE).propose(both, {}, 0.0).action == "slow"
    assert rule(LOUD, HOT, ELSE).propose(both, {}, 0.0).action == "stop"
    said = rule(HOT, LOUD, ELSE).propose(both, {}, 0.0).reason
    assert said == "oil too hot (oil.last > 80: oil.last = 90)"
    calm = rule(HOT, LOUD, ELSE).propose({"oil.last": 20.0, "vib.rms": 1.0}, {}, 0.0)
    assert (calm.action, calm.reason) == ("run", "no line of the rule applies")


def test_no_line_decides_after_one_in_doubt():
    """A line that cannot be judged ends the search: what follows may not act on doubt."""
    proposal = rule(HOT, LOUD, ELSE).propose({"oil.last": math.nan, "vib.rms": 9.0}, {}, 0.0)
    assert proposal.action is None
    assert proposal.reason == "oil.last > 80 cannot be judged: oil.last = nan"


def test_a_line_before_the_doubt_still_decides():
    """Doubt about a later line does not stop an earlier one."""
    assert rule(HOT, LOUD, ELSE).propose({"oil.last": 90.0}, {}, 0.0).action == "slow"


def test_timed_lines_see_every_sample_even_when_another_decides():
    """The timer of a lower line runs while an upper one decides."""
    slow_line = {"when": {"field": "vib.rms", "gt": 7, "on_delay_s": 10}, "do": "stop"}
    decide = rule(HOT, slow_line, ELSE)
    first = decide.propose({"oil.last": 90.0, "vib.rms": 9.0}, {}, 0.0)
    second = decide.propose({"oil.last": 20.0, "vib.rms": 9.0}, first.memory, 10.0)
    assert (first.action, second.action) == ("slow", "stop")
