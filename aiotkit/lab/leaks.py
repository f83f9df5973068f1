"""The leak audit: does anything but the machine's condition give the state away?

Checked on the rows that would be learned from:

- **grouping**: a quick model under row-shuffled folds against the folds that are used. A gap means that it
  recognises subjects (or neighbours in time) instead of states; the grouped figures say what it is worth.
- **overlap**: the folds themselves: subjects, or times within one horizon, on both sides.
- **calendar**: dates alone (of the row, of the subject's first and last row, how many rows it has) predict
  the state of subjects never seen. **counter**: columns that follow the time; they bring a calendar leak in.
- **giveaway**: one column alone tells the state. That may be physics, or the label in disguise.
- **sampling**: the state follows how often, by whom or how completely was measured.
- **duplicates**: the same row under several subjects.

A ``leak`` does not pass; neither does ``unchecked`` (too little data). A ``suspect`` passes, to be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab import splits
from aiotkit.lab.examples import Examples
from aiotkit.lab.giveaways import (
    Folds,
    Giveaway,
    best_alone,
    carriers,
    known_alone,
    label_columns,
    rank_auc,
    shared_rows,
    split_scores,
    told_apart,
)

Severity = Literal["leak", "unchecked", "suspect", "fine"]
_ORDER = {"leak": 0, "unchecked": 1, "suspect": 2, "fine": 3}
#: rows a quick model sees, columns it sees, folds; fewer labelled rows than the last are not audited
_ROWS, _COLUMNS, _FOLDS, _FEWEST = 8000, 60, 5, 30
#: a shuffled score this much above the grouped one, and so many standard errors, is a gap
_GAP, _ERRORS = 0.02, 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its name, how bad it is, in words, and with its figures."""

    name: str
    severity: Severity
    words: str
    figures: Mapping[str, float] = field(default_factory=dict)
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.words}"


@dataclass(frozen=True)
class LeakAudit:
    """What was checked, worst first.

    Attributes:
        findings: one a check.
        scores: split -> balanced accuracy of the same quick model, for the figure.
        columns: one row a column: ``column``, ``auc`` (of the state it ranks best), ``precision`` and
            ``recall`` alone for ``state``, ``carries`` ('counter', 'calendar' or '').
    """

    findings: tuple[Finding, ...]
    scores: Mapping[str, float]
    columns: pd.DataFrame

    @property
    def passed(self) -> bool:
        """Whether nothing was found that must be mended first, and everything could be checked."""
        return not any(f.severity in ("leak", "unchecked") for f in self.findings)

    @property
    def flagged(self) -> tuple[Finding, ...]:
        """What is not fine."""
        return tuple(f for f in self.findings if f.severity != "fine")

    @property
    def table(self) -> pd.DataFrame:
        """``check``, ``severity``, ``words``: for a page."""
        return pd.DataFrame(
            [(f.name, f.severity, f.words) for f in self.findings], columns=["check", "severity", "words"]
        )


def audit(examples: Examples, decision: Decision, *, seed: int, folds: Folds | None = None) -> LeakAudit:
    """Audit the labelled rows of a training set.

    Args:
        examples: what would be learned from; rows without a believed state are left out.
        decision: its states, horizon, and what is resampled.
        seed: of subsamples, folds and the quick model.
        folds: those that will be used, as (train, test) positions in the labelled rows; by default
            ``splits.folds``.
    """
    given = examples.labelled()
    states = given.rows["state"].astype(str)
    counts = states.value_counts()
    if len(given) < _FEWEST or len(counts) < 2 or int(counts.iloc[1]) < _FOLDS or not given.columns:
        said = ", ".join(f"{n} x '{s}'" for s, n in counts.items()) or "none"
        words = (
            f"too little to audit: {len(given)} labelled rows ({said}), {len(given.columns)} columns. At "
            f"least {_FEWEST} rows, two states of {_FOLDS} rows and a column are needed; collect more "
            "outcomes first"
        )
        return LeakAudit((Finding("data", "unchecked", words),), {}, pd.DataFrame())
    if folds is None:
        try:
            folds = splits.folds(given.rows, decision, _FOLDS, seed)
        except DataError as error:
            return LeakAudit((Finding("data", "unchecked", str(error)),), {}, pd.DataFrame())
    bench = _Bench(given, decision, folds, seed)
    calendar = bench.calendar()
    findings = [
        bench.grouping(),
        bench.overlap(),
        *bench.time(calendar),
        bench.giveaway(),
        bench.sampling(),
        bench.duplicates(),
    ]
    findings.sort(key=lambda f: _ORDER[f.severity])
    return LeakAudit(tuple(findings), bench.scores, bench.columns())


