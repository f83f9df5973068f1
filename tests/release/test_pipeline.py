"""From a lake to a registered candidate to a release: what is repeated, what is kept, what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("mlflow")
pytestmark = [pytest.mark.desk, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

from worlds.bundles import signing_key  # noqa: E402
from worlds.small_plant import START_US, decision_file, put_outcomes, small_decision, small_lake  # noqa: E402

from aiotkit.bundle.trust import make_trust, parse_trust  # noqa: E402
from aiotkit.bundle.unsigned import read_unsigned  # noqa: E402
from aiotkit.bundle.verify import verify_signed  # noqa: E402
from aiotkit.core.errors import BundleError, DataError, LakeError, RollbackRefused, StorageError  # noqa: E402
from aiotkit.lake.lake import Lake  # noqa: E402
from aiotkit.release.approve import ApprovalError, Conditions, KeyApprover, SingleUser, Wish, decide  # noqa: E402
from aiotkit.release.due import reasons  # noqa: E402
from aiotkit.release.pipeline import Outcome, Retrain, newest_us, notebook, read_params, retrain  # noqa: E402
from aiotkit.release.registry import Registry, Version  # noqa: E402
from aiotkit.release.releasing import Asked, Released, release  # noqa: E402
from aiotkit.release.store import store_uri  # noqa: E402

ID = "small-pump"
STAGES = ["10_assemble", "20_train", "30_export", "40_quantize", "50_bench", "60_gate"]
LEAD, HOLDER = signing_key("lead"), signing_key("holder")
NOW_US = START_US + 10**14


class Desk:
    """A lake, a work folder and a store, and the command that retrains."""

    def __init__(self, folder: Path, lake: Path) -> None:
        self.folder, self.lake = folder, lake
        self.work = folder / "work" / "retrain" / ID
        self.store = store_uri(folder / "store")

    def asked(self, **changes: Any) -> Retrain:
        params = read_params(families="lda", recipe="plain", folds=4, bench_runs=40)
        given = {"decision": self.folder / "pump.yaml", "lake": str(self.lake), "work": self.folder / "work"}
        return Retrain(**(given | {"store": self.store, "params": params, "in_process": True} | changes))

    def run(self, **changes: Any) -> Outcome:
        return retrain(self.asked(**changes))

    @property
    def registry(self) -> Registry:
        return Registry(self.store)

    def approve(self, number: int | None = None, *, verdict: Any = "approved", by: Any = None) -> Version:
        version = self.registry.version(ID, number)
        wish = Wish(verdict, "Ann", "a test", despite_gates=True)
        decide(self.registry, version, wish, by or KeyApprover(LEAD), at_us=NOW_US)
        return version

    def release(self, number: int | None = None, group: str | None = None, **roles: Any) -> Released:
        trust, key = self.folder / "trust.json", self.folder / "holder.pem"
        named = {"release": ([HOLDER.public], 1), "approval": ([LEAD.public], 1)} | roles
        trust.write_bytes(make_trust({k: v for k, v in named.items() if v}).canonical())  # type: ignore[arg-type]
        if not key.exists():
            HOLDER.save(key)
        places = (self.folder / "releases", self.folder / "work")
        return release(Asked(ID, number, self.store, trust, [key], *places, in_process=True, group=group))


def statuses(found: Outcome) -> dict[str, str]:
    return {d.name: d.status for d in found.stages}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, Outcome]:
    """One whole run; the tests work on copies of its folders."""
    folder = tmp_path_factory.mktemp("first")
    small_lake(folder / "lake")
    decision_file(folder)
    desk = Desk(folder, folder / "lake")
    return desk, desk.run()


@pytest.fixture
def desk(first: tuple[Desk, Outcome], tmp_path: Path) -> Desk:
    """A copy of the finished run."""
    place = Path(shutil.copytree(first[0].folder, tmp_path / "desk", ignore=shutil.ignore_patterns("lake")))
    return Desk(place, first[0].lake)


def test_a_run_ends_with_a_candidate_and_its_evidence(first: tuple[Desk, Outcome]) -> None:
    """Six stages, one version: the bundle, the evidence and the page, by the digests in its tags."""
    desk, found = first
    assert statuses(found) == dict.fromkeys(STAGES, "ran")
    assert (found.status, found.version and found.version.number) == ("registered", 1)
    assert found.version is not None
    assert found.evidence is not None
    assert found.evidence.passed, [g.words for g in found.evidence.refused]
    assert found.version.gates == "passed"
    bundle, evidence = desk.registry.fetch(found.version)
    assert read_unsigned(bundle)[0].digest == found.version.bundle == found.evidence.bundle
    assert evidence == (found.folder / "candidate" / "evidence.json").read_bytes()
    assert "small-pump" in found.report.read_text()
    assert sorted(p.name for p in found.folder.iterdir()) == [
        "benched", "candidate", "decision.json", "examples", "exported", "lock", "quantized", "trained",
    ]  # fmt: skip


def test_mlflow_shows_the_run_its_stages_and_the_families(first: tuple[Desk, Outcome]) -> None:
    """A parent run, a child a stage with its figures, and below training a run a family."""
    desk, found = first
    assert found.version is not None
    client = desk.registry._client
    at = client.get_run(found.version.run_id).info.experiment_id
    runs = client.search_runs([at])
    below: dict[str, list[Any]] = {}
    for run in runs:
        below.setdefault(run.data.tags.get("mlflow.parentRunId", ""), []).append(run)
    assert [r.info.run_id for r in below[""]] == [found.version.run_id]
    children = {r.info.run_name: r for r in below[found.version.run_id]}
    assert sorted(children) == STAGES
    assert children["10_assemble"].data.metrics["labelled"] > 1000
    assert children["20_train"].data.params["families"] == "lda"
    assert [r.info.run_name for r in below[children["20_train"].info.run_id]] == ["lda"]
    assert {r.info.status for r in runs} == {"FINISHED"}


def test_nothing_new_means_nothing_done(desk: Desk) -> None:
    """The same command again: every stage is skipped and no second version appears."""
    again = desk.run()
    assert statuses(again) == dict.fromkeys(STAGES, "unchanged")
    assert (again.status, again.version and again.version.number) == ("unchanged", 1)
    assert len(desk.registry.candidates(ID)) == 1


def test_a_store_that_is_away_costs_nothing_but_the_wait(desk: Desk) -> None:
    """Unreachable, then unwritable: both are told, nothing is registered, and only that is left to do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(StorageError, match=r"MLflow store .*refused.*run the same command again"):
        desk.run(store=f"http://127.0.0.1:{port}")
    other = desk.folder / "other"
    Registry(store_uri(other)).decisions()
    (other / "mlartifacts").write_text("no folder")
    with pytest.raises(StorageError, match="MLflow store in other/"):
        desk.run(store=store_uri(other))
    assert Registry(store_uri(other)).candidates(ID) == []
    assert Registry(store_uri(other)).decisions() == []
    (other / "mlartifacts").unlink()
    found = desk.run(store=store_uri(other))
    assert statuses(found) == dict.fromkeys(STAGES, "unchanged")
    assert (found.status, found.version and found.version.number) == ("registered", 1)


