"""Rows made ready to be priced many times over: episodes of actions, cut and priced on arrays.

The rules are those of ``lab.episodes`` but for one thing: what is priced here was not done. An action that
intervenes would have changed what came after; so its episode lasts to the horizon, as its declared cost
says, whatever is proposed meanwhile. (With actions that hold that long the two give the same money; a test
holds them together.)

What does not intervene and is replaced before the horizon costs what it costs when nothing happens, for the
time it lasted. If its state came to pass meanwhile (it is another one than the uneventful one, and the row at
which it was replaced is of another state) it costs what that costs.

A question is answered after ``human.delay_s``. A state that is over by then came to pass: waiting is paid
too. Where the true state calls for an action that intervenes, that episode lasts to the horizon. Where it
calls for waiting, the answer holds for ``human.holds_s`` (at least until the next row), unless something
intervenes before, and then may be asked again: the person and wrong answers are charged each time, waiting
for the time it lasted.

Where the record was cut short, because whoever decided then acted: see ``lab.cut_short``.

All runs on arrays, because a search for the best threshold prices thousands of policies on the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError, did_you_mean
from aiotkit.core.policy import ASK, cost_of_asking
from aiotkit.lab.cut_short import Cuts
from aiotkit.lab.schedule import early_us

Names = NDArray[np.object_]
Actions = Sequence[str | None] | Names | pd.Series
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DAY_US = 86_400_000_000


def declared_costs(decision: Decision) -> Floats:
    """The cost table ``[actions, states]`` in the order of the decision file.

    Raises:
        DataError: costs are unknown.
    """
    costs = decision.costs
    if isinstance(costs, str):
        raise DataError(
            f"'{decision.id}': nothing can be judged in money",
            expected="costs by action and state",
            found="costs: unknown",
            do="Declare costs[action][state]; until then only break-even curves can be drawn "
            "(plots.break_even_curves), and models compared by log-loss.",
        )
    return np.array([[costs[a][s] for s in decision.states] for a in decision.actions], dtype=np.float64)


def asking_row(decision: Decision) -> Floats:
    """What asking costs ``[states]`` when each is the true one (``core.policy.cost_of_asking``, linear in p).

    Raises:
        DataError: nobody can be asked.
    """
    human, costs = decision.human, decision.costs
    if human is None or isinstance(costs, str):
        raise DataError(f"'{decision.id}': nobody can be asked, or costs are unknown")
    sure = ({other: float(other == state) for other in decision.states} for state in decision.states)
    return np.array([cost_of_asking(p, costs, human) for p in sure])


def cheapest(cost: Floats, decision: Decision) -> str:
    """The action of least cost ``[actions]``; ties as the policy's."""
    ranks = [
        (cost[i], not a.reversible, a.actuator is not None, name)
        for i, (name, a) in enumerate(decision.actions.items())
    ]
    return min(ranks)[-1]


