"""The demo's first half: the whole circle on one machine, with a simulated fleet, over several rounds.

Decision file -> signed bundle -> devices decide through an outage, a kill and a swap -> journals -> collector
-> lake -> outcomes and labels -> a candidate -> gates -> approval -> the devices run it. What happens in the
field is in ``loop.field``, what people do about it in ``loop.promotion``, the reckoning in ``loop.circle``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from aiotkit.core.decision import Decision
from aiotkit.core.errors import AiotkitError, DataError
from aiotkit.lake.assets import Assets, Assignment
from aiotkit.lake.lake import Lake
from aiotkit.loop.aftermath import Outcomes
from aiotkit.loop.look import bearing_decision
from aiotkit.loop.mishaps import Mishap
from aiotkit.loop.promotion import DECISION, Desk
from aiotkit.loop.rounds import Plan
from aiotkit.loop.setting import Keys, Place, commission, prepare
from aiotkit.loop.story import Deliveries, Schedule
from aiotkit.loop.twin import STEPS_PER_DAY, Twin, subject_name
from aiotkit.release.bundle import build_bundle

#: what the demo's drives may be told, set at commissioning: without commands a pump runs on
ENVELOPE = {
    "actuators": {"drive": {"speed": {"min": 0.0, "max": 1.0}}},
    "rest": {"drive": {"speed": 1.0}},
    "safe": {"drive": {"speed": 0.0}},
    "deadman_s": 7200.0,
}
#: release counter of the fleet's first bundle; 1 is older, and every device must refuse it
FIRST = 2
#: the round before which the load changes, where there is one
DRIFT = 2
#: told what is going on and which share of it is done
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What ``aiotkit demo`` is asked for.

    ``fleet``: machines; ``days``: simulated, of the first round; ``rounds``: how many follow, of
    ``round_days`` each; ``families``: heads that compete, with commas.
    """

    seed: int = 7
    fleet: int = 12
    days: int = 14
    rounds: int = 3
    round_days: int = 7
    families: str = "lda,logistic"
    workdir: Path = Path("demo-run")

    def __post_init__(self) -> None:
        if self.fleet < 3 or self.days < 4 or self.rounds < 1 or self.round_days < 2:
            raise DataError(
                "demo",
                expected="a fleet of at least 3 and at least 4 days, then at least 1 round of at least 2",
                found=f"{self.fleet}, {self.days}, {self.rounds}, {self.round_days}",
            )

    @property
    def plan(self) -> Plan:
        """The rounds, and the one before which the load changes."""
        rounds = (self.days, *(self.round_days,) * self.rounds)
        return Plan(self.seed, self.fleet, rounds, min(DRIFT, len(rounds)))


@dataclass
class FieldRun:
    """What the field run left: the twin, where things lie, and an outsider's notes.

    ``bundles``: every signed archive that ever decided; ``in_force``: the fleet's, by round; ``credited``:
    (device, instant) of every packet a device said it had handled; ``mishaps``: what was tried on devices.
    """

    options: Options
    plan: Plan
    place: Place
    keys: Keys
    decision: Decision
    twin: Twin
    desk: Desk
    outcomes: Outcomes
    deliveries: Deliveries
    schedule: Schedule
    bundles: list[Path] = field(default_factory=list)
    in_force: list[Path] = field(default_factory=list)
    mishaps: list[Mishap] = field(default_factory=list)
    credited: set[tuple[str, int]] = field(default_factory=set)
    missed: int = 0
    asked: int = 0
    inspections: int = 0

    @property
    def bundle(self) -> Path:
        """What the fleet runs now."""
        return self.in_force[-1]


def device_name(number: int) -> str:
    """Devices are numbered from 1; the last one is the spare."""
    return f"edge-{number:02d}"


def release(place: Place, keys: Keys, decision: Decision, counter: int = 1) -> Path:
    """Build, sign with both release keys, and write the archive."""
    unsigned = build_bundle(decision, release_counter=counter)
    path = place.bundles / f"{decision.id}-{counter}.aiot"
    path.write_bytes(unsigned.archive(keys.release))
    return path


def install(
    states: Iterable[Path], bundle: Path, progress: Progress | None = None, doing: str = "commissioning"
) -> None:
    """``aiotkit-edge install`` on each device, two at a time.

    Raises:
        AiotkitError: with what the command said.
    """
    waiting = list(states)
    count = len(waiting)
    while waiting:
        if progress is not None:
            share = 1 - len(waiting) / count
            progress(f"{doing}: golden cases ran on {count - len(waiting)} of {count} devices", share)
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


def set_up(options: Options, progress: Progress) -> FieldRun:
    """Keys, lake, bundle and commissioned devices; time has not begun."""
    progress("keys, trust and lake", 0.0)
    plan = options.plan
    place, keys = prepare(options.workdir)
    decision = bearing_decision()
    source = resources.files("aiotkit.loop") / "decisions/bearing.yaml"
    (place.root / DECISION).write_bytes(source.read_bytes())
    lake = Lake.create(place.lake)
    run = FieldRun(
        options,
        plan,
        place,
        keys,
        decision,
        plan.twin(1),
        Desk(place, keys, decision, options.families, options.seed, FIRST + 1),
        Outcomes(place, decision),
        Deliveries(place),
        Schedule(plan.rounds[0] * STEPS_PER_DAY),
    )
    progress("bundle: feature graph, golden cases, signatures", 0.0)
    first = release(place, keys, decision, FIRST)
    run.bundles.append(first)
    run.in_force.append(first)
    names = [device_name(i + 1) for i in range(options.fleet + 1)]
    states = [commission(place, keys.trust(), decision, name, envelope=ENVELOPE) for name in names]
    install(states, first, lambda stage, _: progress(stage, 0.0))
    assets = Assets(lake)
    for machine in range(options.fleet):
        assign(assets, run, device_name(machine + 1), machine, run.twin.start_us)
    return run


def assign(assets: Assets, run: FieldRun, device: str, machine: int, from_us: int) -> None:
    """Enter which machine a device watches from now on."""
    assets.assign(
        Assignment(
            device=device, subject=subject_name(machine), from_us=from_us, site=run.decision.site.name
        ),
        recorded_us=from_us,
    )
