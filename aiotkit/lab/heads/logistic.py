"""Multinomial logistic regression with an L2 penalty."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from aiotkit.lab.heads.base import Floats, Progress, Rows
from aiotkit.lab.heads.linear import Linear, fit_path

#: scikit-learn's C, strongest penalty first
GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class Logistic:
    """The penalty is chosen by inner validation; each fit starts where the stronger penalty ended."""

    name: str = "logistic"
    grid: tuple[float, ...] = GRID
    max_iter: int = 300

    def fit(self, rows: Rows, *, seed: int, progress: Progress) -> Linear:  # noqa: ARG002
        """Learn; nothing is random."""
        return fit_path(rows, self._path, self.grid, "C", progress, parts=3)

    def _path(
        self, z: Floats, y: NDArray[np.int64], weight: Floats, classes: int
    ) -> list[tuple[Floats, Floats]]:
        model = LogisticRegression(C=1.0, solver="lbfgs", warm_start=True, max_iter=self.max_iter, tol=1e-4)
        out = []
        with warnings.catch_warnings():  # stopping early is a penalty of its own, judged by held-out loss
            warnings.simplefilter("ignore", ConvergenceWarning)
            for c in self.grid:
                model.set_params(C=c).fit(z, y, sample_weight=weight)
                out.append(_softmax_form(model.coef_, model.intercept_, classes))
        return out


def _softmax_form(coef: Floats, intercept: Floats, classes: int) -> tuple[Floats, Floats]:
    """Slopes ``[columns, classes]`` and offsets; two states are one column against zero."""
    if classes == 2:
        coef = np.concatenate([np.zeros_like(coef), coef])
        intercept = np.r_[0.0, intercept]
    return np.ascontiguousarray(coef.T.astype(np.float64)), np.asarray(intercept, dtype=np.float64)
