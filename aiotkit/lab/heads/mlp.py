"""A small multilayer perceptron over prepared columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aiotkit.lab.heads.base import Floats, Progress, Rows, Windows
from aiotkit.lab.heads.network import array, reproducible, train_network
from aiotkit.lab.onnx_graph import Graph
from aiotkit.lab.prepare import Preparation, learn_preparation

#: prepared columns are held within it: far extrapolation says nothing
CLIP = 8.0


@dataclass(frozen=True)
class Perceptron:
    """Fitted layers; they run in float32."""

    preparation: Preparation
    network: nn.Sequential
    settings: Mapping[str, float] = field(default_factory=dict)
    signals: tuple[str, ...] = ()

    def logits(self, x: NDArray[np.float32], windows: Windows) -> Floats:  # noqa: ARG002
        """``[n, classes]``."""
        with torch.inference_mode():
            return np.asarray(self.network(prepared(self.preparation, x)).numpy(), dtype=np.float64)

    def add_to(self, graph: Graph, x: str, windows: Mapping[str, str]) -> str:  # noqa: ARG002
        """A Gemm a layer."""
        z = self.preparation.add_to(graph, x)
        h = graph.to32(graph.op("Clip", z, graph.number(-CLIP), graph.number(CLIP)))
        for layer in self.network:
            if isinstance(layer, nn.Linear):
                h = graph.op(
                    "Gemm",
                    h,
                    graph.constant(array(layer.weight)),
                    graph.constant(array(layer.bias)),
                    transB=1,
                )
            elif isinstance(layer, nn.ReLU):
                h = graph.op("Relu", h)
        return graph.to64(h)


def prepared(preparation: Preparation, x: NDArray[np.float32]) -> Tensor:
    """Clipped columns as the layers take them."""
    return torch.from_numpy(np.clip(preparation.apply(x), -CLIP, CLIP).astype(np.float32))


@dataclass(frozen=True)
class Mlp:
    """Two hidden layers with dropout, AdamW, early stopping."""

    name: str = "mlp"
    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.2
    rate: float = 2e-3
    decay: float = 1e-2

    def fit(self, rows: Rows, *, seed: int, progress: Progress) -> Perceptron:
        """Learn; ``seed`` is of weights, order and dropout."""
        preparation = learn_preparation(rows.x, rows.weight)
        sizes = (preparation.size, *self.hidden)

        def make() -> nn.Sequential:
            layers: list[nn.Module] = []
            for n, m in pairwise(sizes):
                layers += [nn.Linear(n, m), nn.ReLU(), nn.Dropout(self.dropout)]
            return nn.Sequential(*layers, nn.Linear(sizes[-1], rows.classes))

        with reproducible(seed):
            network = train_network(
                make,
                prepared(preparation, rows.x),
                rows,
                name=self.name,
                rate=self.rate,
                decay=self.decay,
                progress=progress,
            )
        assert isinstance(network, nn.Sequential)
        return Perceptron(preparation, network, {"hidden": float(sum(self.hidden))})
