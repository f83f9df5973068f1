"""``aiotkit report``: what a decision did and what it cost, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_HELP = """Write one self-contained HTML page from a lake: what was decided, what the gates said and why, what
was observed, whether the books balance, and what it cost by the declared costs. Before any device has
decided, it is the page of the candidate that `aiotkit run retrain` made: what was learned, and what it
would have cost.

\b
Examples:
  aiotkit report --lake lake
  aiotkit report --lake lake --decision pump.yaml --out pump.html
"""


def command(
    lake: Annotated[str, typer.Option(help="Folder or object-store URI of the lake.")],
    decision: Annotated[Path | None, typer.Option(help="Decision file: adds labels and money.")] = None,
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("report.html"),
    work: Annotated[Path, typer.Option(help="Where `aiotkit run` works.")] = Path("work"),
    as_of: Annotated[str | None, typer.Option(help="What was known then (ISO 8601 with offset).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")] = False,
) -> None:
    """Write one page from a lake."""
    from dataclasses import asdict

    from aiotkit.cli.output import say
    from aiotkit.fleet.balance import balance
    from aiotkit.lab.decision_file import read_decision
    from aiotkit.lab.instants import moment_us
    from aiotkit.lab.lake_page import lake_page
    from aiotkit.lake.lake import Lake

    opened = Lake.open(lake)
    wanted = None if decision is None else read_decision(decision)
    devices = sorted(set(opened.read("decisions", columns=["device"])["device"].to_pylist()))
    if wanted is not None and not devices:
        written = _candidate_page(work, wanted.id, out)
        say(
            {"written": written, "devices": [], "books": {}},
            f"wrote {written}: the candidate's page",
            as_json,
        )
        return
    books = {device: asdict(balance(opened, device)) for device in devices}
    written = lake_page(opened, wanted, as_of_us=moment_us(as_of), books=books).write(out)
    say({"written": written, "devices": devices, "books": books}, f"wrote {written}", as_json)


def _candidate_page(work: Path, decision_id: str, out: Path) -> Path:
    """The page that retraining left, where ``out`` says."""
    import shutil

    from aiotkit.core.errors import DataError

    page = work / "retrain" / decision_id / "candidate" / "report.html"
    if not page.is_file():
        raise DataError(
            f"lake: no device has decided '{decision_id}', and there is no candidate in {work}/",
            do="Run `aiotkit run retrain --decision FILE --lake LAKE` first.",
        )
    shutil.copyfile(page, out)
    return out


command.__doc__ = _HELP
