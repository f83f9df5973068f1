"""What people may tell a device, signed with an operator's key; who may say what, and until when. Pure.

A message is an envelope (``bundle.sign``) over a canonical document. It is believed once: only for the
device it names, only until ``until_us``, only if its id was not seen before.
"""

from __future__ import annotations

import secrets
from collections.abc import Container
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from aiotkit.bundle.document import parse_document
from aiotkit.bundle.keys import SigningKey
from aiotkit.bundle.sign import OPERATOR_TYPE, open_envelope, parse_envelope, sign
from aiotkit.bundle.trust import Trust
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import OperatorError
from aiotkit.core.records import later_us
from aiotkit.core.strict import Strict

#: a message may be this far ahead of the device's clock
AHEAD_US = 300 * 1_000_000
#: and may ask to be believed for so long at most
MAX_LIFE_US = 7 * 86_400 * 1_000_000
MAX_MESSAGE = 1 << 16


class Message(Strict):
    """One thing a person says. ``question`` and ``action`` answer; ``action`` overrides; ``on`` bypasses."""

    format: Literal[1] = 1
    id: str = Field(pattern=r"^[A-Za-z0-9-]{8,64}$")
    device: str = Field(min_length=1, max_length=64)
    kind: Literal["answer", "override", "bypass", "stop"]
    operator: str = Field(min_length=1, max_length=64)
    at_us: int = Field(ge=0)
    until_us: int = Field(ge=0)
    question: str | None = Field(default=None, max_length=200)
    action: str | None = Field(default=None, max_length=64)
    on: bool | None = None
    release: bool | None = None
    because: str = Field(default="", max_length=400)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        needs = {
            "answer": ("question", "action"),
            "override": ("action",),
            "bypass": ("on",),
            "stop": (),
        }[self.kind]
        missing = [name for name in needs if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.kind} needs {' and '.join(missing)}")
        if not self.at_us < self.until_us <= self.at_us + MAX_LIFE_US:
            raise ValueError("until_us must lie after at_us, at most a week")
        return self

    def canonical(self) -> bytes:
        """The bytes that are signed."""
        return canonical_bytes(self.model_dump(mode="json", exclude_none=True))


def make_message(
    device: str, kind: str, operator: str, at_us: int, *, life_s: float = 3600.0, **said: Any
) -> Message:
    """A message with an id of its own; what it says goes by keyword (``action="stop"``)."""
    until = later_us(at_us, life_s)
    return Message.model_validate(
        {
            "id": f"{kind}-{secrets.token_hex(8)}",
            "device": device,
            "kind": kind,
            "operator": operator,
            "at_us": at_us,
            "until_us": until,
            **said,
        }
    )


def sign_message(message: Message, key: SigningKey) -> bytes:
    """The envelope's bytes, as they lie in an inbox."""
    return sign(OPERATOR_TYPE, message.canonical(), [key]).to_bytes()


def open_message(data: bytes, trust: Trust) -> Message:
    """The message, once its signature holds.

    Raises:
        SignatureError: not signed by a key of the role ``operator``.
        OperatorError: signed, but no message.
    """
    if len(data) > MAX_MESSAGE:
        raise OperatorError(
            "operator's message", expected=f"at most {MAX_MESSAGE} bytes", found=str(len(data))
        )
    payload = open_envelope(parse_envelope(data, "operator's message"), trust, "operator", OPERATOR_TYPE)
    return parse_document(payload, Message, "operator's message", OperatorError)


def check_message(message: Message, device: str, now_us: int, seen: Container[str]) -> None:
    """Raise ``OperatorError`` unless this device may believe the message now, for the first time."""
    if message.device != device:
        raise OperatorError("operator's message: device", expected=device, found=message.device)
    if message.id in seen:
        raise OperatorError(f"operator's message {message.id} was seen before", do="Sign a new one.")
    if not now_us < message.until_us:
        late = (now_us - message.until_us) / 1e6
        raise OperatorError(f"operator's message {message.id} ended {late:g} s ago", do="Sign a new one.")
    if message.at_us > now_us + AHEAD_US:
        ahead = (message.at_us - now_us) / 1e6
        raise OperatorError(f"operator's message {message.id} is {ahead:g} s ahead", do="Check both clocks.")


def check_release(message: Message, device: str, now_us: int, stopped_us: int) -> None:
    """Raise ``OperatorError`` unless the message lifts the stop that was pressed at ``stopped_us``.

    A release signed before that stop is an old one, played again.
    """
    if message.kind != "stop" or message.release is not True:
        raise OperatorError("release", expected="a message of kind stop with release", found=message.kind)
    check_message(message, device, now_us, ())
    if not message.at_us >= stopped_us:
        raise OperatorError(
            f"release {message.id} was signed before the stop was pressed",
            do="Look at the machine, sign anew.",
        )
