"""Statistics of one's own: a torch module in a file, computed beside the built-in ones, on the device too.

A file may define any number of them::

    class Hum(torch.nn.Module):
        word = "x_hum"                          # feature vib.x_hum, and of parts vib.x_hum_2of4

        def __init__(self, n: int, rate_hz: float) -> None:
            super().__init__()

        def forward(self, x):                   # [batch, n] float32, every sample finite
            return x.abs().mean(dim=1)          # [batch]

``own_words`` reads the file, ``check_words`` tells whether its modules keep what the built-in ones promise.
From then on ``words=`` is all there is to say: to ``recipe`` and ``assemble``, to ``release.export``, and on
the command line ``aiotkit run retrain --own-words FILE``. Examples and heads carry the file's digest, and
are exported with that very file only. Nothing of it reaches a device but the graph. Windows with a sample
that is not finite never reach a module: the front gives NaN.

What the file defines must stand in it: it is copied, and files beside it are not.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aiotkit.core.canonical import digest
from aiotkit.core.decision import Decision
from aiotkit.core.errors import AiotkitError, DataError
from aiotkit.lab.features import PARITY_ATOL, PARITY_BATCHES, PARITY_RTOL, export_graph
from aiotkit.lab.front import Words, ask

Make = Callable[[int, float], nn.Module]
#: how far a row may differ when others stand beside it: the order of sums, nothing else
ALONE_RTOL = 1e-5
_WORD = re.compile(r"x_[a-z][a-z0-9]*")


@dataclass(frozen=True)
class OwnWords(Mapping[str, Make]):
    """What a file defines: word -> module; its ``name``, and its ``source`` as it was run."""

    name: str
    source: bytes
    modules: Mapping[str, type[nn.Module]]

    @property
    def digest(self) -> str:
        """Identity: sha256 of the source."""
        return digest(self.source)

    def __getitem__(self, word: str) -> Make:
        return self.modules[word]

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)

    def must_be(self, known: str, what: str) -> None:
        """Refuse words of another file than ``what`` was made with.

        Args:
            known: the digest that it carries; empty = it carries none.
            what: what was made, in words.

        Raises:
            DataError: the file is another one, or was changed since.
        """
        if known != self.digest:
            raise DataError(
                f"own words: {self.name} is not the file that {what} was made with",
                expected=known or f"its digest with {what}",
                found=self.digest,
                do="It was changed, or is another one: assemble and train again with it.",
            )


def own_words(path: Path) -> OwnWords:
    """The modules a Python file defines, by their ``word``. Runs the file: it is your own code.

    Raises:
        DataError: the file is not there or fails, a word is misspelt or there twice, or there is none.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"own words: {path.name}", expected="a Python file", found=error.strerror or str(error)
        ) from error
    if path.suffix != ".py":
        raise DataError(f"own words: {path.name}", expected="a Python file (.py)", found=path.suffix)
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:  # these very bytes, no cached ones: their digest says what was run
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # whatever a user's file raises is about that file
        raise DataError(f"own words: {path.name} does not run", found=repr(error)) from error
    return OwnWords(path.name, source, _modules(module, path))


def _modules(module: ModuleType, path: Path) -> dict[str, type[nn.Module]]:
    found: dict[str, type[nn.Module]] = {}
    for name, kind in inspect.getmembers(module, inspect.isclass):
        word = getattr(kind, "word", None)
        if not issubclass(kind, nn.Module) or kind.__module__ != module.__name__ or word is None:
            continue
        if not isinstance(word, str) or not _WORD.fullmatch(word):
            expected = "x_ and lower-case letters and digits, like x_hum"
            raise DataError(f"own words: {path.name}: {name}.word", expected=expected, found=repr(word))
        if word in found:
            raise DataError(f"own words: {path.name}: '{word}' is there twice")
        found[word] = kind
    if not found:
        raise DataError(
            f"own words: {path.name} defines none", expected="torch modules with an attribute word = 'x_…'"
        )
    return found


def check_words(words: Words, decision: Decision, names: Iterable[str]) -> None:
    """Refuse words that break a promise, at the sizes and rates at which a decision's features ask for them.

    Args:
        words: as ``own_words`` gives them.
        decision: gives windows and rates, and features that its rule and gates read.
        names: further features; those without a word of one's own are left alone.

    Raises:
        DataError: naming the feature and the promise; or a name is no feature of this decision.
    """
    seen = set()
    for name in sorted({*decision.features(), *names}):
        asked = ask(decision, name, words)
        case = (asked.statistic.base, asked.size, asked.rate_hz)
        if not asked.statistic.own or case in seen:
            continue
        seen.add(case)
        try:
            check_feature(words[asked.statistic.base], asked.size, asked.rate_hz)
        except DataError as error:
            raise DataError(f"feature '{name}': {error}") from error


