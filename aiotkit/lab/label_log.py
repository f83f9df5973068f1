"""What people said of decisions, in a file of one JSON line an answer, and how far they agree."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import DataError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person said of a decision; ``state`` None = cannot tell. ``looked``: at the machine itself."""

    device: str
    journal_id: str
    seq: int
    subject: str
    at_us: int
    state: str | None
    who: str
    said_us: int
    looked: bool
    reason: str
    likeliest: str | None
    note: str = ""

    @property
    def name(self) -> str:
        """Device, journal and sequence number in one word."""
        return f"{self.device}/{self.journal_id}/{self.seq}"


def read_log(path: Path) -> list[Answer]:
    """What was answered so far; nothing when there is no log yet.

    Raises:
        DataError: a line is not of format 1.
    """
    if not path.exists():
        return []
    answers = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            said = json.loads(line)
            if said.pop("format") != FORMAT:
                raise ValueError("another format")
            answers.append(Answer(**said))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path.name}, line {number}",
                expected=f"an answer of format {FORMAT}",
                found=str(error)[:120],
            ) from error
    return answers


def write_log(path: Path, answers: Sequence[Answer]) -> None:
    """Replace the log: the old one stays whole until the new one is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    lines = [canonical_bytes({"format": FORMAT} | asdict(a)) + b"\n" for a in answers]
    with aside.open("wb") as file:
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def agreement(answers: Sequence[Answer]) -> pd.DataFrame:
    """How often answers agree, beyond chance (κ, Cohen 1960), with the model and with each other.

    Columns: ``between``, ``compared``, ``same`` (share), ``kappa``; NaN where nothing can be compared.
    """
    told = [a for a in answers if a.state is not None]
    model = [(a.state, a.likeliest) for a in told if a.likeliest is not None]
    first: dict[str, Answer] = {}
    people = [(first[a.name].state, a.state) for a in told if first.setdefault(a.name, a) is not a]
    named = (("people and the model's likeliest state", model), ("two people", people))
    rows = [(words, len(pairs), *_kappa(pairs)) for words, pairs in named]
    return pd.DataFrame(rows, columns=["between", "compared", "same", "kappa"])


def _kappa(pairs: Sequence[tuple[Any, Any]]) -> tuple[float, float]:
    if not pairs:
        return np.nan, np.nan
    a, b = (np.array(side, dtype=object) for side in zip(*pairs, strict=True))
    same = float((a == b).mean())
    by_chance = sum(float((a == s).mean() * (b == s).mean()) for s in set(a) | set(b))
    return same, (same - by_chance) / (1 - by_chance) if by_chance < 1 else np.nan
