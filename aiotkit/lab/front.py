"""The front of the graph: all window features of a decision in one torch module.

Signals with windows of the same length are laid side by side, and whatever asks for the same statistics of
equally long windows (or parts of windows) is computed in one go: 17 signals in 13 parts each are as many
operations as one signal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aiotkit.core.decision import Decision, Regular
from aiotkit.core.errors import DataError, did_you_mean
from aiotkit.core.features import Statistic, parse_statistic, statistic_problem
from aiotkit.lab.spectra import Spectra
from aiotkit.lab.statistics import PLAIN, QUANTILES, Quantiles, Slope, Windows, part_edges

LARGEST = float(np.finfo(np.float32).max)
#: samples that are computed at a time on the desk: what lies in between stays in the processor's cache
CHUNK = 1 << 18
#: a word of one's own -> what makes its module, from samples of a window and samples per second
Words = Mapping[str, Callable[[int, float], nn.Module]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A feature: the statistic of samples ``start`` to ``stop`` of its signal's window of ``n``."""

    name: str
    signal: str
    statistic: Statistic
    n: int
    rate_hz: float
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Samples the statistic is computed from."""
        return self.stop - self.start


def rate_of(decision: Decision, signal: str) -> float:
    """Samples per second within a signal's window (one a window for ``on_change`` without a grid)."""
    sampling = decision.signals[signal].sampling
    rate = sampling.rate_hz if isinstance(sampling, Regular) else sampling.grid_hz
    return rate if rate is not None else 1 / decision.window.length_s


def ask(decision: Decision, name: str, words: Words | None = None) -> Asked:
    """What a feature's name asks for.

    Raises:
        DataError: no such signal or statistic, more parts than samples, or more bands than half of them.
    """
    signal, _, word = name.partition(".")
    if signal not in decision.signals:
        hint = did_you_mean(signal, decision.signals)
        raise DataError(f"feature '{name}': no signal '{signal}'", found=", ".join(decision.signals), do=hint)
    statistic = parse_statistic(word)
    if statistic is None:
        raise DataError(f"feature '{name}'", expected="signal.statistic", do=statistic_problem(word))
    if statistic.own and statistic.base not in (words or {}):
        hint = did_you_mean(statistic.base, words or {})
        raise DataError(
            f"feature '{name}': the word '{statistic.base}' is nobody's",
            expected=", ".join(words or {}) or "words of your own to be passed in",
            do=hint or "Pass words=own_words(path of the file that defines it), or --own-words FILE.",
        )
    n, (j, k), (_, bands) = decision.samples(signal), statistic.segment or (1, 1), statistic.part or (0, 0)
    if 2 * bands * k > n:
        expected = f"at least {2 * bands * k} samples in a window of '{signal}'"
        raise DataError(f"feature '{name}'", expected=expected, found=str(n), do="Ask for fewer bands.")
    edges = part_edges(n, k)
    return Asked(name, signal, statistic, n, rate_of(decision, signal), edges[j - 1], edges[j])


@dataclass(frozen=True, slots=True)
class _Kind:
    """What rows of one block have in common: length, rate, and which costly statistics they need."""

    n: int
    size: int
    rate_hz: float
    quantiles: tuple[str, ...]
    bands: tuple[int, ...]
    envelope: tuple[int, ...]


