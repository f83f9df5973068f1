"""pydantic's validation errors in words a plant engineer can act on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from aiotkit.core.errors import did_you_mean

MAX_DEPTH, MAX_VALUES = 64, 30_000
#: problems that are listed, and those that are worth a hint
_LISTED, _HINTED = 50, 200
_TAGS = frozenset({"term", "all", "any", "not", "quorum", "regular", "on_change", "word", "table"})


class ExplainedProblems(ValueError):
    """Several problems found at once by a validator, each already in words."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def parse_problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line a problem: where, what was expected, what was found, and a hint."""
    known = set(known_keys(model))
    lines: list[str] = []
    items = error.errors(include_url=False)
    above = {item["loc"][:i] for item in items for i in range(len(item["loc"]))}
    for item in items:
        if item["type"] == "too_short" and item["loc"] in above:
            continue  # too short only because what it holds was refused
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, ExplainedProblems):
            lines += cause.problems
        else:
            lines.append(_line(item, known if len(lines) < _HINTED else set()))
    return list(dict.fromkeys(lines))


def listed(name: str, lines: Sequence[str]) -> str:
    """The message that lists problems, the first 50 of them."""
    count = f"{len(lines):,} problem" + ("s" if len(lines) > 1 else "")
    more = [f"  and {len(lines) - _LISTED:,} more"] if len(lines) > _LISTED else []
    return "\n".join([f"{name}: {count}", *(f"  - {line}" for line in lines[:_LISTED]), *more])


def bulk_problem(document: Any) -> str:
    """Why plain data is too deep or too large to be looked at any closer, or an empty string."""
    values, level = 0, [document]
    for _ in range(MAX_DEPTH + 1):
        values += len(level)
        if values > MAX_VALUES:
            return f"more than {MAX_VALUES:,} values; no decision needs as many"
        level = [below for value in level for below in _below(value)]
        if not level:
            return ""
    return f"nested more than {MAX_DEPTH} levels deep; no decision needs as many"


def _below(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list | tuple) else ()


def _line(item: Any, known: set[str]) -> str:
    where = _where(item["loc"])
    if item["type"] == "extra_forbidden":
        key = str(item["loc"][-1])
        hint = did_you_mean(key, known)
        return f"{where}: unknown key" + (f"; {hint}" if hint else "")
    if item["type"] == "missing":
        return f"{where}: missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["loc"] and item["loc"][-1] == "[key]" and item["type"] == "string_pattern_mismatch":
        return f"{where}: a name begins with a letter and has letters, digits and _ only"
    value = item.get("input")
    if item["type"] == "too_long" and not isinstance(value, str):
        return f"{where}: at most {item['ctx']['max_length']} are possible"
    if item["type"] == "string_type" and isinstance(value, bool | int | float):
        return f"{where}: {message}; found {_short(value)}. Put it in quotes if it is meant as text"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where}: expected a finite number; found {value}"
    if isinstance(value, str | int | float | bool) or value is None:
        return f"{where}: {message}; found {_short(value)}"
    return f"{where}: {message}"


def _short(value: object) -> str:
    digits = value.bit_length() > 256 if isinstance(value, int) else False
    said = "a number of more than 75 digits" if digits else repr(value)
    return said if len(said) <= 120 else said[:117] + "…"


def _where(loc: tuple[str | int, ...]) -> str:
    text, tag_before = "", False
    for i, part in enumerate(loc):
        is_tag = not tag_before and _is_tag(loc, i)
        tag_before = is_tag
        if isinstance(part, int):
            text += f"[{part}]"
        elif not is_tag and part != "[key]":
            text += f".{part}" if text else part
    return text or "document"


def _is_tag(loc: tuple[str | int, ...], i: int) -> bool:
    """Whether a part names the variant of a union: it stands where a condition, sampling or costs may."""
    if not i or loc[i] not in _TAGS:
        return False
    previous = loc[i - 1]
    return isinstance(previous, int) or previous in ("when", "require", "sampling", "costs", "not", "not_")


def coercions(given: Any, read: Any, where: str = "") -> Iterator[str]:
    """Words or truths that were read as a number, or the reverse: ``"12"`` and ``true`` are no numbers.

    Args:
        given: the document as it came.
        read: what was made of it, as plain data.
        where: the place of both.
    """
    if isinstance(given, Mapping) and isinstance(read, Mapping):
        for key in given.keys() & read.keys():
            yield from coercions(given[key], read[key], f"{where}.{key}" if where else str(key))
    elif isinstance(given, list | tuple) and isinstance(read, list | tuple):
        for i, (one, other) in enumerate(zip(given, read, strict=False)):
            yield from coercions(one, other, f"{where}[{i}]")
    elif _kind_of(given) != _kind_of(read):
        yield f"{where}: expected {_kind_of(read)}; found {given!r}"


def _kind_of(value: Any) -> str:
    kinds = {bool: "true or false", str: "text", int: "a number", float: "a number"}
    return kinds.get(type(value), "something else")


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
