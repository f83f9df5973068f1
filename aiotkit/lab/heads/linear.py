"""A linear head over prepared columns, and the choice among its forms by inner validation.

Two things may be chosen beside a family's own setting. *Menus*: only the statistics of windows cut into K
parts, only those of whole windows, or all (a finer cut is not always a better one). *Operating point*: every
column also times the first principal component, standardised and clipped at ±``CLIP``. That component is
where the machine is warm or cold, loaded or idle; with it, slopes may depend on it (a varying-coefficient
model; Hastie and Tibshirani 1993).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aiotkit.lab.heads.base import Floats, Ints, Progress, Rows, Spread, Windows, inner_folds, score
from aiotkit.lab.onnx_graph import Graph
from aiotkit.lab.prepare import Preparation, learn_preparation

#: of (prepared rows, compact codes, weights, classes): one (slopes [columns, classes], offsets) a setting
Path = Callable[[Floats, Ints, Floats, int], list[tuple[Floats, Floats]]]
CLIP = 5.0
#: prepared columns are clipped at ±: a straight line means nothing so far outside of training
REACH = 10.0
#: most columns of the operating-point form, and rows it needs a column
_WIDEST, _ROWS_PER_COLUMN = 1000, 2
_SEGMENT = re.compile(r"_\d+of(\d+)$")
_BANDED = ("band", "env")


@dataclass(frozen=True)
class Terms:
    """From prepared columns to those a linear head weighs: ``columns`` of them, and their products."""

    columns: Ints
    axis: Floats | None = None
    mean: Floats = field(default_factory=lambda: np.zeros(0))
    scale: Floats = field(default_factory=lambda: np.ones(0))

    def apply(self, z: Floats) -> Floats:
        """``[n, prepared]`` to ``[n, terms]``."""
        z = np.clip(z[:, self.columns], -REACH, REACH)
        if self.axis is None:
            return z
        products = (z * (z @ self.axis)[:, None] - self.mean) / self.scale
        return np.concatenate([z, np.clip(products, -CLIP, CLIP)], axis=1)

    def add_to(self, graph: Graph, z: str) -> str:
        """The same as nodes."""
        z = graph.op("Clip", graph.columns(z, self.columns), graph.number(-REACH), graph.number(REACH))
        if self.axis is None:
            return z
        point = graph.op("MatMul", z, graph.constant(self.axis[:, None]))
        products = graph.op("Sub", graph.op("Mul", z, point), graph.constant(self.mean))
        products = graph.op("Mul", products, graph.constant(1 / self.scale))
        clipped = graph.op("Clip", products, graph.number(-CLIP), graph.number(CLIP))
        return graph.op("Concat", z, clipped, axis=1)


def learn_terms(z: Floats, columns: Ints, *, operating_point: bool) -> Terms:
    """From prepared training rows."""
    if not operating_point:
        return Terms(columns)
    mine = np.clip(z[:, columns], -REACH, REACH)
    _, vectors = np.linalg.eigh(mine.T @ mine / len(mine))
    axis = vectors[:, -1]
    axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
    axis = axis / max(float((mine @ axis).std()), 1e-9)
    products = mine * (mine @ axis)[:, None]
    scale = products.std(axis=0)
    return Terms(columns, axis, products.mean(axis=0), np.where(scale > 1e-9, scale, 1.0))


@dataclass(frozen=True)
class Linear:
    """logits = terms(z) · slopes + offsets, in float64."""

    preparation: Preparation
    terms: Terms
    slopes: Floats
    offsets: Floats
    settings: Mapping[str, float] = field(default_factory=dict)
    signals: tuple[str, ...] = ()

    def logits(self, x: NDArray[np.float32], windows: Windows) -> Floats:  # noqa: ARG002
        """``[n, classes]``."""
        return np.asarray(self.terms.apply(self.preparation.apply(x)) @ self.slopes + self.offsets)

    def add_to(self, graph: Graph, x: str, windows: Mapping[str, str]) -> str:  # noqa: ARG002
        """A product and a sum on top of the preparation."""
        terms = self.terms.add_to(graph, self.preparation.add_to(graph, x))
        product = graph.op("MatMul", terms, graph.constant(self.slopes))
        return graph.op("Add", product, graph.constant(self.offsets))


@dataclass(frozen=True)
class Form:
    """What a linear head may look at: a menu of columns (positions in ``x``), and whether products too."""

    parts: int
    columns: Ints
    operating_point: bool = False


def forms(rows: Rows, *, operating_point: bool) -> list[Form]:
    """The forms to choose from, simplest first. ``parts`` 0 = all columns, 1 = those of whole windows."""
    menus = {0: np.arange(rows.x.shape[1])}
    if rows.names:
        parts = np.array([segments(name) for name in rows.names])
        counts = sorted(set(parts.tolist()) - {0})
        if len(counts) > 1:
            menus |= {k: np.flatnonzero((parts == k) | (parts == 0)) for k in counts}
    out = [Form(k, columns) for k, columns in sorted(menus.items(), key=lambda m: len(m[1]))]
    wide = min(_WIDEST, len(rows.y) // _ROWS_PER_COLUMN)
    if operating_point:
        out += [Form(f.parts, f.columns, True) for f in out if 1 < 2 * len(f.columns) <= wide]
    return out


def segments(name: str) -> int:
    """In how many parts a feature cuts the window: 1 = not at all; 0 = not a window feature.

    >>> [segments(n) for n in ("p.mean_2of6", "p.band_1of8", "p.band_1of8_2of4", "p.rms", "context.load")]
    [6, 1, 4, 1, 0]
    """
    source, _, word = name.partition(".")
    if source in ("history", "context"):
        return 0
    match = _SEGMENT.search(word)
    banded = word.startswith(_BANDED) and word.count("of") < 2
    return int(match.group(1)) if match and not banded else 1


def fit_path(
    rows: Rows,
    path: Path,
    grid: Sequence[float],
    name: str,
    progress: Progress,
    *,
    operating_point: bool = False,
    parts: int = 5,
) -> Linear:
    """Fit every form and every setting of ``grid``, keep the one of least held-out loss.

    Ties go to the simpler form and the earlier setting: order ``grid`` from the most regular to the least.
    """
    choices = forms(rows, operating_point=operating_point)
    losses = _held_out_losses(rows, path, choices, len(grid), progress, parts)
    form, setting = divmod(int(np.argmin(np.round(losses, 6))), len(grid))
    chosen = choices[form]
    fitted = next(_fitted(rows, path, [chosen]))
    slopes, offsets = fitted[2][setting]
    progress(1.0)
    settings = {
        name: float(grid[setting]),
        "inner_loss": float(losses.ravel()[form * len(grid) + setting]),
    }
    if len(choices) > 1:
        settings |= {"parts": float(chosen.parts), "operating_point": float(chosen.operating_point)}
    return Linear(fitted[0], fitted[1], slopes, offsets, settings)


def _fitted(
    rows: Rows, path: Path, choices: Sequence[Form]
) -> Iterator[tuple[Preparation, Terms, list[tuple[Floats, Floats]]]]:
    """A fit of every setting for each form; states are those that occur."""
    preparation = learn_preparation(rows.x, rows.weight)
    z, spread = preparation.apply(rows.x), Spread.of(rows.y, rows.classes)
    y = spread.compact(rows.y)
    for form in choices:
        columns = np.flatnonzero(np.isin(preparation.keep, form.columns))
        terms = learn_terms(z, columns, operating_point=form.operating_point)
        yield preparation, terms, path(terms.apply(z), y, rows.weight, len(spread.present))


def _held_out_losses(
    rows: Rows, path: Path, choices: Sequence[Form], settings: int, progress: Progress, parts: int
) -> Floats:
    """``[forms, settings]``; zeros where no part holds two states to learn from."""
    held_out: list[list[list[Floats]]] = [[[] for _ in range(settings)] for _ in choices]
    order: list[Ints] = []
    folds = list(inner_folds(rows, parts))
    for i, (train, test) in enumerate(folds):
        mine, spread = rows.take(train), Spread.of(rows.y[train], rows.classes)
        if len(spread.present) < 2:
            continue
        for out, (preparation, terms, found) in zip(held_out, _fitted(mine, path, choices), strict=True):
            tested = terms.apply(preparation.apply(rows.x[test]))
            for one, (slopes, offsets) in zip(out, found, strict=True):
                one.append(spread.widen(tested @ slopes + offsets))
        order.append(test)
        progress((i + 1) / (len(folds) + 1))
    if not order:
        return np.zeros((len(choices), settings))
    rest = np.concatenate(order)
    y, weight = rows.y[rest], rows.weight[rest]
    return np.array([[score(np.concatenate(one), y, weight) for one in out] for out in held_out])
