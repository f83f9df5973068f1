"""Stages of a pipeline: skipped when nothing changed, never half done, never two runs at once.

A stage is a notebook and the function it calls. Its output folder is written aside and put in place when it
is complete, with ``digests.json`` (every file's sha256) and ``stage.json`` (what it was made from) inside:
that is all the state there is, so a run that was killed goes on where it was.

A stage is skipped when its fingerprint is the same and its output is untouched. The fingerprint covers the
notebook's source, the parameters, the content of everything it reads, this package's source, and the
versions of the packages that determine results.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import aiotkit
from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.errors import DataError, StorageError
from aiotkit.release.runner import (
    Limits,
    Scalar,
    check_parameters,
    declared,
    execute,
    read_notebook,
)

FORMAT = 1
DIGESTS, RECORD, FIGURES = "digests.json", "stage.json", "figures.json"
#: packages whose versions determine what a stage gives
LOCK = (
    "numpy", "pandas", "scipy", "scikit-learn", "torch", "onnx", "onnxscript", "onnxruntime", "skl2onnx",
    "pyarrow", "deltalake", "pydantic",
)  # fmt: skip
#: parts of this package that take part in a stage
_SOURCES = ("core", "bundle", "lake", "lab", "release")
_ASIDE = ".aside-"

Progress = Callable[[str, float], None]


class Busy(StorageError):
    """Another run works in this folder; ``exit_code`` tells a scheduler that nothing is wrong."""

    exit_code = 5


@dataclass(frozen=True)
class Stage:
    """One numbered step.

    Attributes:
        name: of the stage and its notebook (``20_train``).
        notebook: the notebook's file.
        function: ``module:name`` of what the notebook calls; takes the same parameters, writes into ``out``.
        output: name of its output folder.
        settings: parameters that are values.
        reads: parameters that are files or folders: their content counts, not their place.
        given: inputs that are neither: name -> digest or version.
        uncounted: parameters that do not decide whether it must run: places, and what ``given`` identifies.
    """

    name: str
    notebook: Path
    function: str
    output: str
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    reads: Mapping[str, Path] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    uncounted: Mapping[str, Scalar] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Done:
    """How a stage ended: ``status`` is ``ran`` or ``unchanged``; ``why`` names what had changed."""

    name: str
    status: str
    folder: Path
    fingerprint: str
    started_us: int
    seconds: float
    why: str
    notebook: Path | None

    @property
    def digest(self) -> str:
        """Identity of what it gave."""
        return folder_digest(self.folder)

    @property
    def figures(self) -> dict[str, float]:
        """The figures it wrote, if any."""
        path = self.folder / FIGURES
        return {k: float(v) for k, v in json.loads(path.read_bytes()).items()} if path.exists() else {}


def run_stage(stage: Stage, work: Path, *, in_process: bool = False) -> Done:
    """Run a stage, or find that nothing has changed.

    Args:
        stage: what to do.
        work: the pipeline's folder; the output goes to ``work/<stage.output>``, the executed notebook to
            ``work/executed/``.
        in_process: call the function here instead of running the notebook in a kernel.

    Raises:
        AiotkitError: whatever the stage found wrong; the output of an earlier run stays as it was.
    """
    work = work.resolve()  # a kernel runs in a folder of its own
    folder, executed = work / stage.output, work / "executed" / f"{stage.name}.ipynb"
    parts = fingerprint_parts(stage)
    wanted = digest(canonical_bytes(parts))
    held = _record(folder)
    why = _difference(held, parts, folder)
    if not why and held is not None:
        kept = executed if executed.exists() else None
        return Done(stage.name, "unchanged", folder, wanted, held["started_us"], held["seconds"], "", kept)
    started_us, began_s = time.time_ns() // 1000, time.monotonic()
    aside = work / f"{_ASIDE}{stage.output}-{os.getpid()}-{time.time_ns():x}"
    parameters: dict[str, Any] = {k: str(v.resolve()) for k, v in stage.reads.items()} | {
        **stage.settings,
        **stage.uncounted,
        "out": str(aside),
    }
    check_parameters(declared(read_notebook(stage.notebook), stage.name), parameters, stage.name)
    aside.mkdir()
    _make(stage, parameters, work, executed, in_process=in_process)
    _check_sealed(aside, stage.name)
    seconds = time.monotonic() - began_s
    record = {"format": FORMAT, "stage": stage.name, "fingerprint": wanted, "parts": parts}
    _write(aside / RECORD, record | {"started_us": started_us, "seconds": seconds, "in_process": in_process})
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return Done(stage.name, "ran", folder, wanted, started_us, seconds, why, None if in_process else executed)


def _make(
    stage: Stage, parameters: Mapping[str, Any], work: Path, executed: Path, *, in_process: bool
) -> None:
    if in_process:
        module, _, name = stage.function.partition(":")
        getattr(import_module(module), name)(**parameters)
        seal(parameters["out"])
    else:
        execute(stage.notebook, parameters, executed, folder=work, limits=stage.limits)


def changes(stage: Stage, work: Path) -> str:
    """Why a stage would run ('' = it would be skipped)."""
    folder = work / stage.output
    return _difference(_record(folder), fingerprint_parts(stage), folder)


def made_from(work: Path, output: str) -> dict[str, Any]:
    """What an output that lies in a work folder was made from (``fingerprint_parts``); empty without one."""
    held = _record(work / output)
    return dict(held["parts"]) if held is not None else {}


def fingerprint_parts(stage: Stage) -> dict[str, Any]:
    """Everything a stage's result depends on, by name; the fingerprint is the digest of this."""
    return {
        "format": FORMAT,
        "notebook": digest(stage.notebook.read_bytes()),
        "settings": dict(stage.settings),
        "reads": {name: folder_digest(path) for name, path in stage.reads.items()},
        "given": dict(stage.given),
        "aiotkit": {"version": aiotkit.__version__, "source": source_digest()},
        "lock": lock(),
    }


