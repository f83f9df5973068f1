"""The plant: real device processes in lock-step with the twin, half an hour a step.

In each step the crew works, every actuator process is told the time, every agent gets its packet, and time
passes only when all live agents have given their credit back. A device that is dead is simply not waited
for: its machine runs on.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiotkit.loop.crew import Crew
from aiotkit.loop.link import Link, Values, wait_until
from aiotkit.loop.twin import Twin

STEP_TIMEOUT_S = 60.0


@dataclass
class Plant:
    """Machines, the devices on them, and the crew.

    ``links``: machine -> the device that serves it now. ``doomed``: machines whose agent gets SIGKILL
    right behind its next packet. ``missed``: packets that no live agent could take.
    """

    twin: Twin
    crew: Crew
    links: dict[int, Link]
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    missed: int = 0
    doomed: set[int] = field(default_factory=set)

    def run(self, before_step: Callable[[int], None], after_step: Callable[[int], None]) -> None:
        """Run until the twin is done.

        ``before_step`` and ``after_step`` are called with the step's number: this is where a story
        kills, swaps and cuts off.
        """
        while not self.twin.done:
            before_step(self.twin.step)
            self.step()
            after_step(self.twin.step)

    def step(self) -> None:
        """One lock-step."""
        now_us = self.twin.time_us(self.twin.step)
        self.crew.work(self.links, now_us)
        for link in self.links.values():
            link.tick(now_us)
        ticked = lambda: all(x.ticked_us >= now_us for x in self.links.values())  # noqa: E731
        wait_until(self.selector, ticked, STEP_TIMEOUT_S, "the actuators' ticks")
        seen = self.twin.observe()
        for machine, link in self.links.items():
            if link.alive:
                link.send(self.twin.packet(machine, seen=seen))
                if machine in self.doomed:
                    self.doomed.discard(machine)
                    link.kill_agent()
            else:
                self.missed += 1
        handled = lambda: all(x.done_us >= now_us or not x.alive for x in self.links.values())  # noqa: E731
        wait_until(self.selector, handled, STEP_TIMEOUT_S, "the agents' credits")
        self.twin.advance()

    def start(self, machine: int, link: Link) -> None:
        """Put a device on a machine and start its processes."""
        self.links[machine] = link
        link.start_actuator(self.selector)
        link.tick(self.twin.time_us(self.twin.step))
        link.start_agent(self.selector)

    def take_off(self, machine: int) -> Link:
        """Let a device finish, deliver what it can, and take it off its machine."""
        link = self.links.pop(machine)
        link.end_input()
        wait_until(self.selector, lambda: not link.alive, STEP_TIMEOUT_S, f"device {link.name} to leave")
        link.stop()
        return link

    def finish(self) -> None:
        """End every source and wait until all agents have left."""
        for link in self.links.values():
            link.end_input()
        gone = lambda: not any(x.alive for x in self.links.values())  # noqa: E731
        wait_until(self.selector, gone, 2 * STEP_TIMEOUT_S, "the agents to deliver and leave")
        for link in self.links.values():
            link.stop()

    def close(self) -> None:
        """Stop whatever still runs."""
        for link in self.links.values():
            link.stop(timeout_s=5.0)
        self.selector.close()


def drive(twin: Twin, machine: int) -> Callable[[Values], Values]:
    """What an actuator's ``set`` does to a machine: the drive takes a speed and reads it back."""

    def obey(values: Values) -> Values:
        speed = values.get("drive", {}).get("speed")
        if speed is not None:
            twin.set_speed(machine, float(speed))
        return {"drive": {"speed": float(twin.speed[0, machine])}}

    return obey


@contextmanager
def closing(plant: Plant) -> Iterator[Plant]:
    """The plant, with every process stopped at the end, whatever happened."""
    try:
        yield plant
    finally:
        plant.close()
