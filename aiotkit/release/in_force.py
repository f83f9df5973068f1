"""What the written rule, and the bundle now in force, would have proposed on rows of examples.

They are run on what the rows hold (features, history, context), so that candidate, rule and champion are
compared on the same rows. Gates are left out for all of them alike.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray

from aiotkit.bundle.document import parse_json
from aiotkit.bundle.interface import CONTEXT, FEATURES, HISTORY, PROBABILITIES, parse_interface
from aiotkit.bundle.tuned import with_policy
from aiotkit.core.conditions import TermMemory, fields
from aiotkit.core.decision import Decision, parse_decision
from aiotkit.core.errors import BundleError, DataError
from aiotkit.core.features import NOVELTY, own_word
from aiotkit.core.policy import Rule
from aiotkit.lab.examples import Examples
from aiotkit.lab.judge import actions_of
from aiotkit.release.parity import open_session, run_graph

Names = NDArray[np.object_]
_ROWS = 4096  # whose windows are computed at a time


def rule_actions(examples: Examples, decision: Decision) -> Names:
    """The rule's proposal for each row, run in order of time through each subject; doubt is ``recovery``.

    Args:
        examples: rows sorted by subject and time, with every field the rule reads among their columns.
        decision: whose rule.

    Returns:
        ``[rows]`` names of actions.

    Raises:
        DataError: a column that the rule reads is missing.
    """
    rule = Rule(decision.rule)
    values = _fields(examples, decision, sorted({f for b in decision.rule if b.when for f in fields(b.when)}))
    out = np.empty(len(examples), dtype=object)
    before: str | None = None
    memory: Mapping[str, TermMemory] = {}
    instants = zip(examples.rows["subject"], examples.rows["at_us"], strict=True)
    for i, (subject, at_us) in enumerate(instants):
        held: Mapping[str, TermMemory] = memory if subject == before else {}
        known = {name: column[i] for name, column in values.items() if column[i] is not None}
        proposal = rule.propose(known, held, at_us / 1e6)
        out[i] = proposal.action or decision.recovery
        before, memory = subject, proposal.memory
    return out


def without_head(
    examples: Examples, reads: Collection[str], decision: Decision, novelty: NDArray[Any] | None
) -> Names:
    """What a device does on rows on which it does not follow the head; None where it does.

    Where a signal that the head reads is not known, or a window is unlike training and nobody can be asked,
    the written rule proposes; without a required context value the recovery action is taken
    (``bundle.engine``).

    Args:
        examples: as ``rule_actions`` takes them.
        reads: signals that the head reads, as features or raw.
        decision: its rule and context.
        novelty: ``[rows]`` or ``[rows, 1]``; None without it.
    """
    n, columns = len(examples), examples.columns
    dead = np.zeros(n, dtype=bool)
    for signal in reads:
        mine = [c for c in columns if c.startswith(f"{signal}.")]
        known = examples.with_columns(mine).x if mine else examples.windows.get(signal)
        dead |= False if known is None else np.isnan(known).all(axis=1)
    if novelty is not None and decision.human is None:
        dead |= np.asarray(novelty).reshape(-1) > 1
    lacking = np.zeros(n, dtype=bool)
    for name, declared in decision.context.items():
        mine = [c for c in columns if c == f"context.{name}" or c.startswith(f"context.{name}=")]
        if declared.required and mine:
            lacking |= np.isnan(examples.with_columns(mine).x).any(axis=1)
    out = np.full(n, None, dtype=object)
    if dead.any():
        out[dead] = rule_actions(examples, decision)[dead]
    out[lacking] = decision.recovery
    return out


def followed(proposed: Names, instead: Names) -> Names:
    """What the head proposes, but where the device does something else (``without_head``)."""
    return np.where(pd.isna(instead), proposed, instead).astype(object)


def _fields(examples: Examples, decision: Decision, names: Sequence[str]) -> dict[str, list[object]]:
    """Field -> its value in each row (None = not known); choices as words again."""
    out: dict[str, list[object]] = {}
    for name in names:
        declared = (
            decision.context.get(name.removeprefix("context.")) if name.startswith("context.") else None
        )
        if declared is not None and declared.values is not None:
            hot = examples.with_columns([f"{name}={value}" for value in declared.values]).x
            at = np.where((hot == 1).any(axis=1), hot.argmax(axis=1), -1)
            out[name] = [None if k < 0 else declared.values[k] for k in at]
        elif name == NOVELTY or name.startswith("p."):
            out[name] = [None] * len(examples)
        else:
            column = examples.with_columns([name]).x[:, 0]
            out[name] = [float(v) if np.isfinite(v) else None for v in column]
    return out


def champion_features(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """The features a bundle reads: they must be among the examples' columns for it to be compared."""
    return parse_interface(files["interface.json"]).features