class Block(nn.Module):
    """Statistics of equally long stretches of ``[batch, samples]``: ``[batch, rows]`` each.

    Args:
        total: samples a row of the input holds.
        stretches: (start, stop) of each row.
        spans: the range (high − low) of each row's signal.
        bases: which statistics, besides quantiles and bands.
        kind: which quantiles and bands, and the rate.
    """

    index: Tensor

    def __init__(
        self,
        total: int,
        stretches: Sequence[tuple[int, int]],
        spans: Sequence[float],
        bases: Iterable[str],
        kind: _Kind,
    ) -> None:
        super().__init__()
        self.size, self.rows, self.kind = kind.size, len(stretches), kind
        places = np.concatenate([np.arange(*stretch) for stretch in stretches])
        first = int(places[0])
        self.stretch = (first, first + places.size) if (np.diff(places) == 1).all() else None
        self.whole = self.stretch == (0, total)
        if self.stretch is None:
            self.register_buffer("index", torch.from_numpy(places))
        wanted = set(bases)
        self.plain = tuple(base for base in PLAIN if base in wanted)
        self.slope = Slope(kind.size, kind.rate_hz) if "slope" in wanted else None
        levels = [QUANTILES[base] for base in kind.quantiles]
        self.quantiles = Quantiles(kind.size, levels) if levels else None
        banded = kind.bands or kind.envelope
        self.spectra = Spectra(kind.size, kind.rate_hz, spans, kind.bands, kind.envelope) if banded else None
        self.places, self.width = self._lay_out()

    def _lay_out(self) -> tuple[dict[Statistic, tuple[int, int]], int]:
        """Where each statistic's columns begin, and how far one row lies behind another; all columns."""
        pieces = [[Statistic(base)] for base in self.plain]
        pieces += [[Statistic("slope")]] if self.slope is not None else []
        pieces += [[Statistic(base) for base in self.kind.quantiles]] if self.quantiles is not None else []
        for base, counts in (("band", self.kind.bands), ("env", self.kind.envelope)):
            pieces += [[Statistic(base, (i, count)) for i in range(1, count + 1)] for count in counts]
        places: dict[Statistic, tuple[int, int]] = {}
        offset = 0
        for piece in pieces:
            places |= {statistic: (offset + i, len(piece)) for i, statistic in enumerate(piece)}
            offset += self.rows * len(piece)
        return places, offset

    def place(self, row: int, statistic: Statistic) -> int:
        """The column of a statistic of a row in what ``forward`` gives, laid side by side."""
        offset, step = self.places[Statistic(statistic.base, statistic.part)]
        return offset + step * row

    def forward(self, samples: Tensor) -> list[Tensor]:
        """``[batch, total]`` to ``[batch, columns]`` each."""
        if self.stretch is None:
            samples = samples.index_select(1, self.index)
        elif not self.whole:
            samples = samples[:, slice(*self.stretch)]
        windows = Windows(samples.reshape(-1, self.rows, self.size))
        found = [cast(Tensor, getattr(windows, base)) for base in self.plain]
        if self.slope is not None:
            found.append(self.slope(windows))
        if self.quantiles is not None:
            found.append(self.quantiles(windows).flatten(1))
        if self.spectra is not None:
            found += [levels.flatten(1) for levels in self.spectra(windows)]
        return found


class Front(nn.Module):
    """All window features of a decision: ``{signal: [batch, n]}`` to ``[batch, features]``.

    Columns are in the order of ``names``: those given and those the decision reads, sorted.

    Args:
        decision: gives signals, rates and ranges.
        names: further features, for a head to see.
        words: modules of words of one's own (``x_…``); see ``lab.own_words``.

    Raises:
        DataError: a name that is no feature of this decision.
    """

    column: Tensor
    owner: Tensor

    def __init__(
        self, decision: Decision, names: Iterable[str] | None = None, words: Words | None = None
    ) -> None:
        super().__init__()
        self.inputs = tuple(sorted(decision.signals))
        self.names = tuple(sorted({*decision.features(), *(names or ())}))
        self.asked = tuple(ask(decision, name, words) for name in self.names)
        lengths = sorted({asked.n for asked in self.asked})
        used = sorted({asked.signal for asked in self.asked})
        #: samples of a window -> its signals, side by side in this order
        self.groups = {n: [s for s in used if decision.samples(s) == n] for n in lengths}
        self.blocks, self.sources = nn.ModuleList(), list[int]()
        place = self._build_blocks(decision)
        self.own, self.own_asked = nn.ModuleList(), list[Asked]()
        for asked in self.asked:
            if asked.statistic.own:
                place[asked.name] = sum(cast(Block, b).width for b in self.blocks) + len(self.own)
                self.own.append((words or {})[asked.statistic.base](asked.size, asked.rate_hz))
                self.own_asked.append(asked)
        order = [signal for group in self.groups.values() for signal in group]
        owner = [order.index(asked.signal) for asked in self.asked]
        self.register_buffer("column", torch.tensor([place[name] for name in self.names], dtype=torch.int64))
        self.register_buffer("owner", torch.tensor(owner, dtype=torch.int64))
        self.eval()

    def _build_blocks(self, decision: Decision) -> dict[str, int]:
        """Make a block for every kind of row; the column of each feature among all of them."""
        rows: dict[tuple[str, int, int], list[Asked]] = {}
        for asked in self.asked:
            if not asked.statistic.own:
                rows.setdefault((asked.signal, asked.start, asked.stop), []).append(asked)
        kinds: dict[_Kind, list[list[Asked]]] = {}
        for _, row in sorted(rows.items()):
            kinds.setdefault(_kind(row), []).append(row)
        place: dict[str, int] = {}
        offset = 0
        for kind, members in kinds.items():
            block = self._block(kind, members, decision)
            for i, row in enumerate(members):
                place |= {asked.name: offset + block.place(i, asked.statistic) for asked in row}
            offset += block.width
            self.blocks.append(block)
            self.sources.append(kind.n)
        return place

    def _block(self, kind: _Kind, members: list[list[Asked]], decision: Decision) -> Block:
        group = self.groups[kind.n]
        offsets = [group.index(row[0].signal) * kind.n for row in members]
        stretches = [(o + row[0].start, o + row[0].stop) for o, row in zip(offsets, members, strict=True)]
        ranges = [decision.signals[row[0].signal].range for row in members]
        bases = {asked.statistic.base for row in members for asked in row}
        total = kind.n * len(group)
        return Block(total, stretches, [high - low for low, high in ranges], bases, kind)

    def forward(self, windows: Mapping[str, Tensor]) -> Tensor:
        """The features of a batch of windows."""
        if not self.names:
            return windows[self.inputs[0]][:, :0]
        clean: dict[int, Tensor] = {}
        marks: list[Tensor] = []
        for n, group in self.groups.items():
            side_by_side = torch.cat([windows[signal] for signal in group], dim=1)
            fine = side_by_side.abs() <= LARGEST  # NaN fails it too
            # What follows never reads the caller's own memory: sums of floats depend on its alignment.
            clean[n] = torch.where(fine, side_by_side, 0.0)
            marks.append(torch.where(fine, 0.0, torch.nan).reshape(-1, len(group), n).sum(dim=2))
        found: list[Tensor] = []
        for block, n in zip(self.blocks, self.sources, strict=True):
            found += block(clean[n])
        for module, asked in zip(self.own, self.own_asked, strict=True):
            start = self.groups[asked.n].index(asked.signal) * asked.n
            found.append(module(clean[asked.n][:, start + asked.start : start + asked.stop]).unsqueeze(1))
        marked = torch.cat(marks, dim=1).index_select(1, self.owner)
        return torch.cat(found, dim=1).index_select(1, self.column) + marked


