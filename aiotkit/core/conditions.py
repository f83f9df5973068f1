"""Conditions over named values, in three truths: TRUE, FALSE and INDETERMINATE.

A missing, non-finite or wrongly typed value makes its term INDETERMINATE, and so every ``all``, ``any``
and ``not`` above it, even where another operand would settle the answer: doubt is never argued away.
Only a declared ``quorum`` absorbs a bad input, and only a declared ``on_delay_s`` bridges one in time.
Timing words are those of OPC UA alarms (IEC 62541-9): ``deadband``, ``on_delay_s``, ``off_delay_s``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Discriminator, Field, NonNegativeFloat, Tag, model_validator

from aiotkit.core.strict import Strict, Wait

if TYPE_CHECKING:
    from typing_extensions import TypeIs

MAX_NODES = 64
MAX_DEPTH = 8
_FINITE = sys.float_info.max

Values = Mapping[str, object]
#: what a timed term remembers: output, when the raw value began to differ, when it was last good
TermMemory = tuple[bool, float | None, float | None]
Memory = Mapping[str, TermMemory]


class Truth(IntEnum):
    """FALSE, TRUE, or INDETERMINATE (a value was missing, not finite or of the wrong type)."""

    FALSE = 0
    TRUE = 1
    INDETERMINATE = 2


FALSE, TRUE, INDETERMINATE = Truth.FALSE, Truth.TRUE, Truth.INDETERMINATE

Check = Callable[[Values, Memory, float, dict[str, TermMemory]], Truth]
#: (values, what a timed term said last) -> truth of the bare comparison
RawCheck = Callable[[Values, bool], Truth]

COMPARISONS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


class Term(Strict):
    """One field against one limit, range or set: exactly one of the comparison keys.

    ``deadband`` (same unit as the field) keeps a comparison TRUE until the value has come back by that
    much; ``on_delay_s`` / ``off_delay_s`` ask that it lasts. While ``on_delay_s`` runs, a bad input
    holds the last output.
    """

    field: str = Field(min_length=1, max_length=128)
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    between: tuple[float, float] | None = None
    in_: tuple[str | bool | float, ...] | None = Field(default=None, alias="in", min_length=1)
    not_in: tuple[str | bool | float, ...] | None = Field(default=None, min_length=1)
    deadband: NonNegativeFloat = 0.0
    on_delay_s: Wait = 0.0
    off_delay_s: Wait = 0.0

    @model_validator(mode="after")
    def _one_comparison(self) -> Self:
        given = [k for k in (*COMPARISONS, "between", "in_", "not_in") if getattr(self, k) is not None]
        if len(given) != 1:
            words = "gt, ge, lt, le, between, in, not_in"
            raise ValueError(f"a term needs exactly one of {words}; found {given or 'none'}")
        if self.between is not None and not self.between[0] <= self.between[1]:
            raise ValueError(f"between needs low <= high; found {list(self.between)}")
        if self.deadband and given[0] not in COMPARISONS:
            raise ValueError("deadband goes with gt, ge, lt or le only")
        return self

    @property
    def comparison(self) -> str:
        """The comparison key that is set."""
        return next(k for k in (*COMPARISONS, "between", "in_", "not_in") if getattr(self, k) is not None)


class All(Strict):
    """TRUE when every operand is."""

    all: tuple[Condition, ...] = Field(min_length=1)


class AnyOf(Strict):
    """TRUE when at least one operand is and none is INDETERMINATE."""

    any: tuple[Condition, ...] = Field(min_length=1)


class Not(Strict):
    """The opposite; INDETERMINATE stays INDETERMINATE."""

    not_: Condition = Field(alias="not")


class Votes(Strict):
    """How many of which operands."""

    at_least: int = Field(ge=1)
    of: tuple[Condition, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.at_least > len(self.of):
            raise ValueError(f"at_least: {self.at_least} can never be reached by {len(self.of)} operands")
        return self


class Quorum(Strict):
    """TRUE when enough operands are; bad ones count as votes not cast, unless they could decide."""

    quorum: Votes


def _kind(value: Any) -> str:
    keys = value.keys() if isinstance(value, Mapping) else getattr(type(value), "model_fields", ())
    for kind in ("all", "any", "quorum"):
        if kind in keys:
            return kind
    return "not" if "not" in keys or "not_" in keys else "term"


Condition = Annotated[
    Annotated[Term, Tag("term")]
    | Annotated[All, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[Not, Tag("not")]
    | Annotated[Quorum, Tag("quorum")],
    Discriminator(_kind),
]
Node = Term | All | AnyOf | Not | Quorum
for _model in (All, AnyOf, Not, Votes, Quorum):
    _model.model_rebuild()


def operands(node: Node) -> Sequence[Node]:
    """The conditions directly below this one."""
    match node:
        case All():
            return node.all
        case AnyOf():
            return node.any
        case Not():
            return (node.not_,)
        case Quorum():
            return node.quorum.of
        case Term():
            return ()


def walk(node: Node, depth: int = 1) -> Iterator[tuple[Node, int]]:
    """Every node with its depth, this one first."""
    yield node, depth
    for operand in operands(node):
        yield from walk(operand, depth + 1)


def fields(node: Node) -> tuple[str, ...]:
    """The field names a condition reads, in order, each once."""
    return tuple(dict.fromkeys(n.field for n, _ in walk(node) if isinstance(n, Term)))


def check_size(node: Node) -> None:
    """Refuse a condition too large to be evaluated in bounded time (``ValueError``)."""
    nodes = list(walk(node))
    deepest = max(depth for _, depth in nodes)
    if len(nodes) > MAX_NODES or deepest > MAX_DEPTH:
        raise ValueError(
            f"a condition may have {MAX_NODES} parts and {MAX_DEPTH} levels; found {len(nodes)} and {deepest}"
        )


def compile_condition(node: Node, path: str) -> Check:
    """A function of (values, memory, now in s, updates) that evaluates the condition.

    Memory is read only; what timed terms must remember is written into ``updates`` under keys that
    begin with ``path``.
    """
    below = [compile_condition(n, f"{path}/{i}") for i, n in enumerate(operands(node))]
    match node:
        case Term():
            return _compile_term(node, path)
        case Not():
            return _negate(below[0])
        case All():
            return _combine(below, settles=FALSE)
        case AnyOf():
            return _combine(below, settles=TRUE)
        case Quorum():
            return _vote(below, node.quorum.at_least)


def _negate(operand: Check) -> Check:
    def check(values: Values, memory: Memory, now: float, updates: dict[str, TermMemory]) -> Truth:
        truth = operand(values, memory, now, updates)
        if truth is INDETERMINATE:
            return INDETERMINATE
        return FALSE if truth is TRUE else TRUE

    return check


def _combine(below: Sequence[Check], *, settles: Truth) -> Check:
    """``all`` is settled by a FALSE, ``any`` by a TRUE; one INDETERMINATE outweighs both."""
    otherwise = TRUE if settles is FALSE else FALSE

    def check(values: Values, memory: Memory, now: float, updates: dict[str, TermMemory]) -> Truth:
        result = otherwise
        for operand in below:  # no short cut: timed terms must see every sample
            truth = operand(values, memory, now, updates)
            if truth is INDETERMINATE:
                result = INDETERMINATE
            elif truth is settles and result is not INDETERMINATE:
                result = settles
        return result

    return check


def _vote(below: Sequence[Check], at_least: int) -> Check:
    def check(values: Values, memory: Memory, now: float, updates: dict[str, TermMemory]) -> Truth:
        truths = [operand(values, memory, now, updates) for operand in below]
        yes = sum(truth is TRUE for truth in truths)
        bad = sum(truth is INDETERMINATE for truth in truths)
        if yes >= at_least:
            return TRUE
        return FALSE if yes + bad < at_least else INDETERMINATE

    return check


def _compile_term(term: Term, path: str) -> Check:
    if not is_timed(term):
        return _untimed(term)
    raw = _raw_term(term)
    on_delay, off_delay = term.on_delay_s, term.off_delay_s

    def check(values: Values, memory: Memory, now: float, updates: dict[str, TermMemory]) -> Truth:
        out, since, good = memory.get(path, (False, None, None))
        truth = raw(values, out)
        if truth is INDETERMINATE:
            bridged = good is not None and on_delay > 0 and 0 <= now - good <= on_delay
            updates[path] = (out, since if bridged or out else None, good)  # after doubt it lasts anew
            return (TRUE if out else FALSE) if bridged else INDETERMINATE
        differs = (truth is TRUE) is not out
        start = since if since is not None and since <= now else now
        if differs and now - start >= (on_delay if truth is TRUE else off_delay):
            out, differs = truth is TRUE, False
        updates[path] = (out, start if differs else None, now)
        return TRUE if out else FALSE

    return check


def is_timed(node: Node) -> bool:
    """Whether what a condition says depends on what came before: it has a deadband or a delay anywhere."""
    return any(
        bool(term.deadband or term.on_delay_s or term.off_delay_s)
        for term, _ in walk(node)
        if isinstance(term, Term)
    )


def _untimed(term: Term) -> Check:
    raw = _raw_term(term)

    def check(values: Values, memory: Memory, now: float, updates: dict[str, TermMemory]) -> Truth:
        del memory, now, updates
        return raw(values, False)

    return check


def _raw_term(term: Term) -> RawCheck:
    if term.in_ is not None or term.not_in is not None:
        return _member(term.field, term.in_ or term.not_in or (), wanted=term.in_ is not None)
    if term.between is not None:
        return _between(term.field, *term.between)
    return _compare(term)


def _between(field: str, low: float, high: float) -> RawCheck:
    def between(values: Values, was: bool) -> Truth:
        del was
        value = values.get(field)
        if not is_number(value):
            return INDETERMINATE
        return TRUE if low <= value <= high else FALSE

    return between


def _compare(term: Term) -> RawCheck:
    field, deadband = term.field, term.deadband
    kind = term.comparison
    limit: float = getattr(term, kind)
    upward, strict = kind in ("gt", "ge"), kind in ("gt", "lt")
    kept = limit - deadband if upward else limit + deadband

    def compare(values: Values, was: bool) -> Truth:
        value = values.get(field)
        if not is_number(value):
            return INDETERMINATE
        edge = kept if was else limit
        if upward:
            holds = value > edge if strict else value >= edge
        else:
            holds = value < edge if strict else value <= edge
        return TRUE if holds else FALSE

    return compare


def _member(field: str, choices: Sequence[object], *, wanted: bool) -> RawCheck:
    kinds = {type(choice) for choice in choices}
    if float in kinds:
        kinds.add(int)
    members = frozenset((type(choice) is bool, choice) for choice in choices)  # True is not 1

    def member(values: Values, was: bool) -> Truth:
        del was
        value = values.get(field)
        if type(value) not in kinds or (not isinstance(value, str | bool) and not is_number(value)):
            return INDETERMINATE
        return TRUE if ((type(value) is bool, value) in members) is wanted else FALSE

    return member


def is_number(value: object) -> TypeIs[int | float]:
    """Whether a value is a finite int or float; a bool is not a number.

    >>> is_number(1), is_number(float("nan")), is_number(True), is_number("12"), is_number(None)
    (True, False, False, False, False)
    """
    kind = type(value)
    return (kind is float or kind is int) and -_FINITE <= value <= _FINITE  # type: ignore[operator]


def describe(node: Node) -> str:
    """The condition in words.

    >>> describe(All(all=(Term(field="vib.rms", gt=7.1), Term(field="context.mode", **{"in": ["run"]}))))
    "vib.rms > 7.1 and context.mode in ['run']"
    """
    match node:
        case All():
            return " and ".join(_wrapped(n) for n in node.all)
        case AnyOf():
            return " or ".join(_wrapped(n) for n in node.any)
        case Not():
            return f"not ({describe(node.not_)})"
        case Quorum():
            parts = ", ".join(_wrapped(n) for n in node.quorum.of)
            return f"at least {node.quorum.at_least} of [{parts}]"
        case Term():
            return _describe_term(node)


def _wrapped(node: Node) -> str:
    text = describe(node)
    return f"({text})" if isinstance(node, All | AnyOf) else text


def _describe_term(term: Term) -> str:
    kind = term.comparison
    if kind in COMPARISONS:
        text = f"{term.field} {COMPARISONS[kind]} {getattr(term, kind):g}"
    elif term.between is not None:
        text = f"{term.field} in [{term.between[0]:g}, {term.between[1]:g}]"
    else:
        word = "in" if term.in_ is not None else "not in"
        text = f"{term.field} {word} {list(term.in_ or term.not_in or ())}"
    timing = [
        f"{label} {value:g}{unit}"
        for label, value, unit in (
            ("deadband", term.deadband, ""),
            ("for", term.on_delay_s, " s"),
            ("off after", term.off_delay_s, " s"),
        )
        if value
    ]
    return f"{text} ({', '.join(timing)})" if timing else text


def found(node: Node, values: Values) -> str:
    """The values a condition reads, in words, bad ones named as such."""
    return ", ".join(f"{name} = {_say(values, name)}" for name in fields(node))


def _say(values: Values, name: str) -> str:
    if name not in values:
        return "missing"
    value = values[name]
    if is_number(value):
        return f"{value:.6g}"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "…")
    if isinstance(value, bool | float) or value is None:
        return repr(value)
    return f"a value of type {type(value).__name__}"  # whatever it is, its own repr is not run
