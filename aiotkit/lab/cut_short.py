"""Where a record was cut short because whoever decided acted, and how a policy fared elsewhere.

From then on nobody knows what a policy that still waited would have seen and done. Until the subject is
handed back (for a horizon at most) its rows show what was done, and no decision of the policy is taken from
them; an episode that would end among them ends with them. The event is priced, once, by how the policy
fared on those whose course is known: of n events of that state that ran on, or that it acted upon itself,
it acted upon c, so the share c / (n + 1) of the cheapest action is paid, and the rest of what waiting
costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Cuts:
    """Rows by subject and time, some of which show what somebody else did.

    Attributes:
        subject: ``[rows]`` code of each row's subject.
        state: ``[rows]`` code of each row's state.
        touched: ``[rows]`` at which something that intervened was in force: the first of a run of them is
            where it was decided, the others show what was done.
        over: ``[rows]`` the next row of the subject that lies a horizon later (or the subject's end).
    """

    subject: Ints
    state: Ints
    touched: Flags
    over: Ints

    @cached_property
    def spans(self) -> tuple[Ints, Ints]:
        """Where the record was cut short (the row of the decision), and the first row after each.

        What is in force for longer than a horizon is decided anew then.
        """
        on = np.r_[False, self.touched, False]
        other = np.r_[True, np.diff(self.subject) != 0, True]
        starts = np.flatnonzero(on[1:-1] & (~on[:-2] | other[:-1])).tolist()
        ends = (np.flatnonzero(on[1:-1] & (~on[2:] | other[1:])) + 1).tolist()
        cuts, afters, over = [], [], self.over.tolist()
        for cut, end in zip(starts, ends, strict=True):
            while cut < end:
                cuts.append(cut)
                cut = min(over[cut], end)
                afters.append(cut)
        return np.array(cuts, dtype=np.int64), np.array(afters, dtype=np.int64)

    @cached_property
    def decided(self) -> Ints:
        """For each row the one whose action stands there: its own, or where the record was cut short."""
        out = np.arange(len(self.subject))
        for cut, after in zip(*self.spans, strict=True):
            out[cut:after] = cut
        return out

    @cached_property
    def resumes(self) -> Ints:
        """For each row the first one after the next cut in the record (of any subject), or the end."""
        _, after = self.spans
        n = len(self.subject)
        return np.append(after, n)[np.searchsorted(after, np.arange(n), side="right")]

    @cached_property
    def leaves(self) -> Ints:
        """For each row (and the end) itself; where it shows what somebody else did, the first row after."""
        out = np.arange(len(self.subject) + 1)
        for cut, after in zip(*self.spans, strict=True):
            out[cut + 1 : after] = after
        return out

    def heeded(self, acts: Floats, quiet: int, states: int) -> Floats:
        """For each state the share of its events, of those whose course is known, that a policy acts upon.

        Args:
            acts: ``[rows]`` how far the policy acts there: 1 for an action that intervenes, the share of
                right answers for a question, 0 for waiting.
            quiet: code of the uneventful state.
            states: how many states there are.
        """
        done, known = np.zeros(states), np.ones(states)
        for first, after, cut in zip(*self._events(quiet), strict=True):
            acted = float(acts[first : after if cut < 0 else cut + 1].max())
            if acted > 0 or cut < 0:
                known[self.state[first]] += 1
                done[self.state[first]] += acted
        return done / known

    def waited(self, acts: Floats, quiet: int) -> tuple[int, int]:
        """How many events the record cut short, and in how many of them a policy still waited.

        Args:
            acts: as for ``heeded``.
            quiet: code of the uneventful state.
        """
        cut_short = [(a, c) for a, _, c in zip(*self._events(quiet), strict=True) if c >= 0]
        return len(cut_short), sum(not (acts[first : cut + 1] > 0).any() for first, cut in cut_short)

    def _events(self, quiet: int) -> tuple[Ints, Ints, Ints]:
        """Runs of one eventful state of a subject: first row, the row after the last, and where it was cut.

        The last is −1 for those that ran their course.
        """
        new = (np.diff(self.state) != 0) | (np.diff(self.subject) != 0)
        edges = np.r_[0, np.flatnonzero(new) + 1, len(self.state)]
        first, after = edges[:-1], edges[1:]
        eventful = self.state[first] != quiet
        first, after = first[eventful], after[eventful]
        cuts = np.append(self.spans[0], len(self.state))
        cut = cuts[np.searchsorted(cuts, first)]
        return first, after, np.where(cut < after, cut, -1)
