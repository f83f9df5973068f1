"""From reports to labels: the rules, without a lake.

A decision taken at t about a subject looks at the reports whose state held within [t, t + horizon): its
episode. What holds at the end of one episode belongs to the next.

- **pending**: t + maturity lies after ``as_of``; nothing is said yet.
- **mature**: it was not acted upon. The reported state is its outcome; without a report, silence means the
  declared state, unless an intervening action was ordered within the horizon.
- **censored**: an action that intervenes was in force (or was ordered within the horizon and nobody
  reported a state): what would have happened is unknown. A state that somebody found is kept with it: it
  prices what was done, and is not learned from.
- **verified**: the decision drew a random check and an inspection found a state, whatever was done.
- **unlabelled**: nobody reported and silence means nothing. **unassigned**: the device watched nothing.

Of several reports by one source the first that is not the ``silence`` state (the uneventful one where
silence means nothing) counts: after it the machine was touched. Reports of that state before an event do not
speak against it. A report that comes after maturity still counts once it is here: evidence outweighs silence.

Confidence is naive Bayes over the states with equal priors and independent sources: a source of
reliability r names the true state with probability r and each other one with (1 − r) / (K − 1). Silence
has probability 1 in its own state and the product of (1 − r) over the sources that report another one.

What only an inspector found is weighed against the silence of those who speak unasked: nobody else noticed
anything within the horizon, and nothing was done that could have prevented it. An inspector who is wrong once
in ten times finds more faults on machines that are fine than there are worn ones: taken at his word, random
checks of a healthy fleet teach mostly mistakes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision, OutcomeSource

INSPECTION = "inspection"
#: how the provenance of a report begins that was read from a column
_COLUMN = "label column "
STATUSES = ("pending", "mature", "censored", "verified", "unlabelled", "unassigned")
KEY = ["device", "journal_id", "seq"]
LABELS = [*KEY, "subject", "at_us", "state", "status", "confidence", "source", "provenance"]


@dataclass(frozen=True, slots=True)
class Report:
    """What a source said: the state that held at ``at_us``, said at ``reported_us``."""

    state: str
    at_us: int
    reported_us: int
    source: str
    reliability: float
    kind: str = "report"


@dataclass(frozen=True, slots=True)
class Belief:
    """A state, how sure we are of it, by whom and from what."""

    state: str | None
    confidence: float | None
    sources: tuple[str, ...] = ()
    provenance: str = ""


def believe(
    reports: Sequence[Report],
    states: Sequence[str],
    silence: str | None,
    silent: Sequence[OutcomeSource] = (),
) -> Belief:
    """The likeliest state given what sources said (see the module's formula); ties go to the first state.

    ``silent``: sources that would have spoken unasked and did not.

    >>> said = [Report("worn", 0, 0, "crew", 0.9), Report("ok", 1, 1, "app", 0.6)]
    >>> belief = believe(said, ["ok", "worn"], "ok")
    >>> belief.state, round(belief.confidence, 3)
    ('worn', 0.857)
    """
    counted = _counted(reports, silence)
    weight = dict.fromkeys(states, 1.0)
    for r in counted:
        for s in states:
            weight[s] *= r.reliability if s == r.state else (1 - r.reliability) / max(1, len(states) - 1)
    for source in silent:
        for s in source.reports:
            weight[s] *= 1.0 if s == silence else 1 - source.reliability
    total = sum(weight.values())
    if not total > 0:  # certain sources that contradict each other
        return Belief(
            None, None, tuple(r.source for r in counted), _said(counted) + "; they exclude each other"
        )
    best = max(states, key=lambda s: weight[s])
    return Belief(best, weight[best] / total, tuple(sorted({r.source for r in counted})), _said(counted))


def believe_silence(silence: str, states: Sequence[str], sources: Mapping[str, OutcomeSource]) -> Belief:
    """What it means that nobody reported anything (see the module's formula)."""
    others = sum(
        float(np.prod([1 - s.reliability for s in sources.values() if state in s.reports]))
        for state in states
        if state != silence
    )
    return Belief(silence, 1 / (1 + others), (), "silence")


def _counted(reports: Sequence[Report], silence: str | None) -> list[Report]:
    ordered = sorted(reports, key=lambda r: (r.at_us, r.reported_us, r.source, r.state))
    events = [r.at_us for r in ordered if r.state != silence]
    ordered = [r for r in ordered if not events or r.state != silence or r.at_us >= events[0]]
    chosen: dict[str, Report] = {}
    for r in ordered:
        held = chosen.get(r.source)
        if held is None or (held.state == silence and r.state != silence):
            chosen[r.source] = r
    return list(chosen.values())


def _said(reports: Sequence[Report]) -> str:
    return json.dumps(
        [[r.source, r.state, r.at_us, r.kind] for r in reports], ensure_ascii=False, separators=(",", ":")
    )


def label(decisions: pd.DataFrame, reports: pd.DataFrame, decision: Decision, as_of_us: int) -> pd.DataFrame:
    """Labels of decisions whose subjects are known.

    Args:
        decisions: ``device``, ``journal_id``, ``seq``, ``subject`` (None = unassigned), ``at_us``,
            ``in_force``, ``verify_hit``.
        reports: ``subject``, ``state``, ``at_us``, ``reported_us``, ``source``, ``reliability``, ``kind``.
        decision: its states and how outcomes are had.
        as_of_us: what is known by then.

    Returns:
        Columns ``LABELS``, one row a decision, sorted by key.
    """
    frame = decisions.sort_values(KEY, ignore_index=True)
    known = reports[reports["reported_us"] <= as_of_us]
    heard = {str(s): _reports_of(g) for s, g in known.groupby("subject")}
    acted = (
        frame["in_force"].map(lambda a: a in decision.actions and decision.actions[a].intervenes).astype(bool)
    )
    acts = {
        str(s): np.sort(g.to_numpy(dtype=np.int64))
        for s, g in frame[acted]["at_us"].groupby(frame["subject"])
    }
    context = _Rules(decision, as_of_us, heard, acts, _asked_only(known))
    columns = [frame["subject"], frame["at_us"], acted, frame["verify_hit"].fillna(value=False).astype(bool)]
    judged = [context.judge(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
    out = frame[[*KEY, "subject", "at_us"]].copy()
    out["state"] = pd.Series([b.state for _, b in judged], dtype=object)
    out["status"] = pd.Series([s for s, _ in judged], dtype=object)
    out["confidence"] = pd.Series([b.confidence for _, b in judged], dtype=float)
    out["source"] = pd.Series(["+".join(b.sources) or None for _, b in judged], dtype=object)
    out["provenance"] = pd.Series([b.provenance or None for _, b in judged], dtype=object)
    return out[LABELS]


@dataclass(frozen=True, slots=True)
class _Heard:
    at_us: NDArray[np.int64]
    reports: tuple[Report, ...]


def _reports_of(rows: pd.DataFrame) -> _Heard:
    rows = rows.sort_values("at_us", kind="stable")
    columns = ["state", "at_us", "reported_us", "source", "reliability", "kind"]
    reports = tuple(Report(*row) for row in zip(*(rows[c].tolist() for c in columns), strict=True))
    return _Heard(rows["at_us"].to_numpy(dtype=np.int64), reports)


def _asked_only(reports: pd.DataFrame) -> frozenset[str]:
    """Sources that have never spoken but when they were sent to look."""
    unasked = set(reports.loc[reports["kind"] != INSPECTION, "source"])
    return frozenset(str(s) for s in set(reports["source"]) - unasked)


class _Rules:
    """The rules of the module's docstring for one decision file and one ``as_of``."""

    def __init__(
        self,
        decision: Decision,
        as_of_us: int,
        heard: Mapping[str, _Heard],
        acts: Mapping[str, NDArray[np.int64]],
        asked_only: frozenset[str],
    ) -> None:
        self._states, self._outcome = tuple(decision.states), decision.outcome
        self._horizon = round(decision.outcome.horizon_s * 1e6)
        self._matures = round(decision.outcome.maturity_s * 1e6)
        self._as_of, self._heard, self._acts = as_of_us, heard, acts
        silence = decision.outcome.silence
        self._quiet = silence or decision.uneventful
        self._silent = (
            None if silence is None else believe_silence(silence, self._states, decision.outcome.sources)
        )
        unasked = {n: s for n, s in decision.outcome.sources.items() if n not in asked_only}
        self._unasked: Mapping[str, OutcomeSource] = unasked if silence is not None else {}
        #: the reports that were weighed last, and what came of it: neighbouring decisions share them
        self._weighed: tuple[Sequence[Report], bool, Belief] = ((), False, Belief(None, None))

    def judge(self, subject: Any, at_us: int, acted: bool, drawn: bool) -> tuple[str, Belief]:
        """Status and belief."""
        if not isinstance(subject, str) or not subject:
            return "unassigned", Belief(None, None)
        if at_us + self._matures > self._as_of:
            return "pending", Belief(None, None)
        reports = self._within(subject, at_us)
        inspected = [r for r in reports if r.kind == INSPECTION]
        touched = acted or self._acts_within(subject, at_us)
        if drawn and inspected:
            return "verified", self._belief(inspected if touched else reports, touched=touched)
        if acted:
            return "censored", self._belief(reports, touched=True)
        if reports:
            return "mature", self._belief(reports, touched=touched)
        if touched:
            return "censored", Belief(None, None, provenance="acted upon later within the horizon")
        return ("unlabelled", Belief(None, None)) if self._silent is None else ("mature", self._silent)

    def _belief(self, reports: Sequence[Report], *, touched: bool) -> Belief:
        if not reports:
            return Belief(None, None)
        if (reports, touched) != self._weighed[:2]:
            silent = () if touched else self._silent_beside(reports)
            self._weighed = (reports, touched, believe(reports, self._states, self._quiet, silent))
        return self._weighed[2]

    def _silent_beside(self, reports: Sequence[Report]) -> Sequence[OutcomeSource]:
        """Sources that speak unasked and did not, where only inspectors found something."""
        found = [r for r in reports if r.state != self._quiet]
        if not found or any(r.kind != INSPECTION for r in found):
            return ()
        said = {r.source for r in reports}
        return [source for name, source in self._unasked.items() if name not in said]

    def _within(self, subject: str, at_us: int) -> Sequence[Report]:
        heard = self._heard.get(subject)
        if heard is None:
            return ()
        first = int(np.searchsorted(heard.at_us, at_us, side="left"))
        last = int(np.searchsorted(heard.at_us, at_us + self._horizon, side="left"))
        return heard.reports[first:last]

    def _acts_within(self, subject: str, at_us: int) -> bool:
        acts = self._acts.get(subject)
        if acts is None:
            return False
        i = int(np.searchsorted(acts, at_us, side="right"))
        return i < len(acts) and bool(acts[i] < at_us + self._horizon)


def from_column(name: str) -> str:
    """What a report's provenance says of the column that it was read from.

    >>> from_column("Condition")
    "label column 'Condition'"
    """
    return f"{_COLUMN}'{name}'"


def columns_read(reports: pd.DataFrame, decision: Decision) -> list[str]:
    """The columns that reports of a decision's states were read from, where they were."""
    said = reports.loc[reports["state"].isin(list(decision.states)), "provenance"].dropna().unique()
    found = (re.match(rf"{_COLUMN}'(.*?)'(?:;|$)", str(text)) for text in said)
    return sorted({match[1] for match in found if match})
