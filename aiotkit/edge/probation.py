"""Whether a new bundle proves itself on this device. Pure: counts and rules in, a standing out.

A bundle is on probation from its first decision here until ``decisions`` of them were in order. What counts
against it are decisions that end in doubt, windows that its model does not know and answers that come late,
each as a share beyond the share under the bundle before: what the place does to any bundle is not this one's
doing. Nor is an input that worked and then failed (see ``Senses``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import NonNegativeInt

from aiotkit.core.decision import Decision
from aiotkit.core.gates import Verdict
from aiotkit.core.records import Decided
from aiotkit.core.strict import Strict
from aiotkit.edge.config import ProbationRules
from aiotkit.edge.pointers import Sha256

#: so few bad decisions are an accident, whatever share they are
LEAST_BAD = 3
_FEW = 3
Standing = Literal["on probation", "passed", "failed"]


class Counts(Strict):
    """Decisions, and how many of them went how.

    ``undecided``: no proposal, or gates that could not judge. ``novel``: a window unlike training. ``late``:
    beyond the deadline, or the limit of the release.
    """

    decisions: NonNegativeInt = 0
    undecided: NonNegativeInt = 0
    novel: NonNegativeInt = 0
    late: NonNegativeInt = 0

    def plus(self, one: Counts) -> Counts:
        """Both together."""
        return Counts(**{name: getattr(self, name) + getattr(one, name) for name in type(self).model_fields})

    def halved(self) -> Counts:
        """Half of everything: how old decisions are forgotten."""
        return Counts(**{name: getattr(self, name) // 2 for name in type(self).model_fields})


class Trial(Strict):
    """One bundle's probation: what happened under it, and ``before`` it under another.

    ``starts``: how many starts of the agent nobody ended in order, this one included. ``worked`` and
    ``broken``: see ``Senses``.
    """

    bundle: Sha256
    starts: NonNegativeInt = 0
    counts: Counts = Counts()
    before: Counts | None = None
    worked: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """Where a bundle stands, and why in words where it has failed."""

    standing: Standing
    why: str = ""


def judge(rules: ProbationRules, trial: Trial) -> Judgement:
    """Where a bundle stands after what happened so far.

    >>> counts = Counts(decisions=12, undecided=12)
    >>> judge(ProbationRules(), Trial(bundle="sha256:" + 64 * "0", counts=counts))
    Judgement(standing='failed', why='12 of 12 decisions were undecided; allowed 20%')
    """
    counts, before = trial.counts, trial.before or Counts()
    for word, most in (
        ("undecided", rules.max_undecided_share),
        ("novel", rules.max_novel_share),
        ("late", rules.max_late_share),
    ):
        bad = getattr(counts, word)
        usual = getattr(before, word) / before.decisions if before.decisions >= rules.least else 0.0
        if counts.decisions < rules.least or bad < LEAST_BAD:
            continue
        if not bad / counts.decisions <= usual + most:
            beyond = f" beyond the {usual:.0%} before it" if usual else ""
            words = f"{bad} of {counts.decisions} decisions were {word}; allowed {most:.0%}{beyond}"
            return Judgement("failed", words)
    return Judgement("passed" if counts.decisions >= rules.decisions else "on probation")


@dataclass
class Senses:
    """Which inputs fail through no fault of the bundle's.

    Excused is an outage of an input that has worked under this bundle (``least`` decisions in a row, once; or
    for its first outage the last three), and one that lasts since the bundle before, which could not decide
    for it either. An input that comes and goes from the start, or never was there, is the bundle's doing: it
    may believe too little.

    Args:
        decision: names the inputs whose faults leave a decision without a proposal.
        least: so many decisions in a row without a fault, and an input is known to work.
        worked: what is known to.
        broken: what is in an excused outage.
    """

    decision: Decision
    least: int
    worked: set[str]
    broken: set[str]
    _good: dict[str, int] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)

    def excuse(self, faults: Mapping[str, str]) -> bool:
        """Take in the faults of one decision; whether one of them is excused."""
        for name in needed(self.decision):
            if name in faults:
                first = name not in self._failed and self._good.get(name, 0) >= _FEW
                if name in self.worked or first:
                    self.broken.add(name)
                self._good[name] = 0
                self._failed.add(name)
                continue
            self.broken.discard(name)
            self._good[name] = self._good.get(name, 0) + 1
            if self._good[name] >= self.least:
                self.worked.add(name)
        return any(name in self.broken for name in faults)


def needed(decision: Decision) -> list[str]:
    """The inputs whose faults can leave a decision without a proposal."""
    return [*decision.signals, *(name for name, context in decision.context.items() if context.required)]


def counted(decision: Decision, decided: Decided, ms: float) -> Counts:
    """One decision that took ``ms`` milliseconds, as counts."""
    most_ms = min(decision.needs.deadline_ms, decision.limits.latency_p99_ms or decision.needs.deadline_ms)
    novelty = decided.novelty
    return Counts(
        decisions=1,
        undecided=in_doubt(decided),
        novel=novelty is not None and not novelty <= 1,  # NaN is novel
        late=not ms <= most_ms,
    )


def in_doubt(decided: Decided) -> bool:
    """Whether a decision came to nothing: no proposal, or a gate that could not judge."""
    return decided.proposed is None or decided.verdict is Verdict.INDETERMINATE
