"""How well one column, or a quick model, tells the state under given folds: what the leak audit measures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.lab.examples import LABELS_FROM, Examples
from aiotkit.lab.layout import folded

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Texts = NDArray[np.object_] | NDArray[np.str_]
Folds = Sequence[tuple[Ints, Ints]]
_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Giveaway:
    """What one column alone tells of a state on test rows; ``informed`` is recall minus false-alarm share."""

    state: str
    precision: float
    recall: float
    informed: float

    @property
    def sure(self) -> bool:
        """Good enough that a model would use it."""
        return self.precision >= 0.8 and self.recall >= 0.8 and self.informed >= 0.7

    @property
    def telling(self) -> bool:
        """So good that one asks whether it is the label."""
        return self.precision >= 0.9 and self.recall >= 0.9 and self.informed >= 0.85

    @property
    def perfect(self) -> bool:
        """Never wrong."""
        return self.precision == 1 and self.recall == 1

    @property
    def rank(self) -> float:
        """For choosing the worst: the smallest of its three figures."""
        return min(self.precision, self.recall, self.informed)


def known_alone(column: NDArray[np.float32] | Floats, states: Texts, folds: Folds) -> Giveaway:
    """What a tree of depth two on one column says of test rows: the state it tells best, bar the usual one.

    Args:
        column: ``[rows]``, NaN = not known.
        states: ``[rows]``.
        folds: (train, test) positions.
    """
    from sklearn.tree import DecisionTreeClassifier

    names, truth = np.unique(states, return_inverse=True)
    x = np.asarray(column, dtype=np.float64)[:, None]
    said = np.full(len(truth), -1)
    for train, test in folds:
        if not len(train) or not len(test):
            continue
        tree = DecisionTreeClassifier(max_depth=2, min_samples_leaf=2, random_state=0)
        said[test] = tree.fit(x[train], truth[train]).predict(x[test])
    asked = said >= 0
    usual = int(np.bincount(truth).argmax())
    unusual = [k for k in range(len(names)) if k != usual]
    return max((_told(names[k], truth[asked] == k, said[asked] == k) for k in unusual), key=_rank)


def _rank(found: Giveaway) -> float:
    return found.rank


def _told(state: str, truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> Giveaway:
    hits = int((truth & said).sum())
    precision = hits / said.sum() if said.any() else 0.0
    recall = hits / truth.sum() if truth.any() else 0.0
    wrong = float((said & ~truth).sum() / (~truth).sum()) if (~truth).any() else 1.0
    return Giveaway(str(state), float(precision), float(recall), float(recall) - wrong)


def best_alone(values: Mapping[str, Floats], states: Texts, folds: Folds, seed: int) -> tuple[str, Giveaway]:
    """Of several columns the one that tells most, by name."""
    n = len(states)
    if n > _ROWS:
        keep = np.sort(np.random.default_rng(seed).choice(n, _ROWS, replace=False))
        place = np.full(n, -1)
        place[keep] = np.arange(len(keep))
        folds = [(a[a >= 0], b[b >= 0]) for a, b in ((place[t], place[v]) for t, v in folds)]
        values, states = {k: v[keep] for k, v in values.items()}, states[keep]
    found = [(name, known_alone(v, states, folds)) for name, v in values.items()]
    return max(found, key=lambda pair: pair[1].rank)


def rank_auc(x: NDArray[np.float32], states: Texts) -> tuple[Floats, list[str]]:
    """For each column the area under the ROC curve of the state it ranks best against the rest.

    From the Mann-Whitney statistic, in whichever direction is better: 0.5 = tells nothing, 1 = tells all.
    Unknown values are left out; a column with fewer than 5 of either kind gets 0.5.
    """
    from scipy.stats import rankdata

    names = np.unique(states)
    best, told = np.full(x.shape[1], 0.5), [""] * x.shape[1]
    for j in range(x.shape[1]):
        known = np.isfinite(x[:, j])
        if len(np.unique(x[known, j])) < 2:
            continue
        ranks = rankdata(x[known, j])
        for name in names:
            mine = states[known] == name
            a, b = int(mine.sum()), int((~mine).sum())
            if a < 5 or b < 5:
                continue
            area = (ranks[mine].sum() - a * (a + 1) / 2) / (a * b)
            if max(area, 1 - area) > best[j]:
                best[j], told[j] = max(area, 1 - area), str(name)
    return best, told


def told_apart(x: NDArray[np.float32], states: Texts) -> Floats:
    """For each column how differently it is distributed in a state and elsewhere, 0 to 1; the largest counts.

    The total variation distance over 16 bins of equal count and one for what is not known: unlike a rank it
    also sees a state that sits in the middle of the values, or at a gap.
    """
    out = np.zeros(x.shape[1])
    for j in range(x.shape[1]):
        value = x[:, j]
        known = np.isfinite(value)
        if not known.any():
            continue
        edges = np.unique(np.quantile(value[known], np.linspace(0, 1, 17)[1:-1]))
        bins = np.where(known, np.searchsorted(edges, value, side="right"), len(edges) + 1)
        for name in np.unique(states):
            mine = states == name
            if min(mine.sum(), (~mine).sum()) >= 5:
                inside, outside = (np.bincount(bins[w], minlength=18) / w.sum() for w in (mine, ~mine))
                out[j] = max(out[j], 0.5 * float(np.abs(inside - outside).sum()))
    return out


def split_scores(
    x: NDArray[np.float32], states: Texts, clusters: Ints, splits: Sequence[Folds], seed: int
) -> tuple[float, float, float]:
    """Balanced accuracy of one quick model (boosted trees) under one or two splits of the same rows.

    Returns:
        The scores of the first and the second split (the first again if there is one), and the standard
        error of their difference, from sums within clusters.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    names, truth = np.unique(states, return_inverse=True)
    model = HistGradientBoostingClassifier(
        max_iter=30, max_leaf_nodes=15, learning_rate=0.2, early_stopping=False, random_state=seed
    )  # fmt: skip
    right = []
    for folds in splits:
        hit, asked = np.zeros(len(truth)), np.zeros(len(truth), dtype=bool)
        for train, test in folds:
            some = np.isfinite(x[train]).any(axis=0)  # a column without a value has no bins
            if len(test) and some.any() and len(np.unique(truth[train])) > 1:
                fitted = model.fit(x[np.ix_(train, some)], truth[train])
                hit[test] = _guess(fitted, truth[train], x[np.ix_(test, some)]) == truth[test]
                asked[test] = True
        right.append((hit, asked))
    common = np.logical_and.reduce([asked for _, asked in right])
    size = np.bincount(truth[common], minlength=len(names)).astype(np.float64)
    weight = common / (np.maximum(size, 1)[truth] * (size > 0).sum())
    scores = [float((weight * hit).sum()) for hit, _ in right]
    gap = np.bincount(clusters, weight * (right[0][0] - right[-1][0]))
    k = len(gap)
    spread = float(np.sqrt(k / max(1, k - 1) * ((gap - gap.mean()) ** 2).sum()))
    return scores[0], scores[-1], spread


