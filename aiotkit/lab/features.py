"""Window statistics as torch modules, written once: batched on the desk, exported into the graph.

Every statistic maps ``[batch, n]`` float32 to ``[batch]``. With x_i the samples of a window, m their mean
and μ_k = Σ(x_i − m)^k / n the central moments (population, divisor n):

========  ==========================================================  ========================
mean      m = Σ x_i / n                                               unit of the signal
std       √μ_2                                                        unit of the signal
min, max  smallest, largest x_i                                       unit of the signal
rms       √(Σ x_i² / n)                                               unit of the signal
p2p       max − min                                                   unit of the signal
last      x_n                                                         unit of the signal
slope     least squares: Σ(t_i − t̄)(x_i − m) / Σ(t_i − t̄)²            unit per second
kurtosis  μ_4 / μ_2² (Pearson's; 3 for a Gaussian), 0 when constant   1
crest     max|x_i| / rms, 0 when all are zero                         1
========  ==========================================================  ========================

A window with a sample that is not finite has NaN for every feature. Deviations are formed before they
are squared, and divided by their largest one, so that a small ripple on a large offset keeps its digits.
Where a sum leaves float32 (beyond 3e38) the feature is not finite, which gates and rules never act on.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aiotkit.bundle.interface import FEATURES, Interface, interface_of
from aiotkit.core.decision import Decision, Regular
from aiotkit.core.errors import BundleError
from aiotkit.core.features import STATISTICS

#: the ONNX operator set and file version that are written; every runtime since onnxruntime 1.16 reads them
OPSET = 18
IR_VERSION = 9
#: batch sizes at which an export must agree with torch
PARITY_BATCHES = (1, 2, 7, 64)
PARITY_RTOL = 1e-4
PARITY_ATOL = 1e-5
LARGEST = float(np.finfo(np.float32).max)


def _peak(x: Tensor) -> Tensor:
    """Largest magnitude ``[batch, 1]``, 1 where all are zero: a divisor that is always safe."""
    peak = x.abs().amax(dim=1, keepdim=True)
    return peak.masked_fill(peak == 0, 1.0)


def _centred(x: Tensor) -> Tensor:
    """Deviations from the mean, in two passes: the first mean's rounding error is taken out again."""
    rough = x - x.mean(dim=1, keepdim=True)
    return rough - rough.mean(dim=1, keepdim=True)


def _constant(x: Tensor) -> Tensor:
    """Which windows hold one value only, ``[batch]``."""
    return x.amax(dim=1) == x.amin(dim=1)


class Mean(nn.Module):
    """Σ x_i / n."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, n]`` to ``[batch]``."""
        rough = x.mean(dim=1, keepdim=True)
        return (rough + (x - rough).mean(dim=1, keepdim=True)).squeeze(1)


class Std(nn.Module):
    """√(Σ(x_i − m)² / n); exactly 0 for a constant window."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, n]`` to ``[batch]``."""
        d = _centred(x)
        peak = _peak(d)
        std = (peak * (d / peak).square().mean(dim=1, keepdim=True).sqrt()).squeeze(1)
        return std.masked_fill(_constant(x), 0.0)


class Min(nn.Module):
    """Smallest sample."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, n]`` to ``[batch]``."""
        return x.amin(dim=1)


class Max(nn.Module):
    """Largest sample."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, n]`` to ``[batch]``."""
        return x.amax(dim=1)


class Rms(nn.Module):
    """√(Σ x_i² / n)."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, n]`` to ``[batch]``."""
        peak = _peak(x)
        return (peak * (x / peak).square().mean(dim=1, keepdim=True).sqrt()).squeeze(1)


class PeakToPeak(nn.Module):
    """Largest minus smallest sample."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, n]`` to ``[batch]``."""
        return x.amax(dim=1) - x.amin(dim=1)


class Last(nn.Module):
    """The newest sample."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, n]`` to ``[batch]``."""
        return x[:, -1]


class Slope(nn.Module):
    """Least-squares slope per second of samples ``1 / rate_hz`` apart; 0 for a single sample."""

    weights: Tensor

    def __init__(self, n: int, rate_hz: float) -> None:
        super().__init__()
        t = (np.arange(n, dtype=np.float64) - (n - 1) / 2) / rate_hz
        weights = t / np.square(t).sum() if n > 1 else t
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, n]`` to ``[batch]``."""
        return (_centred(x) * self.weights).sum(dim=1)


class Kurtosis(nn.Module):
    """μ_4 / μ_2² (Pearson 1905); 0 for a constant window."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, n]`` to ``[batch]``."""
        d = _centred(x)
        squares = (d / _peak(d)).square()
        second = squares.mean(dim=1)
        flat = _constant(x)
        kurtosis = squares.square().mean(dim=1) / second.masked_fill(flat, 1.0).square()
        return kurtosis.masked_fill(flat, 0.0)


class Crest(nn.Module):
    """max|x_i| / rms, at least 1; 0 when all samples are zero."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, n]`` to ``[batch]``."""
        power = (x / _peak(x)).square().mean(dim=1)
        silent = power == 0
        return (1 / power.masked_fill(silent, 1.0).sqrt()).masked_fill(silent, 0.0)


