"""The test bundle with a model in its graph, without the workbench.

``tests/data/bearing_model/graph.onnx`` is the front of ``tests/data/bearing`` with a head written by hand:

- ``p(worn) = 1 / (1 + exp(-z))``, ``z = vib.rms - 9 + (load - 80) / 50 + 2 · cleaning``, with 2 in place of
  an unknown ``vib.rms``, 80 for the load and 0 for the mode; ``hot`` and ``vib_trend`` are not used for it;
- ``novelty = |temp.mean - 60| / 40``, nothing put in place of an unknown temperature: it can be NaN;
- ``features`` ends with history and context as they were fed, so that tests see what reached the graph.

``python tests/worlds/model_bundles.py`` makes it again (needs the workbench).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from worlds.bundles import bundle_files, decision_of

from aiotkit.bundle.golden import golden_files
from aiotkit.bundle.interface import Interface, interface_of
from aiotkit.release.cases import golden_cases
from aiotkit.release.clear_cases import clear_cases

GRAPH = Path(__file__).parent.parent / "data" / "bearing_model" / "graph.onnx"
HISTORY = ("history.hot", "history.vib_trend")
CONTEXT = ("context.load", "context.mode=production", "context.mode=cleaning")
ECHO = tuple(f"vib.x_fed_{name}" for name in (*HISTORY, *CONTEXT))


def model_interface(**changes: Any) -> Interface:
    """The interface of the graph; ``changes`` replace its fields."""
    decision = decision_of()
    made = interface_of(
        decision,
        states=("ok", "worn"),
        features=(*decision.features(), *ECHO),
        history=HISTORY,
        context=CONTEXT,
        novelty=True,
    )
    return Interface.model_validate(made.model_dump() | changes)


@cache
def _graph() -> bytes:
    return GRAPH.read_bytes()


def model_files(*, interface: Interface | None = None, **overrides: Any) -> dict[str, bytes]:
    """Files of the test bundle with the model, without golden cases; ``overrides`` as in ``bundle_files``."""
    return {
        "decision.json": decision_of(**overrides).canonical(),
        "interface.json": (interface or model_interface()).canonical(),
        "graph.onnx": _graph(),
    }


def model_bundle_files() -> dict[str, bytes]:
    """The same with golden cases."""
    from aiotkit.bundle.engine import Engine

    files = model_files()
    cases = clear_cases(Engine(files), golden_cases(decision_of(), model=True))
    return files | golden_files(files, cases)


def make_graph() -> bytes:
    """The graph's bytes, from the front of the test bundle."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from aiotkit.lab.features import canonical_graph

    model = onnx.load_from_string(bundle_files()["graph.onnx"])
    graph, names = model.graph, decision_of().features()
    for node in graph.node:
        for i, name in enumerate(node.output):
            if name == "features":
                node.output[i] = "front"
    del graph.output[:]

    def info(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])

    def column(source: str, i: int, name: str) -> list[Any]:
        graph.initializer.append(numpy_helper.from_array(np.array([i], np.int64), f"{name}_at"))
        return [helper.make_node("Gather", [source, f"{name}_at"], [name], axis=1)]

    def known(name: str, otherwise: float) -> list[Any]:
        graph.initializer.append(numpy_helper.from_array(np.array([otherwise], np.float32), f"{name}_mean"))
        return [
            helper.make_node("IsNaN", [name], [f"{name}_bad"]),
            helper.make_node("Where", [f"{name}_bad", f"{name}_mean", name], [f"{name}_known"]),
        ]

    graph.input.extend([info("history", len(HISTORY)), info("context", len(CONTEXT))])
    graph.output.extend([info("features", len(names) + len(ECHO)), info("p", 2), info("novelty", 1)])
    for name, value in {
        "z9": -9.0,
        "l80": -80.0,
        "l50": 50.0,
        "t60": -60.0,
        "t40": 40.0,
        "two": 2.0,
        "one": 1.0,
    }.items():
        graph.initializer.append(numpy_helper.from_array(np.array([value], np.float32), name))
    graph.node.extend(
        [
            *column("front", names.index("vib.rms"), "rms"),
            *column("front", names.index("temp.mean"), "warmth"),
            *column("context", 0, "load"),
            *column("context", 2, "cleaning"),
            *known("rms", 2.0),
            *known("load", 80.0),
            *known("cleaning", 0.0),
            helper.make_node("Add", ["rms_known", "z9"], ["z_rms"]),
            helper.make_node("Add", ["load_known", "l80"], ["load_off"]),
            helper.make_node("Div", ["load_off", "l50"], ["z_load"]),
            helper.make_node("Mul", ["cleaning_known", "two"], ["z_mode"]),
            helper.make_node("Sum", ["z_rms", "z_load", "z_mode"], ["z"]),
            helper.make_node("Sigmoid", ["z"], ["worn"]),
            helper.make_node("Sub", ["one", "worn"], ["ok"]),
            helper.make_node("Concat", ["ok", "worn"], ["p"], axis=1),
            helper.make_node("Add", ["warmth", "t60"], ["warmth_off"]),
            helper.make_node("Abs", ["warmth_off"], ["warmth_far"]),
            helper.make_node("Div", ["warmth_far", "t40"], ["novelty"]),
            helper.make_node("Concat", ["front", "history", "context"], ["features"], axis=1),
        ]
    )
    return canonical_graph(model)


if __name__ == "__main__":
    GRAPH.parent.mkdir(exist_ok=True)
    GRAPH.write_bytes(make_graph())
