"""Training: families of heads compete on money under honest splits; the winner leaves as one ONNX graph.

For each fold a family learns on the training rows (choosing its settings on contiguous parts of them),
and says logits for the test rows. Calibration of a fold's probabilities is fitted on the *other* folds'
logits. Actions follow from calibrated probabilities and novelty by least expected cost, and are priced by
``lab.judge``: no row that judges a family was seen by its head, its calibration or its margin.

The cheapest family wins, unless a simpler one (order of ``FAMILIES``) cannot be told from it: the paired
interval of the difference holds zero. With costs unknown, log-loss takes the place of money. A family that
fails, or whose graph does not decide what the library decides, is refused with the reason; the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab import judge, leaks
from aiotkit.lab.books import Names
from aiotkit.lab.calibrate import NEVER, Calibration, choose_calibration, fit_calibration, no_calibration
from aiotkit.lab.contest import FIGURES, judged, winner
from aiotkit.lab.detect import detect
from aiotkit.lab.examples import OWN_WORDS, Examples
from aiotkit.lab.heads.base import Family, Floats, Ints, Windows
from aiotkit.lab.heads.detectors import DETECTORS
from aiotkit.lab.heads.own import chosen_families
from aiotkit.lab.heads.whole import WholeHead
from aiotkit.lab.novelty import learn_novelty
from aiotkit.lab.problem import Problem, pose
from aiotkit.lab.trained import Trained, probes

log = logging.getLogger(__name__)
#: (stage in words, share of the whole that is done)
Report = Callable[[str, float], None]
DEFAULT = ("lda", "logistic", "hgb", "forest", "mlp")
Families = Sequence[str] | Mapping[str, Any]
NOT_AUDITED = leaks.LeakAudit(
    (leaks.Finding("data", "unchecked", "no audit was asked for"),), {}, pd.DataFrame()
)


@dataclass(frozen=True)
class Training:
    """What training found.

    Attributes:
        trained: the family chosen.
        oof_p: ``[known rows, states]`` out-of-fold probabilities of that family, calibrated on other folds.
        oof_novelty: ``[known rows]``.
        oof_rows: the known rows (``Examples.known``), in the order of ``oof_p``; where nothing was censored
            those are the labelled ones.
        oof_fold: ``[known rows]`` which fold a row was tested in.
        oof_margins: ``[known rows]`` the margin (``lab.contest``) that was best on the folds a row is not of.
        audit: the leak audit of the rows learned from and the same folds.
        comparison: families and reference policies side by side, cheapest first; empty if costs are unknown.
    """

    trained: Trained
    oof_p: Floats
    oof_novelty: Floats
    oof_rows: pd.DataFrame
    oof_fold: Ints
    oof_margins: Floats
    audit: leaks.LeakAudit
    comparison: pd.DataFrame

    def actions(self, decision: Decision) -> Names:
        """What the family would have done on each known row; neither head nor margin had seen the row."""
        return judge.actions_with(self.oof_margins, self.oof_p, decision, self.oof_novelty)

    @property
    def table(self) -> pd.DataFrame:
        """One row a family tried."""
        return pd.DataFrame(self.trained.table)


def train(
    examples: Examples,
    decision: Decision,
    *,
    families: Families = DEFAULT,
    folds: int = 5,
    seed: int,
    progress: Report | None = None,
    baseline: Sequence[str] | None = None,
    audited: bool = True,
) -> Training:
    """Let families compete and keep the one that costs least.

    Args:
        examples: rows with and without known states; those without are left aside, and what was acted upon
            is judged on but not learned from.
        decision: its states, costs, horizon, ``resample``.
        families: names of ``heads.FAMILIES``; or name -> a family or scikit-learn estimator of your own; or
            names of ``heads.detectors.DETECTORS`` where there are no labels.
        folds: how many; see ``splits.folds``.
        seed: of folds, families and intervals: the same inputs and seed give the same head bytes.
        progress: called with the stage in words and the share done.
        baseline: an action for each known row, to compare with (the written rule's, the champion's).
        audited: False = no leak audit (``unchecked``), for experiments of many rounds.

    Raises:
        DataError: there is too little to learn from, or every family was refused.
    """
    report, seed = progress or _silent, seed % (1 << 32)  # scikit-learn takes no larger ones
    if not isinstance(families, Mapping) and set(families) & set(DETECTORS):
        return _without_labels(examples, decision, tuple(families), folds, seed, report, baseline, audited)
    given = chosen_families(families)
    with threadpool_limits(limits=1):  # sums do not depend on the number of cores
        problem = pose(examples, decision, folds, seed)
        return _Contest(problem, given, seed, report).run(baseline, audited=audited)


def _without_labels(
    examples: Examples,
    decision: Decision,
    names: tuple[str, ...],
    folds: int,
    seed: int,
    report: Report,
    baseline: Sequence[str] | None,
    audited: bool,
) -> Training:
    others = sorted(set(names) - set(DETECTORS))
    if others:
        raise DataError(
            f"families '{others[0]}' and '{(set(names) & set(DETECTORS)).pop()}'",
            expected="either families that learn from labels, or detectors, which do without",
        )
    with threadpool_limits(limits=1):
        found = detect(examples, decision, names, folds=folds, seed=seed, report=report, baseline=baseline)
        audit = leaks.audit(examples, decision, seed=seed) if audited else NOT_AUDITED
    nothing = np.zeros(len(found.p))
    return Training(
        found.trained, found.p, nothing, found.rows, found.fold, found.margins, audit, found.comparison
    )


def _silent(stage: str, share: float) -> None:
    """Nobody watches."""


@dataclass
class _Entry:
    """A family in the contest: its out-of-fold logits and calibrated probabilities."""

    logits: Floats
    p: Floats
    refused: str = ""


class _Contest:
    """Folds, novelty and money of a problem, and the families that compete on it."""

    def __init__(self, problem: Problem, families: Mapping[str, Family], seed: int, report: Report) -> None:
        self.problem, self.families, self.seed, self.report = problem, families, seed, report
        self.steps = len(families) * len(problem.folds) + 4

    def run(self, baseline: Sequence[str] | None, *, audited: bool) -> Training:
        problem = self.problem
        novelty = self._novelty()
        entries = {
            name: self._enter(name, family, 1 + i * len(problem.folds))
            for i, (name, family) in enumerate(self.families.items())
        }
        table, comparison, margins = judged(problem, entries, novelty, baseline, self.seed)
        trained = None
        while trained is None:
            name = winner(table, money=not isinstance(problem.decision.costs, str))
            try:
                trained = self._finish(name, entries[name], table)
            except DataError as error:
                table = [row | ({"refused": str(error)} if row["family"] == name else {}) for row in table]
        audit = self._audit() if audited else NOT_AUDITED
        self.report("done", 1.0)
        p, rows = entries[name].p, problem.examples.rows
        return Training(trained, p, novelty, rows, problem.fold_of, margins[name], audit, comparison)

    def _audit(self) -> leaks.LeakAudit:
        problem = self.problem
        self._step("leak audit", self.steps - 1)(0.0)
        return leaks.audit(problem.examples, problem.decision, seed=self.seed, folds=problem.labelled_folds())

    def _step(self, words: str, start: int) -> Callable[[float], None]:
        return lambda share: self.report(words, (start + min(max(share, 0.0), 1.0)) / self.steps)

    def _novelty(self) -> Floats:
        out, step = np.zeros(len(self.problem.y)), self._step("novelty", 0)
        for i, (train_rows, test) in enumerate(self.problem.folds):
            out[test] = learn_novelty(self.problem.rows(train_rows)).apply(self.problem.x[test])
            step((i + 1) / len(self.problem.folds))
        return out

    def _enter(self, name: str, family: Family, start: int) -> _Entry:
        problem = self.problem
        logits = np.full((len(problem.y), len(problem.states)), NEVER)
        try:
            for i in range(len(problem.folds)):
                step = self._step(f"{name}: fold {i + 1} of {len(problem.folds)}", start + i)
                self._enter_fold(name, family, i, logits, step)
        except DataError as error:
            log.info("family '%s' is refused: %s", name, error)
            return _Entry(logits, np.zeros_like(logits), str(error))
        return _Entry(logits, self._cross_calibrated(logits))

    def _enter_fold(
        self, name: str, family: Family, i: int, logits: Floats, step: Callable[[float], None]
    ) -> None:
        """Fill the fold's test rows; the graph is compared with the library in the first one."""
        problem = self.problem
        train_rows, test = problem.folds[i]
        rows, present = problem.compact(train_rows)
        if len(present) < 2:  # nothing to tell apart: the one state that this fold knows
            logits[np.ix_(test, present)] = 0.0
            return
        fitted = family.fit(rows, seed=self.seed, progress=step)
        found = fitted.logits(problem.x[test], problem.windows_of(test))
        if not np.isfinite(found).all():
            raise DataError(f"family '{name}': logits", expected="finite numbers", found="NaN or infinity")
        logits[np.ix_(test, present)] = found
        if i == 0:
            whole = WholeHead(fitted, no_calibration(len(present)), present, len(problem.states), None)
            self._graph_of(name, whole, problem.x[test], problem.windows_of(test))
        step(1.0)

    def _graph_of(self, name: str, whole: WholeHead, x: NDArray[np.float32], windows: Windows) -> bytes:
        samples = {signal: values.shape[1] for signal, values in self.problem.examples.windows.items()}
        head = whole.to_onnx(x.shape[1], samples)
        whole.check_parity(head, x, windows, name)
        return head

    def _cross_calibrated(self, logits: Floats) -> Floats:
        """Probabilities; each fold's are calibrated on the other folds' logits."""
        problem, p = self.problem, np.zeros_like(logits)
        for _, test in problem.folds:
            others = np.setdiff1d(np.flatnonzero(problem.learn), test)
            p[test] = self._calibration(logits, others).apply(logits[test])
        return p

    def _calibration(self, logits: Floats, which: Ints) -> Calibration:
        """Biases only where folds are subjects: which states a block of time holds is an accident."""
        problem = self.problem
        given = logits[which], problem.y[which], problem.weight[which]
        if problem.grouped:
            return choose_calibration(*given, problem.fold_of[which])
        return fit_calibration(*given, biased=False)

    def _finish(self, name: str, entry: _Entry, table: list[dict[str, Any]]) -> Trained:
        """Learn once more, from all labelled rows, and write the graph.

        Raises:
            DataError: the family fails on all rows, or its graph does not pass.
        """
        problem = self.problem
        step = self._step(f"{name}: all rows", self.steps - 3)
        learn = np.flatnonzero(problem.learn)
        rows, present = problem.compact(learn)
        fitted = self.families[name].fit(rows, seed=self.seed, progress=step)
        found = self._calibration(entry.logits, learn)
        calibration = Calibration(found.temperature, found.bias[present])
        self._step("novelty limits", self.steps - 2)(0.0)
        whole = WholeHead(fitted, calibration, present, len(problem.states), learn_novelty(rows))
        probe_x, windows = probes(problem.everything, fitted.signals)
        head = self._graph_of(name, whole, probe_x, windows)
        row = next(row for row in table if row["family"] == name)
        figures = {k: float(row[k]) for k in FIGURES} | {
            f"setting.{k}": v for k, v in fitted.settings.items()
        }
        figures |= {"temperature": calibration.temperature, "rows": float(len(learn))}
        return Trained(
            decision_digest=problem.decision.digest,
            family=name,
            features=tuple(c for c in problem.examples.columns if not c.startswith(("history.", "context."))),
            columns=problem.examples.columns,
            signals=fitted.signals,
            states=problem.states,
            head=head,
            probe_x=probe_x,
            probe_p=whole.p(probe_x, windows),
            table=[r | {"chosen": r["family"] == name} for r in table],
            figures=figures,
            seed=self.seed,
            probe_windows=windows,
            notes=problem.notes + self._never_seen(present),
            own_words=problem.examples.sources.get(OWN_WORDS, ""),
        )

    def _never_seen(self, present: Ints) -> tuple[str, ...]:
        names = [s for i, s in enumerate(self.problem.states) if i not in present]
        words = "no labelled row has it, so p is 0 and only novelty can point to it"
        return tuple(f"state '{name}': {words}" for name in names)
