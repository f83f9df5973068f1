"""What a candidate was judged by, as one document whose digest an approval names.

Nothing in it depends on when or where it was written but what was measured there (``bench``): no clock,
no path, no user.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, JsonValue, model_validator

from aiotkit.bundle.document import parse_document
from aiotkit.bundle.manifest import DecisionRef
from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.strict import Strict

Cell = str | bool | int | float | None
Row = Mapping[str, Cell]
Digest = str


class GateResult(Strict):
    """Whether a candidate passed one gate, in words, and the figures it was judged by."""

    name: str = Field(min_length=1)
    passed: bool
    words: str = Field(min_length=1)
    figures: Mapping[str, Cell] = {}


class Evidence(Strict):
    """The judgement of one candidate.

    Attributes:
        decision: what it decides.
        dataset: digest of the examples it was learned from.
        labels: how many rows by status (``mature``, ``verified``, ``censored``, ``pending``, …).
        family: of the head; ``seed`` of its training; ``variant`` that was chosen.
        margin: what an action had to be expected to save, in the decision's currency; see ``bundle.tuned``.
        bundle: digest of the unsigned bundle that was judged; ``champion`` of the one now in force.
        gates: all of them, passed or not.
        tables: name -> rows: ``money``, ``events``, ``families``, ``slices``, ``sensitivity``,
            ``reliability``, ``leaks``; ``own_words``: features computed by a word of somebody's own, and the
            digest of the file that defines it.
        quantization: one row a variant.
        bench: of the chosen variant.
        figures: what training measured.
    """

    format: Literal[1] = 1
    decision: DecisionRef
    dataset: Digest
    labels: Mapping[str, int] = {}
    family: str
    seed: int
    variant: str
    margin: float = 0.0
    bundle: Digest
    champion: Digest | None = None
    gates: tuple[GateResult, ...] = Field(min_length=1)
    tables: Mapping[str, tuple[Row, ...]] = {}
    quantization: tuple[Row, ...] = ()
    bench: Mapping[str, JsonValue] = {}
    figures: Mapping[str, Cell] = {}

    @model_validator(mode="after")
    def _each_gate_once(self) -> Self:
        names = [gate.name for gate in self.gates]
        if len(set(names)) < len(names):
            raise ValueError(f"a gate is there twice: {names}")
        return self

    @property
    def passed(self) -> bool:
        """Whether every gate was passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def refused(self) -> tuple[GateResult, ...]:
        """The gates that were not passed."""
        return tuple(gate for gate in self.gates if not gate.passed)

    def gate(self, name: str) -> GateResult:
        """A gate by its name (``KeyError`` when there is none)."""
        return {gate.name: gate for gate in self.gates}[name]

    def canonical(self) -> bytes:
        """The bytes of ``evidence.json``."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """Identity: sha256 of the canonical bytes."""
        return digest(self.canonical())


def parse_evidence(data: bytes) -> Evidence:
    """Read ``evidence.json``.

    Raises:
        BundleError: naming every problem.
    """
    return parse_document(data, Evidence, "evidence.json")


def cell(value: Any) -> Cell:
    """A value that JSON can carry: numbers as plain ones, what is not finite as None, the rest in words.

    >>> cell(float("nan")), cell("a"), cell(2.5)
    (None, 'a', 2.5)
    """
    if value is None or isinstance(value, str | bool | np.bool_):
        return bool(value) if isinstance(value, np.bool_) else value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return str(value)


def rows(table: pd.DataFrame | Iterable[Mapping[str, Any]]) -> tuple[Row, ...]:
    """A table as rows of cells."""
    listed = table.to_dict("records") if isinstance(table, pd.DataFrame) else table
    return tuple({str(key): cell(value) for key, value in row.items()} for row in listed)
