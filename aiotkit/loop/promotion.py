"""The desk at a round's end: outcomes come in, a candidate is learned, judged, approved or not, released.

What a scheduler and the people of a plant do with the command line, done with the functions behind it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiotkit.bundle.unsigned import Unsigned, read_unsigned
from aiotkit.core.canonical import digest
from aiotkit.core.decision import Decision
from aiotkit.core.errors import BundleError, DataError
from aiotkit.lake.lake import Lake
from aiotkit.loop.setting import Keys, Place
from aiotkit.release.approve import Conditions, KeyApprover, Wish, decide, standing
from aiotkit.release.evidence import Evidence
from aiotkit.release.pipeline import Outcome, Retrain, read_params, retrain
from aiotkit.release.registry import Candidate, Registry, Version
from aiotkit.release.release_steps import SIGNED_FILE, bundle
from aiotkit.release.releasing import Asked, release
from aiotkit.release.stages import Progress
from aiotkit.release.store import store_uri

#: who approves
LEAD = "lead"
#: the decision file's copy in the work folder
DECISION = "decision.yaml"
_RELEASE_KEYS = ("release-1", "release-2")
#: timed runs of a graph: enough for a median, few enough for a demo
_BENCH_RUNS = 200
_NOTE = 500


@dataclass(frozen=True)
class Attempt:
    """One try at learning something better.

    Attributes:
        round: after which it was made (``early``: in the middle of it).
        at_us: the plant's time.
        due: what triggered it.
        refused: why nothing of it was released; empty when it was.
        version: of the candidate in the registry, when one was made.
        evidence: what the candidate was judged by.
        candidate: the unsigned bundle.
        page: the candidate's page, from the work folder.
        signed: the archive that was released.
    """

    round: int
    at_us: int
    early: bool = False
    due: tuple[str, ...] = ()
    refused: str = ""
    version: Version | None = None
    evidence: Evidence | None = None
    candidate: Unsigned | None = None
    page: str = ""
    signed: Path | None = None

    @property
    def reference(self) -> bytes:
        """The drift reference of what it was learned from; empty where nothing was learned."""
        return b"" if self.candidate is None else self.candidate.files["reference.json"]


@dataclass
class Desk:
    """The people and pipelines around one lake and one MLflow store.

    Args:
        place: the work folder.
        keys: approval and release keys.
        decision: what is decided.
        families: heads that compete, with commas.
        seed: of training.
        counter: release counter of the next bundle.
    """

    place: Place
    keys: Keys
    decision: Decision
    families: str
    seed: int
    counter: int
    attempts: list[Attempt] = field(default_factory=list)
    approvals: list[dict[str, Any]] = field(default_factory=list)

    @property
    def store(self) -> str:
        """Tracking URI of the work folder's MLflow store."""
        return store_uri(self.place.root)

    @property
    def lake(self) -> Lake:
        """The lake."""
        return Lake.open(self.place.lake)

    def learn(self, number: int, now_us: int, progress: Progress, *, early: bool = False) -> Attempt:
        """Retrain on what is known at an instant; release what passes its gates, reject the rest."""
        attempt = Attempt(number, now_us, early)
        try:
            outcome = retrain(self._asked(now_us), progress)
        except (DataError, BundleError) as error:
            attempt = replace(attempt, refused=f"nothing could be learned: {error}")
        else:
            progress("approve and sign, or reject", 0.99)
            attempt = self.consider(self._made(attempt, outcome))
        self.attempts.append(attempt)
        return attempt

    def _asked(self, now_us: int) -> Retrain:
        params = read_params(families=self.families, seed=self.seed, bench_runs=_BENCH_RUNS)
        return Retrain(
            self.place.root / DECISION,
            str(self.place.lake),
            self.place.work,
            self.store,
            params,
            as_of_us=now_us,
            counter=self.counter,
            in_process=True,
            if_triggered=True,
        )

    def _made(self, attempt: Attempt, outcome: Outcome) -> Attempt:
        """The attempt with what a retraining made, and its page put where people find it."""
        if outcome.version is None or outcome.evidence is None:
            return replace(attempt, refused="not due: nothing in the decision's trigger asks for it")
        self.counter = outcome.version.release_counter + 1
        page = self.place.pages / f"round-{attempt.round + 1}{'-early' if attempt.early else ''}.html"
        page.write_bytes(outcome.report.read_bytes())
        archive, _ = Registry(self.store).fetch(outcome.version)
        return replace(
            attempt,
            due=outcome.due,
            version=outcome.version,
            evidence=outcome.evidence,
            candidate=read_unsigned(archive)[0],
            page=page.relative_to(self.place.root).as_posix(),
        )

    def consider(self, attempt: Attempt) -> Attempt:
        """What the lead does with a candidate: approve and release what passed its gates, reject the rest."""
        if attempt.version is None or attempt.evidence is None:
            return attempt
        if not attempt.evidence.passed:
            words = "; ".join(f"{gate.name}: {gate.words}" for gate in attempt.evidence.refused)
            self.state(attempt.version, Wish("rejected", LEAD, words[:_NOTE]), attempt.round)
            return replace(attempt, refused=words)
        self.state(attempt.version, Wish("approved", LEAD, "every gate passed"), attempt.round)
        return replace(attempt, signed=self._release(attempt.version))

    def state(self, version: Version, wish: Wish, number: int) -> None:
        """A verdict, signed with the approval key and kept with the candidate."""
        registry = Registry(self.store)
        said = decide(registry, version, wish, KeyApprover(self.keys.approval), at_us=_now_us())
        now = registry.version(version.decision_id, version.number)
        found = standing(now, registry.statements(now), self.keys.trust(), now_us=_now_us())
        self.approvals.append(
            {
                "round": number,
                "version": version.number,
                "bundle": version.bundle,
                "verdict": said.verdict,
                "by": said.by,
                "authenticated": found.authenticated,
                "pilot": said.conditions.pilot,
                "note": said.note,
                "statement": found.digest,
            }
        )

    def _release(self, version: Version) -> Path:
        """Signed with both keys, published, champion; the archive's place among the bundles."""
        asked = Asked(
            version.decision_id,
            version.number,
            self.store,
            self.place.trust,
            [self.place.key(name) for name in _RELEASE_KEYS],
            self.place.releases,
            self.place.work,
            in_process=True,
        )
        latest = release(asked).index.newest
        assert latest is not None  # it was just published
        return self._shelve((self.place.releases / version.decision_id / latest.file).read_bytes())

    def _shelve(self, archive: bytes) -> Path:
        """Put a signed archive among the bundles."""
        about = read_unsigned(archive)[0].manifest
        path = self.place.bundles / f"{about.decision.id}-{about.release_counter}.aiot"
        path.write_bytes(archive)
        return path

    def pilot(self, made: Unsigned, attempt: Attempt, device: str) -> tuple[Version, Path]:
        """Register, approve and sign a bundle for one device alone; it is not published.

        Args:
            made: the bundle.
            attempt: the one it was made from, whose evidence it takes along.
            device: the pilot.
        """
        assert attempt.evidence is not None
        self.counter = made.manifest.release_counter + 1
        evidence = attempt.evidence.model_copy(update={"bundle": made.digest})
        registry = Registry(self.store)
        about = Candidate(
            made.archive(), evidence.canonical(), evidence.passed, None, "novelty limit set by hand"
        )
        run = registry.record(self.decision.id, f"by hand {made.digest[7:15]}", (), pipeline="")
        version = registry.register(about, run)
        wish = Wish("approved", LEAD, "tighter novelty limit, to be tried", Conditions(pilot=device))
        self.state(version, replace(wish, despite_gates=not evidence.passed), attempt.round + 1)
        out = self.place.work / "pilot" / digest(made.digest.encode())[7:19]
        out.mkdir(parents=True)
        bundle(
            store=self.store,
            decision_id=self.decision.id,
            version=version.number,
            trust=self.place.trust,
            keys=",".join(str(self.place.key(name)) for name in _RELEASE_KEYS),
            out=out,
        )
        return version, self._shelve((out / SIGNED_FILE).read_bytes())


def _now_us() -> int:
    return time.time_ns() // 1000