def test_the_same_inputs_give_the_same_candidate(desk: Desk) -> None:
    """A stage that is lost is made again, byte for byte, in another folder; it is no new candidate."""
    before = {p.name: p.read_bytes() for p in (desk.work / "candidate").glob("*.aiot")}
    shutil.rmtree(desk.work / "candidate")
    again = desk.run(counter=1, store=store_uri(desk.folder / "fresh"))
    assert statuses(again)["60_gate"] == "ran"
    assert {p.name: p.read_bytes() for p in (desk.work / "candidate").glob("*.aiot")} == before


def test_a_stage_that_fails_is_in_mlflow_and_leaves_the_rest(desk: Desk) -> None:
    """The run is entered as failed; candidate and stages of the last good run stay."""
    before = (desk.work / "trained" / "digests.json").read_bytes()
    params = read_params(families="ldaa", recipe="plain", folds=4, bench_runs=40)
    with pytest.raises(DataError, match="ldaa"):
        desk.run(params=params)
    assert (desk.work / "trained" / "digests.json").read_bytes() == before
    client = desk.registry._client
    at = client.get_experiment_by_name(ID).experiment_id
    failed = client.search_runs([at], "attributes.status = 'FAILED'")
    below = {r.info.run_name: "mlflow.parentRunId" in r.data.tags for r in failed}
    assert below.pop("20_train")
    assert list(below.values()) == [False]
    assert statuses(desk.run())["20_train"] == "unchanged"


