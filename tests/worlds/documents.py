"""A decision document that uses every part of format 1 and has no problem; tests spoil copies of it."""

from __future__ import annotations

from typing import Any


def press_guard() -> dict[str, Any]:
    """A hydraulic press with two signals, context, history, gates and a rule of three lines."""
    return {
        "format": 1,
        "id": "press-guard",
        "revision": 1,
        "title": "Keep the press from running its pump dry",
        "subject": "press",
        "question": "Should this press be slowed down or stopped now?",
        "site": {
            "name": "hall-3",
            "time_zone": "Europe/Berlin",
            "shifts": [
                {
                    "name": "early",
                    "days": ["mon", "tue", "wed", "thu", "fri"],
                    "from": "06:00",
                    "to": "14:00",
                },
                {"name": "night", "days": ["sun", "mon", "tue"], "from": "22:00", "to": "06:00"},
            ],
        },
        "states": {"healthy": {}, "worn": {"description": "pump losing pressure"}},
        "actions": {
            "run": {},
            "slow": {
                "actuator": "drive",
                "command": {"speed": 0.5},
                "valid_for_s": 900,
                "intervenes": True,
            },
            "stop": {
                "reversible": False,
                "actuator": "drive",
                "command": {"speed": 0},
                "intervenes": True,
            },
        },
        "costs": {
            "run": {"healthy": 0, "worn": 900},
            "slow": {"healthy": 40, "worn": 120},
            "stop": {"healthy": 300, "worn": 80},
        },
        "human": {"cost": 15, "delay_s": 300, "reliability": 0.9},
        "signals": {
            "vib": {
                "unit": "mm/s",
                "sampling": {"kind": "regular", "rate_hz": 100},
                "range": [0, 50],
            },
            "oil": {
                "unit": "Cel",
                "sampling": {"kind": "on_change", "max_age_s": 120},
                "range": [-20, 120],
            },
        },
        "window": {"length_s": 10, "every_s": 10, "max_bad_share": 0.05},
        "history": {
            "trend": {"of": "vib.rms", "kind": "slope", "over_s": 86400, "initial": 0},
            "peak": {"of": "vib.max", "kind": "max", "over_s": 3600},
            "calm": {"of": "vib.rms", "kind": "time_since", "over_s": 3600, "above": 7},
        },
        "context": {
            "mode": {"values": ["run", "setup", "clean"], "max_age_s": 60},
            "load": {"unit": "%", "range": [0, 110], "max_age_s": 60, "required": False},
        },
        "needs": {"deadline_ms": 200, "offline": True, "upload": "features"},
        "autonomy": {"mode": "act", "actions": {"stop": "confirm"}},
        "verify": {"share": 0.02},
        "rule": [
            {"when": {"field": "vib.rms", "gt": 9}, "do": "stop", "because": "shaking apart"},
            {
                "when": {"any": [{"field": "vib.rms", "gt": 7}, {"field": "oil.last", "gt": 80}]},
                "do": "slow",
            },
            {"otherwise": "run"},
        ],
        "gates": [
            {"name": "running", "require": {"field": "context.mode", "in": ["run"]}, "actions": ["slow"]},
            {"name": "oil_sane", "require": {"field": "oil.last", "between": [0, 110]}},
            {"name": "calm_down", "min_interval_s": 60},
            {"name": "few", "at_most": {"count": 6, "per_s": 3600}, "otherwise": "ask"},
        ],
        "recovery": "slow",
        "outcome": {
            "horizon_s": 86400,
            "maturity_s": 172800,
            "silence": "healthy",
            "sources": {"maintenance": {"reports": ["worn"], "reliability": 0.95}},
        },
        "policy": {"kind": "expected_cost"},
        "limits": {"latency_p99_ms": 50},
        "trigger": {"new_labels": 50},
    }
