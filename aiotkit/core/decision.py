"""The decision file, format 1: what is to be decided, at what cost, by when, and how it may act.

Everything else is derived from it. On the desk it is YAML (read by ``lab.decision_file``); inside a
bundle it is canonical JSON. Its identity is the sha256 of that form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    Tag,
    ValidationError,
    model_validator,
)

from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.conditions import Condition, check_size, fields
from aiotkit.core.errors import DecisionFileError
from aiotkit.core.features import feature_names
from aiotkit.core.gates import Gate
from aiotkit.core.problems import ExplainedProblems, bulk_problem, coercions, listed, parse_problems
from aiotkit.core.strict import CENTURY_S, Count, Line, Milliseconds, Money, Rate, Seconds, Strict, Text, Wait

FORMAT = 1
#: how many states, actions and sources; and how many of everything else
FEW, MANY = 64, 256
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Span = tuple[float, float]
Mode = Literal["shadow", "suggest", "confirm", "act"]
Upload = Literal["none", "features", "selected", "raw"]
Costs = Annotated[
    Annotated[Literal["unknown"], Tag("word")] | Annotated[Mapping[str, Mapping[str, Money]], Tag("table")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "table"),
]


class Shift(Strict):
    """A named part of the week in local time; ``from`` later than ``to`` runs past midnight."""

    name: Name
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(min_length=1)
    from_: str = Field(alias="from", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    to: str = Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.from_ == self.to:
            raise ValueError(f"begins and ends at {self.to}; use two shifts for a whole day")
        return self


class Site(Strict):
    """Where the decision is taken: gives local time and shift as context."""

    name: Line = Field(min_length=1, max_length=64)
    time_zone: Line = "UTC"
    shifts: tuple[Shift, ...] = Field(default=(), max_length=FEW)


class State(Strict):
    """A state of the world, hidden from the device."""

    description: Text = ""


class Action(Strict):
    """What may be done. Without ``actuator`` it moves nothing.

    ``valid_for_s``: a command ends by itself after that time; null means until a person resets it.
    ``intervenes``: whether it changes what happens next, so that its outcome is censored.
    """

    description: Text = ""
    reversible: bool = True
    actuator: Name | None = None
    command: Mapping[Line, float | str | bool] = Field(default={}, max_length=FEW)
    valid_for_s: Seconds | None = None
    intervenes: bool = False

    @model_validator(mode="after")
    def _command_needs_actuator(self) -> Self:
        if self.command and self.actuator is None:
            raise ValueError("a command needs an actuator")
        return self


class Human(Strict):
    """What asking a person costs, how long the answer takes and how often it is right.

    ``holds_s``: for so long an answer settles the question: in the same doubt the answered action is
    proposed again instead of another question.
    """

    cost: Annotated[Money, Field(ge=0)]
    delay_s: Wait
    reliability: Share
    holds_s: Wait = 0.0


class Regular(Strict):
    """Equidistant samples."""

    kind: Literal["regular"]
    rate_hz: Rate


class OnChange(Strict):
    """Samples when the value changes: held (``last``) on a grid of ``grid_hz`` (default: one a window).

    A value older than ``max_age_s`` counts as missing.
    """

    kind: Literal["on_change"]
    fill: Literal["last"] = "last"
    grid_hz: Rate | None = None
    max_age_s: Seconds


class Signal(Strict):
    """One measured quantity: UCUM unit, sampling, and the range outside which a value is not believed."""

    description: Text = ""
    unit: Line = Field(min_length=1, max_length=32)
    sampling: Annotated[Regular | OnChange, Field(discriminator="kind")]
    range: Span

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range needs low < high; found {list(self.range)}")
        return self


class Window(Strict):
    """What one decision looks at, and how often one is due. ``max_bad_share``: samples that may be bad."""

    length_s: Annotated[float, Field(ge=1e-6, le=CENTURY_S)]
    every_s: Seconds
    max_bad_share: Share = 0.0


class History(Strict):
    """A slow feature over past windows (the present one excluded); see ``core.history`` for formulas."""

    of: str
    kind: Literal["ewma", "slope", "max", "time_since", "baseline"]
    over_s: Seconds
    above: float | None = None
    initial: float | None = None

    @model_validator(mode="after")
    def _threshold(self) -> Self:
        if (self.kind == "time_since") != (self.above is not None):
            raise ValueError("'above' goes with kind: time_since, and only there")
        return self


class Context(Strict):
    """A condition of operation: a number with a unit and range, or one of ``values``."""

    description: Text = ""
    unit: Line | None = None
    range: Span | None = None
    values: tuple[Line, ...] | None = Field(default=None, min_length=1, max_length=MANY)
    source: Line = ""
    max_age_s: Seconds
    required: bool = True

    @model_validator(mode="after")
    def _number_or_choice(self) -> Self:
        if (self.values is None) == (self.unit is None):
            raise ValueError("give either unit (a number) or values (a choice)")
        if len(set(self.values or ())) < len(self.values or ()):
            raise ValueError(f"values: one of {list(self.values or ())} is given twice")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range needs low < high; found {list(self.range)}")
        return self


class Needs(Strict):
    """What the place of execution must offer, and what may leave it."""

    deadline_ms: Milliseconds
    offline: bool = True
    upload: Upload = "features"


class Autonomy(Strict):
    """Shadow, suggest, confirm or act: for all actions, or one by one."""

    mode: Mode = "shadow"
    actions: Mapping[str, Mode] = Field(default={}, max_length=FEW)


class Verify(Strict):
    """Share of decisions whose state is checked at random, whatever was done."""

    share: Share = 0.0


class Branch(Strict):
    """One line of the written rule: ``when`` … ``do``, or the final ``otherwise``."""

    when: Condition | None = None
    do: str | None = None
    otherwise: str | None = None
    because: Text = ""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.otherwise is None) == (self.when is None) or (self.when is None) != (self.do is None):
            raise ValueError("a rule line is either {when, do} or {otherwise}")
        if self.when is not None:
            check_size(self.when)
        return self

    @property
    def action(self) -> str:
        """The action this line proposes."""
        return self.do or self.otherwise or ""


class OutcomeSource(Strict):
    """Who reports states, which ones, and how often that is right."""

    reports: tuple[str, ...] = Field(min_length=1, max_length=FEW)
    reliability: Annotated[float, Field(gt=0, le=1)] = 1.0
    description: Text = ""


class Outcome(Strict):
    """How a decision gets its label.

    A state reported within ``horizon_s`` after the decision is its outcome. A report may arrive until
    ``maturity_s`` after the decision; then silence means the state ``silence`` (null: no label).
    """

    horizon_s: Seconds
    maturity_s: Seconds
    silence: str | None = None
    sources: Mapping[Line, OutcomeSource] = Field(min_length=1, max_length=FEW)

    @model_validator(mode="after")
    def _mature_after_horizon(self) -> Self:
        if self.maturity_s < self.horizon_s:
            raise ValueError("maturity_s lies before horizon_s: a report may come until the horizon")
        return self


class Policy(Strict):
    """How probabilities become an action, once there is a model.

    ``margin``: what an action that intervenes, or a question, must be expected to save before it is preferred
    to waiting for the next look. A table of costs prices waiting as if nobody looked again until the horizon;
    that a later decision may still act is worth something. Training measures how much; 0 = nothing.
    """

    kind: Literal["expected_cost", "false_alarm_budget"] = "expected_cost"
    margin: Annotated[Money, Field(ge=0)] = 0.0
    prevalence: Mapping[str, Share] = Field(default={}, max_length=FEW)
    alarms_per_day: NonNegativeFloat | None = None


class Limits(Strict):
    """What a release must keep to.

    ``confidence``: how sure it must be, from what was held out, that a candidate costs less than the written
    rule, and how sure that it costs more than the champion before it is refused for that: the level of the
    two-sided interval of the difference.
    """

    flips_share: Share | None = None
    latency_p99_ms: Milliseconds | None = None
    memory_mb: PositiveFloat | None = None
    alarms_per_day: NonNegativeFloat | None = None
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95


class Trigger(Strict):
    """What starts a retraining."""

    new_labels: Count | None = None
    every_s: Seconds | None = None
    drift: PositiveFloat | None = None


class Decision(Strict):
    """A whole decision file. Use ``parse_decision`` to read one with good errors."""

    format: Literal[1]
    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    revision: Count
    title: Text = ""
    subject: Name
    question: Text = Field(min_length=1)
    site: Site
    states: Mapping[Name, State] = Field(min_length=2, max_length=FEW)
    actions: Mapping[Name, Action] = Field(min_length=2, max_length=FEW)
    currency: Line = Field(default="EUR", min_length=1, max_length=8)
    costs: Costs
    human: Human | None = None
    signals: Mapping[Name, Signal] = Field(min_length=1, max_length=MANY)
    window: Window
    history: Mapping[Name, History] = Field(default={}, max_length=MANY)
    context: Mapping[Name, Context] = Field(default={}, max_length=MANY)
    needs: Needs
    autonomy: Autonomy = Autonomy()
    verify: Verify = Verify()
    rule: tuple[Branch, ...] = Field(min_length=1, max_length=MANY)
    gates: tuple[Gate, ...] = Field(default=(), max_length=MANY)
    recovery: str
    outcome: Outcome
    resample: Literal["subject", "block"] = "subject"
    policy: Policy = Policy()
    limits: Limits = Limits()
    trigger: Trigger = Trigger()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        from aiotkit.core.consistency import problems

        found = list(problems(self))
        if found:
            raise ExplainedProblems(found)
        return self

    def canonical(self) -> bytes:
        """The one byte form; what the file does not say or says by default is left out."""
        return canonical_bytes(
            self.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"format": self.format}
        )

    @property
    def uneventful(self) -> str:
        """The state in which nothing is the matter.

        What silence means; else where the action that is taken when no line of the rule applies costs
        least; else the first.
        """
        if self.outcome.silence is not None:
            return self.outcome.silence
        if isinstance(self.costs, str):
            return next(iter(self.states))
        ordinary = self.costs[self.rule[-1].action]
        return min(self.states, key=lambda state: ordinary[state])

    @property
    def digest(self) -> str:
        """Identity: sha256 of the canonical form."""
        return digest(self.canonical())

    def fields_read(self) -> tuple[str, ...]:
        """Every field that rule, gates and history read, in order, each once."""
        return tuple(dict.fromkeys(name for name, _ in self.reads()))

    def reads(self) -> Iterator[tuple[str, str]]:
        """(field, where it is read) for rule, gates and history."""
        for i, branch in enumerate(self.rule):
            if branch.when is not None:
                yield from ((f, f"rule[{i}].when") for f in fields(branch.when))
        for i, gate in enumerate(self.gates):
            if gate.require is not None:
                yield from ((f, f"gates[{i}] '{gate.name}'") for f in fields(gate.require))
        for name, history in self.history.items():
            yield history.of, f"history.{name}.of"

    def features(self) -> tuple[str, ...]:
        """The window features that rule, gates and history need, sorted."""
        return feature_names(self.fields_read())

    def samples(self, signal: str) -> int:
        """How many values one window of a signal holds."""
        sampling = self.signals[signal].sampling
        rate = sampling.rate_hz if isinstance(sampling, Regular) else sampling.grid_hz
        return 1 if rate is None else max(1, round(rate * self.window.length_s))

    def mode(self, action: str) -> Mode:
        """How far the device may go with an action."""
        return self.autonomy.actions.get(action, self.autonomy.mode)


def parse_decision(document: Any, name: str = "decision file") -> Decision:
    """Read a decision from plain data (as YAML or JSON gives it).

    Raises:
        DecisionFileError: naming every problem, where it is, and a hint where there is one.
    """
    if not isinstance(document, Mapping):
        raise DecisionFileError(name, expected="a mapping with format: 1", found=type(document).__name__)
    if document.get("format") != FORMAT:
        raise DecisionFileError(
            f"{name}: format",
            expected=str(FORMAT),
            found=repr(document.get("format")),
            do="This version of aiotkit reads format 1; put 'format: 1' first.",
        )
    bulk = bulk_problem(document)
    if bulk:
        raise DecisionFileError(f"{name}: {bulk}")
    try:
        decision = Decision.model_validate(document)
    except ValidationError as error:
        raise DecisionFileError(listed(name, parse_problems(error, Decision))) from error
    coerced = sorted(coercions(document, decision.model_dump(mode="json", by_alias=True)))
    if coerced:
        raise DecisionFileError(listed(name, coerced))
    return decision


def decision_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the decision file."""
    schema = Decision.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
