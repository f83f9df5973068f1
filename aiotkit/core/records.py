"""What a decision takes and gives, and the records a device keeps of it.

Instants are integers of microseconds UTC (``…_us``); ages and spans are seconds. A decision record is
``{"format", "in", "out", "timing"}``: ``out`` is a pure function of ``in``, the window bytes and the
bundle, so a replay compares its canonical bytes. ``timing`` is what the clocks said and is not compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.canonical import JSON, canonical_bytes, plain
from aiotkit.core.conditions import TermMemory
from aiotkit.core.errors import EngineError
from aiotkit.core.gates import Change, GateVerdict, Verdict

FORMAT = 1
#: the last instant that any reader of JSON keeps exactly (year 2255)
MAX_US = (1 << 53) - 1
Windows = Mapping[str, NDArray[np.float32]]


def later_us(at_us: int, span_s: float) -> int:
    """The instant ``span_s`` seconds (not NaN) after another, at most ``MAX_US``: any span is safe.

    >>> later_us(5, 2.0), later_us(5, 1e303) == MAX_US
    (2000005, True)
    """
    return min(at_us + round(min(span_s * 1e6, float(MAX_US))), MAX_US)


class RecordType(IntEnum):
    """Kinds of journal records. Numbers are part of the format: never reuse one."""

    WINDOW = 1
    DECISION = 2
    INTENT = 3
    RESULT = 4
    EXPLANATION = 5
    SHADOW = 6
    QUESTION = 7
    ANSWER = 8
    OVERRIDE = 9
    OUTCOME = 10
    GAP = 11
    SECURITY = 12


@dataclass(frozen=True, slots=True)
class Reading:
    """A context value and how old it is (s) at the decision; ``None`` = never heard."""

    value: float | str | None
    age_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A human's answer to a question: which action, by whom, when."""

    question: str
    action: str
    operator: str
    at_us: int


@dataclass(frozen=True, slots=True)
class OperatorInput:
    """What people say at this moment: bypass (device moves nothing), an override, an answer."""

    bypass: bool = False
    dry_run: bool = False
    override: str | None = None
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class DecisionInput:
    """Everything ``Engine.decide`` may look at.

    ``seed`` is the record's identity ``device/journal_id/seq`` and seeds its random draws. ``faults`` are
    things found wrong while the windows were gathered: signal or context name -> words.
    """

    seed: str
    now_us: int
    window_end_us: int
    windows: Windows
    context: Mapping[str, Reading]
    faults: Mapping[str, str] = field(default_factory=dict)
    operator: OperatorInput = OperatorInput()


