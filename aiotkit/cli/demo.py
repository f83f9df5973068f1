"""``aiotkit demo``: the whole loop on this machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aiotkit.loop.demo import Options

#: fleet, days of the first round, further rounds, days of each; and the heads that compete
_WHOLE, _QUICK = (12, 14, 3, 7), (6, 8, 1, 2)
_FAMILIES = {False: "lda,logistic", True: "lda"}


class Source(StrEnum):
    """Where the demo's machines come from."""

    twin = "twin"
    hydraulic = "hydraulic"


def command(
    seed: Annotated[int, typer.Option(help="Every random number of the twin follows from it.")] = 7,
    fleet: Annotated[int, typer.Option(help="How many simulated machines (12; 6 with --quick).")] = 0,
    days: Annotated[int, typer.Option(help="Simulated days of the first round (14; 8 with --quick).")] = 0,
    rounds: Annotated[int, typer.Option(help="How many rounds follow (3; 1 with --quick).")] = 0,
    round_days: Annotated[int, typer.Option(help="Simulated days of each of them (7; 2 with --quick).")] = 0,
    workdir: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo-run"),
    quick: Annotated[bool, typer.Option("--quick", help="A small fleet, two rounds, one family.")] = False,
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
    journals are collected and joined with outcomes. At each round's end a model is learned from them; what
    passes its gates is approved, signed and run by the devices from then on. Bad bundles are refused, an
    unhealthy one is rolled back, the load changes. In the end every decision is replayed and every policy
    is priced.

    \b
    Examples:
      aiotkit demo
      aiotkit demo --quick --workdir /tmp/try
      aiotkit demo --source hydraulic --data path/to/hydraulic_uci
    """  # noqa: D301 - a real backspace: it keeps Typer from wrapping the examples
    from aiotkit.cli.output import say
    from aiotkit.cli.progress import stages
    from aiotkit.loop.circle import run_demo, words
    from aiotkit.loop.rig_demo import rig_words, run_rig_demo

    if source is Source.hydraulic and data is None:
        raise typer.BadParameter("--source hydraulic needs the data set's folder: --data DIR")
    with stages(quiet=as_json) as progress:
        if data is not None and source is Source.hydraulic:
            summary = run_rig_demo(data, workdir, progress, quick=quick)
            text = rig_words(summary, workdir)
        else:
            summary = run_demo(
                _options(seed, (fleet, days, rounds, round_days), workdir, quick=quick), progress
            )
            text = words(summary, workdir)
    say(summary, text, as_json)


def _options(seed: int, size: tuple[int, int, int, int], workdir: Path, *, quick: bool) -> Options:
    """What is asked for; 0 stands for the usual."""
    from aiotkit.loop.demo import Options

    usual = _QUICK if quick else _WHOLE
    fleet, days, rounds, round_days = (asked or n for asked, n in zip(size, usual, strict=True))
    return Options(seed, fleet, days, rounds, round_days, _FAMILIES[quick], workdir)
