"""Hidden wear of a bearing and its lubricant: pure functions of state, duty and given random numbers.

Two ways to fail. *Spall*: a bearing fatigues until a spall starts, which then grows until the bearing
breaks. *Lubricant*: it ages, or is lost quickly after a leak or contamination (*starving*), until the film
breaks down and the bearing seizes. The README beside this file lists the sources of every formula.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: size of a spall when it starts, and the size at which it is critical (mm)
SPALL_START_MM, SPALL_CRITICAL_MM = 0.3, 6.0
#: mean time until a spall starts, at full speed and load and a full film (h)
SPALL_AFTER_H = 192.0
#: steady growth of ln(size) and the mean of its jumps, at full speed and load (1/h, 1/h, 1)
GROWTH_PER_H, JUMPS_PER_H, JUMP_MEAN = 0.040, 0.06, 0.45
#: breakdown hazard at the critical size (1/h) and how steeply it rises with size
BREAK_PER_H, BREAK_EXPONENT = 0.25, 5.0
#: exponent of the load-life relation for ball bearings
LOAD_EXPONENT = 3.0
#: life of the lubricant, and when it is being lost, at full speed and reference temperature (h)
LUBRICANT_H, STARVING_H = 400.0, 60.0
#: mean time between leaks or contaminations, in running time (h)
LEAK_AFTER_H = 260.0
#: lubricant left below which the film thins; temperature at which its life is given and that halves it
FILM_FROM, LIFE_AT_C, HALVED_BY_K = 0.35, 50.0, 15.0
#: seizure hazard without any film (1/h) and how steeply it rises with the lack of film
SEIZE_PER_H, SEIZE_EXPONENT = 0.25, 5.0
#: how much a missing film speeds up fatigue and growth
FILM_ON_FATIGUE = 2.0
#: oil: rise at full duty (K), share added by a missing film, by a critical spall, time constant (h)
OIL_RISE_K, OIL_FILM, OIL_SPALL, OIL_TAU_H = 24.0, 1.1, 0.10, 1.5
#: random numbers one step of wear takes
DRAWS = 6


@dataclass(frozen=True, slots=True)
class Duty:
    """What a machine does: speed and bearing load relative to rated (1), all of one shape."""

    speed: Array
    load: Array


@dataclass(frozen=True, slots=True)
class Wear:
    """Hidden condition, all arrays of one shape.

    ``spall_mm`` (0 = none), ``inner`` (the spall sits on the inner race), ``lubricant`` left in [0, 1],
    ``starving`` (it is being lost), ``oil_c`` the oil's temperature (degree Celsius).
    """

    spall_mm: Array
    inner: Flags
    lubricant: Array
    starving: Flags
    oil_c: Array


def bearing_load(speed: Array, load: Array) -> Array:
    """Load on the bearing relative to rated: a constant part, and a hydraulic part that follows speed².

    ``load`` is the process load (1 = rated). Affinity laws of centrifugal pumps: head ∝ n².
    """
    return np.where(speed > 0, 0.4 + 0.6 * speed**2 * load, 0.0)


def film_lack(lubricant: Array) -> Array:
    """How much of the lubricating film is missing, 0 (full) to 1 (none)."""
    return np.clip(1 - lubricant / FILM_FROM, 0.0, 1.0)


def fatigue_rate(duty: Duty, lack: Array) -> Array:
    """Fatigue per hour relative to full duty: revolutions times load³ (ISO 281), times lack of film."""
    return duty.speed * duty.load**LOAD_EXPONENT * (1 + FILM_ON_FATIGUE * lack)


def oil_equilibrium(duty: Duty, wear: Wear, ambient_c: Array) -> Array:
    """The oil temperature a constant duty would lead to (degree Celsius)."""
    heat = duty.speed * (0.4 + 0.6 * duty.load)
    extra = OIL_FILM * film_lack(wear.lubricant) + OIL_SPALL * np.minimum(
        wear.spall_mm / SPALL_CRITICAL_MM, 2
    )
    return ambient_c + OIL_RISE_K * heat * (1 + extra)


def advance(wear: Wear, duty: Duty, ambient_c: Array, u: Array, hours: float) -> tuple[Wear, Flags, Flags]:
    """One step of wear.

    Args:
        wear: the condition before.
        duty: what the machine does during the step.
        ambient_c: ambient temperature (degree Celsius).
        u: uniform numbers in [0, 1), ``[..., DRAWS]``, that broadcast against the condition.
        hours: length of the step.

    Returns:
        The condition after, and whether the spall broke the bearing or it seized during the step (a
        breakdown has one cause: the first of the two).
    """
    lack = film_lack(wear.lubricant)
    fatigue = fatigue_rate(duty, lack) * hours
    spall, inner = _spall(wear, fatigue, u)
    heat = 2.0 ** ((wear.oil_c - LIFE_AT_C) / HALVED_BY_K)
    loss = duty.speed * hours * (heat / LUBRICANT_H + np.where(wear.starving, 1 / STARVING_H, 0.0))
    leaks = u[..., 3] < -np.expm1(-duty.speed * hours / LEAK_AFTER_H)
    settled = oil_equilibrium(duty, wear, ambient_c)
    oil = settled + (wear.oil_c - settled) * np.exp(-hours / OIL_TAU_H)
    running = duty.speed > 0
    after = Wear(spall, inner, np.clip(wear.lubricant - loss, 0, 1), wear.starving | (leaks & running), oil)
    breaks, seizes = odds(wear, duty, hours)
    broke = running & (u[..., 4] < breaks)
    seized = running & ~broke & (u[..., 5] < seizes)
    return after, broke, seized


def odds(wear: Wear, duty: Duty, hours: float) -> tuple[Array, Array]:
    """Probability that the spall breaks the bearing in a step, and that it seizes if it does not break."""
    breaks = -np.expm1(-break_hazard(wear.spall_mm, duty) * hours)
    seizes = -np.expm1(-seize_hazard(film_lack(wear.lubricant), duty) * hours)
    return np.asarray(breaks), np.asarray(seizes)


def _spall(wear: Wear, fatigue: Array, u: Array) -> tuple[Array, Flags]:
    """Start (memoryless in fatigue) and growth (ln of the size: steady, with jumps) of the spall."""
    starts = (wear.spall_mm == 0) & (u[..., 0] < -np.expm1(-fatigue / SPALL_AFTER_H))
    odds = -np.expm1(-JUMPS_PER_H * fatigue)
    jump = np.where(u[..., 1] < odds, -JUMP_MEAN * np.log1p(-u[..., 2]), 0.0)
    grown = wear.spall_mm * np.exp(np.minimum(GROWTH_PER_H * fatigue + jump, 3.0))
    spall = np.where(starts, SPALL_START_MM, np.minimum(grown, 2 * SPALL_CRITICAL_MM))
    return spall, np.where(starts, u[..., 2] < 0.4, wear.inner)


def break_hazard(spall_mm: Array, duty: Duty) -> Array:
    """Breakdowns per hour for the spall's sake."""
    rate = duty.speed * duty.load**LOAD_EXPONENT
    return BREAK_PER_H * rate * (spall_mm / SPALL_CRITICAL_MM) ** BREAK_EXPONENT


