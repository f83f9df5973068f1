"""One graph from front and head: same bytes everywhere, and refused where it would decide otherwise."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiotkit.core.errors import BundleError

pytestmark = pytest.mark.desk
onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from onnx import helper, numpy_helper  # noqa: E402
from worlds.bundles import decision_of  # noqa: E402
from worlds.heads import COLUMNS, exported_head, model_of, pump_examples, trained_head  # noqa: E402

from aiotkit.core.decision import Decision  # noqa: E402
from aiotkit.lab.trained import Trained  # noqa: E402
from aiotkit.release.export import export, join  # noqa: E402
from aiotkit.release.graph import audit_graph  # noqa: E402
from aiotkit.release.parity import compare, graph_parity, head_parity, open_session  # noqa: E402

TESTS = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def decision() -> Decision:
    return decision_of()


@pytest.fixture(scope="module")
def trained(decision: Decision) -> Trained:
    return trained_head(decision, COLUMNS)


def changed(trained: Trained, change: Any) -> Trained:
    """The head with its graph changed."""
    model = onnx.load_from_string(trained.head)
    change(model)
    return replace(trained, head=model.SerializeToString())


def test_the_graph_has_the_inputs_and_outputs_that_its_interface_says(decision: Decision) -> None:
    """Signals, history and context in; features, p and novelty out; each as wide as promised."""
    made = exported_head()
    session = open_session(made.graph)
    assert {i.name: i.shape[-1] for i in session.get_inputs()} == {
        **{name: decision.samples(name) for name in decision.signals},
        "history": 1,
        "context": 3,
    }
    widths = {o.name: o.shape[-1] for o in session.get_outputs()}
    assert widths == {"features": len(made.interface.features), "p": 2, "novelty": 1}
    assert made.interface.states == ("ok", "worn")
    assert made.interface.history_inputs == ("history.vib_trend",)
    assert made.interface.context_inputs == COLUMNS[4:]
    assert made.interface.head_reads == ("temp", "vib")
    assert set(decision.features()) <= set(made.interface.features)


def test_the_head_gets_its_columns_in_the_order_it_was_trained_on(decision: Decision) -> None:
    """The whole graph gives what the head gives for columns picked by name from features and slow inputs."""
    made = exported_head()
    rng = np.random.default_rng(5)
    windows = {n: rng.normal(2, 1, (9, decision.samples(n))).astype(np.float32) for n in decision.signals}
    history = rng.normal(0, 2, (9, 1)).astype(np.float32)
    context = rng.normal(0, 2, (9, 3)).astype(np.float32)
    features, p = open_session(made.graph).run(
        ["features", "p"], {**windows, "history": history, "context": context}
    )
    by_name = {name: features[:, i] for i, name in enumerate(made.interface.features)}
    by_name |= {"history.vib_trend": history[:, 0]}
    by_name |= {name: context[:, i] for i, name in enumerate(made.interface.context_inputs)}
    x = np.stack([by_name[name] for name in COLUMNS], axis=1)
    assert np.array_equal(open_session(made.head).run(["p"], {"features": x})[0], p)


def test_parity_is_reported_over_probe_rows_and_windows() -> None:
    """No label flips, differences of float32's size, and as many rows as were compared."""
    for kind in ("linear", "mlp", "tree"):
        parity = exported_head(kind).parity
        assert parity["label_flips"] == 0
        assert parity["max_abs"] < 1e-6
        assert parity["n"] == 300 + 1 + 2 + 7 + 64


def test_given_windows_are_compared_too(decision: Decision, trained: Trained) -> None:
    """Real windows count beside the random ones."""
    windows = pump_examples(decision, n=60, windows=True).windows
    assert graph_parity(decision, trained, exported_head(), windows)["n"] == 74 + 60


_BUILD = """
import sys
from worlds.bundles import decision_of
from worlds.heads import exported_head
sys.stdout.buffer.write(exported_head().graph)
"""


