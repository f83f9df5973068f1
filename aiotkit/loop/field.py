"""The field run with everything that happens in it: outage, kill, swap, and a desk visit at each round's end.

Time stands still while the desk works; the devices are alive and take up what they are given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from aiotkit.bundle.unsigned import Unsigned, read_unsigned
from aiotkit.core.errors import SourceError
from aiotkit.edge.health import read_health
from aiotkit.lake.assets import Assets
from aiotkit.loop.crew import Crew
from aiotkit.loop.demo import ENVELOPE, FieldRun, Progress, assign, device_name, install
from aiotkit.loop.link import Link
from aiotkit.loop.mishaps import UNHEALTHY, Mishap, bad_archives, denials, refusal, unhealthy
from aiotkit.loop.plant import Plant, closing, drive
from aiotkit.loop.promotion import LEAD, Attempt
from aiotkit.loop.setting import commission
from aiotkit.loop.story import CollectorProcess, cut_uplink, restore_uplink
from aiotkit.loop.twin import STEPS_PER_DAY
from aiotkit.release.approve import Wish
from aiotkit.release.registry import Version

#: the machine whose device gets bundles that it must refuse, and the one that pilots the unhealthy one
_TRIED, _PILOT = 1, 0
DELIVER_S, ADOPT_S = 60.0, 60.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class _Pilot:
    """The unhealthy bundle on its device, until it is taken back."""

    made: Unsigned
    version: Version
    link: Link
    round: int


class Story:
    """Runs the plant to its end; see the module."""

    def __init__(self, run: FieldRun, progress: Progress) -> None:
        self._run, self._progress = run, progress
        self._assets, self._trust = Assets(run.desk.lake), run.keys.trust()
        self._collector = CollectorProcess(run.place, run.place.key("collector"))
        crew = Crew(run.twin, run.decision, run.keys.operator)
        self._plant = Plant(run.twin, crew, {})
        self._victim, self._replaced, self._robbed = 1, run.options.fleet - 1, 0
        self._ends = [last * STEPS_PER_DAY for _, last in run.plan.spans[:-1]]
        self._pilot: _Pilot | None = None
        self._lived_s = 0.0

    def tell(self) -> None:
        """From the first packet to the last delivery."""
        run = self._run
        self._collector.start()
        try:
            with closing(self._plant) as plant:
                for machine in range(run.options.fleet):
                    plant.start(machine, self._link(device_name(machine + 1), machine))
                self._resumed_s = monotonic()
                plant.run(self._before, self._after)
                self._end_pilot()
                self._say("devices deliver the rest and leave")
                plant.finish()
                run.missed, run.asked = plant.missed, plant.crew.asked
                run.inspections = plant.crew.inspections
        finally:
            self._collector.stop()
        self._collector.take_the_rest()
        run.deliveries.look(self._now_us)

    @property
    def _now_us(self) -> int:
        return self._run.twin.time_us(self._run.twin.step)

    @property
    def _round(self) -> int:
        return len(self._run.in_force) - 1

    def _say(self, stage: str, _share: float = 0.0) -> None:
        self._progress(stage, self._run.twin.step / self._run.twin.steps)

    def _link(self, device: str, machine: int) -> Link:
        return Link(device, self._run.place.device(device), drive(self._run.twin, machine))

    # -- between two steps

    def _before(self, step: int) -> None:
        self._mischief(step)
        if step == self._run.schedule.early:
            self._try_early()
        if step in self._ends:
            self._end_round()
        elif self._round and step == self._ends[self._round - 1] + STEPS_PER_DAY // 2:
            self._begin_pilot()

    def _mischief(self, step: int) -> None:
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
        now_us = self._now_us
        old = self._plant.take_off(machine)
        self._assets.retire(old.name, now_us, recorded_us=now_us)
        assign(self._assets, self._run, device, machine, now_us)
        self._plant.start(machine, self._link(device, machine))

    def _after(self, step: int) -> None:
        run = self._run
        at_us = run.twin.time_us(step - 1)
        run.credited |= {(x.name, at_us) for x in self._plant.links.values() if x.durable_us == at_us}
        run.deliveries.look(run.twin.time_us(step))
        if self._pilot is not None and _running(self._pilot.link) != self._pilot.made.digest:
            self._end_pilot()
        rate = len(run.credited) / (monotonic() - self._resumed_s)
        rounds = f"round {self._round + 1} of {len(run.plan.rounds)}"
        devices = f"{len(self._plant.links)} devices decide"
        self._say(f"{rounds}: {devices}: {len(run.credited)} decisions, {rate:.0f}/s")

    # -- the desk

    def _try_early(self) -> None:
        """Somebody is impatient."""
        began_s = monotonic()
        self._collect()
        attempt = self._learn(early=True)
        if attempt.signed is not None:
            self._give_out(attempt.signed)
            self._run.in_force[-1] = attempt.signed
        self._resumed_s += monotonic() - began_s

    def _end_round(self) -> None:
        """What a plant does at the end of a round; the next one begins with what comes of it."""
        began_s = monotonic()
        self._end_pilot()
        self._collect()
        attempt = self._learn()
        run = self._run
        if attempt.signed is not None:
            self._give_out(attempt.signed)
        run.in_force.append(attempt.signed or run.bundle)
        if self._round == 1:
            self._try_bad_bundles()
        self._resumed_s += monotonic() - began_s

    def _collect(self) -> None:
        """Wait until what was decided is in the lake, and import what people wrote down."""
        self._say(f"round {self._round + 1}: waiting for the last deliveries")
        links = [link for link in self._plant.links.values() if link.alive]
        began_us = time.time_ns() // 1000
        wait(lambda: all(_delivered(link, began_us) for link in links), DELIVER_S)  # what is late is late
        self._run.deliveries.look(self._now_us)
        self._say(f"round {self._round + 1}: outcomes")
        self._run.outcomes.take(self._run.desk.lake, self._run.twin.reports_until(self._now_us), self._now_us)

    def _learn(self, *, early: bool = False) -> Attempt:
        name = f"round {self._round + 1}, {'early' if early else 'end'}: retrain: "
        return self._run.desk.learn(
            self._round, self._now_us, lambda stage, _: self._say(name + stage), early=early
        )

    def _give_out(self, bundle: Path) -> None:
        """Install it on every device in service; the running agents take it up."""
        self._run.bundles.append(bundle)
        links = list(self._plant.links.values())
        words = f"round {self._round + 1} ends: {bundle.name}"
        install([link.state for link in links], bundle, lambda stage, _: self._say(stage), words)
        self._say(f"{words}: the agents take it up")
        _await(links, read_unsigned(bundle.read_bytes())[0].digest)

    # -- what must not come to pass

    def _try_bad_bundles(self) -> None:
        run, link = self._run, self._plant.links[_TRIED]
        running = read_unsigned(run.bundle.read_bytes())[0]
        for i, (what, data) in enumerate(bad_archives(running, run.keys, run.desk.counter).items()):
            self._say(f"bad bundle on {link.name}: {what}")
            path = run.place.bundles / f"bad-{i + 1}.aiot"
            path.write_bytes(data)
            answer = refusal(link.state, path)
            run.mishaps.append(Mishap(what, 0, link.name, self._now_us, "refused", answer))

    def _begin_pilot(self) -> None:
        """A candidate with its novelty limit set by hand goes to one device."""
        run, link = self._run, self._plant.links[_PILOT]
        learned = [a for a in run.desk.attempts if a.candidate is not None]
        if not learned or any(m.what == UNHEALTHY for m in run.mishaps):
            return
        began_s = monotonic()
        self._say(f"pilot: a bundle with a novelty limit far too tight, on {link.name} alone")
        candidate = learned[-1].candidate
        assert candidate is not None
        made = unhealthy(run.decision, candidate, run.desk.counter)
        version, path = run.desk.pilot(made, learned[-1], link.name)
        install([link.state], path)
        run.bundles.append(path)
        _await([link], made.digest)
        self._pilot = _Pilot(made, version, link, self._round)
        self._resumed_s += monotonic() - began_s

    def _end_pilot(self) -> None:
        """Write down what the device did with it, and say so beside the approval."""
        pilot, self._pilot = self._pilot, None
        if pilot is None:
            return
        why = denials(pilot.link.state).get(pilot.made.digest, "")
        became = "rolled back by the device" if why else "still runs"
        told = Mishap(UNHEALTHY, pilot.round, pilot.link.name, self._now_us, became, why)
        self._run.mishaps.append(told)
        note = f"pilot {pilot.link.name}: {became}; {why}"
        self._run.desk.state(pilot.version, Wish("rejected", LEAD, note[:500]), pilot.round)


def _health(link: Link) -> Mapping[str, object]:
    return read_health(link.state) or {}


def _running(link: Link) -> object:
    """The digest of the bundle that an agent says it runs."""
    return _health(link).get("bundle")


def _await(links: Sequence[Link], bundle: str) -> None:
    """Wait until agents run a bundle.

    Raises:
        SourceError: naming those that do not.
    """
    if not wait(lambda: all(_running(link) == bundle for link in links), ADOPT_S):
        late = [link.name for link in links if _running(link) != bundle]
        raise SourceError(f"{', '.join(late)}: {bundle[:19]} was installed and is not run", do="See run.log.")


def _delivered(link: Link, since_us: int) -> bool:
    """Whether an agent has said since then that the collector has all that is durable."""
    said = _health(link)
    told_us, durable, delivered = (said.get(n) for n in ("wall_us", "durable_seq", "delivered_seq"))
    if not (isinstance(told_us, int) and isinstance(durable, int) and isinstance(delivered, int)):
        return False
    return told_us >= since_us and delivered >= durable


def wait(reached: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for something, not for ever; whether it was reached."""
    deadline = monotonic() + timeout_s
    while not reached():
        if monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True
