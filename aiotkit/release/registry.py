"""All that talks to MLflow (reached through ``release.store``): runs, candidates, approvals, the champion.

A candidate is a model version named after its decision: an unsigned bundle with its evidence, kept as
artefacts of the run that made it. Its tags hold the digests; whatever is fetched is checked against them.
MLflow cannot tell who changed a tag, so nothing here is a proof: that is the signed statement
(``release.approve``). A store is a SQLite file and a folder beside it, or any MLflow server.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiotkit.bundle.unsigned import read_unsigned
from aiotkit.core.canonical import digest
from aiotkit.core.errors import BundleError, DataError, IntegrityError, did_you_mean
from aiotkit.release.run_files import RunFiles
from aiotkit.release.store import ARTIFACTS, connect, place_of, store_uri, told

CHAMPION = "champion"
#: tags of a candidate
BUNDLE, EVIDENCE, DECISION = "aiot.bundle_digest", "aiot.evidence_digest", "aiot.decision_digest"
GATES, COUNTER, APPROVAL = "aiot.gates", "aiot.release_counter", "aiot.approval"
#: tag of the runs of one pipeline run: what was left by one that was killed is told apart by it
PIPELINE = "aiot.pipeline"
BUNDLE_FILE, EVIDENCE_FILE, REPORT_FILE = "bundle.aiot", "evidence.json", "report.html"
_CANDIDATE, _APPROVALS, _STATEMENT = "candidate", "approvals", ".dsse.json"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be registered: bytes of the unsigned bundle and of its evidence, a page for people."""

    bundle: bytes
    evidence: bytes
    gates_passed: bool
    report: Path | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """A registered candidate, as its tags describe it."""

    decision_id: str
    number: int
    run_id: str
    created_us: int
    bundle: str
    evidence: str
    decision: str
    gates: str
    release_counter: int
    approval: str
    champion: bool
    description: str


@dataclass(frozen=True, slots=True)
class StageRun:
    """What is recorded of one stage: a child run with its parameters, figures and executed notebook.

    ``children`` are runs below it (the families that training tried).
    """

    name: str
    started_us: int
    seconds: float
    status: str
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Sequence[Path] = ()
    children: Sequence[StageRun] = ()


