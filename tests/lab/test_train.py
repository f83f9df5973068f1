"""Families compete on money under honest folds; what cannot be learned from is said in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.desk
pytest.importorskip("sklearn")
pytest.importorskip("onnx")

from worlds.training import COLUMNS, pumps, with_rows  # noqa: E402

from aiotkit.core.decision import Decision, parse_decision  # noqa: E402
from aiotkit.core.errors import DataError  # noqa: E402
from aiotkit.lab.contest import winner  # noqa: E402
from aiotkit.lab.detect import budgeted, rare_state, turning_point  # noqa: E402
from aiotkit.lab.evaluate import merge_alarms  # noqa: E402
from aiotkit.lab.examples import Examples  # noqa: E402
from aiotkit.lab.heads.base import Fitted, Progress, Rows  # noqa: E402
from aiotkit.lab.heads.lda import Lda  # noqa: E402
from aiotkit.lab.onnx_graph import Graph, run_graph  # noqa: E402
from aiotkit.lab.train import Training  # noqa: E402
from aiotkit.lab.train import train as train_audited  # noqa: E402
from aiotkit.lab.trained import Trained  # noqa: E402

FAST = ("lda", "forest")
train = partial(train_audited, audited=False)  # the audit has tests of its own


@cache
def learnt(document: str) -> Training:
    """Two families on eight pumps, once for the module."""
    decision = parse_decision(json.loads(document))
    return train_audited(pumps(decision), decision, families=FAST, folds=4, seed=5)


@pytest.fixture
def training(document: dict[str, Any]) -> Training:
    """Two families on eight pumps."""
    return learnt(json.dumps(document))


def ran(trained: Trained, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    p, novelty = run_graph(trained.head, {"features": x}, ("p", "novelty"))
    return p, novelty


def test_the_winner_leaves_as_a_graph_that_says_what_the_library_says(training: Training) -> None:
    """Probes are real rows with unknown values; the graph flips no label and stays within 1e-4."""
    trained = training.trained
    p, novelty = ran(trained, trained.probe_x)
    assert np.isnan(trained.probe_x).any()
    assert (p.argmax(axis=1) == trained.probe_p.argmax(axis=1)).all()
    np.testing.assert_allclose(p, trained.probe_p, atol=1e-4)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert novelty.shape == (len(p), 1)
    assert (novelty <= 1).mean() > 0.95


def test_the_table_has_a_row_a_family_and_one_is_chosen(training: Training) -> None:
    """Money, interval and figures of every family; the cheapest one's difference is zero."""
    table = training.table
    assert table["family"].tolist() == list(FAST)
    assert table["chosen"].sum() == 1
    assert table["difference"].min() == 0
    assert (table["accuracy"] > 0.8).all()
    assert training.trained.family == table.loc[table["chosen"], "family"].item()
    assert {"always run", "oracle", *FAST} <= set(training.comparison["policy"])


def test_out_of_fold_rows_are_the_known_ones(training: Training, guard: Decision) -> None:
    """Every known row is judged once, by a head that had not seen its subject."""
    assert training.oof_p.shape == (len(training.oof_rows), len(guard.states))
    np.testing.assert_allclose(training.oof_p.sum(axis=1), 1, atol=1e-9)
    by_subject = training.oof_rows.assign(fold=training.oof_fold).groupby("subject")["fold"].nunique()
    assert (by_subject == 1).all()
    assert {"grouping", "overlap"} <= {finding.name for finding in training.audit.findings}


def test_a_training_without_audit_says_so(guard: Decision) -> None:
    """Left out is not passed: the finding is ``unchecked``."""
    found = train(pumps(guard), guard, families=["lda"], folds=3, seed=0)
    assert [str(finding) for finding in found.audit.findings] == ["data: no audit was asked for"]
    assert [finding.severity for finding in found.audit.findings] == ["unchecked"]


def test_fewer_folds_than_asked_for_are_said(guard: Decision) -> None:
    """Subjects stay whole, so there are no more folds than subjects, and a note says so."""
    found = train(pumps(guard), guard, families=["lda"], folds=50, seed=0)
    assert found.oof_fold.max() + 1 == 8
    assert "8 folds, not 50: there are 8 subjects" in found.trained.notes
    assert not any(
        "folds" in note for note in train(pumps(guard), guard, families=["lda"], seed=0).trained.notes
    )


