"""A commissioned device in a folder, what its plant sends, and processes around it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from worlds.bundles import DECISION_ID, HARDWARE, SITE, decision_of, signed_archive, trust_and_keys

from aiotkit.edge.actuator import ActuatorServer
from aiotkit.edge.build import open_slots, read_trust
from aiotkit.edge.config import read_config
from aiotkit.edge.disk import RealDisk, storage_error
from aiotkit.edge.drivers import open_driver
from aiotkit.edge.envelope import parse_actuator_config
from aiotkit.edge.messages import make_message, sign_message
from aiotkit.edge.sources import Packet, Samples, encode_packet

DEVICE = "pump-1"
#: far ahead of any wall clock: commands of a simulated device are still valid for an actuator on system time
START_US = 4_000_000_000_000_000
EVERY_US = 4_000_000

ACTUATOR: dict[str, Any] = {
    "format": 1,
    "device": DEVICE,
    "actuators": {"drive": {"speed": {"min": 0, "max": 1}}},
    "rest": {"drive": {"speed": 1.0}},
    "safe": {"drive": {"speed": 0.0}},
    "deadman_s": 60,
    "driver": "file:driven.jsonl",
}


def bundle(counter: int = 1, **overrides: Any) -> bytes:
    """The test bundle, signed, with gates that judge from the first packet on (no ``on_delay_s``)."""
    gates = [
        gate.model_dump(mode="json", by_alias=True, exclude_defaults=True) for gate in decision_of().gates
    ]
    for gate in gates:
        gate.get("require", {}).pop("on_delay_s", None)
    return signed_archive(counter, small=True, **{"gates": gates, **overrides})


def make_device(
    folder: Path, *, archive: bytes | None = None, actuator: dict[str, Any] | None = None, **said: Any
) -> Path:
    """Commission a device: its state folder with trust, configuration and an installed bundle.

    ``said`` overrides keys of ``device.json``; the uplink folder ``uplink`` lies beside the state folder.
    """
    state = folder / "state"
    state.mkdir(parents=True)
    (folder / "uplink").mkdir()
    (state / "trust.json").write_bytes(trust_and_keys()[0].canonical())
    config = {
        "format": 1,
        "device": DEVICE,
        "site": SITE,
        "hardware": HARDWARE,
        "decision": DECISION_ID,
        "uplink": "../uplink",
        "clock": "source",
        **said,
    }
    (state / "device.json").write_text(json.dumps(config))
    (state / "actuator.json").write_text(json.dumps(ACTUATOR | (actuator or {})))
    install(state, bundle() if archive is None else archive)
    return state


def install(state: Path, archive: bytes) -> None:
    """Install a bundle on a device."""
    config = read_config(state)
    open_slots(RealDisk(state), read_trust(state, config), config).install(archive)


def packet(i: int, *, vib: float = 1.0, **changes: Any) -> Packet:
    """The ``i``-th packet of a healthy pump: four seconds of everything, vibration of rms ``vib``."""
    rng = np.random.default_rng(i)
    end_us = START_US + (i + 1) * EVERY_US
    first_us = end_us - EVERY_US
    shake = rng.normal(size=256)
    samples = {
        "vib": Samples(first_us, 64.0, (vib * shake / shake.std()).astype(np.float32)),
        "temp": Samples(first_us, 2.0, rng.normal(40, 0.1, size=8).astype(np.float32)),
    }
    given: dict[str, Any] = {
        "at_us": end_us,
        "samples": samples,
        "points": (("oil", end_us - 1_000_000, 5.0),),
        "context": (("load", end_us, 80.0), ("mode", end_us, "production"), ("ambient", end_us, 20.0)),
    }
    return Packet(**(given | changes))


def write_packets(path: Path, packets: Sequence[Packet]) -> None:
    """A file of packets, for ``FileSource``."""
    path.write_bytes(b"".join(map(encode_packet, packets)))


class ListSource:
    """Packets (or errors to raise) from a list, as a source; notes the credit it gets."""

    acknowledges = True

    def __init__(self, *packets: Packet | Exception) -> None:
        self.waiting = list(packets)
        self.credits: list[int | None] = []
        self.not_durable: list[int | None] = []
        self.ended = False

    def next(self, timeout_s: float) -> Packet | None:
        """The next; None when there is none."""
        if not self.waiting:
            return None
        one = self.waiting.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    def done(self, at_us: int | None, *, durable: bool = True) -> None:
        """Credit; ``not_durable`` notes which of it nobody vouches for."""
        self.credits.append(at_us)
        if not durable:
            self.not_durable.append(at_us)

    def close(self) -> None:
        """Nothing."""


class RefusingDisk(RealDisk):
    """A disk that is full (or broken) while ``refuses`` names an errno."""

    refuses = 0

    def append(self, path: str, data: bytes) -> None:
        """Refused while it is full."""
        self._check()
        super().append(path, data)

    def write(self, path: str, data: bytes) -> None:
        """Refused while it is full."""
        self._check()
        super().write(path, data)

    def sync(self, path: str) -> None:
        """Refused while it is full."""
        self._check()
        super().sync(path)

    def _check(self) -> None:
        if self.refuses:
            raise storage_error("cannot write", OSError(self.refuses, os.strerror(self.refuses)))


@contextlib.contextmanager
def actuator_process(state: Path) -> Iterator[ActuatorServer]:
    """The actuator server of a state folder, in a thread."""
    config = parse_actuator_config((state / "actuator.json").read_bytes())
    server = ActuatorServer(config, state, RealDisk(state), open_driver(config.driver, state))
    over = threading.Event()
    thread = threading.Thread(target=server.serve, args=(over.is_set,))
    thread.start()
    try:
        yield server
    finally:
        over.set()
        thread.join(5)
        assert not thread.is_alive()


def edge(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """``aiotkit-edge`` in a process of its own."""
    argv = [sys.executable, "-m", "aiotkit.edge.command", *map(str, arguments)]
    return subprocess.Popen(argv, **options)


def driven(state: Path) -> list[dict[str, Any]]:
    """What the file driver was told, oldest first."""
    path = state / "driven.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["set"] for line in lines]


def say(state: Path, kind: str, at_us: int, *, key: Any = None, device: str = DEVICE, **said: Any) -> str:
    """An operator's signed message in the inbox; gives its id."""
    message = make_message(device, kind, "anna", at_us, **said)
    data = sign_message(message, key or trust_and_keys()[2])
    inbox = state / "operator" / "inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    (inbox / f"{message.id}.json").write_bytes(data)
    return message.id
