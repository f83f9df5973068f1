"""Progress in a notebook: one line that is drawn again, and says at last how long it took."""

from __future__ import annotations

import html
from collections.abc import Callable
from time import monotonic
from typing import Any

from IPython.display import HTML, display

_EVERY_S = 0.5


def progress_line(title: str) -> Callable[[str, float], None]:
    """A function that is told a stage in words and the share of the whole that is done (0 to 1).

    Shows nothing before it is told something, so that what is there already costs no line.
    """
    line = _Line(title)
    return line.show


class _Line:
    def __init__(self, title: str) -> None:
        self._title, self._began, self._drawn_s = title, monotonic(), -_EVERY_S
        self._handle: Any = None

    def show(self, stage: str, share: float) -> None:
        now = monotonic() - self._began
        if share < 1 and now - self._drawn_s < _EVERY_S:
            return
        self._drawn_s = now
        words = f"done in {now:.0f} s" if share >= 1 else f"{100 * share:.0f} %, {stage}"
        bar = "" if share >= 1 else f"<progress value='{share:.3f}' style='width:16em'></progress> "
        text = f"<div>{bar}<b>{html.escape(self._title)}</b>: {html.escape(words)}</div>"
        drawn = HTML(text)  # type: ignore[no-untyped-call]
        if self._handle is None:
            self._handle = display(drawn, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(drawn)
