"""What a known condition is worth: relative value iteration over the twin's true dynamics and prices.

State: spall size, lubricant, whether it is being lost, and the hour of the day; half-hour steps; actions
run, throttle, stop. Average cost, undiscounted (Puterman, Markov Decision Processes, 1994, ch. 8). Process
modes follow each other independently with their shares; loads are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from aiotkit.loop import maintenance, wear, weather
from aiotkit.loop.ledger import PRICES
from aiotkit.loop.twin import HOURS, STEPS_PER_DAY
from aiotkit.loop.wear import Array, Duty, Wear

SPEEDS = (1.0, 0.6)
ACTIONS = (*SPEEDS, 0.0)
_SIZES = np.geomspace(wear.SPALL_START_MM, 2 * wear.SPALL_CRITICAL_MM, 20)
_LEVELS = np.concatenate([np.arange(0, 0.40, 0.02), np.linspace(0.40, 1.0, 10)])
_X, _L = _SIZES.size + 1, _LEVELS.size
_DRAWS = 256
_DAYS = 40
#: shares of production, idle and washdown by day, and in quiet hours
_SHARES = np.array([[0.90, 0.06, 0.04], [0.66, 0.30, 0.04]])
#: loads and speeds that stand for each mode
_DUTIES = {
    weather.PRODUCTION: [(0.96, 0.70), (0.96, 0.88), (0.96, 1.04)],
    weather.IDLE: [(weather.IDLE_SPEED, weather.IDLE_LOAD)],
    weather.WASHDOWN: [(weather.WASH_SPEED, weather.WASH_LOAD)],
}
_AMBIENT_C = 15.0


def grid() -> Wear:
    """Every state of the grid, ``[states]``, oil at rest."""
    spall, level, starving = np.meshgrid(
        np.concatenate([[0.0], _SIZES]), _LEVELS, [False, True], indexing="ij"
    )
    flat = spall.reshape(-1)
    zero = np.zeros(flat.shape, dtype=bool)
    return Wear(flat, zero, level.reshape(-1), starving.reshape(-1), np.full(flat.shape, 30.0))


def corners(state: Wear) -> tuple[NDArray[np.int64], Array]:
    """Grid states around a condition and their weights, both ``[..., 4]`` (in ln size, lubricant)."""
    logs = np.log(_SIZES)
    at = np.interp(np.log(np.maximum(state.spall_mm, _SIZES[0])), logs, np.arange(_SIZES.size))
    i = np.minimum(at.astype(int), _SIZES.size - 2)
    none = state.spall_mm <= 0
    share_x = np.where(none, 0.0, at - i)
    i = np.where(none, 0, i + 1)
    level = np.interp(state.lubricant, _LEVELS, np.arange(_L))
    j = np.minimum(level.astype(int), _L - 2)
    share_l = level - j
    s = state.starving.astype(int)
    index = [((i + a) * _L + j + b) * 2 + s for a in (0, 1) for b in (0, 1)]
    weight = [
        (share_x if a else 1 - share_x) * (share_l if b else 1 - share_l) for a in (0, 1) for b in (0, 1)
    ]
    return np.stack(index, axis=-1), np.stack(weight, axis=-1)


@dataclass(frozen=True)
class Values:
    """``q`` [hours of half, modes, actions, states]: cost to go of each action, relative."""

    q: Array

    def of(self, step_of_day: int, mode: int, state: Wear) -> Array:
        """Q of each action at conditions, ``[actions, ...]``."""
        index, weight = corners(state)
        table = self.q[step_of_day % STEPS_PER_DAY, min(mode, weather.WASHDOWN)]
        return np.asarray((table[:, index] * weight).sum(axis=-1))


@dataclass(frozen=True)
class _Model:
    """Transitions of a mode and speed, and the odds of the two breakdowns, per grid state."""

    to: sparse.csr_matrix
    broke: Array
    seized: Array


def _model(speed: float, mode: int) -> _Model:
    """Average the true dynamics over random numbers, duties, and the oil temperature they lead to."""
    states = grid()
    count = states.spall_mm.size
    rng = np.random.default_rng(20260302)
    rows, columns, weights = [], [], []
    broke, seized = np.zeros(count), np.zeros(count)
    per = _DRAWS // len(_DUTIES[mode])
    for n, load in _DUTIES[mode]:
        u = (np.argsort(rng.random((per, wear.DRAWS)), axis=0) + rng.random((per, wear.DRAWS))) / per
        full = np.full((count, 1), n * speed)
        duty = Duty(full, wear.bearing_load(full, np.array(load)))
        wide = Wear(*(getattr(states, name)[:, np.newaxis] for name in Wear.__slots__))
        warm = wear.oil_equilibrium(duty, wide, np.array(_AMBIENT_C))
        wide = Wear(wide.spall_mm, wide.inner, wide.lubricant, wide.starving, warm)
        after, _, _ = wear.advance(wide, duty, np.array(_AMBIENT_C), u[np.newaxis], HOURS)
        index, weight = corners(after)
        rows.append(np.broadcast_to(np.arange(count)[:, np.newaxis, np.newaxis], index.shape).reshape(-1))
        columns.append(index.reshape(-1))
        weights.append(weight.reshape(-1))
        flat = Duty(duty.speed[:, 0], duty.load[:, 0])
        share = per / (per * len(_DUTIES[mode]))
        breaks, seizes = wear.odds(states, flat, HOURS)
        broke, seized = broke + share * breaks, seized + share * (1 - breaks) * seizes
    total = per * len(_DUTIES[mode])
    matrix = sparse.coo_matrix(
        (np.concatenate(weights) / total, (np.concatenate(rows), np.concatenate(columns))), (count, count)
    ).tocsr()
    return _Model(matrix, broke, seized)


@dataclass(frozen=True)
class _Stop:
    """What a stop leads to: per finding its odds [3, states], what follows [3] matrices; waits by hour."""

    odds: Array
    follows: tuple[sparse.csr_matrix, ...]
    wait: NDArray[np.int64]


def _after_repair(states: Wear, found: int) -> sparse.csr_matrix:
    count = states.spall_mm.size
    total = sparse.csr_matrix((count, count))
    what = np.full(count, found)
    for fit, fit_share in ((0.0, maintenance.BAD_FIT), (0.5, 1 - maintenance.BAD_FIT)):
        for fill, fill_share in ((0.0, maintenance.LEAK_STAYS), (0.5, 1 - maintenance.LEAK_STAYS)):
            u = np.broadcast_to(np.array([fit, fill]), (count, 2))
            index, weight = corners(maintenance.repaired(states, what, u))
            rows = np.repeat(np.arange(count), 4)
            part = sparse.coo_matrix((weight.reshape(-1), (rows, index.reshape(-1))), (count, count))
            total = total + fit_share * fill_share * part.tocsr()
    return total


def _stop(states: Wear) -> _Stop:
    spalled = -np.expm1(-states.spall_mm / maintenance.SEEN_MM)
    dry = states.lubricant < maintenance.TOPPED_UP_BELOW
    odds = np.stack([(1 - spalled) * ~dry, spalled, (1 - spalled) * dry])
    follows = tuple(_after_repair(states, found) for found in range(3))
    u = (np.arange(5) + 0.5) / 5
    wait = np.stack([maintenance.arrival(h * HOURS, u, HOURS) for h in range(STEPS_PER_DAY)])
    return _Stop(odds, follows, wait)


@cache
def values() -> Values:
    """The table; computed once a process (about a second)."""
    states = grid()
    modes = (weather.PRODUCTION, weather.IDLE, weather.WASHDOWN)
    models = {(mode, speed): _model(speed, mode) for mode in modes for speed in SPEEDS}
    stop = _stop(states)
    quiet = np.array([not 5 <= h * HOURS < 23 for h in range(STEPS_PER_DAY)])
    shares = _SHARES[quiet.astype(int)]
    margin = PRICES.production_h * HOURS * shares[:, 0]  # EUR a step without production costs, by hour
    v = np.zeros((STEPS_PER_DAY, states.spall_mm.size))
    q = np.zeros((STEPS_PER_DAY, len(modes), len(ACTIONS), states.spall_mm.size))
    for _ in range(_DAYS):
        for h in reversed(range(STEPS_PER_DAY)):
            q[h, :, 2] = _q_stop(stop, v, h, margin)
            after_break = _q_broken(stop, v, h + 1, margin)
            for mode in modes:
                for a, speed in enumerate(SPEEDS):
                    m = models[mode, speed]
                    lost = PRICES.production_h * HOURS * (1 - speed) * (mode == weather.PRODUCTION)
                    fails = m.broke * (PRICES.breakdown[1] + after_break)
                    fails = fails + m.seized * (PRICES.breakdown[2] + after_break)
                    lives = (1 - m.broke - m.seized) * (m.to @ v[(h + 1) % STEPS_PER_DAY])
                    q[h, mode, a] = lost + fails + lives
            v[h] = np.tensordot(shares[h], q[h].min(axis=1), axes=1)
        v -= v[0, -2]
    return Values(q)


def _ahead(v: Array, margin: Array, h: int, steps: int) -> tuple[Array, float]:
    """Value after some steps without production, and what they cost."""
    lost = float(sum(margin[(h + i) % STEPS_PER_DAY] for i in range(steps)))
    return v[(h + steps) % STEPS_PER_DAY], lost


def _q_stop(stop: _Stop, v: Array, h: int, margin: Array) -> Array:
    total = np.zeros(v.shape[1])
    waits, counts = np.unique(stop.wait[h], return_counts=True)
    for wait, count in zip(waits, counts, strict=True):
        for found in range(3):
            steps = int(wait) + int(maintenance.service_steps(np.array(found), HOURS))
            later, lost = _ahead(v, margin, h, steps)
            cost = PRICES.service[found] + lost + stop.follows[found] @ later
            total += count / stop.wait.shape[1] * stop.odds[found] * cost
    return total


def _q_broken(stop: _Stop, v: Array, h: int, margin: Array) -> Array:
    steps = round((maintenance.REPAIR_H[0] + maintenance.REPAIR_H[1]) / 2 / HOURS)
    later, lost = _ahead(v, margin, h % STEPS_PER_DAY, steps)
    return np.asarray(lost + stop.follows[maintenance.BEARING] @ later)
