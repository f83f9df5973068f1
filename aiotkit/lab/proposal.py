"""What a file probably holds, in words, as a piece of a decision file, and as the commands that read it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from aiotkit.lab.files import SubjectFrom
from aiotkit.lab.guess import coded
from aiotkit.lab.guessed import Guess, Role
from aiotkit.lab.instants import Ambiguous, Clock, Epoch
from aiotkit.lab.layout import Shape, folded
from aiotkit.lab.pace import SNAPSHOT_S, Pace
from aiotkit.lab.template import ContextDraft, SignalDraft, context_lines, signal_lines
from aiotkit.lab.uneventful import states_of, yes_or_no

#: options that say whose a row is and when, for telemetry and outcomes alike
_PLACES = frozenset(
    {
        "--time", "--subject-column", "--subject", "--subject-from", "--time-format", "--encoding", "--start",
        "--every-s", "--epoch", "--ambiguous",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Known:
    """What one knows of files before they are looked at: it is taken, and neither guessed nor asked.

    ``zone``: of times without offset. ``subject``: the one subject, or which column or part of a file's place
    names it. ``label``: the column that says how it was. The others are as in ``layout.Options``.
    """

    encoding: str | None = None
    zone: str | None = None
    subject: str | None = None
    subject_column: str | None = None
    subject_from: SubjectFrom | None = None
    shape: Shape | None = None
    time: str | None = None
    time_format: str | None = None
    epoch: Epoch | None = None
    ambiguous: Ambiguous = "quarantine"
    name_column: str | None = None
    value_column: str | None = None
    unit_column: str | None = None
    decimal: str | None = None
    start: str | None = None
    start_from: str | None = None
    every_s: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    only: Sequence[str] = ()
    label: str | None = None

    @property
    def clock(self) -> Clock:
        """How times are read; those without offset as if in UTC where no zone is known yet."""
        return Clock(self.zone or "UTC", self.ambiguous, self.time_format, self.epoch)

    @property
    def flags(self) -> tuple[str, ...]:
        """The options of ``aiotkit ingest`` that say the same, but zone, subject and single columns."""
        names = ("encoding", "shape", "time_format", "epoch", "decimal", "start", "start_from", "every_s")
        given = {n: getattr(self, n) for n in names}
        given["ambiguous"] = None if self.ambiguous == "quarantine" else self.ambiguous
        words = [w for n, v in given.items() if v is not None for w in (_option(n), _written(v))]
        words += [w for name, unit in self.units.items() for w in ("--unit", f"{name}={unit}")]
        return (*words, *(w for name in self.only for w in ("--only", name)))

    @property
    def names_subject(self) -> bool:
        """Whether the subject is known without looking into a column."""
        return self.subject is not None or self.subject_from is not None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a file probably holds. ``doubts`` say what only a person can settle.

    ``cycles``: rows are counted and carry no time. ``pace``: of the fastest signal. ``flags``: what the
    command needs to read it so. ``given``: the files, folders and patterns, where there are any.
    """

    path: str
    rows: int
    shape: str
    guesses: tuple[Guess, ...]
    pace: Pace | None
    zone_needed: bool
    doubts: tuple[str, ...]
    signals: dict[str, SignalDraft]
    context: dict[str, ContextDraft]
    columns: dict[str, str]
    length_s: float
    every_s: float
    flags: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    cycles: bool = False

    def one(self, role: Role) -> Guess | None:
        """The likeliest column of a role, if any."""
        found = [g for g in self.guesses if g.role == role]
        return max(found, key=lambda g: g.sure) if found else None

    @property
    def rate_hz(self) -> float | None:
        """Values a second of the fastest signal."""
        return None if self.pace is None else 1 / self.pace.period_s

    @property
    def snapshots(self) -> bool:
        """Whether a row is a whole window: one a shift, a day, a month."""
        return self.pace is not None and self.pace.period_s >= SNAPSHOT_S

    @property
    def runs_to_failure(self) -> bool:
        """Whether rows are counted for each subject and carry no time: records up to a failure, it seems."""
        several = self.one("subject") is not None or "--subject-from" in self.flags
        return self.cycles and several and not self.labels and "--start-from" not in self.flags

    @property
    def fragment(self) -> str:
        """Signals, window and context as a decision file has them, to be read and corrected."""
        window = f"window: {{length_s: {self.length_s:.9g}, every_s: {self.every_s:.9g}}}"
        return (
            "\n".join(["signals:", *signal_lines(self.signals), window, *context_lines(self.context)]) + "\n"
        )

    def reading(self, decision: str = "DECISION.yaml") -> str:
        """The command that reads the file, with what was found filled in and ``…`` where nobody can know."""
        files = shlex.join(self.given or (self.path,))
        words = ["aiotkit", "ingest", files, "--decision", shlex.quote(decision)]
        time, subject = self.one("time"), self.one("subject")
        if time is not None:
            words += ["--time", shlex.quote(time.column)]
        elif not {"--start", "--start-from"} & set(self.flags):
            words += ["--start", "…", "--every-s", "…"]
        if subject is not None:
            words += ["--subject-column", shlex.quote(subject.column)]
        elif not {"--subject", "--subject-from"} & set(self.flags):
            words += ["--subject", "…"]
        for name, column in self.columns.items():
            if name != column and not (self.shape == "long" and folded(name) == folded(column)):
                words += ["--column", shlex.quote(f"{name}={column}")]
        return " ".join([*words, *map(_quoted, self.flags)] + (["--zone", "…"] if self.zone_needed else []))

    def commands(self, decision: str | Path, state: str) -> list[str]:
        """The commands from the file to a candidate's report; ``state``: what a failure means."""
        return whole_way(decision, state, reading=self.reading(str(decision)), outcomes=self._outcomes(state))

    def _outcomes(self, state: str) -> str:
        """What is said behind ``outcomes import``: the label column of the file, or a list of failures."""
        label = self.one("label")
        kept = {"--zone"}
        words = ["…", "--form", "failures", "--state", state]
        if self.labels and label is not None:
            words = [shlex.join(self.given or (self.path,)), "--label", shlex.quote(label.column)]
            maps = [f"{v}={coded(label.column, v)}" for v in coded_values(self.labels)]
            if not maps and states_of(self.labels) is None and not yes_or_no(self.labels):
                maps = [f"{v}=…" for v in self.labels[:20]]
            words += [w for one in maps for w in ("--map", shlex.quote(one))]
            kept |= _PLACES
        elif self.runs_to_failure:
            words = [shlex.join(self.given or (self.path,)), "--form", "ends", "--state", state]
            kept |= _PLACES
        for flag, value in pairwise(shlex.split(self.reading())):
            words += [flag, _quoted(value)] if flag in kept else []
        return " ".join(words)

    @property
    def command(self) -> str:
        """``reading`` of a decision file whose name is not known."""
        return self.reading()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "path": self.path, "rows": self.rows, "shape": self.shape, "rate_hz": self.rate_hz,
            "steady": None if self.pace is None else self.pace.steady, "zone_needed": self.zone_needed,
            "doubts": list(self.doubts),
            "columns": [{n: getattr(g, n) for n in g.__slots__} for g in self.guesses],
            "fragment": self.fragment, "command": self.command,
        }  # fmt: skip

    def __str__(self) -> str:
        shown = [g for g in self.guesses if g.role != "sample"]
        width = max((len(g.column) for g in shown), default=1)
        lines = [f"{self.path}: {self.rows:,} rows, shape {self.shape}. These are guesses; read them."]
        for g in shown[:60]:
            unit = f" {g.unit}" if g.unit else ""
            lines.append(f"  {g.column:<{width}}  {g.role + unit:<14} {g.sure:>4.0%} sure: {g.why}")
        lines += [f"  … and {len(shown) - 60:,} columns more"] if len(shown) > 60 else []
        samples = sum(g.role == "sample" for g in self.guesses)
        lines += [f"  {samples} columns of samples: each row is a window"] if samples else []
        if self.pace is not None:
            agree = f"{self.pace.steady:.0%} of intervals agree"
            lines.append(f"  one value every {self.pace.period_s:g} s ({agree})")
        lines += [f"  not known: {doubt}" for doubt in self.doubts]
        return "\n".join([*lines, "", "For the decision file:", self.fragment, "To read it:", self.command])


