"""An arm decided by a bundle's own engine, in process: the device's code without its disk and its wires.

What a device would have journaled is kept, so that the desk can learn from it: ``Diary.examples``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from aiotkit.bundle.engine import Engine
from aiotkit.core.decision import Decision, OnChange
from aiotkit.core.records import Answer, Decided, DecisionInput, EngineState, OperatorInput, Reading
from aiotkit.lab.examples import Array, Examples, context_columns, history_columns
from aiotkit.lab.labels import INSPECTION, label
from aiotkit.loop.look import Look
from aiotkit.loop.maintenance import Report
from aiotkit.loop.policies import RUN, cheapest
from aiotkit.loop.twin import VIBRATION, Twin, subject_name
from aiotkit.loop.wear import Array as Speeds

OIL = "oil_temp"


@dataclass
class _Machine:
    """What the device at one machine remembers."""

    state: EngineState = field(default_factory=EngineState)
    heard: dict[str, tuple[int, float | str]] = field(default_factory=dict)
    asked_us: int = -1


@dataclass
class Diary:
    """What an arm's devices decided: one entry a decision, in the order they were taken."""

    decision: Decision
    names: tuple[str, ...]
    rows: list[tuple[str, int, str | None, bool, float]] = field(default_factory=list)
    x: list[Array] = field(default_factory=list)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of ``examples``."""
        return (*self.names, *history_columns(self.decision), *context_columns(self.decision))

    def note(self, subject: str, at_us: int, decided: Decided, context: Mapping[str, float | str]) -> None:
        """Enter a decision."""
        hit, p = decided.verify.hit, decided.verify.p
        self.rows.append((subject, at_us, decided.in_force, hit, p))
        values = [decided.features[n] for n in self.names]
        values += [decided.history[n.partition(".")[2]] for n in history_columns(self.decision)]
        values += [_column(n, context) for n in context_columns(self.decision)]
        self.x.append(np.array(values, dtype=np.float32))

    def examples(self, reports: Sequence[Report], as_of_us: int) -> Examples:
        """Everything so far with its labels as of an instant, as the desk resolves them."""
        frame = pd.DataFrame(self.rows, columns=["subject", "at_us", "in_force", "verify_hit", "verify_p"])
        frame = frame.assign(device=frame["subject"], journal_id="in-process", seq=np.arange(len(frame)))
        believed = label(frame, reports_table(reports, self.decision), self.decision, as_of_us)
        merged = frame.merge(believed[["seq", "state", "status", "confidence"]], on="seq")
        merged["key"] = merged["device"] + "/in-process/" + merged["seq"].astype(str)
        merged = merged.sort_values(["subject", "at_us"], ignore_index=True)
        x = np.stack(self.x)[merged["seq"].to_numpy()] if self.x else np.empty((0, len(self.columns)))
        return Examples(merged, self.columns, x.astype(np.float32), {}, {"diary": str(len(frame))})


def _column(name: str, context: Mapping[str, float | str]) -> float:
    field_, _, choice = name.partition(".")[2].partition("=")
    value = context.get(field_)
    if value is None:
        return float("nan")
    return float(value == choice) if choice else float(value)


def reports_table(reports: Sequence[Report], decision: Decision) -> pd.DataFrame:
    """What people wrote down, as ``lab.labels.label`` reads it."""
    trust = {name: source.reliability for name, source in decision.outcome.sources.items()}
    rows = [
        {
            "subject": subject_name(r.subject),
            "state": r.state,
            "at_us": r.at_us,
            "reported_us": r.known_us,
            "source": r.source,
            "reliability": trust[r.source],
            "kind": INSPECTION if r.source == "inspection" else "report",
        }
        for r in reports
    ]
    columns = ["subject", "state", "at_us", "reported_us", "source", "reliability", "kind"]
    return pd.DataFrame(rows, columns=columns)


class EngineArm:
    """One arm: every machine has a device that decides with the same bundle.

    A question sends an inspector (``human``); the state he reports is answered with its cheapest action.
    What the crew hands back is ordered to run, as the operator does. A random check sends one too.
    """

    def __init__(
        self, name: str, files: Mapping[str, bytes], machines: int, names: Sequence[str] = ()
    ) -> None:
        self._name, self._machines = name, [_Machine() for _ in range(machines)]
        self.release(files)
        self.diary = Diary(self._engine.decision, tuple(names) or self._engine.interface.features)
        self.asked = 0

    @property
    def names(self) -> Sequence[str]:
        """One arm."""
        return (self._name,)

    @property
    def decision(self) -> Decision:
        """What is decided."""
        return self._engine.decision

    def release(self, files: Mapping[str, bytes]) -> None:
        """Put another bundle of the same decision into force; what the devices remember is kept."""
        self._engine, self.files = Engine(files), files

    def order(self, look: Look, arms: slice, twin: Twin) -> Speeds:
        """Speeds of the commands in force; without one the drive rests at full speed."""
        arm = arms.start
        answers = self._answers(look, arm, twin)
        speeds = [self._decide(look, arm, m, twin, answers.get(m)) for m in range(twin.machines)]
        return np.array([speeds])

    def _decide(self, look: Look, arm: int, m: int, twin: Twin, answer: Answer | None) -> float:
        mine, now_us = self._machines[m], look.seen.at_us
        given = DecisionInput(
            seed=f"in-process/{m}/{look.seen.step}",
            now_us=now_us,
            window_end_us=now_us,
            windows=self._windows(look, arm, m),
            context=self._context(look, arm, m),
            operator=OperatorInput(override="run" if look.seen.released[arm, m] else None, answer=answer),
        )
        before = mine.state
        decided, _ = self._engine.decide(before, given)
        question = decided.question
        if question is not None and question != before.question and question.kind == "ask":
            twin.request_inspection(m, arm)
            mine.asked_us = now_us
            self.asked += 1
        if decided.verify.hit:
            twin.request_inspection(m, arm, verify=True)
        mine.state = decided.state
        values = {n: r.value for n, r in given.context.items() if r.value is not None}
        self.diary.note(subject_name(m), now_us, decided, values)
        posture = decided.state.posture
        return (
            RUN if posture is None else float(self._engine.decision.actions[posture.action].command["speed"])
        )

    def _windows(self, look: Look, arm: int, m: int) -> dict[str, Array]:
        window = look.seen.rows[look.seen.index[arm, m]]
        sampling = self._engine.decision.signals[OIL].sampling
        assert isinstance(sampling, OnChange)
        fresh = look.seen.oil.age_s[arm, m] <= sampling.max_age_s
        oil = float(look.seen.oil.value[arm, m]) if fresh else float("nan")
        axes = {name: window[i] for i, name in enumerate(VIBRATION)}
        return axes | {OIL: np.array([oil], dtype=np.float32)}

    def _context(self, look: Look, arm: int, m: int) -> dict[str, Reading]:
        heard, now_us = self._machines[m].heard, look.seen.at_us
        for name, given in look.seen.context.items():
            value = given[arm, m]
            if (value != "") if name == "mode" else bool(np.isfinite(value)):
                heard[name] = (now_us, str(value) if name == "mode" else float(value))
        return {name: Reading(value, (now_us - at) / 1e6) for name, (at, value) in heard.items()}

    def _answers(self, look: Look, arm: int, twin: Twin) -> dict[int, Answer]:
        """What inspectors said since they were asked, by machine."""
        waiting = {m: x for m, x in enumerate(self._machines) if x.state.question is not None}
        if not waiting:
            return {}
        now_us = look.seen.at_us
        out: dict[int, Answer] = {}
        for report in twin.reports_until(now_us, arm):
            mine = waiting.get(report.subject)
            if mine is not None and report.source == "inspection" and report.at_us >= mine.asked_us:
                assert mine.state.question is not None
                action = cheapest(self._engine.decision, report.state)
                out[report.subject] = Answer(mine.state.question.id, action, "technician", now_us)
        return out