def test_the_same_inputs_and_seed_give_the_same_bytes(guard: Decision, training: Training) -> None:
    """Head, probes and table are repeated to the bit."""
    again = train(pumps(guard), guard, families=FAST, folds=4, seed=5)
    assert again.trained.head == training.trained.head
    assert (again.trained.probe_p == training.trained.probe_p).all()
    assert repr(again.trained.table) == repr(training.trained.table)


def test_a_trained_head_is_read_back_and_an_altered_one_refused(training: Training, tmp_path: Path) -> None:
    """ONNX, JSON and npz: the same after reading; one flipped byte is an error."""
    trained = training.trained
    trained.save(tmp_path)
    found = Trained.load(tmp_path)
    assert found.head == trained.head
    assert (found.columns, found.states, found.notes) == (trained.columns, trained.states, trained.notes)
    np.testing.assert_array_equal(found.probe_x, trained.probe_x)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["head.onnx", "probes.npz", "trained.json"]
    data = bytearray((tmp_path / "head.onnx").read_bytes())
    data[100] ^= 1
    (tmp_path / "head.onnx").write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"trained head in .* found altered files\. Train again"):
        Trained.load(tmp_path)
    with pytest.raises(DataError, match="trained head in gone"):
        Trained.load(tmp_path / "gone")


def test_progress_rises_to_one_and_names_the_stage(guard: Decision) -> None:
    """What runs is said, and the share never falls."""
    seen: list[tuple[str, float]] = []
    train(
        pumps(guard, subjects=4, rows=25),
        guard,
        families=["lda"],
        folds=3,
        seed=0,
        progress=lambda *a: seen.append(a),
    )
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert {"novelty", "lda: fold 1 of 3", "lda: all rows", "done"} <= {stage for stage, _ in seen}


def test_a_tie_goes_to_the_simpler_family(guard: Decision) -> None:
    """Two families that do the same cost the same: the one named first in the order of simplicity stays."""
    found = train(pumps(guard), guard, families={"twin": Lda(name="twin"), "lda": Lda()}, folds=3, seed=0)
    assert found.table["money"].nunique() == 1
    assert found.trained.family == "lda"


class Guesser:
    """A family that has learnt nothing."""

    name = "guesser"

    def fit(self, rows: Rows, *, seed: int, progress: Progress) -> Fitted:
        return Constant(rows.classes)


class Constant:
    """Says the same of every row; ``lies``: by how much its graph says something else."""

    settings: Mapping[str, float] = {}
    signals: tuple[str, ...] = ()

    def __init__(self, classes: int, lies: float = 0.0) -> None:
        self.classes, self.lies = classes, lies

    def logits(self, x: NDArray[np.float32], windows: Any) -> NDArray[np.float64]:
        return np.tile(np.linspace(0, 1, self.classes), (len(x), 1))

    def add_to(self, graph: Graph, x: str, windows: Mapping[str, str]) -> str:
        slopes = np.zeros((len(COLUMNS), self.classes))
        zero = graph.op("Mul", graph.to64(x), graph.number(0.0))
        zero = graph.op("Where", graph.op("IsNaN", zero), graph.number(0.0), zero)
        row = np.linspace(0, 1, self.classes) + self.lies * np.arange(self.classes)[::-1]
        return graph.op("Add", graph.op("MatMul", zero, graph.constant(slopes)), graph.constant(row))


def test_the_cheaper_family_wins_even_if_it_is_less_simple(guard: Decision) -> None:
    """A family that costs surely more loses to a later one."""
    found = train(
        pumps(guard), guard, families={"forest": Guesser(), "mlp": Lda(name="mlp")}, folds=4, seed=0
    )
    assert found.trained.family == "mlp"
    row = found.table.set_index("family").loc["forest"]
    assert row["low"] > 0
    assert row["money"] > found.table.set_index("family").loc["mlp", "money"]


class Failing:
    """A family that fails, as a network with a loss of NaN does."""

    name = "failing"

    def fit(self, rows: Rows, *, seed: int, progress: Progress) -> Fitted:
        raise DataError("family 'failing': the loss is nan in pass 1")


