"""Graphs written by hand, byte by byte (without onnx), and bundles whose model falls ill on a strong window.

``well`` answers any window. On a window of ``vib`` above ``SICK`` the others: ``nan`` answers NaN, ``raises``
fails inside, ``hangs`` loops for years, ``novel`` calls it unlike training, ``memory`` asks for a petabyte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from worlds.bundles import decision_of, trust_and_keys

from aiotkit.bundle.golden import GoldenCase, golden_files
from aiotkit.bundle.interface import interface_of
from aiotkit.bundle.unsigned import make_unsigned
from aiotkit.core.decision import Decision
from aiotkit.core.records import DecisionInput, Reading

#: a window whose largest value lies above this makes a model ill
SICK = 50.0
_FLOAT, _INT64, _BOOL = 1, 7, 9
_TYPES = {np.dtype(np.float32): _FLOAT, np.dtype(np.int64): _INT64, np.dtype(np.bool_): _BOOL}


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protocol buffer: a whole number, or bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def tensor(name: str, value: Any) -> bytes:
    """TensorProto."""
    array = np.asarray(value)
    dims = b"".join(_field(1, n) for n in array.shape)
    return dims + _field(2, _TYPES[array.dtype]) + _field(8, name) + _field(9, array.tobytes())


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int | bytes) -> bytes:
    """NodeProto; an attribute is a whole number or a graph."""
    data = b"".join(_field(1, n) for n in inputs) + b"".join(_field(2, n) for n in outputs) + _field(4, op)
    for name, value in attributes.items():
        number, kind = (3, 2) if isinstance(value, int) else (6, 5)
        data += _field(5, _field(1, name) + _field(number, value) + _field(20, kind))
    return data


def value(name: str, kind: int, *dims: int | str) -> bytes:
    """ValueInfoProto."""
    shape = b"".join(_field(1, _field(1, n) if isinstance(n, int) else _field(2, n)) for n in dims)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, shape)))


def graph(
    nodes: Sequence[bytes], weights: dict[str, Any], inputs: Sequence[bytes], outputs: Sequence[bytes]
) -> bytes:
    """GraphProto."""
    parts = [*(_field(1, n) for n in nodes), _field(2, "by hand")]
    parts += [_field(5, tensor(name, array)) for name, array in weights.items()]
    return b"".join((*parts, *(_field(11, i) for i in inputs), *(_field(12, o) for o in outputs)))


def model(body: bytes) -> bytes:
    """ModelProto: IR 9, opset 18."""
    return _field(1, 9) + _field(7, body) + _field(8, _field(2, 18))


def _loop_body() -> bytes:
    """Adds nothing to a number, once an iteration."""
    return graph(
        [node("Identity", ["on"], ["on_"]), node("Add", ["x", "x"], ["x_"])],
        {},
        [value("i", _INT64), value("on", _BOOL), value("x", _FLOAT)],
        [value("on_", _BOOL), value("x_", _FLOAT)],
    )


def _illness(ill: str) -> list[bytes]:
    """Nodes from ``sick`` (bool [batch, 1]) to ``ache`` (float [batch, 1], 0 while the model is well)."""
    count = [
        node("Where", ["sick", "many", "one"], ["counts"]),
        node("ReduceMax", ["counts"], ["n"], keepdims=0),
    ]
    return {
        "nan": [node("Where", ["sick", "nan", "zero"], ["ache"])],
        "raises": [node("Where", ["sick", "many", "none"], ["at"]), node("Gather", ["zero", "at"], ["ache"])],
        "hangs": [*count, node("Loop", ["n", "", "nought"], ["ache"], body=_loop_body())],
        "memory": [*count, node("Expand", ["zero", "n1"], ["far"]), node("ReduceMax", ["far"], ["ache"])],
    }.get(ill, [node("Where", ["sick", "zero", "zero"], ["ache"])])


def graph_of(decision: Decision, ill: str, *, told: bool) -> bytes:
    """A graph with ``features`` (vib.max), ``p`` and ``novelty``; if ``told``, of history and context."""
    weights: dict[str, Any] = {
        "axis": np.array([1], np.int64),
        "limit": np.float32(SICK),
        "nan": np.full(1, np.nan, np.float32),
        "zero": np.zeros(1, np.float32),
        "nought": np.float32(0),
        "many": np.array(1 << 50, np.int64),
        "one": np.array(1, np.int64),
        "none": np.array(0, np.int64),
        "rows": np.array([1], np.int64),
        "ok": np.array([[0.999]], np.float32),
        "worn": np.array([[0.001]], np.float32),
        "full_load": np.float32(150),
    }
    nodes = [
        node("ReduceMax", ["vib", "axis"], ["features"], keepdims=1),
        node("Greater", ["features", "limit"], ["sick"]),
        *_illness(ill),
    ]
    if ill == "memory":
        nodes.insert(5, node("Reshape", ["n", "rows"], ["n1"]))
    doubtful = "features" if ill == "novel" else "zero1"
    weights["zero1"] = np.zeros((1, 1), np.float32)
    nodes += [node("Div", [doubtful, "limit"], ["novelty"])]
    if told:  # at a load above 150 kW, or on a rising trend, the bearing is worn
        nodes += [
            node("Gather", ["context", "none1"], ["load"], axis=1),
            node("Greater", ["load", "full_load"], ["loaded"]),
            node("Greater", ["history", "zero"], ["rising"]),
            node("Or", ["loaded", "rising"], ["bad"]),
        ]
        weights["none1"] = np.array([0], np.int64)
    else:
        nodes.append(node("Greater", ["zero1", "limit"], ["bad"]))
    nodes += [
        node("Where", ["bad", "worn", "ok"], ["good_p"]),
        node("Add", ["good_p", "ache"], ["p0"]),
        node("Where", ["bad", "ok", "worn"], ["p1"]),
        node("Concat", ["p0", "p1"], ["p"], axis=1),
    ]
    inputs = [value(name, _FLOAT, "batch", decision.samples(name)) for name in sorted(decision.signals)]
    if told:
        inputs += [value("history", _FLOAT, "batch", 1), value("context", _FLOAT, "batch", 2)]
    outputs = [value(n, _FLOAT, "batch", k) for n, k in (("features", 1), ("p", 2), ("novelty", 1))]
    return model(graph(nodes, weights, inputs, outputs))


def model_decision(**overrides: Any) -> Decision:
    """The decision of these bundles: a model proposes (without vibration nothing does), nobody is asked."""
    plain: dict[str, Any] = {
        "rule": [{"when": {"field": "vib.max", "gt": 99}, "do": "stop"}, {"otherwise": "run"}],
        "gates": [],
        "history": {"trend": {"of": "vib.max", "kind": "slope", "over_s": 3600}},
        "human": None,
        "verify": {"share": 0.0},
    }
    return decision_of(**(plain | overrides))


def model_files(ill: str = "well", *, told: bool = False, **overrides: Any) -> dict[str, bytes]:
    """The files of a bundle with a model; ``overrides`` are keys of the decision file."""
    decision = model_decision(**overrides)
    interface = interface_of(
        decision,
        states=("ok", "worn"),
        novelty=True,
        history=("history.trend",) if told else (),
        context=("context.load", "context.mode=production") if told else (),
    )
    files = {
        "decision.json": decision.canonical(),
        "interface.json": interface.canonical(),
        "graph.onnx": graph_of(decision, ill, told=told),
    }
    return files | golden_files(files, [GoldenCase("healthy", _healthy(decision))])


def _healthy(decision: Decision) -> DecisionInput:
    rng = np.random.default_rng(7)
    at_us = 4_000_000_000_000_000
    windows = {
        name: rng.normal(5, 0.1, decision.samples(name)).astype(np.float32) for name in decision.signals
    }
    context = {"load": Reading(80.0, 1.0), "mode": Reading("production", 1.0), "ambient": Reading(20.0, 1.0)}
    return DecisionInput("pump-1/golden/1", at_us, at_us, windows, context)


def model_archive(counter: int, ill: str = "well", *, told: bool = False, **overrides: Any) -> bytes:
    """A signed bundle with a model; see ``model_files``."""
    files = model_files(ill, told=told, **overrides)
    unsigned = make_unsigned(model_decision(**overrides), files, release_counter=counter)
    return unsigned.archive(trust_and_keys()[1])
