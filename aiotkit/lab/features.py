"""Window features as one graph: torch on the desk, ONNX on the device, and the proof that they agree.

With x_i the n samples of a window (or of a part of it), m their mean and μ_k = Σ(x_i − m)^k / n the central
moments (population, divisor n), a word computes:

===========  =======================================================  ========================
mean         m = Σ x_i / n                                            unit of the signal
std          √μ_2                                                     unit of the signal
min, max     smallest, largest x_i                                    unit of the signal
rms          √(Σ x_i² / n)                                            unit of the signal
p2p          max − min                                                unit of the signal
last         x_n                                                      unit of the signal
q05 … q95    quantiles, linear between samples (Hyndman & Fan 1996)   unit of the signal
slope        least squares: Σ(t_i − t̄)(x_i − m) / Σ(t_i − t̄)²         unit per second
kurtosis     μ_4 / μ_2² (Pearson's; 3 for a Gaussian), 0 if constant  1
crest        max|x_i| / rms, 0 when all are zero                      1
zcr          share of neighbouring samples on different sides of m    1
band_IofN    log10 of the mean power density in the I-th of N bands   1 (of unit²/Hz)
env_IofN     the same of the squared envelope over its mean           1 (of 1/Hz)
===========  =======================================================  ========================

Bands are spaced evenly in the logarithm of frequency, from half a bin (rate / 2n) to half the rate; they
have floors, so that silence is a number; see ``lab.spectra``. Any word followed by ``_JofK`` is computed
from the J-th of K equal parts of the window, whose edges are j·n/K rounded half up.

A window with a sample that is not finite has NaN for every feature of that signal. Where a sum leaves
float32 (beyond 3e38) the feature is not finite, which gates and rules never act on.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aiotkit.bundle.interface import FEATURES, Interface, interface_of
from aiotkit.core.decision import Decision
from aiotkit.core.errors import BundleError
from aiotkit.core.features import STATISTICS
from aiotkit.lab.front import Asked, Front, Words, compute_features, rate_of, statistic_module

__all__ = [
    "Front",
    "canonical_graph",
    "check_parity",
    "compute_features",
    "export_front",
    "export_graph",
    "rate_of",
    "rename_values",
    "statistic_module",
]

#: the ONNX operator set and file version that are written; every runtime since onnxruntime 1.16 reads them
OPSET = 18
IR_VERSION = 9
#: batch sizes at which an export must agree with torch
PARITY_BATCHES = (1, 2, 7, 64)
PARITY_RTOL = 1e-4
PARITY_ATOL = 1e-5
#: how far log10 of a power may differ: a quarter of a percent of the power
PARITY_LOG = 1e-3


class _Positional(nn.Module):
    """A module of named windows with one argument a window: what an exporter can name."""

    def __init__(self, module: nn.Module, inputs: Iterable[str]) -> None:
        super().__init__()
        self.module, self.inputs = module, tuple(inputs)

    def forward(self, *windows: Tensor) -> Tensor:
        return cast(Tensor, self.module(dict(zip(self.inputs, windows, strict=True))))


def export_front(
    decision: Decision, names: Iterable[str] | None = None, words: Words | None = None
) -> tuple[bytes, Interface]:
    """The front as an ONNX graph, and its interface. The same bytes in every folder and process.

    Args:
        decision: gives signals, and the features it reads, which are always there.
        names: further features.
        words: modules of words of one's own; see ``lab.own_words``.

    Raises:
        BundleError: the graph does not compute what torch computes, at some batch size.
        DataError: a name that is no feature of this decision.
    """
    front = Front(decision, names, words).eval()
    interface = interface_of(decision, features=front.names)
    graph = export_graph(front, interface.inputs, FEATURES)
    check_parity(front, graph, interface, decision)
    return graph, interface


def export_graph(module: nn.Module, inputs: Mapping[str, int], output: str) -> bytes:
    """A module of ``{name: [batch, n]}`` as a canonical ONNX graph, for any batch size.

    Args:
        module: in evaluation mode.
        inputs: name -> n, in the order of the graph's inputs.
        output: what to call the result.
    """
    placeholders, placeholder = {n: f"aiotkit_input_{i}" for i, n in enumerate(inputs)}, "aiotkit_output"
    example = tuple(torch.linspace(-1, 1, 3 * n).reshape(3, n) for n in inputs.values())
    batch = torch.export.Dim("batch", min=1)
    with _quiet_exporter():
        program = torch.onnx.export(
            _Positional(module, inputs).eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=list(placeholders.values()),
            output_names=[placeholder],
            dynamic_shapes=(tuple({0: batch} for _ in example),),
            verbose=False,
        )
    assert program is not None
    # the exporter calls values by what it does to them (mean, abs, clamp): so may people their signals
    model = program.model_proto
    outside = {inner: name for name, inner in placeholders.items()} | {placeholder: output}
    rename_values(model.graph, lambda n: outside.get(n, f"i/{n}"))
    return canonical_graph(model)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep torch's remarks about its own insides and about torchvision from the user."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", message=r".*axis name: batch will not be used.*")
            yield
    finally:
        log.setLevel(level)


def canonical_graph(model: onnx.ModelProto) -> bytes:
    """The bytes of a graph without what depends on where it was made.

    Exporters write stack traces with absolute paths into ``metadata_props``; those, doc strings and the
    producer's version are taken out, and the file version is fixed.

    Raises:
        BundleError: the graph keeps weights outside the file.
    """
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version, model.doc_string = "aiotkit", "", ""
    _strip(model)
    for tensor in model.graph.initializer:
        if tensor.external_data:
            raise BundleError(f"graph: weight '{tensor.name}' lies outside the file")
    onnx.checker.check_model(model, full_check=True)
    return cast(bytes, model.SerializeToString(deterministic=True))


def _strip(message: Any) -> None:
    """Clear metadata and doc strings in a protobuf message and everything below it."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for item in value if field.is_repeated else (value,):
                _strip(item)