class Liar:
    """A family whose graph is not what the library computes."""

    name = "liar"

    def fit(self, rows: Rows, *, seed: int, progress: Progress) -> Fitted:
        return Constant(rows.classes, lies=2.0)


def test_a_family_that_fails_or_lies_is_refused_with_the_reason_and_others_go_on(guard: Decision) -> None:
    """A NaN loss or a graph with other labels takes one family out, not the training."""
    found = train(
        pumps(guard), guard, families={"lda": Lda(), "failing": Failing(), "liar": Liar()}, folds=3, seed=0
    )
    assert found.trained.family == "lda"
    refused = found.table.set_index("family")["refused"]
    assert refused["lda"] == ""
    assert "the loss is nan" in refused["failing"]
    assert "320 of" not in refused["liar"]
    assert "labels flipped" in refused["liar"]
    with pytest.raises(
        DataError, match="no family is left; found failing: family 'failing': the loss is nan"
    ):
        train(pumps(guard), guard, families={"failing": Failing()}, folds=3, seed=0)


def test_what_was_acted_upon_is_judged_but_not_learned_from(guard: Decision) -> None:
    """A censored row with a known state is in the books; its label, here always wrong, teaches nothing."""
    examples = pumps(guard, subjects=6)
    acted = np.arange(len(examples)) % 5 == 0
    wrong = np.where(acted, "broken", examples.rows["state"])
    status = np.where(acted, "censored", "mature")
    found = train(with_rows(examples, state=wrong, status=status), guard, families=["lda"], folds=3, seed=0)
    assert len(found.oof_rows) == len(examples)
    assert found.trained.figures["rows"] == (~acted).sum()
    clean = train(examples.take(~acted), guard, families=["lda"], folds=3, seed=0)
    np.testing.assert_allclose(
        run_graph(found.trained.head, {"features": found.trained.probe_x[:50]}, ("p",))[0],
        run_graph(clean.trained.head, {"features": found.trained.probe_x[:50]}, ("p",))[0],
        atol=0.02,
    )


def test_labels_nobody_believes_count_little(guard: Decision) -> None:
    """Confidence weighs rows: wrong labels of confidence 0.01 hardly move what is learnt."""
    examples = pumps(guard, subjects=6, noise=0.3)
    spoilt = np.arange(len(examples)) % 3 == 0
    states = np.where(spoilt, "broken", examples.rows["state"])
    trusted = with_rows(examples, state=states, confidence=1.0)
    doubted = with_rows(examples, state=states, confidence=np.where(spoilt, 0.01, 1.0))
    share = []
    for given in (trusted, doubted):
        head = train(given, guard, families=["lda"], folds=3, seed=0).trained
        p = ran(head, examples.x)[0]
        truth = np.array([head.states.index(s) for s in examples.rows["state"]])
        share.append((p.argmax(axis=1) == truth).mean())
    assert share[1] > 0.9
    assert share[1] > share[0]


def test_a_state_never_seen_gets_no_probability_and_a_note(guard: Decision) -> None:
    """Declared but never labelled: p is zero, and the note says that only novelty can point to it."""
    examples = pumps(guard, shares=[0.6, 0.4, 0.0])
    trained = train(examples, guard, families=["lda"], folds=3, seed=0).trained
    assert (ran(trained, trained.probe_x)[0][:, 2] == 0).all()
    assert any(note.startswith("state 'broken': no labelled row has it") for note in trained.notes)


def test_a_state_that_one_fold_alone_holds_is_novel_there(guard: Decision) -> None:
    """Only one pump ever broke: for its fold the state was never seen, and the novelty gate asks."""
    examples = pumps(guard, shares=[0.5, 0.5, 0.0], noise=0.1)
    broke = (examples.rows["subject"] == "P3").to_numpy() & (np.arange(len(examples)) % 2 == 0)
    x = examples.x.copy()
    x[broke, 0] = 2 + 0.1 * np.random.default_rng(0).standard_normal(broke.sum())
    given = with_rows(replace(examples, x=x), state=np.where(broke, "broken", examples.rows["state"]))
    found = train(given, guard, families=["lda"], folds=4, seed=0)
    assert (found.oof_p[broke, 2] == 0).all()
    assert (found.oof_novelty[broke] > 1).mean() > 0.8
    assert (found.oof_novelty[~broke] > 1).mean() < 0.05


