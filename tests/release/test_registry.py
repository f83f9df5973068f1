"""Runs, candidates and the champion in a local MLflow store."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("mlflow")
pytestmark = [pytest.mark.desk, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

from worlds.bundles import DECISION_ID  # noqa: E402
from worlds.candidates import candidate, registered  # noqa: E402

from aiotkit.core.errors import BundleError, DataError, IntegrityError, StorageError  # noqa: E402
from aiotkit.release.registry import Candidate, Registry, StageRun, log_run  # noqa: E402
from aiotkit.release.store import store_uri, tracking_uri  # noqa: E402


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with no run in it: making one takes seconds, a copy does not."""
    folder = tmp_path_factory.mktemp("empty")
    Registry(store_uri(folder)).decisions()
    return folder


@pytest.fixture
def store(empty: Path, tmp_path: Path) -> Path:
    """A fresh store."""
    return Path(shutil.copytree(empty, tmp_path / "store"))


def enter(folder: Path, money: float, artifacts: tuple[Path, ...] = ()) -> str:
    return log_run(
        folder, "pump", "a run", params={"seed": 7}, metrics={"money.rule": money}, artifacts=artifacts
    )


def client(folder: Path):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=store_uri(folder), registry_uri=store_uri(folder))


def test_a_run_keeps_figures_and_files(store: Path) -> None:
    """What was entered can be read back: parameters, metrics, artefacts, and that it is finished."""
    report = store / "report.html"
    report.write_text("<p>all is well</p>")
    first, second = enter(store, 205.0, (report,)), enter(store, 96.5)
    run = client(store).get_run(first)
    assert run.info.status == "FINISHED"
    assert (run.data.params, run.data.metrics) == ({"seed": "7"}, {"money.rule": 205.0})
    assert [a.path for a in client(store).list_artifacts(first)] == ["report.html"]
    assert client(store).get_run(second).info.experiment_id == run.info.experiment_id


def test_a_pipeline_is_a_parent_run_with_a_child_a_stage(store: Path) -> None:
    """Each notebook's figures, files, times and state are found under the run of the whole."""
    registry = Registry(store_uri(store))
    page = store / "20_train.ipynb"
    page.write_text("{}")
    stages = [
        StageRun("10_assemble", 5_000_000, 2.0, "unchanged", {"seed": 1}, {"rows": 12.0}),
        StageRun("20_train", 7_000_000, 1.5, "failed", artifacts=[page]),
    ]
    parent = registry.record("pump", "retrain", stages, pipeline="sha256:1")
    assert client(store).get_run(parent).info.status == "RUNNING"
    at = client(store).get_run(parent).info.experiment_id
    children = client(store).search_runs([at], f"tags.`mlflow.parentRunId` = '{parent}'")
    found = {run.info.run_name: run for run in children}
    assert sorted(found) == ["10_assemble", "20_train"]
    assert found["10_assemble"].data.metrics == {"rows": 12.0}
    assert (found["10_assemble"].info.start_time, found["10_assemble"].info.end_time) == (5000, 7000)
    assert (found["20_train"].info.status, found["10_assemble"].info.status) == ("FAILED", "FINISHED")
    assert [a.path for a in client(store).list_artifacts(found["20_train"].info.run_id)] == ["20_train.ipynb"]


def test_a_run_that_was_killed_is_closed_by_the_next(store: Path) -> None:
    """No run of the same pipeline stays open for ever; others are left alone."""
    registry = Registry(store_uri(store))
    left, other = (registry.record("pump", "retrain", (), pipeline=name) for name in ("sha256:1", "sha256:2"))
    registry.record("pump", "retrain", (), pipeline="sha256:1")
    assert [client(store).get_run(r).info.status for r in (left, other)] == ["KILLED", "RUNNING"]


def test_a_candidate_is_registered_with_its_digests(store: Path, tmp_path: Path) -> None:
    """Bundle, evidence and report come back as they went in; tags say what they are."""
    registry = Registry(store_uri(store))
    (tmp_path / "page.html").write_text("<p>why</p>")
    given = candidate(3, refused=("leaks",), report=tmp_path / "page.html")
    made = registry.register(given, registry.record(DECISION_ID, "try", (), pipeline=""))
    assert (made.number, made.gates, made.release_counter, made.approval) == (1, "failed", 3, "")
    assert registry.fetch(made) == (given.bundle, given.evidence)
    assert registry.candidates(DECISION_ID) == [made]
    run = client(store).get_run(made.run_id)
    assert run.info.status == "FINISHED"
    listed = [a.path for a in client(store).list_artifacts(made.run_id, "candidate")]
    assert listed == ["candidate/bundle.aiot", "candidate/evidence.json", "candidate/report.html"]


def test_the_same_candidate_is_registered_once(store: Path) -> None:
    """Registering again after a kill or an outage makes no second version."""
    registry = Registry(store_uri(store))
    assert registered(registry, 3) == registered(registry, 3)
    assert len(registry.candidates(DECISION_ID)) == 1
    assert registered(registry, 4).number == 2


