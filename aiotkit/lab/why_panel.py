"""What-if in a notebook: pick a context value or a signal, move it, and see what would be decided."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from aiotkit.bundle.engine import Engine
from aiotkit.lab.trace import Trace
from aiotkit.lab.why import changeable, sweep, values_to_try


class WhatIf:
    """A choice of what to change and a slider over its values; ``widget`` is what the notebook shows."""

    def __init__(self, engine: Engine, trace: Trace, field: str) -> None:
        self._engine, self._trace = engine, trace
        declared = engine.decision.context
        known = [
            f for f in changeable(engine.decision) if _has_scale(declared.get(f.removeprefix("context.")))
        ]
        self._field = widgets.Dropdown(options=known, value=field, description="change")
        self._value = widgets.SelectionSlider(options=["…"], description="to", continuous_update=False)
        self._said = widgets.HTML()
        self.widget = widgets.VBox([widgets.HBox([self._field, self._value]), self._said])
        self._field.observe(lambda _: self._scale(), names="value")
        self._value.observe(lambda _: self.show(), names="value")
        self._scale()

    def choose(self, field: str, value: float | str) -> None:
        """What moving the widgets does; the nearest value on the scale is taken."""
        self._field.value = field
        tried = values_to_try(self._engine.decision, field)
        near = value if isinstance(value, str) else min(tried, key=lambda v: abs(float(v) - float(value)))
        self._value.value = near

    @property
    def words(self) -> str:
        """What is shown, as HTML."""
        return str(self._said.value)

    def _scale(self) -> None:
        field = self._field.value
        tried = values_to_try(self._engine.decision, field)
        now: Any = (
            1.0 if "." not in field else self._trace.context.get(field.partition(".")[2], (None, 0.0))[0]
        )
        start = now if isinstance(now, str) and now in tried else tried[0]
        if isinstance(now, float):
            start = min(tried, key=lambda v: abs(float(v) - now))
        options = [(v if isinstance(v, str) else f"{v:.3g}", v) for v in tried]
        self._value.options = options
        self._value.value = start
        self.show()

    def show(self) -> None:
        """Decide with what is chosen, and say what came of it."""
        row = sweep(self._engine, self._trace, self._field.value, [self._value.value]).iloc[0]
        decision = self._engine.decision
        p = ", ".join(f"{s} {row[f'p.{s}']:.1%}" for s in decision.states)
        costs = ", ".join(f"{a} {row[f'cost.{a}']:,.0f}" for a in decision.actions)
        lines = [f"<b>{html.escape(str(row['ordered']))}</b>: {html.escape(str(row['why']))}"]
        if row[[f"p.{s}" for s in decision.states]].isna().all():
            lines.append("by the written rule")
        else:
            lines += [p, f"expected cost in {html.escape(decision.currency)}: {costs}"]
        self._said.value = "<br>".join(lines)


def _has_scale(declared: Any) -> bool:
    return declared is None or declared.values is not None or declared.range is not None