@cache
def lock() -> dict[str, str]:
    """The versions of Python, this machine's architecture and the packages in ``LOCK``."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in LOCK:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def source_digest() -> str:
    """Digest of the source of every part of this package that takes part in a stage."""
    root = Path(aiotkit.__file__).parent
    files = sorted(path for part in _SOURCES for path in (root / part).rglob("*.py"))
    return digest(canonical_bytes([[str(p.relative_to(root)), digest(p.read_bytes())] for p in files]))


def seal(out: Path | str) -> dict[str, str]:
    """Write ``digests.json`` over every file of a folder: the last thing a stage does. Gives its content."""
    out = Path(out)
    found = _digests(out)
    if not found:
        raise DataError(f"{out.name}: the stage wrote nothing")
    _write(out / DIGESTS, found)
    return found


def write_figures(out: Path | str, figures: Mapping[str, float]) -> None:
    """Write ``figures.json``: the numbers a stage is remembered by; what is not finite is left out."""
    finite = {k: float(v) for k, v in figures.items() if v == v and abs(v) != float("inf")}
    _write(Path(out) / FIGURES, finite)


def folder_digest(path: Path) -> str:
    """Identity of a file, or of a folder: its sealed digests where it has some, otherwise of every file.

    Raises:
        DataError: it is not there.
    """
    if path.is_file():
        return digest_file(path)
    if (path / DIGESTS).is_file():
        return digest((path / DIGESTS).read_bytes())
    if not path.is_dir():
        raise DataError(f"input {path}", expected="a file or folder", found="nothing there")
    return digest(canonical_bytes(_digests(path)))


def digest_file(path: Path) -> str:
    """sha256 of a file of any size."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def only_run(work: Path, what: str) -> Iterator[None]:
    """Hold the lock of a work folder, and clear away what killed runs left aside.

    The system gives the lock back when its process ends, however it ends.

    Raises:
        Busy: another process holds it; names it and since when.
        StorageError: the folder cannot be made or written.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        handle = (work / "lock").open("a+")
    except OSError as error:
        raise StorageError(f"work folder {work}", found=error.strerror or str(error)) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            raise Busy(
                f"{what}: another run works in {work}",
                found=handle.read().strip() or "it has just begun",
                do="Wait for it, or give --work another folder.",
            ) from error
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {platform.node()} since {since}\n")
        handle.flush()
        for left in work.glob(_ASIDE + "*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
        handle.truncate(0)


def _digests(folder: Path) -> dict[str, str]:
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {name: digest_file(folder / name) for name in names if name not in (DIGESTS, RECORD)}


def _check_sealed(folder: Path, name: str) -> None:
    """The last cell of a notebook must have sealed what the folder holds."""
    found, said = _digests(folder), _read(folder / DIGESTS)
    if said is None or found != said:
        raise DataError(
            f"stage {name}: {DIGESTS}",
            expected="the digests of every file it wrote",
            found="none" if said is None else "others",
            do="A stage's notebook ends with steps.seal(out).",
        )


def _record(folder: Path) -> dict[str, Any] | None:
    found = _read(folder / RECORD)
    whole = found is not None and found.get("format") == FORMAT and isinstance(found.get("parts"), dict)
    return found if whole else None


def _difference(held: Mapping[str, Any] | None, parts: Mapping[str, Any], folder: Path) -> str:
    """Why a stage must run ('' = it need not)."""
    if held is None:
        return "first run"
    changed = [
        f"{key}.{inner}" if isinstance(value, dict) else key
        for key, value in parts.items()
        for inner in (_changed(value, held["parts"].get(key)) if isinstance(value, dict) else [""])
        if isinstance(value, dict) or value != held["parts"].get(key)
    ]
    if changed:
        return f"{', '.join(changed)} changed"
    return "" if _digests(folder) == _read(folder / DIGESTS) else "its output was altered"


def _changed(new: Mapping[str, Any], old: object) -> list[str]:
    before = old if isinstance(old, dict) else {}
    return sorted(k for k in new.keys() | before.keys() if new.get(k) != before.get(k))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_bytes(canonical_bytes(document) + b"\n")
