"""Why was this decided? The inputs against training, what-if through the engine, what the head leans on.

What-if answers come from the engine that decided, with everything else as it was recorded: they say what the
device would have done, not what would have happened. Contributions are by *occlusion* (Zeiler and Fergus
2014): one column at a time is replaced by what is usual, and the change of the probabilities is shown.
Columns that tell the same may each seem idle; contributions do not add up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.interface import CONTEXT, FEATURES, HISTORY, PROBABILITIES, Interface
from aiotkit.bundle.session import open_graph
from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError, did_you_mean
from aiotkit.core.records import Decided, Reading
from aiotkit.lab.trace import Trace

Value = float | str
_POINTS = 61
#: what a signal's window is multiplied by where it is changed
_FACTORS = (0.25, 4.0)
#: what is ordered where no action is
ASKED, NOTHING = "ask a person", "nothing new"


def against_training(trace: Trace, reference: bytes) -> pd.DataFrame:
    """Each feature beside what the bundle was built from, the most unusual first.

    Args:
        trace: the decision.
        reference: the bundle's ``reference.json``.

    Returns:
        ``feature``, ``value``, ``low``, ``median``, ``high`` (5 %, 50 % and 95 % of training), ``place``
        (share of training that lay below, between the outermost levels that are kept) and ``apart``:
        distance from the median, 1 = as far as the 5 % or 95 % level on that side.
    """
    said = json.loads(reference)
    levels, rows = said["quantile_levels"], []
    for name, value in trace.out["features"].items():
        told = said["features"].get(name)
        if told is None or not told["quantiles"]:
            continue
        at = dict(zip(levels, told["quantiles"], strict=True))
        number, low, median, high = float(value), at[0.05], at[0.5], at[0.95]
        room = (high - median) if number >= median else (median - low)
        apart = (number - median) / room if room > 0 else np.sign(number - median) * np.inf
        place = float(np.interp(number, told["quantiles"], levels)) if np.isfinite(number) else np.nan
        rows.append((name, number, low, median, high, place, 0.0 if number == median else apart))
    columns = ["feature", "value", "low", "median", "high", "place", "apart"]
    table = pd.DataFrame(rows, columns=columns)
    order = table["apart"].abs().fillna(np.inf).sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def what_if(
    engine: Engine,
    trace: Trace,
    *,
    context: Mapping[str, Value | None] | None = None,
    windows: Mapping[str, NDArray[np.float32]] | None = None,
) -> Decided:
    """Decide again with something else: the rest is as recorded.

    Args:
        engine: of the bundle that decided, or of another one for the same decision.
        trace: the decision, with its window.
        context: name -> value (None = never heard), as fresh as what was recorded.
        windows: signal -> float32 ``[samples]``.

    Raises:
        DataError: the window is not at hand, or something is named that the decision does not have.
    """
    if trace.window is None:
        raise DataError(f"{trace.name}: its window never left the device", do="Ask there, or take another.")
    for kind, given, known in (
        ("context", context or {}, engine.decision.context),
        ("signal", windows or {}, engine.decision.signals),
    ):
        for name in given:
            if name not in known:
                hint = did_you_mean(name, known) or f"Known: {', '.join(known)}."
                raise DataError(f"what if: unknown {kind} '{name}'", do=hint)
    inputs, state = trace.inputs()
    heard = dict(inputs.context)
    for name, value in (context or {}).items():
        age = heard[name].age_s if name in heard else 0.0
        heard[name] = Reading(value, min(age, engine.decision.context[name].max_age_s))
    changed = replace(inputs, context=heard, windows={**inputs.windows, **(windows or {})})
    return engine.decide(state, changed)[0]


def changeable(decision: Decision) -> tuple[str, ...]:
    """What ``sweep`` can change: ``context.<name>``, and signals by name."""
    return (*(f"context.{name}" for name in decision.context), *decision.signals)


def values_to_try(decision: Decision, field: str) -> list[Value]:
    """Values for ``sweep``: every choice, a number's declared range, factors from 1/4 to 4 for a signal."""
    name = field.removeprefix("context.")
    if field in decision.signals:
        return [float(v) for v in np.geomspace(*_FACTORS, _POINTS)]
    declared = decision.context.get(name) if field.startswith("context.") else None
    if declared is None:
        known = changeable(decision)
        hint = did_you_mean(field, known) or f"One of {', '.join(known)}."
        raise DataError(f"what if: '{field}' cannot be changed", do=hint)
    if declared.values is not None:
        return list(declared.values)
    if declared.range is None:
        raise DataError(f"what if: '{field}' has no declared range", do="Give the values to try.")
    return [float(v) for v in np.linspace(*declared.range, _POINTS)]


