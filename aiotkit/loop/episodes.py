"""What an episode costs in the twin, by action and state: where the decision file's costs come from.

Many machines are caught in the middle of a run, with the condition that runs to breakdown lead to, and each
lives the same 24 hours three times: run on, throttled, stopped. *State* is what the run brings: the cause
of its breakdown, else the condition an expert would have noted at the start. An episode ends with a machine
that runs on: what needs service at the horizon is stopped and serviced then, and that is charged too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aiotkit.loop import maintenance
from aiotkit.loop.maintenance import HORIZON_H, STATES
from aiotkit.loop.twin import BROKEN, HOURS, RUNNING, START_US, STEP_S, STEPS_PER_DAY, Twin
from aiotkit.loop.wear import Array, Wear

ACTIONS = {"run": 1.0, "throttle": 0.6, "stop": 0.0}
_TAIL_DAYS = 3


def episode_costs(seed: int, machines: int = 40, days: int = 14) -> dict[str, dict[str, tuple[float, int]]]:
    """Mean EUR of an episode and how many were seen: {action: {state: (mean, episodes)}}.

    Args:
        seed: of the runs.
        machines: how many run to breakdown side by side.
        days: how long they run; every 20 hours each running one is caught.
    """
    found: list[tuple[NDArray[np.int64], Array]] = []
    world = Twin(seed, machines, days)
    while not world.done:
        if world.step and world.step % 40 == 0:
            running = world._hidden.phase[0] == RUNNING
            state, money = _branch(world, seed * 1009 + world.step)
            found.append((state[running], money[:, running]))
        world.advance(1.0)
    state = np.concatenate([s for s, _ in found])
    money = np.concatenate([m for _, m in found], axis=1)
    return {
        action: {
            name: (float(money[a, state == s].mean()), int((state == s).sum()))
            for s, name in enumerate(STATES)
        }
        for a, action in enumerate(ACTIONS)
    }


def _branch(world: Twin, seed: int) -> tuple[NDArray[np.int64], Array]:
    """Live the next 24 hours three times; returns states [machines] and money [actions, machines]."""
    start_us = START_US + (world.step % STEPS_PER_DAY) * STEP_S * 1_000_000
    lives = Twin(seed, world.machines, 1 + _TAIL_DAYS, arms=len(ACTIONS), start_us=start_us)
    now = {n: np.repeat(getattr(world._hidden.wear, n), len(ACTIONS), axis=0) for n in Wear.__slots__}
    lives._hidden.wear = Wear(**now)
    first = maintenance.condition(lives._hidden.wear)[0]
    order = np.repeat(np.array(list(ACTIONS.values()))[:, np.newaxis], world.machines, axis=1)
    broke = np.zeros(world.machines, dtype=np.int64)
    for _ in range(round(HORIZON_H / HOURS)):
        lives.advance(order)
        order = np.where(lives.released, 1.0, order)
        down = (lives._hidden.phase[0] == BROKEN) & (broke == 0)
        broke = np.where(down, lives._hidden.found[0], broke)
    return np.where(broke > 0, broke, first), _settled(lives, order)


def _settled(lives: Twin, order: Array) -> Array:
    """What the episode cost, once what was begun in it, or must follow at its end, is done."""
    spent = lives.ledger.money().sum(axis=-1)
    running = lives._hidden.phase == RUNNING
    due = running & (maintenance.condition(lives._hidden.wear) > 0)
    still_open = due | ~(running | lives.released)
    while not lives.done and still_open.any():
        lives.advance(np.where(due, 0.0, order))
        spent = np.where(still_open, lives.ledger.money().sum(axis=-1), spent)
        still_open &= ~lives.released
    return np.asarray(spent)