def test_unknown_costs_are_judged_by_log_loss(document: dict[str, Any]) -> None:
    """Without money the best probabilities win, and nothing pretends to know money."""
    decision = parse_decision(document | {"costs": "unknown"})
    families = {"forest": Guesser(), "mlp": Lda(name="mlp")}
    found = train(pumps(decision), decision, families=families, folds=3, seed=0)
    assert found.trained.family == "mlp"
    assert found.table["money"].isna().all()
    assert found.comparison.empty


def test_a_margin_is_measured_where_a_later_look_may_still_act(guard: Decision) -> None:
    """The margin is one of those tried, and no dearer than none at all on the rows it was measured on."""
    figures = train(pumps(guard, noise=1.5), guard, families=["lda"], folds=4, seed=0).trained.figures
    assert 0 <= figures["margin"] <= 840
    assert figures["money"] >= 0


# --- what cannot be learned from -------------------------------------------------------------------------


def test_three_rows_are_too_few(guard: Decision) -> None:
    """Ten labelled rows are the least; the message says how many there are and what else there is."""
    three = pumps(guard).take(np.arange(3))
    with pytest.raises(DataError, match=r"3 labelled rows of 3; expected at least 10\. Import more outcomes"):
        train(three, guard, seed=0)


def test_one_class_only_is_said(guard: Decision) -> None:
    """All rows of one state: nothing to tell apart, and the way out is named."""
    given = with_rows(pumps(guard), state="ok")
    with pytest.raises(
        DataError, match=r"all 320 labelled rows have one state, 'ok'.*detectors.* mahalanobis"
    ):
        train(given, guard, seed=0)


def test_an_undeclared_state_is_named_with_a_hint(guard: Decision) -> None:
    """A label of a state that the decision does not declare is no row to skip in silence."""
    given = pumps(guard)
    states = given.rows["state"].where(given.rows["state"] != "worn", "wrn")
    with pytest.raises(
        DataError, match=r"name the state 'wrn', which decision 'pump-guard'.*did you mean 'worn'"
    ):
        train(with_rows(given, state=states), guard, seed=0)


def test_constant_and_empty_columns_are_left_out_with_a_note(guard: Decision) -> None:
    """They cost nothing but a line in the notes, and are not among the head's columns."""
    examples = pumps(guard)
    x = examples.x.copy()
    x[:, 3], x[:, 4] = np.nan, 7.0
    trained = train(replace(examples, x=x), guard, families=["lda"], folds=3, seed=0).trained
    assert trained.columns == ("vib.rms", "vib.mean", "vib.std", "context.mode=idle")
    assert trained.features == ("vib.rms", "vib.mean", "vib.std")
    assert trained.notes == (
        "left out, without a value on any row: oil.last",
        "left out, constant on every row: context.load",
    )


def test_a_column_that_is_constant_within_a_fold_does_no_harm(guard: Decision) -> None:
    """It varies on one pump only: the folds without it train on the rest."""
    examples = pumps(guard)
    x = examples.x.copy()
    x[(examples.rows["subject"] != "P0").to_numpy(), 4] = 7.0
    found = train(replace(examples, x=x), guard, families=["lda"], folds=8, seed=0)
    assert "context.load" in found.trained.columns
    assert (found.table["refused"] == "").all()


def test_nothing_but_useless_columns_is_an_error(guard: Decision) -> None:
    """If no column varies there is no head to train."""
    examples = pumps(guard)
    with pytest.raises(DataError, match="6 columns, none of which can tell states apart; found left out"):
        train(replace(examples, x=np.full_like(examples.x, 3)), guard, seed=0)


def test_a_million_columns_are_refused_before_they_are_touched(guard: Decision) -> None:
    """More columns than memory allows end in words, at once."""
    examples = pumps(guard, subjects=2, rows=8)
    wide = np.broadcast_to(np.float32(1), (len(examples), 1_000_000))
    given = Examples(examples.rows, tuple(f"vib.f{i}" for i in range(1_000_000)), wide)
    with pytest.raises(
        DataError, match=r"1,000,000 columns; expected at most 20,000\. Choose features by name"
    ):
        train(given, guard, seed=0)


def test_a_baseline_of_another_length_is_refused(guard: Decision) -> None:
    """A baseline is an action for each known row."""
    with pytest.raises(DataError, match="baseline; expected an action for each of 320 known rows; found 5"):
        train(pumps(guard), guard, families=["lda"], folds=3, seed=0, baseline=["run"] * 5)


