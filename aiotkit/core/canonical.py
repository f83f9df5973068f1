"""One way to write JSON, so that equal things have equal bytes and digests."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

JSON = Any  # dict, list, str, int, float, bool or None


def canonical_bytes(value: JSON) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces; floats as their shortest exact form.

    Raises ``ValueError`` for NaN and infinities (use ``plain`` where they may occur) and for text that
    UTF-8 cannot carry (``utf8_text``).

    >>> canonical_bytes({"b": 1, "a": [1.5, None]})
    b'{"a":[1.5,null],"b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def plain(value: float) -> float | str:
    """A float that JSON can carry: NaN and infinities become their names.

    >>> plain(1.5), plain(float("nan")), plain(float("-inf"))
    (1.5, 'nan', '-inf')
    """
    return value if math.isfinite(value) else str(value)


def utf8_text(text: str) -> str:
    r"""Text that UTF-8 can carry: halves of surrogate pairs (odd file names, broken senders) as escapes.

    >>> utf8_text("a\ud800ü")
    'a\\ud800ü'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def digest(data: bytes) -> str:
    """``sha256:`` and the hexadecimal digest of the bytes.

    >>> digest(b"")[:15]
    'sha256:e3b0c442'
    """
    return "sha256:" + hashlib.sha256(data).hexdigest()
