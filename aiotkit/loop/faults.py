"""Sensors and feeds that fail: a stuck, shifted, dead or spiky axis, a biased or silent oil probe.

Kinds and their prevalence follow Sharma, Golubchik & Govindan, "Sensor faults: detection methods and
prevalence in real-world datasets", ACM TOSN 6 (2010) 23 (short, constant, noise), plus loss of signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiotkit.loop.bearing import AXES, RANGE_MS2
from aiotkit.loop.chance import Purpose, generator, uniforms
from aiotkit.loop.wear import Array

GOOD, STUCK, OFFSET, DROPOUT, SPIKES = range(5)
#: an axis fails about once in this time, and stays so for about that long (h)
AXIS_FAILS_H, AXIS_FAILED_H = 24.0 * 14, 7.0
#: a common failure of all axes (cable, node) is rarer
NODE_FAILS_H, NODE_FAILED_H = 24.0 * 45, 3.0
OIL_FAILS_H, OIL_FAILED_H, OIL_BIAS_K = 24.0 * 30, 8.0, 9.0
FEED_FAILS_H, FEED_FAILED_H = 24.0 * 20, 3.0


@dataclass(frozen=True, slots=True)
class Faults:
    """Exogenous faults of a run.

    ``axes`` [steps, machines, AXES] holds kinds; ``oil_bias`` [steps, machines] in kelvin, ``oil_silent``
    and ``feed_silent`` (speed, load and mode are not reported) are flags of that shape.
    """

    axes: NDArray[np.int64]
    oil_bias: Array
    oil_silent: NDArray[np.bool_]
    feed_silent: NDArray[np.bool_]

    @classmethod
    def draw(cls, seed: int, machines: int, steps: int, hours: float) -> Faults:
        """All faults of a run with steps of ``hours``."""
        u = uniforms(seed, Purpose.FAULTS, machines, steps, 3 * (AXES + 3))
        axes = np.stack(
            [_spells(u[..., 3 * a : 3 * a + 3], AXIS_FAILS_H, AXIS_FAILED_H, hours, 4) for a in range(AXES)],
            axis=-1,
        )
        node, oil, feed = (
            _spells(u[..., 3 * (AXES + i) : 3 * (AXES + i) + 3], every, lasts, hours, kinds)
            for i, (every, lasts, kinds) in enumerate(
                (
                    (NODE_FAILS_H, NODE_FAILED_H, 1),
                    (OIL_FAILS_H, OIL_FAILED_H, 3),
                    (FEED_FAILS_H, FEED_FAILED_H, 1),
                )
            )
        )
        axes = np.where(node[..., np.newaxis] > 0, DROPOUT, axes)
        bias = OIL_BIAS_K * ((oil == 1).astype(float) - (oil == 2))
        return cls(axes, bias, oil == 3, feed > 0)


def _spells(u: Array, every_h: float, lasts_h: float, hours: float, kinds: int) -> NDArray[np.int64]:
    """0 = fine, else the kind in force; memoryless starts and ends."""
    start, end = -np.expm1(-hours / every_h), -np.expm1(-hours / lasts_h)
    now = np.zeros(u.shape[1], dtype=np.int64)
    out = np.empty(u.shape[:2], dtype=np.int64)
    for k in range(u.shape[0]):
        chosen = 1 + (u[k, :, 2] * kinds).astype(np.int64)
        now = np.where(now > 0, np.where(u[k, :, 1] < end, 0, now), np.where(u[k, :, 0] < start, chosen, 0))
        out[k] = now
    return out


def spoil(windows: NDArray[np.float32], kinds: NDArray[np.int64], key: tuple[int, int, int]) -> None:
    """Let the faulty axes of one machine's windows ``[rows, AXES, samples]`` fail, in place.

    ``key`` is (seed, machine, step): the same fault looks the same in every arm.
    """
    draw = generator(key[0], Purpose.FAULTS, key[1], key[2] + 1)
    where = draw.random((AXES, 4))
    for axis in np.flatnonzero(kinds):
        part = windows[:, axis]
        at = (where[axis] * part.shape[1]).astype(int)
        match kinds[axis]:
            case 1:  # stuck at a value
                part[:] = np.float32(4 * where[axis, 0] - 2)
            case 2:  # shifted: the amplifier's zero moved
                part += np.float32(8 + 20 * where[axis, 0])
            case 3:  # dead for most of the window
                part[:, min(at[0], 64) :] = np.nan
            case 4:  # a few short spikes
                part[:, at] += np.array([40, -35, 30, 25], dtype=np.float32)
    np.clip(windows, -RANGE_MS2, RANGE_MS2, out=windows)
