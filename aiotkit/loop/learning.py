"""How an arm learns from its own diary, in process: train, export, compare with the champion, release.

The same functions as the retraining pipeline, without notebooks, registry and benchmarks: for experiments
of many rounds. Arms differ in which labels they believe and how long they go on learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from aiotkit.bundle.interface import Interface
from aiotkit.bundle.tuned import POLICY_FILE, Tuned
from aiotkit.core.decision import Decision
from aiotkit.core.errors import AiotkitError, DataError
from aiotkit.lab.examples import Examples
from aiotkit.lab.train import Training, train
from aiotkit.loop.engine_arm import EngineArm
from aiotkit.loop.maintenance import Report
from aiotkit.release.export import export
from aiotkit.release.held_out import CANDIDATE, CHAMPION, RULE, HeldOut, open_books
from aiotkit.release.in_force import champion_actions, rule_actions, without_head
from aiotkit.release.promote import money_gates

Labels = Literal["censored", "naive"]
Files = dict[str, bytes]
#: families that compete in the experiments: quick to train many times
FAMILIES = ("lda", "logistic")


@dataclass(frozen=True, slots=True)
class Lesson:
    """What came of one round of learning. ``refused``: why nothing was released, in words.

    ``money`` and ``rule``: EUR per subject-day of candidate and written rule on what was held out.
    """

    round: int
    labelled: int
    family: str = ""
    margin: float = np.nan
    money: float = np.nan
    rule: float = np.nan
    refused: str = ""


@dataclass
class Learner:
    """An arm that learns.

    ``labels``: ``censored`` as the desk resolves them, or ``naive`` (what was acted upon was right, the
    rest was healthy). ``until``: the last round it learns after (None = all).
    """

    arm: EngineArm
    labels: Labels = "censored"
    until: int | None = None
    families: Sequence[str] = FAMILIES
    lessons: list[Lesson] = field(default_factory=list)
    _learned_until_us: int | None = None

    def learn(self, reports: Sequence[Report], now_us: int, number: int, seed: int) -> None:
        """Retrain on everything so far; release what passes the gates in money that a pipeline asks."""
        if self.until is not None and number > self.until:
            return
        decision, examples = self.arm.decision, self.arm.diary.examples(reports, now_us)
        if self.labels == "naive":
            examples = naive(examples, decision)
        labelled = len(examples.labelled())
        try:
            training = train(examples, decision, families=self.families, seed=seed, audited=False)
            lesson = self._compare(training, examples, Lesson(number, labelled), seed)
        except AiotkitError as error:
            lesson = Lesson(number, labelled, refused=str(error))
        self.lessons.append(lesson)
        if not lesson.refused:
            self.arm.release(files_of(decision, training))
            self._learned_until_us = int(examples.labelled().rows["at_us"].max())

    def _compare(self, training: Training, examples: Examples, lesson: Lesson, seed: int) -> Lesson:
        """The candidate on rows it was not trained on, against the rule and what is in force."""
        decision, margin = self.arm.decision, float(training.trained.figures["margin"])
        known = examples.known()
        policies = {RULE: rule_actions(known, decision)}
        if self._learned_until_us is not None:
            policies[CHAMPION] = champion_actions(self.arm.files, known, decision)
        held_out = HeldOut(
            training.oof_rows,
            training.oof_p,
            policies,
            training.oof_novelty,
            champion_until_us=self._learned_until_us,
            margins=training.oof_margins,
            instead=without_head(known, training.trained.reads, decision, training.oof_novelty),
        )
        gates = money_gates(open_books(held_out, decision, seed, margin), held_out, decision, seed)
        figures = gates[0].figures
        return replace(
            lesson,
            family=training.trained.family,
            margin=margin,
            money=_number(figures.get(CANDIDATE)),
            rule=_number(figures.get(RULE)),
            refused="; ".join(gate.words for gate in gates if not gate.passed),
        )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def naive(examples: Examples, decision: Decision) -> Examples:
    """Labels as a beginner makes them: what was acted upon was needed, everything else was healthy.

    The state taken for an action is the one in which it saves most against doing nothing.
    """
    costs, silence = decision.costs, decision.outcome.silence
    if isinstance(costs, str) or silence is None:
        raise DataError("naive labels", expected="known costs and a state that silence means")
    idle = next(a for a, spec in decision.actions.items() if not spec.intervenes)
    needed = {
        action: max(costs[action], key=lambda s: costs[idle][s] - costs[action][s])
        for action, spec in decision.actions.items()
        if spec.intervenes
    }
    state = examples.rows["in_force"].map(lambda a: needed.get(a, silence))
    young = examples.rows["status"] == "pending"
    rows = examples.rows.assign(state=state.astype(object), status="mature", confidence=1.0)
    rows.loc[young, "status"] = "pending"
    return replace(examples, rows=rows)


def rule_files(decision: Decision, graph: bytes, interface: Interface) -> Files:
    """What an engine needs to decide by the written rule."""
    return {
        "decision.json": decision.canonical(),
        "graph.onnx": graph,
        "interface.json": interface.canonical(),
    }


def files_of(decision: Decision, training: Training) -> Files:
    """What an engine needs to decide with a trained head."""
    made = export(decision, training.trained)
    margin = Tuned(margin=float(training.trained.figures["margin"]))
    return rule_files(decision, made.graph, made.interface) | {POLICY_FILE: margin.canonical()}
