"""Variants of a head in eight-bit integers, where that is possible; the front is never touched.

Only weighted sums (``MatMul``, ``Gemm``, ``Conv``) on the way to ``p`` are quantized; imputation, scaling,
calibration and all of ``novelty`` stay as they were trained. Which variant is worth anything is decided by
measurement (``release.bench``) and by the decisions it changes (``release.promote``). "Not applicable" is
an answer and says why.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.quantization.calibrate import CalibrationMethod

from aiotkit.bundle.interface import FEATURES, PROBABILITIES
from aiotkit.core.errors import BundleError
from aiotkit.core.features import NOVELTY
from aiotkit.lab.features import canonical_graph
from aiotkit.release.export import Exported

if TYPE_CHECKING:
    from aiotkit.lab.examples import Examples

#: operators whose weights become integers
WEIGHTED = ("Conv", "Gemm", "MatMul")
#: fewer weights than this take less room than the nodes that would quantize them
FEWEST_WEIGHTS = 256
#: rows that a static quantization looks at, in batches of
CALIBRATION_ROWS, _BATCH = 512, 64
FLOAT32 = "float32"
DYNAMIC, PER_TENSOR, PER_CHANNEL = "int8 dynamic", "int8 static per tensor", "int8 static per channel"
Feeds = Mapping[str, NDArray[np.float32]]
_Way = Callable[[Path, Path], None]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to write the head; ``exported`` is None where it is not applicable, and ``note`` says why."""

    name: str
    exported: Exported | None
    note: str = ""

    @property
    def graph(self) -> bytes | None:
        """The whole graph."""
        return None if self.exported is None else self.exported.graph

    @property
    def head(self) -> bytes | None:
        """The head alone."""
        return None if self.exported is None else self.exported.head


def calibration_of(
    exported: Exported, examples: Examples, *, seed: int, rows: int = CALIBRATION_ROWS
) -> Feeds:
    """Rows of the training examples as the head's inputs, at most ``rows``, drawn by ``seed``.

    Raises:
        DataError: the examples lack a column.
    """
    names = {i.name for i in onnx.load_from_string(exported.head).graph.input}
    chosen = np.random.default_rng(seed).permutation(len(examples))[:rows]
    feeds = {name: np.asarray(examples.windows[name][np.sort(chosen)]) for name in sorted(names - {FEATURES})}
    if exported.columns:
        feeds[FEATURES] = examples.with_columns(exported.columns).x[np.sort(chosen)]
    return feeds


def variants(exported: Exported, calibration: Feeds) -> list[Variant]:
    """``float32`` as it is, and the head quantized in three ways.

    The same head and calibration give the same bytes.

    Args:
        exported: in float32.
        calibration: input of the head -> ``[n, …]`` float32, as the head will see them (NaN where unknown).
    """
    made = [Variant(FLOAT32, exported, "as trained")]
    head, nodes, why = _prepare(exported.head)
    ways: dict[str, _Way] = {
        DYNAMIC: lambda given, out: quantize_dynamic(
            given, out, op_types_to_quantize=list(WEIGHTED), nodes_to_quantize=[*nodes, *_rewritten(nodes)]
        ),
        PER_TENSOR: lambda given, out: _static(given, out, nodes, calibration, per_channel=False),
        PER_CHANNEL: lambda given, out: _static(given, out, nodes, calibration, per_channel=True),
    }
    for name, way in ways.items():
        made.append(Variant(name, None, why) if why else _variant(exported, name, head, way))
    return made


def _rewritten(nodes: Sequence[str]) -> list[str]:
    """What the dynamic quantizer calls the product that it makes of a ``Gemm``."""
    return [f"{name}_MatMul" for name in nodes]


