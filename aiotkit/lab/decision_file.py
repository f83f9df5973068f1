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
from aiotkit.core.problems import MAX_DEPTH, MAX_VALUES, listed
from aiotkit.lab.units import unit_problem

MAX_BYTES = 1 << 20
_MAX_DIGITS = 75
#: words that YAML 1.1 readers take for true or false
_TRUTHS_11 = frozenset({"y", "n", "yes", "no", "on", "off"})


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
    text = str(loader.construct_scalar(node))
    if len(text) > _MAX_DIGITS:
        raise DecisionFileError(
            f"{loader.name}, line {node.start_mark.line + 1}: a number of {len(text):,} digits",
            expected=f"at most {_MAX_DIGITS}",
        )
    return int(text)


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
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        _check_length(len(data), str(path))
        return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError as error:
        raise DecisionFileError(f"{path}: no such file", do=do) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DecisionFileError(f"{path}: cannot be read as UTF-8 text", found=str(error)) from error


def read_decision_text(text: str, name: str = "decision file") -> Decision:
    """The same from text; ``name`` is used in messages."""
    _check_length(len(text), name)
    document, lines = _load(text, name)
    try:
        decision = parse_decision(document, name)
    except DecisionFileError as error:
        raise DecisionFileError(_with_lines(str(error), lines)) from error
    found = [*_unit_problems(decision), *_zone_problems(decision)]
    if found:
        raise DecisionFileError(_with_lines(listed(name, found), lines))
    return decision


def _load(text: str, name: str) -> tuple[Any, dict[str, int]]:
    try:
        _check_events(text, name)
        loader = _Loader(text)
        loader.name = name
        node = loader.get_single_node()
        document = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise DecisionFileError(f"{name}: not valid YAML", found=_where_yaml(error)) from error
    if node is not None:
        _refuse_plain_truths(node, name)
    return document, {} if node is None else dict(_lines(node, ""))


def _check_length(length: int, name: str) -> None:
    if length > MAX_BYTES:
        raise DecisionFileError(f"{name}: the file is too large", expected=f"at most {MAX_BYTES >> 20} MiB")


def _check_events(text: str, name: str) -> None:
    """Refuse, before anything is built, what would grow or nest without bound."""
    depth, values = 0, 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        line = 0 if event.start_mark is None else event.start_mark.line + 1
        if getattr(event, "anchor", None) is not None:
            raise DecisionFileError(
                f"{name}, line {line}: anchors (&) and aliases (*) are not read",
                do="Write the value out in every place where it counts.",
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise DecisionFileError(f"{name}, line {line}: nested more than {MAX_DEPTH} levels deep")
        values += isinstance(event, yaml.NodeEvent)
        if values > 2 * MAX_VALUES:  # keys count too
            raise DecisionFileError(f"{name}, line {line}: more than {MAX_VALUES:,} values")


def _refuse_plain_truths(root: yaml.Node, name: str) -> None:
    """``values: [yes, no]`` without quotes: this reader takes words, others take true and false."""
    for _, context in _items(root, "context"):
        for _, spec in _items(context):
            for _, values in _items(spec, "values"):
                for node in values.value if isinstance(values, yaml.SequenceNode) else ():
                    plain = isinstance(node, yaml.ScalarNode) and node.style is None
                    if plain and node.value.lower() in _TRUTHS_11:
                        raise DecisionFileError(
                            f"{name}, line {node.start_mark.line + 1}: value {node.value}",
                            expected="a word that is no truth value to any reader of YAML",
                            do=f'Put it in quotes: "{node.value}".',
                        )


def _items(node: yaml.Node, key: str | None = None) -> Iterator[tuple[str, yaml.Node]]:
    for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key is None or name.value == key:
            yield str(name.value), value


def _where_yaml(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"a character that is no text (U+{_code(error.character):04X}) at position {error.position}"
    return str(error)


def _code(character: object) -> int:
    return character if isinstance(character, int) else ord(str(character)[:1] or "\0")


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
            above = re.sub(r"(\.[^.\[\]]+|\[\d+\]|^[^.\[\]]+)$", "", place)
            place = above if above != place else ""
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
