"""Retraining: from a lake to a candidate that is registered with its evidence.

Idempotent: what has not changed is not done again, what a killed run had finished stays, and nothing is
registered in part. The numbered notebooks are in the package ``aiotkit_pipelines``; ``in_process`` calls
the functions that they call.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import yaml
from pydantic import ValidationError

from aiotkit.bundle.unsigned import read_unsigned
from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.decision import Decision
from aiotkit.core.errors import AiotkitError, DataError, StorageError
from aiotkit.core.features import own_word
from aiotkit.core.problems import parse_problems
from aiotkit.core.strict import Count, Seconds, Strict
from aiotkit.lab.decision_file import read_decision
from aiotkit.lab.trained import Trained
from aiotkit.lake.lake import Lake
from aiotkit.release.evidence import Evidence, parse_evidence
from aiotkit.release.publish import replace_file
from aiotkit.release.registry import (
    BUNDLE_FILE,
    EVIDENCE_FILE,
    REPORT_FILE,
    Candidate,
    Registry,
    StageRun,
    Version,
)
from aiotkit.release.runner import Limits
from aiotkit.release.stages import Done, Progress, Stage, changes, made_from, only_run, run_stage

if TYPE_CHECKING:
    from aiotkit.lab.own_words import OwnWords

log = logging.getLogger(__name__)
PIPELINES = "aiotkit_pipelines"
#: tables that examples come from, and the column that says when a row became known
_TABLES = ("telemetry", "decisions", "outcomes", "assets", "blobs")
_KNOWN = {"telemetry": "at", "decisions": "at", "outcomes": "reported_at"}
#: families whose heads read raw windows
RAW = frozenset({"cnn"})
_DECISION, _CHAMPION, _CANDIDATE = "decision.json", "champion.aiot", "candidate"


class Params(Strict):
    """Settings of retraining; ``pipelines/retrain/params.yaml`` holds the defaults and says what each is."""

    recipe: str
    families: str
    folds: Count
    seed: int
    bench_runs: Count
    cell_timeout_s: Seconds
    notebook_timeout_s: Seconds

    @property
    def limits(self) -> Limits:
        """How long a cell and a notebook may take."""
        return Limits(self.cell_timeout_s, self.notebook_timeout_s)


@dataclass(frozen=True)
class Retrain:
    """What is asked for.

    Attributes:
        decision: the decision file.
        lake: folder or URI of the lake.
        work: folder of all pipelines; this one works in ``work/retrain/<decision id>``.
        store: tracking URI of the MLflow store.
        params: settings.
        as_of_us: what was known then (µs UTC); None = all that is in the lake.
        counter: release counter of the candidate; None = one above the highest that was registered.
        in_process: call functions instead of running notebooks.
        if_triggered: go on after the examples only where the decision's trigger says so.
        own_words: the Python file that defines words of one's own (``x_…``) of the recipe or the decision.
    """

    decision: Path
    lake: str
    work: Path
    store: str
    params: Params
    as_of_us: int | None = None
    counter: int | None = None
    in_process: bool = False
    if_triggered: bool = False
    own_words: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
        status: ``registered``; ``unchanged`` when that candidate was there already; ``not due`` when it was
            asked for only if triggered, and nothing triggers it.
        version: of the candidate; None when it was not due.
        evidence: what it was judged by; None when it was not due.
        stages: what was done for it.
        folder: where everything lies.
        due: why it was due, where that was asked.
        notes: what training left out or did otherwise than asked, in words.
    """

    status: str
    version: Version | None
    evidence: Evidence | None
    stages: Sequence[Done]
    folder: Path
    due: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def report(self) -> Path:
        """The candidate's page."""
        return self.folder / _CANDIDATE / REPORT_FILE


def notebook(pipeline: str, name: str) -> Path:
    """The file of a numbered notebook, in the clone or where the package was installed."""
    return Path(str(resources.files(PIPELINES))) / pipeline / f"{name}.ipynb"


