"""The demo: the whole circle on one machine, with a simulated fleet.

Decision file -> signed bundle -> devices decide through an outage, a kill and a swap -> journals -> collector
-> lake -> outcomes, labels and money. What happens afterwards, on the desk, is in ``loop.aftermath``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from multiprocessing import get_context
from pathlib import Path
from time import monotonic

from aiotkit.bundle.trust import Trust
from aiotkit.core.decision import Decision
from aiotkit.core.errors import AiotkitError, DataError
from aiotkit.lake.assets import Assets, Assignment
from aiotkit.lake.lake import Lake
from aiotkit.loop.arms import ArmsResult, run_arms, subject_name
from aiotkit.loop.crew import Crew
from aiotkit.loop.link import Link
from aiotkit.loop.look import bearing_decision
from aiotkit.loop.plant import Plant, closing, drive
from aiotkit.loop.setting import Keys, Place, commission, prepare
from aiotkit.loop.story import CollectorProcess, Deliveries, Schedule, cut_uplink, restore_uplink
from aiotkit.loop.twin import Twin
from aiotkit.release.bundle import build_bundle

#: what the demo's drives may be told, set at commissioning: without commands a pump runs on
ENVELOPE = {
    "actuators": {"drive": {"speed": {"min": 0.0, "max": 1.0}}},
    "rest": {"drive": {"speed": 1.0}},
    "safe": {"drive": {"speed": 0.0}},
    "deadman_s": 7200.0,
}
#: the decision file's copy in the work folder
DECISION = "decision.yaml"
#: told what is going on and which share of it is done
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What ``aiotkit demo`` is asked for. ``fleet``: machines; ``days``: simulated."""

    seed: int = 7
    fleet: int = 12
    days: int = 14
    workdir: Path = Path("demo-run")

    def __post_init__(self) -> None:
        if self.fleet < 3 or self.days < 4:
            raise DataError(
                "demo",
                expected="a fleet of at least 3 and at least 4 days",
                found=f"{self.fleet}, {self.days}",
            )


@dataclass
class FieldRun:
    """What the field run left: the twin, where things lie, and an outsider's notes.

    ``credited``: (device, instant) of every packet a device said it had handled.
    """

    options: Options
    place: Place
    keys: Keys
    decision: Decision
    bundle: Path
    twin: Twin
    deliveries: Deliveries
    schedule: Schedule
    credited: set[tuple[str, int]] = field(default_factory=set)
    missed: int = 0
    asked: int = 0
    inspections: int = 0
    arms: Future[ArmsResult] | None = None


def device_name(number: int) -> str:
    """Devices are numbered from 1; the last one is the spare."""
    return f"edge-{number:02d}"


def release(place: Place, keys: Keys, decision: Decision, counter: int = 1) -> Path:
    """Build, sign with both release keys, and write the archive."""
    unsigned = build_bundle(decision, release_counter=counter)
    path = place.bundles / f"{decision.id}-{counter}.aiot"
    path.write_bytes(unsigned.archive(keys.release))
    return path


def install(states: Iterable[Path], bundle: Path, progress: Progress | None = None) -> None:
    """``aiotkit-edge install`` on each device, two at a time.

    Raises:
        AiotkitError: with what the command said.
    """
    waiting = list(states)
    count = len(waiting)
    while waiting:
        if progress is not None:
            progress(f"commissioning: golden cases ran on {count - len(waiting)} of {count} devices", 0.0)
        group, waiting = waiting[:2], waiting[2:]
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "aiotkit.edge.command", "install", "--state", str(state), str(bundle)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for state in group
        ]
        for state, process in zip(group, started, strict=True):
            said, _ = process.communicate(timeout=120)
            if process.returncode != 0:
                raise AiotkitError(f"device {state.name}: the bundle was not installed", found=said.decode())


