"""After the field run, on the desk: outcomes, labels, books, replay and money. Reads the lake, not the twin.

The twin is asked for two things only, both of which people have: what was written down, and what it cost.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
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
from aiotkit.loop.arms import ARMS, ArmsResult, subject_name
from aiotkit.loop.maintenance import Report
from aiotkit.loop.setting import Place

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


def import_reports(
    place: Place, lake: Lake, decision: Decision, reports: Iterable[Report], end_us: int
) -> pd.DataFrame:
    """Import what was written down, one file for each day on which it became known.

    Returns:
        All rows, as they lie in ``outcomes/day-….csv``.
    """
    frame = reports_frame(reports)
    folder = place.root / "outcomes"
    folder.mkdir(exist_ok=True)
    if frame.empty:
        return frame
    for day, rows in frame.groupby(frame["reported_at"].dt.floor("D")):
        path = folder / f"day-{pd.Timestamp(str(day)).date()}.csv"
        rows.to_csv(path, index=False)
        known_us = int(pd.Timestamp(str(day)).value // 1000) + DAY_US
        import_outcomes(lake, path, decision, imported_us=min(known_us, max(end_us, known_us)))
    return frame


def label_counts(labels: pd.DataFrame) -> dict[str, int]:
    """How many decisions have which kind of label."""
    counts = labels["status"].value_counts()
    return {s: int(counts.get(s, 0)) for s in ("mature", "pending", "censored", "verified", "unlabelled")}


def books(lake: Lake, decision_id: str, credited: set[tuple[str, int]], devices: Iterable[str]) -> Books:
    """Compare what devices said they had handled with what lies in the lake.

    Args:
        lake: where everything should be.
        decision_id: whose decisions count.
        credited: (device, window end in µs) of every packet that a device gave credit for.
        devices: all that ever decided.
    """
    columns = ["device", "journal_id", "seq", "payload"]
    where = [("type", "=", "DECISION"), ("decision_id", "=", decision_id)]
    rows = lake.read("decisions", columns=columns, where=where).to_pandas()
    duplicates = int(rows.duplicated(["device", "journal_id", "seq"]).sum())
    here = {
        (device, json.loads(payload)["in"]["window_end_us"])
        for device, payload in zip(rows["device"], rows["payload"], strict=True)
    }
    records = sum((balance(lake, device) for device in devices), Balance())
    gaps = gap_decisions(lake)
    missing = len(credited - here)
    lost = max(0, missing - gaps)
    delivered = len(rows) - duplicates
    return Books(delivered + gaps + lost, delivered, gaps, lost, duplicates, records)


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


def ledgers(field_money: np.ndarray[Any, np.dtype[np.float64]], arms: ArmsResult) -> dict[str, pd.DataFrame]:
    """Money by policy: the devices' own as ``rule``, every other arm, and the rule in process as a check."""
    machines, days = field_money.shape
    field = pd.DataFrame(
        {
            "subject": np.repeat([subject_name(m) for m in range(machines)], days),
            "day": np.tile(np.arange(days), machines),
            "money": field_money.reshape(-1),
        }
    )
    by_arm = {
        arm: arms.money.loc[arms.money["arm"] == arm, ["subject", "day", "money"]].reset_index(drop=True)
        for arm in ARMS
    }
    return by_arm | {"rule": field, "rule_in_process": by_arm["rule"]}


def money(
    by_policy: dict[str, pd.DataFrame], decision: Decision, seed: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Money per subject-day of each policy with its interval, and paired against the rule.

    Returns:
        ``policy_money`` of the summary, and the table of ``lab.evaluate.policy_table``.
    """
    shown = {name: by_policy[name] for name in POLICIES}
    table = policy_table(shown, "rule", resample=decision.resample, seed=seed)
    rows = table.set_index("policy")[["difference", "low", "high"]].astype(float).to_dict("index")
    out: dict[str, Any] = {}
    for name in POLICIES:
        nothing = shown[name].assign(money=0.0)
        own = paired_bootstrap(shown[name], nothing, decision.resample, seed=seed)
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
