"""What files probably hold whose rows are windows: with a header, or numbers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from aiotkit.lab.files import stem
from aiotkit.lab.first_limit import below_highest
from aiotkit.lab.guess import as_numbers, identifiers, span_of, unit_of
from aiotkit.lab.guess_time import TimeFound, find_time
from aiotkit.lab.guessed import Guess
from aiotkit.lab.layout import BOTH
from aiotkit.lab.pace import Pace, pace_of
from aiotkit.lab.proposal import Known, Proposal
from aiotkit.lab.readers import Raw
from aiotkit.lab.template import SignalDraft
from aiotkit.lab.windows import alike

#: what is not known where no file says whose its rows are
WHOSE = "which subject the rows belong to: give --subject, --subject-column, or --subject-from filename"


def headless_windows(raw: Raw) -> bool:
    """Whether the rows of a file without header are windows of one signal, not rows of many columns."""
    rows, columns = raw.frame.shape
    return columns >= 8 and (rows <= 50 * columns or columns > 32) and alike(raw.frame, 0.9)


def samples_only(raw: Raw, known: Known) -> Raw:
    """A file of windows without what is no sample: its time, its subject."""
    if raw.headless:
        return raw
    time = find_time(raw.frame).guess
    taken = {known.subject_column, *(known.time or (time.column if time else "")).split(BOTH)}
    columns = [c for c in raw.frame.columns if c not in taken and as_numbers(raw.frame[c]) is not None]
    return replace(raw, frame=raw.frame[columns])


def of_files(path: str, files: Sequence[tuple[Path, Raw]]) -> Proposal:
    """Files without header: a file a signal, a row a window."""
    drafts: dict[str, SignalDraft] = {}
    n = max(raw.frame.shape[1] for _, raw in files)
    names = identifiers([stem(p) for p, _ in files])
    for file, raw in files:
        drafts[names[stem(file)]] = _draft(names[stem(file)], raw.frame, raw.frame.shape[1] / n)
    columns = files[0][1].frame.columns
    guesses = tuple(Guess(str(c), "sample", "numbers without a header", 0.7) for c in columns)
    doubts = [
        "where a row begins in time: give --start and --every-s",
        f"the sampling rate: 1 Hz is assumed below, so that a row lasts {n} s",
        *_units(drafts),
        WHOSE,
    ]
    return Proposal(
        path, len(files[0][1].frame), "window", guesses, Pace(1.0, 1.0, float(n)), False,
        tuple(doubts), drafts, {}, {}, float(n), float(n),
    )  # fmt: skip


def with_windows(
    rest: Proposal, frame: pd.DataFrame, windows: Mapping[str, Sequence[str]], time: TimeFound, known: Known
) -> Proposal:
    """A table in which some columns are samples, out of what its other columns seem to be.

    Args:
        rest: what the table without the samples was found to hold.
        frame: the whole table.
        windows: signal as written -> its columns.
        time: the time of the rows.
        known: what was told.
    """
    who = rest.one("subject")
    series = pd.Series(0, frame.index) if who is None else frame.groupby(who.column, dropna=False).ngroup()
    groups = series.to_numpy(dtype=np.int64)
    good = None if time.instants is None else time.instants.good
    rows = None if time.instants is None else pace_of(time.instants.at_us[good], groups[good])
    every = known.every_s or (rest.every_s if rows is None else rows.period_s)
    length = min(1.0, every)
    told = {column: name for name, column in known.columns.items()}
    names = identifiers([*(c or "signal" for c in windows), *rest.signals]) | told
    called = {written: names[written or "signal"] for written in windows}
    drafts = {
        name: _draft(name, frame[list(windows[written])], len(windows[written]) / length)
        for written, name in called.items()
    }
    sizes = {written or "0, 1, 2": len(columns) for written, columns in windows.items()}
    said = ", ".join(f"{n} columns {w}…" for w, n in sizes.items())
    doubts = [d for d in rest.doubts if not d.startswith("the sampling rate")]
    doubts += [f"whether a row is a window: {said} are taken for samples (if not: --shape wide)"]
    doubts += [f"the sampling rate: the samples of a row are taken for {length:g} s", *_units(drafts)]
    samples = [Guess(c, "sample", "numbered, and alike", 0.8) for cs in windows.values() for c in cs]
    scalars = {n: replace(s, rate_hz=None, grid_hz=None, max_age_s=1.5 * every, limit=None)
               for n, s in rest.signals.items()}  # fmt: skip
    context = {n: replace(c, max_age_s=3 * every) for n, c in rest.context.items()}
    written = {name: w for w, name in called.items() if w}
    return replace(
        rest, shape="window", guesses=(*rest.guesses, *samples), doubts=tuple(doubts),
        signals=drafts | scalars, context=context, columns=written | rest.columns, length_s=length,
        every_s=every, pace=rows or rest.pace, flags=(*rest.flags, "--shape", "window"),
    )  # fmt: skip


def _draft(name: str, samples: pd.DataFrame, rate_hz: float) -> SignalDraft:
    values = samples.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    low, high = span_of(values)
    unit, sure, why = unit_of(name, float(np.nanmin(values)), float(np.nanmax(values)))
    limit = below_highest(np.nanmax(values, axis=1), "windows")
    remark = f"{sure:.0%} sure of the unit: {why}"
    return SignalDraft(unit, float(f"{rate_hz:.9g}"), low, high, remark, limit=limit)


def _units(drafts: Mapping[str, SignalDraft]) -> Iterator[str]:
    unsure = [n for n, d in drafts.items() if not d.remark.startswith(("9", "100"))]
    if unsure:
        yield f"the units of {', '.join(unsure[:8])}"
