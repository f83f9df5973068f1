"""A lookout knows one state, and asks about what is unlike it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sklearn")
pytestmark = pytest.mark.desk

from aiotkit.core.decision import Decision  # noqa: E402
from aiotkit.core.errors import DataError  # noqa: E402
from aiotkit.lab.examples import Examples  # noqa: E402
from aiotkit.loop.lookout import FAMILY, keep_a_lookout  # noqa: E402
from aiotkit.loop.rig import rig_decision  # noqa: E402
from aiotkit.loop.rig_learning import cycles_of, learn, say  # noqa: E402
from aiotkit.release.export import export  # noqa: E402

#: columns the cooler's rule does not read; they wander, as temperatures do
OTHERS = tuple(f"{sensor}.mean_{i}of6" for sensor in ("PS1", "PS2", "TS1", "TS2", "VS1") for i in range(1, 7))


@pytest.fixture(scope="module")
def cooler() -> Decision:
    """The rig's decision on the cooler, whose rule reads ``CE.mean``."""
    return rig_decision("cooler")


def examples(decision: Decision, state: str, level: float, n: int = 120, seed: int = 3) -> Examples:
    """Cycles of one state: ``CE.mean`` near a level, everything else wandering."""
    rng = np.random.default_rng(seed)
    wandering = np.cumsum(rng.normal(0, 1, (n, len(OTHERS))), axis=0)
    x = np.column_stack([rng.normal(level, 0.5, n), rng.normal(2, 0.1, n), wandering]).astype(np.float32)
    rows = pd.DataFrame(
        {
            "subject": "cooler", "at_us": 60_000_000 * np.arange(1, n + 1), "state": state,
            "status": "mature", "confidence": 1.0, "in_force": None, "verify_hit": False,
            "verify_p": 0.0, "key": "",
        }
    )  # fmt: skip
    assert set(decision.features()) <= {"CE.mean", "CP.max"}
    return Examples(rows, ("CE.mean", "CP.max", *OTHERS), x)


def test_what_is_unlike_the_only_known_state_is_asked_about(cooler: Decision) -> None:
    """A jump of the one column that the rule reads is seen beside thirty that wander."""
    known = examples(cooler, "full", 47)
    trained = keep_a_lookout(known.take(np.arange(100)), cooler, seed=0)
    later = cycles_of(known.rows, *say(trained, known), cooler, 0.0)
    assert (later["label"] == "full").all()
    assert (later["action"][:100] == "carry_on").mean() > 0.95
    new = examples(cooler, "reduced", 27)
    new = Examples(new.rows, new.columns, np.column_stack([new.x[:, :2], known.x[:, 2:]]))
    found = cycles_of(new.rows, *say(trained, new), cooler, 0.0)[:100]
    assert found["novel"].all()
    assert (found["action"] == "ask").all()


def test_a_lookout_can_be_released(cooler: Decision) -> None:
    """Its head joins the front to one graph that says what the library says."""
    made = export(cooler, keep_a_lookout(examples(cooler, "full", 47), cooler, seed=0))
    assert made.family == FAMILY
    assert made.interface.novelty
    assert made.parity["label_flips"] == 0


def test_a_lookout_is_kept_only_while_one_state_is_known(cooler: Decision) -> None:
    """With two states a family is trained instead, and a lookout over them is refused."""
    one, two = examples(cooler, "full", 47, n=60), examples(cooler, "reduced", 27, n=60, seed=4)
    later = two.rows.assign(at_us=two.rows["at_us"] + 60 * 60_000_000)
    both = Examples(
        pd.concat([one.rows, later], ignore_index=True), one.columns, np.concatenate([one.x, two.x])
    )
    assert learn(one, cooler, ("lda",), folds=3, seed=0).trained.family == FAMILY
    assert learn(both, cooler, ("lda",), folds=3, seed=0).trained.family == "lda"
    with pytest.raises(DataError, match=r"a lookout.*rows of full, reduced"):
        keep_a_lookout(both, cooler, seed=0)


def test_too_few_rows_are_no_lookout(cooler: Decision) -> None:
    """Of a handful of cycles nobody knows what is usual."""
    with pytest.raises(DataError, match=r"at least 30 labelled rows.*found 20 rows"):
        keep_a_lookout(examples(cooler, "full", 47, n=20), cooler, seed=0)
