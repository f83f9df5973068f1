"""Own data in a notebook, in a line each: a decision out of a frame, examples out of frames, a trained head.

decision = decision_from(telemetry, "pump-guard", cost_act=80, cost_miss=500)
own = own_data(telemetry, outcomes, decision)
training = own.train(seed=7)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from aiotkit.core.decision import Decision
from aiotkit.lab.assemble import Source, from_frames, spans_of, take_in, to_telemetry
from aiotkit.lab.decision_file import read_decision_text
from aiotkit.lab.examples import BELIEVED, Examples
from aiotkit.lab.ingest import IngestReport
from aiotkit.lab.instants import Clock
from aiotkit.lab.layout import Options
from aiotkit.lab.outcome_reports import Imported, read_outcomes
from aiotkit.lab.outcome_told import Told
from aiotkit.lab.proposal import Known
from aiotkit.lab.propose import propose
from aiotkit.lab.recipe import recipe
from aiotkit.lab.start import draft_from, two_costs
from aiotkit.lab.template import write_draft

__all__ = ["Clock", "Options", "Own", "Told", "decision_from", "own_data"]

if TYPE_CHECKING:
    from aiotkit.lab.own_words import OwnWords
    from aiotkit.lab.train import Training


@dataclass(frozen=True, slots=True)
class Own:
    """Examples out of one's own data, and what became of every row on the way."""

    decision: Decision
    telemetry: tuple[IngestReport, ...]
    outcomes: Imported | None
    examples: Examples

    def __str__(self) -> str:
        lines = [str(report) for report in self.telemetry]
        if self.outcomes is not None:
            found = self.outcomes
            lines.append(f"{found.source}: {len(found.accepted):,} reports, {len(found.rejected):,} rejected")
            lines += [f"  {n:,}  {why}" for why, n in found.rejected["reason"].value_counts().items()]
            lines += [f"  note: {note}" for note in found.notes]
        states = self.examples.labelled().rows["state"].value_counts()
        lines.append(
            f"{len(self.examples):,} instants of {self.examples.rows['subject'].nunique():,} subjects"
        )
        lines += [f"  {n:,}  {state}" for state, n in states.items()]
        others = self.examples.rows["status"][~self.examples.rows["status"].isin(BELIEVED)].value_counts()
        lines += [f"  {n:,}  without a label: {status}" for status, n in others.items()]
        return "\n".join(lines)

    def train(self, *, seed: int, folds: int = 5, families: Sequence[str] | None = None) -> Training:
        """Let heads compete on what has a label (``families``: these alone; see ``lab.train``)."""
        from aiotkit.lab.train import DEFAULT, train

        return train(self.examples, self.decision, families=families or DEFAULT, folds=folds, seed=seed)


def decision_from(
    data: pd.DataFrame | str | Path | Mapping[str, pd.DataFrame],
    name: str,
    *,
    cost_act: float,
    cost_miss: float,
    label: str | None = None,
    path: Path | None = None,
    **answers: object,
) -> Decision:
    """A decision out of what a frame or file seems to hold; read it before you believe it.

    Args:
        data: telemetry; a mapping gives each subject's frame.
        name: id of the decision.
        cost_act: what acting costs, in vain or not.
        cost_miss: what it costs not to act when one should have.
        label: column that says how it was, if its name does not: its words are the states.
        path: write the decision file there too.
        answers: fields of ``template.Draft``, such as ``states``, ``actions``, ``horizon_s``, ``length_s``.

    Raises:
        DataError: no column looks like a signal.
        DecisionFileError: the answers do not make a decision.
    """
    if isinstance(data, Mapping):
        data = pd.concat(data, names=["subject"]).reset_index(level="subject").reset_index(drop=True)
    draft = draft_from(propose(data, Known(label=label)), name, **answers)
    text = write_draft(two_costs(draft, cost_act, cost_miss))
    if path is not None:
        path.write_text(text, encoding="utf-8")
    return read_decision_text(text, name)


def own_data(
    telemetry: Source | Sequence[Source] | Mapping[str, pd.DataFrame],
    outcomes: pd.DataFrame | str | Path | None,
    decision: Decision,
    *,
    names: Sequence[str] | None = None,
    read: Options | None = None,
    told: Told | None = None,
    words: OwnWords | None = None,
) -> Own:
    """Examples out of frames or files, with the books of what was kept and what was not.

    Args:
        telemetry: frames, files, folders, patterns; a mapping gives each subject's frame.
        outcomes: what was observed, in any form of ``lab.outcome_forms``; None = silence.
        decision: signals, window, how outcomes are had.
        names: features (default: ``recipe(decision, "auto")``).
        read: how the telemetry is laid out.
        told: what the outcomes mean.
        words: statistics of one's own among ``names``; see ``lab.own_words``.

    Raises:
        DataError, OutcomeError: as ``ingest`` and ``read_outcomes``.
    """
    taken = take_in(telemetry, decision, read)
    said = None
    if outcomes is not None:
        known = spans_of(to_telemetry(taken, decision))
        said = read_outcomes(outcomes, decision, told, known=known)
    wanted = recipe(decision, "auto") if names is None else names
    examples = from_frames(taken, said, decision, names=wanted, words=words)
    return Own(decision, tuple(one.report for one in taken), said, examples)
