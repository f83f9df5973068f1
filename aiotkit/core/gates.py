"""Gates judge a *proposed action*: ALLOW, ASK a human, HOLD it back, or INDETERMINATE.

HOLD means no new command; the last one ends at its ``valid_until``. INDETERMINATE leaves nothing but
the declared recovery. Whatever goes wrong in here ends as INDETERMINATE, never as an exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from aiotkit.core.conditions import (
    INDETERMINATE,
    TRUE,
    Check,
    Condition,
    Memory,
    Term,
    TermMemory,
    Values,
    check_size,
    compile_condition,
    describe,
    fields,
    found,
    is_timed,
)
from aiotkit.core.features import NOVELTY
from aiotkit.core.strict import Seconds, Strict, Text, Wait


class Verdict(IntEnum):
    """In rising order of doubt: the worst of all gates is the ruling."""

    ALLOW = 0
    ASK = 1
    HOLD = 2
    INDETERMINATE = 3


class AtMost(Strict):
    """No more than ``count`` new commands within ``per_s`` seconds."""

    count: PositiveInt = Field(le=1000)
    per_s: Seconds


class Gate(Strict):
    """One named check; exactly one of ``require``, ``at_most``, ``min_interval_s``.

    ``actions`` limits it to those proposed actions (empty: all). ``because`` is said to people.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    family: Literal["operating", "novelty", "output"] = "operating"
    require: Condition | None = None
    at_most: AtMost | None = None
    min_interval_s: Wait | None = None
    otherwise: Literal["hold", "ask"] = "hold"
    actions: tuple[str, ...] = Field(default=(), max_length=64)
    because: Text = Field(default="", max_length=400)

    @model_validator(mode="after")
    def _one_check(self) -> Self:
        given = [k for k in ("require", "at_most", "min_interval_s") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a gate needs exactly one of require, at_most, min_interval_s; found {given or 'none'}"
            )
        if self.require is not None:
            check_size(self.require)
        return self

    @property
    def needs_model(self) -> bool:
        """Whether it reads a state's probability or the novelty, which only a model gives."""
        return self.reads_novelty or any(f.startswith("p.") for f in self.fields())

    @property
    def reads_novelty(self) -> bool:
        """Whether it reads how far the window lies from those of training."""
        return NOVELTY in self.fields()

    def fields(self) -> tuple[str, ...]:
        """The fields that its condition reads, in order, each once."""
        return () if self.require is None else fields(self.require)


#: name of the gate that an engine adds of itself; see ``model_knows``
MODEL_KNOWS = "model_knows"


def model_knows() -> Gate:
    """The gate on a model's novelty where the decision has none: what training never saw is asked."""
    return Gate(
        name=MODEL_KNOWS,
        family="novelty",
        require=Term(field=NOVELTY, le=1.0),
        otherwise="ask",
        because="the window is unlike anything in training",
    )


@dataclass(frozen=True, slots=True)
class Change:
    """A new command that was issued: when (s, UTC epoch) and which action."""

    at_s: float
    action: str


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What one gate said, and why, in words."""

    gate: str
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Ruling:
    """The worst verdict, every gate's own, and what timed terms must remember."""

    verdict: Verdict
    verdicts: tuple[GateVerdict, ...]
    memory: Mapping[str, TermMemory]


@dataclass(frozen=True, slots=True)
class _Compiled:
    gate: Gate
    check: Check | None
    allow: GateVerdict
    skip: GateVerdict
    otherwise: Verdict
    timed: bool


