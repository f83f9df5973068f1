"""The sections of the demo's report that tell of the rounds: money, candidates, refusals, drift."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from aiotkit.lab.plots_rounds import drift_figure, money_by_round
from aiotkit.lab.report import Report

#: what people are told a policy is, by its key in ``summary.json``: one name everywhere
NAMES = {
    "field": "the fleet",
    "rule": "written rule",
    "tuned_threshold": "tuned threshold",
    "hindsight_threshold": "hindsight threshold",
    "always": "always throttle",
    "never": "never act",
    "oracle": "oracle",
}
_HEX = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_PAGE = re.compile(r"<code>(candidates/[a-z0-9-]+\.html)</code>")


class LinkedReport(Report):
    """A report that links to the candidates' pages, which lie beside it."""

    def html(self) -> str:
        """The whole page."""
        return _PAGE.sub(r'<a href="\1">\1</a>', super().html())


def add_rounds(page: Report, summary: Mapping[str, Any], figure: pd.DataFrame, currency: str) -> None:
    """The figure that matters, and a table of the rounds."""
    rounds = summary["rounds"]
    changed = next((row["round"] + 1 for row in rounds if row["load"] == "changed"), None)
    gap = summary["gain_over_oracle_gap"]
    text = (
        "In the first round the fleet ran by the written rule. At each round's end the desk retrained on "
        "what it knew by then; what passed its gates was approved, signed and installed on the running "
        f"devices. The tuned threshold ({summary['arms']['tuned_threshold']}) is the best that a diligent "
        "engineer could have found in the rounds before the load changed."
    )
    if gap is not None:
        text += (
            " Of what lies between it and the oracle in the rounds after the change, the fleet won "
            f"**{gap:.0%}**."
        )
    if not any(row["policy"].startswith("learned") for row in rounds):
        text += " Nothing that was learned passed its gates: the fleet ran by the written rule throughout."
    text += f"\n\n**{summary['words']}**"
    page.section(
        "Money by round",
        text,
        figure=money_by_round(figure, currency=currency, drift_from=changed, words=NAMES),
        table=pd.DataFrame(
            [
                {"round": f"{row['round'] + 1} ({row['days']} days)", "the fleet ran": row["policy"]}
                | {NAMES[name]: round(value) for name, value in row["money"].items()}
                for row in rounds
            ]
        ),
    )


def add_candidates(page: Report, summary: Mapping[str, Any]) -> None:
    """What was learned, judged, approved and refused."""
    tried = summary["candidates"]
    released = [c for c in tried if c["released"]]
    pages = "\n".join(f"- `{c['page']}`" for c in tried if c["page"])
    text = (
        f"{len(tried)} times the desk tried to learn something better; {len(released)} of these were "
        "released. A candidate that fails one gate is rejected, and the fleet keeps what it runs. Each "
        "verdict is a statement over the digests of bundle and evidence, signed with the approval key; a "
        "release needs one that verifies, and two release keys besides."
    )
    if pages:
        text += f"\n\nThe page of each candidate, with everything it was judged by:\n\n{pages}"
    table = [
        {
            "after round": f"{c['round'] + 1}{' (early)' if c['early'] else ''}",
            "due": "; ".join(c["due"]),
            "family": c["family"] or "",
            "became": f"released as {c['released']}" if c["released"] else "refused",
            "because": c["refused"] or "every gate passed",
        }
        for c in tried
    ]
    page.section("What was learned", text, table=table)
    _add_approvals(page, summary)


def _add_approvals(page: Report, summary: Mapping[str, Any]) -> None:
    table = [
        {
            "candidate": a["version"],
            "verdict": a["verdict"],
            "by": a["by"],
            "signature": "verified" if a["authenticated"] else "none",
            "only for": a["pilot"] or "",
            "note": a["note"],
        }
        for a in summary["approvals"]
    ]
    if not table:
        return
    page.section("Who approved what", "Every statement stays with its candidate, in order.", table=table)


def add_mishaps(page: Report, summary: Mapping[str, Any]) -> None:
    """What must not come to pass, and what was answered."""
    text = (
        "A retraining before there was anything to learn from. Then, on a device in service, bundles that it "
        "must refuse. Last a bundle that is sound in form and was properly approved and signed, for one "
        "device as a pilot: its novelty limit had been set by hand, far too tight, so that nearly every "
        "window was unknown to it. The device counts how a new bundle does and takes one back that fails; "
        "nobody told it to, and the rest of the fleet never got that bundle."
    )
    table = [
        {
            "what": m["what"],
            "device": m["device"] or "desk",
            "became": m["became"],
            "answer": _HEX.sub(r"\1…", m["answer"]),
        }
        for m in summary["mishaps"]
    ]
    page.section("What must not come to pass", text, table=table)


def add_drift(page: Report, summary: Mapping[str, Any], drift: pd.DataFrame | None) -> None:
    """Whether the windows still look like those that were learned from."""
    rows = [r for r in summary["rounds"] if r["drift"] is not None]
    if not rows:
        return
    told = ", ".join(f"**{r['drift']:.2f}** in round {r['round'] + 1} ({r['load']} load)" for r in rows)
    due = [f"- after round {r['round'] + 1}: {'; '.join(r['due'])}" for r in summary["rounds"] if r["due"]]
    text = (
        f"Drift of each round's windows against those that the newest candidate was learned from: {told}. "
        "Above 0.25 is a large shift. What triggered a retraining:\n\n" + "\n".join(due)
    )
    page.section("Has the world changed?", text, figure=None if drift is None else drift_figure(drift))
