"""What the site asks of its machines and the weather around them, fixed before anything happens.

Ambient temperature: seasonal and daily cycle with slow noise. Demand: production most of the time with a
load that wanders, idle spells (more at night and on Sunday), a daily washdown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.calendar import local_context
from aiotkit.core.decision import Site
from aiotkit.loop.chance import Purpose, generator, normals, uniforms
from aiotkit.loop.wear import Array

MODES = ("production", "idle", "washdown", "down")
PRODUCTION, IDLE, WASHDOWN, DOWN = range(4)
_STEPS_PER_DAY = 48
#: base speed and process load asked for outside production
IDLE_SPEED, IDLE_LOAD, WASH_SPEED, WASH_LOAD = 0.55, 0.35, 0.75, 0.55


@dataclass(frozen=True, slots=True)
class Regime:
    """A change of what the process asks for, for good: from ``day`` on, more or less load and speed.

    The default is a plant that takes on a heavier product: pumps nearer to their limit, at higher speed.
    """

    day: int
    load: float = 0.12
    speed: float = 0.06


@dataclass(frozen=True, slots=True)
class Demand:
    """Exogenous paths: ``ambient_c`` and ``hour`` [steps], the rest [steps, machines].

    ``mode`` indexes ``MODES``; ``speed`` and ``load`` are what the process asks for, relative to rated;
    ``fouling`` and ``cavitation`` shake healthy machines.
    """

    ambient_c: Array
    hour: Array
    mode: NDArray[np.int64]
    speed: Array
    load: Array
    fouling: Array
    cavitation: Array


def ambient(seed: int, hours: Array, first_day: float) -> Array:
    """Pump-house temperature (degree Celsius): yearly ±9 K, daily ±4 K, and weather of about a day.

    ``hours`` since the start; ``first_day`` is the day of the year it begins on.
    """
    z = normals(seed, Purpose.WEATHER, 1, hours.size, 1)[:, 0, 0]
    slow, value = np.empty(hours.size), 0.0
    keep = np.exp(-0.5 / 30)
    for i, kick in enumerate(z):
        value = keep * value + np.sqrt(1 - keep**2) * kick
        slow[i] = value
    season = -9 * np.cos(2 * np.pi * (first_day + hours / 24 - 20) / 365.25)
    daily = -4 * np.cos(2 * np.pi * (hours % 24 - 3) / 24)
    return np.asarray(15 + season + daily + 2.5 * slow)


def demand(
    seed: int, machines: int, times_us: NDArray[np.int64], site: Site, regime: Regime | None = None
) -> Demand:
    """Everything exogenous for the instants of a run, one entry a step of half an hour."""
    steps = times_us.size
    local = [local_context(site, int(t)) for t in times_us]
    hour = np.array([float(c["local_hour"]) for c in local])
    quiet = np.array([c["weekday"] == "sun" or not 5 <= float(c["local_hour"]) < 23 for c in local])
    start = datetime.fromtimestamp(int(times_us[0]) / 1e6, UTC)
    since = hour[0] + np.arange(steps) * 0.5
    u = uniforms(seed, Purpose.DEMAND, machines, steps, 4)
    z = normals(seed, Purpose.DEMAND, machines, steps, 2)
    mode = _modes(u, quiet, _wash_hours(seed, machines), hour)
    more_load, more_speed = _shift(steps, regime)
    load = np.clip(0.88 + more_load + 0.14 * _wander(z[..., 0], 6.0) + 0.03 * z[..., 1], 0.5, 1.1)
    speed = np.clip(0.96 + more_speed + 0.05 * _wander(z[..., 1], 12.0), 0.8, 1.05)
    for index, (n, p) in {IDLE: (IDLE_SPEED, IDLE_LOAD), WASHDOWN: (WASH_SPEED, WASH_LOAD)}.items():
        speed = np.where(mode == index, n, speed)
        load = np.where(mode == index, p, load)
    fouling, cavitation = _nuisance(seed, machines, mode, load)
    ambient_c = ambient(seed, since, float(start.timetuple().tm_yday))
    return Demand(ambient_c, hour, mode, speed, load, fouling, cavitation)


def _shift(steps: int, regime: Regime | None) -> tuple[Array, Array]:
    """What a regime adds to load and speed, ``[steps, 1]`` each."""
    if regime is None:
        return np.zeros((steps, 1)), np.zeros((steps, 1))
    after = (np.arange(steps)[:, np.newaxis] >= regime.day * _STEPS_PER_DAY).astype(float)
    return after * regime.load, after * regime.speed


def _wash_hours(seed: int, machines: int) -> Array:
    """The hour of the day at which each machine is washed."""
    return np.array([generator(seed, Purpose.DEMAND, m, 2).integers(0, 48) / 2 for m in range(machines)])


def _modes(u: Array, quiet: NDArray[np.bool_], wash: Array, hour: Array) -> NDArray[np.int64]:
    steps, machines = u.shape[:2]
    mode = np.empty((steps, machines), dtype=np.int64)
    idle = np.zeros(machines, dtype=bool)
    for k in range(steps):
        begins = u[k, :, 0] < (0.06 if quiet[k] else 0.015)
        ends = u[k, :, 1] < (0.12 if quiet[k] else 0.25)
        idle = np.where(idle, ~ends, begins)
        washing = (hour[k] - wash) % 24 < 1
        mode[k] = np.where(washing, WASHDOWN, np.where(idle, IDLE, PRODUCTION))
    return mode


def _wander(z: Array, tau_h: float) -> Array:
    """A stationary first-order process of unit variance along the steps."""
    keep = np.exp(-0.5 / tau_h)
    out, value = np.empty_like(z), z[0]
    for k in range(z.shape[0]):
        value = keep * value + np.sqrt(1 - keep**2) * z[k]
        out[k] = value
    return out


def _nuisance(seed: int, machines: int, mode: NDArray[np.int64], load: Array) -> tuple[Array, Array]:
    """Fouling grows now and then and is mostly washed off; cavitation comes in bursts at high load."""
    steps = mode.shape[0]
    u = uniforms(seed, Purpose.NUISANCE, machines, steps, 4)
    fouling, cavitation = np.zeros((steps, machines)), np.zeros((steps, machines))
    growing, dirt, burst = np.zeros(machines, dtype=bool), np.zeros(machines), np.zeros(machines)
    for k in range(steps):
        washed = (mode[k] == WASHDOWN) & (u[k, :, 1] < 0.6)
        growing = (growing | (u[k, :, 0] < 1 / 150)) & ~washed
        dirt = np.where(washed, 0.15 * dirt, np.minimum(dirt + 0.08 * growing, 4.0))
        begins = (load[k] > 0.9) & (u[k, :, 2] < 0.03)
        burst = np.where(begins, 0.4 + 1.2 * u[k, :, 3], np.where(u[k, :, 3] < 0.15, 0.0, burst))
        fouling[k], cavitation[k] = dirt, burst * (load[k] > 0.75)
    return fouling, cavitation