def test_the_same_bytes_from_another_folder_and_process(tmp_path: Path) -> None:
    """Exported in a fresh process, elsewhere, with another hash seed: the same bytes, no trace of it."""
    script = tmp_path / "build.py"
    script.write_text(_BUILD)
    environment = {"PYTHONPATH": str(TESTS), "PYTHONHASHSEED": "7", "HOME": str(tmp_path), "TZ": "Asia/Tokyo"}
    run = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=True,
        timeout=300,
    )
    graph = exported_head().graph
    assert run.stdout == graph
    for word in (str(tmp_path), str(TESTS), sys.prefix, "by hand"):
        assert word.encode() not in graph


def test_a_head_that_flips_a_label_is_refused(decision: Decision, trained: Trained) -> None:
    """One row of many on which onnxruntime says otherwise than the library is enough, and is counted."""
    p = trained.probe_p.copy()
    p[7] = p[7, ::-1]
    with pytest.raises(BundleError, match=r"head 'linear'.*1 of 300 labels flip.*expected none") as refused:
        export(decision, replace(trained, probe_p=p))
    assert "offer another" in str(refused.value)


def test_a_head_whose_probabilities_differ_is_refused(decision: Decision, trained: Trained) -> None:
    """The same labels with a probability off by two tenths of a thousand are refused, with the figure."""
    p = trained.probe_p + np.array([2e-4, -2e-4]) * np.sign(trained.probe_p[:, :1] - 0.5)
    with pytest.raises(BundleError, match=r"0 of \d+ labels flip.*difference of 0\.0002"):
        head_parity(replace(trained, probe_p=p), trained.head)


def test_a_tie_is_no_flip_and_no_number_is_a_refusal() -> None:
    """Equal probabilities may come out in either order; a probability that is no number never passes."""
    tied = np.array([[0.5, 0.5]])
    assert compare(tied, np.array([[0.5 - 1e-8, 0.5 + 1e-8]]), "here")["label_flips"] == 0
    with pytest.raises(BundleError, match="difference of nan"):
        compare(tied, np.array([[np.nan, 0.5]], dtype=np.float32), "here")


def test_a_graph_that_picks_other_columns_is_refused(decision: Decision, trained: Trained) -> None:
    """The whole graph is compared with front and head apart: two columns exchanged in the glue are found."""
    made = exported_head()
    swapped = (COLUMNS[1], COLUMNS[0], *COLUMNS[2:])
    wrong = replace(made, graph=join(made.front, made.head, made.interface, swapped))
    with pytest.raises(BundleError, match=r"graph of 'linear' against front and head apart"):
        graph_parity(decision, trained, wrong)


def test_a_graph_whose_novelty_differs_is_refused(decision: Decision, trained: Trained) -> None:
    """A head that calls other windows novel is found, though labels and probabilities agree."""
    made = exported_head()
    model = onnx.load_from_string(made.head)
    limit = next(t for t in model.graph.initializer if t.name == "limit")
    limit.CopyFrom(numpy_helper.from_array(np.full(1, 1e-3, np.float32), "limit"))
    strict = join(made.front, model.SerializeToString(), made.interface, made.columns)
    with pytest.raises(BundleError, match=r"batch \d+: novelty"):
        graph_parity(decision, trained, replace(made, graph=strict))


def test_a_foreign_operator_in_a_head_is_refused(decision: Decision, trained: Trained) -> None:
    """Only standard operators reach a bundle."""

    def evil(model: Any) -> None:
        model.opset_import.add(domain="com.example", version=1)
        model.graph.node.append(helper.make_node("Evil", ["features"], ["y"], domain="com.example"))

    with pytest.raises(BundleError, match=r"not standard.*com\.example"):
        export(decision, changed(trained, evil))


def test_another_operator_set_is_refused(decision: Decision, trained: Trained) -> None:
    """A head written for another operator set would change its meaning when joined."""

    def old(model: Any) -> None:
        model.opset_import[0].version = 17

    with pytest.raises(BundleError, match=r"head 'linear': operator set ai\.onnx; expected 18; found 17"):
        export(decision, changed(trained, old))


def test_what_is_no_graph_is_refused(decision: Decision, trained: Trained) -> None:
    """Bytes that are no graph are refused in words."""
    with pytest.raises(BundleError, match="head 'linear': not a valid ONNX graph"):
        export(decision, replace(trained, head=b"not a graph"))


