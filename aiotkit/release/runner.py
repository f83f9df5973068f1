"""Run one notebook strictly: papermill underneath, without its leniency.

Refused before anything runs: a notebook without exactly one ``parameters`` cell of annotated scalars, a
parameter that is not declared there, of another type, or required and missing. Refused after: a cell that
did not run (``sys.exit(0)``, a skipped cell) or left an error, however it was tagged. The executed notebook
is kept in every case.

A parameter is required when its default is ``""`` and its comment begins with the word ``required``.
"""

from __future__ import annotations

import ast
import json
import logging
import math
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiotkit.core import errors
from aiotkit.core.errors import AiotkitError, DataError, did_you_mean

Scalar = str | int | float | bool
KINDS: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
PARAMETERS = "parameters"
#: tags of cells that papermill adds: they are not part of the notebook that was written
_ADDED = {"injected-parameters", "papermill-error-cell-tag"}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class NotebookError(AiotkitError):
    """A notebook failed, or left out a cell; the executed one is kept and named.

    ``exit_code`` is that of the error its cell raised, where that was one of ours.
    """

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Declared:
    """One parameter as the notebook declares it."""

    name: str
    kind: str
    default: Scalar
    required: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a cell and a whole notebook may take, in seconds."""

    cell_s: float = 6 * 3600.0
    notebook_s: float = 12 * 3600.0
    start_s: float = 60.0


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook as plain data.

    Raises:
        DataError: it is not there or no notebook.
    """
    try:
        found = json.loads(path.read_bytes())
        cells = found["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"notebook {path.name}", expected="a Jupyter notebook", found=str(error)) from error
    return dict(found) | {"cells": cells}


def declared(notebook: Mapping[str, Any], name: str) -> dict[str, Declared]:
    """The parameters a notebook declares, by name.

    Args:
        notebook: as ``read_notebook`` gives it.
        name: how messages call it.

    Raises:
        DataError: there is not exactly one ``parameters`` cell, or a line is not ``name: type = value``.
    """
    cells = [cell for cell in notebook["cells"] if PARAMETERS in cell["metadata"].get("tags", ())]
    if len(cells) != 1:
        raise DataError(
            f"notebook {name}: cells tagged 'parameters'", expected="exactly one", found=str(len(cells))
        )
    source = "".join(cells[0]["source"])
    lines = source.splitlines()
    out: dict[str, Declared] = {}
    for node in ast.parse(source).body:
        found = _declaration(node, lines)
        if found is None:
            raise DataError(
                f"notebook {name}: parameters, line {node.lineno}",
                expected="name: str|int|float|bool = a plain value",
                found=lines[node.lineno - 1].strip(),
            )
        out[found.name] = found
    return out


def _declaration(node: ast.stmt, lines: list[str]) -> Declared | None:
    if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None):
        return None
    if not (isinstance(node.annotation, ast.Name) and node.annotation.id in KINDS):
        return None
    try:
        default = ast.literal_eval(node.value)
    except ValueError:
        return None
    if not _fits(default, node.annotation.id):
        return None
    comment = lines[node.lineno - 1][node.end_col_offset or 0 :].strip().lstrip("# ")
    return Declared(
        node.target.id, node.annotation.id, default, default == "" and comment.startswith("required")
    )


def check_parameters(known: Mapping[str, Declared], given: Mapping[str, Any], name: str) -> dict[str, Scalar]:
    """The given parameters, once each is declared, of its type, finite, and none is missing.

    Raises:
        DataError: listing everything that is wrong.
    """
    wrong = []
    for key, value in given.items():
        if key not in known:
            hint = did_you_mean(key, known) or f"it declares {', '.join(known) or 'none'}"
            wrong.append(f"unknown parameter '{key}'; {hint}")
        elif not _fits(value, known[key].kind):
            wrong.append(
                f"'{key}': expected {known[key].kind}, found {type(value).__name__} {str(value)[:40]!r}"
            )
    missing = [p.name for p in known.values() if p.required and given.get(p.name, "") == ""]
    wrong += [f"'{key}' is required" for key in missing]
    if wrong:
        raise DataError(f"notebook {name}: " + "; ".join(wrong), do="Nothing was run.")
    return {key: float(value) if known[key].kind == "float" else value for key, value in given.items()}