def test_a_released_candidate_is_not_judged_against_itself(desk: Desk) -> None:
    """After its release the same data make no new candidate; another champion is a reason to judge again."""
    desk.registry.set_champion(desk.registry.version(ID))
    assert desk.run().status == "unchanged"
    params = read_params(families="lda", recipe="plain", folds=4, bench_runs=40, seed=8)
    other = desk.run(params=params)
    assert statuses(other)["60_gate"] == "ran"
    assert other.version is not None
    assert other.evidence is not None
    assert (other.version.number, other.version.release_counter) == (2, 2)
    assert other.evidence.champion == desk.registry.version(ID, 1).bundle
    assert other.evidence.gate("no_worse_than_champion").words
    with pytest.raises(DataError, match="release counter 2; expected at least 3: 2 is registered already"):
        desk.run(params=params, counter=2)


def test_a_lake_that_is_not_there_is_told(desk: Desk) -> None:
    """No lake, no run: the message names the folder."""
    with pytest.raises(LakeError, match="none: there is no lake"):
        desk.run(lake=str(desk.folder / "none"))


def test_what_was_known_is_all_that_the_lake_holds(tmp_path: Path) -> None:
    """By default the newest instant in the lake, so that the same lake gives the same examples."""
    lake = Lake.create(tmp_path / "lake")
    assert newest_us(lake) == 0
    import numpy as np

    put_outcomes(lake, "pump-1", np.array([START_US, START_US + 5]))
    assert newest_us(lake) == START_US + 5


def test_settings_come_from_the_file_and_the_options(tmp_path: Path) -> None:
    """Options win over the file, the file over the defaults; a misspelt name gets a hint."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("folds: 3\nseed: 11\n")
    found = read_params(mine, seed=12, recipe=None)
    assert (found.folds, found.seed, found.recipe) == (3, 12, "auto")
    mine.write_text("fold: 3\n")
    with pytest.raises(DataError, match=r"fold.*did you mean 'folds'"):
        read_params(mine)
    mine.write_text("folds: three\n")
    with pytest.raises(DataError, match="folds"):
        read_params(mine)
    with pytest.raises(DataError, match="expected a YAML file"):
        read_params(tmp_path / "none.yaml")


def test_every_package_and_notebook_is_installed() -> None:
    """What pyproject lists are the packages there are; each stage's notebook is in one of them."""
    import tomllib

    root = Path(__file__).resolve().parents[2]
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(p.parent.relative_to(root).parts) for p in (root / "aiotkit").rglob("__init__.py")}
    assert set(listed) == found | {"aiotkit_pipelines"}
    assert all(notebook("retrain", name).is_file() for name in STAGES)
    assert all(notebook("release", name).is_file() for name in ("10_bundle", "20_publish"))


def test_what_is_due_is_said_in_words(desk: Desk) -> None:
    """New labels since the last candidate, time, or nothing; without a candidate the first is due."""
    examples, candidate = desk.work / "examples", desk.work / "candidate"
    labels = small_decision(trigger={"new_labels": 10})
    assert reasons(labels, examples, candidate) == []
    assert reasons(small_decision(), examples, candidate) == ["the decision declares no trigger"]
    assert reasons(labels, examples, desk.work / "none") == ["there is no candidate yet"]
    figures = json.loads((candidate / "figures.json").read_bytes())
    older = figures | {"labelled": figures["labelled"] - 10, "as_of_us": figures["as_of_us"] - 3600e6}
    (candidate / "figures.json").write_text(json.dumps(older))
    assert reasons(labels, examples, candidate) == ["10 new labels (trigger: 10)"]
    assert reasons(small_decision(trigger={"every_s": 3700}), examples, candidate) == []
    assert len(reasons(small_decision(trigger={"every_s": 3600}), examples, candidate)) == 1
    assert reasons(small_decision(trigger={"drift": 0.2}), examples, candidate) == []


def test_an_approved_candidate_is_released_and_becomes_the_champion(desk: Desk) -> None:
    """Signed, published with its approval and an index; doing it again changes nothing."""
    version = desk.approve()
    done = desk.release()
    assert (done.status, done.version.champion) == ("released", True)
    assert done.standing.authenticated
    latest = done.index.newest
    assert latest is not None
    assert (latest.bundle, latest.approved_by) == (version.bundle, "Ann")
    signed = (desk.folder / "releases" / ID / latest.file).read_bytes()
    assert (
        verify_signed(signed, parse_trust((desk.folder / "trust.json").read_bytes())).digest == version.bundle
    )
    assert desk.release().status == "unchanged"
    shutil.rmtree(
        desk.folder / "work" / "release"
    )  # as where a newer aiotkit, or another place, does it anew
    assert desk.release().status == "unchanged"
    (desk.folder / "releases" / ID / latest.file).unlink()
    assert desk.release().status == "released"
    assert (desk.folder / "releases" / ID / latest.file).read_bytes() == signed


