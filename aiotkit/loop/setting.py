"""The demo's place: keys, trust, device folders. Everything lies below one work folder."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiotkit.bundle.keys import SigningKey
from aiotkit.bundle.trust import Trust, make_trust
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.decision import Decision
from aiotkit.core.errors import StorageError
from aiotkit.edge.config import DEVICE_FILE
from aiotkit.edge.envelope import ACTUATOR_FILE

MARK = ".aiotkit-demo"


@dataclass(frozen=True, slots=True)
class Keys:
    """Who signs what: two release keys (both needed), an approval key, an operator's, the collector's."""

    release: tuple[SigningKey, SigningKey]
    approval: SigningKey
    operator: SigningKey
    collector: SigningKey

    def trust(self) -> Trust:
        """What every device is given when it is commissioned."""
        return make_trust(
            {
                "release": ([key.public for key in self.release], 2),
                "approval": ([self.approval.public], 1),
                "operator": ([self.operator.public], 1),
                "collector": ([self.collector.public], 1),
            }
        )


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of a run."""

    root: Path

    @property
    def lake(self) -> Path:
        """The Delta lake."""
        return self.root / "lake"

    @property
    def uplink(self) -> Path:
        """Where devices deliver and the collector collects."""
        return self.root / "uplink"

    @property
    def bundles(self) -> Path:
        """Signed bundles."""
        return self.root / "bundles"

    @property
    def pages(self) -> Path:
        """The page of each candidate."""
        return self.root / "candidates"

    @property
    def work(self) -> Path:
        """Where the pipelines work."""
        return self.root / "work"

    @property
    def releases(self) -> Path:
        """The release folder."""
        return self.root / "releases"

    @property
    def trust(self) -> Path:
        """The trust file."""
        return self.root / "trust.json"

    def key(self, name: str) -> Path:
        """The file of one of the demo's keys."""
        return self.root / "keys" / f"{name}.pem"

    def device(self, name: str) -> Path:
        """A device's state folder."""
        return self.root / "devices" / name


def prepare(root: Path) -> tuple[Place, Keys]:
    """An empty work folder with new keys.

    Raises:
        StorageError: the folder holds something that is not an earlier demo's.
    """
    if root.exists() and any(root.iterdir()):
        if not (root / MARK).is_file():
            raise StorageError(
                f"work folder {root}",
                expected="an empty folder, or an earlier demo's",
                found="other files",
                do="Give another one with --workdir.",
            )
        shutil.rmtree(root)
    place = Place(root)
    for folder in (root / "keys", place.uplink, place.bundles, place.pages, root / "devices"):
        folder.mkdir(parents=True)
    (root / MARK).write_text("made by aiotkit demo; replaced by its next run\n")
    one, two, *rest = (SigningKey.generate() for _ in range(5))
    keys = Keys((one, two), *rest)
    named = {
        "release-1": keys.release[0],
        "release-2": keys.release[1],
        "approval": keys.approval,
        "operator": keys.operator,
        "collector": keys.collector,
    }
    for name, key in named.items():
        key.save(place.key(name))
    place.trust.write_bytes(keys.trust().canonical())
    return place, keys


def commission(
    place: Place,
    trust: Trust,
    decision: Decision,
    device: str,
    *,
    source: str = "stdin",
    envelope: Mapping[str, Any] | None = None,
) -> Path:
    """A fresh state folder: ``device.json``, ``trust.json`` and, with an envelope, ``actuator.json``.

    A folder of that name is put aside first: the computer is set up anew and begins a new journal.
    """
    state = place.device(device)
    if state.exists():
        old = [p for p in state.parent.iterdir() if p.name.startswith(f"{device}.until-")]
        state.rename(state.with_name(f"{device}.until-{len(old) + 1}"))
    state.mkdir(parents=True)
    (state / "trust.json").write_bytes(trust.canonical())
    config: dict[str, Any] = {
        "format": 1,
        "device": device,
        "site": decision.site.name,
        "hardware": platform.machine(),
        "decision": decision.id,
        "uplink": str(place.uplink.resolve()),
        "batch_s": 0.5,
        "source": source,
        "clock": "source",
        # All devices of a demo share one computer: an answer may be late through no fault of the bundle's.
        "probation": {"max_late_share": 0.5},
    }
    if envelope is None:
        config["actuator"] = None
    else:
        (state / ACTUATOR_FILE).write_bytes(
            canonical_bytes(
                {
                    "format": 1,
                    "device": device,
                    "driver": f"socket:{(state / 'plant.sock').resolve()}",
                    "clock": "driver",
                    **envelope,
                }
            )
        )
    (state / DEVICE_FILE).write_bytes(canonical_bytes(config))
    return state
