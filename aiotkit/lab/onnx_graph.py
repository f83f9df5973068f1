"""A small builder of ONNX graphs: heads are written node by node, exactly and in the same bytes each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from aiotkit.lab.features import OPSET, canonical_graph

ML_DOMAIN, ML_OPSET = "ai.onnx.ml", 3
#: magnitudes beyond it (infinity, NaN) are unknown
LARGEST = float(np.finfo(np.float32).max)


class Graph:
    """Nodes and weights of a graph in the making.

    Values are named by number, with a stroke that no signal's name has. Arithmetic on columns is done in
    float64: a column may be a counter in the millions of which only the last digits matter.
    """

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._inputs: dict[str, int] = {}

    def input(self, name: str, size: int) -> str:
        """Declare an input float32 ``[batch, size]`` (once; the same again is fine)."""
        self._inputs[name] = size
        return name

    def constant(self, values: NDArray[Any]) -> str:
        """A weight."""
        name = f"w/{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def number(self, value: float) -> str:
        """A float64 scalar."""
        return self.constant(np.array(value, dtype=np.float64))

    def op(self, kind: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> str:
        """Add a node; returns its (last) output's name."""
        names = [f"v/{len(self._nodes)}_{i}" if i else f"v/{len(self._nodes)}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names[-1]

    def to64(self, value: str) -> str:
        """As float64."""
        return self.op("Cast", value, to=TensorProto.DOUBLE)

    def to32(self, value: str) -> str:
        """As float32."""
        return self.op("Cast", value, to=TensorProto.FLOAT)

    def columns(self, value: str, which: NDArray[np.int64]) -> str:
        """Some columns of ``[batch, n]``."""
        return self.op("Gather", value, self.constant(np.asarray(which, dtype=np.int64)), axis=1)

    def embed(self, model: Any, given: Mapping[str, str], wanted: str) -> str:
        """Put another graph's nodes in here; returns the name its output ``wanted`` has got."""
        prefix = f"e/{len(self._nodes)}_"
        names = dict(given)

        def renamed(name: str) -> str:
            return names.setdefault(name, prefix + name) if name else ""

        for weight in model.graph.initializer:
            copy = onnx.TensorProto()
            copy.CopyFrom(weight)
            copy.name = renamed(weight.name)
            self._weights.append(copy)
        for node in model.graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = ""
            copy.input[:] = [renamed(n) for n in node.input]
            copy.output[:] = [renamed(n) for n in node.output]
            self._nodes.append(copy)
        return renamed(wanted)

    def model(self, outputs: Mapping[str, tuple[str, int]]) -> bytes:
        """The graph's bytes. ``outputs``: name -> (value, columns); they are cast to float32."""
        nodes, weights = list(self._nodes), list(self._weights)
        for name, (value, _) in outputs.items():
            nodes.append(helper.make_node("Cast", [value], [name], to=TensorProto.FLOAT))
        graph = helper.make_graph(
            nodes,
            "head",
            [_floats(name, size) for name, size in self._inputs.items()],
            [_floats(name, size) for name, (_, size) in outputs.items()],
            weights,
        )
        versions = [helper.make_opsetid("", OPSET)]
        if any(node.domain == ML_DOMAIN for node in nodes):
            versions.append(helper.make_opsetid(ML_DOMAIN, ML_OPSET))
        return canonical_graph(helper.make_model(graph, opset_imports=versions))


def _floats(name: str, size: int) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])


def run_graph(
    head: bytes, given: Mapping[str, NDArray[np.float32]], wanted: tuple[str, ...]
) -> list[NDArray[np.float32]]:
    """Outputs of a graph on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(head, options, providers=["CPUExecutionProvider"])
    return [np.asarray(found) for found in session.run(list(wanted), dict(given))]