def entry(family: str, money: float, low: float, high: float, loss: float) -> dict[str, Any]:
    """A row of the contest's table."""
    return {"family": family, "money": money, "low": low, "high": high, "log_loss": loss, "refused": ""}


def test_where_money_is_a_tie_probabilities_decide() -> None:
    """The sharper of two that cost the same, the simpler of two equally sharp; never the surely dearer."""
    lda, other = entry("lda", 100.0, -5.0, 20.0, 0.44), entry("logistic", 95.0, 0.0, 0.0, 0.30)
    assert winner([lda, other], money=True) == "logistic"
    assert winner([lda | {"log_loss": 0.303}, other], money=True) == "lda"
    assert winner([lda, other | {"log_loss": 0.50}], money=True) == "lda"
    assert winner([lda | {"low": 2.0, "log_loss": 0.1}, other], money=True) == "logistic"
    unsure = lda | {"low": np.nan, "high": np.nan, "log_loss": 0.1}
    assert winner([unsure, other], money=True) == "logistic"


def test_a_seed_may_be_of_any_size(guard: Decision) -> None:
    """What scikit-learn takes is the rest after 32 bits."""
    large, small = (train(pumps(guard), guard, families=["hgb"], folds=3, seed=s) for s in (5 + (1 << 40), 5))
    assert large.trained.head == small.trained.head


def test_raw_windows_are_read_where_they_are_at_hand(guard: Decision) -> None:
    """The convolutional family names its signal, and its probes come with windows."""
    examples = pumps(guard, windows=True, subjects=6, noise=3.0)
    found = train(examples, guard, families=["lda", "cnn"], folds=3, seed=0)
    assert (found.table["refused"] == "").all()
    if found.trained.family == "cnn":
        assert found.trained.signals == ("vib",)
        assert len(found.trained.probe_windows["vib"]) == len(found.trained.probe_x)


@pytest.mark.parametrize("name", ["x", "y", "columns", "glue"])
def test_a_raw_signal_may_be_called_as_one_likes(document: dict[str, Any], name: str) -> None:
    """Its windows and the columns of features are two inputs, also of a signal called x."""
    renamed = parse_decision(json.loads(json.dumps(document).replace('"vib', f'"{name}')))
    made = pumps(parse_decision(document), windows=True, subjects=6, noise=3.0)
    columns = tuple(c.replace("vib.", f"{name}.") for c in made.columns)
    examples = replace(made, columns=columns, windows={name: made.windows["vib"]})
    found = train(examples, renamed, families=["cnn"], folds=3, seed=0).trained
    given = {"features": found.probe_x, name: found.probe_windows[name]}
    p = run_graph(found.head, given, ("p",))[0]
    np.testing.assert_allclose(p, found.probe_p, atol=1e-5)


# --- without labels --------------------------------------------------------------------------------------


def two_states(document: dict[str, Any], **policy: Any) -> Decision:
    costs = {"run": {"ok": 0, "broken": 900}, "slow": {"ok": 60, "broken": 60}}
    sources = {"crew": {"reports": ["ok", "broken"], "reliability": 0.9}}
    return parse_decision(
        document
        | {
            "states": {"ok": {}, "broken": {}},
            "costs": costs,
            "policy": policy,
            "outcome": document["outcome"] | {"sources": sources},
        }
    )


def usual_and_strange(decision: Decision, strange: float = 0.02) -> tuple[Examples, NDArray[np.bool_]]:
    """Columns that move together, but for a few rows; nothing is labelled."""
    examples = pumps(decision, subjects=6, rows=120, shares=[1.0, 0.0])
    rng = np.random.default_rng(9)
    load = rng.standard_normal((len(examples), 1))
    x = load + 0.2 * rng.standard_normal(examples.x.shape)
    odd = rng.random(len(examples)) < strange
    x[odd] = rng.normal(0, 2.0, (odd.sum(), x.shape[1]))
    given = replace(examples, x=x.astype(np.float32))
    return with_rows(given, status="pending", state=None), odd