class _Bench:
    """The labelled rows, a subsample of them, and the folds restricted to it."""

    def __init__(self, given: Examples, decision: Decision, folds: Folds, seed: int) -> None:
        x = np.where(np.isfinite(given.x), given.x, np.float32(np.nan))
        self.given, self.decision, self.folds, self.seed = replace(given, x=x), decision, folds, seed
        rng = np.random.default_rng(seed)
        n = len(given)
        keep = np.arange(n) if n <= _ROWS else np.sort(rng.choice(n, _ROWS, replace=False))
        place = np.full(n, -1)
        place[keep] = np.arange(len(keep))
        inside = [(place[train], place[test]) for train, test in folds]
        self.few = self.given.take(keep)
        self.inside: Folds = [(a[a >= 0], b[b >= 0]) for a, b in inside]
        self.states = self.few.rows["state"].astype(str).to_numpy()
        self.subjects = self.few.rows["subject"].astype(str).to_numpy()
        self.alone_rows = given.rows["subject"].nunique() < 2
        self.scores: dict[str, float] = {}
        self.auc, self.auc_state = rank_auc(self.few.x, self.states)
        self.carries = carriers(self.given)
        apart = told_apart(self.few.x, self.states)
        promising = np.argsort(-apart, kind="stable")[:_COLUMNS]
        self.chosen = np.sort(np.union1d(promising, [j for j, c in enumerate(self.carries) if c][:_COLUMNS]))
        self.alone: dict[int, Giveaway] = {
            int(j): known_alone(self.few.x[:, int(j)], self.states, self.inside) for j in promising
        }

    def grouping(self) -> Finding:
        """Shuffled against grouped."""
        rng = np.random.default_rng(self.seed)
        fold_of = rng.permutation(len(self.states)) % _FOLDS
        mixed = [(np.flatnonzero(fold_of != k), np.flatnonzero(fold_of == k)) for k in range(_FOLDS)]
        x, clusters = self.few.x[:, self.chosen.astype(int)], self._clusters()
        loose, tight, error = split_scores(x, self.states, clusters, (mixed, self.inside), self.seed)
        self.scores |= {"row-shuffled folds": loose, "folds used": tight}
        figures = {"shuffled": loose, "grouped": tight, "standard_error": error}
        said = f"balanced accuracy {loose:.3f} with rows shuffled, {tight:.3f} with the folds used"
        if loose - tight > max(_GAP, _ERRORS * error):
            kept = "neighbours in time" if self._by_time() else "subjects"
            words = f"{said}: a model recognises {kept}. Report only figures with {kept} kept apart"
            return Finding("grouping", "suspect", words, figures)
        return Finding("grouping", "fine", f"{said}: no more than chance apart", figures)

    def _by_time(self) -> bool:
        return self.alone_rows or self.decision.resample == "block"

    def _clusters(self) -> NDArray[np.int64]:
        """What errors are correlated within: subjects, or one of 20 stretches of time."""
        if not self._by_time():
            return np.asarray(pd.factorize(self.subjects)[0], dtype=np.int64)
        rank = np.argsort(np.argsort(self.few.rows["at_us"].to_numpy(), kind="stable"), kind="stable")
        return np.asarray(rank * 20 // len(rank), dtype=np.int64)

    def overlap(self) -> Finding:
        """Whether the folds keep apart what belongs together."""
        rows = self.given.rows
        subject, at = rows["subject"].astype(str).to_numpy(), rows["at_us"].to_numpy(dtype=np.int64)
        horizon = round(self.decision.outcome.horizon_s * 1e6)
        shared: set[str] = set()
        close = 0
        for train, test in self.folds:
            both = set(subject[train]) & set(subject[test])
            shared |= both
            close += sum(
                _closer(at[test[subject[test] == s]], at[train[subject[train] == s]], horizon) for s in both
            )
        figures = {"subjects_shared": float(len(shared)), "rows_within_horizon": float(close)}
        if close:
            words = (
                f"{close} training rows lie within one horizon of a test row of the same subject: they "
                "share an outcome. Make folds by subject, or by time with a gap of the horizon"
            )
            return Finding("overlap", "leak", words, figures)
        if shared and not self._by_time():
            words = (
                f"{len(shared)} subjects are in training and test, apart in time (too few subjects to keep "
                "them apart): nothing is known about a new subject"
            )
            return Finding("overlap", "suspect", words, figures)
        return Finding("overlap", "fine", "training and test share no subject, or no outcome", figures)

    def calendar(self) -> tuple[str, Giveaway]:
        """Which date tells most, in the folds used."""
        rows = self.given.rows
        at = rows["at_us"]
        by = at.groupby(rows["subject"].astype(str))
        dates = {"the row's date": at}
        if not self.alone_rows:
            dates |= {
                "the date of the subject's last row": by.transform("max"),
                "the date of the subject's first row": by.transform("min"),
                "how many rows the subject has": by.transform("size"),
            }
        first = float(at.min())
        values = {name: (v.to_numpy(dtype=np.float64) - first) / 1e6 for name, v in dates.items()}
        states = rows["state"].astype(str).to_numpy()
        return best_alone(values, states, self.folds, self.seed)

    def time(self, calendar: tuple[str, Giveaway]) -> list[Finding]:
        """Dates that tell the state, and the columns that carry dates."""
        name, found = calendar
        named = [(c, kind) for c, kind in zip(self.given.columns, self.carries, strict=True) if kind]
        columns = tuple(c for c, _ in named)
        figures = {"precision": found.precision, "recall": found.recall}
        measured = f"precision {found.precision:.2f} and recall {found.recall:.2f}"
        said = f"{name} alone tells '{found.state}' with {measured}"
        if not found.sure:
            kinds = Finding("counter", "fine", "no column follows the time")
            if columns:
                words = f"a model may learn the date from what follows the time: {_listed(columns)}"
                kinds = Finding("counter", "suspect", words, self._without(columns), columns)
            words = f"dates do not tell the state (best: {name}, {measured})"
            return [Finding("calendar", "fine", words, figures), kinds]
        leak: Severity = "leak" if columns and not self.alone_rows else "suspect"
        what = (
            f"{said}, from times before and after: states come in long stretches. Trust only folds by blocks "
            "of time"
            if self.alone_rows
            else f"{said} on subjects never seen: rows of different states were taken at different times. "
            "Take rows of all states over the same dates"
        )
        calendar_finding = Finding("calendar", leak, what, figures, columns)
        if not columns:
            return [calendar_finding, Finding("counter", "fine", "no column carries the date in")]
        words = f"leave out what follows the time and carries the date in: {_listed(columns)}"
        return [calendar_finding, Finding("counter", leak, words, self._without(columns), columns)]

    def _without(self, columns: Sequence[str]) -> dict[str, float]:
        """The grouped score without some columns."""
        gone = {self.given.columns.index(c) for c in columns}
        kept = [int(j) for j in self.chosen if int(j) not in gone]
        if not kept:
            return {}
        x = self.few.x[:, kept]
        score, _, _ = split_scores(x, self.states, self._clusters(), (self.inside,), self.seed)
        self.scores["folds used, without columns that carry time"] = score
        return {"grouped_without": score}

    def giveaway(self) -> Finding:
        """Columns that alone tell a state."""
        answers = label_columns(self.given)
        if answers:
            words = (
                f"{_listed(answers)} is what the label was read from: a model is told the answer. Take it "
                "out of the decision file"
            )
            return Finding("giveaway", "leak", words, {}, tuple(answers))
        alone = {self.given.columns[j]: (j, g) for j, g in self.alone.items() if g.telling}
        disguised = [
            name
            for name, (j, g) in alone.items()
            if g.perfect and len(np.unique(self.few.x[:, j])) <= len(self.decision.states) + 1
        ]
        if disguised:
            words = (
                f"{_listed(disguised)} is the state in other words (a few values, never wrong). Leave it "
                "out, unless the device knows it before it decides"
            )
            return Finding("giveaway", "leak", words, {}, tuple(disguised))
        gaps = self._told_by_absence()
        if gaps:
            words = (
                f"whether {_listed(gaps)} is known at all tells the state: it is filled in because of it. "
                "Leave it out"
            )
            return Finding("giveaway", "leak", words, {}, tuple(gaps))
        if alone:
            words = (
                f"{_listed(list(alone))} alone tells a state with precision and recall above 0.9. Make sure "
                "that it is measured before the decision and does not come from those who set the label"
            )
            figures = {f"recall {n}": g.recall for n, (_, g) in list(alone.items())[:5]}
            return Finding("giveaway", "suspect", words, figures, tuple(alone))
        return Finding("giveaway", "fine", "no column alone tells a state")

    def _told_by_absence(self) -> list[str]:
        missing = np.isnan(self.few.x)
        share = missing.mean(axis=0)
        apart = told_apart(np.where(missing, np.float32(1), np.float32(0)), self.states)
        some = [j for j in np.argsort(-apart, kind="stable") if 0.01 < share[j] < 0.99][:_COLUMNS]
        told = [
            (int(j), known_alone(missing[:, j].astype(np.float32), self.states, self.inside)) for j in some
        ]
        return [self.given.columns[j] for j, g in told if g.telling]

    def sampling(self) -> Finding:
        """Whether the state follows the way of measuring."""
        rows = self.given.rows
        ordered = rows.sort_values(["subject", "at_us"], kind="stable")
        step = ordered["at_us"].groupby(ordered["subject"].astype(str)).diff()
        usual = step.groupby(ordered["subject"].astype(str)).transform("median").reindex(rows.index)
        values = {"how many columns are known": np.isnan(self.given.x).sum(axis=1).astype(np.float64)}
        if not self.alone_rows:
            values["the usual step between a subject's rows"] = np.log(
                usual.fillna(0).to_numpy(dtype=np.float64) + 1
            ).round(1)
        for name, windows in self.given.windows.items():
            if windows.shape[1] > 2:
                held = np.diff(windows[:, : 1 << 12], axis=1) == 0
                values[f"how often a sample of '{name}' repeats the one before"] = held.mean(axis=1)
        for name in ("source", "device", "rate_hz"):
            if name in rows.columns:
                values[f"the row's {name}"] = pd.factorize(rows[name])[0].astype(np.float64)
        values = {n: v for n, v in values.items() if len(np.unique(v)) > 1}
        if not values:
            return Finding("sampling", "fine", "all rows were measured alike")
        states = rows["state"].astype(str).to_numpy()
        name, found = best_alone(values, states, self.folds, self.seed)
        figures = {"precision": found.precision, "recall": found.recall}
        if found.sure:
            words = (
                f"{name} alone tells '{found.state}' (precision {found.precision:.2f}, recall "
                f"{found.recall:.2f}): states were measured in different ways, and a model may learn the "
                "way. Bring them to one rate and source"
            )
            return Finding("sampling", "suspect", words, figures)
        return Finding("sampling", "fine", "the state does not follow the way of measuring", figures)

    def duplicates(self) -> Finding:
        """Rows that occur, value by value, under several subjects."""
        x = self.given.x
        varied = [j for j in range(min(x.shape[1], _COLUMNS)) if len(np.unique(x[:2000, j])) > 20]
        if len(varied) < 3 or self.alone_rows:
            return Finding(
                "duplicates", "fine", "not applicable: one subject, or few columns with many values"
            )
        share = shared_rows(x[:, varied], self.given.rows["subject"].astype(str))
        if share < 0.005:
            return Finding("duplicates", "fine", "no row is copied between subjects", {"share": share})
        words = (
            f"{share:.1%} of the rows occur value by value under several subjects: a subject has two names, "
            "or rows were copied. Keep each once, under one name"
        )
        return Finding("duplicates", "leak" if share >= 0.05 else "suspect", words, {"share": share})

    def columns(self) -> pd.DataFrame:
        """One row a column."""
        nothing = Giveaway("", float("nan"), float("nan"), float("nan"))
        told = [self.alone.get(j, nothing) for j in range(len(self.given.columns))]
        frame = pd.DataFrame(
            {
                "column": list(self.given.columns),
                "auc": self.auc,
                "state": [g.state or s for g, s in zip(told, self.auc_state, strict=True)],
                "precision": [g.precision for g in told],
                "recall": [g.recall for g in told],
                "carries": list(self.carries),
            }
        )
        return frame.sort_values(["auc", "column"], ascending=[False, True], ignore_index=True)


def _closer(test: NDArray[np.int64], train: NDArray[np.int64], span: int) -> int:
    """How many training instants lie less than a span from a test instant."""
    if not len(test) or not len(train):
        return 0
    test = np.sort(test)
    right = np.searchsorted(test, train)
    after = np.abs(test[np.minimum(right, len(test) - 1)] - train)
    before = np.abs(test[np.maximum(right - 1, 0)] - train)
    return int((np.minimum(after, before) < span).sum())


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(f"`{n}`" for n in names[:6]) + more
