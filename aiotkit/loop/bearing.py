"""Vibration of a motor-pump unit as a sum of components, so that many arms can share one noise.

A window is ``amplitudes @ components``: the components depend on machine, instant and speed only, the
amplitudes on the condition. Impulse model: McFadden & Smith, J. Sound Vib. 96 (1984) 69 (a point defect
excites a resonance at the ball-pass frequency, modulated by the load zone); its random slip: Randall &
Antoni, Mech. Syst. Signal Process. 25 (2011) 485.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiotkit.loop.chance import Purpose, generator
from aiotkit.loop.wear import Array, Duty, Wear, film_lack

RATE_HZ, SAMPLES, AXES = 2048.0, 1024, 3
RATED_RPM = 1480.0
BALLS, DIAMETER_RATIO = 9, 0.21
VANES = 5
RESONANCE_HZ, DAMPING = 820.0, 0.05
SLIP = 0.012
RANGE_MS2 = 80.0
_BINS = SAMPLES // 2 + 1
_FREQUENCY = np.fft.rfftfreq(SAMPLES, 1 / RATE_HZ)

#: component -> row of the amplitude matrix
COMPONENTS = ("shaft", "vanes", "flow", "friction", "outer", "inner", "floor")
#: per component: relative strength on the axes x (horizontal), y (vertical), z (axial)
_DIRECTION = np.array(
    [
        [1.0, 0.8, 0.25],
        [1.0, 0.9, 0.6],
        [1.0, 0.95, 0.9],
        [1.0, 0.95, 0.7],
        [1.0, 0.9, 0.55],
        [1.0, 0.9, 0.55],
        [1.0, 1.0, 1.0],
    ]
)


def ball_pass_hz(shaft_hz: Array) -> tuple[Array, Array]:
    """Ball-pass frequencies (outer race, inner race) of a radial bearing with contact angle 0.

    >>> outer, inner = ball_pass_hz(np.array(24.0))
    >>> round(float(outer), 2), round(float(inner), 2)
    (85.32, 130.68)
    """
    half = BALLS / 2 * shaft_hz
    return half * (1 - DIAMETER_RATIO), half * (1 + DIAMETER_RATIO)


@dataclass(frozen=True, slots=True)
class Build:
    """How one machine differs from the next, for good: all ``[machines]``."""

    gain: Array
    unbalance: Array
    flow: Array

    @classmethod
    def draw(cls, seed: int, machines: int) -> Build:
        """The machines of a seed."""
        z = np.stack([generator(seed, Purpose.BUILD, m).standard_normal(3) for m in range(machines)])
        gain, unbalance, flow = np.exp(z * [0.15, 0.30, 0.20]).T
        return cls(gain, unbalance, flow)


@dataclass(frozen=True, slots=True)
class Nuisance:
    """What shakes a healthy machine: ``fouling`` of the impeller (unbalance), ``cavitation``; both >= 0."""

    fouling: Array
    cavitation: Array


def amplitudes(wear: Wear, duty: Duty, process_load: Array, build: Build, nuisance: Nuisance) -> Array:
    """Strength of each component (m/s2), ``[..., machines, len(COMPONENTS)]``.

    Unbalance force ∝ n²; flow noise rises with n² and away from the best efficiency point; friction noise
    with the lack of film; impulses with the load on the defect and about the root of its area.
    """
    n, lack = duty.speed, film_lack(wear.lubricant)
    hit = 2.2 * wear.spall_mm**0.75 * duty.load * n
    parts = (
        0.55 * n**2 * (build.unbalance + nuisance.fouling),
        n**2 * (0.25 + 1.0 * np.abs(process_load - 0.85)),
        n**2 * build.flow * (0.35 + 0.45 * process_load) * (1 + nuisance.cavitation),
        1.5 * n * (0.10 + lack),
        np.where(wear.inner, 0.0, hit),
        np.where(wear.inner, 0.8 * hit, 0.0),
        np.broadcast_to(0.03, n.shape),
    )
    strength = np.stack(np.broadcast_arrays(*parts), axis=-1)
    return np.asarray(strength * build.gain[:, np.newaxis])


def _band(low: float, high: float, order: int = 2) -> Array:
    """A smooth band as magnitude over frequency, of unit power."""
    f = np.maximum(_FREQUENCY, 1e-3)
    shape = 1 / np.sqrt((1 + (low / f) ** (2 * order)) * (1 + (f / high) ** (2 * order)))
    shape[0] = 0
    return np.asarray(shape / np.sqrt(np.mean(shape[1:] ** 2)))


_SHAPES = np.stack([_band(60, 380), _band(250, 700), np.ones(_BINS)])
_W = 2 * np.pi * RESONANCE_HZ
_RING = np.fft.rfft(
    np.exp(-DAMPING * _W * np.arange(SAMPLES) / RATE_HZ) * np.sin(_W * np.arange(SAMPLES) / RATE_HZ)
)


def noise(seed: int, machine: int, step: int) -> Array:
    """Flow noise, friction noise and sensor floor of unit power, ``[3, AXES, SAMPLES]``."""
    z = generator(seed, Purpose.NOISE, machine, step).standard_normal((3, AXES, _BINS, 2), dtype=np.float32)
    spectrum = (z[..., 0] + 1j * z[..., 1]) * _SHAPES[:, np.newaxis] * np.sqrt(SAMPLES / 2)
    return np.fft.irfft(spectrum, SAMPLES, axis=-1)


def components(seed: int, machine: int, step: int, rpm: float, hiss: Array) -> NDArray[np.float32]:
    """The components of a window at a shaft speed, ``[len(COMPONENTS), AXES * SAMPLES]``.

    ``hiss`` is ``noise`` of the same machine and step: it does not depend on speed.
    """
    if rpm <= 1:  # at rest nothing is left but the sensor's floor
        still = np.zeros((len(COMPONENTS), AXES, SAMPLES), dtype=np.float32)
        still[-1] = hiss[2]
        return still.reshape(len(COMPONENTS), -1)
    draw = generator(seed, Purpose.IMPULSES, machine, step)
    phases, slips = draw.random(5) * 2 * np.pi, draw.standard_normal((2, 160))
    shaft_hz = rpm / 60
    turns = 2 * np.pi * shaft_hz * np.arange(SAMPLES) / RATE_HZ
    quarter = np.array([0.0, np.pi / 2, 1.0])[:, np.newaxis]
    shaft = np.sin(turns + phases[0] + quarter) + 0.35 * np.sin(2 * turns + phases[1] + quarter)
    vanes = np.sin(VANES * turns + phases[2] + quarter)
    outer_hz, inner_hz = ball_pass_hz(np.array(shaft_hz))
    zone = 0.1 + 0.9 * np.clip(np.cos(turns + phases[4]), 0, None)  # inner race: in and out of the load
    trains = np.stack(
        [_train(float(outer_hz), phases[3], slips[0]), zone * _train(float(inner_hz), phases[3], slips[1])]
    )
    rings = np.fft.irfft(np.fft.rfft(trains) * _RING, SAMPLES)[:, np.newaxis]
    parts = [shaft, vanes, hiss[0], hiss[1], *np.broadcast_to(rings, (2, AXES, SAMPLES)), hiss[2]]
    scaled = np.stack(parts) * _DIRECTION[..., np.newaxis]
    return np.asarray(scaled.reshape(len(COMPONENTS), -1), dtype=np.float32)


def _train(hz: float, phase: float, slips: Array) -> Array:
    """Unit impulses at about ``hz`` with random slip, each shared between its two nearest samples."""
    train = np.zeros(SAMPLES)
    if hz <= 1:
        return train
    period = RATE_HZ / hz
    count = min(int(SAMPLES / period) + 3, slips.size)
    at = phase / (2 * np.pi) * period + np.cumsum(period * np.maximum(1 + SLIP * slips[:count], 0.5))
    at = at[at < SAMPLES - 1]
    low = at.astype(int)
    np.add.at(train, low, 1 - (at - low))
    np.add.at(train, low + 1, at - low)
    return train
