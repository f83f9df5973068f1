"""Policies that are run in process, side by side: constants, single thresholds, and the written rule.

Each gives an order of speed per arm and machine from a ``Look``; none of them sees more than a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from aiotkit.core.calendar import local_context
from aiotkit.core.decision import Decision
from aiotkit.core.gates import GateKeeper
from aiotkit.core.history import history_values, update_history
from aiotkit.core.policy import Proposal, Rule
from aiotkit.core.records import Answer, EngineState, OperatorInput
from aiotkit.core.resolution import (
    Moment,
    accepted_answer,
    changes_after,
    is_change,
    posture_after,
    resolve,
)
from aiotkit.loop.look import Look
from aiotkit.loop.twin import Twin
from aiotkit.loop.wear import Array, Flags

RUN, THROTTLE, STOP = 1.0, 0.6, 0.0


class Policy(Protocol):
    """One or more arms of a run."""

    @property
    def names(self) -> Sequence[str]:
        """The name of each arm, in order."""

    def order(self, look: Look, arms: slice, twin: Twin) -> Array:
        """Speeds, ``[arms, machines]``; ``arms`` says which of the look's arms are this policy's."""


@dataclass(frozen=True)
class Constant:
    """The same order at every decision."""

    name: str
    speed: float

    @property
    def names(self) -> Sequence[str]:
        """One arm."""
        return (self.name,)

    def order(self, look: Look, arms: slice, twin: Twin) -> Array:  # noqa: ARG002
        """The speed, everywhere."""
        return np.full((1, twin.machines), self.speed)


@dataclass(frozen=True, slots=True)
class Threshold:
    """Act while (throttle) or as soon as (stop) one feature exceeds one limit."""

    feature: str
    limit: float
    speed: float

    def __str__(self) -> str:
        action = "stop" if self.speed == STOP else "throttle"
        return f"{self.feature} > {self.limit:.4g}: {action}"


class Thresholds:
    """Many single thresholds, one arm each."""

    def __init__(self, candidates: Sequence[Threshold]) -> None:
        self.candidates = tuple(candidates)
        self._limit = np.array([c.limit for c in candidates])[:, np.newaxis]
        self._speed = np.array([c.speed for c in candidates])[:, np.newaxis]
        self._latched: Flags | None = None
        self._features = sorted({c.feature for c in candidates})
        self._rows = {
            f: np.array([i for i, c in enumerate(candidates) if c.feature == f]) for f in self._features
        }

    @property
    def names(self) -> Sequence[str]:
        """Every candidate in words."""
        return tuple(str(c) for c in self.candidates)

    def order(self, look: Look, arms: slice, twin: Twin) -> Array:
        """Speeds by threshold; a stop holds until the crew hands the machine back."""
        shape = (len(self.candidates), twin.machines)
        exceeded = np.zeros(shape, dtype=bool)
        for name, rows in self._rows.items():
            exceeded[rows] = look.feature(name, arms)[rows] > self._limit[rows]  # NaN exceeds nothing
        released = look.seen.released[arms]
        before = self._latched if self._latched is not None else np.zeros(shape, dtype=bool)
        stops = np.broadcast_to(self._speed == STOP, shape)
        self._latched = (before | (exceeded & stops)) & ~released
        return np.where(self._latched, STOP, np.where(exceeded & ~stops & ~released, self._speed, RUN))


def candidates() -> list[Threshold]:
    """Single thresholds worth trying: the usual statistics of two radial axes, and the oil's temperature."""
    limits = {
        "rms": np.geomspace(0.8, 3.2, 8),
        "p2p": np.geomspace(4.5, 22, 8),
        "kurtosis": np.linspace(3.2, 4.6, 8),
        "crest": np.linspace(3.6, 5.7, 8),
    }
    fields = {f"{axis}.{s}": values for axis in ("vib_x", "vib_y") for s, values in limits.items()}
    fields["oil_temp.last"] = np.linspace(36, 54, 10)
    return [
        Threshold(f, float(x), a) for f, values in fields.items() for x in values for a in (STOP, THROTTLE)
    ]


@dataclass
class _Machine:
    """What the rule's device at one machine remembers."""

    state: EngineState = field(default_factory=EngineState)
    heard: dict[str, tuple[int, float | str]] = field(default_factory=dict)
    asked_us: int = -1


