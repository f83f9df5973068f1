"""What a file probably holds, in words, as a piece of a decision file, and as the commands that read it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from aiotkit.lab.guess import Guess, Role
from aiotkit.lab.pace import SNAPSHOT_S, Pace
from aiotkit.lab.template import ContextDraft, SignalDraft, context_lines, signal_lines


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a file probably holds. ``doubts`` say what only a person can settle.

    ``pace``: of the fastest signal. ``flags``: what the command needs to read it so.
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
    def fragment(self) -> str:
        """Signals, window and context as a decision file has them, to be read and corrected."""
        window = f"window: {{length_s: {self.length_s:.9g}, every_s: {self.every_s:.9g}}}"
        return (
            "\n".join(["signals:", *signal_lines(self.signals), window, *context_lines(self.context)]) + "\n"
        )

    def reading(self, decision: str = "DECISION.yaml") -> str:
        """The command that reads the file, with what was found filled in and ``…`` where nobody can know."""
        words = ["aiotkit", "ingest", shlex.quote(self.path), "--decision", shlex.quote(decision)]
        time, subject = self.one("time"), self.one("subject")
        if time is not None:
            words += ["--time", shlex.quote(time.column)]
        elif not {"--start", "--start-from"} & set(self.flags):
            words += ["--start", "…", "--every-s", "…"]
        if subject is not None:
            words += ["--subject-column", shlex.quote(subject.column)]
        elif "--subject-from" not in self.flags:
            words += ["--subject", "…"]
        for name, column in self.columns.items():
            if name != column:
                words += ["--column", shlex.quote(f"{name}={column}")]
        return " ".join([*words, *map(_quoted, self.flags)] + (["--zone", "…"] if self.zone_needed else []))

    def commands(self, decision: str | Path) -> list[str]:
        """The commands that bring the file into a lake, and its labels where a column holds them."""
        found = [f"{self.reading(str(decision))} --lake lake"]
        label = self.one("label")
        if self.labels and label is not None:
            words = ["aiotkit", "outcomes", "import", shlex.quote(self.path), "--lake", "lake", "--decision"]
            words += [shlex.quote(str(decision)), "--label", shlex.quote(label.column)]
            kept = {"--time", "--subject-column", "--subject", "--subject-from", "--time-format", "--zone"}
            kept |= {"--encoding", "--start", "--every-s"}
            given = shlex.split(self.reading())
            for flag, value in pairwise(given):
                words += [flag, _quoted(value)] if flag in kept else []
            found.append(" ".join(words))
        return found

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


def _quoted(word: str) -> str:
    return word if word == "…" else shlex.quote(word)