@dataclass(frozen=True)
class Book:
    """Rows made ready to be priced many times: sorted, with their states and the ends of their horizons.

    Attributes:
        order: position in the caller's rows of each row here (by subject and time).
        subject: code of each row's subject.
        subjects: names by code.
        at_us: instants, µs UTC.
        state: code of each row's state, in the order of ``decision.states``.
        over: for each row the next one of its subject that lies a horizon later (or the subject's end).
        touched: rows at which something that intervened was in force (``Cuts.touched``).
    """

    decision: Decision
    order: Ints
    subject: Ints
    subjects: Names
    at_us: Ints
    state: Ints
    over: Ints
    touched: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: pd.DataFrame, decision: Decision) -> Book:
        """Open the book of rows with ``subject``, ``at_us`` and a believed ``state``.

        Raises:
            DataError: there are no rows, or one whose state is not known.
        """
        missing = [c for c in ("subject", "at_us", "state") if c not in rows.columns]
        if missing or not len(rows):
            raise DataError(
                "rows to judge" + (f": column '{missing[0]}' is missing" if missing else ""),
                expected="subject, at_us and state",
                found="" if missing else "no rows",
            )
        state = pd.Index(list(decision.states)).get_indexer(pd.Index(rows["state"].astype(object)))
        if (state < 0).any():
            found = rows["state"].iloc[int(np.argmax(state < 0))]
            raise DataError(
                "rows to judge: state",
                expected=f"one of {list(decision.states)} on every row",
                found=f"{int((state < 0).sum())} rows without, the first says {str(found)!r}",
                do="Judge the labelled rows only (Examples.labelled()).",
            )
        code, subjects = pd.factorize(rows["subject"].astype(object), sort=True)
        at = rows["at_us"].to_numpy(dtype=np.int64)
        order = np.lexsort((np.arange(len(rows)), at, code))
        code, at = code[order].astype(np.int64), at[order]
        horizon = round(decision.outcome.horizon_s * 1e6)
        return cls(
            decision,
            order,
            code,
            np.asarray(subjects, dtype=object),
            at,
            state[order].astype(np.int64),
            _later(code, at, max(1, horizon - early_us(decision))),
            (rows["status"] == "censored").to_numpy(dtype=bool)[order]
            if "status" in rows.columns
            else np.zeros(len(rows), dtype=bool),
        )

    def codes(self, actions: Actions, *, name: str = "actions") -> Ints:
        """Codes of actions given in the caller's order; None is ``recovery``, the last code is ``ask``.

        Raises:
            DataError: another number of them than of rows, or an action that is not declared.
        """
        declared = [*self.decision.actions, *([ASK] if self.decision.human is not None else [])]
        given = pd.Series(np.asarray(actions, dtype=object), dtype=object)
        if len(given) != len(self.order):
            raise DataError(name, expected=f"one for each of {len(self.order)} rows", found=str(len(given)))
        given = given.where(given.notna(), self.decision.recovery)
        codes = pd.Index(declared, dtype=object).get_indexer(pd.Index(given, dtype=object))
        if (codes < 0).any():
            wrong = str(given.iloc[int(np.argmax(codes < 0))])
            hint = did_you_mean(wrong, declared)
            if wrong == ASK:
                hint = "Nobody can be asked: the decision file declares no 'human'."
            raise DataError(name, expected=f"one of {declared}", found=repr(wrong), do=hint)
        return np.asarray(codes[self.order], dtype=np.int64)

    @cached_property
    def _waits(self) -> NDArray[np.bool_]:
        """Which codes leave the world as it is: not those that intervene, nor a question."""
        return np.array([not a.intervenes for a in self.decision.actions.values()] + [False])

    @cached_property
    def _idle(self) -> Ints:
        """For each state the code of its cheapest action if that leaves the world as it is, else −1."""
        table, names = declared_costs(self.decision), list(self.decision.actions)
        best = [names.index(cheapest(table[:, k], self.decision)) for k in range(table.shape[1])]
        return np.array([b if self._waits[b] else -1 for b in best], dtype=np.int64)

    @cached_property
    def _quiet(self) -> int:
        """Code of the uneventful state."""
        return list(self.decision.states).index(self.decision.uneventful)

    @cached_property
    def _too_late(self) -> Floats:
        """What a question costs besides, by row: waiting, where the state is over before an answer comes."""
        wait, human = int(self._idle[self._quiet]), self.decision.human
        if human is None or wait < 0:
            return np.zeros(len(self.state))
        answered = (
            _later(self.subject, self.at_us, round(human.delay_s * 1e6) + 1) - 1
        )  # the last row by then
        over = self.state[answered] != self.state
        return np.where(over, declared_costs(self.decision)[wait, self.state], 0.0)

    @cached_property
    def _held(self) -> Ints:
        """For each row the next one at which an answer given there no longer holds (or the subject's end)."""
        human, horizon = self.decision.human, self.decision.outcome.horizon_s
        holds = min(human.holds_s, horizon) if human is not None else horizon
        return _later(self.subject, self.at_us, max(1, round(holds * 1e6) - early_us(self.decision)))

    def _settled(self, codes: Ints) -> NDArray[np.bool_]:
        """Rows that ask where the true state calls for waiting."""
        return np.asarray((codes == len(self.decision.actions)) & (self._idle[self.state] >= 0))

    @cached_property
    def _cuts(self) -> Cuts:
        """Where the record was cut short."""
        return Cuts(self.subject, self.state, self.touched, self.over)

    def _heeded(self, codes: Ints) -> Floats:
        """For each state the share of its events that a policy acts upon (``Cuts.heeded``)."""
        return self._cuts.heeded(self._acts(codes), self._quiet, len(self.decision.states))

    def waited(self, codes: Ints) -> tuple[int, int]:
        """How many events what was in force ended, and in how many of them a policy still waited then."""
        return self._cuts.waited(self._acts(codes), self._quiet)

    def _acts(self, codes: Ints) -> Floats:
        """How far a policy acts on each row: a question as far as its answer is right."""
        human = self.decision.human
        return np.append(~self._waits[:-1], 0.0 if human is None else human.reliability)[codes]

    def _ends(self, codes: Ints) -> Ints:
        """For each row where an episode that begins there ends."""
        n, waits, settled = len(codes), self._waits[codes], self._settled(codes)
        new = np.flatnonzero((np.diff(codes) != 0) | (np.diff(self.subject) != 0)) + 1
        change = np.append(new, n)[np.searchsorted(new, np.arange(n), side="right")]
        out = np.where(waits, np.minimum(np.minimum(change, self.over), self._cuts.resumes), self.over)
        if settled.any():
            acts = np.flatnonzero(~waits & (codes < len(self.decision.actions)))
            act = np.append(acts, n)[np.searchsorted(acts, np.arange(n))]
            out = np.where(settled, np.minimum(act, self._held), out)
        return self._cuts.leaves[out]

    def starts(self, codes: Ints) -> Ints:
        """Where the episodes of these actions begin."""
        following = self._ends(codes[self._cuts.decided]).tolist()
        begins, i = [], 0
        while i < len(codes):
            begins.append(i)
            i = following[i]
        return np.array(begins, dtype=np.int64)

    def spent(self, codes: Ints) -> tuple[Ints, Floats]:
        """Episodes: where each begins and what it cost."""
        codes = codes[self._cuts.decided]
        begins = self.starts(codes)
        price = self._prices(codes, begins)
        following, last = np.append(begins[1:], 0), np.append(np.diff(self.subject[begins]) != 0, True)
        lasted = (self.at_us[following] - self.at_us[begins]) / (self.decision.outcome.horizon_s * 1e6)
        short = ~last & (lasted < 1 - early_us(self.decision) / (self.decision.outcome.horizon_s * 1e6))
        state, table = self.state[begins], declared_costs(self.decision)
        passed = (state != self._quiet) & (self.state[following] != state)
        cut = np.flatnonzero(short & self._waits[codes[begins]] & ~passed)
        price[cut] = table[codes[begins[cut]], self._quiet] * lasted[cut]
        held = np.flatnonzero(short & self._settled(codes)[begins])
        price[held] -= table[self._idle[state[held]], state[held]] * (1 - lasted[held])
        self._price_cuts(codes, begins, price, np.where(last, 0.0, np.minimum(lasted, 1.0)))
        return begins, price

    def _price_cuts(self, codes: Ints, begins: Ints, price: Floats, lasted: Floats) -> None:
        """Price what the record cut short, where a policy still waited, or had acted before any sign."""
        cuts, _ = self._cuts.spans
        where = np.searchsorted(begins, cuts, side="right") - 1
        begin, state = begins[where], self.state[cuts]
        waits, event = self._waits[codes[begin]], state != self._quiet
        table, idle = declared_costs(self.decision), int(self._idle[self._quiet])
        calm = where[waits]
        price[calm] = table[codes[begins[calm]], self._quiet] * lasted[calm]
        open_ = event & (waits | ((self.state[begin] == self._quiet) & (idle >= 0)))
        if not open_.any():
            return
        share, code, state = self._heeded(codes), np.where(waits, codes[begin], idle)[open_], state[open_]
        mixed = share[state] * table.min(axis=0)[state] + (1 - share[state]) * table[code, state]
        np.add.at(price, where[open_], mixed)

    def _prices(self, codes: Ints, at: Ints) -> Floats:
        table, code = declared_costs(self.decision), codes[at]
        asked = code == len(table)
        if not asked.any():
            return np.asarray(table[code, self.state[at]], dtype=np.float64)
        price = np.vstack([table, asking_row(self.decision)])[code, self.state[at]]
        late = asked & (self._idle[self.state[at]] < 0)
        return np.asarray(price + np.where(late, self._too_late[at], 0.0), dtype=np.float64)

    def total(self, codes: Ints) -> float:
        """All money spent."""
        return float(self.spent(codes)[1].sum())

    def ledger(
        self, codes: Ints, *, period_us: int = DAY_US, at0: int = 0, within: NDArray[np.bool_] | None = None
    ) -> pd.DataFrame:
        """Money by subject and period an episode began in; every observed period has a row.

        ``within`` [rows here]: only what began there, and only periods with such rows.
        """
        begins, price = self.spent(codes)
        rows = np.arange(len(codes)) if within is None else np.flatnonzero(within)
        period = (self.at_us[rows] - at0) // period_us
        keys = pd.MultiIndex.from_arrays([self.subject[rows], period])
        seen, names = pd.factorize(keys, sort=True)
        spent = np.zeros(len(codes))
        spent[begins] = price
        money = np.bincount(seen, spent[rows], len(names))
        day = names.get_level_values(1).to_numpy(dtype=np.int64)
        return pd.DataFrame(
            {
                "subject": self.subjects[names.get_level_values(0).to_numpy(dtype=np.int64)],
                "day": pd.to_datetime(day, unit="D", utc=True).as_unit("us") if period_us == DAY_US else day,
                "money": money,
            }
        )


def _later(code: Ints, at_us: Ints, by_us: int) -> Ints:
    """For each row (by subject and time) the next of its subject so much later, or the subject's end."""
    edges = [0, *(np.flatnonzero(np.diff(code)) + 1).tolist(), len(code)]
    parts = [i + np.searchsorted(at_us[i:j], at_us[i:j] + by_us) for i, j in pairwise(edges)]
    return np.concatenate(parts).astype(np.int64)
