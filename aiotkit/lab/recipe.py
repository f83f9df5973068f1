"""Which features to compute, when nobody has said: a starting set by the shape of each signal's window.

``auto``, by the n samples of a signal's window:

=================  ===================================================================================
n = 1              ``last``: there is nothing else
n < 16             ``mean last min max slope``: too few for shape
16 ≤ n < 256       moments, slope, quantiles; ``mean`` and ``std`` of up to 13 equal parts (of 4 samples
                   at least), which keep the course of a cycle that the whole window averages away
n ≥ 256, regular   moments and ``zcr``; 16 log bands, where machines tell their parts apart; 8 bands of
                   the squared envelope, where impulses that repeat show (Antoni 2007)
=================  ===================================================================================

A held signal (``on_change``) of 256 samples or more has steps, not a spectrum: it is treated as a short one.
"""

from __future__ import annotations

from collections.abc import Callable

from aiotkit.core.decision import Decision, Regular
from aiotkit.core.errors import DataError, did_you_mean
from aiotkit.core.features import MAX_PARTS
from aiotkit.lab.front import Words, ask

MOMENTS = ("mean", "std", "min", "max", "rms", "p2p", "kurtosis", "crest")
QUARTILES = ("q05", "q25", "q50", "q75", "q95")
FEW, MANY = 16, 256
#: parts of a window, samples of a part, bands and envelope bands that are asked for by default
PARTS, PART, BANDS, ENVELOPE = 13, 4, 16, 8


def recipe(decision: Decision, kind: str = "auto", words: Words | None = None) -> tuple[str, ...]:
    """The names of the features of a recipe and of those the decision reads, sorted.

    Args:
        decision: its signals.
        kind: ``auto``, ``plain`` (moments, last, slope), ``spectral`` (crossings, bands, envelope bands;
            plain where a window is too short), ``segments:K`` (mean and standard deviation of K parts), a
            feature's name such as ``vib.band_3of8``, or several of these separated by commas.
        words: words of one's own that names may use; see ``lab.own_words``.

    Raises:
        DataError: no such recipe, signal or statistic, with a hint.
    """
    names = set(decision.features())
    for part in kind.split(","):
        names |= _expand(decision, part.strip(), words)
    return tuple(sorted(names))


def _expand(decision: Decision, kind: str, words: Words | None) -> set[str]:
    if "." in kind:
        return {ask(decision, kind, words).name}
    choose = _chooser(kind)
    return {f"{s}.{word}" for s in decision.signals for word in choose(decision, s)}


def _chooser(kind: str) -> Callable[[Decision, str], tuple[str, ...]]:
    name, _, count = kind.partition(":")
    if name == "segments" and count.isdecimal() and 0 < int(count) <= MAX_PARTS:
        return lambda decision, signal: _parts(decision.samples(signal), int(count))
    known = {"auto": _auto, "plain": _plain, "spectral": _spectral}
    if kind not in known:
        raise DataError(
            f"recipe '{kind}'",
            expected="auto, plain, spectral, segments:K or names like vib.rms, separated by commas",
            do=f"K is 1 to {MAX_PARTS}." if name == "segments" else did_you_mean(name, [*known, "segments"]),
        )
    return known[kind]


def _auto(decision: Decision, signal: str) -> tuple[str, ...]:
    n = decision.samples(signal)
    if n == 1:
        return ("last",)
    if n < FEW:
        return ("mean", "last", "min", "max", "slope")
    if n < MANY or not isinstance(decision.signals[signal].sampling, Regular):
        return (*MOMENTS, "last", "slope", *QUARTILES, *_parts(n, min(PARTS, n // PART)))
    return (*MOMENTS, "zcr", *_bands("band", BANDS), *_bands("env", ENVELOPE))


def _plain(decision: Decision, signal: str) -> tuple[str, ...]:
    return ("last",) if decision.samples(signal) == 1 else (*MOMENTS, "last", "slope")


def _spectral(decision: Decision, signal: str) -> tuple[str, ...]:
    n = decision.samples(signal)
    if n < FEW:
        return _plain(decision, signal)
    bands = min(BANDS, n // PART)
    return ("zcr", *_bands("band", bands), *_bands("env", bands // 2))


def _parts(n: int, parts: int) -> tuple[str, ...]:
    """Mean and spread of each part; where parts would be single samples or fewer, of what there is."""
    if n == 1:
        return ("last",)
    if n < 2 * parts:
        return tuple(f"mean_{j}of{n}" for j in range(1, n + 1)) if n < parts else _of_parts("mean", parts)
    return (*_of_parts("mean", parts), *_of_parts("std", parts))


def _of_parts(word: str, parts: int) -> tuple[str, ...]:
    return tuple(f"{word}_{j}of{parts}" for j in range(1, parts + 1))


def _bands(word: str, count: int) -> tuple[str, ...]:
    return tuple(f"{word}_{i}of{count}" for i in range(1, count + 1))
