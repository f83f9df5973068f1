"""Reading a decision file: YAML without its traps; units and time zone checked; problems with lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import yaml

from aiotkit.core.decision import Decision, parse_decision
from aiotkit.core.errors import DecisionFileError, did_you_mean
from aiotkit.lab.units import unit_problem


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: ``no`` and ``on`` are words, ``06:00`` is text, ``1e3`` is a number."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are words, each once."""
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise DecisionFileError(
                    f"{self.name}, line {line}: key {key!r}", expected="a word", do="Put it in quotes."
                )
            if key in seen:
                raise DecisionFileError(
                    f"{self.name}, line {line}: key '{key}' is given twice",
                    found=f"first on line {seen[key]}",
                    do="Keep one of them.",
                )
            seen[key] = line
        return super().construct_mapping(node, deep=deep)


_CORE = {
    "null": (r"(?:~|null|Null|NULL|)", [*"~nN", ""]),
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)", [*"tTfF"]),
    "int": (r"[-+]?[0-9]+", [*"-+0123456789"]),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*"-+0123456789."],
    ),
}
for _name, (_pattern, _first) in _CORE.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def read_decision(path: str | Path) -> Decision:
    """Read and check a decision file.

    Raises:
        DecisionFileError: the file is missing, is no YAML, gives a key twice, or says something that
            cannot be; every problem is listed with its line.
    """
    return read_decision_text(_read(Path(path), "Write one with: aiotkit init NAME"), str(path))


def read_yaml(path: str | Path) -> Any:
    """Any other YAML document with the same care: keys once, words stay words.

    Raises:
        DecisionFileError: the file is missing, is no YAML, or gives a key twice.
    """
    return _load(_read(Path(path), "Check the path."), str(path))[0]


def _read(path: Path, do: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DecisionFileError(f"{path}: no such file", do=do) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DecisionFileError(f"{path}: cannot be read as UTF-8 text", found=str(error)) from error


def read_decision_text(text: str, name: str = "decision file") -> Decision:
    """The same from text; ``name`` is used in messages."""
    document, lines = _load(text, name)
    try:
        decision = parse_decision(document, name)
    except DecisionFileError as error:
        raise DecisionFileError(_with_lines(str(error), lines)) from error
    found = [*_unit_problems(decision), *_zone_problems(decision)]
    if found:
        count = f"{len(found)} problem" + ("s" if len(found) > 1 else "")
        message = f"{name}: {count}\n" + "\n".join(f"  - {x}" for x in found)
        raise DecisionFileError(_with_lines(message, lines))
    return decision


def _load(text: str, name: str) -> tuple[Any, dict[str, int]]:
    loader = _Loader(text)
    loader.name = name
    try:
        node = loader.get_single_node()
        document = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise DecisionFileError(f"{name}: not valid YAML", found=_where_yaml(error)) from error
    finally:
        loader.dispose()
    return document, {} if node is None else dict(_lines(node, ""))


def _where_yaml(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error)


def _lines(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    """(path, line) of every key and list item, paths written as in error messages."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            yield below, key.start_mark.line + 1
            yield from _lines(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield f"{path}[{i}]", value.start_mark.line + 1
            yield from _lines(value, f"{path}[{i}]")


def _with_lines(message: str, lines: dict[str, int]) -> str:
    """The message with `` (line N)`` after each problem whose place, or a place above it, is in the file."""

    def numbered(line: str) -> str:
        if not line.startswith("  - "):
            return line
        place = re.split(r"[:\s]", line[4:], maxsplit=1)[0]
        while place and place not in lines:
            place = re.sub(r"(\.[^.\[\]]+|\[\d+\]|^[^.\[\]]+)$", "", place)
        return f"{line} (line {lines[place]})" if place else line

    return "\n".join(numbered(line) for line in message.split("\n"))


def _unit_problems(decision: Decision) -> Iterator[str]:
    units = [(f"signals.{n}.unit", s.unit) for n, s in decision.signals.items()]
    units += [(f"context.{n}.unit", c.unit) for n, c in decision.context.items() if c.unit is not None]
    for where, unit in units:
        problem = unit_problem(unit)
        if problem is not None:
            yield f"{where}: {problem}"


def _zone_problems(decision: Decision) -> Iterator[str]:
    zone = decision.site.time_zone
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        hint = did_you_mean(zone, available_timezones()) or "use an IANA name such as Europe/Berlin"
        yield f"site.time_zone: unknown time zone '{zone}'; {hint}"
