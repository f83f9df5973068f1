"""Which decisions a person should label first, and what he says of them: into the lake, and into a log.

A decision needs a label when nobody has reported a state within its horizon. First where the device asked,
where the window was novel, where the cheapest actions cost nearly the same, where it was acted on; within
each by what knowing the state was worth (``worth.value_of_knowing``). Every fourth item is one that was drawn
for verification: those keep recall honest, and would be biased if only interesting ones were looked at. One
report speaks for every decision within a horizon before it, so a subject comes up once a horizon.

Answers become reports in the lake's table ``outcomes``. "Cannot tell" is no state: it is kept in the log
alone, from which a share is shown to a second person, who does not see the first answer, for agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError, OutcomeError, did_you_mean
from aiotkit.core.records import draw
from aiotkit.lab.judge import declared_costs
from aiotkit.lab.label_log import Answer, agreement, read_log, write_log
from aiotkit.lab.labels import INSPECTION, KEY
from aiotkit.lab.outcome_reports import ALREADY
from aiotkit.lab.outcomes import import_outcomes, reports_of
from aiotkit.lab.trace import Trace, read_trace
from aiotkit.lab.worth import probabilities, seen_decisions, value_of_knowing

if TYPE_CHECKING:
    from aiotkit.lake.lake import Lake

Reason = Literal["asked", "novel", "near", "acted", "drawn", "second look"]
REASONS: tuple[Reason, ...] = ("asked", "novel", "near", "acted", "drawn", "second look")
WORDS = {
    "asked": "the device asked a person",
    "novel": "the window was unlike anything in training",
    "near": "two actions cost nearly the same",
    "acted": "it was acted on, and nobody said whether that was right",
    "drawn": "drawn at random for verification",
    "second look": "another person labelled it; does a second one agree?",
}
#: two actions are near when the second costs at most this share more
NEAR = 0.15
#: share of answered decisions that a second person is shown
SECOND = 0.1
_EVERY = 4


@dataclass(frozen=True, slots=True)
class Item:
    """A decision that needs a label; ``worth``: of knowing the state, NaN where nobody knows."""

    device: str
    journal_id: str
    seq: int
    subject: str
    at_us: int
    reason: Reason
    worth: float
    likeliest: str | None = None

    @property
    def name(self) -> str:
        """Device, journal and sequence number in one word."""
        return f"{self.device}/{self.journal_id}/{self.seq}"


@dataclass(frozen=True, slots=True)
class Desk:
    """Who labels, as which of the decision's outcome sources, at what time, and where the log lies.

    ``now_us``: the present, µs UTC; decisions taken later are not shown.
    """

    who: str
    source: str
    log: Path
    now_us: Callable[[], int]


def source_for(decision: Decision, name: str = "") -> str:
    """The outcome source of labels: the one named, else the last that reports every state.

    Raises:
        DataError: there is no such source.
    """
    sources = decision.outcome.sources
    if name and name not in sources:
        hint = did_you_mean(name, sources) or f"One of {', '.join(sources)}."
        raise DataError(f"outcome source '{name}' is not declared", do=hint)
    every = [n for n, s in sources.items() if set(s.reports) >= set(decision.states)]
    return name or [*sources, *every][-1]


class LabelQueue:
    """The decisions that need a label, in the order in which a label is worth most.

    Args:
        lake: decisions, reports and registry.
        decision: whose decisions, with its states and costs.
        desk: who labels.
        most: how many items.

    Raises:
        DataError: the log is damaged, or the desk's source is not declared.
    """

    def __init__(self, lake: Lake, decision: Decision, desk: Desk, *, most: int = 40) -> None:
        source_for(decision, desk.source)
        self.lake, self.decision, self.desk = lake, decision, desk
        self.answers = read_log(desk.log)
        seen = seen_decisions(lake, decision, desk.now_us())
        found = _needing(seen, reports_of(lake), decision)
        by_me = {a.name for a in self.answers if a.who == desk.who}
        told = {a.name for a in self.answers if a.state is not None}
        open_ones = [i for i in _items(found, decision) if i.name not in by_me | told]
        self.items = _thinned(_ordered(open_ones), decision)[:most] + self._second(seen)
        self.mine = 0

    def _second(self, seen: pd.DataFrame) -> list[Item]:
        """What others have answered and this person is shown once more."""
        others = {a.name: a for a in self.answers if a.who != self.desk.who and a.state is not None}
        for mine in self.answers:
            if mine.who == self.desk.who:
                others.pop(mine.name, None)
        shown = [a for a in others.values() if draw(a.name, "second look", SECOND).hit]
        known = set(seen["name"])
        return [
            Item(a.device, a.journal_id, a.seq, a.subject, a.at_us, "second look", np.nan, a.likeliest)
            for a in shown
            if a.name in known
        ]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def states(self) -> tuple[str, ...]:
        """The states that the desk's source may report."""
        return tuple(
            s for s in self.decision.states if s in self.decision.outcome.sources[self.desk.source].reports
        )

    def table(self) -> pd.DataFrame:
        """The open items in order: ``subject``, ``at``, ``reason``, ``worth`` and the key of the decision."""
        columns = ["subject", "at_us", "reason", "worth", *KEY]
        frame = pd.DataFrame([[getattr(i, c) for c in columns] for i in self.items], columns=columns)
        at = pd.to_datetime(frame["at_us"].astype("int64"), unit="us", utc=True)
        return frame.drop(columns="at_us").assign(at=at)[["subject", "at", "reason", "worth", *KEY]]

    def next(self) -> Item | None:
        """The first item that is still open."""
        return self.items[0] if self.items else None

    def skip(self) -> None:
        """Put the first item last."""
        self.items = [*self.items[1:], *self.items[:1]]

    def trace(self, item: Item) -> Trace:
        """Everything that was recorded of the decision."""
        return read_trace(self.lake, item.device, item.journal_id, item.seq)

    def answer(self, item: Item, state: str | None, *, looked: bool = False, note: str = "") -> Answer:
        """Enter what a person says: into the lake as a report (but for "cannot tell"), then into the log.

        Args:
            item: of this queue.
            state: that it was in when the decision was taken; None = cannot tell.
            looked: whether somebody looked at the machine itself (an inspection), and not at records alone.
            note: anything worth keeping.

        Raises:
            DataError: the item is not open, nobody says who he is, or the state cannot be reported.
            OutcomeError: the lake refuses the report.
        """
        if item.name not in {i.name for i in self.items}:
            raise DataError(f"{item.name}: not open in this queue", do="Take one of its items.")
        if not self.desk.who.strip():
            raise DataError("a label needs a name: who says so?")
        if state is not None and state not in self.states:
            raise DataError(
                f"'{self.desk.source}' cannot report '{state}'",
                expected=f"one of {', '.join(self.states)}",
                do=did_you_mean(state, self.states) or "",
            )
        said = Answer(
            item.device, item.journal_id, item.seq, item.subject, item.at_us, state, self.desk.who.strip(),
            self.desk.now_us(), looked, item.reason, item.likeliest, note,
        )  # fmt: skip
        if state is not None:
            self._report(said)
        self.answers = [*self.answers, said]
        write_log(self.desk.log, self.answers)
        self.items = [i for i in self.items if i.name != item.name]
        self.mine += 1
        return said

    def _report(self, said: Answer) -> None:
        row = {
            "subject": said.subject,
            "state": said.state,
            "at": pd.Timestamp(said.at_us, unit="us", tz="UTC"),
            "reported_at": pd.Timestamp(max(said.said_us, said.at_us), unit="us", tz="UTC"),
            "source": self.desk.source,
            "kind": INSPECTION if said.looked else "report",
            "provenance": f"label queue: {said.who} of {said.name}",
            "note": said.note,
        }
        found = import_outcomes(self.lake, pd.DataFrame([row]), self.decision, imported_us=said.said_us)
        refused = [reason for reason in found.rejected["reason"] if reason != ALREADY]
        if refused:
            raise OutcomeError(f"{said.name}: the label was not taken", found=refused[0])

    def progress(self) -> pd.DataFrame:
        """One row a reason: ``waiting``, ``answered`` and ``cannot_tell`` so far, by anybody."""
        waiting = pd.Series([i.reason for i in self.items], dtype=object).value_counts()
        told = pd.Series([a.reason for a in self.answers if a.state is not None], dtype=object).value_counts()
        unsure = pd.Series([a.reason for a in self.answers if a.state is None], dtype=object).value_counts()
        rows = [(r, WORDS[r], *(int(c.get(r, 0)) for c in (waiting, told, unsure))) for r in REASONS]
        return pd.DataFrame(rows, columns=["reason", "why", "waiting", "answered", "cannot_tell"])

    def agreement(self) -> pd.DataFrame:
        """See ``label_log.agreement``."""
        return agreement(self.answers)


