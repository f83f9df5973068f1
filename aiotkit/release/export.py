"""One graph from a front and a trained head, refused unless it decides what the library decides.

``front`` (windows to ``features``) and ``head`` (``features`` to ``p`` and ``novelty``) are graphs of their
own, so that each can be run apart. Joined they are what the device runs: the glue gathers from features,
history and context the columns the head was trained on, in its order. Nothing about the machine goes into
the bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from aiotkit.bundle.interface import CONTEXT, FEATURES, HISTORY, PROBABILITIES, Interface
from aiotkit.core.decision import Decision
from aiotkit.core.errors import BundleError
from aiotkit.core.features import NOVELTY, own_word
from aiotkit.lab.examples import context_columns, history_columns
from aiotkit.lab.features import OPSET, canonical_graph, export_front, rename_values
from aiotkit.lab.own_words import check_words
from aiotkit.release.graph import audit_graph
from aiotkit.release.parity import Parity, Windows, graph_parity, head_parity, worse

if TYPE_CHECKING:
    from aiotkit.lab.own_words import OwnWords
    from aiotkit.lab.trained import Trained

#: version of ``ai.onnx.ml`` that heads are written in
ML_OPSET = 3


@dataclass(frozen=True, slots=True)
class Exported:
    """A decision's graph and what it was joined from.

    Attributes:
        graph: windows, ``history`` and ``context`` to ``features``, ``p`` and, if the head has it,
            ``novelty``.
        front: windows to ``features`` alone.
        head: ``features`` and raw signals to ``p`` and ``novelty`` alone.
        interface: names and sizes of the graph's inputs and outputs.
        parity: what the comparison with the library found.
        decision_digest: of the decision it was trained for.
        family: of the head.
        columns: of its ``features``, in order.
        figures: what training measured.
        seed: of training.
        variant: ``float32``, or how the head was quantized.
        notes: what training left out and why.
        own_words: digest of the file that defines words of one's own among the features; '' = there are none.
    """

    graph: bytes
    front: bytes
    head: bytes
    interface: Interface
    parity: Parity
    decision_digest: str
    family: str
    columns: tuple[str, ...]
    figures: Mapping[str, float]
    seed: int
    variant: str = "float32"
    notes: tuple[str, ...] = ()
    own_words: str = ""

    @property
    def margin(self) -> float:
        """What an action must be expected to save, as training measured it (``bundle.tuned``); 0 = none."""
        found = self.figures.get("margin", 0.0)
        return found if math.isfinite(found) and found > 0 else 0.0

    def with_head(self, head: bytes, variant: str) -> Exported:
        """The same with another head of the same inputs and outputs (a quantized one)."""
        graph = join(self.front, head, self.interface, self.columns)
        audit_graph(graph)
        return replace(self, graph=graph, head=head, variant=variant)


def export(
    decision: Decision,
    trained: Trained,
    windows: Windows | None = None,
    words: OwnWords | None = None,
) -> Exported:
    """Join the decision's front with a trained head.

    Args:
        decision: what is decided.
        trained: a head for it, as ``lab.train`` gives it.
        windows: ``{signal: [n, samples]}`` on which the whole graph is compared too, beside random ones.
        words: statistics of one's own among the head's features (``x_…``), which go into the graph.

    Raises:
        DataError: a word of one's own is not there, breaks a promise (``lab.own_words``), or is of another
            file than the head was trained with.
        BundleError: the head is for another decision, has foreign operators, other inputs or outputs than
            it says; or a label flips or a probability differs by more than ``TOLERANCE`` from the library's.
    """
    head = _clean_head(trained)
    _check_fits(decision, trained, head)
    parity = head_parity(trained, head)
    _check_words(decision, trained, words)
    front, base = export_front(decision, trained.features, words)
    interface = _interface(base, trained, head)
    graph = join(front, head, interface, trained.columns)
    audit_graph(graph)
    made = Exported(
        graph=graph,
        front=front,
        head=head,
        interface=interface,
        parity=parity,
        decision_digest=trained.decision_digest,
        family=trained.family,
        columns=trained.columns,
        figures=dict(trained.figures),
        seed=trained.seed,
        notes=trained.notes,
        own_words=trained.own_words,
    )
    return replace(made, parity=worse(parity, graph_parity(decision, trained, made, windows, words)))


def _check_words(decision: Decision, trained: Trained, words: OwnWords | None) -> None:
    """Refuse words of one's own that are not those of training, or break a promise of window statistics."""
    if words is not None and any(own_word(name) for name in trained.features):
        words.must_be(trained.own_words, f"head '{trained.family}'")
        check_words(words, decision, trained.features)


def _clean_head(trained: Trained) -> bytes:
    """The head's canonical bytes; refused in words where it is no graph or not a standard one."""
    what = f"head '{trained.family}'"
    try:
        model = onnx.load_from_string(trained.head)
        _check_versions(model, what)
        for field in ("metadata_props", "training_info"):
            model.ClearField(field)
        head = canonical_graph(model)
    except BundleError:
        raise
    except Exception as error:  # what a broken file raises is not one class
        raise BundleError(f"{what}: not a valid ONNX graph", found=str(error)[:200]) from error
    audit_graph(head)
    return head


