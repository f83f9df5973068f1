"""Examples out of a lake or out of frames: everything a head may see, and the label, in order of time.

Two sources, alone or together. *Decisions of devices*: features, history and context as they were recorded
(features again from the raw window where it reached the lake). *Telemetry from files*: at each instant at
which a device would have decided, windows are cut, context joined and history run as the device does. Where
a device decided, its record goes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.core.history import history_values, update_history
from aiotkit.lab.bring import ingest_files
from aiotkit.lab.cut import Array, Cutter, context_at, rows_a_batch
from aiotkit.lab.examples import LABELS_FROM, OWN_WORDS, ROWS, Examples, context_columns, history_columns
from aiotkit.lab.front import Front, compute_features
from aiotkit.lab.ingest import Ingested, ingest
from aiotkit.lab.labels import columns_read, label
from aiotkit.lab.layout import Options
from aiotkit.lab.outcome_reports import OUTCOMES, Imported, read_outcomes
from aiotkit.lab.outcomes import reports_of
from aiotkit.lab.recorded import Recorded, recorded, windows_of
from aiotkit.lab.schedule import Due, due
from aiotkit.lab.telemetry import COLUMNS, Telemetry, gather, stretches

if TYPE_CHECKING:
    from aiotkit.lab.outcome_told import Told
    from aiotkit.lab.own_words import OwnWords
    from aiotkit.lake.lake import Lake

_TABLES = ("telemetry", "decisions", "outcomes", "assets", "blobs")
_INSTANT = pa.timestamp("us", tz="UTC")
#: telemetry: a frame, a file (a folder, a pattern), or what ``ingest`` gave
Source = pd.DataFrame | str | Path | Ingested


@dataclass(frozen=True, slots=True)
class Where:
    """Which instants: of these subjects (None = all), from ``from_us`` (included) to ``to_us`` (excluded)."""

    subjects: tuple[str, ...] | None = None
    from_us: int | None = None
    to_us: int | None = None

    def holds(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows (``subject``, ``at_us``) are meant."""
        fine = np.ones(len(rows), dtype=bool)
        if self.subjects is not None:
            fine &= rows["subject"].isin(self.subjects).to_numpy(dtype=bool)
        if self.from_us is not None:
            fine &= (rows["at_us"] >= self.from_us).to_numpy(dtype=bool)
        if self.to_us is not None:
            fine &= (rows["at_us"] < self.to_us).to_numpy(dtype=bool)
        return fine


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one source with the values of every column, before labels."""

    rows: pd.DataFrame
    x: Array
    windows: dict[str, Array]

    def take(self, which: NDArray[np.bool_]) -> _Part:
        if which.all():
            return self
        rows = self.rows[which].reset_index(drop=True)
        return _Part(rows, self.x[which], {n: w[which] for n, w in self.windows.items()})


def assemble(
    lake: Lake,
    decision: Decision,
    *,
    names: Sequence[str] | None = None,
    as_of_us: int,
    windows: bool = False,
    where: Where | None = None,
    words: OwnWords | None = None,
) -> Examples:
    """Examples of a decision from all that a lake knew at an instant.

    Args:
        lake: decisions of devices, telemetry, outcomes, registry.
        decision: signals, window, history, context, how outcomes are had.
        names: window features (default: those the decision reads); these are always included.
        as_of_us: µs UTC; telemetry, decisions and reports that came later do not count.
        windows: keep raw windows too. They take rows × samples × 4 bytes of memory.
        where: only some subjects or a span of time.
        words: statistics of one's own among ``names`` (``x_…``). They are computed here, from raw windows:
            what a device recorded under such a name may have been computed by another file.

    Returns:
        ``Examples`` with columns ``[*features, *history_columns, *context_columns]``; ``key`` is
        ``device/journal/seq``, or '' where no device decided. ``sources`` names table versions.

    Raises:
        DataError: the lake holds neither decisions nor telemetry of this decision, or nothing usable.
    """
    versions = {name: version for name, version in lake.versions().items() if name in _TABLES}
    front = Front(decision, names, words)
    acted = recorded(lake, decision, front.names, as_of_us, versions)
    # no copy of all rows as one table: batches are taken apart as they come
    heard = gather(
        lake.batches(
            "telemetry",
            columns=COLUMNS,
            where=pc.field("at") <= pa.scalar(as_of_us, _INSTANT),
            version=versions["telemetry"],
        ),
        decision,
    )
    parts = []
    if len(acted):
        parts.append(_of_devices(lake, acted, decision, front, versions["blobs"], windows=windows))
    if len(heard):
        parts.append(_of_telemetry(heard, decision, front, as_of_us, windows=windows))
    if not parts:
        raise DataError(
            f"decision '{decision.id}': the lake holds nothing to learn from",
            expected="decisions of devices, or telemetry",
            found=f"{versions['decisions']} commits of decisions, {versions['telemetry']} of telemetry, "
            f"nothing from before {pd.Timestamp(as_of_us, unit='us', tz='UTC'):%Y-%m-%d %H:%M:%S} UTC",
            do="Collect a journal, or bring in files with 'aiotkit ingest FILE --decision … --lake …'; or "
            "say a later --as-of.",
        )
    reports = reports_of(lake, versions["outcomes"])
    sources = {name: f"version {version}" for name, version in versions.items()} | _origin(front, words)
    return _finished(_united(parts, decision), reports, decision, front, as_of_us, sources, where)


def from_frames(
    telemetry: Source | Sequence[Source] | Mapping[str, pd.DataFrame],
    outcomes: pd.DataFrame | str | Path | Imported | None,
    decision: Decision,
    *,
    names: Sequence[str] | None = None,
    read: Options | None = None,
    told: Told | None = None,
    as_of_us: int | None = None,
    windows: bool = False,
    words: OwnWords | None = None,
) -> Examples:
    """Examples from frames or files, without a lake: the same rows as ingest, import and ``assemble`` give.

    Args:
        telemetry: frames or files of any shape ``ingest`` reads, or what ``ingest`` gave; a mapping gives
            each subject's frame.
        outcomes: what was observed, in any form ``read_outcomes`` reads, or what it gave; None = silence.
        decision: as in ``assemble``.
        names: as in ``assemble``.
        read: how the telemetry is laid out; found by itself where it can be.
        told: what the outcomes mean.
        as_of_us: default: the last instant the data speak of, so that silence after it means nothing.
        windows: as in ``assemble``.
        words: as in ``assemble``.

    Raises:
        DataError: nothing usable; or as ``ingest`` and ``read_outcomes``.
    """
    taken = take_in(telemetry, decision, read)
    heard = to_telemetry(taken, decision)
    front = Front(decision, names, words)
    if not len(heard):
        reasons = "; ".join(
            f"{n} × {why}" for one in taken for why, n in list(one.report.reasons.items())[:3]
        )
        raise DataError("no value of the telemetry can be used", found=reasons or "no rows")
    reports = pd.DataFrame(columns=OUTCOMES)
    sources = {f"telemetry {i}": one.digest for i, one in enumerate(taken)} | _origin(front, words)
    if outcomes is not None:
        said = outcomes
        if not isinstance(said, Imported):
            said = read_outcomes(said, decision, told, known=spans_of(heard))
        reports, sources["outcomes"] = said.accepted, said.digest
    if as_of_us is None:
        last = [int(s.at_us.max()) for s in heard.series.values() if len(s.at_us)]
        as_of_us = max([*last, *reports["reported_us"].astype("int64").tolist()])
    part = _of_telemetry(heard, decision, front, as_of_us, windows=windows)
    return _finished(part, reports, decision, front, as_of_us, sources, None)


def _origin(front: Front, words: OwnWords | None) -> dict[str, str]:
    """The file that the front's own words are from, for ``sources``."""
    return {OWN_WORDS: words.digest} if words is not None and front.own_asked else {}