def check_feature(make: Make, n: int, rate_hz: float) -> None:
    """Refuse a module that breaks a promise of window statistics; see ``CHECKS`` for all of them.

    Args:
        make: what makes the module, from samples of a window and samples per second.
        n: samples of a window.
        rate_hz: samples per second.

    Raises:
        DataError: the promise that is broken, and how.
    """
    for check in CHECKS:
        try:
            check(make, n, rate_hz)
        except AiotkitError:
            raise
        except Exception as error:  # whatever a user's module, or its export, raises is about that module
            raise DataError(f"own feature: fails in {check.__name__}", found=repr(error)[:500]) from error


def probe_windows(n: int, batch: int = 8) -> NDArray[np.float32]:
    """Windows as they come: noise, a constant, silence, a ramp, a sine, very large and very small ones."""
    rng = np.random.default_rng(11)
    windows = rng.standard_normal((batch, n))
    t = np.arange(n)
    special = (np.full(n, 3.7), np.zeros(n), t / n, np.sin(0.7 * t), 1e15 * windows[0], 1e-15 * windows[0])
    for row, values in zip(range(1, batch), special, strict=False):
        windows[row] = values
    return windows.astype(np.float32)


def gives_one_number_a_window(make: Make, n: int, rate_hz: float) -> None:
    """``[batch, n]`` float32 becomes ``[batch]`` float32 at any batch size; the input stays as it was."""
    for batch in (1, 2, 7):
        x = probe_windows(n, batch)
        given = torch.from_numpy(x.copy())
        with torch.inference_mode():
            found = make(n, rate_hz).eval()(given)
        if not isinstance(found, Tensor) or found.shape != (batch,) or found.dtype != torch.float32:
            told = type(found).__name__
            if isinstance(found, Tensor):
                told = f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
            raise DataError("own feature: result", expected=f"float32 [{batch}]", found=told)
        if given.numpy().tobytes() != x.tobytes():
            raise DataError("own feature: changes its input", do="Work on a copy.")


def is_finite_for_finite_windows(make: Make, n: int, rate_hz: float) -> None:
    """A constant, silent, large or small window has a finite feature: NaN means that samples were bad."""
    x = probe_windows(n)
    found = _run(make(n, rate_hz), x)
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found))[0])
        raise DataError(
            "own feature: not finite for a finite window",
            found=f"{found[row]} for {np.array2string(x[row, :4], precision=3)}…",
            do="Give silence and constant windows a value; guard divisions and logarithms.",
        )


def depends_on_its_window_alone(make: Make, n: int, rate_hz: float) -> None:
    """A window's feature is the same alone, among others, and beside a bad one."""
    x = probe_windows(n)
    module = make(n, rate_hz)
    together = _run(module, x)
    alone = np.concatenate([_run(module, x[i : i + 1]) for i in range(len(x))])
    slack = 1e-6 * (1 + np.abs(x).max(axis=1))
    beside = _run(module, np.concatenate([x, np.full((1, n), np.nan, dtype=np.float32)]))[:-1]
    for found in (alone, beside):
        if not (np.abs(found - together) <= ALONE_RTOL * np.abs(together) + slack).all():
            raise DataError(
                "own feature: depends on the other windows of the batch",
                expected=str(together),
                found=str(found),
            )


def is_the_same_every_time(make: Make, n: int, rate_hz: float) -> None:
    """Same window, same bits: again, and by a module made anew (no random weights, no training mode)."""
    x = probe_windows(n)
    module = make(n, rate_hz)
    bits = {_run(m, x).tobytes() for m in (module, module, make(n, rate_hz))}
    if len(bits) > 1:
        raise DataError("own feature: not the same every time", do="Fix random weights in the class.")


def survives_export(make: Make, n: int, rate_hz: float) -> None:
    """The ONNX graph computes what torch computes at several batch sizes, and tells nothing of this place."""
    import onnxruntime as ort

    module = make(n, rate_hz).eval()
    graph = export_graph(_Named(module), {"x": n}, "y")
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for batch in PARITY_BATCHES:
        x = probe_windows(n, batch)
        expected, found = _run(module, x), np.asarray(session.run(["y"], {"x": x})[0])
        slack = PARITY_ATOL * (1 + np.abs(x).max(axis=1))
        if not (np.abs(found - expected) <= PARITY_RTOL * np.abs(expected) + slack).all():
            raise DataError(
                f"own feature: onnxruntime at batch {batch}", expected=str(expected), found=str(found)
            )
    if str(Path.cwd()).encode() in graph:
        raise DataError("own feature: the graph holds a path of this machine")


CHECKS = (
    gives_one_number_a_window,
    is_finite_for_finite_windows,
    depends_on_its_window_alone,
    is_the_same_every_time,
    survives_export,
)


class _Named(nn.Module):
    """A module of one window as one of named windows."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, windows: dict[str, Tensor]) -> Tensor:
        found: Tensor = self.module(windows["x"])
        return found


def _run(module: nn.Module, x: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = module.eval()(torch.from_numpy(x.copy())).numpy()
    return found
