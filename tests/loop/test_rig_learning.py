"""What is said of the rig's rounds is what happened in them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection

pytest.importorskip("sklearn")
pytestmark = pytest.mark.desk

from aiotkit.loop.rig import rig_decision  # noqa: E402
from aiotkit.loop.rig_learning import RULE, fared, first_seen  # noqa: E402
from aiotkit.loop.rig_page import timeline  # noqa: E402
from aiotkit.loop.rig_rounds import cuts_of  # noqa: E402


@pytest.fixture
def cycles() -> pd.DataFrame:
    """Eight cycles by the rule, twelve by a head: ``reduced`` is new, half asked about, half misjudged."""
    state = ["full"] * 10 + ["reduced"] * 10
    label = [None] * 8 + ["full"] * 12
    action = ["carry_on"] * 10 + ["ask"] * 5 + ["carry_on"] * 5
    return pd.DataFrame(
        {
            "cycle": np.arange(20), "at_us": 60_000_000 * np.arange(1, 21), "state": state, "label": label,
            "novelty": np.nan, "action": action, "novel": [a == "ask" for a in action],
            "round": [0] * 8 + [1] * 7 + [2] * 5, "family": [RULE] * 8 + ["lookout"] * 7 + ["lda"] * 5,
        }
    )  # fmt: skip


def test_first_appearances_are_told_as_they_were(cycles: pd.DataFrame) -> None:
    """A state's first cycles end where it could have been learned; asked about is not misjudged."""
    usual, new = first_seen(cycles)
    assert (usual["state"], usual["cycle"], usual["by"], usual["novel_share"]) == ("full", 0, RULE, None)
    assert (new["state"], new["cycle"], new["by"], new["first"]) == ("reduced", 10, "lookout", 5)
    assert new["asked_share"] == new["novel_share"] == 1.0
    assert new["misjudged"] == {}
    (_, late) = first_seen(cycles.assign(round=[0] * 8 + [1] * 12))
    assert late["asked_share"] == 0.5
    assert late["misjudged"] == {"full": 5}
    assert late["actions"] == {"ask": 5, "carry_on": 5}


def test_money_and_accuracy_of_cycles(cycles: pd.DataFrame) -> None:
    """Asking costs the fitter and the best action, waiting in a reduced state its wear; 1440 cycles a day."""
    found = fared(cycles, rig_decision("cooler"))
    assert (found["decided"], found["asked"], found["novel"]) == (20, 5, 5)
    assert found["accuracy"] == pytest.approx(2 / 12, abs=1e-4)
    assert found["accuracy_known"] == pytest.approx(2 / 7, abs=1e-4)
    assert found["money"] == pytest.approx((5 * (1 + 0.5) + 5 * 1.5) / 20 * 1440)
    assert found["oracle"] == pytest.approx(10 * 0.5 / 20 * 1440)
    assert found["best_constant"] == pytest.approx((10 * 1 + 10 * 0.5) / 20 * 1440)


def test_rounds_cover_the_record_and_grow() -> None:
    """Every cycle is in one round, and the desk learns often while it knows little."""
    for n in (2, 40, 300, 2205):
        cuts = cuts_of(n)
        assert (cuts[0], cuts[-1]) == (0, n)
        assert all(b > a for a, b in pairwise(cuts))
    assert cuts_of(2205) == [0, 180, 288, 460, 736, 1177, 1883, 2205]


def test_the_timeline_marks_what_was_asked(cycles: pd.DataFrame) -> None:
    """The figure has a mark for every question and dots only where the model decided."""
    plot = timeline(cycles, "cooler", [0, 8, 15, 20], ["full", "reduced", "failing"])
    says, asked = plot.figure.axes
    (marks,) = asked.collections
    assert isinstance(marks, LineCollection)
    assert len(marks.get_segments()) == 5
    assert sum(np.asarray(dots.get_offsets()).shape[0] for dots in says.collections) == 7
    assert b"<svg" in plot.svg()
