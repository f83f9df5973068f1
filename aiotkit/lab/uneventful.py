"""What people call the state in which nothing is wrong, and verdicts."""

from __future__ import annotations

from collections.abc import Iterable

from aiotkit.lab.layout import folded

#: the uneventful state, folded; and what there may be none of
_UNEVENTFUL = frozenset(
    {
        "0", "normal", "healthy", "health", "ok", "okay", "none", "good", "fine", "sound", "nominal",
        "regular", "intact", "new", "unworn", "nothing", "baseline", "gut", "heil", "gesund", "normalbetrieb",
        "inordnung", "io", "keine", "kein", "sain", "bon", "sano", "bueno", "normale", "buono", "ninguno",
        "goed", "normaal",
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
