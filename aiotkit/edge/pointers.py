"""Generation pointers: which slot is live, and the floor below which no release comes in. Format 1.

A pointer file is one line with the sha256 of what follows, then canonical JSON: the hash is checked before
anything is parsed. Two of them (``ptr0``, ``ptr1``) are written in turn, so that the one in force is
never the one being replaced; both hold the floor.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.errors import IntegrityError
from aiotkit.core.strict import Strict

FORMAT = 1
MAX_POINTER_BYTES = 4096
SlotNumber = Literal[0, 1]
Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Content(Strict):
    """What a slot must hold: the archive's bytes by digest and size, and the bundle in it."""

    slot: SlotNumber
    archive: Sha256
    size: NonNegativeInt
    bundle: Sha256


class Pointer(Strict):
    """One generation: what is live from it on (``None``: it only keeps the floor), and the floor."""

    format: Literal[1] = 1
    generation: NonNegativeInt
    floor: NonNegativeInt
    content: Content | None = None

    @model_validator(mode="after")
    def _numbered(self) -> Self:
        if (self.generation == 0) != (self.content is None):
            raise ValueError("generation 0 holds nothing but the floor, and every other one a bundle")
        return self

    def encode(self) -> bytes:
        """The bytes of the pointer file."""
        return seal(canonical_bytes(self.model_dump(mode="json")))


def seal(body: bytes) -> bytes:
    """A small file that knows when it is damaged: the digest of what follows, a line feed, the body."""
    return digest(body).encode() + b"\n" + body


def unseal(data: bytes, name: str, most: int) -> bytes:
    """The body of a sealed file of at most ``most`` bytes; ``IntegrityError`` when it is damaged."""
    line, newline, body = data.partition(b"\n")
    if not newline or len(data) > most or digest(body).encode() != line:
        raise IntegrityError(
            f"{name} is damaged", expected="content with the hash in its first line", found=repr(data[:24])
        )
    return body


def decode_pointer(data: bytes, name: str) -> Pointer:
    """Read a pointer file.

    Args:
        data: its bytes.
        name: what to call it in an error.

    Raises:
        IntegrityError: when its own hash is wrong, or (with a right hash) its content is none of format 1.

    >>> decode_pointer(Pointer(generation=0, floor=7).encode(), "ptr0").floor
    7
    """
    body = unseal(data, name, MAX_POINTER_BYTES)
    try:
        return Pointer.model_validate(json.loads(body))
    except (ValueError, RecursionError) as error:  # pydantic's too
        raise IntegrityError(f"{name} is no pointer of format {FORMAT}", found=str(error)) from error
