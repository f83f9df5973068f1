"""The crew: when it comes, how long it takes, what it finds, how well it repairs, what it writes down.

Repairs are imperfect (Pham & Wang, "Imperfect maintenance", EJOR 94 (1996) 425): a few bearings are
damaged while they are fitted, a few leaks stay. Work orders come late, some never.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiotkit.loop import wear as w
from aiotkit.loop.wear import Array, Duty, Wear

STATES = ("healthy", "bearing", "lubrication")
HEALTHY, BEARING, LUBRICATION = range(3)
HORIZON_H = 24.0
#: the crew is on site between these local hours; an emergency crew comes at any time
CREW_FROM, CREW_TO = 6.0, 22.0
#: hours from a stop until the crew is there, within its hours
RESPONSE_H = (0.5, 2.5)
#: hours at the machine: nothing found, bearing, lubricant
SERVICE_H = np.array([1.0, 4.0, 2.0])
#: hours from breakdown to running again: between
REPAIR_H = (14.0, 22.0)
#: a bearing that is fitted badly; a leak that stays
BAD_FIT, LEAK_STAYS = 0.06, 0.05
#: spall size that a technician finds in about two of three cases (mm); lubricant he tops up below
SEEN_MM, TOPPED_UP_BELOW = 0.8, 0.6
#: a work order that is never written; one that names the wrong cause
ORDER_MISSED, ORDER_WRONG = 0.12, 0.05
#: hours until a work order is written, until an inspector has looked, and how often he is right
ORDER_LATE_H, INSPECTION_H, INSPECTOR_RIGHT = (1.0, 20.0), 2.0, 0.9
#: random numbers one step of crew and of reports takes
CREW_DRAWS, REPORT_DRAWS = 6, 4
#: the duty an inspector assumes when he judges how long it will last: rated
RATED = Duty(np.array(0.96), np.array(0.88))


@dataclass(frozen=True, slots=True)
class Report:
    """What people write down: the only thing about a machine's condition that leaves the twin.

    ``source`` is ``work_order`` or ``inspection``; ``at_us`` is when the state was seen, ``known_us``
    when the report exists. ``state`` is one of ``STATES``.
    """

    id: str
    subject: int
    source: str
    state: str
    at_us: int
    known_us: int


def arrival(hour: float, u: Array, hours: float) -> NDArray[np.int64]:
    """Steps from a stop at local ``hour`` until the crew is there, for uniform numbers ``u``."""
    wait = RESPONSE_H[0] + (RESPONSE_H[1] - RESPONSE_H[0]) * u
    at = hour + wait
    late = (at % 24 < CREW_FROM) | (at % 24 >= CREW_TO)
    until_open = (CREW_FROM - at) % 24
    total = np.ceil((wait + np.where(late, until_open, 0.0)) / hours)
    return np.asarray(np.maximum(total, 1), dtype=np.int64)


def found_by_crew(hidden: Wear, u: Array) -> NDArray[np.int64]:
    """What the crew finds on an open machine (index of ``STATES``): the worse of two, or nothing."""
    spalled = u < -np.expm1(-hidden.spall_mm / SEEN_MM)
    dry = hidden.lubricant < TOPPED_UP_BELOW
    return np.where(spalled, BEARING, np.where(dry, LUBRICATION, HEALTHY))


def repaired(hidden: Wear, found: NDArray[np.int64], u: Array) -> Wear:
    """The condition after service; new lubricant goes with every repair. ``u`` is ``[..., 2]``."""
    renewed = found == BEARING
    spall = np.where(renewed, np.where(u[..., 0] < BAD_FIT, w.SPALL_START_MM, 0.0), hidden.spall_mm)
    filled = found != HEALTHY
    lubricant = np.where(filled, 0.85 + 0.15 * u[..., 1], hidden.lubricant)
    starving = hidden.starving & ~(filled & (u[..., 1] >= LEAK_STAYS))
    return Wear(spall, hidden.inner, lubricant, starving, hidden.oil_c)


def condition(hidden: Wear) -> NDArray[np.int64]:
    """The state of the decision file: what would end the machine within the horizon if it ran on."""
    spall_h, film_h = w.hours_left(hidden, RATED)
    sooner = np.where(spall_h <= film_h, BEARING, LUBRICATION)
    return np.where(np.minimum(spall_h, film_h) < HORIZON_H, sooner, HEALTHY)


def mistaken(state: NDArray[np.int64], u: Array, odds: float) -> NDArray[np.int64]:
    """A report's state: the true one, or with ``odds`` another one. ``u`` is ``[..., 2]``."""
    other = (state + 1 + (u[..., 1] < 0.5)) % len(STATES)
    return np.where(u[..., 0] < odds, other, state).astype(np.int64)


def repair_steps(u: Array, hours: float) -> NDArray[np.int64]:
    """Steps from a breakdown until the machine can run again."""
    return np.ceil((REPAIR_H[0] + (REPAIR_H[1] - REPAIR_H[0]) * u) / hours).astype(np.int64)


def service_steps(found: NDArray[np.int64], hours: float) -> NDArray[np.int64]:
    """Steps the crew needs for what it found."""
    return np.ceil(SERVICE_H[found] / hours).astype(np.int64)
