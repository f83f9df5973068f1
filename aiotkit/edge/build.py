"""Putting an agent together from a state folder, and taking it apart again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiotkit
from aiotkit.bundle.trust import Trust, parse_trust
from aiotkit.bundle.verify import Expectation
from aiotkit.core.records import RecordType
from aiotkit.edge.acting import Acting
from aiotkit.edge.agent import Agent, Parts
from aiotkit.edge.clocks import SourceClock, SystemClock
from aiotkit.edge.config import DeviceConfig, read_file
from aiotkit.edge.disk import Disk, RealDisk
from aiotkit.edge.health import Counts, Health, read_health
from aiotkit.edge.journal import Journal
from aiotkit.edge.keeper import Keeper
from aiotkit.edge.link import ActuatorLink
from aiotkit.edge.operator import OperatorDesk
from aiotkit.edge.people import People
from aiotkit.edge.restore import restore, seen_messages
from aiotkit.edge.slots import Slots
from aiotkit.edge.sources import FileSource, PipeSource, Source
from aiotkit.edge.uplink import FolderUplink, Pace
from aiotkit.edge.ward import Ward
from aiotkit.edge.watch import Watch


def read_trust(state: Path, config: DeviceConfig) -> Trust:
    """The trust document a device was commissioned with."""
    return parse_trust(read_file(state / config.trust))


def open_slots(disk: Disk, trust: Trust, config: DeviceConfig) -> Slots:
    """The bundles of a device."""
    here = Expectation(
        decision_id=config.decision,
        hardware=config.hardware,
        site=config.site,
        runtime=aiotkit.__version__,
        floor=0,
    )
    return Slots.open(disk, trust, here)


def open_source(text: str, state: Path) -> Source:
    """The source that ``device.json`` names."""
    if text == "stdin":
        return PipeSource(sys.stdin.buffer, sys.stdout.buffer)
    return FileSource(state / text.removeprefix("file:"))


@contextmanager
def open_agent(
    state: Path,
    config: DeviceConfig,
    *,
    disk: Disk | None = None,
    source: Source | None = None,
    watch: Watch | None = None,
) -> Iterator[Agent]:
    """An agent on a state folder, everything open; closed again whatever happens.

    Args:
        state: the folder.
        config: its ``device.json``.
        disk: where journal, slots and operator's desk write (default: that folder).
        source: where packets come from (default: what the configuration names).
        watch: what ends the process when a bundle hangs (default: one that was never started).
    """
    disk = disk or RealDisk(state)
    trust = read_trust(state, config)
    slots = open_slots(disk, trust, config)
    kept = config.journal
    with ExitStack() as stack:
        journal = stack.enter_context(
            Journal.open(disk, config.device, quota_bytes=kept.quota_bytes, on_full=kept.on_full)
        )
        keeper = Keeper(journal, kept.commit_ms)
        source = source or open_source(config.source, state)
        stack.callback(source.close)
        link = None if config.actuator is None else ActuatorLink(state / config.actuator.socket)
        acting = Acting(link, keeper, unlogged_reversible=kept.unlogged == "reversible")
        stack.callback(acting.close)
        counts = Counts()
        desk = OperatorDesk(disk, config.device, trust, seen_messages(journal))
        parts = Parts(
            source=source,
            clock=SourceClock() if config.clock == "source" else SystemClock(),
            keeper=keeper,
            acting=acting,
            people=People(desk, keeper, acting, counts.say),
            ward=_ward(slots, config, watch or Watch(), keeper, state),
            health=Health(state),
            uplink=None if config.uplink is None else _uplink(state, config, journal, trust),
            counts=counts,
            source_clock=config.clock == "source",
        )
        agent = Agent(parts, restore(journal))
        stack.callback(agent.close)
        yield agent


def _ward(slots: Slots, config: DeviceConfig, watch: Watch, keeper: Keeper, state: Path) -> Ward:
    def note(said: dict[str, Any]) -> None:
        keeper.append(RecordType.SECURITY, said)

    return Ward(slots, config.probation, watch, note, read_health(state))


def _uplink(state: Path, config: DeviceConfig, journal: Journal, trust: Trust) -> FolderUplink:
    assert config.uplink is not None
    return FolderUplink(state / config.uplink, journal, trust, "none", Pace(config.batch_s))
