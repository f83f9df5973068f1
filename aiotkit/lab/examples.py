"""Examples: what was known at each decision instant, and what is believed of it since. What heads learn from.

One row an instant of a subject. ``x`` holds what a head may see, in the order of ``columns``: window
features (``vib.rms``), history (``history.trend``), context (``context.load``, or ``context.mode=idle`` as
1/0 for a choice). NaN = not known. The same columns enter the graph on the device.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError

Array = NDArray[np.float32]
Flags = NDArray[np.bool_]
FORMAT = 1
#: what every row says of itself; ``key`` is what identifies the decision it came from ('' = none was taken)
ROWS = ("subject", "at_us", "state", "status", "confidence", "in_force", "verify_hit", "verify_p", "key")
#: name among ``sources`` of the digest of the file that defines words of one's own, where columns need it
OWN_WORDS = "own words"
#: name among ``sources`` of the columns that labels were read from, a line each, where they were
LABELS_FROM = "label columns"
#: statuses whose state may be learned from
BELIEVED = ("mature", "verified")


@dataclass(frozen=True)
class Examples:
    """Aligned rows, columns and windows.

    Attributes:
        rows: columns ``ROWS``, sorted by subject and time; ``at_us`` is the window's end (µs UTC),
            ``state`` None where nothing is believed.
        columns: names of ``x``'s columns.
        x: float32 ``[rows, columns]``.
        windows: signal -> float32 ``[rows, samples]``; empty where raw windows are not at hand.
        sources: name -> digest or version of what the rows were made from.
    """

    rows: pd.DataFrame
    columns: tuple[str, ...]
    x: Array
    windows: Mapping[str, Array] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [c for c in ROWS if c not in self.rows.columns]
        if missing:
            raise DataError(f"examples: column '{missing[0]}' is missing", expected=", ".join(ROWS))
        shape = (len(self.rows), len(self.columns))
        if self.x.shape != shape or self.x.dtype != np.float32:
            raise DataError(
                "examples: x", expected=f"float32 {list(shape)}", found=f"{self.x.dtype} {list(self.x.shape)}"
            )
        for name, values in self.windows.items():
            if len(values) != len(self.rows):
                raise DataError(
                    f"examples: windows of '{name}'", expected=f"{len(self.rows)}", found=str(len(values))
                )

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: Flags | NDArray[np.int64]) -> Examples:
        """Some rows, by mask or position."""
        return replace(
            self,
            rows=self.rows.loc[which].reset_index(drop=True)
            if which.dtype == bool
            else self.rows.iloc[which].reset_index(drop=True),
            x=self.x[which],
            windows={name: values[which] for name, values in self.windows.items()},
        )

    def labelled(self) -> Examples:
        """The rows that may be learned from: a state that is believed, nothing censored or pending."""
        fine = self.rows["status"].isin(BELIEVED) & self.rows["state"].notna()
        return self.take(fine.to_numpy(dtype=bool))

    def known(self) -> Examples:
        """The rows that may be judged on: those learned from, and acted-upon ones whose state was found.

        What was acted upon must not be learned from, but left out of the books it would make whoever acted
        look as if he never had.
        """
        fine = self.rows["status"].isin((*BELIEVED, "censored")) & self.rows["state"].notna()
        return self.take(fine.to_numpy(dtype=bool))

    def with_columns(self, columns: Sequence[str]) -> Examples:
        """Only some columns, in this order.

        Raises:
            DataError: one of them is not there.
        """
        missing = [c for c in columns if c not in self.columns]
        if missing:
            raise DataError(f"examples: column '{missing[0]}' is missing", found=", ".join(self.columns[:20]))
        order = [self.columns.index(c) for c in columns]
        return replace(self, columns=tuple(columns), x=np.ascontiguousarray(self.x[:, order]))

    @property
    def digest(self) -> str:
        """Identity: of rows, columns, values and sources (windows follow from the sources)."""
        rows = self.rows[list(ROWS)]
        said = json.loads(rows.astype(object).where(rows.notna(), None).to_json(orient="split"))["data"]
        parts = [FORMAT, list(self.columns), dict(self.sources), digest(canonical_bytes(said))]
        return digest(canonical_bytes([*parts, digest(np.ascontiguousarray(self.x).tobytes())]))

    def save(self, folder: Path) -> None:
        """Write ``rows.parquet``, ``x.npy``, ``windows.<signal>.npy`` and ``examples.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.rows[list(ROWS)].to_parquet(folder / "rows.parquet", index=False)
        np.save(folder / "x.npy", self.x)
        for name, values in self.windows.items():
            np.save(folder / f"windows.{name}.npy", values)
        about = {
            "format": FORMAT,
            "columns": list(self.columns),
            "windows": sorted(self.windows),
            "sources": dict(self.sources),
            "digest": self.digest,
        }
        (folder / "examples.json").write_bytes(canonical_bytes(about))

    @classmethod
    def load(cls, folder: Path) -> Examples:
        """Read what ``save`` wrote; windows are mapped, not read.

        Raises:
            DataError: the folder holds no examples of format 1, or they were altered.
        """
        try:
            about = json.loads((folder / "examples.json").read_bytes())
            rows = pd.read_parquet(folder / "rows.parquet")
            x = np.load(folder / "x.npy")
            windows = {n: np.load(folder / f"windows.{n}.npy", mmap_mode="r") for n in about["windows"]}
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"examples in {folder.name}/", found=str(error)[:200]) from error
        found = cls(rows, tuple(about["columns"]), x, windows, about["sources"])
        if about["format"] != FORMAT or found.digest != about["digest"]:
            raise DataError(f"examples in {folder.name}/", expected="what was saved", found="something else")
        return found


def context_columns(decision: Decision) -> tuple[str, ...]:
    """The context a head may see: numbers by name, choices as one column a value. Never the calendar."""
    out: list[str] = []
    for name, declared in sorted(decision.context.items()):
        if declared.values is None:
            out.append(f"context.{name}")
        else:
            out += [f"context.{name}={value}" for value in declared.values]
    return tuple(out)


def history_columns(decision: Decision) -> tuple[str, ...]:
    """The history a head may see."""
    return tuple(f"history.{name}" for name in sorted(decision.history))