def seize_hazard(lack: Array, duty: Duty) -> Array:
    """Breakdowns per hour for want of lubricant."""
    return SEIZE_PER_H * duty.speed * duty.load * lack**SEIZE_EXPONENT


def hours_left(wear: Wear, duty: Duty) -> tuple[Array, Array]:
    """Expected running hours until the spall is critical, and until the film is gone, at constant duty.

    Infinite where nothing has begun. The estimate of an expert who sees the condition itself.
    """
    rate = np.maximum(fatigue_rate(duty, film_lack(wear.lubricant)), 1e-9)
    growth = (GROWTH_PER_H + JUMPS_PER_H * JUMP_MEAN) * rate
    with np.errstate(divide="ignore"):
        to_go = np.log(SPALL_CRITICAL_MM / np.maximum(wear.spall_mm, 1e-300))
    spall = np.where(wear.spall_mm > 0, np.maximum(to_go, 0) / growth, np.inf)
    loss = np.maximum(duty.speed, 1e-9) * (1 / LUBRICANT_H + np.where(wear.starving, 1 / STARVING_H, 0.0))
    return spall, wear.lubricant / loss


def fresh(shape: tuple[int, ...], oil_c: float = 20.0) -> Wear:
    """A new bearing with new lubricant."""
    zero, no = np.zeros(shape), np.zeros(shape, dtype=bool)
    return Wear(zero, no, np.ones(shape), no.copy(), np.full(shape, oil_c))


def where(condition: Flags, a: Wear, b: Wear) -> Wear:
    """Field by field ``a`` where the condition holds, else ``b``."""
    names = Wear.__slots__
    return replace(b, **{n: np.where(condition, getattr(a, n), getattr(b, n)) for n in names})
