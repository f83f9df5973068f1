"""Variants in integers: only of the head, only where it can be done, and the same bytes each time."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.desk
onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from worlds.bundles import decision_of  # noqa: E402
from worlds.heads import COLUMNS, exported_head, pump_examples, trained_head  # noqa: E402

from aiotkit.core.errors import DataError  # noqa: E402
from aiotkit.lab.features import canonical_graph  # noqa: E402
from aiotkit.release.graph import audit_graph  # noqa: E402
from aiotkit.release.parity import open_session  # noqa: E402
from aiotkit.release.quantize import (  # noqa: E402
    DYNAMIC,
    FLOAT32,
    PER_CHANNEL,
    PER_TENSOR,
    Variant,
    calibration_of,
    variants,
)


@pytest.fixture(scope="module")
def calibration() -> dict[str, np.ndarray]:
    return {"features": trained_head(decision_of(), COLUMNS, kind="mlp").probe_x}


@pytest.fixture(scope="module")
def made(calibration: dict[str, np.ndarray]) -> dict[str, Variant]:
    return {v.name: v for v in variants(exported_head("mlp"), calibration)}


def operators(graph: bytes | None) -> set[str]:
    assert graph is not None
    return {node.op_type for node in onnx.load_from_string(graph).graph.node}


def test_a_network_is_quantized_in_three_ways(made: dict[str, Variant]) -> None:
    """Dynamic, static per tensor and per channel, each smaller and each in its own operators."""
    assert list(made) == [FLOAT32, DYNAMIC, PER_TENSOR, PER_CHANNEL]
    whole = made[FLOAT32].graph
    assert whole == exported_head("mlp").graph
    for name in (DYNAMIC, PER_TENSOR, PER_CHANNEL):
        assert len(made[name].graph or b"") < 0.7 * len(whole or b""), name
        audit_graph(made[name].graph or b"")
    assert "MatMulInteger" in operators(made[DYNAMIC].head)
    assert not {"MatMul", "Gemm"} & operators(made[DYNAMIC].head)  # every layer, however it is written
    for name in (PER_TENSOR, PER_CHANNEL):
        assert {"QuantizeLinear", "DequantizeLinear"} <= operators(made[name].head)


def scales(head: bytes | None) -> set[int]:
    """Sizes of the scales of weights."""
    assert head is not None
    graph = onnx.load_from_string(head).graph
    sizes = {t.name: int(np.prod(t.dims)) for t in graph.initializer}
    return {sizes[n.input[1]] for n in graph.node if n.op_type == "DequantizeLinear"}


def test_per_channel_has_a_scale_a_channel(made: dict[str, Variant]) -> None:
    """One scale a tensor, or one for each of the 64 and 2 outputs of a layer."""
    assert scales(made[PER_TENSOR].head) == {1}
    assert scales(made[PER_CHANNEL].head) == {1, 2, 64}


def test_a_quantized_head_says_almost_the_same(made: dict[str, Variant], calibration: object) -> None:
    """Probabilities move a little, and do move: the weights are integers now."""
    assert isinstance(calibration, dict)
    given = {"features": calibration["features"]}
    exact = open_session(made[FLOAT32].head or b"").run(["p"], given)[0]
    for name in (DYNAMIC, PER_TENSOR, PER_CHANNEL):
        found = open_session(made[name].head or b"").run(["p"], given)[0]
        assert 0 < np.abs(found - exact).max() < 0.15, name


def test_the_front_and_novelty_are_never_quantized(made: dict[str, Variant]) -> None:
    """Features and novelty come out of every variant bit by bit as out of float32."""
    rng = np.random.default_rng(1)
    decision = decision_of()
    feeds = {n: rng.normal(2, 1, (5, decision.samples(n))).astype(np.float32) for n in decision.signals}
    feeds |= {"history": np.zeros((5, 1), np.float32), "context": np.zeros((5, 3), np.float32)}
    exact = open_session(made[FLOAT32].graph or b"").run(["features", "novelty"], feeds)
    for name in (DYNAMIC, PER_TENSOR, PER_CHANNEL):
        found = open_session(made[name].graph or b"").run(["features", "novelty"], feeds)
        assert all(np.array_equal(a, b) for a, b in zip(exact, found, strict=True)), name


def test_quantizing_again_gives_the_same_bytes(
    made: dict[str, Variant], calibration: dict[str, np.ndarray]
) -> None:
    """The same head and the same rows give the same graphs."""
    again = variants(exported_head("mlp"), calibration)
    assert [v.graph for v in again] == [v.graph for v in made.values()]


def test_a_tree_is_not_applicable_and_says_why(calibration: dict[str, np.ndarray]) -> None:
    """A head of trees has no weighted sums: float32 stays, three answers name the operator."""
    base, *others = variants(exported_head("tree"), calibration)
    assert base.graph == exported_head("tree").graph
    for variant in others:
        assert variant.exported is None
        assert "not applicable: TreeEnsembleClassifier cannot be quantized" in variant.note


def test_a_small_linear_head_is_not_applicable_and_says_why(calibration: dict[str, np.ndarray]) -> None:
    """Fourteen weights are fewer than the nodes that would quantize them."""
    for variant in variants(exported_head("linear"), calibration)[1:]:
        assert variant.graph is None
        assert "only 14 weights (56 bytes)" in variant.note


def test_sums_in_float64_are_not_applicable_and_say_why(calibration: dict[str, np.ndarray]) -> None:
    """A head that computes in float64 does so on purpose."""
    made = exported_head("mlp")
    exact = onnx.load_from_string(made.head)
    for tensor in exact.graph.initializer:
        if tensor.name.startswith(("w", "b")):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(float), tensor.name))
    first = next(i for i, n in enumerate(exact.graph.node) if n.op_type == "MatMul")
    exact.graph.node[first].input[0] = "wide"
    exact.graph.node.insert(first, helper.make_node("Cast", ["known"], ["wide"], to=TensorProto.DOUBLE))
    last = next(n for n in exact.graph.node if n.op_type == "Softmax")
    last.output[0] = "q"
    exact.graph.node.append(helper.make_node("Cast", ["q"], ["p"], to=TensorProto.FLOAT))
    wide = made.with_head(canonical_graph(exact), FLOAT32)
    for variant in variants(wide, calibration)[1:]:
        assert variant.note == "not applicable: the head's sums are kept exact, in float64"


def test_what_the_quantizer_refuses_is_not_applicable_in_its_words() -> None:
    """Rows that do not fit the head end as an answer, not as a crash."""
    wrong = {"features": np.zeros((8, 3), np.float32)}
    found = {v.name: v for v in variants(exported_head("mlp"), wrong)}
    assert found[DYNAMIC].graph is not None
    assert "not applicable: onnxruntime cannot quantize it; found" in found[PER_TENSOR].note


def test_calibration_rows_are_drawn_from_the_examples() -> None:
    """At most as many rows as asked for, in the head's columns, the same for the same seed."""
    examples = pump_examples(decision_of())
    drawn = calibration_of(exported_head("mlp"), examples, seed=3, rows=50)
    assert {name: values.shape for name, values in drawn.items()} == {"features": (50, len(COLUMNS))}
    again = calibration_of(exported_head("mlp"), examples, seed=3, rows=50)
    assert np.array_equal(drawn["features"], again["features"], equal_nan=True)
    known = {row.tobytes() for row in examples.with_columns(COLUMNS).x}
    assert all(row.tobytes() in known for row in drawn["features"])
    with pytest.raises(DataError, match=r"column 'vib\.rms' is missing"):
        calibration_of(exported_head("mlp"), examples.with_columns(["temp.mean"]), seed=3)
