"""What a device is told when it is commissioned: ``device.json`` in its state folder.

Paths are relative to that folder. ``actuator.json`` is in ``edge.envelope``: another process reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from aiotkit.bundle.document import parse_document
from aiotkit.core.errors import ConfigError
from aiotkit.core.strict import Strict

DEVICE_FILE = "device.json"
Share = Annotated[float, Field(ge=0, le=1)]


class JournalConfig(Strict):
    """How the journal is kept.

    ``commit_ms``: how long a record may wait for others before all are synced at once.
    ``unlogged``: what may still be ordered while nothing can be journaled: ``nothing``, or
    ``reversible`` actions. Irreversible ones never.
    """

    quota_bytes: PositiveInt = 256 << 20
    on_full: Literal["drop", "stop"] = "drop"
    commit_ms: NonNegativeFloat = 20.0
    unlogged: Literal["nothing", "reversible"] = "nothing"


class ActuatorPlace(Strict):
    """Where the actuator process listens."""

    socket: str = Field(default="actuator.sock", min_length=1)


class ProbationRules(Strict):
    """What a new bundle must keep to; ``probation`` in ``device.json``.

    ``decisions``: so many, in order, and it has passed. ``least``: none is judged by fewer. ``starts``: it
    goes back at the next start after so many that nobody ended in order (crashed, killed, power gone).
    ``hang_s``: a decision that takes so long, or three deadlines if that is longer, ends the process; it
    holds after the probation too.
    """

    decisions: PositiveInt = 96
    least: PositiveInt = 12
    max_undecided_share: Share = 0.2
    max_novel_share: Share = 0.5
    max_late_share: Share = 0.05
    starts: PositiveInt = 3
    hang_s: PositiveFloat = 5.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.decisions:
            raise ValueError(f"least must be at most decisions ({self.decisions}); found {self.least}")
        return self


class DeviceConfig(Strict):
    """``device.json``.

    ``source``: ``stdin`` or ``file:PATH``. ``uplink``: a folder, or null when nothing is delivered.
    ``actuator`` null: there is none, and every command fails. ``clock: source`` takes the packets' time.
    """

    format: Literal[1]
    device: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    site: str = Field(min_length=1, max_length=64)
    hardware: str = Field(min_length=1, max_length=64)
    decision: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    trust: str = Field(default="trust.json", min_length=1)
    uplink: str | None = Field(default=None, min_length=1)
    batch_s: PositiveFloat = 1.0
    source: str = Field(default="stdin", pattern=r"^(stdin|file:.+)$")
    clock: Literal["system", "source"] = "system"
    journal: JournalConfig = JournalConfig()
    actuator: ActuatorPlace | None = ActuatorPlace()
    probation: ProbationRules = ProbationRules()


def read_config(state: Path) -> DeviceConfig:
    """``device.json`` of a state folder.

    Raises:
        ConfigError: it is missing, or says something that cannot be; every problem is listed.
    """
    return parse_document(read_file(state / DEVICE_FILE), DeviceConfig, DEVICE_FILE, ConfigError)


def read_file(path: Path) -> bytes:
    """The bytes of a file of the configuration; ``ConfigError`` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path.name} in {path.parent}",
            found=error.strerror or str(error),
            do="Commission the device, or give its folder with --state.",
        ) from error
