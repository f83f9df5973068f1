"""The physical twin: motor-pump units whose wear nobody sees and whose future depends on what is done.

One step is half an hour: look (``observe``), order speeds, let time pass (``advance``). Several *arms* of
the same fleet run side by side under the same exogenous randomness and may be treated differently. What
devices may see is ``Observation`` and ``Packet``; what the desk may see is ``Report`` and the ledger. The
condition itself lives in ``_hidden`` and nobody else reads it (a test proves it), but the costing of the
decision file (``loop.episodes``), which starts many worlds from known conditions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.decision import Site
from aiotkit.core.errors import DataError
from aiotkit.edge.sources import Packet, Samples
from aiotkit.loop import bearing, ledger, maintenance, wear, weather
from aiotkit.loop.chance import Purpose, normals, uniforms
from aiotkit.loop.faults import Faults, spoil
from aiotkit.loop.maintenance import Report
from aiotkit.loop.wear import Array, Duty, Flags, Wear

STEP_S = 1800
HOURS = STEP_S / 3600
STEPS_PER_DAY = 86400 // STEP_S
START_US = 1_772_409_600_000_000  # 2026-03-02T00:00Z, a Monday
SITE = Site(name="twin", time_zone="UTC")
VIBRATION = ("vib_x", "vib_y", "vib_z")
OIL_REPORTS_BY_K, OIL_NOISE_K, OIL_AT_LEAST_EVERY_S = 0.3, 0.2, 3600
RUNNING, WAITING, SERVICED, BROKEN, RELEASED = range(5)


def subject_name(machine: int) -> str:
    """The name of a machine.

    >>> subject_name(0)
    'pump-01'
    """
    return f"pump-{machine + 1:02d}"


@dataclass(frozen=True, slots=True)
class Reported:
    """The last value of a signal that is sent on change: ``value`` and its age (s), ``[arms, machines]``."""

    value: Array
    age_s: Array


@dataclass(frozen=True)
class Observation:
    """What a device at each machine of each arm gets to see at one instant.

    Vibration windows are kept once per distinct machine condition: ``rows`` is float32
    ``[distinct, axes, samples]`` and ``index`` ``[arms, machines]`` says which row is whose.
    """

    step: int
    at_us: int
    rows: NDArray[np.float32]
    index: NDArray[np.int64]
    oil: Reported
    context: Mapping[str, NDArray[np.float64] | NDArray[np.str_]]
    released: Flags

    @cached_property
    def windows(self) -> dict[str, NDArray[np.float32]]:
        """Every signal's window, ``[arms, machines, samples]``, as a device would assemble it."""
        whole = self.rows[self.index]
        axes = {name: whole[:, :, i] for i, name in enumerate(VIBRATION)}
        return axes | {"oil_temp": self.oil.value[..., np.newaxis].astype(np.float32)}


@dataclass
class _Hidden:
    """What nobody sees. ``phase``, ``until`` and ``found`` are the crew's, by step.

    ``risk`` is the EUR of breakdowns that was to be expected so far: what came minus that has mean zero in
    every arm, so it takes the luck out of comparisons of few machines (a control variate).
    """

    wear: Wear
    phase: NDArray[np.int64]
    until: NDArray[np.int64]
    found: NDArray[np.int64]
    risk: Array


@dataclass(frozen=True, slots=True)
class _Visit:
    """An inspection that was asked for."""

    arm: int
    machine: int
    due: int
    category: int


