"""Telemetry of many subjects as sorted arrays, name by name: what windows and context are cut from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import ContradictionError

Indices = NDArray[np.int64]
_Values: TypeAlias = tuple[Indices, Indices, NDArray[np.float32]]  # subjects, instants, values
COLUMNS = ("subject", "name", "at", "value", "word")


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one name, sorted by subject and time; no instant of a subject twice.

    Attributes:
        bounds: ``[subjects + 1]``; those of subject ``i`` are ``bounds[i]:bounds[i + 1]``.
        at_us: ``[n]`` µs UTC.
        value: ``[n]`` float32; of a choice its place among the declared values (-1: none of them).
    """

    bounds: Indices
    at_us: Indices
    value: NDArray[np.float32]

    def newest(self, codes: Indices, at_us: NDArray[np.floating[Any]] | Indices) -> Indices:
        """For each (subject, instant) the index of the newest value not after it; -1 where none.

        Args:
            codes: ``[k]`` subjects; those of one subject stand together.
            at_us: ``[k]`` instants.
        """
        out = np.full(len(codes), -1, dtype=np.int64)
        for code, lo, hi in stretches(codes):
            first, last = self.bounds[code], self.bounds[code + 1]
            found = np.searchsorted(self.at_us[first:last], at_us[lo:hi], side="right") - 1
            out[lo:hi] = np.where(found >= 0, found + first, -1)
        return out


@dataclass(frozen=True, slots=True)
class Telemetry:
    """All names of a decision. ``subjects`` are sorted; a subject's code is its place among them."""

    subjects: tuple[str, ...]
    series: Mapping[str, Series]

    def __len__(self) -> int:
        return sum(len(s.at_us) for s in self.series.values())


def stretches(codes: Indices) -> Iterator[tuple[int, int, int]]:
    """(code, begin, end) of each run of equal codes.

    >>> list(stretches(np.array([3, 3, 5])))
    [(3, 0, 2), (5, 2, 3)]
    """
    if not len(codes):
        return
    cuts = np.flatnonzero(np.diff(codes)) + 1
    starts = [0, *cuts.tolist()]
    for begin, end in zip(starts, [*starts[1:], len(codes)], strict=True):
        yield int(codes[begin]), begin, end


def gather(
    tables: Iterable[pa.Table | pa.RecordBatch], decision: Decision, *, strict: bool = False
) -> Telemetry:
    """Arrays from rows with the columns ``subject``, ``name``, ``at`` (µs UTC), ``value`` and ``word``.

    Names that the decision does not declare are left out. Of several values at one instant of a subject
    the one that was read first stays; with ``strict`` they must be equal.

    Raises:
        ContradictionError: with ``strict``, and they differ.
    """
    parts: dict[str, list[_Values]] = {}
    codes: dict[str, int] = {}
    for table in tables:
        if table.num_rows:
            _add(table, decision, codes, parts)
    subjects = tuple(sorted(codes))
    rank = np.empty(len(codes), dtype=np.int64)
    for place, subject in enumerate(subjects):
        rank[codes[subject]] = place
    series = {}
    for name in sorted(parts):  # popped, so that raw parts and sorted arrays are not held together
        series[name] = _series(_merged(parts.pop(name), rank), subjects, name if strict else None)
    return Telemetry(subjects, series)


def _add(
    table: pa.Table | pa.RecordBatch,
    decision: Decision,
    codes: dict[str, int],
    parts: dict[str, list[_Values]],
) -> None:
    who, mine = _encoded(table["subject"])
    of_batch = np.array([codes.setdefault(s, len(codes)) for s in mine], dtype=np.int64)
    what, names = _encoded(table["name"])
    at = np.asarray(table["at"].cast(pa.int64()), dtype=np.int64)
    for i, name in enumerate(names):
        if name not in decision.signals and name not in decision.context:
            continue
        rows = np.flatnonzero(what == i)
        choice = decision.context[name].values if name in decision.context else None
        if choice is None:
            values = np.asarray(table["value"].fill_null(np.nan), dtype=np.float64)[rows]
        else:
            values = _places(table["word"].take(pa.array(rows)), choice)
        with np.errstate(over="ignore"):
            parts.setdefault(name, []).append((of_batch[who[rows]], at[rows], values.astype(np.float32)))


def _encoded(column: pa.Array | pa.ChunkedArray) -> tuple[Indices, list[str]]:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):  # too large for one array
        whole = pa.concat_arrays([c.cast(pa.large_string()) for c in whole.chunks])
    encoded = whole if isinstance(whole, pa.DictionaryArray) else whole.dictionary_encode()
    return np.asarray(encoded.indices, dtype=np.int64), encoded.dictionary.to_pylist()


def _places(words: pa.Array | pa.ChunkedArray, choice: tuple[str, ...]) -> NDArray[np.float64]:
    import pyarrow.compute as pc

    return np.asarray(
        pc.index_in(words, value_set=pa.array(choice)).cast(pa.float64()).fill_null(-1), dtype=np.float64
    )


def _merged(parts: list[_Values], rank: Indices) -> _Values:
    """Subjects, instants and values in order of subject and time; equal ones as they were read."""
    codes = rank[np.concatenate([c for c, _, _ in parts])]
    at = np.concatenate([a for _, a, _ in parts])
    value = np.concatenate([v for _, _, v in parts])
    same = np.diff(codes)
    if bool(np.all((same > 0) | ((same == 0) & (np.diff(at) > 0)))):
        return codes, at, value
    order = np.lexsort((at, codes))
    return codes[order], at[order], value[order]


def _series(merged: _Values, subjects: tuple[str, ...], strict: str | None) -> Series:
    """Each instant of a subject once; ``strict``: a name whose values of one instant may not differ."""
    codes, at, value = merged
    again = np.r_[False, (np.diff(codes) == 0) & (np.diff(at) == 0)][: len(codes)]
    if again.any():
        later = np.flatnonzero(again)
        other = later[~np.isclose(value[later], value[later - 1], rtol=1e-6, equal_nan=True)]
        if strict is not None and len(other):
            raise _contradiction(strict, subjects, merged, other)
        codes, at, value = codes[~again], at[~again], value[~again]
    return Series(np.searchsorted(codes, np.arange(len(subjects) + 1)), at, value)


def _contradiction(
    name: str, subjects: tuple[str, ...], merged: _Values, other: Indices
) -> ContradictionError:
    (codes, at, value), i = merged, int(other[0])
    when = np.datetime64(int(at[i]), "us")
    return ContradictionError(
        f"{len(other):,} values of one instant differ, first {name} of '{subjects[codes[i]]}' at {when}Z",
        expected="one value",
        found=f"{value[i - 1]:g} and {value[i]:g}",
        do="Two sources overlap. Check their subjects, columns and time zones, and mend the wrong one.",
    )
