"""Which golden cases every processor must decide alike: those clear of limits and of ties.

Where two actions cost almost the same, or a feature lies on a limit, another processor's last digit may
rightly decide otherwise. Windows out of the field and what a model makes of made-up ones can lie there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from aiotkit.bundle.engine import Engine, gates_in_force
from aiotkit.bundle.golden import P_TOL, RTOL, GoldenCase, feature_slack
from aiotkit.core.conditions import Term, is_number, walk
from aiotkit.core.features import NOVELTY, is_feature
from aiotkit.core.policy import least_expected_cost
from aiotkit.core.records import Decided, EngineState

#: how near to 1, or another limit on it, a novelty is left out
NOVELTY_MARGIN = 0.01


def clear_cases(engine: Engine, cases: Sequence[GoldenCase]) -> list[GoldenCase]:
    """The cases that are clear of every limit and tie. One that followed a dropped one follows its ancestor.

    Args:
        engine: of the bundle that is to carry them.
        cases: in an order in which every ``after`` comes before.
    """
    states: dict[str | None, EngineState] = {None: EngineState()}
    kept_as: dict[str | None, str | None] = {None: None}
    kept: list[GoldenCase] = []
    for case in cases:
        after = kept_as[case.after]
        decided, _ = engine.decide(states[after], case.given)
        clear = is_clear(engine, decided)
        kept_as[case.name] = case.name if clear else after
        if clear:
            states[case.name] = decided.state
            kept.append(replace(case, after=after))
    return kept


def is_clear(engine: Engine, decided: Decided) -> bool:
    """Whether what was decided stays when features, probabilities and novelty move within their tolerance."""
    return not _tie(engine, decided) and not any(_on_limits(engine, decided))


def _tie(engine: Engine, decided: Decided) -> bool:
    """Whether another action would be proposed with p a little nearer to any one state."""
    decision, p = engine.decision, decided.p
    if p is None or not all(map(is_number, p.values())):
        return False
    share = 2 * P_TOL
    nearer = ({s: (1 - share) * v + share * (s == towards) for s, v in p.items()} for towards in p)
    return len({least_expected_cost(moved, decision).action for moved in (p, *nearer)}) > 1


def _on_limits(engine: Engine, decided: Decided) -> Iterator[bool]:
    """For each term of rule and gates that reads what the graph says: whether the value lies on its limit."""
    decision = engine.decision
    values = {**decided.features, **{f"p.{state}": value for state, value in (decided.p or {}).items()}}
    if decided.novelty is not None:
        values[NOVELTY] = decided.novelty
    roots = [branch.when for branch in decision.rule if branch.when is not None]
    roots += [g.require for g in gates_in_force(decision, engine.interface) if g.require is not None]
    for term in (node for root in roots for node, _ in walk(root) if isinstance(node, Term)):
        value = values.get(term.field)
        if value is None or not is_number(value):
            continue
        if is_feature(term.field):
            slack = 2 * (RTOL * abs(value) + feature_slack(decision, term.field))
        else:
            slack = NOVELTY_MARGIN * abs(value) if term.field == NOVELTY else 2 * P_TOL
        yield any(abs(value - edge) <= slack for edge in _edges(term))


def _edges(term: Term) -> tuple[float, ...]:
    """The limits of a term, and where its deadband lets go."""
    limits = [x for x in (term.gt, term.ge, term.lt, term.le) if x is not None]
    both = [limit + sign * term.deadband for limit in limits for sign in (-1, 0, 1)]
    return (*both, *(term.between or ()))