def take_in(
    telemetry: Source | Sequence[Source] | Mapping[str, pd.DataFrame],
    decision: Decision,
    read: Options | None,
) -> list[Ingested]:
    """What ``ingest`` makes of each frame, file, folder or pattern; of a mapping, with the key as subject."""
    if isinstance(telemetry, Mapping):
        options = read or Options()
        return [ingest(f, decision, replace(options, subject=s)) for s, f in telemetry.items()]
    given = [telemetry] if isinstance(telemetry, pd.DataFrame | str | Path | Ingested) else list(telemetry)
    taken: list[Ingested] = []
    for one in given:
        if isinstance(one, Ingested):
            taken.append(one)
        elif isinstance(one, pd.DataFrame):
            taken.append(ingest(one, decision, read))
        else:
            taken += [found for _, found in ingest_files(one, decision, read)]
    return taken


def to_telemetry(taken: Sequence[Ingested], decision: Decision) -> Telemetry:
    """Sorted arrays out of what was read; raises ``ContradictionError`` where two sources differ."""
    return gather((_table(one.rows) for one in taken), decision, strict=True)


def spans_of(heard: Telemetry) -> dict[str, tuple[int, int] | None]:
    """First and last instant of each subject."""
    at = [np.unique(np.concatenate([s.at_us[s.bounds[i] : s.bounds[i + 1]] for s in heard.series.values()]))
          for i in range(len(heard.subjects))]  # fmt: skip
    return {s: (int(a[0]), int(a[-1])) for s, a in zip(heard.subjects, at, strict=True) if len(a)}