def as_it_sees(files: Mapping[str, bytes], examples: Examples) -> Examples:
    """Examples with a bundle's words of somebody's own as its own graph computes them.

    The same word may be defined otherwise by now, or not at all.

    Raises:
        DataError: it reads such words, and the examples hold no raw windows to compute them from.
    """
    interface = parse_interface(files["interface.json"])
    own = [name for name in interface.features if own_word(name)]
    if not own:
        return examples
    missing = sorted(set(interface.inputs) - set(examples.windows))
    if missing:
        raise DataError(
            f"the bundle computes {own[0]} by a word of its own",
            expected="examples with raw windows",
            found=f"none of {', '.join(missing)}",
            do="Assemble with windows=True.",
        )
    session = open_session(front_of(files["graph.onnx"]), "front")
    found = np.full((len(examples), len(interface.features)), np.nan, dtype=np.float32)
    for start in range(0, len(examples), _ROWS):
        rows = slice(start, start + _ROWS)
        given = {n: np.asarray(examples.windows[n][rows], dtype=np.float32) for n in interface.inputs}
        found[rows] = run_graph(session, given, "front")[FEATURES]
    others = examples.with_columns([c for c in examples.columns if c not in own])
    x = np.concatenate([others.x, found[:, [interface.features.index(name) for name in own]]], axis=1)
    return replace(others, columns=(*others.columns, *own), x=x)


def learned_until(files: Mapping[str, bytes]) -> int | None:
    """The last instant of the rows that a bundle's head learned from; None when its card names none."""
    model = parse_json(files["card.json"], "card.json", BundleError).get("model") or {}
    last = (model.get("learned_from") or {}).get("last_us")
    return None if last is None else int(last)


def champion_actions(files: Mapping[str, bytes], examples: Examples, decision: Decision) -> Names:
    """What the bundle in force would propose for each row, with its margin, at the costs declared now.

    Args:
        files: of the bundle.
        examples: with the columns it reads, and windows where its head reads them raw.
        decision: as it is now.

    Returns:
        ``[rows]`` names of actions, or ``ask``.

    Raises:
        DataError: it knows other states or actions, or reads what the rows do not hold.
    """
    theirs = parse_decision(_json(files["decision.json"]), "decision.json")
    if set(theirs.states) != set(decision.states) or set(theirs.actions) != set(decision.actions):
        raise DataError(
            "the champion cannot be compared",
            expected=f"states {sorted(decision.states)}, actions {sorted(decision.actions)}",
            found=f"states {sorted(theirs.states)}, actions {sorted(theirs.actions)}",
        )
    if not parse_interface(files["interface.json"]).states or isinstance(decision.costs, str):
        return rule_actions(as_it_sees(files, examples), theirs)
    return head_decides(files, examples, decision, "the champion", written=theirs)[1]


def head_decides(
    files: Mapping[str, bytes], examples: Examples, decision: Decision, name: str, *, written: Decision
) -> tuple[NDArray[Any], Names]:
    """What a bundle's head believes of each row, and what its device would do, with its own margin.

    Args:
        files: of the bundle.
        examples: with the columns it reads, and windows where its head reads them raw.
        decision: its costs are those of now.
        name: of the bundle, for errors.
        written: whose rule decides where the head is not followed.

    Returns:
        Probabilities ``[rows, states of the decision]``, and ``[rows]`` names of actions, or ``ask``.

    Raises:
        DataError: it reads what the rows do not hold.
    """
    interface = parse_interface(files["interface.json"])
    examples = as_it_sees(files, examples)
    features, history, context = interface.features, interface.history_inputs, interface.context_inputs
    given = {FEATURES: features, HISTORY: history, CONTEXT: context}
    feeds = {k: examples.with_columns(v).x for k, v in given.items() if v}
    feeds |= {k: np.asarray(w, dtype=np.float32) for k, w in examples.windows.items()}
    head = head_of(files["graph.onnx"])
    missing = {i.name for i in onnx.load_from_string(head).graph.input} - set(feeds)
    if missing:
        raise DataError(f"{name} reads raw windows", found=f"none of {', '.join(sorted(missing))}")
    found = run_graph(open_session(head, name), feeds, name)
    p = found[PROBABILITIES][:, [interface.states.index(state) for state in decision.states]]
    novelty = found.get(NOVELTY)
    said = actions_of(p, with_policy(decision, files), novelty)
    return p, followed(said, without_head(examples, interface.reads, written, novelty))


def front_of(graph: bytes) -> bytes:
    """The part of a bundle's graph that computes its features, from windows."""
    model = onnx.load_from_string(graph)
    windows = [i.name for i in model.graph.input if i.name not in (HISTORY, CONTEXT)]
    return _part(model, windows, [FEATURES])


def head_of(graph: bytes) -> bytes:
    """The part of a bundle's graph that follows its features: from features, history and context to ``p``."""
    model = onnx.load_from_string(graph)
    given = [i.name for i in model.graph.input] + [FEATURES]
    outputs = [o.name for o in model.graph.output if o.name != FEATURES]
    return _part(model, given, outputs)


def _part(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """A part of a graph, without the inputs that it does not read."""
    part = onnx.utils.Extractor(model).extract_model(list(inputs), list(outputs))
    read = {name for node in part.graph.node for name in node.input}
    kept = [i for i in part.graph.input if i.name in read]
    del part.graph.input[:]
    part.graph.input.extend(kept)
    data: bytes = part.SerializeToString(deterministic=True)
    return data


def _json(data: bytes) -> dict[str, object]:
    import json

    return dict(json.loads(data))


def champion_reads(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """The signals whose raw windows a bundle's head reads; none for most."""
    interface = parse_interface(files["interface.json"])
    if not interface.states:
        return ()
    given = {i.name for i in onnx.load_from_string(head_of(files["graph.onnx"])).graph.input}
    return tuple(sorted(given & set(interface.inputs)))