def test_detectors_learn_without_a_label(document: dict[str, Any]) -> None:
    """With a declared prevalence strange rows get a high probability and usual ones about the prevalence."""
    decision = two_states(document, prevalence={"broken": 0.02})
    examples, odd = usual_and_strange(decision)
    found = train(examples, decision, families=["mahalanobis"], seed=0)
    p = run_graph(found.trained.head, {"features": examples.x}, ("p",))[0][:, 1]
    assert np.median(p[odd]) > 0.1 > 0.03 > np.median(p[~odd])
    assert p.min() >= 0.0199
    assert found.oof_p.shape == (0, 2)
    assert any("declared prevalence" in note for note in found.trained.notes)
    many = train(examples, decision, families=["mahalanobis"], folds=999, seed=0)
    subjects = examples.rows["subject"].nunique()
    assert f"{subjects} folds, not 999: there are {subjects} subjects" in many.trained.notes


def test_a_false_alarm_budget_is_kept(document: dict[str, Any]) -> None:
    """The policy acts on no more episodes a subject-day than the budget, on the rows it was set on."""
    budget = 0.01
    decision = two_states(document, kind="false_alarm_budget", alarms_per_day=budget)
    examples, odd = usual_and_strange(decision)
    found = train(examples, decision, families=["autoencoder"], seed=0)
    p = run_graph(found.trained.head, {"features": examples.x}, ("p",))[0][:, 1]
    acts = p > turning_point(decision, 1)
    alarms = merge_alarms(examples.rows.loc[acts, ["subject", "at_us"]], decision.outcome.horizon_s)
    assert 0 < len(alarms) / len(examples) < 2.5 * budget
    assert odd[acts].mean() > 0.6


def test_detectors_compete_on_what_labels_there_are(document: dict[str, Any]) -> None:
    """Known states judge between detectors in money."""
    decision = two_states(document, prevalence={"broken": 0.05})
    examples, odd = usual_and_strange(decision, strange=0.06)
    given = with_rows(examples, status="mature", state=np.where(odd, "broken", "ok"))
    found = train(given, decision, families=["mahalanobis", "isolation"], folds=3, seed=0)
    assert found.table["money"].notna().all()
    assert len(found.oof_p) == len(given)


def test_a_detector_needs_two_states_and_a_prevalence(guard: Decision, document: dict[str, Any]) -> None:
    """A score is no probability: what is missing in the decision file is named."""
    with pytest.raises(DataError, match="expected two states: the usual one and another; found 3"):
        train(pumps(guard), guard, families=["mahalanobis"], seed=0)
    with pytest.raises(DataError, match=r"Declare policy\.prevalence, e\.g\. {broken: 0\.01}"):
        rare_state(two_states(document))
    with pytest.raises(DataError, match="expected either families that learn from labels, or detectors"):
        train(pumps(guard), guard, families=["lda", "mahalanobis"], seed=0)


def test_a_budget_is_kept_by_few_alarms_not_by_one_that_never_ends(document: dict[str, Any]) -> None:
    """Of noise at every hour: an alarm on every row is an episode a horizon, and breaks the budget."""
    decision = two_states(document, kind="false_alarm_budget", alarms_per_day=0.2)
    rows = pumps(decision, subjects=4, rows=24 * 40).rows
    hours = np.tile(np.arange(24 * 40), 4) * 3_600_000_000
    rows = rows.assign(at_us=hours, subject=np.repeat(["a", "b", "c", "d"], 24 * 40))
    scores = np.random.default_rng(5).normal(size=len(rows))
    days, horizon = len(rows) / 24, decision.outcome.horizon_s
    limit = budgeted(scores, rows, decision, 0.2)
    alarms = rows.loc[scores > limit, ["subject", "at_us"]]
    assert 0.15 < len(merge_alarms(alarms, horizon)) / days <= 0.2
    assert len(alarms) < 0.05 * len(rows)
    assert len(merge_alarms(rows, horizon)) / days > 0.2


def test_the_lowest_score_within_budget_is_taken(document: dict[str, Any]) -> None:
    """One episode a hundred subject-days: exactly the highest scores that make no more than that."""
    decision = two_states(document, kind="false_alarm_budget", alarms_per_day=0.02)
    rows = pumps(decision, subjects=2, rows=100).rows
    scores = np.arange(200.0)
    limit = budgeted(scores, rows, decision, 0.02)
    assert (scores > limit).sum() == 4
