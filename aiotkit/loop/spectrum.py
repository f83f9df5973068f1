"""The observation model that the oracle uses: power in bands, given the strength of each component.

Components are independent and of zero mean, so powers add up: the expected power in a band is the sum over
components of strength² times the unit component's power there, which is averaged from the vibration model
itself. Band powers scatter like chi-square with two degrees of freedom a line, nearly lognormal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aiotkit.loop import bearing
from aiotkit.loop.wear import Array

#: band edges (Hz), above the harmonics of shaft and vanes that fouling changes
BANDS = ((160.0, 340.0), (340.0, 600.0), (600.0, 720.0), (720.0, 1000.0))
_SPEEDS = np.linspace(0.30, 1.10, 9)
_DRAWS = 24
_FREQUENCY = np.fft.rfftfreq(bearing.SAMPLES, 1 / bearing.RATE_HZ)
_LINES = [np.flatnonzero(np.searchsorted([low, high], _FREQUENCY, side="right") == 1) for low, high in BANDS]
#: scatter of a band's log power: lines, and what the model leaves out (impulses are no Gaussian)
_SCATTER = np.array([np.sqrt(1 / lines.size + 0.10**2) for lines in _LINES])
_FREEDOM = 5.0
_DEAD = 1e-9
_FLOW = bearing.COMPONENTS.index("flow")


def band_power(rows: NDArray[np.float32]) -> Array:
    """Power per band, ``[..., samples]`` to ``[..., bands]``; NaN where the window is not finite."""
    hann = np.hanning(rows.shape[-1])
    power = np.abs(np.fft.rfft((rows - rows.mean(axis=-1, keepdims=True)) * hann)) ** 2
    return np.stack([power[..., lines].sum(axis=-1) for lines in _LINES], axis=-1)


class Spectrum:
    """Unit powers of every component by speed, ``[speeds, components, axes, bands]``."""

    def __init__(self) -> None:
        shape = (len(_SPEEDS), len(bearing.COMPONENTS), bearing.AXES, len(BANDS))
        self._unit = np.zeros(shape)
        for i, n in enumerate(_SPEEDS):
            for draw in range(_DRAWS):
                hiss = bearing.noise(2**40, i, draw)
                parts = bearing.components(2**40, i, draw, float(n) * bearing.RATED_RPM, hiss)
                self._unit[i] += band_power(parts.reshape(-1, bearing.AXES, bearing.SAMPLES)) / _DRAWS

    def expected(self, strength: Array, speed: Array) -> tuple[Array, Array]:
        """Expected power of everything but flow noise, and of flow noise without cavitation.

        Both ``[machines, particles, axes, bands]``; ``strength`` is ``[machines, particles, components]``
        in m/s2, ``speed`` ``[machines]`` relative to rated.
        """
        at = np.clip(np.interp(speed, _SPEEDS, np.arange(len(_SPEEDS))), 0, len(_SPEEDS) - 1.001)
        low = at.astype(int)
        share = (at - low)[:, np.newaxis, np.newaxis, np.newaxis]
        unit = (1 - share) * self._unit[low] + share * self._unit[low + 1]
        power = strength**2
        still = np.delete(power, _FLOW, axis=-1) @ _flat(np.delete(unit, _FLOW, axis=1))
        flow = power[..., _FLOW : _FLOW + 1] @ _flat(unit[:, _FLOW : _FLOW + 1])
        shape = (*strength.shape[:2], bearing.AXES, len(BANDS))
        return still.reshape(shape), flow.reshape(shape)

    def log_likelihood(self, seen: Array, still: Array, flow: Array, gain: Array) -> Array:
        """Log likelihood of band powers ``[machines, axes, bands]``, ``[machines, particles, gains]``.

        ``gain`` ``[gains]`` multiplies the flow noise's power. The median over the live axes is judged,
        so that one bad axis cannot mislead; Student's t for what the model leaves out.
        """
        live = np.asarray((np.isfinite(seen) & (seen > _DEAD)).all(axis=-1))
        total = np.zeros((*still.shape[:2], gain.size))
        for m, axes in enumerate(live):
            if not np.any(axes):
                continue
            power = still[m][:, axes, :, np.newaxis] + flow[m][:, axes, :, np.newaxis] * gain
            gap = _median(np.log(seen[m, axes])[:, :, np.newaxis] - np.log(power))
            terms = np.log1p((gap / _SCATTER[:, np.newaxis]) ** 2 / _FREEDOM)
            total[m] = -0.5 * (_FREEDOM + 1) * terms.sum(axis=1)
        return total


def _flat(unit: Array) -> Array:
    return unit.reshape(*unit.shape[:2], -1)


def _median(gap: Array) -> Array:
    """The median over one to three axes, ``[particles, axes, …]`` to ``[particles, …]``."""
    if gap.shape[1] < bearing.AXES:
        return np.asarray(gap.mean(axis=1))
    a, b, c = gap[:, 0], gap[:, 1], gap[:, 2]
    return np.asarray(np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c)))
