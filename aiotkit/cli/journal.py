"""``aiotkit journal``: check and read what a device has recorded, without touching it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from aiotkit.cli.journal_lines import Since
    from aiotkit.core.frames import Frame
    from aiotkit.edge.disk import RealDisk
    from aiotkit.edge.journal_verify import Verified
    from aiotkit.edge.watermark import Watermark

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Check and read what a device has recorded."
)

_VERIFY = """Check every record of a journal: all here, in order, as they were written.

Records inside cannot be changed, removed, swapped or spliced unnoticed. That the end was cut off, or that
everything was written anew, only a checkpoint tells: the collector's watermark, signed by a key of the
trust file. Exit code 0: nothing is wrong; 1: something is, and the first bad record is named. On a device
that is running, the last group may be on its way to the disk: check again before you worry about it alone.

\b
Examples:
  aiotkit journal verify /var/lib/aiotkit/press-7
  aiotkit journal verify state --trust trust.json
  aiotkit journal verify state --trust trust.json --checkpoint inbox/press-7/watermark.json --json
"""
_SHOW = """Show records, newest last: number, time, type and what they say.

Damaged places are marked and skipped. --since takes a record's number, or a time with its zone; records
that carry no time (windows, gaps) are shown when they lie between those that do.

\b
Examples:
  aiotkit journal show /var/lib/aiotkit/press-7 --last 20
  aiotkit journal show state --type decision --type answer
  aiotkit journal show state --since 2026-11-02T06:00:00+01:00 --json
"""
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")]
PlaceArgument = Annotated[Path, typer.Argument(help="A device's state folder, or the journal folder in it.")]


@app.command(help=_VERIFY)
def verify(
    place: PlaceArgument,
    trust: Annotated[
        Path | None, typer.Option(help="trust.json: also check the watermark the device has kept.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A watermark.json of the collector; needs --trust.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a journal."""
    from aiotkit.bundle.trust import parse_trust
    from aiotkit.cli.journal_lines import read_bytes, verified_text, verified_to_json
    from aiotkit.cli.output import say
    from aiotkit.core.errors import BundleError, ConfigError
    from aiotkit.edge.journal_verify import verify_folder

    try:
        known = None if trust is None else parse_trust(read_bytes(trust, "trust file"))
        mark = _checkpoint(checkpoint, known)
    except BundleError as error:  # 1 would say that the journal is bad; here it was not looked at
        raise ConfigError(str(error)) from error
    disk, folder = _journal_at(place)
    found: Verified = verify_folder(disk, mark, trust=known, folder=folder)
    say(verified_to_json(found), verified_text(found), as_json)
    if not found.ok:
        raise typer.Exit(1)


@app.command(help=_SHOW)
def show(
    place: PlaceArgument,
    kinds: Annotated[
        list[str] | None, typer.Option("--type", help="Only this type; may be given several times.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="From this record or time on.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the last N of what is left.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show records."""
    from collections import deque

    from aiotkit.cli.journal_lines import (
        frame_text,
        frame_to_json,
        parse_since,
        parse_types,
    )
    from aiotkit.cli.output import say

    wanted = parse_types(kinds or ())
    begin = parse_since(since)
    disk, folder = _journal_at(place)
    shown: deque[Frame | str] = deque(maxlen=last)
    identity = _collect(disk, folder, begin, wanted, shown)
    records = [frame_to_json(item) for item in shown if not isinstance(item, str)]
    data: dict[str, Any] = {
        **identity,
        "records": records,
        "damage": [item for item in shown if isinstance(item, str)],
    }
    lines = [item if isinstance(item, str) else frame_text(item) for item in shown]
    say(data, "\n".join(lines) if lines else "no records", as_json)


def _collect(disk: RealDisk, folder: str, begin: Since, wanted: frozenset[int], shown: Any) -> dict[str, str]:
    """Put what is asked for into ``shown``; gives whose journal it is."""
    from aiotkit.edge.journal_files import look, walk
    from aiotkit.edge.segments import Damage

    found = look(disk, folder)
    assert found is not None  # _journal_at has seen to it
    first = max((i for i, s in enumerate(found.segments) if s.first <= begin.seq), default=0)
    started = begin.at_us is None
    for segment, item in walk(found, found.segments[first:]):
        if isinstance(item, Damage):
            shown.append(f"!! record {item.first}, segment {segment.first}: {item.why}")
            continue
        for frame in item.frames:
            started = started or begin.reached(frame)
            if started and frame.seq >= begin.seq and frame.type in wanted:
                shown.append(frame)
    return {"device": found.identity.device, "journal_id": found.identity.journal_id}


def _journal_at(place: Path) -> tuple[RealDisk, str]:
    """The journal of a state folder, or the journal folder itself."""
    from aiotkit.core.errors import JournalError
    from aiotkit.edge.disk import RealDisk
    from aiotkit.edge.journal_files import look

    for root, folder in ((place, "journal"), (place.absolute().parent, place.absolute().name)):
        if (root / folder).is_dir() and look(RealDisk(root), folder) is not None:
            return RealDisk(root), folder
    raise JournalError(
        f"no journal at {place}",
        expected="a device's state folder, or the journal folder in it",
        do="Give the folder that aiotkit-edge has as --state.",
    )


def _checkpoint(path: Path | None, trust: Any) -> Watermark | None:
    from aiotkit.cli.journal_lines import read_bytes
    from aiotkit.core.errors import JournalError
    from aiotkit.edge.watermark import read_watermark

    if path is None:
        return None
    if trust is None:
        raise JournalError("--checkpoint", expected="--trust with it", do="Add --trust trust.json.")
    return read_watermark(read_bytes(path, "checkpoint"), trust)