def check_parity(front: Front, graph: bytes, interface: Interface, decision: Decision) -> None:
    """Refuse a graph that differs from torch at any of ``PARITY_BATCHES``.

    Windows are noise within each signal's range, with constant, zero and NaN ones among them. A feature
    may differ by ``PARITY_RTOL`` of itself plus ``PARITY_ATOL`` of its window's magnitude; log powers by
    ``PARITY_LOG``, the share of crossings by two pairs.

    Raises:
        BundleError: naming the feature and the batch size.
    """
    import onnxruntime as ort

    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(7)
    for batch in PARITY_BATCHES:
        windows = {name: _probe(rng, decision, name, batch) for name in interface.inputs}
        expected = compute_features(front, windows)
        found = np.asarray(session.run([FEATURES], dict(windows))[0])
        if found.shape != expected.shape:
            raise BundleError(
                f"graph: output at batch {batch}", expected=str(expected.shape), found=str(found.shape)
            )
        for i, asked in enumerate(front.asked):
            slack = _slack(asked, windows[asked.signal], expected[:, i])
            _compare_column(asked.name, expected[:, i], found[:, i], slack, batch)


def _probe(rng: np.random.Generator, decision: Decision, signal: str, batch: int) -> NDArray[np.float32]:
    low, high = decision.signals[signal].range
    windows = rng.uniform(low, high, (batch, decision.samples(signal))).astype(np.float32)
    special = (low, 0.0, np.nan)
    for row, value in zip(range(1, batch), special, strict=False):
        windows[row] = value
    if batch > 4:
        windows[4, -1] = np.nan
    return windows


def _slack(asked: Asked, windows: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float64]:
    """What a feature may differ by, besides its relative tolerance, ``[batch]``."""
    base = asked.statistic.base
    if base in ("band", "env"):
        return np.full(len(windows), PARITY_LOG)
    if base == "zcr":  # a sample within rounding of the mean may fall on either side: two pairs
        return np.full(len(windows), 2.5 / max(1, asked.size - 1))
    if asked.statistic.own:
        return np.full(len(windows), PARITY_ATOL * np.nanmax(np.abs(expected), initial=1e-30))
    magnitude: NDArray[np.float64] = np.abs(windows).max(axis=1).astype(np.float64)
    scale = {"same": magnitude, "per_s": magnitude * asked.rate_hz / asked.size}
    return PARITY_ATOL * scale.get(STATISTICS[base], np.ones_like(magnitude))


def _compare_column(
    name: str,
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    slack: NDArray[np.float64],
    batch: int,
) -> None:
    both_nan = np.isnan(expected) & np.isnan(found)
    close = np.abs(found - expected) <= PARITY_RTOL * np.abs(expected) + slack
    if not (close | both_nan).all():
        row = int(np.flatnonzero(~(close | both_nan))[0])
        raise BundleError(
            f"graph: feature '{name}' at batch {batch}, row {row}",
            expected=f"{expected[row]!r} as torch computes it",
            found=f"{found[row]!r} by onnxruntime",
        )


def rename_values(graph: Any, name: Callable[[str], str]) -> None:
    """Rename every value of a graph and of the graphs within it; remarks about values are dropped."""
    graph.ClearField("value_info")
    graph.ClearField("quantization_annotation")
    for tensor in (*graph.initializer, *graph.input, *graph.output):
        tensor.name = name(tensor.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = name(sparse.values.name)
    for node in graph.node:
        node.name = name(node.name) if node.name else ""
        for values in (node.input, node.output):
            values[:] = [name(value) if value else "" for value in values]
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                rename_values(inner, name)
