"""The nouns of ``aiotkit``: each is a module, imported when its command is called."""

from __future__ import annotations

from typing import NamedTuple


class Noun(NamedTuple):
    """Where a noun lives (the module has ``app`` or ``command``) and what the list says about it."""

    module: str
    summary: str


NOUNS: dict[str, Noun] = {
    "init": Noun("aiotkit.cli.init", "Write a decision file to start from."),
    "demo": Noun("aiotkit.cli.demo", "Run the whole loop on this machine, with a simulated plant."),
    "decision": Noun("aiotkit.cli.decision", "Check, explain and place a decision file; export its schema."),
    "ingest": Noun("aiotkit.cli.ingest", "Read telemetry; check units, rates and time zones."),
    "outcomes": Noun("aiotkit.cli.outcomes", "Import what was observed and turn it into labels."),
    "run": Noun("aiotkit.cli.run", "Run a pipeline: retrain, or release what was approved."),
    "approve": Noun("aiotkit.cli.approve", "Sign that a candidate may be released."),
    "reject": Noun("aiotkit.cli.reject", "State that a candidate must not be released, or not any more."),
    "approvals": Noun("aiotkit.cli.approvals", "List candidates, and what was decided about each."),
    "bundle": Noun("aiotkit.cli.bundle", "Build, sign, verify and look into bundles."),
    "keys": Noun("aiotkit.cli.keys", "Make signing keys and the trust file devices are given."),
    "journal": Noun("aiotkit.cli.journal", "Verify and show a device's journal."),
    "collector": Noun("aiotkit.cli.collector", "Take journals from devices into the lake."),
    "replay": Noun("aiotkit.cli.replay", "Take recorded decisions again and compare them bit by bit."),
    "report": Noun("aiotkit.cli.report", "What a decision did and what it cost, as one page."),
}
