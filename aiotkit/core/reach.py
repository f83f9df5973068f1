"""Which conditions can never be TRUE, or only when an earlier one is: lines that would sleep unnoticed.

What is found is certain; what is not found is not proven reachable. Timed terms are left alone, since
their truth depends on what came before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from aiotkit.core.conditions import All, AnyOf, Node, Term, fields, is_timed


def implies(first: Node, then: Node) -> bool:
    """Whether ``then`` is certainly TRUE whenever ``first`` is.

    >>> implies(Term(field="vib.rms", gt=9), Term(field="vib.rms", ge=7))
    True
    """
    if first == then:
        return True
    if isinstance(first, AnyOf):
        return all(implies(operand, then) for operand in first.any)
    if isinstance(then, All):
        return all(implies(first, operand) for operand in then.all)
    if isinstance(first, All) and any(implies(operand, then) for operand in first.all):
        return True
    if isinstance(then, AnyOf):  # a bad operand of `any` outweighs a TRUE one: all must be readable
        return _same_fields(first, then) and any(implies(first, operand) for operand in then.any)
    if isinstance(first, Term) and isinstance(then, Term):
        return _term_implies(first, then)
    return False


def contradicts_itself(node: Node) -> bool:
    """Whether a condition asks of one field what no value can give.

    >>> contradicts_itself(All(all=(Term(field="x.min", gt=5), Term(field="x.min", lt=5))))
    True
    """
    if isinstance(node, AnyOf):
        return all(contradicts_itself(operand) for operand in node.any)
    if not isinstance(node, All):
        return False
    if any(contradicts_itself(operand) for operand in node.all):
        return True
    terms = [n for n in node.all if isinstance(n, Term) and not is_timed(n)]
    return any(_empty(terms, field) for field in {t.field for t in terms})


def _empty(terms: Iterable[Term], field: str) -> bool:
    mine = [t for t in terms if t.field == field]
    choices = [set(t.in_) for t in mine if t.in_ is not None]
    if len(choices) > 1 and not set.intersection(*choices):
        return True
    spans = [_span(t) for t in mine if t.in_ is None and t.not_in is None]
    if not spans:
        return False
    low, high = max(s[0] for s in spans), min(s[1] for s in spans)
    return low > high


def _term_implies(first: Term, then: Term) -> bool:
    if first.field != then.field or is_timed(first) or is_timed(then):
        return False
    if first.in_ is not None:
        if then.in_ is not None:
            return set(first.in_) <= set(then.in_)
        return then.not_in is not None and not set(first.in_) & set(then.not_in)
    if first.not_in is not None:
        return then.not_in is not None and set(then.not_in) <= set(first.not_in)
    if then.in_ is not None or then.not_in is not None:
        return False
    (low, high), (low2, high2) = _span(first), _span(then)
    return low2 <= low and high <= high2


def _span(term: Term) -> tuple[float, float]:
    """The closed range of floats for which a comparison is TRUE."""
    if term.between is not None:
        return term.between
    if term.gt is not None:
        return math.nextafter(term.gt, math.inf), math.inf
    if term.lt is not None:
        return -math.inf, math.nextafter(term.lt, -math.inf)
    return (term.ge, math.inf) if term.ge is not None else (-math.inf, term.le or 0.0)


def _same_fields(first: Node, then: Node) -> bool:
    return set(fields(then)) <= set(fields(first))
