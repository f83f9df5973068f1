"""What goes into a bundle's graph and what comes out of it: names, sizes and order.

Inputs are one float32 array ``[batch, samples]`` per signal, named as the signal. Outputs are
``features`` (float32 ``[batch, features]``) and, when there is a model, ``p`` (``[batch, states]``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from aiotkit.bundle.document import parse_document
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.decision import Decision, Name
from aiotkit.core.strict import Strict

#: name of the graph output that holds the features
FEATURES = "features"
#: name of the graph output that holds the probabilities of the states
PROBABILITIES = "p"

Field_ = Annotated[str, Field(min_length=1, max_length=128)]


class Interface(Strict):
    """The graph's contract. ``features`` and ``states`` name the columns of the outputs, in order.

    ``states`` empty = rule only: the graph has no output ``p``.
    """

    format: Literal[1] = 1
    inputs: Mapping[Name, PositiveInt] = Field(min_length=1)
    features: tuple[Field_, ...] = ()
    states: tuple[Name, ...] = ()
    context_inputs: tuple[Field_, ...] = ()
    history_inputs: tuple[Field_, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for key in ("features", "states", "context_inputs", "history_inputs"):
            names = getattr(self, key)
            if len(set(names)) != len(names):
                raise ValueError(f"{key} names something twice: {list(names)}")
        return self

    def canonical(self) -> bytes:
        """The bytes of ``interface.json``."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The graph outputs this interface promises."""
        return (FEATURES, PROBABILITIES) if self.states else (FEATURES,)


def interface_of(decision: Decision, *, states: tuple[str, ...] = ()) -> Interface:
    """The interface a decision file asks for: its signals' windows in, its features out."""
    return Interface(
        inputs={name: decision.samples(name) for name in sorted(decision.signals)},
        features=decision.features(),
        states=states,
    )


def parse_interface(data: bytes) -> Interface:
    """Read ``interface.json``.

    Raises:
        BundleError: naming every problem.
    """
    return parse_document(data, Interface, "interface.json")
