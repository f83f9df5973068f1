"""One recorded decision, taken out of a lake: what went in, what came out, and the window it looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.bundle.replay import parse_record
from aiotkit.bundle.unsigned import read_unsigned
from aiotkit.core.canonical import JSON
from aiotkit.core.conditions import fields
from aiotkit.core.decision import Decision, Regular
from aiotkit.core.errors import DataError, LakeError
from aiotkit.core.records import DecisionInput, EngineState, input_from_json, unpack_windows

if TYPE_CHECKING:
    from aiotkit.lake.lake import Lake

Windows = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Trace:
    """A decision as its device recorded it.

    Attributes:
        key: device, journal, sequence number.
        subject: what the device watched then; '' when nothing.
        payload: the record's bytes.
        window: the bytes its window digest stands for; None where they never left the device.
    """

    key: tuple[str, str, int]
    subject: str
    payload: bytes
    window: bytes | None

    def __str__(self) -> str:
        return f"{self.name}: {self.subject or 'nobody'}, {self.at:%Y-%m-%d %H:%M} UTC"

    @property
    def name(self) -> str:
        """Device, journal and sequence number in one word."""
        device, journal, seq = self.key
        return f"{device}/{journal}/{seq}"

    @cached_property
    def record(self) -> JSON:
        """The record as plain data; ``ReplayError`` when it is none."""
        return parse_record(self.payload)

    @property
    def given(self) -> JSON:
        """Its ``in`` part."""
        return self.record["in"]

    @property
    def out(self) -> JSON:
        """Its ``out`` part."""
        return self.record["out"]

    @property
    def bundle(self) -> str:
        """Digest of the bundle that decided."""
        return str(self.record["bundle"])

    @property
    def at(self) -> pd.Timestamp:
        """When it was decided, UTC."""
        return pd.Timestamp(int(self.given["now_us"]), unit="us", tz="UTC")

    @cached_property
    def windows(self) -> Windows:
        """Signal -> float32 ``[samples]``; empty where the window never left the device."""
        return {} if self.window is None else unpack_windows(self.window)

    @property
    def novelty(self) -> float:
        """How unlike training it was (above 1: unlike anything); NaN where the graph does not say."""
        return float(self.out.get("novelty", "nan"))

    @cached_property
    def context(self) -> dict[str, tuple[float | str | None, float]]:
        """Context name -> (value, age in s)."""
        return {name: (r.value, r.age_s) for name, r in self.inputs()[0].context.items()}

    def inputs(self) -> tuple[DecisionInput, EngineState]:
        """What the engine was given, and the state it started from."""
        return input_from_json(self.given, self.windows)


def parse_key(name: str) -> tuple[str, str, int]:
    """Device, journal and sequence number out of one word.

    >>> parse_key("edge-01/journal/42")
    ('edge-01', 'journal', 42)
    """
    device, _, rest = name.partition("/")
    journal, _, seq = rest.rpartition("/")
    if not (device and journal and seq.isdecimal()):
        raise DataError(
            f"decision '{name}'", expected="device/journal/number, such as edge-01/sample/42", found=name
        )
    return device, journal, int(seq)


def read_trace(lake: Lake, device: str, journal_id: str, seq: int) -> Trace:
    """One decision out of a lake.

    Raises:
        LakeError: it is not there, or its record was withheld.
        ReplayError: the record is of another format.
    """
    where = [
        ("device", "=", device),
        ("journal_id", "=", journal_id),
        ("seq", "=", seq),
        ("type", "=", "DECISION"),
    ]
    rows = lake.read("decisions", columns=["at", "window", "payload"], where=where).to_pylist()
    name = f"decision {device}/{journal_id}/{seq}"
    if not rows:
        raise LakeError(f"{name} is not in the lake", do="Take its key from lab.journal.decisions_frame.")
    row = rows[0]
    if row["payload"] is None:
        raise LakeError(
            f"{name}: its record was withheld", do="Look at it where it was taken: aiotkit replay --journal."
        )
    return _with_window(lake, (device, journal_id, seq), row)


def _with_window(lake: Lake, key: tuple[str, str, int], row: Mapping[str, Any]) -> Trace:
    from aiotkit.lake.assets import Assets
    from aiotkit.lake.blobs import Blobs

    blobs, wanted = Blobs(lake), row["window"]
    kept = blobs.find([wanted]) if wanted else set()
    window = blobs.get([wanted])[wanted] if kept else None
    watched = Assets(lake).subject_at([key[0]], [round(row["at"].timestamp() * 1e6)]).to_pylist()
    return Trace(key, watched[0] or "", row["payload"].encode(), window)


def open_bundles(places: Sequence[str | Path]) -> dict[str, Mapping[str, bytes]]:
    """Bundle digest -> its files, of bundles (``.aiot``) and of folders of them; signatures are not verified.

    Raises:
        DataError: a place holds no bundle.
        IntegrityError: a bundle is damaged.
    """
    found: dict[str, Mapping[str, bytes]] = {}
    for place in map(Path, places):
        paths = sorted(place.rglob("*.aiot")) if place.is_dir() else [place] * place.is_file()
        if not paths:
            raise DataError(f"{place}: no bundle", expected="a file or folder of files that end in .aiot")
        for path in paths:
            bundle = read_unsigned(path.read_bytes())[0]
            found[bundle.digest] = bundle.files
    return found


def files_for(trace: Trace, bundles: Mapping[str, Mapping[str, bytes]]) -> Mapping[str, bytes]:
    """The files of the bundle that decided.

    Raises:
        DataError: it is not among them.
    """
    if trace.bundle not in bundles:
        raise DataError(
            f"{trace.name}: the bundle that decided is not at hand",
            expected=trace.bundle,
            found=", ".join(bundles) or "none",
            do="Put it into the folder of bundles; candidates are kept in MLflow, releases in their folder.",
        )
    return bundles[trace.bundle]


def signals_table(trace: Trace, decision: Decision) -> pd.DataFrame:
    """What the signals held: samples, range of values, what was found wrong."""
    rows = []
    for name, signal in decision.signals.items():
        values = trace.windows.get(name, np.empty(0, dtype=np.float32)).astype(float)
        good = values[np.isfinite(values)]
        rate = f"{signal.sampling.rate_hz:g} Hz" if isinstance(signal.sampling, Regular) else "on change"
        said = trace.out["faults"].get(name, "" if trace.windows else "the window never left the device")
        spread = (good.min(), good.mean(), good.max()) if len(good) else (np.nan,) * 3
        rows.append((name, signal.unit, rate, len(values), *spread, said))
    columns = ["signal", "unit", "sampled", "samples", "least", "mean", "most", "doubt"]
    return pd.DataFrame(rows, columns=columns)


def context_table(trace: Trace, decision: Decision) -> pd.DataFrame:
    """Context and history: value, age in seconds (history has none), what was found wrong."""
    rows: list[tuple[Any, ...]] = []
    for name, declared in decision.context.items():
        value, age = trace.context.get(name, (None, np.nan))
        shown = value if isinstance(value, str) else "not known" if value is None else f"{value:.4g}"
        unit = "" if declared.values is not None else declared.unit or ""
        rows.append((f"context.{name}", shown, unit, age, trace.out["faults"].get(name, "")))
    for name, value in trace.out["history"].items():
        rows.append((f"history.{name}", f"{float(value):.4g}", "", np.nan, ""))
    return pd.DataFrame(rows, columns=["name", "value", "unit", "age_s", "doubt"])


def gates_table(trace: Trace) -> pd.DataFrame:
    """What each gate said, and why."""
    return pd.DataFrame(trace.out["verdicts"], columns=["gate", "verdict", "reason"])


def past_of(
    lake: Lake, trace: Trace, decision: Decision, *, hours: float = 72, most: int = 3
) -> pd.DataFrame:
    """The last days of what the rule reads first, up to a decision; nothing that the model believed.

    Returns:
        Indexed by instant; columns ``feature.<name>``: those whose last value is most unusual.
    """
    from aiotkit.lab.journal import expand

    since = trace.at - pd.Timedelta(hours=hours)
    where = [("type", "=", "DECISION"), ("decision_id", "=", decision.id), ("device", "=", trace.key[0]),
             ("at", ">=", since.to_pydatetime()), ("at", "<=", trace.at.to_pydatetime())]  # fmt: skip
    frame = expand(lake.read("decisions", where=where).to_pandas())
    frame.index = pd.DatetimeIndex(pd.to_datetime(frame["at"], utc=True))
    read = {
        f"feature.{f}" for branch in decision.rule if branch.when is not None for f in fields(branch.when)
    }
    known = [c for c in sorted(read & set(frame.columns)) if frame[c].notna().any()]
    return frame.sort_index()[sorted(known, key=lambda c: -_unusual(frame[c]))[:most]]


def _unusual(values: Any) -> float:
    """How far the last value lies from the usual ones, in interquartile ranges."""
    number: pd.Series = values.astype(float)
    spread = float(number.quantile(0.75) - number.quantile(0.25))
    gap = abs(float(number.iloc[-1]) - float(number.median()))
    return gap / spread if spread > 0 and np.isfinite(gap) else 0.0
