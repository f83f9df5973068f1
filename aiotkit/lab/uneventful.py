"""What people call columns of labels, the state in which nothing is wrong, and verdicts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from aiotkit.lab.layout import folded, unaccented

#: what stands in the names (in small letters) of columns that say how something is
LABELS = (
    r"fail|fault|label|target|class|anomal|state|status|defect|broken|outcome|zustand|klasse|"
    r"(?:^|[_ ])fehler|(?:^|[_ ])(?:condition|[eé]tat|estado|stato|panne|guasto|fallo)(?:$|[_ ])"
)
#: values that a column of labels has at most
MOST_STATES = 20
#: how people say that something is so, and that it is not, in small letters
YES = frozenset({"1", "true", "yes", "y", "t", "ja", "j", "oui", "si", "sí"})
NO = frozenset({"0", "false", "no", "n", "f", "nein", "non"})
#: the uneventful state, folded; and what there may be none of
_UNEVENTFUL = frozenset(
    {
        "0", "normal", "healthy", "health", "ok", "okay", "none", "good", "fine", "sound", "nominal",
        "regular", "intact", "new", "unworn", "nothing", "baseline", "gut", "heil", "gesund", "normalbetrieb",
        "inordnung", "io", "keine", "kein", "sain", "bon", "sano", "bueno", "normale", "buono", "ninguno",
        "goed", "normaal", "running", "operational", "operating", "lauft", "laeuft", "inbetrieb", "enmarche",
    }
)  # fmt: skip
_EVENTS = frozenset(
    {
        "failure", "failures", "fault", "faults", "fail", "error", "anomaly", "defect", "leak", "damage",
        "alarm", "event", "issue", "problem",
    }
)  # fmt: skip
_VERDICTS = _UNEVENTFUL | {
    "pass", "passed", "fail", "failed", "nok", "notok", "nio", "bad", "defect", "defective", "faulty",
    "reject", "rejected", "accept", "accepted", "scrap", "schlecht", "ausschuss", "defekt", "abnormal",
    "anomaly", "unhealthy", "broken", "worn", "failure", "fault", "error",
}  # fmt: skip


def is_uneventful(word: str) -> bool:
    """Whether a word means that nothing is wrong.

    >>> is_uneventful("No fault"), is_uneventful("leak")
    (True, False)
    """
    plain = folded(word)
    return plain in _UNEVENTFUL or (plain.startswith("no") and plain[2:] in _EVENTS)


def are_verdicts(words: Iterable[str]) -> bool:
    """Whether all words judge how something is.

    >>> are_verdicts(["PASS", "FAIL"]), are_verdicts(["normal", "boost"])
    (True, False)
    """
    return {folded(w) for w in words} <= _VERDICTS


def yes_or_no(words: Iterable[str]) -> bool:
    """Whether words say that something is so or not.

    >>> yes_or_no(["1.0", "0.0"]), yes_or_no(["ja", "nein"]), yes_or_no(["1", "2"])
    (True, True, False)
    """
    return {re.sub(r"\.0+$", "", w.strip().lower()) for w in words} <= YES | NO


def state_name(word: str) -> str:
    """A word as the name of a state; '' where it has no letter to begin with.

    >>> state_name("Outer race"), state_name("läuft"), state_name("3")
    ('Outer_race', 'lauft', '')
    """
    name = re.sub(r"[^A-Za-z0-9_]+", "_", unaccented(word)).strip("_")[:63]
    return name if re.match(r"[A-Za-z]", name) else ""


def states_of(labels: Sequence[str]) -> tuple[str, ...] | None:
    """States out of the words of a label column, the uneventful first; None where they are no words.

    One that is called so is uneventful; where none or several are, the most frequent, which comes first.

    >>> states_of(("leak", "normal")), states_of(("outer race", "Öl")), states_of(("0", "1"))
    (('normal', 'leak'), ('outer_race', 'Ol'), None)
    """
    calm = [w for w in labels if is_uneventful(w)]
    labels = [*calm, *(w for w in labels if w not in calm)] if len(calm) == 1 else list(labels)
    named = tuple(n for n in map(state_name, labels) if n)
    telling = len(set(map(folded, named))) == len(labels)
    return named if telling and not yes_or_no(labels) and 2 <= len(labels) <= MOST_STATES else None