def read_params(path: Path | None = None, **changes: Any) -> Params:
    """Settings: the defaults, then a YAML file's, then ``changes`` that are not None.

    Raises:
        DataError: the file cannot be read, or names what there is not, with a hint.
    """
    found: dict[str, Any] = {}
    for file in (notebook("retrain", "x").with_name("params.yaml"), path):
        if file is not None:
            found |= _yaml(file)
    found |= {name: value for name, value in changes.items() if value is not None}
    try:
        return Params.model_validate(found)
    except ValidationError as error:
        raise DataError(f"parameters of retraining: {'; '.join(parse_problems(error, Params))}") from error


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"parameters {path}", expected="a YAML file", found=str(error)[:200]) from error
    if not isinstance(found, dict):
        raise DataError(f"parameters {path}", expected="name: value", found=type(found).__name__)
    return found


def retrain(asked: Retrain, progress: Progress = lambda _stage, _share: None) -> Outcome:
    """Assemble, train, export, quantize, bench, gate, and register the candidate with its evidence.

    Raises:
        Busy: another run works on this decision in this folder.
        StorageError: the store cannot be reached; what was made stays, and the next run goes on there.
        AiotkitError: whatever a stage found wrong. The failed run is in MLflow, its notebook is kept.
    """
    decision = read_decision(asked.decision)
    folder = asked.work / "retrain" / decision.id
    with only_run(folder, f"retraining '{decision.id}'"):
        return _Run(asked, decision, folder, progress).go()


