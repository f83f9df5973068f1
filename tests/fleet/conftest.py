"""A world of devices: they write real frames into an inbox, drop records, and are reinstalled."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiotkit.bundle.keys import SigningKey
from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.frames import Frame, encode, genesis, make_frame, withhold
from aiotkit.core.gates import Verdict
from aiotkit.core.records import (
    Decided,
    DecisionInput,
    Draw,
    EngineState,
    Reading,
    RecordType,
    decision_payload,
    pack_windows,
)

START_US = 1_790_000_000_000_000
STEP_US = 10_000_000
BUNDLE = digest(b"bundle")


@dataclass
class Device:
    """A device and its journal: every record it ever made, in memory."""

    name: str = "press-1"
    journal_id: str = "00aa00aa00aa00aa"
    frames: list[Frame] = field(default_factory=list)

    def record(self, kind: RecordType, payload: bytes) -> Frame:
        """Append one record."""
        frame = make_frame(kind, len(self.frames) + 1, payload, self.head(len(self.frames)))
        self.frames.append(frame)
        return frame

    def decide(self, count: int = 1, samples: int = 50) -> None:
        """Append a window and a decision record, ``count`` times."""
        for _ in range(count):
            seq = len(self.frames) + 1
            start = 10_000 * int(self.journal_id[:2], 16) + seq
            window = pack_windows({"vib": np.arange(start, start + samples, dtype=np.float32)})
            self.record(RecordType.WINDOW, window)
            self.record(RecordType.DECISION, self.decision(seq + 1, digest(window)))

    def decision(self, seq: int, window: str) -> bytes:
        """The payload of a decision record as the engine writes it."""
        seed = f"{self.name}/{self.journal_id}/{seq}"
        now_us = START_US + seq * STEP_US
        given = DecisionInput(seed, now_us, now_us, {}, {"mode": Reading("run", 1.5)})
        decided = Decided(
            features={f"vib.f{i}": seq / (i + 1) for i in range(12)},
            history={"trend": 0.5},
            p={"healthy": 0.75, "worn": 0.25},
            expected_costs={"run": 225.0, "slow": 60.0},
            faults={},
            proposed="slow" if seq % 4 else "run",
            proposal_reason="least expected cost",
            verdict=Verdict.ALLOW,
            verdicts=(),
            final="slow" if seq % 4 else "run",
            final_reason="within limits",
            in_force="slow",
            mode="act",
            command=None,
            question=None,
            verify=Draw(0.5, (seq * 7 % 100) / 100),
            upload=Draw(1.0, 0.5),
            state=EngineState(history={"trend": (0.0, 1.0)}),
        )
        return decision_payload(
            given,
            EngineState(),
            decided,
            window_digest=window,
            bundle=BUNDLE,
            timing={"decided_us": 120.5, "stages": {"graph": 90.0}},
            decision=("press-guard", 3),
        )

    def head(self, seq: int) -> bytes:
        """The head behind a record."""
        return self.frames[seq - 1].head if seq else genesis(self.name, self.journal_id)

    def batch(
        self,
        first: int,
        last: int,
        *,
        gap: tuple[int, int] | None = None,
        withheld: Callable[[Frame], bool] | None = None,
        lies: dict[str, Any] | None = None,
    ) -> bytes:
        """The bytes of a batch file; ``lies`` take the place of header fields."""
        document = {
            "format": 1,
            "device": self.name,
            "journal_id": self.journal_id,
            "first": first,
            "last": last,
            "previous": self.head(first - 1).hex(),
        }
        if gap is not None:
            document["gap"] = {"first": gap[0], "last": gap[1]}
        frames = (withhold(f) if withheld and withheld(f) else f for f in self.frames[first - 1 : last])
        return canonical_bytes(document | (lies or {})) + b"\n" + b"".join(encode(f) for f in frames)

    def file_name(self, first: int, last: int) -> str:
        """What the batch file is called."""
        return f"batch-{self.journal_id}-{first:012d}-{last:012d}.ajb"

    def deliver(self, inbox: Path, first: int, last: int, data: bytes | None = None, **how: Any) -> Path:
        """Put a batch into the inbox, whole at once."""
        folder = inbox / self.name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file_name(first, last)
        aside = folder / f".{path.name}.part"
        aside.write_bytes(self.batch(first, last, **how) if data is None else data)
        aside.rename(path)
        return path

    def deliver_all(self, inbox: Path, size: int) -> list[Path]:
        """Everything, in batches of ``size`` records."""
        total = len(self.frames)
        return [self.deliver(inbox, f, min(f + size - 1, total)) for f in range(1, total + 1, size)]


def tell_gap(device: Device, first: int, last: int) -> Frame:
    """The GAP record a journal appends when it dropped records."""
    note = {"format": 1, "first": first, "last": last, "counts": None, "reason": "quota"}
    return device.record(RecordType.GAP, canonical_bytes(note))


def world_of(lake: Any) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Everything a collector brought into a lake, in one order: rows, and blobs by digest."""
    from aiotkit.lake.blobs import Blobs

    rows = sorted(lake.read("decisions").to_pylist(), key=lambda r: (r["device"], r["journal_id"], r["seq"]))
    digests = lake.read("blobs", columns=["digest"])["digest"].to_pylist()
    assert len(digests) == len(set(digests))
    return rows, Blobs(lake).get(digests)


def payload_of(path: Path) -> dict[str, Any]:
    """What a signed watermark file says."""
    from aiotkit.bundle.sign import parse_envelope

    loaded: dict[str, Any] = json.loads(parse_envelope(path.read_bytes()).payload)
    return loaded


def names(paths: Iterable[Path]) -> list[str]:
    """File names, sorted."""
    return sorted(p.name for p in paths)


@pytest.fixture
def world() -> Any:
    """This module: ``world.Device`` and the functions above."""
    import types

    return types.SimpleNamespace(**globals())


@pytest.fixture
def key() -> SigningKey:
    """The collector's key."""
    return SigningKey.from_seed(b"\x07" * 32)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An empty inbox."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def lake(tmp_path: Path) -> Any:
    """An empty lake."""
    from aiotkit.lake.lake import Lake

    return Lake.create(tmp_path / "lake")
