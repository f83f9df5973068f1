"""Two small stages for tests of the machinery around stages; also run as a process that can be killed.

``python toy_stages.py WORK TABLE SECONDS here|notebook`` runs both in WORK; the second sleeps.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from aiotkit.release.runner import Limits
from aiotkit.release.stages import Done, Stage, only_run, run_stage, write_figures


def count(*, table: str, factor: int, out: str, sleep_s: float = 0.0, note: str = "") -> None:
    """Add the numbers of a JSON file and write the sum twice, with a pause between."""
    total = factor * sum(json.loads(Path(table).read_bytes()))
    Path(out, "sum.json").write_text(f"[{total}]")
    time.sleep(sleep_s)
    Path(out, "again.json").write_text(f"{total} {note}")
    write_figures(out, {"total": total})


def toy_notebook(path: Path, *, seals: bool = True) -> Path:
    """A notebook that calls ``count``."""
    parameters = [
        'table: str = ""  # required: numbers', "factor: int = 1", "sleep_s: float = 0.0", 'note: str = ""',
        'out: str = "x"',
    ]  # fmt: skip
    cells = [
        "\n".join(parameters),
        "import sys",
        f"sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\nfrom worlds.toy_stages import count\n"
        "count(table=table, factor=factor, sleep_s=sleep_s, note=note, out=out)",
        "from aiotkit.release.stages import seal\n" + ("seal(out)" if seals else "'nothing'"),
    ]
    made = [
        {
            "cell_type": "code", "id": f"c{i}", "metadata": {} if i else {"tags": ["parameters"]},
            "source": source, "outputs": [], "execution_count": None,
        }
        for i, source in enumerate(cells)
    ]  # fmt: skip
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    document = {"cells": made, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(document))
    return path


def stages(work: Path, table: Path, sleep_s: float = 0.0, factor: int = 2) -> list[Stage]:
    """10 reads the table, 20 reads what 10 gave."""
    page = work.parent / "toy.ipynb"
    page = page if page.exists() else toy_notebook(page)
    ways = {"notebook": page, "function": "worlds.toy_stages:count", "limits": Limits(60, 60)}
    return [
        Stage("10_first", output="first", settings={"factor": factor}, reads={"table": table}, **ways),  # type: ignore[arg-type]
        Stage(
            "20_second", output="second", settings={"factor": 1},
            reads={"table": work / "first" / "sum.json"}, uncounted={"sleep_s": sleep_s}, **ways,  # type: ignore[arg-type]
        ),
    ]  # fmt: skip


def run_both(work: Path, table: Path, sleep_s: float = 0.0, *, in_process: bool = True) -> list[Done]:
    """Both stages under the lock."""
    with only_run(work, "the toy"):
        return [run_stage(stage, work, in_process=in_process) for stage in stages(work, table, sleep_s)]


if __name__ == "__main__":
    run_both(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), in_process=sys.argv[4] == "here")
