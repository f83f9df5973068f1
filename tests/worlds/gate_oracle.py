"""Judges gate documents by another road than the package: from the JSON, by enumerating what bad values hide.

The package compiles conditions to closures over three truths. Here a term is judged to True, False or
None (bad), and everything above by asking which answers are possible: outside a quorum one bad term
spoils the whole; inside, every bad vote is tried as yes and as no.
"""

from __future__ import annotations

import math
import random
from itertools import product

FIELDS = ("vib.rms", "oil.mean", "history.trend", "context.mode", "context.load", "p.worn")
WORDS = ("run", "setup", "clean")
EDGES = (0.0, -0.0, 1.0, -1.0, 5e-324, 1e308, -1e308, 2.0**53, 0.1, 7, -3, 2**63)
HARM = (math.nan, math.inf, -math.inf, None, True, False, "12", "", [1.0], {}, b"1", 1j, 10**400, (1.0,))


def allows(document, proposed, values):
    """Whether a list of gate documents without timing lets the proposed action through."""
    for gate in document:
        named = gate.get("actions", [])
        if (not named or proposed in named) and answer(gate["require"], values) is not True:
            return False
    return True


def answer(condition, values):
    """True, False, or None where a bad value leaves no answer."""
    (kind,) = {"all", "any", "not", "quorum", "field"} & condition.keys()
    if kind == "field":
        return _term(condition, values)
    if kind == "not":
        inner = answer(condition["not"], values)
        return inner if inner is None else not inner
    if kind == "quorum":
        votes = [answer(c, values) for c in condition["quorum"]["of"]]
        tries = product(*[(v,) if v is not None else (True, False) for v in votes])
        possible = {sum(t) >= condition["quorum"]["at_least"] for t in tries}
        return possible.pop() if len(possible) == 1 else None
    inner = [answer(c, values) for c in condition[kind]]
    if None in inner:
        return None
    return False not in inner if kind == "all" else True in inner


def _term(term, values):
    if term["field"] not in values:
        return None
    value = values[term["field"]]
    words = next((term[k] for k in ("in", "not_in") if k in term), ())
    if any(isinstance(w, str) for w in words):
        if not isinstance(value, str):
            return None
        return (value in words) == ("in" in term)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        if not math.isfinite(value):
            return None
    except OverflowError:
        return None
    if words:
        return any(value == w for w in words) == ("in" in term)
    if "between" in term:
        low, high = term["between"]
        return not value < low and not value > high
    (kind,) = {"gt", "ge", "lt", "le"} & term.keys()
    limit = term[kind]
    return {"gt": limit < value, "ge": not value < limit, "lt": value < limit, "le": not limit < value}[kind]


def random_gates(rng: random.Random):
    """A list of gate documents."""
    return [
        {
            "name": f"g{i}",
            "require": random_condition(rng, rng.randint(0, 3)),
            "otherwise": rng.choice(["hold", "ask"]),
            "actions": rng.choice([[], [], ["slow"], ["stop"], ["slow", "stop"]]),
        }
        for i in range(rng.randint(1, 4))
    ]


def random_values(rng: random.Random):
    """Field values, some good, some harmful, some missing."""
    spoiled = rng.random() ** 2
    values = {}
    for field in FIELDS:
        if rng.random() < spoiled * 0.7:
            if rng.random() < 0.6:
                values[field] = rng.choice(HARM)
        elif field == "context.mode":
            values[field] = rng.choice(WORDS)
        else:
            values[field] = rng.choice(EDGES) if rng.random() < 0.5 else rng.uniform(-10, 10)
    return values


def random_condition(rng: random.Random, depth: int):
    """A condition document with at most ``depth`` levels above its terms."""
    kind = rng.choice(["term", "all", "any", "not", "quorum"]) if depth else "term"
    if kind == "term":
        return _random_term(rng)
    if kind == "not":
        return {"not": random_condition(rng, depth - 1)}
    below = [random_condition(rng, depth - 1) for _ in range(rng.randint(2, 3))]
    if kind == "quorum":
        return {"quorum": {"at_least": rng.randint(1, len(below)), "of": below}}
    return {kind: below}


def _random_term(rng):
    field = rng.choice(FIELDS)
    if field == "context.mode":
        return {"field": field, rng.choice(["in", "not_in"]): rng.sample(WORDS, rng.randint(1, 3))}
    kind = rng.choice(["gt", "ge", "lt", "le", "between", "in", "not_in"])
    one, other = (rng.choice(EDGES) if rng.random() < 0.5 else rng.uniform(-10, 10) for _ in range(2))
    if kind == "between":
        return {"field": field, kind: sorted([one, other])}
    return {"field": field, kind: [one, other] if kind in ("in", "not_in") else one}