@dataclass(frozen=True, slots=True)
class Posture:
    """The command in force: until ``valid_until_us``, or (None) until a person resets it."""

    action: str
    since_us: int
    valid_until_us: int | None

    def holds(self, at_us: int) -> bool:
        """Whether it is still in force."""
        return self.valid_until_us is None or at_us < self.valid_until_us


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked: ``kind`` ask, confirm, suggest or inspect; open until ``until_us``."""

    id: str
    kind: str
    proposed: str | None
    until_us: int
    reason: str


@dataclass(frozen=True, slots=True)
class Command:
    """What the actuator process is told. ``irreversible`` ones wait until their intent is durable."""

    action: str
    actuator: str
    values: Mapping[str, float | str | bool]
    valid_until_us: int | None
    irreversible: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """What a person answered last, and until when that settles the question (``human.holds_s``)."""

    action: str
    operator: str
    until_us: int


@dataclass(frozen=True, slots=True)
class EngineState:
    """What one decision hands to the next. Plain, small and recorded."""

    history: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    memory: Mapping[str, TermMemory] = field(default_factory=dict)
    posture: Posture | None = None
    changes: tuple[Change, ...] = ()
    question: Question | None = None
    answered: Answered | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """A random draw that anyone can repeat: ``hit`` when ``u < p``."""

    p: float
    u: float

    @property
    def hit(self) -> bool:
        """Whether the draw came out."""
        return self.u < self.p


def draw(seed: str, purpose: str, p: float) -> Draw:
    """A uniform number from sha256 of seed and purpose, exact to 53 bits.

    >>> draw("d/j/1", "verify", 1.0).hit, draw("d/j/1", "verify", 0.0).hit
    (True, False)
    """
    word = hashlib.sha256(f"{seed}|{purpose}".encode()).digest()[:8]
    return Draw(p, (int.from_bytes(word, "big") >> 11) / (1 << 53))


@dataclass(frozen=True, slots=True)
class Decided:
    """What ``Engine.decide`` found, proposed, and what became of it.

    ``proposed`` None = undeterminable, ``ask`` = a human shall decide. ``final`` None = nothing new was
    ordered; ``in_force`` is the action that holds afterwards, whoever ordered it. ``novelty``: how far the
    window lies from those of training, 1 = as far as any of them; None where the graph does not say.
    """

    features: Mapping[str, float]
    history: Mapping[str, float]
    p: Mapping[str, float] | None
    expected_costs: Mapping[str, float]
    faults: Mapping[str, str]
    proposed: str | None
    proposal_reason: str
    verdict: Verdict
    verdicts: tuple[GateVerdict, ...]
    final: str | None
    final_reason: str
    in_force: str | None
    mode: str
    command: Command | None
    question: Question | None
    verify: Draw
    upload: Draw
    state: EngineState
    novelty: float | None = None

    def to_json(self) -> JSON:
        """The ``out`` part of the record; ``novelty`` is there only where the graph says it."""
        out = {
            "features": _numbers(self.features),
            "history": _numbers(self.history),
            "p": None if self.p is None else _numbers(self.p),
            "expected_costs": _numbers(self.expected_costs),
            "faults": dict(self.faults),
            "proposed": self.proposed,
            "proposal_reason": self.proposal_reason,
            "verdict": self.verdict.name,
            "verdicts": [[v.gate, v.verdict.name, v.reason] for v in self.verdicts],
            "final": self.final,
            "final_reason": self.final_reason,
            "in_force": self.in_force,
            "mode": self.mode,
            "command": None if self.command is None else command_to_json(self.command),
            "question": _question_to_json(self.question),
            "verify": [self.verify.p, self.verify.u],
            "upload": [self.upload.p, self.upload.u],
            "state": state_to_json(self.state),
        }
        return out if self.novelty is None else out | {"novelty": plain(self.novelty)}


def input_to_json(given: DecisionInput, state: EngineState, window_digest: str) -> JSON:
    """The ``in`` part of a decision record; windows go by digest."""
    operator = given.operator
    return {
        "seed": given.seed,
        "now_us": given.now_us,
        "window_end_us": given.window_end_us,
        "window": window_digest,
        "context": {k: [_value(r.value), plain(r.age_s)] for k, r in given.context.items()},
        "faults": dict(given.faults),
        "operator": {
            "bypass": operator.bypass,
            "dry_run": operator.dry_run,
            "override": operator.override,
            "answer": None
            if operator.answer is None
            else [getattr(operator.answer, n) for n in Answer.__slots__],
        },
        "state": state_to_json(state),
    }


def input_from_json(data: JSON, windows: Windows) -> tuple[DecisionInput, EngineState]:
    """The inverse of ``input_to_json``, given the windows the digest stands for."""
    operator = data["operator"]
    answer = None if operator["answer"] is None else Answer(*operator["answer"])
    given = DecisionInput(
        seed=data["seed"],
        now_us=data["now_us"],
        window_end_us=data["window_end_us"],
        windows=windows,
        context={k: Reading(_unvalue(v), float(age)) for k, (v, age) in data["context"].items()},
        faults=data["faults"],
        operator=OperatorInput(operator["bypass"], operator["dry_run"], operator["override"], answer),
    )
    return given, state_from_json(data["state"])


def decision_payload(
    given: DecisionInput,
    state: EngineState,
    decided: Decided,
    *,
    window_digest: str,
    bundle: str,
    timing: Mapping[str, Any],
    decision: tuple[str, int],
) -> bytes:
    """The bytes of a decision record; ``decision`` is the id and revision of the decision file."""
    return canonical_bytes(
        {
            "format": FORMAT,
            "decision": list(decision),
            "bundle": bundle,
            "in": input_to_json(given, state, window_digest),
            "out": decided.to_json(),
            "timing": dict(timing),
        }
    )


def state_to_json(state: EngineState) -> JSON:
    """Plain data that ``state_from_json`` turns back into an equal state."""
    posture, answered = state.posture, state.answered
    said = {} if answered is None else {"answered": [answered.action, answered.operator, answered.until_us]}
    return said | {
        "history": {k: list(v) for k, v in state.history.items()},
        "memory": {k: list(v) for k, v in state.memory.items()},
        "posture": None if posture is None else [posture.action, posture.since_us, posture.valid_until_us],
        "changes": [[c.at_s, c.action] for c in state.changes],
        "question": _question_to_json(state.question),
    }


def state_from_json(data: JSON) -> EngineState:
    """The inverse of ``state_to_json``."""
    question = data["question"]
    return EngineState(
        history={k: tuple(v) for k, v in data["history"].items()},
        memory={k: (v[0], v[1], v[2]) for k, v in data["memory"].items()},
        posture=None if data["posture"] is None else Posture(*data["posture"]),
        changes=tuple(Change(at, action) for at, action in data["changes"]),
        question=None if question is None else Question(**question),
        answered=Answered(*data["answered"]) if "answered" in data else None,
    )


def command_to_json(command: Command) -> JSON:
    """A command as plain data."""
    return {
        "action": command.action,
        "actuator": command.actuator,
        "values": dict(command.values),
        "valid_until_us": command.valid_until_us,
        "irreversible": command.irreversible,
    }


def command_from_json(data: JSON) -> Command:
    """The inverse of ``command_to_json``."""
    return Command(**data)


def _question_to_json(question: Question | None) -> JSON:
    return None if question is None else {n: getattr(question, n) for n in Question.__slots__}


def _numbers(values: Mapping[str, float]) -> dict[str, float | str]:
    return {name: plain(value) for name, value in values.items()}


def _value(value: float | str | None) -> JSON:
    """Words keep a mark, so that the word 'nan' and the number stay apart."""
    return {"word": value} if isinstance(value, str) else value if value is None else plain(value)


def _unvalue(value: JSON) -> float | str | None:
    if isinstance(value, dict):
        return str(value["word"])
    return float(value) if isinstance(value, str) else value


def pack_windows(windows: Windows) -> bytes:
    """One window of every signal as bytes: a canonical JSON line {signal: length}, then float32 LE."""
    names = sorted(windows)
    head = canonical_bytes({n: int(windows[n].size) for n in names}) + b"\n"
    return head + b"".join(np.ascontiguousarray(windows[n], dtype="<f4").tobytes() for n in names)


def unpack_windows(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The inverse of ``pack_windows``; raises ``EngineError`` when the bytes do not add up."""
    import json

    head, newline, body = data.partition(b"\n")
    try:
        lengths = json.loads(head)
        sizes = {str(k): int(v) for k, v in lengths.items()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise EngineError("window bytes: the first line is not {signal: length}") from error
    if not newline or min(sizes.values(), default=0) < 0 or len(body) != 4 * sum(sizes.values()):
        raise EngineError(
            "window bytes", expected=f"{4 * sum(sizes.values())} bytes of float32", found=str(len(body))
        )
    out, at = {}, 0
    for name in sorted(sizes):
        out[name] = np.frombuffer(body, dtype="<f4", count=sizes[name], offset=at)
        at += 4 * sizes[name]
    return out