def test_a_head_for_another_decision_is_refused(trained: Trained) -> None:
    """A head belongs to the very decision file it was trained for."""
    other = decision_of(revision=2)
    with pytest.raises(BundleError, match=r"trained for another decision.*Train it again"):
        export(other, trained)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"columns": (*COLUMNS, "vib.rms")}, "columns; expected some, each once"),
        ({"columns": (*COLUMNS[:-1], "nothing.rms")}, "reads what the graph does not give.*nothing"),
        ({"signals": ("vib",)}, r"inputs; expected \['features', 'vib'\]; found \['features'\]"),
        ({"states": ("ok", "bad")}, r"states; expected .*worn"),
    ],
)
def test_a_head_that_does_not_fit_its_words_is_refused(
    decision: Decision, trained: Trained, changes: dict[str, Any], words: str
) -> None:
    """Columns, signals and states must be those of the graph and of the decision."""
    probe_x = np.zeros((300, len(changes.get("columns", COLUMNS))), np.float32)
    with pytest.raises(BundleError, match=words):
        export(decision, replace(trained, probe_x=probe_x, **changes))


def test_a_head_of_raw_windows_reads_them_by_name(decision: Decision) -> None:
    """A head with no columns is fed the same windows as the front, also where its inner names collide."""
    weights = {"w": np.array([[0.3, -0.2]], np.float32), "axis": np.array([1], np.int64)}
    nodes = [
        helper.make_node("IsNaN", ["vib"], ["temp"]),  # an inner value named as another signal
        helper.make_node("Where", ["temp", "zero", "vib"], ["known"]),
        helper.make_node("ReduceMean", ["known", "axis"], ["m"], keepdims=1),
        helper.make_node("MatMul", ["m", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"], axis=1),
    ]
    weights["zero"] = np.zeros(1, np.float32)
    n = decision.samples("vib")
    head = model_of(nodes, weights, n, 2, source="vib")
    rng = np.random.default_rng(0)
    windows = rng.normal(0, 3, (40, n)).astype(np.float32)
    z = windows.astype(float).mean(axis=1, keepdims=True) @ weights["w"].astype(float)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    raw = replace(
        trained_head(decision, COLUMNS),
        family="cnn",
        features=(),
        columns=(),
        signals=("vib",),
        head=head,
        probe_x=np.zeros((40, 0), np.float32),
        probe_p=e / e.sum(axis=1, keepdims=True),
        probe_windows={"vib": windows},
    )
    made = export(decision, raw)
    assert made.interface.history_inputs == made.interface.context_inputs == ()
    assert made.interface.head_reads == ("vib",)
    assert made.parity["n"] == 40 + 74
    audit_graph(made.graph)


@pytest.mark.parametrize("family", ["lda", "cnn"])
def test_signals_may_be_called_as_operators_are(family: str) -> None:
    """A column 'mean' or 'clamp', a vibration 'v1': graphs call their values so, too."""
    import pandas as pd

    from aiotkit.lab.assemble import from_frames
    from aiotkit.lab.quick import decision_from
    from aiotkit.lab.recipe import recipe
    from aiotkit.lab.train import train

    names = ["mean", "abs", "clamp", "where", "v1", "e0", "w2"]
    rng = np.random.default_rng(1)
    at = pd.date_range("2026-03-02", periods=40 * 64, freq="min", tz="UTC")
    bad = np.arange(len(at)) // 64 % 3 == 0
    telemetry = pd.DataFrame({n: rng.normal(5 + 3 * bad, 1) for n in names}).assign(time=at)
    labels = pd.DataFrame({"time": at[63::64], "state": np.where(bad[63::64], "worn", "healthy")})
    said = {"cost_act": 10, "cost_miss": 50, "horizon_s": 600.0, "length_s": 3840.0, "every_s": 3840.0}
    decision = decision_from(telemetry.assign(machine="m"), "named", **said)
    assert set(decision.signals) == set(names)
    telemetry, labels = telemetry.assign(machine="m"), labels.assign(machine="m")
    given = from_frames(telemetry, labels, decision, names=recipe(decision, "plain"), windows=True)
    training = train(given, decision, families=(family,), folds=2, seed=1, audited=False)
    made = export(decision, training.trained, given.windows)
    assert made.parity["label_flips"] == 0
