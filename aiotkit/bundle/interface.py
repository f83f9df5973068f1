"""What goes into a bundle's graph and what comes out of it: names, sizes and order.

Inputs are one float32 array ``[batch, samples]`` per signal, named as the signal, and where a model reads
them ``history`` ``[batch, history_inputs]`` and ``context`` ``[batch, context_inputs]`` (a choice as one
column a value, 1 or 0; NaN = not known). Outputs are ``features`` (float32 ``[batch, features]``) and, when
there is a model, ``p`` (``[batch, states]``) and ``novelty`` (``[batch, 1]``; above 1 = unlike training).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from aiotkit.bundle.document import parse_document
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.decision import Decision, Name
from aiotkit.core.features import NOVELTY
from aiotkit.core.strict import Strict

#: name of the graph output that holds the features
FEATURES = "features"
#: name of the graph output that holds the probabilities of the states
PROBABILITIES = "p"
#: names of the graph inputs that hold history and context
HISTORY, CONTEXT = "history", "context"

Field_ = Annotated[str, Field(min_length=1, max_length=128)]


class Interface(Strict):
    """The graph's contract. ``features`` and ``states`` name the columns of the outputs, in order.

    ``states`` empty = the graph has no output ``p`` and the written rule proposes. ``history_inputs`` and
    ``context_inputs`` name the columns of those inputs; empty = the graph has no such input.
    ``head_reads``: the signals whose windows a model reads, as features or raw; empty = all of them. While
    one of them cannot be believed the engine decides by the written rule.
    """

    format: Literal[1] = 1
    inputs: Mapping[Name, PositiveInt] = Field(min_length=1)
    features: tuple[Field_, ...] = ()
    states: tuple[Name, ...] = ()
    context_inputs: tuple[Field_, ...] = ()
    history_inputs: tuple[Field_, ...] = ()
    novelty: bool = False
    head_reads: tuple[Name, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The signals whose windows a model reads: ``head_reads``, or all of them."""
        return self.head_reads or tuple(self.inputs)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for key in ("features", "states", "context_inputs", "history_inputs", "head_reads"):
            names = getattr(self, key)
            if len(set(names)) != len(names):
                raise ValueError(f"{key} names something twice: {list(names)}")
        for key, scope in (("history_inputs", HISTORY), ("context_inputs", CONTEXT)):
            for name in getattr(self, key):
                if not name.startswith(f"{scope}."):
                    raise ValueError(f"{key} names columns of {scope}, like '{scope}.x'; found '{name}'")
        for name in self.head_reads:
            if name not in self.inputs:
                raise ValueError(f"head_reads: '{name}' is no input; inputs are {sorted(self.inputs)}")
        return self

    def canonical(self) -> bytes:
        """The bytes of ``interface.json``; what was added to format 1 later is left out where unused."""
        data: dict[str, Any] = self.model_dump(mode="json")
        later = {key for key in ("novelty", "head_reads") if not data[key]}
        return canonical_bytes({key: value for key, value in data.items() if key not in later})

    @property
    def input_widths(self) -> dict[str, int]:
        """Every graph input with the length of its last axis."""
        sizes = {HISTORY: len(self.history_inputs), CONTEXT: len(self.context_inputs)}
        return {**self.inputs, **{name: size for name, size in sizes.items() if size}}

    @property
    def output_widths(self) -> dict[str, int]:
        """Every graph output that is promised with the length of its last axis, in order."""
        sizes = {FEATURES: len(self.features)}
        if self.states:
            sizes[PROBABILITIES] = len(self.states)
        if self.novelty:
            sizes[NOVELTY] = 1
        return sizes

    @property
    def outputs(self) -> tuple[str, ...]:
        """The graph outputs this interface promises."""
        return tuple(self.output_widths)


def interface_of(
    decision: Decision,
    *,
    states: tuple[str, ...] = (),
    features: tuple[str, ...] | None = None,
    history: tuple[str, ...] = (),
    context: tuple[str, ...] = (),
    novelty: bool = False,
) -> Interface:
    """The interface a decision file asks for: its signals' windows in, its features out.

    Args:
        decision: what is to be decided.
        states: columns of ``p``; empty = no head.
        features: columns of ``features``; by default what rule, gates and history read.
        history: columns of ``history``, like ``history.trend``.
        context: columns of ``context``, like ``context.load`` or ``context.mode=idle``.
        novelty: whether the graph says how far a window lies from those of training.
    """
    return Interface(
        inputs={name: decision.samples(name) for name in sorted(decision.signals)},
        features=decision.features() if features is None else features,
        states=states,
        context_inputs=context,
        history_inputs=history,
        novelty=novelty,
    )


def parse_interface(data: bytes) -> Interface:
    """Read ``interface.json``.

    Raises:
        BundleError: naming every problem.
    """
    return parse_document(data, Interface, "interface.json")