def _fits(value: object, kind: str) -> bool:
    if kind == "float":
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is KINDS[kind]


def execute(
    notebook: Path,
    parameters: Mapping[str, Any],
    executed: Path,
    *,
    folder: Path,
    limits: Limits | None = None,
) -> None:
    """Run a notebook in a kernel of this interpreter, from its first to its last cell.

    Args:
        notebook: what to run; the file is not changed.
        parameters: values for its ``parameters`` cell.
        executed: where the notebook with its outputs goes, also when it fails.
        folder: the kernel's working folder.
        limits: how long it may take.

    Raises:
        DataError: the notebook or the parameters are refused; nothing was run.
        NotebookError: a cell failed, timed out or did not run; names the cell and the error's last line.
    """
    limits = limits or Limits()
    name = notebook.stem
    given = check_parameters(declared(read_notebook(notebook), name), parameters, name)
    executed.parent.mkdir(parents=True, exist_ok=True)
    problem = _run(notebook, given, executed, folder, limits)
    told, kind = (problem, "") if problem else _complaint(read_notebook(executed))
    if told:
        raised = NotebookError(f"notebook {name}: {told}", do=f"What it did is kept in {executed}.")
        ours = getattr(errors, kind, None)
        if isinstance(ours, type) and issubclass(ours, AiotkitError):
            raised.exit_code = ours.exit_code
        raise raised


def _run(notebook: Path, given: Mapping[str, Scalar], executed: Path, folder: Path, limits: Limits) -> str:
    """Run it; gives what went wrong outside of a cell's own code ('' = nothing)."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what matters is raised, in words
    ends_s = time.monotonic() + limits.notebook_s
    allowed = {"s": limits.cell_s}

    def seconds(_cell: object) -> float:
        allowed["s"] = max(0.001, min(limits.cell_s, ends_s - time.monotonic()))
        return allowed["s"]

    try:
        papermill.execute_notebook(
            notebook, executed, dict(given), kernel_name="python3", language="python", cwd=folder,
            progress_bar=False, start_timeout=limits.start_s, timeout_func=seconds,
            kernel_manager_class=_kernel_class(),
        )  # fmt: skip
    except PapermillExecutionError:
        return ""  # the cell's own outputs tell
    except CellTimeoutError:
        whole = allowed["s"] < limits.cell_s
        return (
            f"it took longer than {limits.notebook_s:g} s"
            if whole
            else f"a cell took longer than {limits.cell_s:g} s"
        ) + _where(executed)
    except DeadKernelError:
        return "its kernel died" + _where(executed)
    except RuntimeError as error:
        return f"its kernel did not start: {error}"
    return ""


def _kernel_class() -> type:
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        """A kernel of the interpreter that runs this, whatever kernels the user has installed."""

        def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
            flags = ["-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", self.connection_file]
            return [sys.executable, *flags, "--log-level=50", *(extra_arguments or [])]

    return ThisInterpreter


def _own_cells(notebook: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """(position in the notebook as written, cell) of every cell, with papermill's own under their place."""
    out, number = [], 0
    for cell in notebook["cells"]:
        tags = set(cell["metadata"].get("tags", ()))
        number += not tags & _ADDED
        if "papermill-error-cell-tag" not in tags:
            out.append((number, cell))
    return out


def _where(executed: Path) -> str:
    """The cell that was the last to begin."""
    if not executed.exists():
        return ""
    begun = [n for n, c in _own_cells(read_notebook(executed)) if c["metadata"]["papermill"]["start_time"]]
    return f" in cell {begun[-1]}" if begun else ""


def _complaint(notebook: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong with an executed notebook ('' = every cell ran and none left an error), kind of error."""
    for number, cell in _own_cells(notebook):
        if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
            continue
        left = [o for o in cell["outputs"] if o["output_type"] == "error"]
        if left:
            value = _COLOURS.sub("", str(left[0]["evalue"])).strip()
            line = (value.splitlines() or [""])[-1][:400]
            count = cell.get("execution_count")
            return f"cell {number} (In [{count}]): {left[0]['ename']}: {line}", str(left[0]["ename"])
        if cell.get("execution_count") is None:
            return f"cell {number} did not run, so the result is not complete", ""
    return "", ""
