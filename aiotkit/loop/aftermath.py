"""After the field run, on the desk: outcomes, labels, books, replay and money. Reads the lake, not the twin.

The twin is asked for two things only, both of which people have: what was written down, and what it cost.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.core.errors import ReplayError
from aiotkit.fleet.balance import Balance, balance
from aiotkit.lab.evaluate import paired_bootstrap, policy_table
from aiotkit.lab.journal import decisions_frame
from aiotkit.lab.labels import INSPECTION
from aiotkit.lab.outcomes import import_outcomes, resolve
from aiotkit.lake.lake import Lake
from aiotkit.loop.maintenance import Report
from aiotkit.loop.setting import Place
from aiotkit.loop.twin import subject_name
from aiotkit.loop.wear import Array

DAY_US = 86_400_000_000
#: the policies of the summary, in its order
POLICIES = ("rule", "tuned_threshold", "hindsight_threshold", "always", "never", "oracle")


@dataclass(frozen=True)
class Books:
    """The books of an outage, in decisions. ``lost``: a device said it had decided, nobody has it.

    ``decided`` counts what devices decided as an outsider saw it; ``records`` are the books of all journal
    records.
    """

    decided: int
    delivered: int
    gaps: int
    lost: int
    duplicates: int
    records: Balance

    def to_json(self) -> dict[str, int]:
        """Plain data."""
        return {n: getattr(self, n) for n in ("decided", "delivered", "gaps", "lost", "duplicates")}


def reports_frame(reports: Iterable[Report]) -> pd.DataFrame:
    """What people wrote down, as ``outcomes import`` reads it."""
    rows = [
        {
            "subject": subject_name(r.subject),
            "state": r.state,
            "at": pd.Timestamp(r.at_us, unit="us", tz="UTC"),
            "reported_at": pd.Timestamp(r.known_us, unit="us", tz="UTC"),
            "source": r.source,
            "kind": INSPECTION if r.source == "inspection" else "report",
            "provenance": r.id,
        }
        for r in reports
    ]
    columns = ["subject", "state", "at", "reported_at", "source", "kind", "provenance"]
    return pd.DataFrame(rows, columns=columns)


@dataclass
class Outcomes:
    """What people wrote down, on its way into the lake: what is new, a file for each day it became known on.

    ``frame`` has all that was imported so far; the files lie in ``outcomes/day-….csv``.
    """

    place: Place
    decision: Decision
    frame: pd.DataFrame = field(default_factory=lambda: reports_frame(()))

    def take(self, lake: Lake, reports: Iterable[Report], now_us: int, *, all_of_it: bool = False) -> int:
        """Import what became known before today (``all_of_it``: until now); gives how many there were."""
        until_us = now_us + 1 if all_of_it else now_us // DAY_US * DAY_US
        held = set(self.frame["provenance"])
        found = reports_frame(r for r in reports if r.known_us < until_us and r.id not in held)
        folder = self.place.root / "outcomes"
        folder.mkdir(exist_ok=True)
        for day, rows in found.groupby(found["reported_at"].dt.floor("D")) if len(found) else ():
            path = folder / f"day-{pd.Timestamp(str(day)).date()}.csv"
            rows.to_csv(path, index=False)
            known_us = int(pd.Timestamp(str(day)).value // 1000) + DAY_US
            import_outcomes(lake, path, self.decision, imported_us=known_us)
        if len(found):
            self.frame = pd.concat([self.frame, found], ignore_index=True) if len(self.frame) else found
        return len(found)


def label_counts(labels: pd.DataFrame) -> dict[str, int]:
    """How many decisions have which kind of label."""
    counts = labels["status"].value_counts()
    return {s: int(counts.get(s, 0)) for s in ("mature", "pending", "censored", "verified", "unlabelled")}


def records(lake: Lake, decision_id: str) -> pd.DataFrame:
    """Every decision record that lies in the lake, duplicates too.

    Columns ``device``, ``journal_id``, ``seq``, ``bundle``, ``window_end_us``, ``decide_us`` (how long it
    took, wall clock).
    """
    columns = ["device", "journal_id", "seq", "payload"]
    where = [("type", "=", "DECISION"), ("decision_id", "=", decision_id)]
    rows = lake.read("decisions", columns=columns, where=where).to_pandas()
    said = [json.loads(payload) for payload in rows["payload"]]
    found: pd.DataFrame = rows.drop(columns="payload").assign(
        bundle=[one["bundle"] for one in said],
        window_end_us=[one["in"]["window_end_us"] for one in said],
        decide_us=[float(one["timing"]["decide_us"]) for one in said],
    )
    return found


def books(lake: Lake, rows: pd.DataFrame, credited: set[tuple[str, int]], devices: Iterable[str]) -> Books:
    """Compare what devices said they had handled with what lies in the lake.

    Args:
        lake: where everything should be.
        rows: ``records`` of the decision that counts.
        credited: (device, window end in µs) of every packet that a device gave credit for.
        devices: all that ever decided.
    """
    duplicates = int(rows.duplicated(["device", "journal_id", "seq"]).sum())
    here = set(zip(rows["device"], rows["window_end_us"], strict=True))
    told = sum((balance(lake, device) for device in devices), Balance())
    gaps = gap_decisions(lake)
    missing = len(credited - here)
    lost = max(0, missing - gaps)
    delivered = len(rows) - duplicates
    return Books(delivered + gaps + lost, delivered, gaps, lost, duplicates, told)


def gap_decisions(lake: Lake) -> int:
    """Decisions that devices dropped and told so."""
    rows = lake.read("decisions", columns=["payload"], where=[("type", "=", "GAP")]).to_pandas()
    return sum(int(json.loads(p).get("counts", {}).get("DECISION", 0)) for p in rows["payload"].dropna())


def replay(place: Place, bundles: Iterable[Path]) -> dict[str, Any]:
    """``aiotkit replay`` in a fresh process: from journals, bundles and blobs only.

    Raises:
        ReplayError: it could not run at all.
    """
    argv = [sys.executable, "-m", "aiotkit.cli.main", "replay", "--lake", str(place.lake), "--json"]
    for bundle in bundles:
        argv += ["--bundle", str(bundle)]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=1800)
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise ReplayError("replay", found=done.stderr.decode()[-400:]) from error
    return said


def ledgers(policies: Mapping[str, Array]) -> dict[str, pd.DataFrame]:
    """Money ``[machines, days]`` of each policy as a ledger."""
    return {name: ledger(values) for name, values in policies.items()}


def ledger(money: Array, first_day: int = 0) -> pd.DataFrame:
    """Money ``[machines, days]`` as ``lab.evaluate`` reads it."""
    machines, days = money.shape
    return pd.DataFrame(
        {
            "subject": np.repeat([subject_name(m) for m in range(machines)], days),
            "day": np.tile(np.arange(first_day, first_day + days), machines),
            "money": money.reshape(-1),
        }
    )


def money(
    by_policy: Mapping[str, pd.DataFrame], decision: Decision, seed: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Money per subject-day of each policy with its interval, and paired against the rule.

    Returns:
        ``policy_money`` of the summary, and the table of ``lab.evaluate.policy_table``.
    """
    table = policy_table(by_policy, "rule", resample=decision.resample, seed=seed)
    rows = table.set_index("policy")[["difference", "low", "high"]].astype(float).to_dict("index")
    out: dict[str, Any] = {}
    for name, spent in by_policy.items():
        own = paired_bootstrap(spent, spent.assign(money=0.0), decision.resample, seed=seed)
        out[name] = {
            "money": own.estimate,
            "low": own.low,
            "high": own.high,
            "minus_rule": {str(n): float(value) for n, value in rows[name].items()},
        }
    return out, table


def labelled(lake: Lake, decision: Decision, end_us: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels as of the end of the run, written to the lake, and all decisions with their subjects."""
    labels = resolve(lake, decision, end_us, write=True)
    decisions = decisions_frame(lake, decision.id)
    keys = ["device", "journal_id", "seq"]
    return labels, decisions.merge(labels[[*keys, "subject", "state", "status"]], on=keys, how="left")
