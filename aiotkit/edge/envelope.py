"""What an actuator may be told at all: set at commissioning, outside every bundle. Pure.

``actuator.json`` lists actuators, their values with limits or choices, and two postures: ``rest`` (nobody
commands) and ``safe`` (a person pressed stop). Every command is checked here, whoever sent it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from aiotkit.bundle.document import parse_document
from aiotkit.core.conditions import is_number
from aiotkit.core.decision import Name
from aiotkit.core.errors import ConfigError, did_you_mean
from aiotkit.core.problems import ExplainedProblems
from aiotkit.core.strict import Strict

ACTUATOR_FILE = "actuator.json"
#: no instant lies later (µs UTC): what does is a fault, and would break arithmetic
MAX_INSTANT_US = 1 << 60
Value = float | str | bool
Values = Mapping[str, Value]
#: actuator -> value name -> value
Posture = Mapping[str, Values]


class Limit(Strict):
    """What one value may be: a number in [min, max], or one of ``choices``."""

    min: float | None = None
    max: float | None = None
    choices: tuple[bool | float | str, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        pair = self.min is not None and self.max is not None
        if pair == (self.choices is not None) or (self.min is None) != (self.max is None):
            raise ValueError("give either min and max, or choices")
        if self.min is not None and self.max is not None and not self.min <= self.max:
            raise ValueError(f"min {self.min:g} lies above max {self.max:g}")
        return self

    def refusal(self, value: object) -> str:
        """Why a value is not allowed, or an empty string.

        >>> Limit(min=0, max=1).refusal(1.5), Limit(choices=("on", "off")).refusal("on")
        ('1.5 outside [0, 1]', '')
        """
        if self.choices is not None:
            same = [c for c in self.choices if c == value and isinstance(c, bool) is isinstance(value, bool)]
            return "" if same else f"{str(value)[:40]!r} is none of {list(self.choices)}"
        assert self.min is not None
        assert self.max is not None
        if not is_number(value):
            return f"{str(value)[:40]!r} is no finite number"
        assert isinstance(value, int | float)
        return "" if self.min <= value <= self.max else f"{value:g} outside [{self.min:g}, {self.max:g}]"


class ActuatorConfig(Strict):
    """``actuator.json``.

    ``deadman_s``: without a heartbeat for so long, timed commands end and ``rest`` holds. ``driver``:
    ``socket:PATH`` or ``file:PATH``. ``clock: driver`` takes the plant's ticks as time. ``trust``: whose
    operator keys may lift a stop; null: nobody can from here.
    """

    format: Literal[1]
    device: str = Field(default="", max_length=64)
    actuators: Mapping[Name, Mapping[Name, Limit]] = Field(min_length=1)
    rest: Mapping[str, Mapping[str, bool | float | str]]
    safe: Mapping[str, Mapping[str, bool | float | str]]
    deadman_s: PositiveFloat
    driver: str = Field(pattern=r"^(socket|file):.+$")
    clock: Literal["system", "driver"] = "system"
    trust: str | None = "trust.json"
    socket: str = Field(default="actuator.sock", min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        found = [*_gaps(self.actuators, "rest", self.rest), *_gaps(self.actuators, "safe", self.safe)]
        if found:
            raise ExplainedProblems(found)
        return self


def _gaps(actuators: Mapping[str, Mapping[str, Limit]], name: str, posture: Posture) -> Iterator[str]:
    for actuator, limits in actuators.items():
        given = posture.get(actuator, {})
        for value in limits:
            if value not in given:
                yield f"{name}.{actuator}.{value}: missing; every value needs one"
    for actuator, values in posture.items():
        words = refusal(actuators, actuator, values)
        if words:
            yield f"{name}: {words}"


def parse_actuator_config(data: bytes) -> ActuatorConfig:
    """Read ``actuator.json``; ``ConfigError`` lists every problem."""
    return parse_document(data, ActuatorConfig, ACTUATOR_FILE, ConfigError)


def refusal(actuators: Mapping[str, Mapping[str, Limit]], actuator: object, values: object) -> str:
    """Why a command lies outside the envelope, in words, or an empty string."""
    if not isinstance(actuator, str) or actuator not in actuators:
        hint = did_you_mean(str(actuator), actuators) or f"known: {', '.join(sorted(actuators))}"
        return f"unknown actuator {str(actuator)[:64]!r}; {hint}"
    if not isinstance(values, Mapping):
        return f"{actuator}: values must be an object"
    limits = actuators[actuator]
    for name, value in values.items():
        if name not in limits:
            known = did_you_mean(str(name), limits) or f"known: {', '.join(sorted(limits))}"
            return f"{actuator}: unknown value {str(name)[:64]!r}; {known}"
        words = limits[name].refusal(value)
        if words:
            return f"{actuator}.{name}: {words}"
    return ""


def command_refusal(
    config: ActuatorConfig, command: Mapping[str, Any], now_us: int | None
) -> tuple[str, str]:
    """(status, why) when a command may not be carried out now: ``refused`` or ``expired``; else ("", "").

    ``now_us`` None: the driver has not said the time yet, and nothing can be judged.
    """
    until = command.get("valid_until_us")
    if not isinstance(command.get("action"), str):
        return "refused", "the command names no action"
    if until is not None and not (type(until) is int and abs(until) <= MAX_INSTANT_US):
        return "refused", f"valid_until_us: {str(until)[:40]!r} is no instant"
    if now_us is None:
        return "refused", "the driver has not said what time it is"
    words = refusal(config.actuators, command.get("actuator"), command.get("values"))
    if words:
        return "refused", f"outside the envelope: {words}"
    if until is not None and not now_us < until:
        return "expired", f"it was valid until {(now_us - until) / 1e6:g} s ago"
    return "", ""