class Twin:
    """A fleet of motor-pump units in several arms.

    Args:
        seed: every random number follows from it.
        machines: how many units.
        days: how long the run may be.
        arms: how many copies of the fleet, under the same randomness.
        start_us: the first instant (µs UTC, on a whole half hour).
        site: gives local time.
        regime: a change of the load, if there is one.
    """

    def __init__(
        self,
        seed: int,
        machines: int = 12,
        days: int = 14,
        *,
        arms: int = 1,
        start_us: int = START_US,
        site: Site = SITE,
        regime: weather.Regime | None = None,
    ) -> None:
        if min(machines, days, arms) < 1:
            raise DataError(
                "twin", expected="machines, days and arms of at least 1", found=f"{machines}, {days}, {arms}"
            )
        self.seed, self.machines, self.days, self.arms = seed, machines, days, arms
        self.start_us, self.steps, self.step = start_us, days * STEPS_PER_DAY, 0
        times = start_us + np.arange(self.steps, dtype=np.int64) * STEP_S * 1_000_000
        self._demand = weather.demand(seed, machines, times, site, regime)
        self._faults = Faults.draw(seed, machines, self.steps, HOURS)
        self._build = bearing.Build.draw(seed, machines)
        self._wear_u = uniforms(seed, Purpose.WEAR, machines, self.steps, wear.DRAWS)
        self._crew_u = uniforms(seed, Purpose.CREW, machines, self.steps, maintenance.CREW_DRAWS)
        self._report_u = uniforms(seed, Purpose.REPORTS, machines, self.steps, maintenance.REPORT_DRAWS)
        self._inspect_u = uniforms(seed, Purpose.INSPECTION, machines, self.steps, 2)
        self._oil_u = uniforms(seed, Purpose.OIL, machines, self.steps, 1)[..., 0]
        self._oil_z = normals(seed, Purpose.OIL, machines, self.steps, 1)[..., 0]
        self.ledger = ledger.Ledger(arms, machines, days)
        self._reports: list[tuple[int, Report]] = []
        self._visits: list[_Visit] = []
        self._begin()

    def _begin(self) -> None:
        shape = (self.arms, self.machines)
        first = wear.fresh(shape, float(self._demand.ambient_c[0]) + 15)
        age = np.array([self._crew_u[0, m, 5] for m in range(self.machines)])
        first = Wear(
            first.spall_mm, first.inner, 1 - 0.5 * np.broadcast_to(age, shape), first.starving, first.oil_c
        )
        zero = np.zeros(shape, dtype=np.int64)
        self._hidden = _Hidden(first, zero, zero.copy(), zero.copy(), np.zeros(shape))
        self._speed = np.ones(shape)
        self._oil_value = np.full(shape, np.nan)
        self._oil_at = np.full(shape, -1, dtype=np.int64)
        self._report_oil()

    def time_us(self, step: int) -> int:
        """The instant of a step (µs UTC)."""
        return self.start_us + step * STEP_S * 1_000_000

    @property
    def done(self) -> bool:
        """Whether the run is over."""
        return self.step >= self.steps

    @property
    def released(self) -> Flags:
        """Machines handed back by the crew that wait for the order to run, ``[arms, machines]``."""
        return np.asarray(self._hidden.phase == RELEASED)

    @property
    def speed(self) -> Array:
        """The speed in force, share of what the process asks for, ``[arms, machines]``."""
        return self._speed.copy()

    def set_speed(self, machine: int, fraction: float, arm: int = 0) -> None:
        """Order a speed (0 = stop and call the crew) at one machine, as its actuator does."""
        if not 0 <= fraction <= 1:
            raise DataError(f"speed of machine {machine}", expected="a share in [0, 1]", found=str(fraction))
        self._speed[arm, machine] = fraction

    def observe(self) -> Observation:
        """What the devices see now; looking changes nothing and may be repeated."""
        k = min(self.step, self.steps - 1)
        strength = self._strength(k)
        rows, index = self._windows(k, strength)
        return Observation(
            k,
            self.time_us(k),
            rows,
            index,
            Reported(self._oil_value.copy(), (self.time_us(k) - self._oil_at) / 1e6),
            self._context(k),
            self.released,
        )

    def _turning(self) -> Flags:
        return np.asarray((self._hidden.phase == RUNNING) & (self._speed > 0))

    def _duty(self, k: int) -> Duty:
        speed = np.where(self._turning(), self._speed, 0.0) * self._demand.speed[k]
        return Duty(speed, wear.bearing_load(speed, self._demand.load[k]))

    def _strength(self, k: int) -> Array:
        nuisance = bearing.Nuisance(self._demand.fouling[k], self._demand.cavitation[k])
        load = np.broadcast_to(self._demand.load[k], self._speed.shape)
        return bearing.amplitudes(self._hidden.wear, self._duty(k), load, self._build, nuisance)

    def _windows(self, k: int, strength: Array) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rows: list[NDArray[np.float32]] = []
        index = np.empty((self.arms, self.machines), dtype=np.int64)
        speed = self._duty(k).speed
        count = 0
        for m in range(self.machines):
            hiss = bearing.noise(self.seed, m, k)
            for n in np.unique(speed[:, m]):
                mine = np.flatnonzero(speed[:, m] == n)
                distinct, inverse = np.unique(strength[mine, m], axis=0, return_inverse=True)
                rpm = float(n) * bearing.RATED_RPM
                parts = bearing.components(self.seed, m, k, rpm, hiss)
                made = (distinct.astype(np.float32) @ parts).reshape(-1, bearing.AXES, bearing.SAMPLES)
                spoil(made, self._faults.axes[k, m], (self.seed, m, k))
                rows.append(made)
                index[mine, m] = count + inverse.reshape(-1)
                count += len(made)
        return np.concatenate(rows), index

    def _context(self, k: int) -> dict[str, NDArray[np.float64] | NDArray[np.str_]]:
        turning, silent = self._turning(), self._faults.feed_silent[k]
        duty = self._duty(k)
        mode = np.where(turning, self._demand.mode[k], weather.DOWN)
        rpm = np.round(duty.speed * bearing.RATED_RPM, 1)
        load = np.round(np.where(turning, 100 * self._demand.load[k] * self._speed**2, 0.0), 1)
        ambient = round(float(self._demand.ambient_c[k - k % 2]), 1)  # the weather service reports hourly
        return {
            "load": np.where(silent, np.nan, load),
            "speed": np.where(silent, np.nan, rpm),
            "mode": np.where(silent, "", np.array(weather.MODES)[mode]),
            "ambient": np.full(mode.shape, ambient),
        }

    def packet(self, machine: int, arm: int = 0, seen: Observation | None = None) -> Packet:
        """What the sources of one machine deliver at this step; ``seen`` avoids a second look."""
        seen = seen or self.observe()
        window = seen.rows[seen.index[arm, machine]]
        first = seen.at_us - round(bearing.SAMPLES / bearing.RATE_HZ * 1e6)
        samples = {n: Samples(first, bearing.RATE_HZ, window[i]) for i, n in enumerate(VIBRATION)}
        oil_at = int(self._oil_at[arm, machine])
        fresh = seen.at_us - STEP_S * 1_000_000 < oil_at <= seen.at_us
        points = (("oil_temp", oil_at, float(seen.oil.value[arm, machine])),) if fresh else ()
        context: list[tuple[str, int, float | str]] = []
        for name, values in seen.context.items():
            value = values[arm, machine]
            heard = value != "" if name == "mode" else bool(np.isfinite(float(value)))
            if heard:
                age_s = (seen.step % 2) * STEP_S if name == "ambient" else 1
                word = str(value) if name == "mode" else float(value)
                context.append((name, seen.at_us - age_s * 1_000_000, word))
        return Packet(seen.at_us, samples, points, tuple(context))

    def advance(self, speed: Array | float | None = None) -> None:
        """Let one step pass.

        Args:
            speed: the share of the asked speed that is ordered, ``[arms, machines]`` or what broadcasts
                to it; without it what ``set_speed`` ordered stays in force. 0 stops and calls the crew;
                a stopped machine stays locked until the crew hands it back and a speed > 0 is ordered.
        """
        if self.done:
            raise DataError(
                "twin", expected=f"at most {self.steps} steps", found="one more", do="Give more days."
            )
        if speed is not None:
            ordered = np.broadcast_to(np.asarray(speed, dtype=float), self._speed.shape)
            if not bool(np.all((ordered >= 0) & (ordered <= 1))):
                raise DataError("twin: speed", expected="shares in [0, 1]", found="others")
            self._speed = ordered.copy()
        k, hidden = self.step, self._hidden
        self._hand_over(k)
        duty, turning = self._duty(k), self._turning()
        delivered = np.where(turning, self._speed, 0.0)
        produces = np.broadcast_to(self._demand.mode[k] == weather.PRODUCTION, turning.shape)
        self._book(k, ledger.PRODUCTION, ledger.lost_production(delivered, produces, HOURS))
        ambient = np.asarray(self._demand.ambient_c[k])
        breaks, seizes = wear.odds(hidden.wear, duty, HOURS)
        _, bearing_eur, film_eur = ledger.PRICES.breakdown
        hidden.risk = hidden.risk + breaks * bearing_eur + (1 - breaks) * seizes * film_eur
        hidden.wear, broke, seized = wear.advance(hidden.wear, duty, ambient, self._wear_u[k], HOURS)
        self._break_down(k, broke, seized)
        self.step += 1
        self._finish_work()
        self._inspect()
        self._report_oil()

    def _book(self, k: int, category: int, amount: Array) -> None:
        self.ledger.book(k // STEPS_PER_DAY, category, amount)

    def _hand_over(self, k: int) -> None:
        """A stop calls the crew; an order to run starts a machine that was handed back."""
        hidden = self._hidden
        stops = (hidden.phase == RUNNING) & (self._speed == 0)
        wait = maintenance.arrival(float(self._demand.hour[k]), self._crew_u[k, :, 0], HOURS)
        hidden.until = np.where(stops, k + wait, hidden.until)
        hidden.phase = np.where(stops, WAITING, hidden.phase)
        hidden.phase = np.where((hidden.phase == RELEASED) & (self._speed > 0), RUNNING, hidden.phase)

    def _break_down(self, k: int, broke: Flags, seized: Flags) -> None:
        hidden, u = self._hidden, self._crew_u[k]
        down = broke | seized
        if not down.any():
            return
        cause = np.where(broke, maintenance.BEARING, maintenance.LUBRICATION)
        price = np.array(ledger.PRICES.breakdown)[cause]
        self._book(k, ledger.BREAKDOWN, np.where(down, price, 0.0))
        hidden.phase = np.where(down, BROKEN, hidden.phase)
        hidden.until = np.where(down, k + 1 + maintenance.repair_steps(u[:, 1], HOURS), hidden.until)
        hidden.found = np.where(down, cause, hidden.found)
        self._write_orders(k, down, cause)

    def _finish_work(self) -> None:
        """The crew arrives and looks, or is done and hands the machine back."""
        k, hidden = self.step, self._hidden
        u = self._crew_u[min(k, self.steps - 1)]
        ready = hidden.until <= k
        finished = ready & ((hidden.phase == SERVICED) | (hidden.phase == BROKEN))
        done = np.where(hidden.phase == BROKEN, maintenance.BEARING, hidden.found)
        fixed = maintenance.repaired(hidden.wear, done, u[:, 2:4])
        hidden.wear = wear.where(finished, fixed, hidden.wear)
        arrives = ready & (hidden.phase == WAITING)
        found = maintenance.found_by_crew(hidden.wear, u[:, 4])
        hidden.found = np.where(arrives, found, hidden.found)
        hidden.until = np.where(arrives, k + maintenance.service_steps(found, HOURS), hidden.until)
        hidden.phase = np.where(arrives, SERVICED, np.where(finished, RELEASED, hidden.phase))
        if arrives.any():
            self._book(k, ledger.SERVICE, np.where(arrives, np.array(ledger.PRICES.service)[found], 0.0))
            self._write_orders(k, arrives, found)

    def _write_orders(self, k: int, events: Flags, state: NDArray[np.int64]) -> None:
        u = self._report_u[min(k, self.steps - 1)]
        said = maintenance.mistaken(state, u[:, 1:3], maintenance.ORDER_WRONG)
        low, high = maintenance.ORDER_LATE_H
        for arm, m in np.argwhere(events):
            if u[m, 0] < maintenance.ORDER_MISSED:
                continue
            late_us = round((low + (high - low) * u[m, 3]) * 3.6e9)
            self._file(int(arm), int(m), "work_order", int(said[arm, m]), k, late_us)

    def _file(self, arm: int, m: int, source: str, state: int, k: int, late_us: int) -> None:
        at = self.time_us(k)
        name = f"{'wo' if source == 'work_order' else 'in'}-{m}-{k}"
        self._reports.append((arm, Report(name, m, source, maintenance.STATES[state], at, at + late_us)))

    def request_inspection(self, machine: int, arm: int = 0, *, verify: bool = False) -> None:
        """Send an inspector; he looks ``INSPECTION_H`` hours later while the machine runs on.

        ``verify`` books his cost as the price of honest labels, not of this decision.
        """
        due = self.step + round(maintenance.INSPECTION_H / HOURS)
        category = ledger.VERIFICATION if verify else ledger.INSPECTION
        self._visits.append(_Visit(arm, machine, due, category))

    def _inspect(self) -> None:
        k = self.step
        due = [v for v in self._visits if v.due <= k]
        if not due:
            return
        self._visits = [v for v in self._visits if v.due > k]
        state = maintenance.condition(self._hidden.wear)
        u = self._inspect_u[min(k, self.steps - 1)]
        said = maintenance.mistaken(state, u, 1 - maintenance.INSPECTOR_RIGHT)
        for v in due:
            cost = np.zeros(self._speed.shape)
            cost[v.arm, v.machine] = ledger.PRICES.inspection
            self._book(k, v.category, cost)
            self._file(v.arm, v.machine, "inspection", int(said[v.arm, v.machine]), k, 0)

    def reports_until(self, at_us: int, arm: int = 0) -> Sequence[Report]:
        """Every report that exists at an instant, in the order in which they became known."""
        known = [r for a, r in self._reports if a == arm and r.known_us <= at_us]
        return sorted(known, key=lambda r: (r.known_us, r.id))

    def _report_oil(self) -> None:
        """The oil probe sends when its value moved, and at least once an hour."""
        k = min(self.step, self.steps - 1)
        value = np.round(self._hidden.wear.oil_c + OIL_NOISE_K * self._oil_z[k] + self._faults.oil_bias[k], 1)
        at = self.time_us(k) - (self._oil_u[k] * 600e6).astype(np.int64)
        old = (self.time_us(k) - self._oil_at) / 1e6 >= OIL_AT_LEAST_EVERY_S
        moved = ~(np.abs(value - self._oil_value) < OIL_REPORTS_BY_K)
        sends = (old | moved) & ~self._faults.oil_silent[k]
        self._oil_value = np.where(sends, value, self._oil_value)
        self._oil_at = np.where(sends, at, self._oil_at)