class GateKeeper:
    """A decision's gates, compiled once. Holds no state: memory and changes are passed in.

    >>> keeper = GateKeeper([Gate(name="cool", require={"field": "oil.mean", "lt": 90})])
    >>> keeper.judge("stop", {"oil.mean": 71.0}, {}, [], 0.0, is_change=True).verdict.name
    'ALLOW'
    >>> keeper.judge("stop", {"oil.mean": float("nan")}, {}, [], 0.0, is_change=True).verdict.name
    'INDETERMINATE'
    """

    def __init__(self, gates: Sequence[Gate]) -> None:
        self._gates = tuple(_compile(gate) for gate in gates)

    def judge(
        self,
        proposed: str,
        values: Values,
        memory: Memory,
        changes: Sequence[Change],
        now_s: float,
        *,
        is_change: bool,
    ) -> Ruling:
        """Judge one proposed action.

        Args:
            proposed: the action's name.
            values: field name -> value.
            memory: what the last ruling said must be remembered.
            changes: commands issued so far, oldest first.
            now_s: UTC epoch seconds.
            is_change: whether the proposal would be a new command (a renewal is not limited).
        """
        updates: dict[str, TermMemory] = {}
        worst, verdicts = Verdict.ALLOW, []
        for compiled in self._gates:
            try:
                said = _judge_one(compiled, proposed, values, memory, changes, now_s, is_change, updates)
            except Exception as error:  # noqa: BLE001 - G5: a broken gate must close, not crash
                said = GateVerdict(
                    compiled.gate.name, Verdict.INDETERMINATE, f"could not be evaluated: {error!r}"
                )
            verdicts.append(said)
            worst = max(worst, said.verdict)
        return Ruling(worst, tuple(verdicts), updates)


def _compile(gate: Gate) -> _Compiled:
    check = compile_condition(gate.require, gate.name) if gate.require is not None else None
    words = describe(gate.require) if gate.require is not None else "within its limit"
    return _Compiled(
        gate,
        check,
        GateVerdict(gate.name, Verdict.ALLOW, words),
        GateVerdict(gate.name, Verdict.ALLOW, f"judges {', '.join(gate.actions)} only"),
        Verdict.ASK if gate.otherwise == "ask" else Verdict.HOLD,
        gate.require is not None and is_timed(gate.require),
    )


def _judge_one(
    compiled: _Compiled,
    proposed: str,
    values: Values,
    memory: Memory,
    changes: Sequence[Change],
    now_s: float,
    is_change: bool,
    updates: dict[str, TermMemory],
) -> GateVerdict:
    gate = compiled.gate
    applies = not gate.actions or proposed in gate.actions
    if compiled.check is not None:
        if not applies and not compiled.timed:  # timed terms must see every sample
            return compiled.skip
        truth = compiled.check(values, memory, now_s, updates)
        if not applies:
            return compiled.skip
        if truth is TRUE:
            return compiled.allow
        bad = truth is INDETERMINATE
        return GateVerdict(
            gate.name, Verdict.INDETERMINATE if bad else compiled.otherwise, _refusal(compiled, values, bad)
        )
    if not applies or not is_change:
        return compiled.skip if not applies else compiled.allow
    reason = _too_often(gate, changes, now_s)
    return GateVerdict(gate.name, compiled.otherwise, reason) if reason else compiled.allow


def _refusal(compiled: _Compiled, values: Values, bad: bool) -> str:
    gate = compiled.gate
    assert gate.require is not None
    verb = "cannot be judged" if bad else "does not hold"
    because = f" ({gate.because})" if gate.because else ""
    return f"{compiled.allow.reason} {verb}: {found(gate.require, values)}{because}"


def _too_often(gate: Gate, changes: Sequence[Change], now_s: float) -> str:
    mine = [c.at_s for c in changes if not gate.actions or c.action in gate.actions]
    if gate.min_interval_s is not None:
        if mine and not now_s - mine[-1] >= gate.min_interval_s:
            return f"last new command {now_s - mine[-1]:g} s ago, at least {gate.min_interval_s:g} s asked"
        return ""
    assert gate.at_most is not None
    recent = sum(not now_s - at >= gate.at_most.per_s for at in mine)
    if recent >= gate.at_most.count:
        return f"{recent} new commands within {gate.at_most.per_s:g} s, at most {gate.at_most.count} asked"
    return ""
