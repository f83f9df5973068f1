"""What devices recorded at their decisions, as arrays: features, history, context, and their raw windows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import LakeError
from aiotkit.core.records import unpack_windows
from aiotkit.lab.cut import Array, checked
from aiotkit.lab.examples import context_columns, history_columns

if TYPE_CHECKING:
    from aiotkit.lake.lake import Lake

_PLAIN = ("device", "journal_id", "seq", "at", "in_force", "verify_hit", "verify_p", "window", "payload")
_SAID = (
    "device", "key", "at_us", "decided_us", "in_force", "verify_hit", "verify_p", "window", "faulty",
)  # fmt: skip
#: bytes of raw windows that are fetched at a time
_FETCH = 1 << 27


@dataclass(frozen=True, slots=True)
class Recorded:
    """Decisions of devices, sorted by subject and time.

    Attributes:
        rows: ``subject``, ``at_us`` (window's end), ``decided_us``, ``in_force``, ``verify_hit``,
            ``verify_p``, ``key``, ``window`` (digest), ``faulty`` (signals that were not believed).
        values: column -> float32 ``[rows]``: features, history and context as recorded; NaN = not known.
    """

    rows: pd.DataFrame
    values: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.rows)


def recorded(
    lake: Lake, decision: Decision, names: Sequence[str], as_of_us: int, versions: Mapping[str, int]
) -> Recorded:
    """The decisions of a lake up to an instant, with the subject each device watched then.

    Records that were withheld, and those of devices that watched nothing, are left out: nothing can be
    learned from them.

    Args:
        lake: where the journals were collected.
        decision: decisions of its id count.
        names: features that are wanted.
        as_of_us: decisions taken later do not count.
        versions: of the tables to read.

    Raises:
        LakeError: a record is not of format 1.
    """
    from aiotkit.lake.assets import Assets

    reader = _Reader((*names, *history_columns(decision), *context_columns(decision)), decision)
    where = (pc.field("type") == "DECISION") & (pc.field("decision_id") == decision.id)
    for batch in lake.batches("decisions", columns=_PLAIN, where=where, version=versions["decisions"]):
        reader.add(batch.to_pydict(), as_of_us)
    rows = reader.rows()
    registry = Assets(lake, version=versions["assets"])
    watched = registry.subject_at(rows["device"].tolist(), rows["decided_us"].to_numpy(dtype=np.int64))
    rows["subject"] = pd.Series(watched.to_pylist(), dtype=object)
    rows = rows[rows["subject"].notna()].sort_values(["subject", "at_us", "key"], kind="stable")
    values = reader.values()[:, rows.index.to_numpy()]
    return Recorded(rows.reset_index(drop=True), dict(zip(reader.columns, values, strict=True)))


@dataclass(slots=True)
class _Reader:
    """Collects records; ``columns`` are the values that are wanted of each."""

    columns: tuple[str, ...]
    decision: Decision
    _said: dict[str, list[Any]] = field(default_factory=lambda: {n: [] for n in _SAID})
    _parts: list[Array] = field(default_factory=list)

    def add(self, batch: Mapping[str, list[Any]], as_of_us: int) -> None:
        """Take a batch of rows of the lake's table ``decisions``."""
        part = np.full((len(self.columns), len(batch["seq"])), np.nan, dtype=np.float32)
        place = {name: i for i, name in enumerate(self.columns)}
        n = 0
        for device, journal, seq, at, in_force, hit, p, window, payload in zip(
            *(batch[name] for name in _PLAIN), strict=True
        ):
            if payload is None or at is None:
                continue
            decided_us = round(at.timestamp() * 1e6)
            if decided_us > as_of_us:
                continue
            key = f"{device}/{journal}/{seq}"
            end_us, values, faulty = _read(payload, key, self.decision)
            for name, value in values.items():
                if name in place:
                    part[place[name], n] = value
            said = (device, key, end_us, decided_us, in_force, bool(hit), p or 0.0, window, faulty)
            for column, one in zip(self._said.values(), said, strict=True):
                column.append(one)
            n += 1
        self._parts.append(part[:, :n])

    def rows(self) -> pd.DataFrame:
        """What each record says of itself."""
        return pd.DataFrame({n: pd.Series(v, dtype=_DTYPES.get(n, object)) for n, v in self._said.items()})

    def values(self) -> Array:
        """``[columns, rows]``."""
        if not self._parts:
            return np.empty((len(self.columns), 0), dtype=np.float32)
        return np.concatenate(self._parts, axis=1)


_DTYPES = {"at_us": "int64", "decided_us": "int64", "verify_hit": "bool", "verify_p": "float64"}


def _read(payload: str, key: str, decision: Decision) -> tuple[int, dict[str, float], tuple[str, ...]]:
    """(window's end, values by column, signals that were faulty) of a record."""
    try:
        record = json.loads(payload)
        given, out = record["in"], record["out"]
        faults = out["faults"]
        values = {name: float(v) for name, v in out["features"].items()}
        values |= {f"history.{name}": float(v) for name, v in out["history"].items()}
        for name, (said, _) in given["context"].items():
            declared = decision.context.get(name)
            if declared is None or said is None or name in faults:
                continue
            if declared.values is None:
                values[f"context.{name}"] = math.nan if isinstance(said, dict) else float(said)
            elif isinstance(said, dict) and said["word"] in declared.values:
                values |= {f"context.{name}={w}": float(w == said["word"]) for w in declared.values}
        return int(given["window_end_us"]), values, tuple(n for n in faults if n in decision.signals)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LakeError(
            f"decision record {key} is not of format 1", found=str(error), do="Which device wrote it?"
        ) from error


def windows_of(
    lake: Lake, found: Recorded, decision: Decision, version: int
) -> Iterator[tuple[NDArray[np.int64], dict[str, Array]]]:
    """Raw windows that reached the lake, some rows at a time: (rows, signal -> ``[rows, n]``).

    Checked as the device checked them; a signal it did not believe is NaN.
    """
    from aiotkit.lake.blobs import Blobs

    blobs = Blobs(lake)
    digests = found.rows["window"].astype(object)
    kept = blobs.find(digests.dropna().unique(), version=version)
    rows = np.flatnonzero(digests.isin(kept).to_numpy(dtype=bool))
    size = sum(4 * decision.samples(name) for name in decision.signals) + 128
    step = max(64, _FETCH // size)
    for lo in range(0, len(rows), step):
        chosen = rows[lo : lo + step]
        data = blobs.get(digests.iloc[chosen].tolist(), version=version)
        yield chosen, _stacked([data[d] for d in digests.iloc[chosen]], found, chosen, decision)


def _stacked(
    packed: Sequence[bytes], found: Recorded, rows: NDArray[np.int64], decision: Decision
) -> dict[str, Array]:
    out = {
        name: np.full((len(packed), decision.samples(name)), np.nan, dtype=np.float32)
        for name in decision.signals
    }
    faulty = found.rows["faulty"].iloc[rows].tolist()
    for i, (data, bad) in enumerate(zip(packed, faulty, strict=True)):
        for name, values in unpack_windows(data).items():
            if name in out and name not in bad and values.size == out[name].shape[1]:
                out[name][i] = values
    return {name: checked(decision, name, values) for name, values in out.items()}
