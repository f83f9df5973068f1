"""Money by margin, and the progress line of notebooks."""

from __future__ import annotations

from typing import Any

import pytest

from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
np = pytest.importorskip("numpy")
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def trained() -> Any:
    """A decision and what training on eight pumps found."""
    from worlds.bundles import decision_of
    from worlds.training import pumps

    from aiotkit.lab.train import train

    decision = decision_of()
    columns = (*decision.features(), "context.load")
    examples = pumps(decision, seed=2, columns=columns)
    return decision, train(examples, decision, families=("lda",), folds=3, seed=5)


def test_money_by_margin_is_that_of_held_out_rows(trained: Any) -> None:
    """Each margin is priced as the judge prices it; the larger, the less is done."""
    from aiotkit.bundle.tuned import tuned
    from aiotkit.lab.judge import actions_of, money_of
    from aiotkit.lab.margins import margin_figure, money_by_margin

    decision, training = trained
    table = money_by_margin(training, decision)
    assert table["margin"].is_monotonic_increasing
    assert table["acts"].is_monotonic_decreasing
    assert table["acts"].iloc[0] > table["acts"].iloc[-1]
    margin = float(table["margin"].iloc[2])
    actions = actions_of(training.oof_p, tuned(decision, margin), training.oof_novelty)
    ledger = money_of(training.oof_rows, actions, decision)
    assert table["money"].iloc[2] == pytest.approx(ledger["money"].sum() / len(ledger))
    plot = margin_figure(table, margin, "EUR")
    assert plot.png(40)[:4] == b"\x89PNG"
    assert f"{margin:,.4g} EUR" in plot.caption


def test_rows_are_judged_under_margins_of_other_folds(trained: Any) -> None:
    """Each fold's margin is the cheapest on all others, and what would have been done follows it."""
    from aiotkit.bundle.tuned import tuned
    from aiotkit.lab.contest import margins_of
    from aiotkit.lab.judge import actions_of, money_of

    decision, training = trained
    actions = training.actions(decision)
    for one in np.unique(training.oof_fold):
        mine = training.oof_fold == one
        (margin,) = np.unique(training.oof_margins[mine])
        others = training.oof_rows.loc[~mine].reset_index(drop=True)
        p, novelty = training.oof_p[~mine], training.oof_novelty[~mine]
        spent = [
            money_of(others, actions_of(p, tuned(decision, m), novelty), decision)["money"].sum()
            for m in margins_of(decision)
        ]
        assert spent[margins_of(decision).index(margin)] == pytest.approx(min(spent))
        said = actions_of(training.oof_p[mine], tuned(decision, margin), training.oof_novelty[mine])
        assert (actions[mine] == said).all()


def test_without_costs_there_is_no_margin(trained: Any) -> None:
    """And that is what it says."""
    from aiotkit.lab.margins import money_by_margin

    decision, training = trained
    with pytest.raises(DataError, match="expected known costs"):
        money_by_margin(training, decision.model_copy(update={"costs": "unknown"}))


def test_progress_is_one_line_that_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing before the first word; fast news are not all drawn; the end always is."""
    from aiotkit.lab.progress import progress_line

    tell = progress_line("training")
    assert capsys.readouterr().out == ""
    for i in range(50):
        tell("folds", i / 50)
    tell("done", 1.0)
    assert 1 <= len(capsys.readouterr().out.splitlines()) <= 3
