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
from aiotkit.bundle.tuned import POLICY_FILE, Tuned, tuned
from aiotkit.core.decision import Decision
from aiotkit.core.errors import AiotkitError, DataError
from aiotkit.lab.examples import Examples
from aiotkit.lab.judge import actions_of, compare
from aiotkit.lab.train import Training, train
from aiotkit.loop.engine_arm import EngineArm
from aiotkit.loop.maintenance import Report
from aiotkit.release.export import export
from aiotkit.release.in_force import champion_actions

Labels = Literal["censored", "naive"]
Files = dict[str, bytes]
#: families that compete in the experiments: quick to train many times
FAMILIES = ("lda", "logistic")
CANDIDATE, CHAMPION = "candidate", "champion"


@dataclass(frozen=True, slots=True)
class Lesson:
    """What came of one round of learning. ``refused``: why nothing was released, in words.

    ``money`` and ``champion``: EUR per subject-day of candidate and champion on the newest rows.
    """

    round: int
    labelled: int
    family: str = ""
    margin: float = np.nan
    money: float = np.nan
    champion: float = np.nan
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
    _seen_us: int = 0

    def learn(self, reports: Sequence[Report], now_us: int, number: int, seed: int) -> None:
        """Retrain on everything so far; release what the newest rows do not speak against."""
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
        self._seen_us = now_us
        if not lesson.refused:
            self.arm.release(files_of(decision, training))

    def _compare(self, training: Training, examples: Examples, lesson: Lesson, seed: int) -> Lesson:
        """The candidate on rows it was not trained on, against the champion on rows it has not seen."""
        decision, margin = self.arm.decision, float(training.trained.figures["margin"])
        rows, known = training.oof_rows, examples.known()
        newest = (rows["at_us"] >= self._seen_us).to_numpy()
        champion = champion_actions(self.arm.files, known, decision)
        if len(champion) != len(rows):
            raise DataError("held-out rows", expected=str(len(champion)), found=str(len(rows)))
        policies = {
            CANDIDATE: actions_of(training.oof_p[newest], tuned(decision, margin)),
            CHAMPION: champion[newest],
        }
        part = rows.loc[newest].reset_index(drop=True)
        table = compare(part, policies, decision, baseline=CHAMPION, seed=seed).set_index("policy")
        money, worse = table["money_per_subject_day"], float(table["low"][CANDIDATE])
        told = replace(
            lesson,
            family=training.trained.family,
            margin=margin,
            money=float(money[CANDIDATE]),
            champion=float(money[CHAMPION]),
        )
        if worse > 0:
            return replace(told, refused=f"worse than the champion by at least {worse:.0f} EUR a day")
        return told


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
