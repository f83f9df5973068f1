"""Runs are entered into a local MLflow store, where a person can open them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mlflow")
pytestmark = [pytest.mark.desk, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

from aiotkit.core.errors import StorageError  # noqa: E402
from aiotkit.release.registry import log_run, store_uri  # noqa: E402


def enter(folder: Path, money: float, artifacts: tuple[Path, ...] = ()) -> str:
    return log_run(
        folder, "pump", "a run", params={"seed": 7}, metrics={"money.rule": money}, artifacts=artifacts
    )


def test_a_run_keeps_figures_and_files(tmp_path: Path) -> None:
    """What was entered can be read back: parameters, metrics, artefacts, and that it is finished."""
    from mlflow.tracking import MlflowClient

    report = tmp_path / "report.html"
    report.write_text("<p>all is well</p>")
    first, second = enter(tmp_path, 205.0, (report,)), enter(tmp_path, 96.5)
    client = MlflowClient(tracking_uri=store_uri(tmp_path))
    run = client.get_run(first)
    assert run.info.status == "FINISHED"
    assert (run.data.params, run.data.metrics) == ({"seed": "7"}, {"money.rule": 205.0})
    assert [a.path for a in client.list_artifacts(first)] == ["report.html"]
    assert client.get_run(second).info.experiment_id == run.info.experiment_id


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file where the store's folder should be ends in a sentence about the store."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match="MLflow store in taken/"):
        enter(tmp_path / "taken", 1.0)