def columns_of(decision: Decision, features: Sequence[str]) -> tuple[str, ...]:
    """The columns of examples, in their order."""
    return (*features, *history_columns(decision), *context_columns(decision))


def _table(rows: pd.DataFrame) -> pa.Table:
    at = pa.array(rows["at_us"].to_numpy(dtype=np.int64))
    given: dict[str, Any] = {n: pa.array(rows[n], pa.string()) for n in ("subject", "name", "word")}
    given |= {"at": at.cast(_INSTANT), "value": pa.array(rows["value"].to_numpy(dtype=float))}
    return pa.table({name: given[name] for name in COLUMNS})


def _of_telemetry(
    heard: Telemetry, decision: Decision, front: Front, as_of_us: int, *, windows: bool
) -> _Part:
    at = due(heard, decision)
    at = at.take(at.end_us <= as_of_us)
    features, raw = _features(Cutter(heard, decision, at), len(at), decision, front, keep=windows)
    history = run_history(decision, at, dict(zip(front.names, features.T, strict=True)))
    context = context_at(heard, decision, at)
    columns = {**dict(zip(front.names, features.T, strict=True)), **history, **context}
    rows = pd.DataFrame(
        {
            "subject": np.array(heard.subjects, dtype=object)[at.codes],
            "at_us": at.end_us,
            "decided_us": at.end_us,
            "in_force": pd.Series([None] * len(at), dtype=object),
            "verify_hit": False,
            "verify_p": 0.0,
            "key": "",
        }
    )
    return _Part(rows, _matrix(columns, decision, front, len(at)), raw)


def _matrix(columns: Mapping[str, Array], decision: Decision, front: Front, n: int) -> Array:
    names = columns_of(decision, front.names)
    x = np.full((n, len(names)), np.nan, dtype=np.float32)
    for i, name in enumerate(names):
        x[:, i] = columns[name]
    return x


def _features(
    cutter: Cutter, n: int, decision: Decision, front: Front, *, keep: bool
) -> tuple[Array, dict[str, Array]]:
    """Features ``[n, names]`` batch by batch, and the raw windows where they are to be kept."""
    features = np.full((n, len(front.names)), np.nan, dtype=np.float32)
    sizes = {name: decision.samples(name) for name in decision.signals} if keep else {}
    raw = {name: np.empty((n, size), dtype=np.float32) for name, size in sizes.items()}
    step = rows_a_batch(decision)
    for lo in range(0, n, step):
        cut = cutter.cut(lo, min(n, lo + step))
        features[lo : lo + step] = compute_features(front, cut)
        for name, values in raw.items():
            values[lo : lo + step] = cut[name]
    return features, raw


def run_history(decision: Decision, at: Due, features: Mapping[str, Array]) -> dict[str, Array]:
    """The history columns at each instant, run subject by subject as the device runs it."""
    out: dict[str, Array] = {}
    for name, h in decision.history.items():
        spec, values = {name: h}, np.full(len(at), np.nan, dtype=np.float32)
        given = features[h.of].astype(float).tolist()
        ends = (at.end_us / 1e6).tolist()
        for _, lo, hi in stretches(at.codes):
            state: dict[str, tuple[float, ...]] = {}
            for i in range(lo, hi):
                values[i] = history_values(spec, state, ends[i])[name]
                state = update_history(spec, state, {h.of: given[i]}, ends[i])
        out[f"history.{name}"] = values
    return out


def _of_devices(
    lake: Lake, acted: Recorded, decision: Decision, front: Front, version: int, *, windows: bool
) -> _Part:
    own = {asked.name for asked in front.own_asked}
    own |= {f"history.{name}" for name, h in decision.history.items() if h.of in own}
    columns = {
        name: np.full_like(values, np.nan) if name in own else values.copy()
        for name, values in acted.values.items()
    }
    sizes = {name: decision.samples(name) for name in decision.signals} if windows else {}
    raw = {name: np.full((len(acted), n), np.nan, dtype=np.float32) for name, n in sizes.items()}
    seen = False
    for rows, cut in _batched(windows_of(lake, acted, decision, version), decision):
        seen = True
        for name, values in zip(front.names, compute_features(front, cut).T, strict=True):
            columns[name][rows] = values
        for name, kept in raw.items():
            kept[rows] = cut[name]
    if not seen and all(bool(np.isnan(columns[name]).all()) for name in front.names):
        raise DataError(
            f"decision '{decision.id}': {len(acted):,} decisions, and no feature of any of them is known",
            expected=f"raw windows, or recorded features among {', '.join(front.names[:8])}",
            do="Say 'upload: raw' (or selected) in the decision's needs, or read features that it records.",
        )
    columns |= _unrecorded(acted, decision, columns)
    return _Part(acted.rows, _matrix(columns, decision, front, len(acted)), raw)