def sweep(engine: Engine, trace: Trace, field: str, values: Sequence[Value] | None = None) -> pd.DataFrame:
    """What would be decided for each value of one context value, or for one signal made weaker and stronger.

    Args:
        engine: of the bundle that decided.
        trace: the decision, with its window.
        field: ``context.<name>``, or a signal: its window is multiplied by each value.
        values: default: ``values_to_try``.

    Returns:
        One row a value: ``value``, ``p.<state>``, ``cost.<action>``, ``novelty``, ``proposed``, ``ordered``
        (an action, ``ASKED`` or ``NOTHING``), ``why``; p and costs are NaN where the written rule decides.
    """
    tried = values_to_try(engine.decision, field) if values is None else list(values)
    name, rows = field.removeprefix("context."), []
    for value in tried:
        if field in engine.decision.signals:
            if name not in trace.windows:
                raise DataError(f"{trace.name}: no window of '{name}'", found=", ".join(trace.windows))
            scaled = np.asarray(trace.windows[name] * np.float32(value), dtype=np.float32)
            found = what_if(engine, trace, windows={name: scaled})
        else:
            found = what_if(engine, trace, context={name: value})
        rows.append({"value": value} | _said(found, engine.decision))
    table = pd.DataFrame(rows)
    table.attrs.update(field=field, now=_now(trace, field))
    return table


def overview(engine: Engine, trace: Trace) -> pd.DataFrame:
    """What each single change could have done, the most consequential first.

    Returns:
        ``field``, ``orders`` (what would be ordered somewhere on its scale), ``swing``: the largest change of
        a probability over the scale, NaN where the written rule decides.
    """
    rows = []
    for field in changeable(engine.decision):
        declared = engine.decision.context.get(field.removeprefix("context."))
        if declared is not None and declared.values is None and declared.range is None:
            continue
        found = sweep(engine, trace, field)
        p = found[[f"p.{s}" for s in engine.decision.states]]
        rows.append((field, tuple(dict.fromkeys(found["ordered"])), float((p.max() - p.min()).max())))
    table = pd.DataFrame(rows, columns=["field", "orders", "swing"])
    rank = table.assign(n=table["orders"].map(len)).sort_values(
        ["n", "swing"], ascending=False, kind="stable"
    )
    return rank.drop(columns="n").assign(orders=rank["orders"].map(", ".join)).reset_index(drop=True)


def _now(trace: Trace, field: str) -> Value | None:
    """The value that was recorded; 1 for a signal, whose window is as it was."""
    return trace.context.get(field.removeprefix("context."), (None, 0.0))[0] if "." in field else 1.0


def _said(found: Decided, decision: Decision) -> dict[str, Any]:
    p, costs = found.p or {}, found.expected_costs
    row: dict[str, Any] = {f"p.{s}": p.get(s, np.nan) for s in decision.states}
    row |= {f"cost.{a}": costs.get(a, np.nan) for a in decision.actions}
    row |= {"novelty": np.nan if found.novelty is None else found.novelty}
    ordered = found.final or (ASKED if found.mode == "ask" else NOTHING)
    return row | {"proposed": found.proposed, "ordered": ordered, "why": found.final_reason}