def _guess(model: Any, learnt: Ints, x: NDArray[np.float32]) -> Ints:
    """The state whose probability is highest against its share: what balanced accuracy asks for."""
    share = np.bincount(learnt)[model.classes_]
    return np.asarray(model.classes_[(model.predict_proba(x) / share).argmax(axis=1)], dtype=np.int64)


def carriers(examples: Examples) -> tuple[str, ...]:
    """For each column whether it carries the time: ``counter``, ``calendar`` or ''.

    A counter moves in most steps and always the same way, in nearly every subject. A calendar column orders
    all rows, of whichever subject, nearly as their time does (rank correlation above 0.98).
    """
    from scipy.stats import rankdata

    rows = examples.rows
    code = pd.factorize(rows["subject"].astype(str))[0]
    at = rows["at_us"].to_numpy(dtype=np.int64)
    order = np.lexsort((at, code))
    same = (np.diff(code[order]) == 0) & (np.diff(at[order]) > 0)
    subject = code[order][1:]
    when = rankdata(at)
    found = []
    for j in range(examples.x.shape[1]):
        x = examples.x[:, j]
        step = np.diff(x[order])
        sound = same & np.isfinite(step)
        found.append(
            "counter" if _counts(step[sound], subject[sound]) else "calendar" if _dated(x, when) else ""
        )
    return tuple(found)


def _counts(step: NDArray[np.float32], subject: Ints) -> bool:
    if len(step) < 20:
        return False
    n = np.bincount(subject)
    seen = n > 2
    if not seen.any():
        return False
    moves = (step != 0).mean()
    for sign in (1, -1):
        wrong = np.bincount(subject, sign * step < 0, len(n))
        if moves > 0.5 and (wrong[seen] == 0).mean() >= 0.95:
            return True
    return False


def _dated(x: NDArray[np.float32], when: Floats) -> bool:
    from scipy.stats import rankdata

    known = np.isfinite(x)
    if known.sum() < 20 or len(np.unique(x[known])) < 5:
        return False
    a, b = rankdata(x[known]), when[known]
    return bool(abs(np.corrcoef(a, b)[0, 1]) > 0.98)


def label_columns(examples: Examples) -> list[str]:
    """Columns of something that the labels were read from (``AHU1.Condition``, of machine AHU1, too)."""
    read = examples.sources.get(LABELS_FROM, "").split("\n")
    names = {folded(name) for label in read for name in (label, re.split(r"[./:|]", label)[-1])} - {""}
    return [
        c for c in examples.columns if folded(c.removeprefix("context.").split(".")[0].split("=")[0]) in names
    ]


def shared_rows(x: NDArray[np.float32], subject: pd.Series) -> float:
    """Share of rows that occur, value by value, once each under several subjects, above what chance makes.

    Counts come again by chance, within a subject as between two. How often two rows are alike within one says
    how often that is so between two; what comes again and again within a subject is no copy at all.
    """
    known = np.flatnonzero(np.isfinite(x).any(axis=1))  # rows of which nothing is known are all alike
    rows, whose = pd.DataFrame(np.nan_to_num(x[known], nan=1e30)), subject.iloc[known]
    by_row = whose.groupby(rows.groupby(list(rows.columns), sort=False).ngroup().to_numpy())
    subjects, times = by_row.transform("nunique").to_numpy(), by_row.transform("size").to_numpy()
    each = whose.value_counts().to_numpy(dtype=float)
    within = float((each * (each - 1)).sum())
    between = float(each.sum() ** 2 - (each**2).sum())
    alike, shared = (
        float(((times == 2) & (subjects == 1)).sum()),
        float(((subjects > 1) & (times == subjects)).sum()),
    )
    chance = alike * between / within if within else 0.0
    return max(0.0, shared - 2 * chance) / len(x)
