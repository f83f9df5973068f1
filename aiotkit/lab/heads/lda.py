"""Linear discriminant analysis with a shrunk covariance (Friedman 1989; Ledoit and Wolf 2004)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

from aiotkit.lab.heads.base import Floats, Progress, Rows
from aiotkit.lab.heads.linear import Linear, fit_path

#: shares of the scaled identity in the covariance, strongest first; −1 = as Ledoit and Wolf estimate it
GRID = (0.5, 0.1, -1.0, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)


@dataclass(frozen=True)
class Lda:
    """Gaussian states with one covariance, shrunk: Σ_a = (1 − a)·S + a·tr(S)/d·I.

    All of the grid come from one eigendecomposition, so choosing ``a`` by inner validation costs little.
    Few labels and many correlated columns are what it is good at.
    """

    name: str = "lda"
    grid: tuple[float, ...] = GRID

    def fit(self, rows: Rows, *, seed: int, progress: Progress) -> Linear:  # noqa: ARG002
        """Learn; nothing is random."""
        return fit_path(rows, self._path, self.grid, "shrinkage", progress, operating_point=True, parts=10)

    def _path(
        self, z: Floats, y: NDArray[np.int64], weight: Floats, classes: int
    ) -> list[tuple[Floats, Floats]]:
        shares = np.eye(classes)[y] * weight[:, None]
        totals = shares.sum(axis=0)
        means = (shares.T @ z) / totals[:, None]
        deviations = z - means[y]
        covariance = (deviations * weight[:, None]).T @ deviations / weight.sum()
        values, vectors = np.linalg.eigh(covariance)
        values, level = np.maximum(values, 0), float(np.trace(covariance)) / len(covariance)
        turned, prior = means @ vectors, np.log(totals / totals.sum())
        out = []
        for given in self.grid:
            share = given if given >= 0 else float(ledoit_wolf_shrinkage(deviations, assume_centered=True))
            share = min(max(share, 1e-12), 1.0)
            scaled = turned / ((1 - share) * values + share * max(level, 1e-12))
            slopes = vectors @ scaled.T
            out.append((np.ascontiguousarray(slopes), prior - 0.5 * (scaled * turned).sum(axis=1)))
        return out
