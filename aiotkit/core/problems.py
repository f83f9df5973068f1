"""pydantic's validation errors in words a plant engineer can act on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from aiotkit.core.errors import did_you_mean

_TAGS = frozenset({"term", "all", "any", "not", "quorum", "regular", "on_change", "[key]"})


class ExplainedProblems(ValueError):
    """Several problems found at once by a validator, each already in words."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def parse_problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line a problem: where, what was expected, what was found, and a hint."""
    known = set(known_keys(model))
    lines: list[str] = []
    for item in error.errors(include_url=False):
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, ExplainedProblems):
            lines += cause.problems
        else:
            lines.append(_line(item, known))
    return list(dict.fromkeys(lines))


def _line(item: Any, known: set[str]) -> str:
    where = _where(item["loc"])
    if item["type"] == "extra_forbidden":
        key = str(item["loc"][-1])
        hint = did_you_mean(key, known)
        return f"{where}: unknown key" + (f"; {hint}" if hint else "")
    if item["type"] == "missing":
        return f"{where}: missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    value = item.get("input")
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where}: expected a finite number; found {value}"
    if isinstance(value, str | int | float | bool) or value is None:
        return f"{where}: {message}; found {value!r}"
    return f"{where}: {message}"


def _where(loc: tuple[str | int, ...]) -> str:
    text = ""
    for i, part in enumerate(loc):
        if isinstance(part, int):
            text += f"[{part}]"
        elif part in _TAGS and i and _is_tag(loc, i):
            continue
        elif part.startswith(("constrained-", "dict[", "literal[", "lax-or-strict")):
            continue
        else:
            text += f".{part}" if text else part
    return text or "document"


def _is_tag(loc: tuple[str | int, ...], i: int) -> bool:
    """A union's tag follows a key or index and stands before the variant's own keys."""
    previous = loc[i - 1]
    following = loc[i + 1] if i + 1 < len(loc) else None
    repeated = following == loc[i]
    return previous in ("when", "require", "sampling", "not", "not_") or isinstance(previous, int) or repeated


def known_keys(model: type[BaseModel], seen: set[type] | None = None) -> Iterator[str]:
    """Every key of a model and of the models below it."""
    seen = set() if seen is None else seen
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        yield field.alias or name
        for below in _models_in(field.annotation):
            yield from known_keys(below, seen)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
