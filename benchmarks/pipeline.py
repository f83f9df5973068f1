"""What running retraining as notebooks costs, and what a night without news costs.

The same plant, the same settings: once through the six notebooks in kernels, once by calling their
functions in one process, in turns, each from nothing. ``overhead_s`` is the difference of the medians. Then
the command is given again without anything having changed: ``unchanged_rerun_s``, from the start of the
process to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import arguments, interleave, report

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from worlds.small_plant import decision_file, small_lake  # noqa: E402 - tests/ is no package

COMMAND = "from aiotkit.cli.main import main; raise SystemExit(main())"
#: exit codes of a run that ended: the gates let the candidate pass, or refused it
ENDED = (0, 4)


class Runs:
    """The two arms; each run has a work folder and a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.status = folder, 0, ""
        small_lake(folder / "lake")
        decision_file(folder)

    def fresh(self, *options: str) -> float:
        """Retrain from nothing; gives seconds."""
        self.count += 1
        return self.again(*options)

    def again(self, *options: str) -> float:
        """Retrain in the folder of the run before; gives seconds."""
        words = [
            "run",
            "retrain",
            "--decision",
            "pump.yaml",
            "--lake",
            "lake",
            "--work",
            f"work-{self.count}",
        ]
        words += ["--families", "lda", "--recipe", "plain", "--json", *options]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        command = [sys.executable, "-c", COMMAND, *words]
        given = {"cwd": self.folder, "env": environment | {"OMP_NUM_THREADS": "1"}}
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, **given)
        seconds = time.perf_counter() - began
        if done.returncode not in ENDED:
            raise SystemExit(f"retraining ended with {done.returncode}: {done.stderr[-500:]}")
        self.status = str(json.loads(done.stdout)["status"])
        return seconds


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    repeats = 1 if options.quick else 5
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder))
        runs.fresh("--in-process")  # warm the file cache and compiled modules
        found = interleave(
            {"notebooks": runs.fresh, "in process": lambda: runs.fresh("--in-process")}, repeats
        )
        unchanged = [runs.again() for _ in range(max(3, repeats))]
        if runs.status != "unchanged":
            raise SystemExit("the second run of the same found something to do")
    notebooks, functions = (statistics.median(found[name]) for name in ("notebooks", "in process"))
    report(
        "pipeline",
        {"overhead_s": notebooks - functions, "unchanged_rerun_s": statistics.median(unchanged)},
        peers={"notebooks_s": notebooks, "in_process_s": functions},
        targets={"overhead_s": "≤ 36", "unchanged_rerun_s": "≤ 10"},
        notes={
            "method": f"medians of {repeats} interleaved runs from nothing: six stages, one family",
            "overhead_s": "six kernels: their start, imports of torch and pandas in each, figures",
        },
        options=options,
    )


if __name__ == "__main__":
    main(arguments(__doc__).parse_args())
