"""From a look at a file and a few answers to a whole decision file that is valid as it is."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aiotkit.core.errors import DataError, DecisionFileError
from aiotkit.lab.guess import coded, identifier
from aiotkit.lab.layout import folded
from aiotkit.lab.long import kind_of
from aiotkit.lab.proposal import Proposal, coded_values
from aiotkit.lab.template import Draft
from aiotkit.lab.uneventful import is_uneventful, state_name, states_of, yes_or_no

#: made-up costs, said to be so: of acting in vain, and of missing what one would have acted upon
COST_ACT, COST_MISS = 100.0, 1000.0
_DAY_S = 86_400.0


def draft_from(proposal: Proposal, name: str, **answers: Any) -> Draft:
    """A draft with signals, window and outcomes as a file suggests, and answers (fields of ``Draft``) on top.

    The horizon is a day, a week of snapshots, or (with a label column, which says how it is *now*)
    ``every_s``; labels count as soon as the horizon is over. With a label column silence means nothing.

    Raises:
        DataError: no column looks like a signal.
    """
    if not proposal.signals and not answers.get("signals"):
        raise DataError(f"{proposal.path}: no column looks like a signal", do="Name them with --signal.")
    length = proposal.length_s
    found: dict[str, Any] = {"signals": proposal.signals, "context": proposal.context}
    found |= {"length_s": length, "every_s": proposal.every_s, "source": "records", "reliability": 1.0}
    subject = proposal.one("subject")
    if subject is not None:
        found["subject"] = identifier(kind_of(subject.column))
    if proposal.labels and not elsewhere(proposal, answers.get("states")):
        label = proposal.one("label")
        found |= {"horizon_s": proposal.every_s, "silence": "", "states": states_of(proposal.labels)}
        if found["states"] is None:
            column = "" if label is None else label.column
            codes = tuple(coded(column, v) for v in coded_values(proposal.labels))
            found["states"] = codes or _two_states(column)
    else:
        found["horizon_s"] = 7 * length if proposal.snapshots else max(_DAY_S, 2 * length)
    found |= {k: v for k, v in answers.items() if v is not None}
    found.setdefault("maturity_s", found["horizon_s"])
    found["maturity_s"] = max(found["maturity_s"], found["horizon_s"])
    return Draft(name, **found)


def elsewhere(proposal: Proposal, states: Sequence[str] | None) -> bool:
    """Whether states are given that no column of labels says: then outcomes come from somewhere else."""
    label = proposal.one("label")
    said = [w for v in proposal.labels for w in (v, coded("" if label is None else label.column, v))]
    apart = states is not None and not set(map(folded, said)) & set(map(folded, states))
    return apart and not yes_or_no(proposal.labels)


def taken_for_uneventful(labels: Sequence[str], states: Sequence[str]) -> str | None:
    """A doubt where the words of a label column do not tell which state is the uneventful one; else None."""
    if not set(states) <= set(map(state_name, labels)) or sum(map(is_uneventful, labels)) == 1:
        return None
    first = f"'{states[0]}' is taken, the most frequent; say --states, it first"
    return f"which state is the uneventful one: {first}"


def _two_states(label: str) -> tuple[str, str]:
    """Names for 0 and 1 of a label column, after its name."""
    pairs = {
        "fail|broken": ("healthy", "failed"),
        "anomal": ("normal", "anomalous"),
        "fault|defect": ("sound", "faulty"),
    }
    found = (states for words, states in pairs.items() if re.search(words, label.lower()))
    return next(found, ("healthy", "worn"))


def two_costs(draft: Draft, act: float | None, miss: float | None) -> Draft:
    """The draft with a cost table out of two numbers; what is not given is made up, and said to be.

    Acting costs ``act`` in every state (in vain in the first), not acting costs ``miss`` in every state but
    the first. Of several actions beside the first each costs the same.

    Raises:
        DecisionFileError: one is negative, or no number.
    """
    check_costs(act, miss)
    guessed = act is None or miss is None
    act, miss = COST_ACT if act is None else act, COST_MISS if miss is None else miss
    first, *others = draft.actions
    uneventful = draft.states[0]
    costs = {first: {s: 0.0 if s == uneventful else miss for s in draft.states}}
    costs |= {a: dict.fromkeys(draft.states, act) for a in others}
    return replace(draft, costs=costs, guessed=guessed)


def check_costs(act: float | None, miss: float | None) -> None:
    """Refuse a cost that is negative or no number (``DecisionFileError``); None is not given yet."""
    for name, cost in (("--cost-act", act), ("--cost-miss", miss)):
        if cost is not None and not 0 <= cost < math.inf:
            raise DecisionFileError(
                f"{name}",
                expected="what it costs, 0 or more",
                found=f"{cost:g}",
                do="Give it without a sign; other tables are given with --cost ACTION.STATE=MONEY.",
            )
