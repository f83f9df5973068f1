"""The files that MLflow keeps with a run: beside the database of a store in a folder, or with a server.

MLflow writes absolute paths into its database. Those of a store in a folder are read as relative to it, so
that a copy has files of its own, and a store that was moved still has its files.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aiotkit.release.store import ARTIFACTS


class RunFiles:
    """Files by run and path; raises whatever MLflow or the system raises (``store.told`` gives it words)."""

    def __init__(self, client: Any, place: Path | None) -> None:
        self._client, self._place = client, place

    def put(self, run_id: str, paths: Iterable[Path], folder: str = "") -> None:
        """Keep files with a run, in a folder of it."""
        here = self._folder(run_id)
        for path in paths:
            if here is None:
                self._client.log_artifact(run_id, str(path), folder or None)
                continue
            (here / folder).mkdir(parents=True, exist_ok=True)
            aside = here / folder / f".{path.name}.part"
            shutil.copyfile(path, aside)
            aside.replace(here / folder / path.name)

    def names(self, run_id: str, folder: str) -> list[str]:
        """The names of the files in a folder of a run."""
        here = self._folder(run_id)
        if here is None:
            listed = self._client.list_artifacts(run_id, folder)
            return sorted(item.path.rpartition("/")[2] for item in listed if not item.is_dir)
        place = here / folder
        return sorted(p.name for p in place.iterdir() if p.is_file()) if place.is_dir() else []

    def read(self, run_id: str, path: str) -> bytes:
        """The bytes of a file."""
        here = self._folder(run_id)
        if here is not None:
            return (here / path).read_bytes()
        with tempfile.TemporaryDirectory() as place:
            return Path(self._client.download_artifacts(run_id, path, place)).read_bytes()

    def _folder(self, run_id: str) -> Path | None:
        """The folder of a run's files below the store's; None with a server, or where they lie elsewhere."""
        if self._place is None:
            return None
        _, beside, inside = str(self._client.get_run(run_id).info.artifact_uri).rpartition(f"/{ARTIFACTS}/")
        return self._place / ARTIFACTS / inside if beside else None
