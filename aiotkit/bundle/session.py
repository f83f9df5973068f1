"""A bundle's graph, opened and ready to run: one window of every signal in, named numbers out.

Vectorised sums start at an aligned address: the same numbers at another alignment are added in another
order and differ in the last bit. Every decision and every replay therefore runs on the same kind of buffers,
one thread, no choice of kernels by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from aiotkit.bundle.interface import CONTEXT, FEATURES, HISTORY, PROBABILITIES, Interface
from aiotkit.core.errors import BundleError, EngineError
from aiotkit.core.features import NOVELTY

_LARGEST = float(np.finfo(np.float32).max)
_LINE = 64  # bytes of a cache line; onnxruntime aligns its own tensors to it

Array = NDArray[np.float32]


class Row(Mapping[str, float]):
    """Numbers by name, in order, without a dict of their own: names and places are shared by all rows.

    >>> row = Row({"a": 0, "b": 1}, [1.5, 2.5])
    >>> row["b"], dict(row), row == {"a": 1.5, "b": 2.5}
    (2.5, {'a': 1.5, 'b': 2.5}, True)
    """

    __slots__ = ("_places", "numbers")

    def __init__(self, places: Mapping[str, int], numbers: list[float]) -> None:
        self._places, self.numbers = places, numbers

    def __getitem__(self, name: str) -> float:
        return self.numbers[self._places[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a graph said of one window, by name; ``p`` and ``novelty`` None where it has no such output."""

    features: Row
    p: dict[str, float] | None
    novelty: float | None


class GraphSession:
    """A graph that keeps to its interface. For one thread: its buffers are reused.

    Args:
        graph: the bytes of ``graph.onnx``.
        interface: what it must take and give.

    Raises:
        BundleError: onnxruntime cannot open it, or it has other inputs or outputs.
    """

    def __init__(self, graph: bytes, interface: Interface) -> None:
        self._session = open_graph(graph)
        _check(self._session, interface)
        self._places = {name: i for i, name in enumerate(interface.features)}
        self._states, self._has_novelty = interface.states, interface.novelty
        self._given = {name: _aligned(n) for name, n in interface.input_widths.items()}
        self._said = {name: _aligned(n) for name, n in interface.output_widths.items()}
        self._bound = self._session.io_binding()  # onnxruntime reads and writes these buffers themselves
        for name, buffer in self._given.items():
            self._bound.bind_input(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
        for name, buffer in self._said.items():
            self._bound.bind_output(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
        self._windows = [(name, self._given[name][0]) for name in interface.inputs]
        self._history = [name.partition(".")[2] for name in interface.history_inputs]
        self._context = [_column(name) for name in interface.context_inputs]
        self._history_row, self._context_row = (self._given.get(name) for name in (HISTORY, CONTEXT))

    def run(
        self, windows: Mapping[str, Array], history: Mapping[str, float], context: Mapping[str, float | str]
    ) -> Outputs:
        """Run the graph once.

        Args:
            windows: signal -> float32 ``[samples]``.
            history: the decision's history values before this window; NaN = not known.
            context: the context values that may be believed; what is missing is fed as NaN.

        Raises:
            EngineError: onnxruntime gives up on it.
        """
        for name, row in self._windows:
            row[:] = windows[name]
        if self._history_row is not None:
            for i, name in enumerate(self._history):
                self._history_row[0, i] = _single(history[name])
        if self._context_row is not None:
            for i, (name, choice) in enumerate(self._context):
                self._context_row[0, i] = _encoded(context.get(name), choice)
        try:
            self._session.run_with_iobinding(self._bound)
        except Exception as error:
            raise EngineError("graph.onnx: onnxruntime cannot run it", found=str(error)[:200]) from error
        said = self._said
        p = dict(zip(self._states, said[PROBABILITIES][0].tolist(), strict=True)) if self._states else None
        novelty = float(said[NOVELTY][0, 0]) if self._has_novelty else None
        return Outputs(Row(self._places, said[FEATURES][0].tolist()), p, novelty)


def open_graph(graph: bytes) -> ort.InferenceSession:
    """A session on one thread of the CPU.

    Raises:
        BundleError: onnxruntime cannot open it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError("graph.onnx: onnxruntime cannot open it", found=str(error)[:200]) from error


def _check(session: ort.InferenceSession, interface: Interface) -> None:
    for kind, has, promised in (
        ("inputs", session.get_inputs(), interface.input_widths),
        ("outputs", session.get_outputs(), interface.output_widths),
    ):
        widths = {one.name: one.shape[-1] for one in has}
        if widths != promised:
            raise BundleError(f"graph.onnx: {kind}", expected=str(promised), found=str(widths))
        for one in has:
            if one.type != "tensor(float)" or len(one.shape) != 2:
                found = f"{one.type} {one.shape}"
                raise BundleError(f"graph.onnx: '{one.name}'", expected="float32 [batch, n]", found=found)


def _column(name: str) -> tuple[str, str | None]:
    """``context.load`` -> (load, None); ``context.mode=idle`` -> (mode, idle)."""
    field, equals, choice = name.partition(".")[2].partition("=")
    return field, choice if equals else None


def _encoded(value: float | str | None, choice: str | None) -> float:
    if value is None:
        return math.nan
    return float(value == choice) if choice is not None else _single(float(value))


def _single(value: float) -> float:
    """What float32 cannot hold is infinite there: no head answers that with a probability of its own."""
    return math.copysign(math.inf, value) if abs(value) > _LARGEST else value


def _aligned(n: int) -> Array:
    """A buffer ``[1, n]`` on a cache line."""
    raw = np.empty(4 * n + _LINE, dtype=np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + 4 * n].view(np.float32)[np.newaxis]