def occlusion(head: bytes, interface: Interface, trace: Trace, reference: bytes) -> pd.DataFrame:
    """What each column contributed to the probabilities, by replacing it and asking the head again.

    A feature is replaced by its median in training. History and context, whose medians no bundle keeps, are
    made unknown, for which the head itself puts what is usual; the values of a choice go together.

    Args:
        head: the graph from features, history and context to ``p`` (``release.in_force.head_of``).
        interface: of the bundle.
        trace: the decision.
        reference: the bundle's ``reference.json``.

    Returns:
        ``column``, ``value``, ``replaced_by`` and ``p.<state>``: the probability as it was less the one
        without the column; largest change first.

    Raises:
        DataError: the rule decided, the head reads raw windows, or it no longer says what was recorded.
    """
    if not interface.states or trace.out["p"] is None:
        raise DataError(f"{trace.name}: nothing to take away: the written rule decided")
    base, session = _inputs(interface, trace), open_graph(head)
    read = [i.name for i in session.get_inputs()]
    if raw := [name for name in read if name not in base]:
        raise DataError(
            f"{trace.name}: nothing to take away: the head reads raw windows", found=", ".join(raw)
        )

    def ask(feeds: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
        p = session.run([PROBABILITIES], {name: feeds[name] for name in read})[0]
        return np.asarray(p[0], dtype=np.float64)

    before = ask(base)
    recorded = np.array([float(trace.out["p"][state]) for state in interface.states])
    if not np.allclose(before, recorded, atol=1e-4):
        raise DataError(f"{trace.name}: the head", expected=str(recorded), found=str(before))
    rows = []
    for column, value, words, feeds in _occluded(interface, trace, base, _medians(reference)):
        change = before - ask(feeds)
        told = {f"p.{s}": float(c) for s, c in zip(interface.states, change, strict=True)}
        rows.append({"column": column, "value": value, "replaced_by": words, **told})
    table = pd.DataFrame(rows)
    size = table.filter(like="p.").abs().max(axis=1)
    return table.loc[size.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)


def likeliest_trouble(trace: Trace, decision: Decision) -> str:
    """The likeliest state but the one that silence means; the first where there are no probabilities."""
    p = trace.out["p"] or {}
    states = [s for s in decision.states if s != decision.outcome.silence]
    return max(states, key=lambda s: float(p.get(s, 0)))


def _medians(reference: bytes) -> dict[str, float]:
    said = json.loads(reference)
    middle = said["quantile_levels"].index(0.5)
    return {n: told["quantiles"][middle] for n, told in said["features"].items() if told["quantiles"]}


def _inputs(interface: Interface, trace: Trace) -> dict[str, NDArray[np.float32]]:
    """Features, history and context of the decision as the head takes them, ``[1, columns]``."""
    faults = trace.out["faults"]

    def context(column: str) -> float:
        name, equals, choice = column.partition(".")[2].partition("=")
        value = trace.context.get(name, (None, 0.0))[0]
        if value is None or name in faults:
            return float("nan")
        return float(value == choice) if equals else float(value)

    features = [float(trace.out["features"][name]) for name in interface.features]
    history = [float(trace.out["history"][n.partition(".")[2]]) for n in interface.history_inputs]
    values = {FEATURES: features, HISTORY: history, CONTEXT: [context(n) for n in interface.context_inputs]}
    return {name: np.array([row], dtype=np.float32) for name, row in values.items()}


def _occluded(
    interface: Interface, trace: Trace, base: Mapping[str, NDArray[np.float32]], medians: Mapping[str, float]
) -> list[tuple[str, str, str, dict[str, NDArray[np.float32]]]]:
    """(column, its value, what it is replaced by, the inputs without it)."""
    out = []
    for i, name in enumerate(interface.features):
        median = medians.get(name, np.nan)
        words = f"{median:.4g}, its median" if np.isfinite(median) else "not known"
        out.append((name, f"{base[FEATURES][0, i]:.4g}", words, _with(base, FEATURES, [i], median)))
    for i, name in enumerate(interface.history_inputs):
        out.append((name, f"{base[HISTORY][0, i]:.4g}", "not known", _with(base, HISTORY, [i], np.nan)))
    for name in dict.fromkeys(n.partition("=")[0] for n in interface.context_inputs):
        which = [i for i, n in enumerate(interface.context_inputs) if n.partition("=")[0] == name]
        value = trace.context.get(name.partition(".")[2], (None, 0.0))[0]
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        out.append((name, shown, "not known", _with(base, CONTEXT, which, np.nan)))
    return out


def _with(
    base: Mapping[str, NDArray[np.float32]], part: str, which: Sequence[int], value: float
) -> dict[str, NDArray[np.float32]]:
    changed = base[part].copy()
    changed[0, list(which)] = value
    return {**base, part: changed}
