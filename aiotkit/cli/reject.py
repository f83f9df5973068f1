"""``aiotkit reject``: state that a candidate must not be released, or not any more."""

from __future__ import annotations

from aiotkit.cli.approve import ByOption, IdArgument, KeyOption, NoteOption, VersionOption, state
from aiotkit.cli.run import DEFAULT_WORK, JsonOption, StoreOption, WorkOption, said_by

_HELP = """State that a candidate must not be released; a later statement wins, so this revokes an approval.

Devices that run it already keep it until another bundle is released.

\b
Examples:
  aiotkit reject pump --key ann.pem --note "misses every slow failure"
  aiotkit reject pump --version 4 --key ann.pem --note "approved by mistake"
"""


def command(
    decision_id: IdArgument,
    version: VersionOption = None,
    key: KeyOption = None,
    note: NoteOption = "",
    by: ByOption = None,
    work: WorkOption = DEFAULT_WORK,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reject a candidate, or take an approval back."""
    from aiotkit.release.approve import Wish

    state(
        decision_id,
        version,
        Wish("rejected", by or said_by(), note),
        key,
        (work, store or str(work)),
        as_json,
    )


command.__doc__ = _HELP
