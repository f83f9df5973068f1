"""Randomness that belongs to a place and an instant of the world, never to what anybody did there.

Every draw is keyed by (seed, purpose, machine) and found by its step, so all arms of a comparison meet the
same weather, the same load and the same bad luck: common random numbers. Counter-based generator: Salmon
et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_WORD = 2**64 - 1


class Purpose(IntEnum):
    """What a stream of random numbers is for; each number is used once."""

    BUILD = 1
    WEATHER = 2
    DEMAND = 3
    NUISANCE = 4
    FAULTS = 5
    WEAR = 6
    CREW = 7
    REPORTS = 8
    NOISE = 9
    IMPULSES = 10
    OIL = 11
    INSPECTION = 12
    FEEDS = 13


def generator(seed: int, purpose: Purpose, machine: int, step: int = 0) -> np.random.Generator:
    """The generator of one purpose at one machine (and step, where a step needs many numbers).

    >>> a, b = (generator(1, Purpose.WEAR, 3).random() for _ in range(2))
    >>> a == b
    True
    """
    key = np.array([((seed << 8) | purpose) & _WORD, (machine << 32) | step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def uniforms(seed: int, purpose: Purpose, machines: int, steps: int, count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), ``[steps, machines, count]``; a longer run begins with the same ones."""
    each = [generator(seed, purpose, m).random((steps, count)) for m in range(machines)]
    return np.stack(each, axis=1)


def normals(seed: int, purpose: Purpose, machines: int, steps: int, count: int) -> NDArray[np.float64]:
    """Standard normal numbers, ``[steps, machines, count]``; a longer run begins with the same ones."""
    each = [generator(seed, purpose, m, 1).standard_normal((steps, count)) for m in range(machines)]
    return np.stack(each, axis=1)
