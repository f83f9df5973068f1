"""The only module that talks to MLflow: runs with their figures and artefacts, in a local store.

A store is a SQLite file and a folder beside it; ``mlflow server`` shows it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aiotkit.core.errors import StorageError

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"


def store_uri(folder: Path) -> str:
    """The tracking URI of the store in a folder."""
    return f"sqlite:///{(folder / DATABASE).resolve()}"


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
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # tells of every table it makes
    try:
        client = MlflowClient(tracking_uri=store_uri(folder))
        found = client.get_experiment_by_name(experiment)
        place = (folder / ARTIFACTS).resolve().as_uri()
        at = found.experiment_id if found else client.create_experiment(experiment, place)
        run = client.create_run(at, run_name=name)
        run_id: str = run.info.run_id
        started = run.info.start_time
        client.log_batch(
            run_id,
            metrics=[Metric(key, float(value), started, 0) for key, value in metrics.items()],
            params=[Param(key, str(value)) for key, value in params.items()],
        )
        for path in artifacts:
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id)
    except (MlflowException, OSError) as error:
        raise StorageError(
            f"MLflow store in {folder.name}/", found=str(error)[:200], do="Check the folder and its disk."
        ) from error
    return run_id
