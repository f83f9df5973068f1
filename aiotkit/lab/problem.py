"""What training starts from: rows, columns that can tell something, folds; or a clear word why not.

Rows that are *known* (``Examples.known``) are judged on; those among them that are *labelled* are learned
from. The rest was acted upon: its state was found, but only because of what was seen and done.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError, did_you_mean
from aiotkit.lab import splits
from aiotkit.lab.examples import BELIEVED, Examples
from aiotkit.lab.heads.base import Floats, Ints, Rows, Windows
from aiotkit.lab.heads.detectors import DETECTORS
from aiotkit.lab.prepare import informative

#: fewest labelled rows, most columns
FEWEST, WIDEST = 10, 20_000
#: least weight of a row: a label nobody believes still must not divide by zero
_LEAST = 1e-3


@dataclass(frozen=True)
class Problem:
    """Known rows and their folds.

    Attributes:
        decision: what is decided.
        everything: all rows, with the columns kept: probes are drawn from them.
        examples: the known ones.
        learn: ``[known]`` which may be learned from.
        y: ``[known]`` positions in ``states``.
        weight: ``[known]``: confidence times column ``weight`` where there is one; mean 1.
        folds: (training, test) positions; training holds rows to learn from only; see ``splits.folds``.
        grouped: whether folds are whole subjects (else blocks of time).
        notes: columns left out and why; fewer folds than asked for and why.
    """

    decision: Decision
    everything: Examples
    examples: Examples
    learn: NDArray[np.bool_]
    y: Ints
    weight: Floats
    folds: list[splits.Fold]
    grouped: bool
    notes: tuple[str, ...]

    @property
    def states(self) -> tuple[str, ...]:
        """In the order of ``p``."""
        return tuple(self.decision.states)

    @property
    def x(self) -> NDArray[np.float32]:
        """``[known, columns]``."""
        return self.examples.x

    def windows_of(self, which: Ints) -> Windows:
        """Raw windows of some rows."""
        return {name: np.asarray(values[which]) for name, values in self.examples.windows.items()}

    def rows(self, which: Ints) -> Rows:
        """Training rows, in the order that inner validation cuts: by subject, or by time."""
        frame = self.examples.rows
        if not self.grouped:
            which = which[np.argsort(frame["at_us"].to_numpy()[which], kind="stable")]
        groups = pd.factorize(frame["subject"].to_numpy()[which])[0] if self.grouped else None
        return Rows(
            self.x[which],
            self.y[which],
            self.weight[which],
            self.windows_of(which),
            None if groups is None else groups.astype(np.int64),
            self.examples.columns,
        )

    @property
    def fold_of(self) -> Ints:
        """``[known]`` number of the fold that tests a row."""
        out = np.zeros(len(self.y), dtype=np.int64)
        for i, (_, test) in enumerate(self.folds):
            out[test] = i
        return out

    def labelled_folds(self) -> list[splits.Fold]:
        """The folds as positions among the rows learned from; a fold that tests none of them is left out."""
        place = np.cumsum(self.learn) - 1
        found = [(place[train], place[test[self.learn[test]]]) for train, test in self.folds]
        return [(train.astype(np.int64), test.astype(np.int64)) for train, test in found if len(test)]

    def compact(self, which: Ints) -> tuple[Rows, Ints]:
        """Training rows with codes of the states that occur, and those states' positions."""
        rows = self.rows(which)
        present, codes = np.unique(rows.y, return_inverse=True)
        compacted = Rows(rows.x, codes.astype(np.int64), rows.weight, rows.windows, rows.groups, rows.names)
        return compacted, present.astype(np.int64)