_WITHOUT_TIME: dict[str, type[nn.Module]] = {
    "mean": Mean,
    "std": Std,
    "min": Min,
    "max": Max,
    "rms": Rms,
    "p2p": PeakToPeak,
    "last": Last,
    "kurtosis": Kurtosis,
    "crest": Crest,
}


def statistic_module(statistic: str, n: int, rate_hz: float) -> nn.Module:
    """The module of a statistic for windows of ``n`` samples at ``rate_hz``.

    >>> float(statistic_module("slope", 3, rate_hz=2.0)(torch.tensor([[1.0, 2.0, 3.0]])))
    2.0
    """
    return Slope(n, rate_hz) if statistic == "slope" else _WITHOUT_TIME[statistic]()


def rate_of(decision: Decision, signal: str) -> float:
    """Samples per second within a signal's window (one a window for ``on_change`` without a grid)."""
    sampling = decision.signals[signal].sampling
    rate = sampling.rate_hz if isinstance(sampling, Regular) else sampling.grid_hz
    return rate if rate is not None else 1 / decision.window.length_s


class Front(nn.Module):
    """All window features of a decision: ``{signal: [batch, n]}`` to ``[batch, features]``.

    Columns are in the order of ``names``, which is that of ``Decision.features()``.
    """

    def __init__(self, decision: Decision) -> None:
        super().__init__()
        self.inputs = tuple(sorted(decision.signals))
        self.names = decision.features()
        self.parts = nn.ModuleDict()
        for name in self.names:
            signal, _, statistic = name.partition(".")
            self.parts[_key(name)] = statistic_module(
                statistic, decision.samples(signal), rate_of(decision, signal)
            )

    def forward(self, windows: Mapping[str, Tensor]) -> Tensor:
        """The features of a batch of windows."""
        used = dict.fromkeys(name.partition(".")[0] for name in self.names)
        fine = {signal: windows[signal].abs() <= LARGEST for signal in used}  # NaN fails it too
        bad = {signal: ~fine[signal].all(dim=1) for signal in used}
        # What follows never reads the caller's own memory: sums of floats depend on its alignment.
        clean = {signal: torch.where(fine[signal], windows[signal], 0.0) for signal in used}
        columns: list[Tensor] = []
        for name in self.names:
            signal = name.partition(".")[0]
            value = self.parts[_key(name)](clean[signal])
            columns.append(value.masked_fill(bad[signal], torch.nan))
        if not columns:
            return windows[self.inputs[0]][:, :0]
        return torch.stack(columns, dim=1)


def _key(name: str) -> str:
    return name.replace(".", "__")


class _Positional(nn.Module):
    """The front with one argument a signal: what an exporter can name."""

    def __init__(self, front: Front) -> None:
        super().__init__()
        self.front = front

    def forward(self, *windows: Tensor) -> Tensor:
        return cast(Tensor, self.front(dict(zip(self.front.inputs, windows, strict=True))))


def compute_features(front: Front, windows: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Features of a batch on the desk: ``{signal: [batch, n]}`` float32 to ``[batch, features]``."""
    with torch.inference_mode():
        # a copy: arrays read from files are read-only, which torch does not know
        given = {
            name: torch.from_numpy(np.array(values, dtype=np.float32)) for name, values in windows.items()
        }
        return cast(NDArray[np.float32], front(given).numpy())


def export_front(decision: Decision) -> tuple[bytes, Interface]:
    """The front as an ONNX graph, and its interface. The same bytes in every folder and process.

    Raises:
        BundleError: the graph does not compute what torch computes, at some batch size.
    """
    front = Front(decision).eval()
    interface = interface_of(decision)
    graph = _export(front, interface)
    check_parity(front, graph, interface, decision)
    return graph, interface


def _export(front: Front, interface: Interface) -> bytes:
    example = tuple(torch.linspace(-1, 1, 3 * n).reshape(3, n) for n in interface.inputs.values())
    batch = torch.export.Dim("batch", min=1)
    with _quiet_exporter():
        program = torch.onnx.export(
            _Positional(front).eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=list(interface.inputs),
            output_names=[FEATURES],
            dynamic_shapes=(tuple({0: batch} for _ in example),),
            verbose=False,
        )
    assert program is not None
    return canonical_graph(program.model_proto)


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
    may differ by ``PARITY_RTOL`` of itself plus ``PARITY_ATOL`` of its window's magnitude.

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
        for i, name in enumerate(interface.features):
            _compare_column(name, expected[:, i], found[:, i], _slack(decision, name, windows), batch)


def _probe(rng: np.random.Generator, decision: Decision, signal: str, batch: int) -> NDArray[np.float32]:
    low, high = decision.signals[signal].range
    windows = rng.uniform(low, high, (batch, decision.samples(signal))).astype(np.float32)
    special = (low, 0.0, np.nan)
    for row, value in zip(range(1, batch), special, strict=False):
        windows[row] = value
    if batch > 4:
        windows[4, -1] = np.nan
    return windows


def _slack(decision: Decision, name: str, windows: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    signal, _, statistic = name.partition(".")
    magnitude: NDArray[np.float64] = np.abs(windows[signal]).max(axis=1).astype(np.float64)
    scale = {"same": magnitude, "per_s": magnitude / decision.window.length_s}
    return PARITY_ATOL * scale.get(STATISTICS[statistic], np.ones_like(magnitude))


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
