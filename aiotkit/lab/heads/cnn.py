"""A small 1-D convolutional network over raw windows; it learns its own features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aiotkit.core.errors import DataError
from aiotkit.lab.heads.base import Floats, Progress, Rows, Windows
from aiotkit.lab.heads.network import array, reproducible, train_network
from aiotkit.lab.onnx_graph import LARGEST, Graph

#: fewest samples a window needs to be convolved, widest input
SHORTEST, LONGEST = 16, 16_384
CLIP = 8.0


@dataclass(frozen=True)
class Scaling:
    """Mean and spread of each signal over all training samples (``[signals]``)."""

    mean: Floats
    scale: Floats


class _Net(nn.Module):
    """Convolutions with stride 2, the mean and the largest over time, one linear layer."""

    def __init__(self, signals: int, channels: tuple[int, ...], kernel: int, classes: int) -> None:
        super().__init__()
        sizes = (signals, *channels)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(n, m, kernel, stride=2, padding=kernel // 2) for n, m in pairwise(sizes)
        )
        self.dropout = nn.Dropout(0.2)
        self.last = nn.Linear(2 * channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, signals, samples]`` to ``[batch, classes]``."""
        for convolution in self.convolutions:
            x = torch.relu(convolution(x))
        pooled: Tensor = self.last(self.dropout(torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)))
        return pooled


@dataclass(frozen=True)
class Convolutional:
    """Fitted layers; they run in float32. A sample that is not finite becomes its signal's mean."""

    signals: tuple[str, ...]
    scaling: Scaling
    network: nn.Module
    settings: Mapping[str, float] = field(default_factory=dict)

    def logits(self, x: NDArray[np.float32], windows: Windows) -> Floats:  # noqa: ARG002
        """``[n, classes]``; ``x`` is not read."""
        stacked = stack(windows, self.signals, self.scaling)
        with torch.inference_mode():
            parts = [self.network(part) for part in torch.split(stacked, 512)]
        return torch.cat(parts).numpy().astype(np.float64)

    def add_to(self, graph: Graph, x: str, windows: Mapping[str, str]) -> str:  # noqa: ARG002
        """Scaling, convolutions, pooling and a Gemm."""
        axis = graph.constant(np.array([1], dtype=np.int64))
        channels = []
        for name, mean, scale in zip(self.signals, self.scaling.mean, self.scaling.scale, strict=True):
            values = graph.to64(windows[name])
            fine = graph.op("LessOrEqual", graph.op("Abs", values), graph.number(LARGEST))
            values = graph.op("Where", fine, values, graph.number(float(mean)))
            z = graph.op(
                "Mul", graph.op("Sub", values, graph.number(float(mean))), graph.number(float(1 / scale))
            )
            z = graph.to32(graph.op("Clip", z, graph.number(-CLIP), graph.number(CLIP)))
            channels.append(graph.op("Unsqueeze", z, axis))
        h = graph.op("Concat", *channels, axis=1)
        net = self.network
        assert isinstance(net, _Net)
        for layer in net.convolutions:
            assert isinstance(layer, nn.Conv1d)
            assert layer.bias is not None
            pad = layer.kernel_size[0] // 2
            weights = (graph.constant(array(layer.weight)), graph.constant(array(layer.bias)))
            h = graph.op("Relu", graph.op("Conv", h, *weights, strides=[2], pads=[pad, pad]))
        time = graph.constant(np.array([2], dtype=np.int64))
        pooled = graph.op(
            "Concat",
            graph.op("ReduceMean", h, time, keepdims=0),
            graph.op("ReduceMax", h, time, keepdims=0),
            axis=1,
        )
        last = (graph.constant(array(net.last.weight)), graph.constant(array(net.last.bias)))
        return graph.to64(graph.op("Gemm", pooled, *last, transB=1))


def stack(windows: Windows, signals: tuple[str, ...], scaling: Scaling) -> Tensor:
    """``[n, signals, samples]``, scaled and clipped."""
    channels = []
    for name, mean, scale in zip(signals, scaling.mean, scaling.scale, strict=True):
        values = np.asarray(windows[name], dtype=np.float64)
        values = np.where(np.abs(values) <= LARGEST, values, mean)
        channels.append(np.clip((values - mean) / scale, -CLIP, CLIP).astype(np.float32))
    return torch.from_numpy(np.stack(channels, axis=1))


@dataclass(frozen=True)
class Cnn:
    """Signals of the longest common window, side by side; shorter ones are left to other families."""

    name: str = "cnn"
    channels: tuple[int, ...] = (16, 32, 32)
    kernel: int = 7
    rate: float = 2e-3
    decay: float = 1e-2

    def fit(self, rows: Rows, *, seed: int, progress: Progress) -> Convolutional:
        """Learn; ``seed`` is of weights, order and dropout.

        Raises:
            DataError: no raw windows are at hand, or they are too short or too long.
        """
        sizes = {name: values.shape[1] for name, values in rows.windows.items()}
        longest = max(sizes.values(), default=0)
        if not SHORTEST <= longest <= LONGEST:
            raise DataError(
                f"family '{self.name}': raw windows",
                expected=f"{SHORTEST} to {LONGEST} samples",
                found=f"{longest}" if sizes else "none at hand (assemble with windows)",
            )
        signals = tuple(sorted(name for name, n in sizes.items() if n == longest))
        scaling = _scaling(rows.windows, signals)

        def make() -> nn.Module:
            return _Net(len(signals), self.channels, self.kernel, rows.classes)

        with reproducible(seed):
            network = train_network(
                make,
                stack(rows.windows, signals, scaling),
                rows,
                name=self.name,
                rate=self.rate,
                decay=self.decay,
                progress=progress,
            )
        return Convolutional(signals, scaling, network, {"channels": float(sum(self.channels))})


def _scaling(windows: Windows, signals: tuple[str, ...]) -> Scaling:
    means, scales = [], []
    for name in signals:
        values = np.asarray(windows[name], dtype=np.float64)
        values = values[np.abs(values) <= LARGEST]
        means.append(float(values.mean()) if len(values) else 0.0)
        scales.append(float(values.std()) if len(values) else 1.0)
    scale = np.array(scales)
    return Scaling(np.array(means), np.where(scale > 0, scale, 1.0))