def test_what_is_approved_for_a_pilot_group_goes_to_it_alone(desk: Desk) -> None:
    """It is neither what other devices should have nor the champion, until it is approved for all."""
    version = desk.registry.version(ID, 1)
    conditions = Conditions(pilot="hall-1")
    decide(desk.registry, version, Wish("approved", "Ann", "", conditions), KeyApprover(LEAD), at_us=NOW_US)
    for group in (None, "hall-2"):
        with pytest.raises(ApprovalError, match="is approved for group 'hall-1' alone"):
            desk.release(group=group)
    done = desk.release(group="hall-1")
    assert (done.status, done.version.champion) == ("released", False)
    assert done.index.latest() is None
    assert done.index.latest("hall-2") is None
    assert done.index.latest("hall-1") == done.index.newest
    assert desk.release(group="hall-1").status == "unchanged"
    decide(
        desk.registry,
        desk.registry.version(ID, 1),
        Wish("approved", "Ann"),
        KeyApprover(LEAD),
        at_us=NOW_US + 9,
    )
    with pytest.raises(ApprovalError, match="is approved for all devices; found released to group 'hall-1'"):
        desk.release(group="hall-1")
    done = desk.release()
    assert (done.status, done.version.champion) == ("released", True)
    assert done.index.latest() == done.index.newest


def test_a_candidate_that_was_damaged_in_the_store_is_registered_again(desk: Desk) -> None:
    """What approve advises helps; a champion whose evidence is damaged does not stop the next run."""
    held = next(desk.folder.rglob("mlartifacts/*/artifacts/candidate/evidence.json"))
    held.write_bytes(held.read_bytes() + b" ")
    with pytest.raises(BundleError, match="register the candidate again"):
        desk.approve()
    desk.registry.set_champion(desk.registry.version(ID, 1))
    again = desk.run()
    assert again.version is not None
    assert again.version.number == 2
    assert desk.approve(2).number == 2


def test_a_record_of_a_stage_that_is_no_record_means_that_it_runs_again(desk: Desk) -> None:
    """Whatever JSON lies there, nothing breaks."""
    for words in ('{"format":1}', '{"format":1,"parts":[1]}', "[]"):
        (desk.work / "trained" / "stage.json").write_text(words)
        assert statuses(desk.run())["20_train"] == "ran"


def test_what_is_not_approved_is_not_released(desk: Desk) -> None:
    """Neither before an approval nor after it was taken back, though all stages would be skipped."""
    with pytest.raises(ApprovalError, match="version 1 may not be released; found nobody has approved it"):
        desk.release()
    assert not (desk.folder / "releases").exists()
    desk.approve()
    desk.release()
    desk.approve(verdict="rejected")
    with pytest.raises(ApprovalError, match="rejected by Ann"):
        desk.release()


def test_single_user_mode_releases_only_where_nobody_is_trusted_to_approve(desk: Desk) -> None:
    """With approval keys in the trust file an unsigned statement is refused; without, it is marked."""
    desk.approve(by=SingleUser())
    with pytest.raises(ApprovalError, match=r"not signed, but trust\.json names approval keys"):
        desk.release()
    done = desk.release(approval=None)
    assert not done.standing.authenticated
    assert done.index.newest is not None
    assert not done.index.newest.authenticated


def test_an_older_release_is_refused(desk: Desk) -> None:
    """Devices never go back, so the release folder does not either."""
    params = read_params(families="lda", recipe="plain", folds=4, bench_runs=40, seed=8)
    desk.run(params=params)
    desk.approve(2)
    desk.release(2)
    desk.approve(1)
    with pytest.raises(
        RollbackRefused, match=r"version 1 of .small-pump., release 1; expected a counter above 2"
    ):
        desk.release(1)
    champion = desk.registry.champion(ID)
    assert champion is not None
    assert champion.number == 2


def test_two_runs_of_a_decision_at_once(desk: Desk) -> None:
    """The second is refused with an exit code of its own; another decision's run is not in the way."""
    from aiotkit.release.stages import Busy, only_run

    with only_run(desk.work, "retraining"), pytest.raises(Busy, match="retraining 'small-pump': another run"):
        desk.run()
    asked = dataclasses.replace(desk.asked(), work=desk.folder / "elsewhere", lake=str(desk.folder / "none"))
    with only_run(desk.work, "retraining"), pytest.raises(LakeError):
        retrain(asked)
