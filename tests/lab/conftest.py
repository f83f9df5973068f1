"""A small plant for the desk's tests: a decision about pumps, and a lake with journals of its devices."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

DATASETS = Path(__file__).resolve().parents[2].parent / "shared" / "datasets"

GUARD: dict[str, Any] = {
    "format": 1,
    "id": "pump-guard",
    "revision": 1,
    "subject": "pump",
    "question": "Shall the pump run on?",
    "site": {"name": "hall-3", "time_zone": "Europe/Berlin"},
    "states": {"ok": {}, "worn": {}, "broken": {}},
    "actions": {
        "run": {},
        "slow": {"actuator": "drive", "command": {"speed": 0.5}, "valid_for_s": 900, "intervenes": True},
    },
    "costs": {"run": {"ok": 0, "worn": 100, "broken": 900}, "slow": {"ok": 60, "worn": 60, "broken": 60}},
    "signals": {
        "vib": {"unit": "mm/s", "sampling": {"kind": "regular", "rate_hz": 0.1}, "range": [-50, 50]},
        "oil": {"unit": "Cel", "sampling": {"kind": "on_change", "max_age_s": 3600}, "range": [-20, 120]},
    },
    "context": {
        "mode": {"values": ["production", "idle"], "max_age_s": 600},
        "load": {"unit": "%", "range": [0, 150], "max_age_s": 600, "required": False},
    },
    "window": {"length_s": 100, "every_s": 600},
    "needs": {"deadline_ms": 500},
    "verify": {"share": 0.1},
    "rule": [{"when": {"field": "vib.rms", "gt": 7}, "do": "slow"}, {"otherwise": "run"}],
    "gates": [{"name": "warm", "require": {"field": "oil.last", "gt": 10}}],
    "recovery": "slow",
    "outcome": {
        "horizon_s": 86400,
        "maturity_s": 172800,
        "silence": "ok",
        "sources": {
            "crew": {"reports": ["ok", "worn", "broken"], "reliability": 0.9},
            "app": {"reports": ["broken"], "reliability": 0.6},
        },
    },
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command line in an empty folder; its exit code and what it said."""
    from aiotkit.cli.main import main

    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str]:
        code = main([str(w) for w in words])
        out = capsys.readouterr()
        return code, out.out + out.err

    return call


@pytest.fixture
def document() -> dict[str, Any]:
    """The decision as plain data; a test may spoil it."""
    return copy.deepcopy(GUARD)


@pytest.fixture
def guard(document: dict[str, Any]) -> Any:
    """The decision."""
    from aiotkit.core.decision import parse_decision

    return parse_decision(document)


@pytest.fixture
def datasets() -> Path:
    """The folder of real data; skips where it is absent."""
    if not DATASETS.is_dir():
        pytest.skip("no folder ../shared/datasets beside the project: real data are not here")
    return DATASETS


class Plant:
    """A lake whose devices write decision records as a device writes them."""

    def __init__(self, lake: Any, decision: Any) -> None:
        self.lake, self.decision, self.rows = lake, decision, list[dict[str, Any]]()
        self._seq: dict[str, int] = {}

    def watch(self, device: str, subject: str, from_us: int) -> None:
        """Put a device on a subject, taking it off what it watched before."""
        from aiotkit.lake.assets import Assets, Assignment

        assets = Assets(self.lake)
        held = any(a.device == device for a in assets.assignments())
        new = Assignment(device, subject, from_us)
        (assets.move if held else assets.assign)(new, recorded_us=from_us)

    def decide(
        self, device: str, at_us: int, in_force: str | None = "run", *, drawn: bool = False, vib: float = 1.0
    ) -> tuple[str, str, int]:
        """One decision; its key."""
        from aiotkit.core.gates import GateVerdict, Verdict
        from aiotkit.core.records import Decided, DecisionInput, Draw, EngineState, Reading, decision_payload

        seq = self._seq[device] = self._seq.get(device, 0) + 2  # a WINDOW record stands between
        given = DecisionInput(f"{device}/j/{seq}", at_us, at_us, {}, {"mode": Reading("production", 3.0)})
        draw = Draw(0.1, 0.0 if drawn else 0.9)
        gate = GateVerdict("warm", Verdict.HOLD if vib < 0 else Verdict.ALLOW, f"oil.last > 10: {vib:g}")
        decided = Decided(
            {"vib.rms": vib, "oil.last": float("nan")}, {}, None, {}, {}, in_force, "the rule", gate.verdict,
            (gate,), in_force, "least cost", in_force, "act", None, None, draw, Draw(0.0, 0.5), EngineState(),
        )  # fmt: skip
        payload = decision_payload(
            given,
            EngineState(),
            decided,
            window_digest="sha256:0",
            bundle="b",
            decision=(self.decision.id, 1),
            timing={},
        )
        row = {"device": device, "journal_id": "j", "seq": seq, "type": "DECISION", "digest": "sha256:1"}
        row |= {"length": len(payload), "head": "00", "withheld": False, "payload": payload.decode()}
        row |= {
            "decision_id": self.decision.id,
            "revision": 1,
            "bundle": "b",
            "at": at_us,
            "window": "sha256:0",
        }
        row |= {"proposed": in_force, "verdict": gate.verdict.name, "final": in_force, "in_force": in_force}
        row |= {
            "mode": "act",
            "verify_p": draw.p,
            "verify_hit": draw.hit,
            "upload_p": 0.0,
            "upload_hit": False,
        }
        self.rows.append(row)
        return device, "j", seq

    def store(self) -> None:
        """Deliver what was decided so far."""
        import pyarrow as pa

        columns = {name: [row[name] for row in self.rows] for name in self.rows[0]}
        columns["at"] = pa.array(columns["at"], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
        self.lake.append("decisions", pa.table(columns))
        self.rows = []


@pytest.fixture
def plant(tmp_path: Path, guard: Any) -> Plant:
    """An empty lake for the decision."""
    pytest.importorskip("deltalake")
    from aiotkit.lake.lake import Lake

    return Plant(Lake.create(tmp_path / "lake"), guard)
