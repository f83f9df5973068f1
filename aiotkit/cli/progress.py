"""Long work shows what it does and how far it is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

_EVERY_S = 5.0


@contextmanager
def stages(*, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """A function that is told what is going on and which share of the run is done."""
    if quiet:
        yield lambda _stage, _share: None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines().show


@contextmanager
def _bar() -> Iterator[Callable[[str, float], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.percentage:3.0f} %"), BarColumn(), TimeElapsedColumn())
    said = TextColumn("{task.description}")
    with Progress(*columns, said, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda stage, share: progress.update(task, description=stage, completed=share)


class _Lines:
    """A line when the stage changes, and every few seconds."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._said_s, self._stage = -_EVERY_S, ""

    def show(self, stage: str, share: float) -> None:
        """Print unless the last line is fresh and begins alike."""
        now, kind = monotonic() - self._began, stage[:12]
        if kind == self._stage and now - self._said_s < _EVERY_S:
            return
        self._said_s, self._stage = now, kind
        print(f"{now:6.1f} s {100 * share:4.0f} %  {stage}", file=sys.stderr, flush=True)
