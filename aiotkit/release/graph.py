"""What a graph must be before it is packed: one self-contained file of standard operators."""

from __future__ import annotations

import onnx

from aiotkit.core.errors import BundleError

#: operator sets that onnxruntime brings itself: standard ONNX and its classical models
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
MAX_GRAPH = 64 << 20


def audit_graph(graph: bytes) -> None:
    """Refuse a graph with foreign operators, weights outside the file, or traces of where it was made.

    Raises:
        BundleError: naming what was found.
    """
    if len(graph) > MAX_GRAPH:
        raise BundleError("graph.onnx", expected=f"at most {MAX_GRAPH} bytes", found=str(len(graph)))
    try:
        model = onnx.load_from_string(graph)
        onnx.checker.check_model(model)
    except Exception as error:
        raise BundleError("graph.onnx: not a valid ONNX graph", found=str(error)[:200]) from error
    foreign = sorted({o.domain for o in model.opset_import} - DOMAINS)
    foreign += sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain not in DOMAINS})
    if foreign or model.functions:
        raise BundleError(
            "graph.onnx: operators that are not standard",
            expected=f"domains {sorted(DOMAINS - {''})}",
            found=", ".join(foreign) or f"{len(model.functions)} functions",
        )
    outside = [t.name for t in model.graph.initializer if t.external_data]
    if outside:
        raise BundleError("graph.onnx: weights outside the file", found=", ".join(outside))
    if model.metadata_props or any(node.metadata_props or node.doc_string for node in model.graph.node):
        raise BundleError(
            "graph.onnx: metadata of the exporter (stack traces, paths)",
            do="Pass the graph through lab.features.canonical_graph.",
        )
