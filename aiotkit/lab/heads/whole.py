"""A whole head: what a family learnt, its calibration, all states, and the novelty of a row; as one graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiotkit.bundle.interface import FEATURES
from aiotkit.core.errors import DataError
from aiotkit.lab.calibrate import Calibration
from aiotkit.lab.heads.base import Fitted, Floats, Ints, Windows
from aiotkit.lab.novelty import Novelty
from aiotkit.lab.onnx_graph import Graph, run_graph

#: most that a probability of the graph may differ from the library's
TOLERANCE = 1e-4


@dataclass(frozen=True)
class WholeHead:
    """``present``: positions, among all ``states``, of those the family learnt. The others have p = 0."""

    fitted: Fitted
    calibration: Calibration
    present: Ints
    states: int
    novelty: Novelty | None

    def p(self, x: NDArray[np.float32], windows: Windows) -> Floats:
        """``[n, states]`` as the library computes it."""
        out = np.zeros((len(x), self.states))
        out[:, self.present] = self.calibration.apply(self.fitted.logits(x, windows))
        return out

    def to_onnx(self, columns: int, samples: dict[str, int]) -> bytes:
        """The graph: ``features`` (and raw signals) to ``p`` and ``novelty``."""
        graph = Graph()
        x = graph.input(FEATURES, columns) if columns else ""
        windows = {name: graph.input(name, samples[name]) for name in self.fitted.signals}
        p = self.calibration.add_to(graph, self.fitted.add_to(graph, x, windows))
        if len(self.present) < self.states or (self.present != np.arange(self.states)).any():
            spread = np.eye(self.states)[self.present]
            p = graph.op("MatMul", p, graph.constant(spread))
        outputs = {"p": (p, self.states)}
        if self.novelty is not None:
            outputs["novelty"] = (self.novelty.add_to(graph, x), 1)
        return graph.model(outputs)

    def check_parity(self, head: bytes, x: NDArray[np.float32], windows: Windows, family: str) -> None:
        """Compare the graph with the library.

        Raises:
            DataError: a label flips, or a probability or a novelty differs too much.
        """
        given = ({FEATURES: x} if x.shape[1] else {}) | {n: windows[n] for n in self.fitted.signals}
        wanted = ("p",) if self.novelty is None else ("p", "novelty")
        found, *rest = run_graph(head, given, wanted)
        expected = self.p(x, windows)
        gap = float(np.abs(found - expected).max(initial=0.0))
        flips = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
        if flips or not gap <= TOLERANCE:
            raise DataError(
                f"family '{family}': its graph does not decide what the library decides",
                expected=f"no label flipped, probabilities within {TOLERANCE:g}",
                found=f"{flips} of {len(x)} labels flipped, probabilities {gap:.2g} apart",
            )
        if rest and self.novelty is not None:
            distance = self.novelty.apply(x)
            if not np.allclose(rest[0][:, 0], distance, rtol=1e-4, atol=1e-5):
                raise DataError(f"family '{family}': novelty of graph and library differ")
