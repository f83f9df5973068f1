"""``aiotkit approve``: sign that a candidate may be released."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiotkit.cli.run import DEFAULT_WORK, JsonOption, StoreOption, WorkOption, said_by, warn_unauthenticated

if TYPE_CHECKING:
    from aiotkit.release.approve import Statement, Wish
    from aiotkit.release.registry import Version

_HELP = """State that a candidate may be released: exactly this bundle, on exactly this evidence.

The statement is signed with your approval key, which the trust file must name (aiotkit keys trust
--approval). Without --key it is single user mode: nobody proves anything, and it says so everywhere.

\b
Examples:
  aiotkit approve pump --key ann.pem --note "looked at the report, slices are fine"
  aiotkit approve pump --version 4 --key ann.pem --until 2026-12-31T00:00:00Z --pilot hall-1
"""

IdArgument = Annotated[str, typer.Argument(help="Id of the decision.")]
VersionOption = Annotated[int | None, typer.Option(min=1, help="Of the candidate (the newest).")]
KeyOption = Annotated[
    list[Path] | None,
    typer.Option(help="Approval key (PEM), or several where several must sign; none: single user mode."),
]
ByOption = Annotated[str | None, typer.Option(help="Your name (the name you are logged in by).")]
NoteOption = Annotated[str, typer.Option(help="Why.")]


def command(
    decision_id: IdArgument,
    version: VersionOption = None,
    key: KeyOption = None,
    note: NoteOption = "",
    by: ByOption = None,
    until: Annotated[str | None, typer.Option(help="Ends then (ISO 8601 with offset).")] = None,
    pilot: Annotated[str | None, typer.Option(help="For this group of devices alone.")] = None,
    despite_gates: Annotated[
        bool, typer.Option("--despite-gates", help="Although its gates refused it; needs --note.")
    ] = False,
    work: WorkOption = DEFAULT_WORK,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve a candidate."""
    from aiotkit.lab.instants import moment_us
    from aiotkit.release.approve import Conditions, Wish

    conditions = Conditions(expires_us=None if until is None else moment_us(until), pilot=pilot)
    wish = Wish("approved", by or said_by(), note, conditions, despite_gates)
    state(decision_id, version, wish, key, (work, store or str(work)), as_json)


def state(
    decision_id: str,
    version: int | None,
    wish: Wish,
    key: list[Path] | None,
    place: tuple[Path, str],
    as_json: bool,
) -> None:
    """Make a statement about a candidate and say what it says; ``place``: work folder and store."""
    import time

    from aiotkit.bundle.keys import SigningKey
    from aiotkit.cli.output import say
    from aiotkit.release.approve import KeyApprover, SingleUser, decide
    from aiotkit.release.registry import Registry
    from aiotkit.release.seen import check_seen
    from aiotkit.release.store import tracking_uri

    keys = [SigningKey.load(path) for path in key or ()]
    approver = KeyApprover(keys[0], tuple(keys[1:])) if keys else SingleUser()
    work, store = place
    registry = Registry(tracking_uri(store), make=False)
    found = registry.version(decision_id, version)
    check_seen(work, found, registry.statements(found))
    made = decide(registry, found, wish, approver, at_us=time.time_ns() // 1000)
    check_seen(work, found, registry.statements(found))
    if not made.authenticated:
        warn_unauthenticated("approval" if made.verdict == "approved" else "rejection")
    data = made.model_dump(mode="json") | {"authenticated": made.authenticated}
    lines = [f"{decision_id} version {found.number}: {made.verdict} by {made.by} ({made.authentication})"]
    lines += [f"bundle   {made.bundle}", f"evidence {made.evidence}", *_after(made, found)]
    say(data, "\n".join(lines), as_json)


def _after(made: Statement, version: Version) -> list[str]:
    """What a statement does, what it does not, and what comes next."""
    place = f"{version.decision_id} --version {version.number}"
    lines = []
    if made.authenticated:
        lines = [
            "it counts where the trust file gives this key the role approval; see whether it does: "
            f"aiotkit approvals {version.decision_id} --trust FILE"
        ]
    if made.verdict == "approved":
        group = "" if made.conditions.pilot is None else f" --group {shlex.quote(made.conditions.pilot)}"
        return [*lines, f"next: aiotkit run release {place}{group} --trust … --key … --to …"]
    lines += [
        f"it is not released from now on, until a newer approval: aiotkit approve {place}"
        + (" --key FILE" if made.authenticated else "")
    ]
    if version.champion:
        lines += [
            "it was released already and is in force: this does not take it off the devices, which keep it "
            "until another bundle is released",
            "next: aiotkit run retrain, then approve and release what it makes; to stop a device at once: "
            "aiotkit-edge stop",
        ]
    return lines


command.__doc__ = _HELP
