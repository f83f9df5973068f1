"""Reading small JSON documents at the border: each key once, no NaN, nothing unknown, good errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from aiotkit.core.errors import AiotkitError, BundleError
from aiotkit.core.problems import parse_problems
from aiotkit.core.strict import Strict

M = TypeVar("M", bound=Strict)


def parse_document(data: bytes, model: type[M], name: str, error: type[AiotkitError] = BundleError) -> M:
    """One JSON document as a model.

    Args:
        data: UTF-8 JSON.
        model: what it must be.
        name: how messages call it.
        error: what is raised when it is not.
    """
    plain = parse_json(data, name, error)
    if not isinstance(plain, dict):
        raise error(name, expected="a JSON object", found=type(plain).__name__)
    try:
        return model.model_validate(plain)
    except ValidationError as problem:
        raise error(f"{name}: " + "; ".join(parse_problems(problem, model))) from problem


def parse_json(data: bytes, name: str, error: type[AiotkitError] = BundleError) -> Any:
    """JSON as plain data; a key given twice, NaN and infinities are refused."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_each_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as problem:
        raise error(name, expected="JSON in UTF-8", found=str(problem)) from problem


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in {k for k, _ in pairs[:i]})
        raise ValueError(f"the key {twice!r} is given twice")
    return out


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")