def _batched(
    found: Iterator[tuple[NDArray[np.int64], dict[str, Array]]], decision: Decision
) -> Iterator[tuple[NDArray[np.int64], dict[str, Array]]]:
    step = rows_a_batch(decision)
    for rows, cut in found:
        for lo in range(0, len(rows), step):
            yield rows[lo : lo + step], {name: values[lo : lo + step] for name, values in cut.items()}


def _unrecorded(acted: Recorded, decision: Decision, columns: Mapping[str, Array]) -> dict[str, Array]:
    """History that no device has recorded, because the decision declares it only now: run on the desk."""
    codes = np.unique(acted.rows["subject"].to_numpy(dtype=str), return_inverse=True)[1].astype(np.int64)
    at = Due(codes, acted.rows["at_us"].to_numpy(dtype=np.int64))
    new = {
        n: h
        for n, h in decision.history.items()
        if h.initial is None and bool(np.isnan(columns[f"history.{n}"]).all())
    }
    return run_history(decision.model_copy(update={"history": new}), at, columns) if new else {}


def _united(parts: Sequence[_Part], decision: Decision) -> _Part:
    """Both sources in order of subject and time; where a device decided, telemetry adds nothing."""
    if len(parts) == 1:
        return parts[0]
    first, second = parts
    second = second.take(~_near(second.rows, first.rows, round(decision.window.every_s * 5e5)))
    shown = [c for c in first.rows.columns if c in second.rows.columns]
    rows = pd.concat([first.rows[shown], second.rows[shown]], ignore_index=True)
    order = rows.sort_values(["subject", "at_us", "key"], kind="stable").index.to_numpy()
    x = np.concatenate([first.x, second.x])[order]
    raw = {n: np.concatenate([first.windows[n], second.windows[n]])[order] for n in first.windows}
    return _Part(rows.iloc[order].reset_index(drop=True), x, raw)


def _near(rows: pd.DataFrame, taken: pd.DataFrame, within_us: int) -> NDArray[np.bool_]:
    """Which rows lie within a span of a row of ``taken`` with the same subject."""
    out = np.zeros(len(rows), dtype=bool)
    theirs = {s: g.to_numpy(dtype=np.int64) for s, g in taken["at_us"].groupby(taken["subject"])}
    for subject, mine in rows["at_us"].groupby(rows["subject"]):
        at = theirs.get(subject)
        if at is not None:
            asked = mine.to_numpy(dtype=np.int64)
            low, high = (
                np.searchsorted(at, asked - within_us),
                np.searchsorted(at, asked + within_us, "right"),
            )
            out[mine.index.to_numpy()] = high > low
    return out


def _finished(
    part: _Part,
    reports: pd.DataFrame,
    decision: Decision,
    front: Front,
    as_of_us: int,
    sources: Mapping[str, str],
    where: Where | None,
) -> Examples:
    rows = part.rows
    asked = rows[["subject", "in_force", "verify_hit"]].assign(at_us=rows["decided_us"])
    # the key only orders here, and rows are in order already
    asked = asked.assign(device="", journal_id="", seq=np.arange(len(rows)))
    said = label(asked, reports, decision, as_of_us)
    whole = rows.assign(**{c: said[c].to_numpy() for c in ("state", "status", "confidence")})
    chosen = np.ones(len(rows), dtype=bool) if where is None else where.holds(whole)
    if not chosen.any():
        raise DataError(
            f"decision '{decision.id}': no instant at which it could have been taken",
            expected=f"at least one full window of {decision.window.length_s:g} s",
            do="Look at window.length_s, the sampling, and what was asked for with where.",
        )
    kept = part.take(chosen)
    about = dict(sources) | {"decision": decision.digest, "as_of_us": str(as_of_us)}
    about |= {LABELS_FROM: "\n".join(read)} if (read := columns_read(reports, decision)) else {}
    rows = whole.loc[chosen, list(ROWS)].reset_index(drop=True)
    return Examples(rows, columns_of(decision, front.names), kept.x, kept.windows, about)
