"""JSON lines over Unix sockets: whole lines out of pieces, and addresses longer than the system allows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiotkit.core.errors import ActuatorError

MAX_LINE = 1 << 17
_MAX_ADDRESS = 100  # sun_path holds 108 bytes on Linux, 104 elsewhere


class Lines:
    """Splits at line feeds; memory is bounded.

    >>> lines = Lines(); lines.feed(b"one" + bytes([10]) + b"tw"), lines.feed(b"o" + bytes([10]))
    ([b'one'], [b'two'])
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that are complete by now; ``ActuatorError`` when one grows too long."""
        *whole, self._held = (self._held + piece).split(b"\n")
        if len(self._held) > MAX_LINE:
            raise ActuatorError("a line without end", expected=f"at most {MAX_LINE} bytes")
        return [line for line in whole if line]


@contextmanager
def address(path: Path) -> Iterator[str]:
    """What ``bind`` and ``connect`` take for a socket's path, however deep its folder lies (Linux)."""
    if len(os.fsencode(path)) <= _MAX_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