def test_nothing_is_half_registered(store: Path) -> None:
    """A bundle that is damaged, or a store whose files cannot be written, leaves no version behind."""
    registry = Registry(store_uri(store))
    good = candidate(3)
    run = registry.record(DECISION_ID, "try", (), pipeline="")
    with pytest.raises(BundleError):
        registry.register(Candidate(good.bundle[:-9], good.evidence, gates_passed=True), run)
    assert registry.candidates(DECISION_ID) == []
    shutil.rmtree(store / "mlartifacts", ignore_errors=True)
    (store / "mlartifacts").write_text("no folder can be made here")
    with pytest.raises(StorageError, match=r"MLflow store in store/.*run the same command again"):
        registry.register(good, run)
    assert registry.candidates(DECISION_ID) == []
    assert registry.decisions() == []
    (store / "mlartifacts").unlink()
    assert registry.register(good, run).number == 1


def test_the_champion_is_what_the_alias_says(store: Path) -> None:
    """Exactly the version that was released last, though MLflow's search tells no alias."""
    registry = Registry(store_uri(store))
    one, two = registered(registry, 1), registered(registry, 2)
    assert registry.champion(DECISION_ID) is None
    registry.set_champion(one)
    registry.set_champion(two)
    registry.set_champion(one)
    assert [(v.number, v.champion) for v in registry.candidates(DECISION_ID)] == [(2, False), (1, True)]


@pytest.mark.parametrize("name", ["bundle.aiot", "evidence.json"])
def test_an_artefact_that_was_tampered_with_is_refused(store: Path, name: str) -> None:
    """One changed byte, or another valid bundle in its place, and nothing is fetched."""
    registry = Registry(store_uri(store))
    made, other = registered(registry, 1), candidate(2, refused=("leaks",))
    (path,) = store.rglob(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError):
        registry.fetch(made)
    path.write_bytes(other.bundle if name == "bundle.aiot" else other.evidence)
    with pytest.raises(
        IntegrityError, match=r"is not what was registered; expected sha256.*changed the store"
    ):
        registry.fetch(made)


def test_a_version_that_is_not_there_is_told(store: Path) -> None:
    """An unknown decision gets a hint, an unknown number the list of those there are."""
    registry = Registry(store_uri(store))
    registered(registry)
    with pytest.raises(DataError, match="did you mean 'bearing-test'"):
        registry.version("baring-test")
    with pytest.raises(DataError, match="version 9; expected one of 1"):
        registry.version(DECISION_ID, 9)


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file where the store's folder should be ends in a sentence about the store."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match="MLflow store in taken/"):
        enter(tmp_path / "taken", 1.0)


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    """A refused connection is told in a second, and without the password in its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(
        StorageError, match=rf"MLflow store http://127.0.0.1:{port}; found.*refused"
    ) as caught:
        Registry(f"http://ann:secret@127.0.0.1:{port}")
    assert "secret" not in str(caught.value)
    assert time.monotonic() - began < 5


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes connections and never answers costs no more than its patience allows."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        registry = Registry(f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(StorageError, match="timed out"):
            registry.candidates(DECISION_ID)
    assert time.monotonic() - began < 10


def test_a_folder_or_an_address_names_a_store(tmp_path: Path) -> None:
    """What a person says becomes MLflow's address."""
    assert tracking_uri("http://hq:5000") == "http://hq:5000"
    assert urlsplit(tracking_uri(str(tmp_path))).path.endswith(f"{tmp_path}/mlflow.db")


def test_a_port_that_there_cannot_be_is_told() -> None:
    """An address that no server can have is an error about the store."""
    with pytest.raises(
        DataError, match=r"MLflow store http://127\.0\.0\.1:99999; expected a port up to 65535"
    ):
        Registry("http://127.0.0.1:99999")


def test_a_store_is_made_only_where_one_is_to_be_made(tmp_path: Path) -> None:
    """Looking at approvals in a folder whose name is mistyped makes nothing."""
    with pytest.raises(DataError, match=r"there is no store in typo/; expected mlflow\.db\. Say where it is"):
        Registry(store_uri(tmp_path / "typo"), make=False)
    assert not (tmp_path / "typo").exists()


def test_a_database_whose_making_was_cut_short_is_in_nobodys_way(tmp_path: Path) -> None:
    """It is made aside: whatever a kill leaves there, the next run has a whole one."""
    folder = tmp_path / "store"
    code = (
        "import os, sys, sqlite3, pathlib, threading, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "def watch():\n"
        "    while not any(p.stat().st_size > 20000 for p in folder.rglob('*.db')):\n"
        "        time.sleep(0.001)\n"
        "    os.kill(os.getpid(), 9)\n"
        "threading.Thread(target=watch, daemon=True).start()\n"
        "from aiotkit.release.registry import Registry\n"
        "from aiotkit.release.store import store_uri\n"
        "Registry(store_uri(folder)).decisions()\n"
    )
    folder.mkdir()
    killed = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, check=False, timeout=120
    )
    assert killed.returncode == -9, killed.stderr
    assert list(folder.rglob("*.db"))
    assert Registry(store_uri(folder)).decisions() == []
    enter(folder, 1.0)
