"""How commands speak: words for people, or one JSON document for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from aiotkit.core.canonical import JSON, plain
from aiotkit.core.errors import AiotkitError


def say(data: Mapping[str, Any], text: str, as_json: bool) -> None:
    """Print a command's result: ``data`` as one JSON document, or ``text`` for people.

    Floats that JSON cannot carry become their names, paths become strings; anything else that is not
    plain data raises ``TypeError``.

    >>> say({"worst": float("nan"), "file": PurePath("a/b")}, "unused", as_json=True)
    {
      "worst": "nan",
      "file": "a/b"
    }
    """
    print(as_document(data) if as_json else text, flush=True)


def as_document(data: Mapping[str, Any]) -> str:
    """The JSON text of a result, indented, in the order given."""
    return json.dumps(_plain(data), ensure_ascii=False, allow_nan=False, indent=2)


def say_error(error: AiotkitError, as_json: bool) -> None:
    """Print an error: ``error: …`` on stderr, or a JSON document on stdout where a program reads."""
    if not as_json:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return
    told = {
        "kind": type(error).__name__,
        "what": error.what,
        "expected": error.expected,
        "found": error.found,
        "do": error.do,
    }
    print(as_document({"error": str(error), "exit_code": error.exit_code} | told), flush=True)


def _plain(value: Any) -> JSON:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return plain(value)
    return value