def pose(examples: Examples, decision: Decision, folds: int, seed: int) -> Problem:
    """Check what is given and cut the folds.

    Raises:
        DataError: too many columns, no column that varies, too few labelled rows, one state only, a state
            the decision does not declare, or no folds.
    """
    check_width(examples)
    known = examples.known()
    learn = known.rows["status"].isin(BELIEVED).to_numpy(dtype=bool)
    if learn.sum() < FEWEST:
        raise DataError(
            f"{learn.sum()} labelled rows of {len(examples)}",
            expected=f"at least {FEWEST}",
            do=f"Import more outcomes{_young(examples)}. Detectors need no labels: "
            f"families {', '.join(DETECTORS)}.",
        )
    states = list(decision.states)
    said = known.rows["state"].astype(str)
    _check_declared(said, states, decision)
    _check_several(said[learn], _young(examples), decision)
    keep, notes = informative(known.x[learn], known.columns)
    names = [known.columns[i] for i in keep]
    known = known.with_columns(names)
    cuts = _learning_folds(known.rows, learn, decision, folds, seed)
    return Problem(
        decision,
        examples.with_columns(names),
        known,
        learn,
        np.array([states.index(state) for state in said], dtype=np.int64),
        _weights(known.rows),
        cuts,
        splits.by_subject(known.rows, decision),
        notes + fewer_folds(len(cuts), folds, known.rows, decision),
    )


def fewer_folds(made: int, asked: int, rows: pd.DataFrame, decision: Decision) -> tuple[str, ...]:
    """A note where fewer folds were made than asked for: what must stay together sets a limit."""
    if made >= asked:
        return ()
    column, what = ("subject", "subjects") if splits.by_subject(rows, decision) else ("at_us", "instants")
    return (f"{made} folds, not {asked}: there are {rows[column].nunique()} {what}",)


def _learning_folds(
    rows: pd.DataFrame, learn: NDArray[np.bool_], decision: Decision, n: int, seed: int
) -> list[splits.Fold]:
    out = [(train[learn[train]], test) for train, test in splits.folds(rows, decision, n, seed)]
    if any(len(train) == 0 for train, _ in out):
        raise DataError(
            f"{n} folds: one is left with no row to learn from",
            do="Collect outcomes from more subjects or over a longer time, or ask for fewer folds.",
        )
    return out


def check_width(examples: Examples) -> None:
    """Refuse more columns than memory and sense allow."""
    if len(examples.columns) > WIDEST:
        raise DataError(
            f"{len(examples.columns):,} columns",
            expected=f"at most {WIDEST:,}",
            do="Choose features by name, or a shorter recipe such as 'plain' or 'segments:6'.",
        )


def _check_declared(said: pd.Series, states: list[str], decision: Decision) -> None:
    unknown = sorted(set(said) - set(states))
    if unknown:
        raise DataError(
            f"labels name the state '{unknown[0]}', which decision '{decision.id}' does not declare",
            expected=", ".join(states),
            do=did_you_mean(unknown[0], states) or "Declare it in the decision file, or map it on import.",
        )


def _young(examples: Examples) -> str:
    """What to do about rows whose outcome may still come."""
    young = int((examples.rows["status"] == "pending").sum())
    if not young:
        return ""
    return (
        f", or wait until those of {young:,} rows that are pending mature (where the record is complete, say "
        "so with --as-of, a later time)"
    )


def _check_several(said: pd.Series, young: str, decision: Decision) -> None:
    counts = said.value_counts()
    quiet = "" if decision.outcome.silence else (
        f", or set outcome.silence in the decision file ('{decision.uneventful}') where no report means that "
        "nothing was wrong"
    )  # fmt: skip
    if len(counts) < 2:
        raise DataError(
            f"all {len(said)} labelled rows have one state, '{counts.index[0]}'",
            expected="at least two states to tell apart",
            do=f"Collect outcomes of other states{young}{quiet}; until then keep the written rule, or train "
            f"detectors, which need no labels: families {', '.join(DETECTORS)}.",
        )


def _weights(rows: pd.DataFrame) -> Floats:
    weight = np.nan_to_num(rows["confidence"].to_numpy(dtype=np.float64), nan=1.0)
    if "weight" in rows.columns:
        given = rows["weight"].to_numpy(dtype=np.float64)
        if not (given >= 0).all():
            raise DataError("column 'weight'", expected="numbers from 0 up", found="others")
        weight = weight * given
    weight = np.maximum(weight, _LEAST)
    return np.asarray(weight / weight.mean())
