"""The gates against an independent oracle (fault catalogue G9)."""

from __future__ import annotations

import random

import pytest
from worlds import gate_oracle

from aiotkit.core.gates import Gate, GateKeeper, Verdict

VALUES_PER_GATES = 25


def campaign(seed, rounds):
    """Judge random values by random gates twice; returns (allowed, refused) counts."""
    rng, counts = random.Random(seed), [0, 0]
    for _ in range(rounds):
        document = gate_oracle.random_gates(rng)
        keeper = GateKeeper([Gate.model_validate(g) for g in document])
        for _ in range(VALUES_PER_GATES):
            values, proposed = gate_oracle.random_values(rng), rng.choice(["run", "slow", "stop"])
            said = keeper.judge(proposed, values, {}, (), 0.0, is_change=True).verdict is Verdict.ALLOW
            assert said is gate_oracle.allows(document, proposed, values), (document, proposed, values)
            counts[not said] += 1
    return counts


@pytest.mark.parametrize("seed", range(4))
def test_G9_gates_agree_with_an_independent_oracle_on_every_allow(seed):
    """Whatever the gates and the values, ALLOW is said exactly when the oracle says it."""
    allowed, refused = campaign(seed, 300)
    assert allowed > 1000
    assert refused > 1000


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(100, 120))
def test_G9_the_long_campaign_finds_no_disagreement(seed):
    """Twenty million random decisions, and not one unsafe ALLOW."""
    allowed, refused = campaign(seed, 40_000)
    assert allowed + refused == 40_000 * VALUES_PER_GATES
