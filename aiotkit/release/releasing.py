"""Releasing an approved candidate: signed, published, and made the champion that later ones must beat."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aiotkit.bundle.keys import SigningKey
from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.errors import RollbackRefused
from aiotkit.release.approve import ApprovalError, Standing, require_approval
from aiotkit.release.pipeline import notebook, stage_run
from aiotkit.release.publish import Index, is_published, read_index
from aiotkit.release.registry import Registry, Version
from aiotkit.release.release_steps import read_trust
from aiotkit.release.runner import Scalar
from aiotkit.release.seen import check_seen
from aiotkit.release.stages import Done, Progress, Stage, only_run, run_stage


@dataclass(frozen=True)
class Asked:
    """What is to be released.

    Attributes:
        decision_id: what it decides.
        version: of the candidate; None = the newest.
        store: tracking URI of the MLflow store.
        trust: the trust file: who may approve, and whose signatures devices want.
        keys: files of the release keys.
        folder: the release folder.
        work: folder of all pipelines; this one works in ``work/release/<decision id>``.
        in_process: call functions instead of running notebooks.
        group: of devices, where it was approved for a pilot group alone.
    """

    decision_id: str
    version: int | None
    store: str
    trust: Path
    keys: Sequence[Path]
    folder: Path
    work: Path
    in_process: bool = False
    group: str | None = None


@dataclass(frozen=True)
class Released:
    """What was released: ``status`` is ``released``, or ``unchanged`` when the same was out already."""

    status: str
    version: Version
    standing: Standing
    index: Index
    stages: Sequence[Done]


def release(asked: Asked, progress: Progress = lambda _stage, _share: None) -> Released:
    """Sign what was approved, publish it, and move the alias ``champion``.

    Whether it is approved is asked each time, also when nothing else has changed. What is released to a pilot
    group alone is not the champion.

    Raises:
        ApprovalError: it is not approved, not by whom it must be, not for these devices, or not any more.
        RollbackRefused: a newer release is out.
        Busy: another run releases this decision from this folder.
    """
    work = asked.work / "release" / asked.decision_id
    with only_run(work, f"releasing '{asked.decision_id}'"):
        progress("asking the registry", 0.0)
        registry = Registry(asked.store)
        version = registry.version(asked.decision_id, asked.version)
        trust = read_trust(asked.trust)
        check_seen(asked.work, version, registry.statements(version))
        standing = require_approval(registry, version, trust, now_us=time.time_ns() // 1000)
        pilot = _group(asked, standing)
        _no_way_back(registry, version)
        before = read_index(asked.folder, asked.decision_id)
        whole = is_published(asked.folder, asked.decision_id, version.bundle)
        if not whole:
            shutil.rmtree(work / "published", ignore_errors=True)  # whatever was done before, it is not out
        done: list[Done] = []
        for stage in _stages(asked, version, standing, work):
            progress(stage.name, (1 + len(done)) / 3)
            done.append(run_stage(stage, work, in_process=asked.in_process))
        if not version.champion and pilot is None:
            registry.set_champion(version)
        index = read_index(asked.folder, asked.decision_id)
        settled = version.champion or pilot is not None
        status = "unchanged" if whole and settled and index == before else "released"
        if status == "released":
            _record(registry, asked.decision_id, done, work)
        progress(status, 1.0)
        return Released(status, registry.version(asked.decision_id, version.number), standing, index, done)


def _group(asked: Asked, standing: Standing) -> str | None:
    """The pilot group it was approved for; None = all devices. Refused where another one is asked for."""
    assert standing.statement is not None
    pilot = standing.statement.conditions.pilot
    if asked.group == pilot:
        return pilot
    asked_for = "to all devices" if asked.group is None else f"to group '{asked.group}'"
    if pilot is None:
        whom, do = "for all devices", "Leave --group out, or have it approved with --pilot."
    else:
        whom = f"for group '{pilot}' alone"
        do = f"Say --group '{pilot}', or have it approved without --pilot."
    raise ApprovalError(f"'{asked.decision_id}' is approved {whom}", found=f"released {asked_for}", do=do)


def _no_way_back(registry: Registry, version: Version) -> None:
    """Refuse what is older than the champion: devices never go back, whatever folder they are served from."""
    champion = registry.champion(version.decision_id)
    if champion is not None and champion.release_counter > version.release_counter:
        raise RollbackRefused(
            f"version {version.number} of '{version.decision_id}', release {version.release_counter}",
            expected=f"a counter above {champion.release_counter} (version {champion.number} is in force)",
            do="Devices never go back; make a new candidate (aiotkit run retrain) with a higher counter.",
        )


def _stages(asked: Asked, version: Version, standing: Standing, work: Path) -> list[Stage]:
    named: dict[str, Scalar] = {
        "store": asked.store,
        "decision_id": asked.decision_id,
        "version": version.number,
    }
    key_ids = sorted(SigningKey.load(path).public.key_id for path in asked.keys)
    return [
        Stage(
            "10_bundle",
            notebook("release", "10_bundle"),
            "aiotkit.release.release_steps:bundle",
            "bundled",
            reads={"trust": asked.trust},
            given={"bundle": version.bundle, "approval": standing.digest, "keys": ",".join(key_ids)},
            uncounted=named | {"keys": ",".join(str(path.resolve()) for path in asked.keys)},
        ),
        Stage(
            "20_publish",
            notebook("release", "20_publish"),
            "aiotkit.release.release_steps:publish",
            "published",
            reads={"bundled": work / "bundled"},
            given={"folder": str(asked.folder.resolve())},
            uncounted=named | {"folder": str(asked.folder.resolve())},
        ),
    ]


def _record(registry: Registry, decision_id: str, done: Sequence[Done], work: Path) -> None:
    identity = digest(canonical_bytes([d.fingerprint for d in done]))
    runs = [stage_run(d, work) for d in done]
    run = registry.record(decision_id, f"release {decision_id} {identity[7:15]}", runs, pipeline=identity)
    registry.close(run)