def coded_values(labels: Sequence[str]) -> tuple[str, ...]:
    """Numbers that stand for states, 0 first if it is one of them; none where they are words, or 0 and 1.

    >>> coded_values(("3", "0", "1")), coded_values(("0", "1")), coded_values(("ok", "worn"))
    (('0', '3', '1'), (), ())
    """
    plain = tuple(re.sub(r"\.0+$", "", v) for v in labels)
    if set(plain) <= {"0", "1"} or not all(re.fullmatch(r"\d{1,4}", v) for v in plain):
        return ()
    return tuple(sorted(plain, key=lambda v: v != "0"))


def whole_way(
    decision: str | Path, state: str, *, reading: str | None = None, outcomes: str | None = None
) -> list[str]:
    """The commands from files to a candidate's report, with ``…`` where only a person knows.

    >>> whole_way("pump.yaml", "worn")[1]
    'aiotkit outcomes import … --form failures --state worn --decision pump.yaml --lake lake'
    """
    both = f"--decision {shlex.quote(str(decision))} --lake lake"
    outcomes = outcomes or f"… --form failures --state {state}"
    return [
        f"aiotkit ingest … {both}" if reading is None else f"{reading} --lake lake",
        f"aiotkit outcomes import {outcomes} {both}",
        f"aiotkit run retrain {both}",
        f"aiotkit report {both}",
    ]


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _written(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _quoted(word: str) -> str:
    return word if word == "…" else shlex.quote(word)
