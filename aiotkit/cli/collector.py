"""``aiotkit collector``: take journals from devices into the lake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from aiotkit.fleet.collector import Collected

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Take journals from devices into the lake."
)

_RUN = """Collect batches: each record exactly once, watermarks signed after the commit.

Runs until SIGTERM or Ctrl-C (a round under way is finished first), or once with --once.

\b
Examples:
  aiotkit collector run --lake lake --inbox inbox --key collector.pem --create --once
  aiotkit collector run --lake s3://plant/lake --inbox /srv/inbox --key collector.pem --every-s 5
"""
_BALANCE = """Check the books of devices: produced = delivered + gaps. Exit code 1 when they do not balance.

\b
Example:
  aiotkit collector balance --lake lake
  aiotkit collector balance --lake lake --device press-1 --device press-2
"""

LakeOption = Annotated[str, typer.Option("--lake", help="Folder or object-store URI of the lake.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")]


@app.command(help=_RUN)
def run(
    lake: LakeOption,
    inbox: Annotated[Path, typer.Option(help="Folder with one folder a device.")],
    key: Annotated[Path, typer.Option(help="Signing key (PEM) that devices trust as 'collector'.")],
    once: Annotated[bool, typer.Option("--once", help="Take what is there now, then leave.")] = False,
    every_s: Annotated[float, typer.Option(min=0.01, help="Seconds between looks at the inbox.")] = 1.0,
    round_mb: Annotated[int, typer.Option(min=1, help="MB a round reads; memory grows with it.")] = 32,
    create: Annotated[bool, typer.Option("--create", help="Create the lake if it is not there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Collect batches until told to stop, or once."""
    import signal
    import threading

    from aiotkit.bundle.keys import SigningKey
    from aiotkit.cli.output import say
    from aiotkit.fleet.collector import Collector
    from aiotkit.lake.lake import Lake

    def told(done: Collected) -> None:
        if not as_json:
            say({}, _words(done), as_json=False)

    opened = Lake.create(lake) if create else Lake.open(lake)
    collector = Collector(opened, inbox, SigningKey.load(key), round_bytes=round_mb << 20, on_round=told)
    if once:
        total = collector.collect_once()
    else:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        total = collector.run(stop, every_s)
    say(as_data(total), "done: " + _words(total), as_json)


@app.command(help=_BALANCE)
def balance(
    lake: LakeOption,
    device: Annotated[
        list[str] | None, typer.Option("--device", help="Device (may be given several times; default: all).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the books of devices."""
    from dataclasses import asdict

    from aiotkit.cli.output import say
    from aiotkit.core.errors import LakeError, did_you_mean
    from aiotkit.fleet.balance import balance as books
    from aiotkit.lake.lake import Lake

    opened = Lake.open(lake)
    known = sorted(set(opened.read("decisions", columns=["device"])["device"].to_pylist()))
    for name in device or ():
        if name not in known:
            hint = did_you_mean(name, known) or f"Known: {', '.join(known) or 'none'}."
            raise LakeError(f"device '{name}' has delivered nothing to this lake", do=hint)
    found = {name: books(opened, name) for name in device or known}
    lines = [
        f"{name}: {b.produced} produced, {b.delivered} delivered, {b.gaps} dropped and told, {b.lost} lost, "
        f"{b.duplicates} doubled"
        for name, b in found.items()
    ]
    say({name: asdict(b) | {"balanced": b.balanced} for name, b in found.items()}, "\n".join(lines), as_json)
    if not all(b.balanced for b in found.values()):
        raise typer.Exit(1)


def as_data(done: Collected) -> dict[str, Any]:
    """What was collected, as plain data."""
    from dataclasses import asdict

    plain = asdict(done)
    plain["quarantined"] = [{"file": file, "reason": reason} for file, reason in done.quarantined]
    plain["waiting"] = [asdict(w) for w in done.waiting]
    return plain


def _words(done: Collected) -> str:
    parts = [f"{done.records} records from {done.batches} batches ({done.size / 1e6:.1f} MB)"]
    if done.duplicates:
        parts.append(f"{done.duplicates} duplicates skipped")
    if done.dropped:
        parts.append(f"{done.dropped} dropped by their device")
    if done.unreadable:
        parts.append(f"{done.unreadable} decision records of unknown content")
    parts += [f"quarantined {file}: {reason}" for file, reason in done.quarantined]
    parts += [
        f"{w.device}/{w.journal_id} waits for record {w.needed}; the next here is {w.found}"
        for w in done.waiting
    ]
    return "; ".join(parts)
