"""Candidates side by side: on rows none of them learned from, with what they do and believe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aiotkit.core.errors import DataError

pytestmark = [pytest.mark.desk, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
np = pytest.importorskip("numpy")
pytest.importorskip("torch")


@pytest.fixture(scope="module")
def examples() -> Any:
    """Six pumps, with every column of the decision."""
    from worlds.bundles import decision_of
    from worlds.heads import pump_examples

    return pump_examples(decision_of(), n=300, seed=4)


@pytest.fixture(scope="module")
def trained(examples: Any) -> Any:
    """Two families on the same rows."""
    from worlds.bundles import decision_of

    from aiotkit.release.rivals import train_rivals

    told: list[float] = []
    found = train_rivals(
        examples, decision_of(), ["lda", "logistic"], seed=3, tell=lambda _, share: told.append(share)
    )
    assert told == sorted(told)
    assert told[-1] == 1
    return found


def test_rivals_are_judged_on_the_same_rows_by_heads_that_had_not_seen_them(
    trained: Any, examples: Any
) -> None:
    """One action and one p a row and candidate, in the order of the rows; the rule beside them."""
    known = examples.known()
    assert trained.rows["key"].equals(known.rows["key"])
    assert list(trained.policies) == ["rule", "lda", "logistic"]
    for rival in trained.listed:
        assert rival.p.shape == (len(known), 2)
        assert rival.p.sum(axis=1) == pytest.approx(1, abs=1e-6)
        assert len(rival.actions) == len(known)
        assert len(rival.graph) > 1000
    assert "out" not in trained.words
    assert "300" not in trained.words
    assert f"{len(known):,} rows" in trained.words


def test_differences_are_the_rows_with_other_actions(trained: Any) -> None:
    """As many as actions differ, the furthest apart in probability first, and the subject that has most."""
    from aiotkit.release.rivals import differences

    first, second = trained.listed
    second = replace(second, actions=second.actions.copy())
    second.actions[:7] = np.where(first.actions[:7] == "run", "stop", "run")
    rivals = replace(trained, listed=(first, second))
    table = differences(rivals)
    assert len(table) == int((first.actions != second.actions).sum()) >= 7
    assert table["apart"].is_monotonic_decreasing
    assert (table[first.name] != table[second.name]).all()
    counts = table["subject"].value_counts()
    assert counts[rivals.most_contested] == counts.max()


def test_figures_of_rivals_count_what_they_say(trained: Any) -> None:
    """The share of differences is in the caption; slices of one kind add up."""
    from worlds.bundles import decision_of

    from aiotkit.lab.plots_rivals import flip_figure, slice_figure
    from aiotkit.lab.slices import money_by_slice

    first, second = trained.listed
    flips = flip_figure(first.actions, second.actions, ("lda", "logistic"), decision_of())
    share = float((first.actions != second.actions).mean())
    assert f"{share:.1%} of {len(first.actions):,}" in flips.caption
    slices = money_by_slice(
        trained.rows, second.actions, first.actions, decision_of(), x=trained.x, columns=trained.columns
    )
    shown = slice_figure(slices, ("lda", "logistic"), "EUR")
    assert all(plot.png(40)[:4] == b"\x89PNG" for plot in (flips, shown))
    with pytest.raises(DataError, match="actions of two on the same rows"):
        flip_figure(first.actions, second.actions[1:], ("lda", "logistic"), decision_of())


@pytest.mark.parametrize("wanted", [["lda"], ["lda", "lda"], []])
def test_fewer_than_two_candidates_are_no_comparison(examples: Any, wanted: list[str]) -> None:
    """One, the same twice, or none."""
    from worlds.bundles import decision_of

    from aiotkit.release.rivals import train_rivals

    with pytest.raises(DataError, match="at least two, each once"):
        train_rivals(examples, decision_of(), wanted, seed=3)


def test_registered_candidates_are_judged_on_later_rows_only(tmp_path: Path, examples: Any) -> None:
    """Rows after the last that any of them learned from; where there are none, that is the answer."""
    pytest.importorskip("mlflow")
    from worlds.bundles import decision_of
    from worlds.candidates import evidence
    from worlds.heads import exported_head

    from aiotkit.release.bundle import build_bundle
    from aiotkit.release.registry import Candidate, Registry
    from aiotkit.release.rivals import registered_rivals
    from aiotkit.release.store import store_uri

    middle = int(examples.rows["at_us"].median())
    early = examples.take((examples.rows["at_us"] <= middle).to_numpy(dtype=bool))
    registry = Registry(store_uri(tmp_path))
    for counter, kind in enumerate(("linear", "tree"), 1):
        made = build_bundle(
            decision_of(), release_counter=counter, model=exported_head(kind), reference=early
        )
        run = registry.record("test", kind, (), pipeline="")
        papers = evidence(made.digest).canonical()
        registry.register(Candidate(made.archive(), papers, gates_passed=True), run)
    found = registered_rivals(str(tmp_path), examples, decision_of())
    assert [r.name for r in found.listed] == ["version 2", "version 1"]
    assert int(found.rows["at_us"].min()) > middle
    assert len(found.rows) == len(found.listed[0].p) == len(found.listed[1].actions)
    assert "later than any of them learned from" in found.words
    with pytest.raises(DataError, match="no row with a known state is later"):
        registered_rivals(str(tmp_path), early, decision_of())
    with pytest.raises(DataError, match="at least two"):
        registered_rivals(str(tmp_path), examples, decision_of(), [1])
