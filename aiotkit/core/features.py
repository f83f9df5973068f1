"""The names of window statistics. What they compute is a graph, built on the desk; see ``lab.features``."""

from __future__ import annotations

from collections.abc import Iterable

#: statistic name -> how its unit follows from the signal's ("same", "1" = dimensionless, "per_s")
STATISTICS: dict[str, str] = {
    "mean": "same",
    "std": "same",
    "min": "same",
    "max": "same",
    "rms": "same",
    "p2p": "same",
    "last": "same",
    "slope": "per_s",
    "kurtosis": "1",
    "crest": "1",
}


def feature_names(fields: Iterable[str]) -> tuple[str, ...]:
    """The features among field names (``signal.statistic``), sorted, each once.

    >>> feature_names(["vib.rms", "context.load", "vib.rms", "oil.mean", "history.trend"])
    ('oil.mean', 'vib.rms')
    """
    found = {name for name in fields if is_feature(name)}
    return tuple(sorted(found))


def is_feature(field: str) -> bool:
    """Whether a field name has the form ``signal.statistic``."""
    signal, _, statistic = field.partition(".")
    return signal not in RESERVED and statistic in STATISTICS


#: first words of field names that are not signals
RESERVED = frozenset({"context", "history", "p"})