class WrittenRule:
    """The decision file's rule, gates and autonomy on the desk's features: the device's code without I/O.

    A question sends an inspector (``human``); the state he reports is answered with its cheapest action.
    What the crew hands back is ordered to run, as the operator does. Random verification is left out: it
    is the price of labels, not of the rule.
    """

    def __init__(self, decision: Decision, machines: int) -> None:
        self._decision = decision
        self._rule = Rule(decision.rule)
        reads_p = [g for g in decision.gates if g.require is None or "p." not in str(g.require)]
        self._keeper = GateKeeper(reads_p)
        self._machines = [_Machine() for _ in range(machines)]

    @property
    def names(self) -> Sequence[str]:
        """One arm."""
        return ("rule",)

    def order(self, look: Look, arms: slice, twin: Twin) -> Array:
        """Speeds of the commands in force; without one the drive rests at full speed."""
        arm = arms.start
        return np.array([[self._decide(look, arm, m, twin) for m in range(twin.machines)]])

    def _decide(self, look: Look, arm: int, m: int, twin: Twin) -> float:
        d, mine, now_us = self._decision, self._machines[m], look.seen.at_us
        state, now = mine.state, now_us / 1e6
        features = self._features(look, arm, m)
        values = self._values(look, arm, m, features)
        operator = OperatorInput(
            override="run" if look.seen.released[arm, m] else None,
            answer=self._answer(mine, arm, m, twin, now_us),
        )
        moment = Moment(f"in-process/{m}/{look.seen.step}", now_us, state.posture, state.question, operator)
        proposal = self._propose(values, state, moment)
        ruling = self._keeper.judge(
            proposal.action or d.recovery,
            values,
            state.memory,
            state.changes,
            now,
            is_change=is_change(moment, proposal.action),
        )
        resolution = resolve(d, proposal, ruling, moment)
        posture = posture_after(moment, resolution)
        question = resolution.question
        if question is not None and question != state.question:
            twin.request_inspection(m, arm)
            mine.asked_us = now_us
        mine.state = EngineState(
            update_history(d.history, state.history, features, now),
            {**proposal.memory, **ruling.memory},
            posture,
            changes_after(state.changes, moment, resolution.command),
            question,
        )
        if posture is None:
            return RUN
        return float(d.actions[posture.action].command["speed"])

    def _propose(self, values: dict[str, object], state: EngineState, moment: Moment) -> Proposal:
        rule = self._rule.propose(values, state.memory, moment.now_us / 1e6)
        answer = accepted_answer(self._decision, moment)
        if moment.operator.override is not None:
            return Proposal(moment.operator.override, "ordered by a person", {}, rule.memory)
        missing = [
            c for c, spec in self._decision.context.items() if spec.required and f"context.{c}" not in values
        ]
        if missing:
            return Proposal(None, f"required context {missing} is missing", {}, rule.memory)
        if answer is not None:
            return Proposal(answer.action, f"answered by {answer.operator}", {}, rule.memory)
        return rule

    def _features(self, look: Look, arm: int, m: int) -> dict[str, float]:
        row = look.seen.index[arm, m]
        named = {n: float(look.columns[n][row]) for n in self._decision.features() if n in look.columns}
        sampling = self._decision.signals["oil_temp"].sampling
        fresh = look.seen.oil.age_s[arm, m] <= getattr(sampling, "max_age_s", 0)
        named["oil_temp.last"] = float(look.seen.oil.value[arm, m]) if fresh else float("nan")
        return named

    def _values(self, look: Look, arm: int, m: int, features: dict[str, float]) -> dict[str, object]:
        d, mine, now_us = self._decision, self._machines[m], look.seen.at_us
        for name, given in look.seen.context.items():
            value = given[arm, m]
            if (value != "") if name == "mode" else bool(np.isfinite(value)):
                mine.heard[name] = (now_us, str(value) if name == "mode" else float(value))
        values: dict[str, object] = dict(features)
        values.update((f"context.{k}", v) for k, v in local_context(d.site, now_us).items())
        for name, (at, heard) in mine.heard.items():
            if (now_us - at) / 1e6 <= d.context[name].max_age_s:
                values[f"context.{name}"] = heard
        history = history_values(d.history, mine.state.history, now_us / 1e6)
        values.update((f"history.{k}", v) for k, v in history.items())
        return values

    def _answer(self, mine: _Machine, arm: int, m: int, twin: Twin, now_us: int) -> Answer | None:
        question = mine.state.question
        if question is None:
            return None
        for report in reversed(twin.reports_until(now_us, arm)):
            if report.subject == m and report.source == "inspection" and report.at_us >= mine.asked_us:
                return Answer(question.id, cheapest(self._decision, report.state), "technician", now_us)
        return None


def cheapest(decision: Decision, state: str) -> str:
    """The action of least cost when the state is known; what a technician answers."""
    if isinstance(decision.costs, str):
        return decision.recovery
    costs = decision.costs
    return min(costs, key=lambda a: (costs[a][state], a))