def _prepare(head: bytes) -> tuple[bytes, list[str], str]:
    """The head with named nodes, which of them to quantize, and why there are none, in words."""
    model = onnx.load_from_string(head)
    for i, node in enumerate(model.graph.node):
        node.name = f"n{i}"
    single = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    weights = {t.name: int(np.prod(t.dims)) for t in single}
    guarded = _behind(model.graph, NOVELTY)
    nodes = [
        node
        for node in model.graph.node
        if node.op_type in WEIGHTED and node.domain == "" and node.name not in guarded
    ]
    nodes = [node for node in nodes if any(name in weights for name in node.input[:2])]
    count = sum(weights.get(name, 0) for node in nodes for name in node.input[:2])
    kinds = sorted({n.op_type for n in model.graph.node if n.domain == "ai.onnx.ml"})
    if not nodes and any(n.op_type in WEIGHTED and n.name not in guarded for n in model.graph.node):
        return head, [], "not applicable: the head's sums are kept exact, in float64"
    if not nodes:
        what = ", ".join(kinds) or "its operators"
        return head, [], f"not applicable: {what} cannot be quantized; the head has no weighted sums"
    if count < FEWEST_WEIGHTS:
        return (
            head,
            [],
            f"not applicable: only {count} weights ({4 * count} bytes) to quantize; "
            "the nodes that would do it take more room and time",
        )
    names = [node.name for node in nodes]
    _set_apart(model.graph, set(names))
    return model.SerializeToString(deterministic=True), names, ""


def _set_apart(graph: Any, names: set[str]) -> None:
    """Give nodes that will be quantized an input of their own where others read it too.

    A static quantization rounds a value for everyone who reads it: also for ``novelty``, which is not to
    change.
    """
    shared = {value for node in graph.node if node.name not in names for value in node.input}
    nodes, copies = list(graph.node), set()
    del graph.node[:]
    for node in nodes:
        if node.name in names and node.input[0] in shared:
            value = node.input[0]
            if value not in copies:
                copies.add(value)
                graph.node.append(helper.make_node("Identity", [value], [f"{value}/apart"], f"apart/{value}"))
            node.input[0] = f"{value}/apart"
        graph.node.append(node)


def _behind(graph: Any, output: str) -> set[str]:
    """Names of the nodes that an output depends on."""
    made_by = {value: node for node in graph.node for value in node.output}
    waiting, seen = [output], set()
    while waiting:
        node = made_by.get(waiting.pop())
        if node is not None and node.name not in seen:
            seen.add(node.name)
            waiting += list(node.input)
    return seen


def _variant(exported: Exported, name: str, head: bytes, way: _Way) -> Variant:
    try:
        return Variant(name, exported.with_head(_quantized(head, way), name))
    except BundleError as error:
        return Variant(name, None, f"not applicable: {error}")


def _quantized(head: bytes, way: _Way) -> bytes:
    """The head's canonical bytes in integers; ``BundleError`` where onnxruntime refuses."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, out = Path(folder) / "given.onnx", Path(folder) / "head.onnx"
        given.write_bytes(head)  # a file: the quantizer alters a model that it is handed
        try:
            way(given, out)
            return canonical_graph(_standard(onnx.load(out)))
        except Exception as error:  # the quantizer's refusals share no class
            words = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise BundleError("onnxruntime cannot quantize it", found=words) from error


def _static(given: Path, out: Path, nodes: Sequence[str], calibration: Feeds, *, per_channel: bool) -> None:
    quantize_static(
        given,
        out,
        _Rows(calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(WEIGHTED),
        nodes_to_quantize=list(nodes),
        per_channel=per_channel,
        calibrate_method=CalibrationMethod.MinMax,
    )


class _Rows(CalibrationDataReader):  # type: ignore[misc]
    """Calibration rows in batches."""

    def __init__(self, feeds: Feeds) -> None:
        n = len(next(iter(feeds.values())))
        self._left: Iterator[dict[str, NDArray[np.float32]]] = iter(
            [
                {k: np.ascontiguousarray(v[i : i + _BATCH]) for k, v in feeds.items()}
                for i in range(0, n, _BATCH)
            ]
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch; None at the end."""
        return next(self._left, None)


def _standard(model: Any) -> Any:
    """Without the operator sets that the quantizer declares and does not use."""
    used = {"" if n.domain == "ai.onnx" else n.domain for n in model.graph.node} | {""}
    kept = [o for o in model.opset_import if ("" if o.domain == "ai.onnx" else o.domain) in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    assert PROBABILITIES in {o.name for o in model.graph.output}
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user the advice to optimise first: that would fuse across the head's parts."""
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