def _needing(seen: pd.DataFrame, reports: pd.DataFrame, decision: Decision) -> pd.DataFrame:
    """The decisions of which nobody has said anything within the horizon (drawn: that nobody inspected)."""
    settled = np.zeros(len(seen), dtype=bool)
    horizon = round(decision.outcome.horizon_s * 1e6)
    drawn = seen["verify_hit"].fillna(value=False).to_numpy(dtype=bool)
    for subject, rows in seen.groupby("subject"):
        mine = reports[reports["subject"] == subject]
        at, where = rows["at_us"].to_numpy(dtype=np.int64), rows.index.to_numpy()
        for which, heard in ((~drawn[where], mine), (drawn[where], mine[mine["kind"] == INSPECTION])):
            told = np.sort(heard["at_us"].to_numpy(dtype=np.int64))
            first = np.searchsorted(told, at[which], side="left")
            within = np.append(told, np.iinfo(np.int64).max)[first] - at[which] <= horizon
            settled[where[which]] = within
    return seen[~settled].reset_index(drop=True)


def _items(found: pd.DataFrame, decision: Decision) -> list[Item]:
    """Every decision that has a reason to be labelled."""
    p = probabilities(found, tuple(decision.states))
    near, worth = np.zeros(len(found), dtype=bool), np.full(len(found), np.nan)
    if not isinstance(decision.costs, str) and len(decision.actions) > 1:
        worth = value_of_knowing(p, decision)
        two = np.sort(p @ declared_costs(decision).T, axis=1)[:, :2]
        near = two[:, 1] - two[:, 0] <= NEAR * np.abs(two[:, 0])
    acts = found["in_force"].map(lambda a: a in decision.actions and decision.actions[a].intervenes)
    new = acts.astype(bool) & (found["in_force"] != found.groupby("subject")["in_force"].shift())
    flags: dict[Reason, NDArray[np.bool_]] = {
        "drawn": found["verify_hit"].fillna(value=False).to_numpy(dtype=bool),
        "asked": found["opened"].to_numpy(dtype=bool),
        "novel": found["novelty"].to_numpy(dtype=float) > 1,
        "near": near,
        "acted": new.to_numpy(dtype=bool),
    }
    why = np.full(len(found), None, dtype=object)
    for reason, held in reversed(flags.items()):
        why[held] = reason
    top = [None if q is None else max(q, key=q.__getitem__) for q in found["p"]]
    columns = [found[c].tolist() for c in (*KEY, "subject", "at_us")]
    listed = zip(*columns, why.tolist(), worth.tolist(), top, strict=True)
    return [Item(*row) for row in listed if row[5] is not None]


def _ordered(items: Iterable[Item]) -> list[Item]:
    """By reason and worth, with every fourth one drawn at random."""
    rank = {reason: i for i, reason in enumerate(REASONS)}
    by_worth = sorted(
        items, key=lambda i: (rank[i.reason], -i.worth if np.isfinite(i.worth) else np.inf, -i.at_us, i.name)
    )
    drawn = [i for i in by_worth if i.reason == "drawn"]
    rest = [i for i in by_worth if i.reason != "drawn"]
    groups = [rest[k : k + _EVERY - 1] for k in range(0, len(rest), _EVERY - 1)]
    mixed = chain.from_iterable(zip_longest(groups, [[d] for d in drawn], fillvalue=[]))
    return list(chain.from_iterable(mixed))


def _thinned(items: Iterable[Item], decision: Decision) -> list[Item]:
    """At most one of a subject within a horizon, besides those drawn at random."""
    horizon, kept = round(decision.outcome.horizon_s * 1e6), list[Item]()
    for item in items:
        close = [k for k in kept if k.subject == item.subject and abs(k.at_us - item.at_us) <= horizon]
        if item.reason == "drawn" or not close:
            kept.append(item)
    return kept