class Registry:
    """The candidates in one MLflow store.

    Every method raises ``StorageError`` when the store cannot be opened, read or written; a server that
    does not answer is given up after some 20 s. With ``make`` a store in a folder is made when there is none;
    without it that is a ``DataError``.
    """

    def __init__(self, uri: str, *, make: bool = True) -> None:
        self.uri = uri
        self._place = place_of(uri)
        with self._told():
            self._client = connect(uri, make=make)
        self._files = RunFiles(self._client, self._place)

    def _told(self) -> AbstractContextManager[None]:
        return told(self.uri)

    # runs

    def record(self, experiment: str, name: str, stages: Iterable[StageRun], *, pipeline: str) -> str:
        """A parent run with a child a stage; the parent stays open until ``close``. Gives its id.

        Runs that an earlier, killed attempt with the same ``pipeline`` (a digest) left open are closed as
        killed.
        """
        with self._told():
            at = self._experiment(experiment)
            open_ones = f"tags.`{PIPELINE}` = '{pipeline}' and attributes.status = 'RUNNING'"
            for left in self._client.search_runs([at], open_ones) if pipeline else ():
                self._client.set_terminated(left.info.run_id, "KILLED")
            listed = list(stages)
            started = min((s.started_us for s in listed), default=None)
            parent = self._client.create_run(
                at, start_time=started and started // 1000, run_name=name, tags={PIPELINE: pipeline}
            )
            for stage in listed:
                self._child(at, parent.info.run_id, stage)
            return str(parent.info.run_id)

    def close(self, run_id: str, *, status: str = "FINISHED") -> None:
        """End a run: ``FINISHED`` or ``FAILED``."""
        with self._told():
            self._client.set_terminated(run_id, status)

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        artifacts: Iterable[Path] = (),
    ) -> None:
        """Add parameters, figures and files to a run."""
        from mlflow.entities import Metric, Param

        with self._told():
            started = self._client.get_run(run_id).info.start_time
            self._client.log_batch(
                run_id,
                metrics=[Metric(k, float(v), started, 0) for k, v in (metrics or {}).items()],
                params=[Param(k, str(v)[:500]) for k, v in (params or {}).items()],
            )
            self._files.put(run_id, artifacts)

    def _child(self, experiment_id: str, parent: str, stage: StageRun) -> None:
        run = self._client.create_run(
            experiment_id,
            start_time=stage.started_us // 1000,
            run_name=stage.name,
            tags={"mlflow.parentRunId": parent, "aiot.stage": stage.status},
        )
        self.log(run.info.run_id, params=stage.params, metrics=stage.metrics, artifacts=stage.artifacts)
        ended = stage.started_us // 1000 + int(stage.seconds * 1000)
        status = "FAILED" if stage.status == "failed" else "FINISHED"
        for child in stage.children:
            self._child(experiment_id, run.info.run_id, child)
        self._client.set_terminated(run.info.run_id, status, ended)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        place = None if self._place is None else (self._place / ARTIFACTS).resolve().as_uri()
        return str(self._client.create_experiment(name, place))

    # candidates

    def register(self, candidate: Candidate, run_id: str, *, again: bool = False) -> Version:
        """Keep a candidate's files with a run, close the run, and make a model version of it.

        The version is the last thing that is written, with all its tags in one act: there is none that is
        not complete. The same bundle with the same evidence is registered once, but ``again`` where what was
        kept of it is damaged.

        Raises:
            IntegrityError: the bundle is damaged.
        """
        unsigned, _ = read_unsigned(candidate.bundle)
        about = unsigned.manifest
        tags = {
            BUNDLE: unsigned.digest,
            EVIDENCE: digest(candidate.evidence),
            DECISION: about.decision.digest,
            GATES: "passed" if candidate.gates_passed else "failed",
            COUNTER: str(about.release_counter),
        }
        known = self.find(about.decision.id, tags[BUNDLE], tags[EVIDENCE])
        if known is not None and not again:
            self.close(run_id)
            return known
        with self._told(), tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / BUNDLE_FILE).write_bytes(candidate.bundle)
            (folder / EVIDENCE_FILE).write_bytes(candidate.evidence)
            if candidate.report is not None:
                (folder / REPORT_FILE).write_bytes(candidate.report.read_bytes())
            self._files.put(run_id, sorted(folder.iterdir()), _CANDIDATE)
            self._client.set_terminated(run_id)
            self._model(about.decision.id)
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{_CANDIDATE}"
            made = self._client.create_model_version(
                about.decision.id, source, run_id, tags=tags, description=candidate.description
            )
            return _version(made, champion=False)

    def _model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name, description="Candidates of one decision (aiotkit).")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def candidates(self, decision_id: str) -> list[Version]:
        """Every version of a decision, newest first; none when it was never registered."""
        with self._told():
            found = list(self._client.search_model_versions(f"name = '{decision_id}'"))
            champion = self._champion(decision_id) if found else None
        ours = [v for v in found if BUNDLE in v.tags]
        listed = [_version(v, champion=int(v.version) == champion) for v in ours]
        return sorted(listed, key=lambda v: -v.number)

    def decisions(self) -> list[str]:
        """The ids of all decisions that have a candidate."""
        with self._told():
            return sorted(m.name for m in self._client.search_registered_models())

    def find(self, decision_id: str, bundle: str, evidence: str) -> Version | None:
        """The version with these digests."""
        same = [v for v in self.candidates(decision_id) if (v.bundle, v.evidence) == (bundle, evidence)]
        return same[0] if same else None

    def version(self, decision_id: str, number: int | None = None) -> Version:
        """A version by its number; the newest without one.

        Raises:
            DataError: there is none.
        """
        listed = self.candidates(decision_id)
        if not listed:
            raise DataError(
                f"decision '{decision_id}' has no candidate in {self.uri}",
                do=did_you_mean(decision_id, self.decisions()) or "Make one: aiotkit run retrain.",
            )
        wanted = [v for v in listed if number in (None, v.number)]
        if not wanted:
            raise DataError(
                f"decision '{decision_id}': version {number}",
                expected=f"one of {', '.join(str(v.number) for v in listed[:20])}",
            )
        return wanted[0]

    def champion(self, decision_id: str) -> Version | None:
        """The version that was released last, by its alias."""
        return next((v for v in self.candidates(decision_id) if v.champion), None)

    def set_champion(self, version: Version) -> None:
        """Move the alias ``champion`` to a version."""
        with self._told():
            self._client.set_registered_model_alias(version.decision_id, CHAMPION, str(version.number))

    def _champion(self, name: str) -> int | None:
        """``search_model_versions`` gives no aliases (MLflow 3.17), so the alias itself is asked for."""
        from mlflow.exceptions import MlflowException

        try:
            return int(self._client.get_model_version_by_alias(name, CHAMPION).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    # what a version holds

    def intact(self, version: Version) -> bool:
        """Whether the store still holds what was registered."""
        try:
            self.fetch(version)
        except BundleError:
            return False
        return True

    def fetch_bundle(self, version: Version) -> bytes:
        """The bytes of a version's bundle alone, checked against its tag.

        Raises:
            IntegrityError: it is not what was registered.
        """
        bundle = self._artifact(version.run_id, f"{_CANDIDATE}/{BUNDLE_FILE}")
        found = read_unsigned(bundle)[0].digest
        if found != version.bundle:
            raise IntegrityError(
                f"{version.decision_id} version {version.number}: its bundle is not what was registered",
                expected=version.bundle,
                found=found,
                do="Somebody changed the store: bring the file back from a backup.",
            )
        return bundle

    def fetch(self, version: Version) -> tuple[bytes, bytes]:
        """The bytes of a version's bundle and evidence, checked against its tags.

        Raises:
            IntegrityError: one of them is not what was registered.
        """
        bundle = self._artifact(version.run_id, f"{_CANDIDATE}/{BUNDLE_FILE}")
        evidence = self._artifact(version.run_id, f"{_CANDIDATE}/{EVIDENCE_FILE}")
        unsigned, _ = read_unsigned(bundle)
        found = {
            "bundle": (version.bundle, unsigned.digest),
            "evidence": (version.evidence, digest(evidence)),
            "decision": (version.decision, unsigned.manifest.decision.digest),
            "decision id": (version.decision_id, unsigned.manifest.decision.id),
        }
        for name, (expected, is_now) in found.items():
            if expected != is_now:
                raise IntegrityError(
                    f"{version.decision_id} version {version.number}: its {name} is not what was registered",
                    expected=expected,
                    found=is_now,
                    do="Somebody changed the store; register the candidate again (aiotkit run retrain).",
                )
        return bundle, evidence

    def statements(self, version: Version) -> dict[str, bytes]:
        """The statements kept with a version: digest of the bytes -> bytes, unverified.

        Raises:
            IntegrityError: one is not what its name says.
        """
        with self._told():
            listed = self._files.names(version.run_id, _APPROVALS)
        found: dict[str, bytes] = {}
        for name in (name for name in listed if name.endswith(_STATEMENT)):
            data = self._artifact(version.run_id, f"{_APPROVALS}/{name}")
            if digest(data) != f"sha256:{name.removesuffix(_STATEMENT)}":
                raise IntegrityError(
                    f"{version.decision_id} version {version.number}: statement {name}",
                    expected="the bytes that its name says",
                    found=digest(data),
                    do="It is torn or was changed: bring it back from a backup, or remove it and state again "
                    "(aiotkit approve, aiotkit reject).",
                )
            found[digest(data)] = data
        return found

    def keep_statement(self, version: Version, statement: bytes, tag: str) -> None:
        """Keep a statement with a version, then say so in the tag ``aiot.approval``."""
        with self._told(), tempfile.TemporaryDirectory() as place:
            path = Path(place) / f"{digest(statement).removeprefix('sha256:')}{_STATEMENT}"
            path.write_bytes(statement)
            self._files.put(version.run_id, [path], _APPROVALS)
            self._client.set_model_version_tag(version.decision_id, str(version.number), APPROVAL, tag)

    def _artifact(self, run_id: str, path: str) -> bytes:
        with self._told():
            return self._files.read(run_id, path)


def _version(found: Any, *, champion: bool) -> Version:
    tags = found.tags
    return Version(
        decision_id=found.name,
        number=int(found.version),
        run_id=found.run_id,
        created_us=int(found.creation_timestamp) * 1000,
        bundle=tags.get(BUNDLE, ""),
        evidence=tags.get(EVIDENCE, ""),
        decision=tags.get(DECISION, ""),
        gates=tags.get(GATES, ""),
        release_counter=int(tags[COUNTER]) if tags.get(COUNTER, "").isdecimal() else 0,
        approval=tags.get(APPROVAL, ""),
        champion=champion,
        description=found.description or "",
    )


def log_run(
    folder: Path,
    experiment: str,
    name: str,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    artifacts: Iterable[Path],
) -> str:
    """Enter one run into the store of a folder; the store is made when it is not there.

    Args:
        folder: where the store lies.
        experiment: groups runs; a decision's id.
        name: of the run.
        params: what it was run with.
        metrics: figures.
        artifacts: files to keep with it.

    Returns:
        MLflow's id of the run.

    Raises:
        StorageError: the store cannot be opened or written.
    """
    registry = Registry(store_uri(folder))
    run_id = registry.record(experiment, name, (), pipeline="")
    registry.log(run_id, params=params, metrics=metrics, artifacts=artifacts)
    registry.close(run_id)
    return run_id