@contextmanager
def arms_in_background(options: Options) -> Iterator[Future[ArmsResult]]:
    """The other policies, in a process of their own, under the same random numbers."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool.submit(run_arms, options.seed, options.fleet, options.days)


def run_field(options: Options, progress: Progress) -> FieldRun:
    """Everything up to the lake: commission, release, install, run, collect."""
    progress("keys, trust and lake", 0.0)
    place, keys = prepare(options.workdir)
    decision = bearing_decision()
    source = resources.files("aiotkit.loop") / "decisions/bearing.yaml"
    (place.root / DECISION).write_bytes(source.read_bytes())
    lake = Lake.create(place.lake)
    twin = Twin(options.seed, options.fleet, options.days)
    run = FieldRun(
        options, place, keys, decision, place.bundles, twin, Deliveries(place), Schedule(twin.steps)
    )
    progress("bundle: feature graph, golden cases, signatures", 0.0)
    run.bundle = release(place, keys, decision)
    trust = keys.trust()
    names = [device_name(i + 1) for i in range(options.fleet + 1)]
    states = [commission(place, trust, decision, name, envelope=ENVELOPE) for name in names]
    install(states, run.bundle, progress)
    assets = Assets(lake)
    for machine in range(options.fleet):
        assign(assets, run, device_name(machine + 1), machine, twin.start_us)
    _Story(run, assets, trust, progress).tell()
    return run


def assign(assets: Assets, run: FieldRun, device: str, machine: int, from_us: int) -> None:
    """Enter which machine a device watches from now on."""
    assets.assign(
        Assignment(
            device=device, subject=subject_name(machine), from_us=from_us, site=run.decision.site.name
        ),
        recorded_us=from_us,
    )


class _Story:
    """The field run with everything that goes wrong in it."""

    def __init__(self, run: FieldRun, assets: Assets, trust: Trust, progress: Progress) -> None:
        self._run, self._assets, self._trust, self._progress = run, assets, trust, progress
        self._collector = CollectorProcess(run.place, run.place.root / "keys" / "collector.pem")
        crew = Crew(run.twin, run.decision, run.keys.operator)
        self._plant = Plant(run.twin, crew, {})
        self._victim, self._replaced, self._robbed = 1, run.options.fleet - 1, 0
        self._began = monotonic()

    def tell(self) -> None:
        """From the first packet to the last delivery."""
        run = self._run
        self._collector.start()
        try:
            with closing(self._plant) as plant:
                for machine in range(run.options.fleet):
                    plant.start(machine, self._link(device_name(machine + 1), machine))
                plant.run(self._before, self._after)
                self._progress("devices deliver the rest and leave", 1.0)
                plant.finish()
                run.missed, run.asked = plant.missed, plant.crew.asked
                run.inspections = plant.crew.inspections
        finally:
            self._collector.stop()
        self._collector.take_the_rest()
        run.deliveries.look(run.twin.time_us(run.twin.steps))

    def _link(self, device: str, machine: int) -> Link:
        return Link(device, self._run.place.device(device), drive(self._run.twin, machine))

    def _before(self, step: int) -> None:
        schedule, plant = self._run.schedule, self._plant
        if step == schedule.outage[0]:
            self._collector.kill()
            cut_uplink(self._run.place)
        if step == schedule.kill:
            plant.doomed.add(self._victim)
        if step == schedule.restart:
            plant.links[self._victim].start_agent(plant.selector)
        if step == schedule.outage[1]:
            restore_uplink(self._run.place)
            self._collector.start()
        if step == schedule.replace:
            self._swap(self._replaced, device_name(self._run.options.fleet + 1))
        if step == schedule.move:
            freed = device_name(self._replaced + 1)
            state = commission(self._run.place, self._trust, self._run.decision, freed, envelope=ENVELOPE)
            install([state], self._run.bundle)
            self._swap(self._robbed, freed)

    def _swap(self, machine: int, device: str) -> None:
        """Another computer takes over a machine; the registry says so."""
        now_us = self._run.twin.time_us(self._run.twin.step)
        old = self._plant.take_off(machine)
        self._assets.retire(old.name, now_us, recorded_us=now_us)
        assign(self._assets, self._run, device, machine, now_us)
        self._plant.start(machine, self._link(device, machine))

    def _after(self, step: int) -> None:
        run = self._run
        at_us = run.twin.time_us(step - 1)
        run.credited |= {(x.name, at_us) for x in self._plant.links.values() if x.durable_us == at_us}
        run.deliveries.look(run.twin.time_us(step))
        decided = len(run.credited)
        rate = decided / (monotonic() - self._began)
        self._progress(
            f"{len(self._plant.links)} devices decide: {decided} decisions, {rate:.0f}/s",
            step / run.twin.steps,
        )
