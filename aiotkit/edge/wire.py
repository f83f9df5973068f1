"""JSON lines over Unix sockets: whole lines out of pieces, what they say, and addresses of any length."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiotkit.core.canonical import plain
from aiotkit.core.errors import ActuatorError

MAX_LINE = 1 << 17
_MAX_DEPTH = 64
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


def loads(data: bytes) -> Any:
    r"""What JSON from outside says, in values that can always be written as JSON again.

    Numbers that are not finite become their names, and text that is no Unicode becomes question marks:
    an answer, a stop, a heartbeat must not fail for what somebody else has sent.

    Raises:
        ValueError: it is no JSON, or nested too deeply to be read.

    >>> loads(b'{"by":"\\ud800","at":1e999}')
    {'by': '?', 'at': 'inf'}
    """
    text = data.decode(errors="replace")
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
        if "\\u" in text:
            value = json.loads(unicode_only(json.dumps(value, ensure_ascii=False)))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _deeper(value, _MAX_DEPTH):
        raise ValueError("nested too deeply")
    return value


def unicode_only(text: str) -> str:
    """Text that UTF-8 can carry: what it cannot (half a surrogate pair) becomes a question mark."""
    return text.encode(errors="replace").decode()


def _deeper(value: object, levels: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(one, levels - 1) for one in inside)


def _finite(word: str) -> float | str:
    return plain(float(word))


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
