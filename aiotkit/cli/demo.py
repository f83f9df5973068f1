"""``aiotkit demo``: the whole loop on this machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Source(StrEnum):
    """Where the demo's machines come from."""

    twin = "twin"
    hydraulic = "hydraulic"


def command(
    seed: Annotated[int, typer.Option(help="Every random number of the twin follows from it.")] = 7,
    fleet: Annotated[int, typer.Option(help="How many simulated machines (12; 4 with --quick).")] = 0,
    days: Annotated[int, typer.Option(help="How many simulated days (14; 5 with --quick).")] = 0,
    workdir: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo-run"),
    quick: Annotated[bool, typer.Option("--quick", help="A small fleet and a few days.")] = False,
    source: Annotated[
        Source, typer.Option(help="Simulated fleet, or a recorded hydraulic rig.")
    ] = Source.twin,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the recorded rig (--source hydraulic).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")] = False,
) -> None:
    """Run the whole circle on this machine and write a report.

    Devices are real processes that decide with a signed bundle, through an outage and a kill; their
    journals are collected, joined with outcomes, replayed, and every policy is priced.

    \b
    Examples:
      aiotkit demo
      aiotkit demo --quick --workdir /tmp/try
      aiotkit demo --source hydraulic --data path/to/hydraulic_uci
    """  # noqa: D301 - a real backspace: it keeps Typer from wrapping the examples
    from aiotkit.cli.output import say
    from aiotkit.cli.progress import stages
    from aiotkit.loop.circle import run_demo, words
    from aiotkit.loop.demo import Options
    from aiotkit.loop.rig_demo import rig_words, run_rig_demo

    if source is Source.hydraulic and data is None:
        raise typer.BadParameter("--source hydraulic needs the data set's folder: --data DIR")
    with stages(quiet=as_json) as progress:
        if data is not None and source is Source.hydraulic:
            summary = run_rig_demo(data, workdir, progress, quick=quick)
            text = rig_words(summary, workdir)
        else:
            options = Options(seed, fleet or (4 if quick else 12), days or (5 if quick else 14), workdir)
            summary = run_demo(options, progress)
            text = words(summary, workdir)
    say(summary, text, as_json)
