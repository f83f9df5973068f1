"""The oracle: what could be had by someone who knows how the world works but sees no more than a device.

A particle filter (Gordon, Salmond & Smith, IEE Proc. F 140 (1993) 107) with the true dynamics of wear, crew
and nuisances, on the spectra and oil temperatures that devices see; then QMDP (Littman, Cassandra &
Kaelbling, ICML 1995): the action whose value, averaged over the particles, costs least. It knows each
machine's constants, as a commissioning engineer would, and none of its history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiotkit.loop import bearing, faults, maintenance, wear, weather
from aiotkit.loop.look import Look
from aiotkit.loop.spectrum import Spectrum, band_power
from aiotkit.loop.twin import HOURS, OIL_NOISE_K, STEPS_PER_DAY, Twin
from aiotkit.loop.value import ACTIONS, Values, values
from aiotkit.loop.wear import Array, Duty, Flags, Wear

PARTICLES = 600
#: an observation that the model cannot explain has this much probability, at worst
_OUTLIER = 0.02
_OIL_MODEL_K = 0.25
#: spread given to copies when particles are resampled: lubricant, ln of the spall's size, share that leaks
_SPREAD_LUBRICANT, _SPREAD_SPALL, _SPREAD_LEAKS = 0.03, 0.05, 0.01


#: cavitation is followed on a grid of levels, one distribution a machine (0, then the middle of ten bins)
_LEVELS = np.concatenate([[0.0], 0.4 + 1.2 * (np.arange(10) + 0.5) / 10])


@dataclass
class _Belief:
    """Particles ``[machines, particles]``; ``cavitation`` is ``[machines, levels]``, summed out."""

    wear: Wear
    cavitation: Array
    bias: NDArray[np.int64]
    log_weight: Array


class Oracle:
    """One arm. ``seed`` gives the machines' constants and the filter's own random numbers."""

    def __init__(self, seed: int, machines: int, particles: int = PARTICLES) -> None:
        self._rng = np.random.default_rng([seed, 90210])
        self._build = bearing.Build.draw(seed, machines)
        self._shape = (machines, particles)
        self._values: Values = values()
        self._spectrum = Spectrum()
        self._order = np.ones(machines)
        self._was_down = np.zeros(machines, dtype=bool)
        self._stopped = np.zeros(machines, dtype=bool)
        self._oil_seen = np.full(machines, -1.0)
        self._belief: _Belief | None = None
        self._speed, self._load = np.full(machines, 0.96), np.full(machines, 0.88)
        self._mode = np.zeros(machines, dtype=np.int64)

    @property
    def names(self) -> Sequence[str]:
        """One arm."""
        return ("oracle",)

    def order(self, look: Look, arms: slice, twin: Twin) -> Array:  # noqa: ARG002
        """Update the belief by what is seen, choose, and foresee the step that follows."""
        seen, arm = look.seen, arms.start
        ambient = float(seen.context["ambient"][arm, 0])
        belief = self._belief or self._first(seen.oil.value[arm])
        self._hear(look, arm)
        down = self._down
        belief = self._after_work(belief, seen.released[arm])
        self._weigh(belief, look, arm, down)
        belief = self._resampled(belief)
        action = self._choose(belief, seen.step, seen.released[arm], down)
        self._order = np.array(ACTIONS)[action]
        self._stopped = (self._stopped | (self._order == 0)) & ~seen.released[arm]
        self._belief = self._foresee(belief, ambient, down & ~seen.released[arm])
        return self._order[np.newaxis]

    def _first(self, oil: Array) -> _Belief:
        first = wear.fresh(self._shape)
        level = 1 - 0.5 * self._rng.random(self._shape)
        start = np.where(np.isfinite(oil), oil, 20.0)[:, np.newaxis]
        warm = Wear(first.spall_mm, first.inner, level, first.starving, np.broadcast_to(start, self._shape))
        zero = np.zeros(self._shape)
        calm = np.tile(_LEVELS == 0, (self._shape[0], 1)).astype(float)
        return _Belief(warm, calm, zero.astype(np.int64), zero)

    def _hear(self, look: Look, arm: int) -> None:
        """Take over the context that was heard; what was not heard stays as it was."""
        context = look.seen.context
        mode = context["mode"][arm]
        heard = mode != ""
        self._down = np.where(heard, mode == "down", self._was_down | self._stopped)
        self._was_down = self._down
        up = heard & (mode != "down")
        rpm = context["speed"][arm].astype(float)
        load = context["load"][arm].astype(float)
        order = np.maximum(self._order, 0.1)
        self._speed = np.where(up, rpm / bearing.RATED_RPM / order, self._speed)
        self._load = np.where(up, load / 100 / order**2, self._load)
        number = np.array([weather.MODES.index(str(m)) if m else 0 for m in mode])
        self._mode = np.where(up, number, self._mode)

    def _after_work(self, belief: _Belief, released: Flags) -> _Belief:
        """The crew hands a machine back: repaired by its rules, whatever it found."""
        if not released.any():
            return belief
        u = self._rng.random((*self._shape, 3))
        found = maintenance.found_by_crew(belief.wear, u[..., 0])
        found = np.where(self._stopped[:, np.newaxis], found, maintenance.BEARING)  # broken: all is renewed
        fixed = maintenance.repaired(belief.wear, found, u[..., 1:])
        now = wear.where(released[:, np.newaxis], fixed, belief.wear)
        return _Belief(now, belief.cavitation, belief.bias, belief.log_weight)

    def _duty(self, speed: Array) -> Duty:
        n = np.broadcast_to(speed[:, np.newaxis], self._shape)
        return Duty(n, wear.bearing_load(n, self._load[:, np.newaxis]))

    def _weigh(self, belief: _Belief, look: Look, arm: int, down: Flags) -> None:
        """Add the log likelihood of what was seen."""
        seen = look.seen
        speed = np.where(down, 0.0, self._order * self._speed)
        nuisance = bearing.Nuisance(np.zeros(1), np.zeros(1))
        flipped = Wear(*(getattr(belief.wear, n).T for n in Wear.__slots__))
        duty = self._duty(speed)
        strength = bearing.amplitudes(
            flipped, Duty(duty.speed.T, duty.load.T), self._load, self._build, nuisance
        ).transpose(1, 0, 2)
        still, flow = self._spectrum.expected(strength, speed)
        powers = band_power(seen.rows[seen.index[arm]])
        each = self._spectrum.log_likelihood(powers, still, flow, (1 + _LEVELS) ** 2)
        each = np.where((self._load > 0.75)[:, np.newaxis, np.newaxis], each, each[..., :1])
        each = np.where(down[:, np.newaxis, np.newaxis], 0.0, each)
        self._judge_noise(belief, each)
        fresh = (seen.oil.age_s[arm] < 1800) & np.isfinite(seen.oil.value[arm])
        bias = np.array([0.0, faults.OIL_BIAS_K, -faults.OIL_BIAS_K])[belief.bias]
        gap = (seen.oil.value[arm][:, np.newaxis] - bias - belief.wear.oil_c) / (OIL_NOISE_K + _OIL_MODEL_K)
        near = np.log((1 - _OUTLIER) * np.exp(-0.5 * np.minimum(gap**2, 1000)) + _OUTLIER * 0.02)
        belief.log_weight += np.where(fresh[:, np.newaxis], near, 0.0)

    def _judge_noise(self, belief: _Belief, each: Array) -> None:
        """Sum cavitation out of the likelihood ``[machines, particles, levels]``, and learn its level."""
        peak = each.max(axis=(1, 2), keepdims=True)
        joint = np.exp(each - peak) * belief.cavitation[:, np.newaxis]
        fit = joint.sum(axis=-1)
        weight = np.exp(belief.log_weight - belief.log_weight.max(axis=1, keepdims=True))
        level = (joint * weight[..., np.newaxis]).sum(axis=1) + 1e-12
        belief.cavitation = level / level.sum(axis=1, keepdims=True)
        belief.log_weight += np.log(np.maximum(fit, 1e-300))

    def _resampled(self, belief: _Belief) -> _Belief:
        """Systematic resampling of machines whose weights have become uneven."""
        weight = np.exp(belief.log_weight - belief.log_weight.max(axis=1, keepdims=True))
        weight /= weight.sum(axis=1, keepdims=True)
        uneven = 1 / (weight**2).sum(axis=1) < self._shape[1] / 2
        keep = np.broadcast_to(np.arange(self._shape[1]), self._shape).copy()
        for m in np.flatnonzero(uneven):
            comb = (np.arange(self._shape[1]) + self._rng.random()) / self._shape[1]
            keep[m] = np.minimum(np.searchsorted(np.cumsum(weight[m]), comb), self._shape[1] - 1)
        names = Wear.__slots__
        chosen = Wear(**{n: np.take_along_axis(getattr(belief.wear, n), keep, 1) for n in names})
        chosen = wear.where(uneven[:, np.newaxis], self._spread(chosen), chosen)
        logs = np.where(uneven[:, np.newaxis], 0.0, np.log(np.maximum(weight, 1e-300)))
        return _Belief(
            chosen,
            belief.cavitation,
            np.take_along_axis(belief.bias, keep, 1),
            logs,
        )

    def _spread(self, chosen: Wear) -> Wear:
        """Keep copies apart (regularized filter: Musso, Oudjane & Le Gland 2001): wear has little noise."""
        z = self._rng.standard_normal((2, *self._shape))
        level = np.clip(np.abs(chosen.lubricant + _SPREAD_LUBRICANT * z[0]), 0, 1)
        spall = chosen.spall_mm * np.exp(_SPREAD_SPALL * z[1])
        leaks = chosen.starving | (self._rng.random(self._shape) < _SPREAD_LEAKS)
        return Wear(spall, chosen.inner, level, leaks, chosen.oil_c)

    def _choose(self, belief: _Belief, step: int, released: Flags, down: Flags) -> NDArray[np.int64]:
        weight = np.exp(belief.log_weight - belief.log_weight.max(axis=1, keepdims=True))
        weight /= weight.sum(axis=1, keepdims=True)
        action = np.zeros(self._shape[0], dtype=np.int64)
        for m in range(self._shape[0]):
            mine = Wear(*(getattr(belief.wear, n)[m] for n in Wear.__slots__))
            q = self._values.of(step % STEPS_PER_DAY, int(self._mode[m]), mine) @ weight[m]
            action[m] = int(np.argmin(q))
        run = released | (down & ~self._stopped)
        return np.where(run, 0, np.where(self._stopped, len(ACTIONS) - 1, action))

    def _foresee(self, belief: _Belief, ambient: float, down: Flags) -> _Belief:
        """One step of the true dynamics; particles that broke are given up when the machine did not."""
        turning = ~down & (self._order > 0)
        speed = np.where(turning, self._order * self._speed, 0.0)
        u = self._rng.random((*self._shape, wear.DRAWS))
        after, broke, seized = wear.advance(belief.wear, self._duty(speed), np.array(ambient), u, HOURS)
        gone = broke | seized
        v = self._rng.random((*self._shape, 2))
        start, end = HOURS / faults.OIL_FAILS_H * 2 / 3, HOURS / faults.OIL_FAILED_H
        fails = (belief.bias == 0) & (v[..., 0] < start)
        bias = np.where(fails, 1 + (v[..., 1] < 0.5), np.where(v[..., 0] > 1 - end, 0, belief.bias))
        log_weight = belief.log_weight - 30.0 * gone
        return _Belief(after, self._cavitation_next(belief.cavitation), bias, log_weight)

    def _cavitation_next(self, now: Array) -> Array:
        """The level's distribution a step later: bursts begin at high load, and end."""
        begins = np.where(self._load > 0.9, 0.03, 0.0)[:, np.newaxis]
        bursts = (_LEVELS > 0) / (_LEVELS.size - 1)
        stays = now * np.where(_LEVELS > 0, 0.85, 1.0)
        stays[:, 0] += 0.15 * now[:, 1:].sum(axis=1)
        return np.asarray((1 - begins) * stays + begins * bursts)
