"""Reaching an MLflow store: a SQLite file with a folder beside it, or a server; and failing in words.

Only ``release.registry`` uses it.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from aiotkit.core.errors import DataError, StorageError

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
#: seconds a server has to answer, and how often it is asked again
PATIENCE_S, RETRIES = 8, 1
_SQLITE = "sqlite:///"
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def store_uri(folder: Path) -> str:
    """The tracking URI of the store in a folder."""
    return f"{_SQLITE}{(folder / DATABASE).resolve()}"


def tracking_uri(store: str) -> str:
    """The tracking URI of what a person names: a URI as it is, a folder as the SQLite store in it."""
    return store if "://" in store else store_uri(Path(store))


def place_of(uri: str) -> Path | None:
    """The folder of a SQLite store; None for a server."""
    return Path(uri.removeprefix(_SQLITE)).parent if uri.startswith(_SQLITE) else None


def connect(uri: str, *, make: bool = True) -> Any:
    """MLflow's client; a store in a folder is made when it is not there, or refused (``DataError``).

    Raises whatever MLflow or the system raises; ``told`` turns that into words.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is ours, and JSON's
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(RETRIES))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(PATIENCE_S))
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar a file is noise
    _knock(uri)
    place = place_of(uri)
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # tells of every table it makes
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # and of every retry
    if place is not None and not (place / DATABASE).exists():
        if not make:
            raise DataError(
                f"there is no store in {place.name}/",
                expected=DATABASE,
                do="Say where it is (--work FOLDER, or --store), or make a candidate: aiotkit run retrain.",
            )
        _make(place)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make(place: Path) -> None:
    """Make a store's database aside and put it in place whole: half of one is no use to anybody."""
    from mlflow.tracking import MlflowClient

    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=place) as folder:
        uri = store_uri(Path(folder))
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
        with suppress(FileExistsError):  # somebody else was faster
            os.link(Path(folder) / DATABASE, place / DATABASE)


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Turn what the store's libraries and the system raise into a ``StorageError`` about this store."""
    try:
        yield
    except Exception as error:
        if not _is_storage(error):
            raise
        raise StorageError(
            f"MLflow store {_name(uri)}",
            found=_words(error),
            do="What was made stays on disk: check the store (--store, MLFLOW_TRACKING_URI) and run the "
            "same command again.",
        ) from error


def _name(uri: str) -> str:
    """The store for a message: without a password."""
    place = place_of(uri)
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"in {place.name}/" if place is not None else parts._replace(netloc=host).geturl()


def _is_storage(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException | OSError) or type(error).__module__.startswith("sqlalchemy.")


def _words(error: Exception) -> str:
    """What a library says, or the cause that it says at the end of it."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    cause = re.search(r"Caused by (.+?)\)*$", line)
    return (cause[1] if cause else line)[:200]


def _knock(uri: str) -> None:
    """Fail fast where nobody listens; the libraries would try for minutes."""
    parts = urlsplit(uri)
    try:
        port = parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    except ValueError as error:
        raise DataError(
            f"MLflow store {_name(uri)}", expected="a port up to 65535", found=str(error)
        ) from error
    proxied = parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")
    if parts.hostname and port and not proxied:
        socket.create_connection((parts.hostname, port), timeout=PATIENCE_S).close()
