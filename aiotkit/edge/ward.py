"""The bundle that decides: loads it, counts how it does, and takes it back where it fails its probation.

Rules are in ``edge.probation``, what is durable in ``edge.slots``. Whatever a bundle does, the agent goes on:
with the bundle before it, or (where there is none) with this one and recovery.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from aiotkit.bundle.engine import Engine
from aiotkit.core.canonical import utf8_text
from aiotkit.core.errors import AiotkitError, BundleError, EngineError, SlotError, StorageError
from aiotkit.core.records import Decided, DecisionInput, EngineState
from aiotkit.edge.config import ProbationRules
from aiotkit.edge.probation import Counts, Senses, Trial, counted, in_doubt, judge, needed
from aiotkit.edge.slot_state import Boot
from aiotkit.edge.slots import Slots
from aiotkit.edge.watch import TRYING_S, Watch

log = logging.getLogger(__name__)
#: tries to take a bundle back while the disk refuses, and the time between them
ATTEMPTS, RETRY_S = 3, 10.0
#: decisions of a probation between two notes of it on the disk
SAVE_EVERY = 12
#: from so many decisions on, old ones count half
MEMORY = 192
_MAX_NAMES = 256
_HANG_DEADLINES = 3

Note = Callable[[dict[str, Any]], object]


class Ward:
    """See the module. ``engine`` decides; ``digest`` and ``generation`` say which bundle it is.

    ``trouble`` says why a bundle that has failed is still in force, ``failing`` why the last decision could
    not be taken; both empty as a rule.

    Args:
        slots: the device's bundles.
        rules: what a new one must keep to.
        watch: ends the process when a bundle hangs.
        note: where what went wrong is journaled.
        told: the last health file, which tells how the bundle before an install did.

    Raises:
        SlotError: no slot holds a bundle that verifies.
        BundleError: the only one there is cannot be loaded.
    """

    def __init__(
        self, slots: Slots, rules: ProbationRules, watch: Watch, note: Note, told: Mapping[str, Any] | None
    ) -> None:
        self._slots, self._rules, self._watch, self._note = slots, rules, watch, note
        self.digest, self.generation = "", -1
        self.trouble = self.failing = self.rolled_back = ""
        self._trial: Trial | None = None
        self._condemned, self._attempts, self._tried_s = "", 0, 0.0
        self._told, self.counts, self._broken = _told(told)
        self.adopt()
        self._mend()

    # -- which bundle

    def renew(self) -> bool:
        """Look again what shall run, and try again to take back what could not be; whether it is another.

        Raises as the class.
        """
        another = self._slots.generation != self.generation and self.adopt()
        return another or self._retry()

    def adopt(self) -> bool:
        """Take the bundle that the slots say runs; whether it is another than before. Raises as the class."""
        boot = self._slots.boot()
        self.generation = boot.generation
        for event in boot.events:
            self._note({"kind": "slots", "event": event.to_json()})
        digest, counter = boot.bundle.digest, boot.bundle.manifest.release_counter
        newer = (one.why for one in reversed(self._slots.trials.denied) if one.release_counter > counter)
        self.rolled_back = next(newer, "")
        if digest == self.digest:
            return False
        self.trouble = self.failing = self._condemned = ""
        self._attempts = 0
        trial = self._begun(boot)
        unfit = self._unfit(digest, trial)
        if unfit and self._take_back(digest, unfit):
            return self.adopt()
        if trial is not None:
            self._remember(trial)
        try:
            self._load(boot)
        except Exception as error:  # whatever a graph does while it is opened, the bundle before can decide
            if self._take_back(digest, f"it cannot be loaded: {repr(error)[:300]}"):
                return self.adopt()
            raise BundleError(f"bundle {digest}: it cannot be loaded", found=str(error)) from error
        worked, broken = ((), self._broken) if trial is None else (trial.worked, trial.broken)
        self._senses = Senses(self.engine.decision, self._rules.least, set(worked), set(broken))
        if digest not in (self.digest, self._told):
            self.counts = Counts()
        self._trial, self.digest, self._told = trial, digest, digest
        return True

    def _begun(self, boot: Boot) -> Trial | None:
        """The probation of a bundle with one more start; None when it has passed."""
        digest, trials = boot.bundle.digest, self._slots.trials
        if digest in trials.passed:
            return None
        sound = self._told not in ("", digest) and trials.denial(self._told) is None
        before, broken = (self.counts, self._broken) if sound else (None, ())
        trial = trials.of(digest) or Trial(bundle=digest, before=before, broken=broken)
        return trial.model_copy(update={"starts": trial.starts + 1})

    def _unfit(self, digest: str, trial: Trial | None) -> str:
        """Why a bundle must not be started (again), or an empty string."""
        denial = self._slots.trials.denial(digest)
        if denial is not None:  # the power went before it was taken back
            return denial.why
        if trial is None or trial.starts <= self._rules.starts:
            return ""
        return f"{trial.starts - 1} starts on probation ended in a crash, a hang or a cut"

    def _load(self, boot: Boot) -> None:
        with self._watched(TRYING_S):
            engine = Engine(boot.bundle.files)
        self.engine = engine
        decision = engine.decision
        self._watch.limit_s = max(self._rules.hang_s, _HANG_DEADLINES * decision.needs.deadline_ms / 1e3)
        log.info("bundle %s, decision %s revision %d", boot.bundle.digest, decision.id, decision.revision)

    # -- how it does

    def decide(self, state: EngineState, given: DecisionInput) -> tuple[Decided, dict[str, float]]:
        """``Engine.decide``; ``EngineError`` whatever goes wrong inside."""
        self._watch.begin()
        try:
            return self.engine.decide(state, given)
        except AiotkitError as error:
            raise EngineError(f"the bundle's engine failed: {error}") from error
        except Exception as error:  # a graph may raise anything; the agent must not die of it
            words = f"the bundle's engine failed: {type(error).__name__}: {error}"
            raise EngineError(utf8_text(words)[:500]) from error
        finally:
            self._watch.end()

    def count(self, decided: Decided, ms: float) -> bool:
        """Count a decision that took ``ms`` milliseconds; True when another bundle decides from now on."""
        one = counted(self.engine.decision, decided, ms)
        excused = self._senses.excuse(decided.faults) and in_doubt(decided)
        faulty = (name for name in needed(self.engine.decision) if name in decided.faults)
        self._broken = tuple(faulty)[:_MAX_NAMES] if in_doubt(decided) else ()
        self.failing = ""
        self.counts = self.counts.plus(one)
        if self.counts.decisions >= MEMORY:
            self.counts = self.counts.halved()
        if self._trial is None:
            return False
        known = {
            "worked": tuple(sorted(self._senses.worked)[:_MAX_NAMES]),
            "broken": tuple(sorted(self._senses.broken)[:_MAX_NAMES]),
        }
        counts = self._trial.counts if excused else self._trial.counts.plus(one)
        self._trial = self._trial.model_copy(update={**known, "counts": counts})
        return not excused and self._judged(self._trial)

    def _judged(self, trial: Trial) -> bool:
        judgement = judge(self._rules, trial)
        if judgement.standing == "failed":
            return not self.trouble and self._condemn(judgement.why)
        if judgement.standing == "passed":
            self._pass()
        elif trial.counts.decisions % SAVE_EVERY == 0:
            self._remember(trial)
        return False

    def failed(self, why: str) -> bool:
        """A decision could not be taken; True when another bundle decides from now on."""
        self.failing = why
        return self._trial is not None and not self.trouble and self._condemn(why)

    def _retry(self) -> bool:
        due = self._attempts < ATTEMPTS and time.monotonic() - self._tried_s >= RETRY_S
        return bool(self._condemned) and due and self._condemn(self._condemned)

    def _condemn(self, why: str) -> bool:
        return self._take_back(self.digest, why) and self.adopt()

    def _take_back(self, digest: str, why: str) -> bool:
        """Run the bundle before again, for good; False when that cannot be."""
        self._attempts, self._tried_s = self._attempts + 1, time.monotonic()
        try:
            with self._watched(TRYING_S):
                bundle = self._slots.give_up(why)
        except (SlotError, BundleError) as error:
            self._condemned, self.trouble = "", f"{why}; {error}"
            self._journal("no way back", digest, self.trouble)
            return False
        except StorageError as error:
            self._condemned, self.trouble = why, f"{why}; it cannot be taken back: {error}"
            self._journal("not taken back", digest, self.trouble)
            return False
        self._journal("rolled back", digest, why, to=bundle.digest)
        return True

    def _journal(self, event: str, digest: str, why: str, **more: str) -> None:
        log.error("bundle %s: %s: %s", digest, event, why)
        said = {"event": event, "bundle": digest, "why": utf8_text(why)[:1000], **more}
        self._note({"kind": "probation", **said})

    # -- what is kept

    def _mend(self) -> None:
        """Write a lost or damaged pointer again, as long as there is another."""
        with _unless_refused():
            self._slots.repair()  # what was wrong is journaled already: it was seen at boot

    def _pass(self) -> None:
        self._trial, self.trouble = None, ""
        log.info("bundle %s has passed its probation", self.digest)
        with _unless_refused():
            self._slots.note_passed(self.digest)

    def _remember(self, trial: Trial) -> None:
        with _unless_refused():
            self._slots.note_trial(trial)

    def close(self) -> None:
        """An end in order: this start does not count."""
        if self._trial is not None:
            self._remember(self._trial.model_copy(update={"starts": max(0, self._trial.starts - 1)}))

    @contextmanager
    def _watched(self, limit_s: float) -> Iterator[None]:
        usual_s, self._watch.limit_s = self._watch.limit_s, limit_s
        self._watch.begin()
        try:
            yield
        finally:
            self._watch.end()
            self._watch.limit_s = usual_s

    def tell(self) -> dict[str, Any]:
        """For the health file."""
        trial, probation = self._trial, None
        if trial is not None:
            standing = "failed" if self.trouble else "on probation"
            counts = {**trial.counts.model_dump(), "of": self._rules.decisions}
            probation = {"standing": standing, "starts": trial.starts, **counts}
        return {
            "bundle": self.digest,
            "decision": self.engine.decision.id,
            "revision": self.engine.decision.revision,
            "generation": self.generation,
            "tally": self.counts.model_dump(),
            "broken": list(self._broken),
            "probation": probation,
            "rolled_back": self.rolled_back,
            "bundle_error": self.failing or self.trouble,
        }


@contextmanager
def _unless_refused() -> Iterator[None]:
    """What is kept of a probation is worth a try; a disk that refuses must not stop decisions."""
    try:
        yield
    except StorageError as error:
        log.warning("slots: %s", error)


def _told(health: Mapping[str, Any] | None) -> tuple[str, Counts, tuple[str, ...]]:
    """Which bundle decided last, how it did, and for which inputs it could not, as far as health tells."""
    health = health or {}
    try:
        broken = tuple(str(name) for name in health["broken"])
        return str(health["bundle"]), Counts.model_validate(health["tally"]), broken[:_MAX_NAMES]
    except (KeyError, TypeError, ValidationError):
        return "", Counts(), ()