def _check_versions(model: Any, what: str) -> None:
    versions = {o.domain or "ai.onnx": o.version for o in model.opset_import}
    for domain, wanted in (("ai.onnx", OPSET), ("ai.onnx.ml", ML_OPSET)):
        if versions.get(domain, wanted) != wanted:
            raise BundleError(
                f"{what}: operator set {domain}", expected=str(wanted), found=str(versions[domain])
            )


def _check_fits(decision: Decision, trained: Trained, head: bytes) -> None:
    """Refuse a head for another decision, or whose graph is not what its own words say."""
    what = f"head '{trained.family}'"
    if trained.decision_digest != decision.digest:
        raise BundleError(
            f"{what}: trained for another decision",
            expected=decision.digest[:19],
            found=trained.decision_digest[:19],
            do="Train it again with this decision file.",
        )
    if set(trained.states) != set(decision.states):
        states = [str(sorted(given)) for given in (decision.states, trained.states)]
        raise BundleError(f"{what}: states", expected=states[0], found=states[1])
    if len(set(trained.columns)) < len(trained.columns) or not trained.columns + trained.signals:
        raise BundleError(f"{what}: columns", expected="some, each once", found=str(trained.columns)[:200])
    given = {*trained.features, *decision.features(), *history_columns(decision), *context_columns(decision)}
    missing = [c for c in trained.columns if c not in given]
    missing += [s for s in trained.signals if s not in decision.signals]
    if missing:
        raise BundleError(f"{what}: reads what the graph does not give", found=", ".join(missing))
    graph = onnx.load_from_string(head).graph
    inputs, outputs = {i.name for i in graph.input}, [o.name for o in graph.output]
    wanted = set(trained.signals) | ({FEATURES} if trained.columns else set())
    if inputs != wanted:
        raise BundleError(f"{what}: inputs", expected=str(sorted(wanted)), found=str(sorted(inputs)))
    if outputs not in ([PROBABILITIES], [PROBABILITIES, NOVELTY]):
        raise BundleError(f"{what}: outputs", expected="p, novelty", found=", ".join(outputs))


def _interface(base: Interface, trained: Trained, head: bytes) -> Interface:
    outputs = {o.name for o in onnx.load_from_string(head).graph.output}
    return Interface.model_validate(
        base.model_dump()
        | {
            "head_reads": tuple(sorted(trained.reads)),
            "states": trained.states,
            "history_inputs": tuple(c for c in trained.columns if c.startswith(f"{HISTORY}.")),
            "context_inputs": tuple(c for c in trained.columns if c.startswith(f"{CONTEXT}.")),
            "novelty": NOVELTY in outputs,
        }
    )


def join(front: bytes, head: bytes, interface: Interface, columns: Sequence[str]) -> bytes:
    """One graph from a front and a head; names of the two cannot meet (``front/…``, ``head/…``).

    Args:
        front: windows to ``features``.
        head: ``features`` (the ``columns``) and signals by name to ``p`` and ``novelty``.
        interface: of the whole.
        columns: what the head's ``features`` hold, in order.
    """
    first, last = onnx.load_from_string(front), onnx.load_from_string(head)
    signals = set(interface.inputs)
    rename_values(first.graph, lambda n: n if n in signals | {FEATURES} else f"front/{n}")
    shared = {i.name for i in last.graph.input} - ({FEATURES} if columns else set())
    outputs = {o.name for o in last.graph.output}
    rename_values(last.graph, lambda n: n if n in shared | outputs else f"head/{n}")
    glue, constants = _glue(interface, columns)
    slow = [(HISTORY, len(interface.history_inputs)), (CONTEXT, len(interface.context_inputs))]
    graph = helper.make_graph(
        [*first.graph.node, *glue, *last.graph.node],
        "decision",
        [*first.graph.input, *(_floats(name, n) for name, n in slow if n)],
        [
            _floats(FEATURES, len(interface.features)),
            _floats(PROBABILITIES, len(interface.states)),
            *([_floats(NOVELTY, 1)] if interface.novelty else []),
        ],
        [*first.graph.initializer, *constants, *last.graph.initializer],
    )
    used = {node.domain for node in _nodes(graph)} & {"ai.onnx.ml"}
    versions = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(d, ML_OPSET) for d in sorted(used))]
    return canonical_graph(helper.make_model(graph, opset_imports=versions))


def _floats(name: str, n: int) -> Any:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", n])


def _glue(interface: Interface, columns: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Nodes that gather ``head/features`` from the front's outputs and the slow inputs, and their weights."""
    if not columns:
        return [], []
    slow = {HISTORY: interface.history_inputs, CONTEXT: interface.context_inputs}
    parts = [FEATURES, *(name for name, listed in slow.items() if listed)]
    names = [*interface.features, *interface.history_inputs, *interface.context_inputs]
    nodes = [helper.make_node("Concat", parts, ["glue/all"], axis=1)] if len(parts) > 1 else []
    whole = "glue/all" if nodes else FEATURES
    nodes.append(helper.make_node("Gather", [whole, "glue/index"], [f"head/{FEATURES}"], axis=1))
    index = np.array([names.index(column) for column in columns], dtype=np.int64)
    return nodes, [numpy_helper.from_array(index, "glue/index")]


def _nodes(graph: Any) -> list[Any]:
    inner = [
        g for n in graph.node for a in n.attribute for g in (*([a.g] if a.HasField("g") else []), *a.graphs)
    ]
    return [*graph.node, *(node for g in inner for node in _nodes(g))]
