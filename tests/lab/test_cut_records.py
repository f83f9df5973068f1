"""What other policies would have cost where the record was cut short, because whoever decided acted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from aiotkit.core.decision import parse_decision

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")

HOUR_US = 3_600_000_000
START_US = 1_767_225_600_000_000  # 2026-01-01
BREAKS, ACTS, CALM = 900.0, 60.0, 0.0


def record(*stretches: tuple[int, str, str], subject: str = "p1") -> Any:
    """Rows an hour apart: how many, their state, their status."""
    state = [s for n, s, _ in stretches for _ in range(n)]
    status = [s for n, _, s in stretches for _ in range(n)]
    at = START_US + HOUR_US * np.arange(len(state))
    return pd.DataFrame({"subject": subject, "at_us": at, "state": state, "status": status})


#: two days of nothing, ten hours before a breakdown that was seen coming, four hours in the crew's hands
CAUGHT = [(48, "ok", "mature"), (10, "broken", "mature"), (5, "broken", "censored"), (48, "ok", "mature")]
#: the same, but it broke
BROKE = [(48, "ok", "mature"), (24, "broken", "mature"), (48, "ok", "mature")]
CUT = 48 + 10  # the row at which somebody acted


def spent(rows: Any, acts_at: Sequence[int], decision: Any, word: str = "slow") -> float:
    """What a word at some rows, and ``run`` at all others, costs."""
    from aiotkit.lab.judge import money_of

    said = [word if i in acts_at else "run" for i in range(len(rows))]
    return float(money_of(rows, said, decision)["money"].sum())


def test_acting_when_the_record_was_cut_or_before_costs_the_action(guard: Any) -> None:
    """Whoever did what was done, or did it earlier, pays for it once; what came after is not his."""
    rows = record(*CAUGHT)
    assert spent(rows, [CUT], guard) == ACTS
    assert spent(rows, [CUT - 5], guard) == ACTS


def test_never_acting_pays_for_every_event_that_somebody_else_stopped(guard: Any) -> None:
    """A policy that waits through all events whose course is known is taken to wait through this one too."""
    assert spent(record(*CAUGHT), [], guard) == BREAKS
    assert spent(record(*BROKE), [], guard) == BREAKS


def test_rows_of_what_was_done_are_no_decisions(guard: Any) -> None:
    """A machine that stands in the crew's hands looks fine, or odd: nothing that is said of it counts."""
    rows = record(*CAUGHT)
    standing = range(CUT + 1, CUT + 5)
    assert spent(rows, [CUT, *standing], guard) == spent(rows, [CUT], guard)
    assert spent(rows, standing, guard) == spent(rows, [], guard) == BREAKS


def test_a_policy_is_priced_by_how_it_fared_on_events_whose_course_is_known(guard: Any) -> None:
    """Of three events it caught two that ran on and waited where the record was cut: 2 of 3 are heeded."""
    rows = pd.concat([record(*BROKE, subject=s) for s in ("a", "b")] + [record(*CAUGHT, subject="c")])
    rows = rows.reset_index(drop=True)
    both = [48, 120 + 48]  # at the first row of the event of a, and of b
    heeded = 2 / 3
    mixed = heeded * ACTS + (1 - heeded) * BREAKS
    assert spent(rows, both, guard) == pytest.approx(2 * ACTS + mixed)
    assert spent(rows, both[:1], guard) == pytest.approx(ACTS + BREAKS + (ACTS + 2 * BREAKS) / 3)


def test_waiting_where_somebody_acted_in_vain_costs_nothing_but_waiting(guard: Any) -> None:
    """The crew found nothing: whoever would have run on was right."""
    rows = record((48, "ok", "mature"), (5, "ok", "censored"), (48, "ok", "mature"))
    assert spent(rows, [], guard) == CALM
    assert spent(rows, [48], guard) == ACTS


def test_what_is_in_force_for_longer_than_a_horizon_is_decided_anew(guard: Any) -> None:
    """Three days of a bad state that somebody acts upon: one day of acting, two of letting it be."""
    rows = record((48, "ok", "mature"), (72, "broken", "censored"), (48, "ok", "mature"))
    assert spent(rows, range(48, 120), guard) == 3 * ACTS
    assert spent(rows, [48], guard) == pytest.approx(ACTS + 2 * (0.5 * ACTS + 0.5 * BREAKS))


def test_a_record_that_ends_where_it_was_cut_is_priced(guard: Any) -> None:
    """The last rows are the crew's: nothing follows them."""
    rows = record(*CAUGHT[:3])
    assert spent(rows, [], guard) == BREAKS
    assert spent(rows, [CUT], guard) == ACTS


def test_without_a_cut_nothing_changes(guard: Any) -> None:
    """For random rows the column of status alone changes no price."""
    from aiotkit.lab.judge import money_of

    rng = np.random.default_rng(8)
    for _ in range(20):
        states = rng.choice(["ok", "worn", "broken"], int(rng.integers(2, 90)), p=[0.8, 0.1, 0.1])
        rows = pd.concat([record((1, str(s), "mature")) for s in states])
        rows["at_us"] = START_US + HOUR_US * np.arange(len(rows))
        said = rng.choice(["run", "slow"], len(rows), p=[0.9, 0.1])
        plain = money_of(rows.drop(columns="status"), said, guard)
        pd.testing.assert_frame_equal(money_of(rows, said, guard), plain)


def test_how_often_a_policy_still_waited_is_counted(guard: Any) -> None:
    """Events that ran on are not counted; acting before or at the cut is no waiting."""
    from aiotkit.lab.books import Book

    rows = pd.concat(
        [record(*BROKE, subject="a"), record(*CAUGHT, subject="b"), record(*CAUGHT, subject="c")]
    )
    rows = rows.reset_index(drop=True)
    book, first = Book.of(rows, guard), len(record(*BROKE))
    for acts_at, waited in ((), 2), ((first + CUT,), 1), ((first + CUT + 1,), 2):
        said = ["slow" if i in acts_at else "run" for i in range(len(rows))]
        assert book.waited(book.codes(said)) == (2, waited)


@pytest.mark.parametrize("lead", range(48, 73, 3))
@pytest.mark.parametrize("span", [1, 5, 20])
def test_an_event_is_priced_once_wherever_horizons_fall(guard: Any, lead: int, span: int) -> None:
    """Episodes that end among the rows of what was done end with them, whether they wait or act."""
    rows = record(
        (lead, "ok", "mature"), (10, "broken", "mature"), (span, "broken", "censored"), (48, "ok", "mature")
    )
    assert spent(rows, [], guard) == BREAKS
    for acts_at in (lead, lead + 5, lead + 10):
        assert spent(rows, [acts_at], guard) == ACTS


def test_acting_before_any_sign_averts_nothing(guard: Any) -> None:
    """As where it broke: who acted in vain, more than a horizon ahead, waits when it comes."""
    for rows in (record(*CAUGHT), record(*BROKE)):
        assert spent(rows, [20], guard) == spent(rows, [40], guard) == ACTS + BREAKS


def test_an_answer_that_all_is_well_averts_nothing(document: dict[str, Any]) -> None:
    """Asked before any sign, the person says to run on; the event comes, also where it was cut short."""
    human = {"cost": 5, "delay_s": 600, "reliability": 1.0, "holds_s": 86_400}
    asked = parse_decision(document | {"human": human})
    for rows in (record(*CAUGHT), record(*BROKE)):
        for at in (30, 40, 47):
            assert spent(rows, [at], asked, "ask") == 5 + BREAKS
        assert spent(rows, [48], asked, "ask") == 5 + ACTS
