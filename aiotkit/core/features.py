"""The names of window statistics. What they compute is a graph, built on the desk; see ``lab.features``.

A feature is ``signal.word``. A word is a base, then, for bands, which of how many, then, for any base,
which of how many equal parts of the window: ``PS1.mean_2of10``, ``vib.band_3of16``, ``vib.env_2of8_1of4``.
Words that begin with ``x_`` are somebody's own, without unit or bands: ``vib.x_hum``, ``vib.x_hum_2of4``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from aiotkit.core.errors import did_you_mean

#: base of a statistic -> how its unit follows from the signal's ("same", "1" = dimensionless, "per_s")
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
    "zcr": "1",
    "q05": "same",
    "q25": "same",
    "q50": "same",
    "q75": "same",
    "q95": "same",
}
#: bases that stand for one of several bands: of the power spectrum, of the squared envelope's spectrum
BANDED: dict[str, str] = {"band": "1", "env": "1"}
#: how words of one's own begin; see ``lab.own_words``
OWN = "x_"
#: the most bands, and the most parts of a window, that a name may ask for
MAX_PARTS = 256
#: first words of field names that are not signals, and names of the graph's own outputs
RESERVED = frozenset({"context", "history", "p", "novelty", "features"})
#: the field that says how far a window lies from those of training; 1 = as far as any of them
NOVELTY = "novelty"

_PART = r"([1-9]\d{0,4})of([1-9]\d{0,4})"
_WORD = re.compile(rf"((?:x_)?[a-z][a-z0-9]*?)(?:_{_PART})?(?:_{_PART})?")


@dataclass(frozen=True, slots=True)
class Statistic:
    """A parsed word: ``part`` is the (i-th, of n) band, ``segment`` the (j-th, of k) part of the window."""

    base: str
    part: tuple[int, int] | None = None
    segment: tuple[int, int] | None = None

    @property
    def own(self) -> bool:
        """Whether it is somebody's own word, whose module is needed to build a graph."""
        return self.base.startswith(OWN)


def parse_statistic(word: str) -> Statistic | None:
    """What a word asks for, or None when it is no statistic.

    >>> parse_statistic("band_3of16_1of4")
    Statistic(base='band', part=(3, 16), segment=(1, 4))
    >>> parse_statistic("mean_2of10")
    Statistic(base='mean', part=None, segment=(2, 10))
    >>> parse_statistic("x_hum_2of4")
    Statistic(base='x_hum', part=None, segment=(2, 4))
    >>> parse_statistic("band") is parse_statistic("mean_3of2") is None
    True
    """
    found = _read(word)
    return found if found is not None and not _fault(found) else None


def statistic_problem(word: str) -> str:
    """Why a word is no statistic, with a hint; empty when it is one.

    >>> statistic_problem("band_9of8")
    "'band_9of8' asks for band 9 of 8; they count from 1 to 8"
    >>> statistic_problem("mean_3of2")
    "'mean_3of2' asks for part 3 of 2 of the window; they count from 1 to 2"
    >>> statistic_problem("kurtsis")
    "did you mean 'kurtosis'?"
    """
    found = _read(word)
    if found is not None:
        fault = _fault(found)
        return f"'{word}' {fault}" if fault else ""
    base, mark, rest = word.partition("_")
    known = [*STATISTICS, *BANDED]
    if base in known:
        return f"'{word}' is written like '{base}_2of8': which one, 'of', how many"
    hint = did_you_mean(base, known)
    return hint.replace("'?", f"{mark}{rest}'?") if hint else f"statistics are {', '.join(known)}"


def _read(word: str) -> Statistic | None:
    match = _WORD.fullmatch(word)
    if match is None or not (match[1] in STATISTICS or match[1] in BANDED or match[1].startswith(OWN)):
        return None
    first = (int(match[2]), int(match[3])) if match[2] else None
    second = (int(match[4]), int(match[5])) if match[4] else None
    if match[1] in BANDED:
        return Statistic(match[1], first, second)
    return None if second else Statistic(match[1], None, first)


def _fault(statistic: Statistic) -> str:
    base, part, segment = statistic.base, statistic.part, statistic.segment
    if base in BANDED and part is None:
        return f"needs to say which band of how many, like '{base}_1of8'"
    for asked, kind, whole in ((part, "band", ""), (segment, "part", " of the window")):
        if asked is None:
            continue
        if asked[1] > MAX_PARTS:
            return f"asks for {asked[1]} {kind}s{whole}; at most {MAX_PARTS} are possible"
        if asked[0] > asked[1]:
            return f"asks for {kind} {asked[0]} of {asked[1]}{whole}; they count from 1 to {asked[1]}"
    return ""


def own_word(field: str) -> str:
    """The word of somebody's own that a field is computed by; empty when there is none.

    >>> own_word("vib.x_hum_2of4"), own_word("vib.rms"), own_word("context.load")
    ('x_hum', '', '')
    """
    found = parse_statistic(field.partition(".")[2]) if is_feature(field) else None
    return found.base if found is not None and found.own else ""


def unit_kind(word: str) -> str:
    """How a statistic's unit follows from its signal's: ``same``, ``1`` or ``per_s``.

    Raises:
        KeyError: the word is no statistic.

    >>> unit_kind("q95_2of4"), unit_kind("env_1of8"), unit_kind("slope")
    ('same', '1', 'per_s')
    """
    found = parse_statistic(word)
    if found is None:
        raise KeyError(word)
    return STATISTICS.get(found.base, "1")


def feature_names(fields: Iterable[str]) -> tuple[str, ...]:
    """The features among field names (``signal.statistic``), sorted, each once.

    >>> feature_names(["vib.rms", "context.load", "vib.rms", "oil.mean_1of2", "history.trend", "novelty"])
    ('oil.mean_1of2', 'vib.rms')
    """
    found = {name for name in fields if is_feature(name)}
    return tuple(sorted(found))


def is_feature(field: str) -> bool:
    """Whether a field name has the form ``signal.statistic``."""
    signal, _, statistic = field.partition(".")
    return signal not in RESERVED and parse_statistic(statistic) is not None
