"""Telemetry from files: what can be believed as rows of the lake, the rest quarantined with its reason.

A *row* here is one value of one signal or context at one instant, as in the lake's table ``telemetry``; a
wide file has several in a line. Nothing is dropped: ``rows_in = rows_kept + rows_quarantined``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Context, Decision, Regular, Signal
from aiotkit.core.errors import DataError
from aiotkit.lab.instants import Instants, parse_instants, placed
from aiotkit.lab.layout import Layout, Options, conversions, folded, settle, subjects, time_column
from aiotkit.lab.quality import poor, quality_column
from aiotkit.lab.rates import Rate, judge_rates
from aiotkit.lab.readers import Raw, read_raw
from aiotkit.lab.readings import Reading
from aiotkit.lab.stored import Clash, Stored, store
from aiotkit.lab.units import Conversion, conversion
from aiotkit.lab.values import EMPTY_WORDS, converted, numbers, words

if TYPE_CHECKING:
    from aiotkit.lake.lake import Lake

_DAY_US, _END_US = 86_400_000_000, 4_102_444_800_000_000
ROWS = ["row", "subject", "name", "at_us", "value", "word", "unit"]
QUARANTINED = ["row", "subject", "name", "reason", "content"]


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of every row, and what was noticed on the way."""

    source: str
    file_rows: int
    rows_in: int
    rows_kept: int
    rows_quarantined: int
    reasons: Mapping[str, int]
    kept_by_name: Mapping[str, int]
    subjects: int
    first_us: int | None
    last_us: int | None
    out_of_order: int
    rates: tuple[Rate, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = {n: getattr(self, n) for n in self.__slots__}
        return plain | {
            "reasons": dict(self.reasons),
            "kept_by_name": dict(self.kept_by_name),
            "rates": [rate.to_json() for rate in self.rates],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [
            f"{self.source}: {self.file_rows:,} lines, {self.rows_in:,} values",
            f"  kept         {self.rows_kept:,} of {self.subjects} subjects"
            + (
                f", {_instant(self.first_us)} to {_instant(self.last_us)}"
                if self.first_us is not None
                else ""
            ),
            f"  quarantined  {self.rows_quarantined:,}",
            *(f"    {count:>10,}  {reason}" for reason, count in self.reasons.items()),
            *(f"  {name}: {count:,} values" for name, count in self.kept_by_name.items()),
            *(f"  {rate}" for rate in self.rates),
            *([f"  sorted: {self.out_of_order:,} values were out of order"] if self.out_of_order else []),
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Ingested:
    """What is believed, and what is not.

    ``rows``: columns ``ROWS``, sorted by subject, name and time. ``quarantined``: columns
    ``QUARANTINED``, in file order. ``digest``: of the file. ``reading``: how it was read.
    """

    rows: pd.DataFrame
    quarantined: pd.DataFrame
    report: IngestReport
    digest: str
    reading: Reading = field(default_factory=Reading)

    def to_lake(
        self,
        lake: Lake,
        *,
        ingested_us: int,
        device: str | None = None,
        clash: Clash = "refuse",
        replace: bool = False,
    ) -> Stored:
        """Append to a lake what it does not hold yet, and the quarantine.

        Args:
            lake: where to.
            ingested_us: now, µs UTC; recorded with quarantined rows.
            device: which device measured it, if one did.
            clash: where the lake holds another value for an instant: ``refuse`` the whole, or keep the lake's
                and ``quarantine`` these.
            replace: in the place of what the lake holds of this file.

        Raises:
            AlreadyStoredError: these names of these bytes, read in this way, are in the lake already.
            ContradictionError: the lake holds the file read otherwise, or another value for one of the
                instants; nothing was added.
        """
        return store(self, lake, ingested_us=ingested_us, device=device, clash=clash, replace=replace)


def ingest(
    source: str | Path | pd.DataFrame | Raw,
    decision: Decision,
    options: Options | None = None,
    *,
    now_us: int | None = None,
) -> Ingested:
    """Read telemetry of a decision from a CSV or Parquet file or a frame; wide, long, or a row a window.

    Several files at once: ``lab.bring.ingest_files``.

    Values are converted to the decision's units; times to µs UTC. A line that cannot be read, a time that
    does not exist or occurs twice, an empty, non-numeric, infinite or impossible value, an unknown name,
    a duplicate, and a series of the wrong rate go to quarantine with row number and reason; so do times
    before 1970, after 2100, or more than a day after ``now_us`` (µs UTC) where that is given.

    Raises:
        DataError: the file as a whole cannot be read as telemetry of this decision: a column is missing,
            times have no zone, units do not convert, or every series has another rate than declared.
    """
    options = options or Options()
    options = replace(options, clock=replace(options.clock, hint=decision.site.time_zone))
    raw = read_raw(source, encoding=options.encoding)
    layout = settle(raw, decision, options)
    convert = conversions(decision, options, layout.units)
    who = subjects(raw, layout)
    when = _plausible(_instants(raw, layout, who, decision, options), now_us)
    when = _of_quality(when, raw, layout)
    pieces = list(_pieces(raw, layout, decision, options))
    judged = [_judge(piece, decision, convert, who, when, options) for piece in pieces]
    cells = pd.concat(judged, ignore_index=True) if judged else _nothing()
    out_of_order = _out_of_order(cells)
    cells = cells.sort_values(["subject", "name", "at_us", "row"], kind="stable", ignore_index=True)
    _mark_duplicates(cells)
    rates = judge_rates(cells, decision, options.rate_tolerance)
    used = {name: convert[name] for name in convert if layout.unit_column is None}
    used |= {p.name: p.convert for p in pieces if p.convert is not None}
    notes = (*raw.notes, *layout.notes, *when.notes, *_unit_notes(used))
    split = _split(cells, raw, rates, notes, out_of_order)
    return replace(split, reading=_reading(layout, decision, options, used, local=when.local))


def _reading(
    layout: Layout, decision: Decision, options: Options, used: Mapping[str, Conversion], *, local: bool
) -> Reading:
    """How the file was read: what took effect, found or told."""
    clock, how = (
        options.clock,
        {n: getattr(layout, n) for n in ("shape", "time", "subject", "subject_column")},
    )
    how |= {n: getattr(layout, n) for n in ("name_column", "value_column", "unit_column")}
    how |= {n: getattr(options, n) for n in ("start", "every_s", "decimal", "encoding", "rate_tolerance")}
    how |= {"time_format": clock.time_format, "epoch": clock.epoch}
    how |= {"zone": clock.zone, "ambiguous": clock.ambiguous} if local else {}
    columns = {n: list(c) if len(c) < 2 else [c[0], c[-1]] for n, c in layout.columns.items()}
    columns |= {n: [c] for n, c in options.columns.items() if n not in columns}
    specs = {**decision.signals, **decision.context}
    of = {n: {"column": columns.get(n), "unit": used[n].source if n in used else None} for n in specs}
    ranges = {n: list(s.range) for n, s in decision.signals.items()}
    ranges |= {n: list(c.range) for n, c in decision.context.items() if c.range is not None}
    given = {name: value for name, value in how.items() if value is not None}
    return Reading(given, of, ranges, tuple(options.only))


def _unit_notes(convert: Mapping[str, Conversion]) -> Iterator[str]:
    for name, c in convert.items():
        if c.source != c.target:
            yield f"{name}: {c.source} converted to {c.target}" + (f" ({c.note})" if c.note else "")
        elif c.note:
            yield f"{name}: {c.note}"


def nothing(name: str) -> Ingested:
    """What an empty file holds."""
    raw = Raw(name, pd.DataFrame(), "sha256:" + hashlib.sha256(b"").hexdigest())
    return _split(_nothing(), raw, (), ("the file is empty: no row was read",), 0)


def _nothing() -> pd.DataFrame:
    return pd.DataFrame({c: pd.Series(dtype=object) for c in (*ROWS, "reason", "content")})


def _instants(raw: Raw, layout: Layout, who: pd.Series, decision: Decision, options: Options) -> Instants:
    if layout.time is not None:
        keys = [who]
        if layout.name_column is not None:
            keys.append(
                raw.frame[layout.name_column].astype(object).where(raw.frame[layout.name_column].notna(), "")
            )
        series = (
            pd.DataFrame({str(i): k for i, k in enumerate(keys)})
            .groupby([str(i) for i in range(len(keys))])
            .ngroup()
        )
        return parse_instants(
            time_column(raw, layout.time), options.clock, np.asarray(series, dtype=np.int64)
        )
    assert options.start is not None
    every = options.every_s or _step_s(decision, layout, options)
    return placed(options.start, every, raw.frame.index, options.clock, pd.factorize(who)[0].astype(np.int64))


def _step_s(decision: Decision, layout: Layout, options: Options) -> float:
    """Seconds between rows that carry no time: a window's, or a sample's."""
    wanted = [decision.signals[n].sampling for n in (options.only or layout.columns) if n in decision.signals]
    rates = [s.rate_hz for s in wanted if isinstance(s, Regular)]
    return 1 / max(rates) if layout.shape == "wide" and rates else decision.window.every_s


def _plausible(when: Instants, now_us: int | None) -> Instants:
    """Refuse years no machine was measured in: before 1970, after 2100, or a day after now where known."""
    latest = _END_US if now_us is None else min(_END_US, now_us + _DAY_US)
    reason = np.where(when.good & (when.at_us < 0), "time before 1970", when.reason)
    said = "time after 2100" if latest == _END_US else "time more than a day in the future"
    reason = np.where(when.good & (when.at_us > latest), said, reason)
    return replace(when, reason=reason.astype(object))


def _of_quality(when: Instants, raw: Raw, layout: Layout) -> Instants:
    """Refuse rows that say themselves that they are not good."""
    column = quality_column(raw.frame)
    if column is None or column in {c for columns in layout.columns.values() for c in columns}:
        return when
    bad = poor(raw.frame[column]) & when.good
    said = f"{column} says '" + raw.frame[column].astype(str).to_numpy(dtype=object) + "'"
    note = f"quality: column '{column}'; {int(bad.sum()):,} rows are not good and were not taken"
    return replace(when, reason=np.where(bad, said, when.reason).astype(object), notes=(*when.notes, note))


@dataclass(frozen=True, slots=True)
class _Piece:
    """Values of one name: positions of their file rows, raw values, and µs after the row's time.

    ``convert`` and ``doubt``: where rows say their unit, how it converts, or why it does not.
    """

    name: str
    rows: NDArray[np.int64]
    raw: pd.Series
    offset_us: NDArray[np.int64] | int
    convert: Conversion | None = None
    doubt: str = ""


def _pieces(raw: Raw, layout: Layout, decision: Decision, options: Options) -> Iterator[_Piece]:
    everything = np.arange(len(raw.frame))
    if layout.shape == "long":
        assert layout.name_column is not None
        assert layout.value_column is not None
        column, back = raw.frame[layout.name_column], {c: n for n, c in options.columns.items()}
        names = _stripped(column).replace(back)
        known = {folded(n): n for n in (*decision.signals, *decision.context)}
        names = names.map(lambda n: n if n in known.values() else known.get(folded(n), n))
        units = _stripped(raw.frame[layout.unit_column]) if layout.unit_column else names.map(lambda _: "")
        groups = pd.Series(everything).groupby([names.to_numpy(), units.to_numpy()])
        for (name, unit), places in groups:
            chosen = places.to_numpy(dtype=np.int64)
            said = raw.frame[layout.value_column].iloc[chosen]
            convert, doubt = _unit_said(str(name), str(unit), decision, options)
            yield _Piece(str(name), chosen, said, 0, convert, doubt)
        return
    for name, columns in layout.columns.items():
        if layout.shape == "wide" or len(columns) == 1:
            yield _Piece(name, everything, raw.frame[columns[0]], 0)
            continue
        sampling = decision.signals[name].sampling
        rate = sampling.rate_hz if isinstance(sampling, Regular) else (sampling.grid_hz or 1.0)
        steps = np.rint(np.arange(len(columns)) / rate * 1e6).astype(np.int64)
        values = raw.frame[list(columns)].to_numpy(dtype=object).ravel()
        yield _Piece(
            name, np.repeat(everything, len(columns)), pd.Series(values), np.tile(steps, len(everything))
        )


def _stripped(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), "").astype(str).str.strip()


def _unit_said(name: str, unit: str, decision: Decision, options: Options) -> tuple[Conversion | None, str]:
    """How a unit that rows name converts, or why it does not; neither where it says nothing."""
    spec: Signal | Context | None = decision.signals.get(name) or decision.context.get(name)
    if spec is None or spec.unit is None or name in options.units or unit.lower() in EMPTY_WORDS:
        return None, ""
    try:
        return conversion(unit, spec.unit), ""
    except DataError as error:
        return None, error.what


def _judge(
    piece: _Piece,
    decision: Decision,
    convert: Mapping[str, Conversion],
    who: pd.Series,
    when: Instants,
    options: Options,
) -> pd.DataFrame:
    """Values of one name with the reason each cannot be believed ('' = none)."""
    subject, rows = who.to_numpy(dtype=object)[piece.rows], piece.rows
    spec: Signal | Context | None = decision.signals.get(piece.name) or decision.context.get(piece.name)
    text = piece.raw.astype(object).where(piece.raw.notna(), "").astype(str).str.strip()
    reason = np.full(len(rows), "", dtype=object)
    value, word = np.full(len(rows), np.nan), np.full(len(rows), None, dtype=object)
    unit = None
    if spec is None or (options.only and piece.name not in options.only):
        reason[:] = f"unknown name '{piece.name}'" if spec is None else "name was not asked for"
    elif isinstance(spec, Context) and spec.values is not None:
        word, reason = words(text, spec.values)
    else:
        value, reason = numbers(piece.raw, text, options.decimal)
        value, unit = converted(value, reason, piece.convert or convert[piece.name]), spec.unit
        if piece.doubt:
            reason[reason == ""] = piece.doubt
        if spec.range is not None:
            outside = (reason == "") & ~((value >= spec.range[0]) & (value <= spec.range[1]))
            reason[outside] = f"outside its range [{spec.range[0]:g}, {spec.range[1]:g}] {spec.unit}"
    reason = np.where(subject == "", "no subject", reason)
    reason = np.where(when.good[rows], reason, when.reason[rows])
    columns = {
        "row": who.index.to_numpy()[rows], "subject": subject, "name": piece.name,
        "at_us": when.at_us[rows] + piece.offset_us, "value": value, "word": word, "unit": unit,
        "reason": reason, "content": text.str.slice(0, 200).to_numpy(dtype=object),
    }  # fmt: skip
    return pd.DataFrame(columns)


def _out_of_order(cells: pd.DataFrame) -> int:
    """Values that stand in the file after a later one of their series."""
    good = cells[cells["reason"] == ""].sort_values("row", kind="stable")
    latest = good.groupby(["subject", "name"])["at_us"].cummax()
    return int((good["at_us"] < latest).sum())


def _mark_duplicates(cells: pd.DataFrame) -> None:
    """The first of equal values stays; where values of one instant differ, none can be believed."""
    good = cells[cells["reason"] == ""]
    key = ["subject", "name", "at_us"]
    several = good[good.duplicated(key, keep=False)]
    if several.empty:
        return
    same = several.groupby(key)[["value", "word"]].transform("nunique", dropna=False).max(axis=1) == 1
    repeated = several[same].duplicated(key, keep="first")
    cells.loc[repeated[repeated].index, "reason"] = "duplicate of an earlier row"
    cells.loc[several[~same].index, "reason"] = "several values for one instant"


def _split(
    cells: pd.DataFrame, raw: Raw, rates: tuple[Rate, ...], notes: tuple[str, ...], out_of_order: int
) -> Ingested:
    good = cells["reason"] == ""
    rows = cells.loc[good, ROWS].reset_index(drop=True)
    lines = [(m.row, "", "", m.reason, m.content) for m in raw.malformed]
    bad = cells.loc[~good, QUARANTINED]
    if lines:
        bad = pd.concat([bad, pd.DataFrame(lines, columns=QUARANTINED)])
    bad = bad.sort_values(["row", "name"], kind="stable", ignore_index=True)
    report = IngestReport(
        source=raw.name,
        file_rows=raw.frame.index.nunique() + len(raw.malformed),
        rows_in=len(cells) + len(lines),
        rows_kept=len(rows),
        rows_quarantined=len(bad),
        reasons={str(k): int(v) for k, v in bad["reason"].value_counts().items()},
        kept_by_name={str(k): int(v) for k, v in rows["name"].value_counts(sort=False).items()},
        subjects=int(rows["subject"].nunique()),
        first_us=int(rows["at_us"].min()) if len(rows) else None,
        last_us=int(rows["at_us"].max()) if len(rows) else None,
        out_of_order=out_of_order,
        rates=rates,
        notes=notes,
    )
    return Ingested(rows, bad, report, raw.digest)


def _instant(at_us: int | None) -> str:
    return (
        "never" if at_us is None else pd.Timestamp(at_us, unit="us", tz="UTC").strftime("%Y-%m-%d %H:%M:%SZ")
    )
