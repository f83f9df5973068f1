"""What the caller knows about outcomes before a file of them is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from aiotkit.core.decision import Decision
from aiotkit.core.errors import OutcomeError, did_you_mean
from aiotkit.lab.instants import Clock

Form = Literal["reports", "column", "failures", "ends", "windows"]


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller knows about outcomes; whatever is left out is found by name, and said.

    ``time``: column of instants (windows: of starts), ``end``: of ends, ``label``: of what was so.
    ``states``: value in the file -> state (values that are states need none; 0 and 1 mean the silent and
    the other state where there are two). ``state``: what each row of failures, ends or windows means.
    ``source``: who says it (default: the decision's only source). ``entry``: of JSON with several names,
    which one. ``start``, ``every_s``: rows without time. ``covers_s``: what a labelled row speaks of
    (default: the window's length where rows are that far apart, otherwise one sample). ``encoding``: of text
    that is not UTF-8.
    """

    form: Form | None = None
    subject: str | None = None
    subject_column: str | None = None
    time: str | None = None
    end: str | None = None
    label: str | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    state: str | None = None
    source: str | None = None
    entry: str | None = None
    start: str | None = None
    every_s: float | None = None
    covers_s: float | None = None
    encoding: str | None = None
    clock: Clock = field(default_factory=Clock)
    #: the subject that the file's place tells: files of equal bytes then are several
    whose: str = ""


def reading_of(told: Told) -> dict[str, Any]:
    """The options that were given, as plain data."""
    clock = {n: getattr(told.clock, n) for n in ("zone", "time_format", "epoch")}
    clock |= {"ambiguous": told.clock.ambiguous} if told.clock.ambiguous != Clock().ambiguous else {}
    plain = {n: getattr(told, n) for n in Told.__slots__ if n not in ("clock", "states", "whose", "entry")}
    given = {**plain, **clock, "map": dict(told.states)}
    return {name: value for name, value in given.items() if value not in (None, {})}


def check_told(told: Told, decision: Decision) -> None:
    """Refuse a form or state that there is not (``OutcomeError``)."""
    if told.form is not None and told.form not in get_args(Form):
        raise OutcomeError(f"form '{told.form}'", expected=one_of(list(get_args(Form))))
    states = list(decision.states)
    for state in (*told.states.values(), *([told.state] if told.state is not None else [])):
        if state not in states:
            hint = did_you_mean(state, states)
            raise OutcomeError(f"unknown state '{state}'", expected=one_of(states), do=hint)


def one_of(names: Sequence[str]) -> str:
    """A few names in words.

    >>> one_of(["ok", "worn"]), one_of(["ok"])
    ("one of 'ok', 'worn'", "'ok'")
    """
    shown = ", ".join(f"'{n}'" for n in names[:10])
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return f"one of {shown}{more}" if len(names) > 1 else shown
