"""Which column of an unknown file says whom a row is about: a guess with its reason."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np
import pandas as pd

from aiotkit.lab.guess import as_numbers, is_switch
from aiotkit.lab.guess_time import TimeFound
from aiotkit.lab.guessed import Guess
from aiotkit.lab.instants import Instants
from aiotkit.lab.layout import BOTH, QUALITY_NAMES, UNIT_NAMES, called
from aiotkit.lab.long import is_id
from aiotkit.lab.pace import STEADY, pace_of
from aiotkit.lab.uneventful import LABELS

#: how the reason begins why a column that never changes is the subject
ONE = "the same on every row"


def find_subject(frame: pd.DataFrame, time: TimeFound, besides: Collection[str] = ()) -> Guess | None:
    """The likeliest column that says whom a row is about; None where every row is about the same.

    A column that says yes or no never is one. Where all rows together are one steady series there are no
    several subjects, unless they stand in blocks, one below the other. ``besides``: columns of another
    meaning.
    """
    best: Guess | None = None
    taken = set() if time.guess is None else {time.guess.column, *time.guess.column.split(BOTH)}
    steady = time.instants is not None and _one_series(time.instants)
    for place, column in enumerate(map(str, frame.columns)):
        if column in taken or column in besides or called([column], QUALITY_NAMES):
            continue
        distinct = int(frame[column].nunique())
        hint = is_id(column)
        if not 2 <= distinct <= len(frame) / 2 or is_switch(frame[column]):
            continue
        values = as_numbers(frame[column])
        whole = values is None or bool((values == np.rint(values)).all())
        numeric, blocks = values is not None, _in_blocks(frame[column], distinct)
        if not whole or (numeric and not hint and not (place == 0 and blocks)):
            continue
        if (steady and not (blocks and (hint or numeric))) or (
            re.search(LABELS, column.lower()) and not hint
        ):
            continue
        sure = 0.9 if hint else 0.4 if distinct > 10 or numeric else 0.3
        if best is None or sure > best.sure:
            why = f"{distinct} different values" + (
                ", and its name says so" if hint else "; its name does not say"
            )
            best = Guess(column, "subject", why, sure)
    return best or _the_only_one(frame, taken | set(besides))


def _the_only_one(frame: pd.DataFrame, taken: Collection[str]) -> Guess | None:
    """A column that is called so and names one machine on every row."""
    for column in map(str, frame.columns):
        if column in taken or not is_id(column) or called([column], UNIT_NAMES):
            continue
        values = frame[column]
        if values.nunique(dropna=False) == 1 and values.notna().all() and not is_switch(values):
            return Guess(column, "subject", f"{ONE}, and its name says so", 0.8)
    return None


def _one_series(instants: Instants) -> bool:
    """Whether all rows together are one series: each instant once, most of them equally far apart."""
    at_us = instants.at_us[instants.good]
    pace = pace_of(at_us, np.zeros(len(at_us), dtype=np.int64))
    once = len(np.unique(at_us)) > 0.99 * len(at_us)
    return pace is not None and once and len(at_us) > 20 and pace.steady >= STEADY


def _in_blocks(column: pd.Series, distinct: int) -> bool:
    """Whether rows stand in blocks, each value once: as machines one below the other do."""
    there = column[column.notna()].to_numpy(dtype=object)
    changes = int((there[1:] != there[:-1]).sum())
    return len(there) == len(column) and changes == distinct - 1 and distinct <= len(there) / 10
