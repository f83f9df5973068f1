"""What every family of heads promises, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aiotkit.lab.calibrate import NEVER, brier, fit_calibration
from aiotkit.lab.onnx_graph import Graph

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Windows = Mapping[str, NDArray[np.float32]]
#: share done, 0 to 1
Progress = Callable[[float], None]
INNER_FOLDS = 5


@dataclass(frozen=True)
class Rows:
    """Training rows in order of subject and time.

    Attributes:
        x: float32 ``[n, columns]``, NaN = unknown.
        y: ``[n]`` codes of states, 0 to ``classes`` − 1, each of which occurs.
        weight: ``[n]``, how much a row counts; mean about 1.
        windows: signal -> float32 ``[n, samples]``; empty where no raw windows are at hand.
        groups: ``[n]`` codes of what must not be split within (subjects), or of time blocks.
        names: of ``x``'s columns; () = not known.
    """

    x: NDArray[np.float32]
    y: Ints
    weight: Floats
    windows: Windows = field(default_factory=dict)
    groups: Ints | None = None
    names: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """How many states occur."""
        return int(self.y.max()) + 1

    def take(self, which: Ints) -> Rows:
        """Some rows by position; codes stay."""
        return Rows(
            self.x[which],
            self.y[which],
            self.weight[which],
            {name: values[which] for name, values in self.windows.items()},
            None if self.groups is None else self.groups[which],
            self.names,
        )


class Fitted(Protocol):
    """A head that has learnt."""

    @property
    def settings(self) -> Mapping[str, float]:
        """What inner validation chose."""
        ...

    @property
    def signals(self) -> tuple[str, ...]:
        """Raw windows it reads; () for most."""
        ...

    def logits(self, x: NDArray[np.float32], windows: Windows) -> Floats:
        """``[n, classes]``, as the library computes them; softmax gives uncalibrated probabilities."""
        ...

    def add_to(self, graph: Graph, x: str, windows: Mapping[str, str]) -> str:
        """The same as nodes; returns the float64 value ``[batch, classes]``."""
        ...


class Family(Protocol):
    """A way to learn a head."""

    @property
    def name(self) -> str:
        """As in tables and files."""
        ...

    def fit(self, rows: Rows, *, seed: int, progress: Progress) -> Fitted:
        """Learn; hyper-parameters by inner validation on contiguous parts of ``rows``.

        Raises:
            DataError: it cannot learn from these rows; others may.
        """
        ...


def inner_folds(rows: Rows, n: int = INNER_FOLDS) -> Iterator[tuple[Ints, Ints]]:
    """(training, held out) of contiguous parts: whole groups where there are several, else equal parts.

    A part that holds all rows of a state is used too: its rows of that state are not judged.
    """
    count = len(rows.y)
    if rows.groups is not None and len(np.unique(rows.groups)) >= 2:
        names, code = np.unique(rows.groups, return_inverse=True)
        parts = min(n, len(names))
        sizes = np.cumsum(np.bincount(code))
        part_of = np.minimum((sizes - 1) * parts // count, parts - 1)[code]
    else:
        part_of = np.arange(count) * min(n, count) // count
    for part in np.unique(part_of):
        held = part_of == part
        if not held.all():
            yield np.flatnonzero(~held), np.flatnonzero(held)


def score(logits: Floats, y: Ints, weight: Floats) -> float:
    """What inner validation minimises: the share of wrong labels, plus a tenth of the calibrated Brier score.

    The second decides near-ties, and where no setting ever names a rare state. Log-loss is not bounded: where
    whole blocks of time are held out, one block that nothing can tell would choose the setting alone. Rows
    whose state the head did not know are left aside.
    """
    known = logits[np.arange(len(y)), y] > NEVER / 2
    if not known.any():
        return float("inf")
    logits, y, weight = logits[known], y[known], weight[known]
    wrong = float(np.average(logits.argmax(axis=1) != y, weights=weight))
    return brier(fit_calibration(logits, y, weight, biased=False).apply(logits), y, weight) / 10 + wrong


@dataclass(frozen=True)
class Spread:
    """Codes of the states that occur among some rows, and back."""

    present: Ints
    classes: int

    @classmethod
    def of(cls, y: Ints, classes: int) -> Spread:
        """From true codes."""
        return cls(np.unique(y), classes)

    def compact(self, y: Ints) -> Ints:
        """Codes 0 … among the present ones."""
        return np.searchsorted(self.present, y).astype(np.int64)

    def widen(self, logits: Floats) -> Floats:
        """``[n, present]`` to ``[n, classes]`` with ``NEVER`` for the others."""
        out = np.full((len(logits), self.classes), NEVER)
        out[:, self.present] = logits
        return out