class _Run:
    """One retraining, in its locked folder."""

    def __init__(self, asked: Retrain, decision: Decision, folder: Path, progress: Progress) -> None:
        self.asked, self.decision, self.folder, self.progress = asked, decision, folder, progress
        self.params = asked.params
        self.done: list[Done] = []
        self.began: Stage | None = None
        progress("asking the registry", 0.0)
        self.registry = Registry(asked.store)
        replace_file(folder / _DECISION, decision.canonical())
        self.words = self._keep_words()
        self.champion = self._fetch_champion()

    def go(self) -> Outcome:
        due: tuple[str, ...] = ()
        try:
            self._do(self._assemble())
            if self.asked.if_triggered:
                from aiotkit.release.due import reasons  # torch: seconds

                due = tuple(reasons(self.decision, self.folder / "examples", self.folder / _CANDIDATE))
                if not due:
                    self.progress("not due", 1.0)
                    return Outcome("not due", None, None, tuple(self.done), self.folder)
            for stage in self._middle():
                self._do(stage)
            self._do(self._gate())
        except AiotkitError as error:
            self._record_failure(error)
            raise
        return self._register(due)

    def _do(self, stage: Stage) -> None:
        self.began = stage
        share = len(self.done) / 6
        why = changes(stage, self.folder)
        self.progress(f"{stage.name}: {why or 'unchanged'}", share)
        self.done.append(run_stage(stage, self.folder, in_process=self.asked.in_process))

    # what is to be done

    def _keep_words(self) -> OwnWords | None:
        """Own words are copied: a file that is changed while this runs counts from the next run on."""
        if self.asked.own_words is None:
            return None
        from aiotkit.lab.own_words import own_words  # torch: seconds, needed where there are some

        words = own_words(self.asked.own_words)
        replace_file(self.folder / words.name, words.source)
        return words

    @property
    def _own(self) -> dict[str, str]:
        return {} if self.words is None else {"own_words": self.words.name}

    def _stage(self, name: str, output: str, reads: Mapping[str, str], **given: Any) -> Stage:
        paths = {key: self.folder / value for key, value in reads.items()}
        function = f"aiotkit.release.steps:{name.partition('_')[2]}"
        return Stage(
            name, notebook("retrain", name), function, output, reads=paths, limits=self.params.limits, **given
        )

    def _middle(self) -> list[Stage]:
        p, seed = self.params, {"seed": self.params.seed}
        decision, examples = {"decision": _DECISION}, {"examples": "examples"}
        return [
            self._stage(
                "20_train",
                "trained",
                decision | examples,
                settings={"families": p.families, "folds": p.folds} | seed,
            ),
            self._stage("30_export", "exported", decision | examples | {"trained": "trained"} | self._own),
            self._stage("40_quantize", "quantized", examples | {"exported": "exported"}, settings=seed),
            self._stage(
                "50_bench",
                "benched",
                decision | examples | {"quantized": "quantized"},
                settings={"runs": p.bench_runs},
            ),
        ]

    def _assemble(self) -> Stage:
        lake = Lake.open(self.asked.lake)
        tables = {name: lake.table(name) for name in _TABLES}
        also, windows = self._champion_needs() if self.champion else ("", False)
        settings = {
            "as_of_us": newest_us(lake) if self.asked.as_of_us is None else self.asked.as_of_us,
            "recipe": self.params.recipe,
            "also": also,
            "windows": windows or bool(RAW & set(self.params.families.split(","))),
        }
        return self._stage(
            "10_assemble",
            "examples",
            {"decision": _DECISION} | self._own,
            settings=settings,
            given={
                f"lake.{name}": f"{table.metadata().id} {table.version()}" for name, table in tables.items()
            },
            uncounted={"lake": _full(self.asked.lake)},
        )

    def _champion_needs(self) -> tuple[str, bool]:
        """Features beyond the recipe's that the bundle in force reads, and whether it reads raw windows."""
        from aiotkit.lab.recipe import recipe  # torch: seconds, needed where there is a champion
        from aiotkit.release.in_force import champion_features, champion_reads

        theirs = champion_features(self.champion)
        more = set(theirs) - set(recipe(self.decision, self.params.recipe, self.words))
        own = {f for f in theirs if own_word(f)}  # its own graph computes them, from windows
        fitting = sorted(f for f in more - own if f.partition(".")[0] in self.decision.signals)
        return ",".join(fitting), bool(own or champion_reads(self.champion))

    def _gate(self) -> Stage:
        """The last stage; the candidate that lies here is not judged against itself once it was released."""
        held = made_from(self.folder, _CANDIDATE).get("given", {})
        current = self.champion_digest
        before = held.get("champion", "")
        if (
            current
            and current == self._held_bundle()
            and not changes(self._gate_against(before, 0), self.folder)
        ):
            return self._gate_against(before, 0)
        stage = self._gate_against(current, 0)
        return self._gate_against(current, self._counter()) if changes(stage, self.folder) else stage

    def _gate_against(self, champion: str, counter: int) -> Stage:
        reads = {"decision": _DECISION, "examples": "examples", "trained": "trained"}
        wanted = self.asked.counter
        return self._stage(
            "60_gate",
            _CANDIDATE,
            reads | {"quantized": "quantized", "benched": "benched"},
            settings={"seed": self.params.seed},
            given={"champion": champion} | ({} if wanted is None else {"counter": str(wanted)}),
            uncounted={
                "champion": str((self.folder / _CHAMPION).resolve()) if champion else "",
                "counter": counter,
            },
        )

    def _counter(self) -> int:
        known = [v.release_counter for v in self.registry.candidates(self.decision.id)]
        lowest = 1 + max(known, default=0)
        if self.asked.counter is not None and self.asked.counter < lowest:
            raise DataError(
                f"release counter {self.asked.counter}",
                expected=f"at least {lowest}: {lowest - 1} is registered already",
                do="Devices never go back to a lower one.",
            )
        return self.asked.counter or lowest

    def _held_bundle(self) -> str:
        path = self.folder / _CANDIDATE / BUNDLE_FILE
        return read_unsigned(path.read_bytes())[0].digest if path.is_file() else ""

    def _fetch_champion(self) -> Mapping[str, bytes]:
        """The files of the bundle in force; it is put into the folder for the stage that judges."""
        version = self.registry.champion(self.decision.id)
        self.champion_digest = "" if version is None else version.bundle
        if version is None:
            return {}
        bundle = self.registry.fetch_bundle(version)
        replace_file(self.folder / _CHAMPION, bundle)
        return read_unsigned(bundle)[0].files

    # what is kept of it

    def _register(self, due: tuple[str, ...]) -> Outcome:
        place = self.folder / _CANDIDATE
        bundle, evidence = ((place / name).read_bytes() for name in (BUNDLE_FILE, EVIDENCE_FILE))
        judged = parse_evidence(evidence)
        unsigned = read_unsigned(bundle)[0]
        version = self.registry.find(self.decision.id, unsigned.digest, judged.digest)
        damaged = version is not None and not self.registry.intact(version)
        status = "unchanged"
        if version is None or damaged:
            status = "registered"
            self.progress("registering the candidate", 0.98)
            run = self._record([stage_run(d, self.folder) for d in self.done])
            words = "; ".join(f"{g.name}: {g.words}" for g in judged.refused) or "every gate passed"
            about = Candidate(bundle, evidence, judged.passed, place / REPORT_FILE, words[:5000])
            version = self.registry.register(about, run, again=damaged)
        self.progress(status, 1.0)
        notes = Trained.load(self.folder / "trained").notes
        return Outcome(status, version, judged, tuple(self.done), self.folder, due, notes)

    def _record(self, runs: Sequence[StageRun]) -> str:
        identity = digest(canonical_bytes([d.fingerprint for d in self.done]))
        name = f"retrain {self.decision.id} {identity[7:15]}"
        return self.registry.record(self.decision.id, name, runs, pipeline=identity)

    def _record_failure(self, error: AiotkitError) -> None:
        """A failed run is in MLflow too; that it could not be entered does not hide why it failed."""
        if self.began is None:  # before the first stage there is no run to speak of
            return
        page = self.folder / "executed" / f"{self.began.name}.ipynb"
        kept = (page,) if page.exists() and not self.asked.in_process else ()
        last = self.done[-1] if self.done else None
        at = last.started_us + int(last.seconds * 1e6) if last is not None else 0
        failed = StageRun(self.began.name, at, 0.0, "failed", {"error": str(error)[:500]}, artifacts=kept)
        try:
            run = self._record([*(stage_run(d, self.folder) for d in self.done), failed])
            self.registry.close(run, status="FAILED")
        except StorageError as unreachable:
            log.warning("the failed run is not in MLflow: %s", unreachable)


def newest_us(lake: Lake) -> int:
    """The last instant that a lake knows of: of a value, a decision or a report (µs UTC; 0 = it is empty)."""
    found = [0]
    for table, column in _KNOWN.items():
        for batch in lake.batches(table, columns=[column]):
            last = pc.max(batch.column(0)).cast("int64").as_py()
            found += [] if last is None else [last]
    return max(found)


def stage_run(done: Done, folder: Path) -> StageRun:
    """What MLflow keeps of a stage; of training also a run a family."""
    page = (done.notebook,) if done.notebook is not None else ()
    settings = made_from(folder, done.folder.name).get("settings", {})
    tried = Trained.load(done.folder).table if done.name == "20_train" else []
    children = [
        StageRun(
            str(row.get("family", i)),
            done.started_us,
            done.seconds,
            done.status,
            {k: v for k, v in row.items() if isinstance(v, str | bool)},
            {k: float(v) for k, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)},
        )
        for i, row in enumerate(tried)
    ]
    return StageRun(
        done.name, done.started_us, done.seconds, done.status, settings, done.figures, page, children
    )


def _full(lake: str) -> str:
    """A local lake by its full path: notebooks run in another folder."""
    return lake if "://" in lake else str(Path(lake).resolve())