def _kind(row: list[Asked]) -> _Kind:
    statistics = [asked.statistic for asked in row]
    counts = {
        base: tuple(sorted({s.part[1] for s in statistics if s.base == base and s.part is not None}))
        for base in ("band", "env")
    }
    quantiles = tuple(base for base in QUANTILES if any(s.base == base for s in statistics))
    return _Kind(row[0].n, row[0].size, row[0].rate_hz, quantiles, counts["band"], counts["env"])


class _Single(nn.Module):
    """One statistic of one window."""

    def __init__(self, statistic: Statistic, n: int, rate_hz: float, span: float) -> None:
        super().__init__()
        edges = part_edges(n, statistic.segment[1] if statistic.segment else 1)
        start, stop = list(pairwise(edges))[statistic.segment[0] - 1 if statistic.segment else 0]
        kind = _kind([Asked("", "", statistic, n, rate_hz, start, stop)])
        self.block = Block(n, [(start, stop)], [span], {statistic.base}, kind)
        self.column = self.block.place(0, statistic)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, n]`` to ``[batch]``."""
        return torch.cat(self.block(x), dim=1)[:, self.column]


def statistic_module(statistic: str, n: int, rate_hz: float, span: float = 2.0) -> nn.Module:
    """The module of a statistic for windows of ``n`` samples at ``rate_hz``: ``[batch, n]`` to ``[batch]``.

    Args:
        statistic: a word such as ``rms``, ``band_3of16`` or ``mean_2of10``.
        n: samples of a window.
        rate_hz: samples per second.
        span: the signal's range, high − low; bands have a floor relative to it.

    Raises:
        DataError: no such statistic, or more parts than samples.

    >>> float(statistic_module("slope", 3, rate_hz=2.0)(torch.tensor([[1.0, 2.0, 3.0]])))
    2.0
    """
    parsed = parse_statistic(statistic)
    if parsed is None or parsed.own:
        raise DataError(f"statistic '{statistic}'", do=statistic_problem(statistic))
    return _Single(parsed, n, rate_hz, span)


def compute_features(front: Front, windows: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Features of a batch on the desk: ``{signal: [batch, n]}`` float32 to ``[batch, features]``.

    On one thread: pieces are small, and on a busy machine threads that wait for each other take seconds.
    """
    count = len(next(iter(windows.values())))
    out = np.empty((count, len(front.names)), dtype=np.float32)
    rows = max(1, CHUNK // sum(values.shape[1] for values in windows.values()))
    with torch.inference_mode(), _one_thread():
        for start in range(0, count, rows):
            chunk = slice(start, start + rows)
            # a copy: arrays read from files are read-only, which torch does not know
            given = {
                name: torch.from_numpy(np.array(values[chunk], dtype=np.float32))
                for name, values in windows.items()
            }
            out[chunk] = front(given).numpy()
    return out


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
