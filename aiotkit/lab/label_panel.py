"""The label queue as buttons in a notebook: one decision at a time, what is known of it, and what it was."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
import numpy as np
import pandas as pd

from aiotkit.core.errors import AiotkitError
from aiotkit.lab.label_queue import WORDS, Item, LabelQueue
from aiotkit.lab.plots_trace import window_figure
from aiotkit.lab.trace import Trace, context_table, gates_table, past_of

_CANNOT = "cannot tell"


class LabelPanel:
    """Buttons over a queue; ``widget`` is what the notebook shows. All that counts happens in the queue."""

    def __init__(self, queue: LabelQueue) -> None:
        self.queue = queue
        self._head, self._facts, self._said = (widgets.HTML() for _ in range(3))
        self._figure = widgets.HTML()
        self._note = widgets.Text(placeholder="anything worth keeping", description="note")
        self._looked = widgets.Checkbox(description="somebody looked at the machine itself", indent=False)
        states = [self._button(s, s, "primary") for s in queue.states]
        others = [self._button(_CANNOT, None, "warning"), self._skip_button()]
        self._buttons = widgets.HBox([*states, *others])
        self.widget = widgets.VBox(
            [self._head, self._figure, self._facts, self._buttons, self._looked, self._note, self._said]
        )
        self.show()

    @property
    def buttons(self) -> list[widgets.Button]:
        """One a state, then "cannot tell" and "later"."""
        return list(self._buttons.children)

    @property
    def shown(self) -> str:
        """What is shown of the decision, as HTML, without the figure."""
        return f"{self._head.value}{self._facts.value}"

    @property
    def said(self) -> str:
        """What is shown of the last answer, as HTML."""
        return str(self._said.value)

    def _button(self, words: str, state: str | None, style: str) -> widgets.Button:
        button = widgets.Button(description=words, button_style=style)
        button.on_click(self._told(state))
        return button

    def _skip_button(self) -> widgets.Button:
        button = widgets.Button(description="later")
        button.on_click(lambda _: self._skip())
        return button

    def _told(self, state: str | None) -> Callable[[Any], None]:
        return lambda _: self.press(state)

    def press(self, state: str | None) -> None:
        """What a button does: enter the state (None = cannot tell) of the decision shown, and go on."""
        item = self.queue.next()
        if item is None:
            return
        try:
            said = self.queue.answer(item, state, looked=self._looked.value, note=self._note.value)
        except AiotkitError as error:  # a person sits here: say it on the page, not in a traceback
            self._said.value = f"<b>not taken:</b> {html.escape(str(error))}"
            return
        words = said.state or _CANNOT
        at = f"{pd.Timestamp(said.said_us, unit='us', tz='UTC'):%Y-%m-%d %H:%M} UTC"
        self._said.value = (
            f"{html.escape(said.name)}: <b>{html.escape(words)}</b>, by {html.escape(said.who)}, {at}"
        )
        self._note.value, self._looked.value = "", False
        self.show()

    def _skip(self) -> None:
        self.queue.skip()
        self.show()

    def show(self) -> None:
        """Draw the first open item."""
        item = self.queue.next()
        for button in self._buttons.children:
            button.disabled = item is None
        if item is None:
            self._head.value, self._figure.value, self._facts.value = "<b>Nothing is waiting.</b>", "", ""
            return
        trace = self.queue.trace(item)
        past = past_of(self.queue.lake, trace, self.queue.decision)
        self._head.value = item_words(item, len(self.queue), self.queue.decision.currency)
        self._figure.value = window_figure(trace, self.queue.decision, past).to_html()
        self._facts.value = facts(trace, self.queue)


def item_words(item: Item, waiting: int, currency: str) -> str:
    """Which decision it is, why it is shown, and how many wait."""
    worth = f"; knowing is worth {item.worth:,.0f} {html.escape(currency)}" if np.isfinite(item.worth) else ""
    return (
        f"<b>{html.escape(item.subject)}</b> ({html.escape(item.name)}): {WORDS[item.reason]}{worth}. "
        f"{waiting} {'waits' if waiting == 1 else 'wait'}."
    )


def facts(trace: Trace, queue: LabelQueue) -> str:
    """Context and history; folded below, what was decided and why, which is easily echoed."""
    context = context_table(trace, queue.decision)
    known = [(r["name"], f"{r['value']} {r['unit']}".strip(), r["doubt"]) for r in context.to_dict("records")]
    out, gates = trace.out, gates_table(trace).to_dict("records")
    faults = [(name, "not believed", words) for name, words in out["faults"].items()]
    decided = [
        ("proposed", out["proposed"] or "nothing", out["proposal_reason"]),
        *((g["gate"], g["verdict"], g["reason"]) for g in gates if g["verdict"] != "ALLOW"),
        ("ordered", out["final"] or "nothing new", out["final_reason"]),
        ("in force", out["in_force"] or "nothing", ""),
    ]
    return (
        f"{_table([*known, *faults])}<details><summary>what was decided, and why (make up your own mind "
        f"first)</summary>{_table(decided)}</details>"
    )


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    cells = "".join(
        "<tr>" + "".join(f"<td style='padding-right:1.5em'>{html.escape(str(c))}</td>" for c in row) + "</tr>"
        for row in rows
    )
    return f"<table style='line-height:1.4'>{cells}</table>"
