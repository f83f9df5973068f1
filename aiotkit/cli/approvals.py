"""``aiotkit approvals``: the candidates there are, and what was decided about each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from aiotkit.cli.run import DEFAULT_WORK, JsonOption, StoreOption, WorkOption

_HELP = """List candidates, newest first: what their gates said, and whether they may be released now.

With --trust approvals are verified; without it, what they claim is shown and said to be unverified.

\b
Examples:
  aiotkit approvals
  aiotkit approvals pump --trust trust.json
"""


def command(
    decision_id: Annotated[str | None, typer.Argument(help="Id of the decision (all).")] = None,
    trust: Annotated[Path | None, typer.Option(help="The trust file: whose approval counts.")] = None,
    work: WorkOption = DEFAULT_WORK,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List candidates and approvals."""
    import time

    from aiotkit.cli.output import say
    from aiotkit.release.approve import ApprovalError, Standing, standing
    from aiotkit.release.registry import Registry
    from aiotkit.release.release_steps import read_trust
    from aiotkit.release.seen import check_seen
    from aiotkit.release.store import tracking_uri

    registry = Registry(tracking_uri(store or str(work)), make=False)
    trusted = None if trust is None else read_trust(trust)
    now_us = time.time_ns() // 1000
    rows: list[dict[str, Any]] = []
    for name in registry.decisions() if decision_id is None else [registry.version(decision_id).decision_id]:
        for v in registry.candidates(name):
            statements = registry.statements(v)
            found = standing(v, statements, trusted, now_us=now_us)
            try:
                check_seen(work, v, statements)
            except ApprovalError as error:
                found = Standing(approved=False, words=str(error).rstrip("."))
            rows.append(
                {
                    "decision": name,
                    "version": v.number,
                    "champion": v.champion,
                    "release_counter": v.release_counter,
                    "gates": v.gates,
                    "approved": found.approved,
                    "authenticated": found.authenticated,
                    "words": found.words,
                    "bundle": v.bundle,
                    "evidence": v.evidence,
                }
            )
    say(
        {"candidates": rows, "verified": trusted is not None},
        _table(rows, verified=trusted is not None),
        as_json,
    )


def _table(rows: list[dict[str, Any]], *, verified: bool) -> str:
    lines = []
    for r in rows:
        mark = "champion" if r["champion"] else ""
        lines.append(f"{r['decision']:24} {r['version']:>4} {mark:8} {r['gates']:6}  {r['words']}")
    head = f"{'decision':24} {'vers':>4} {'':8} {'gates':6}  standing"
    note = [] if verified else ["approvals are not verified here: give --trust FILE"]
    return "\n".join([head, *lines, *note]) if rows else "no candidates; make one: aiotkit run retrain"


command.__doc__ = _HELP
