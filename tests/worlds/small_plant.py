"""A small plant in a lake: pumps whose vibration rises before they fail, and what the workshop reported.

Enough to train on in seconds. The written rule waits too long; a head that looks at both signals does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from aiotkit.core.decision import Decision, parse_decision
from aiotkit.lake.assets import Assets, Assignment
from aiotkit.lake.lake import Lake

START_US = 1_767_225_600_000_000  # 2026-01-01
HOUR_US = 3_600_000_000
SAMPLES, EVERY_H = 8, 3
DECISION: dict[str, Any] = {
    "format": 1, "id": "small-pump", "revision": 1, "subject": "pump", "title": "A pump for tests",
    "question": "Shall the pump run on or be stopped?",
    "site": {"name": "hall-1"},
    "states": {"ok": {}, "worn": {}},
    "actions": {"run": {}, "stop": {"intervenes": True, "actuator": "drive"}},
    "costs": {"run": {"ok": 0, "worn": 800}, "stop": {"ok": 60, "worn": 60}},
    "signals": {
        "vib": {"unit": "mm/s", "sampling": {"kind": "regular", "rate_hz": 1}, "range": [-100, 100]},
        "temp": {"unit": "Cel", "sampling": {"kind": "regular", "rate_hz": 1}, "range": [-20, 150]},
    },
    "window": {"length_s": SAMPLES, "every_s": EVERY_H * 3600},
    "needs": {"deadline_ms": 1000, "upload": "raw"},
    "rule": [{"when": {"field": "vib.rms", "gt": 9.0}, "do": "stop"}, {"otherwise": "run"}],
    "recovery": "run",
    "outcome": {
        "horizon_s": 86400, "maturity_s": 86400, "silence": "ok",
        "sources": {"workshop": {"reports": ["worn"], "reliability": 1.0}},
    },
    "resample": "subject",
}  # fmt: skip


def small_decision(**changes: Any) -> Decision:
    """The decision, with top-level keys replaced."""
    return parse_decision(DECISION | changes)


def decision_file(folder: Path, **changes: Any) -> Path:
    """The same as a file."""
    path = folder / "pump.yaml"
    path.write_bytes(small_decision(**changes).canonical())
    return path


def small_lake(folder: Path, *, pumps: int = 8, days: int = 32, seed: int = 3) -> Lake:
    """The plant's telemetry and outcomes, as files brought them."""
    lake = Lake.create(folder)
    rng = np.random.default_rng(seed)
    assets = Assets(lake)
    for i in range(pumps):
        name = f"pump-{i}"
        assets.assign(Assignment(f"device-{i}", name, START_US), recorded_us=START_US)
        fails = START_US + np.arange(5 + i, days, 12) * 24 * HOUR_US
        put_telemetry(lake, name, *_course(days, fails, rng))
        put_outcomes(lake, name, fails)
    return lake


def _course(days: int, fails: Any, rng: Any) -> tuple[Any, Any]:
    """Instants and amplitudes: louder and warmer the day before a failure."""
    at = START_US + np.arange(0, days * 24, EVERY_H) * HOUR_US
    ahead = fails[None] - at[:, None]
    soon = ((ahead > 0) & (ahead <= 24 * HOUR_US)).any(axis=1)
    return at, 2.0 + 2.0 * soon + rng.normal(0, 0.4, len(at))


def put_telemetry(lake: Lake, subject: str, at: Any, level: Any) -> None:
    """One window of both signals at each instant."""
    rng = np.random.default_rng(len(subject) + int(at[0] % 97))
    instants = (at[:, None] + np.arange(SAMPLES) * 1_000_000).ravel()
    vib = (rng.normal(0, 1, (len(at), SAMPLES)) * level[:, None]).ravel()
    temp = (40 + 8 * level[:, None] + rng.normal(0, 2, (len(at), SAMPLES))).ravel()
    for name, values in (("vib", vib), ("temp", temp)):
        n = len(instants)
        columns = {"subject": [subject] * n, "name": [name] * n, "source": ["test"] * n}
        given = {k: pa.array(v, pa.string()) for k, v in columns.items()}
        given |= {"at": pa.array(instants).cast(pa.timestamp("us", tz="UTC")), "value": pa.array(values)}
        lake.append("telemetry", pa.table(given))


def put_outcomes(lake: Lake, subject: str, fails: Any) -> None:
    """The workshop's reports."""
    n = len(fails)
    at = pa.array(fails).cast(pa.timestamp("us", tz="UTC"))
    words = {
        "subject": subject,
        "state": "worn",
        "source": "workshop",
        "kind": "report",
        "provenance": "test",
    }
    columns = {k: pa.array([v] * n, pa.string()) for k, v in words.items()}
    columns |= {"at": at, "reported_at": at, "reliability": pa.array([1.0] * n)}
    lake.append("outcomes", pa.table(columns))
