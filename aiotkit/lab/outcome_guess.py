"""What was not said of a file of outcomes and can be told from it; what cannot is asked for in one go."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.core.errors import OutcomeError
from aiotkit.lab.guess_subject import find_subject
from aiotkit.lab.guess_time import as_time, find_time
from aiotkit.lab.layout import BOTH, TIME_NAMES, time_column
from aiotkit.lab.long import is_id
from aiotkit.lab.outcome_forms import form_of
from aiotkit.lab.outcome_rows import ENDS, EVENTS, STARTS, as_known, subject_names, texts
from aiotkit.lab.outcome_told import Told, one_of
from aiotkit.lab.readers import Raw

_MOST_ROWS = 20_000
#: words in the name of a column of dates that say that something went wrong then
_WHEN_IT_FAILED = (
    r"fail|fault|broke|break|event|defect|alarm|ausfall|st(?:ö|oe|o)rung|fehler|defekt|panne|schaden"
)
#: what is not known, and the option that says it
_Open = tuple[str, str]


def settle(raw: Raw, decision: Decision, told: Told, known: Collection[str]) -> tuple[Told, tuple[str, ...]]:
    """What was told, with time, its writing and the subject as the file suggests them; and notes.

    What cannot be found is left as it is, for whoever needs it to ask; where several things are missing they
    are asked for at once.

    Raises:
        OutcomeError: several things are not known, or several columns could be the time.
    """
    if raw.frame.empty:
        return told, ()
    told, said, missing = _time(raw, told)
    told, who, open_who = _subject(raw, decision, told, known)
    missing += [*open_who, *_meaning(raw, decision, told)]
    if len(missing) > 1:
        raise OutcomeError(
            f"{raw.name}: {len(missing)} things are not known",
            expected="; ".join(what for what, _ in missing),
            found=f"columns {', '.join(map(str, raw.frame.columns[:20]))}",
            do=f"Give {', '.join(option for _, option in missing)}.",
        )
    return told, (*said, *who)


def _time(raw: Raw, told: Told) -> tuple[Told, list[str], list[_Open]]:
    """When it was, how that is written, and whether a zone is needed."""
    if told.time is None and told.start is not None:
        return told, [], []
    several = () if told.time else _dates(raw)
    if len(several) > 1:
        raise OutcomeError(
            f"{raw.name}: which column says when it was?", expected=one_of(several), do="Give --time COLUMN."
        )
    column = told.time or _time_named(raw)
    missing: list[_Open] = [] if column else [("which column says when it was", "--time COLUMN")]
    if column is None or any(c not in raw.frame for c in _parts(raw, column)):
        return told, [], missing
    named, clock = column.lower() in (*TIME_NAMES, *EVENTS, *STARTS), told.clock
    told = told if named or told.time else replace(told, time=column)
    if clock.time_format is not None or clock.epoch is not None:
        return told, [], missing
    found, naive, written, others = as_time(time_column(raw, column))
    if found is None:
        return told, [], [("how times are written", "--time-format FORMAT")]
    if others:
        missing = [(f"how times are written ({written} and {others[0]} both fit)", "--time-format FORMAT")]
    elif written is not None:
        told = replace(told, clock=replace(clock, time_format=written))
    if naive and clock.zone is None:
        missing.append((f"the zone of times (the site's is {clock.hint})", "--zone ZONE"))
    return told, [f"times are written {written}"] if written and not others else [], missing


def _parts(raw: Raw, column: str) -> list[str]:
    return [column] if column in raw.frame else column.split(BOTH)


def _time_named(raw: Raw) -> str | None:
    """The column of times, by its name or else by what it holds."""
    columns = [str(c) for c in raw.frame.columns]
    for names in (STARTS if {c.lower() for c in columns} & set(ENDS) else (), EVENTS, TIME_NAMES):
        found = [c for c in columns if c.lower() in names]
        if len(found) == 1:
            return found[0]
    dates = _dates(raw)
    guess = find_time(raw.frame.iloc[:_MOST_ROWS]).guess
    return dates[0] if len(dates) == 1 else None if guess is None else guess.column


def _dates(raw: Raw) -> tuple[str, ...]:
    """Several columns that read as times, none of them called so: the one of failures, else all of them."""
    frame, columns = raw.frame.iloc[:_MOST_ROWS], [str(c) for c in raw.frame.columns]
    best = find_time(frame).guess
    joined = best is not None and best.column not in columns
    if joined or {c.lower() for c in columns} & {*EVENTS, *TIME_NAMES, *STARTS, *ENDS}:
        return ()
    found = [c for c in columns if find_time(frame[[c]].dropna()).guess is not None]
    said = [c for c in found if re.search(_WHEN_IT_FAILED, c.lower())]
    return () if len(found) < 2 else tuple(said if len(said) == 1 else found)


def _subject(
    raw: Raw, decision: Decision, told: Told, known: Collection[str]
) -> tuple[Told, list[str], list[_Open]]:
    """Whom it is about: a column called so, one that holds known subjects, or the only one there is."""
    columns = [str(c) for c in raw.frame.columns]
    called = {"subject", *subject_names(raw, decision)} & {c.lower() for c in columns}
    if told.subject is not None or told.subject_column is not None or called:
        return told, [], []
    found = [c for c in columns if _holds(raw, c, known)]
    if len(found) == 1:
        note = f"subject: column '{found[0]}', which holds subjects of the lake"
        return replace(told, subject_column=found[0]), [note], []
    what = f"which {decision.subject} it is ({one_of(sorted(known))})"
    names = [c for c in columns if is_id(c)]
    frame = raw.frame.iloc[:_MOST_ROWS]
    if len(known) == 1 and not names and find_subject(frame, find_time(frame)) is None:
        only = next(iter(known))
        return replace(told, subject=only), [f"subject: '{only}', the only one there is"], []
    return told, [], [(what, "--subject-column COLUMN or --subject NAME")]


def _holds(raw: Raw, column: str, known: Collection[str]) -> bool:
    words, _ = as_known(pd.Series(sorted(set(texts(raw.frame[column])) - {""}), dtype=object), known)
    return len(words) > 0 and bool(words.isin(list(known)).mean() >= 0.5)


def _meaning(raw: Raw, decision: Decision, told: Told) -> list[_Open]:
    """What is open of what rows mean, and who says it."""
    missing: list[_Open] = []
    try:
        form = told.form or form_of(raw, told)
    except OutcomeError:
        form = None
        missing.append(("what rows say", "--form FORM with --state STATE or --label COLUMN"))
    silent = decision.outcome.silence or next(iter(decision.states))
    others = [s for s in decision.states if s != silent]
    if form == "failures" and told.label is None and told.state is None and len(others) > 1:
        missing.append((f"which state a row means ({one_of(others)})", "--state STATE or --label COLUMN"))
    sources = list(decision.outcome.sources)
    if form != "reports" and told.source is None and len(sources) > 1:
        missing.append((f"who says it ({one_of(sources)})", "--source NAME"))
    return missing
