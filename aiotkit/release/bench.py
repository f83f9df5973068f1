"""How long a graph takes and how much memory, on the computer this runs on.

Each variant is measured in a fresh process that holds nothing but numpy and onnxruntime, so that its peak
memory is its own: first the whole graph alone, then the head alone, then in turns with a reference graph,
because speeds are comparable only side by side. What is measured here is true here: run it on the target.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort

from aiotkit.core.canonical import JSON
from aiotkit.core.errors import BundleError

RUNS, WARM_UP = 400, 40
#: rounds in which graph and reference take turns
ROUNDS = 10
TIMEOUT_S = 300
#: names of the thread settings
ONE, ALL = "1", "all"


def bench(
    graph: bytes,
    *,
    head: bytes | None = None,
    reference: bytes | None = None,
    runs: int = RUNS,
    threads: Sequence[str] = (ONE, ALL),
) -> dict[str, JSON]:
    """Measure one graph, one row at a time.

    Args:
        graph: the whole graph.
        head: its head alone, measured too.
        reference: another whole graph; ``speedup`` is its time divided by this one's, in turns.
        runs: timed runs, after a tenth as many that do not count.
        threads: settings to measure: ``"1"``, ``"all"``.

    Returns:
        ``device``, ``runs``, ``warm_up``, ``size_bytes``, ``head_bytes`` and by setting in ``threads``:
        ``threads``, ``load_ms``, ``whole`` and ``head`` with ``p50_us``, ``p95_us``, ``p99_us``,
        ``peak_mb`` (of the process with the whole graph), ``floor_mb`` (without), ``speedup``.

    Raises:
        BundleError: the measuring process fails or does not end.
    """
    found: dict[str, JSON] = {}
    with tempfile.TemporaryDirectory() as folder:
        named = {"whole": graph, "head": head, "reference": reference}
        paths = {name: Path(folder) / f"{name}.onnx" for name, data in named.items() if data is not None}
        for name, path in paths.items():
            path.write_bytes(named[name] or b"")
        for setting in threads:
            n = 1 if setting == ONE else _cores()
            job = {"paths": {k: str(p) for k, p in paths.items()}, "threads": n, "runs": runs}
            found[setting] = _in_fresh_process(job)
    return {
        "device": device(),
        "runs": runs,
        "warm_up": max(1, runs // 10),
        "size_bytes": len(graph),
        "head_bytes": None if head is None else len(head),
        "threads": found,
    }


def device() -> dict[str, JSON]:
    """What it was measured on: processor, cores of this process, versions, load of the last minute."""
    return {
        "cpu": _cpu(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": _cores(),
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return named[0] if named else platform.processor() or platform.machine()


def _in_fresh_process(job: Mapping[str, JSON]) -> dict[str, JSON]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "aiotkit.release.bench"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError("bench: the graph does not finish", expected=f"{TIMEOUT_S} s at most") from error
    if done.returncode:
        tail = done.stderr.strip().splitlines()
        raise BundleError("bench: the graph cannot be measured", found=(tail or ["no words"])[-1][:200])
    measured: dict[str, JSON] = json.loads(done.stdout)
    return measured


def _measure(job: Mapping[str, Any]) -> dict[str, JSON]:
    """In the fresh process: memory and time of the whole graph first, before anything else is loaded."""
    paths, threads, runs = job["paths"], int(job["threads"]), int(job["runs"])
    floor = _peak_mb()
    started = perf_counter()
    whole = _Timed(paths["whole"], threads)
    load_ms = (perf_counter() - started) * 1e3
    timed = {"whole": whole.percentiles(runs)}
    found: dict[str, JSON] = {
        "threads": threads,
        "load_ms": load_ms,
        "peak_mb": _peak_mb(),
        "floor_mb": floor,
    }
    if "head" in paths:
        timed["head"] = _Timed(paths["head"], threads).percentiles(runs)
    if "reference" in paths:
        found["speedup"] = _speedup(whole, _Timed(paths["reference"], threads), runs)
    return found | timed


class _Timed:
    """A session with one row of input, and how long its runs take."""

    def __init__(self, path: str, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(3)
        self._feeds = {
            given.name: rng.normal(0, 1, [1, *given.shape[1:]]).astype(np.float32)
            for given in self._session.get_inputs()
        }

    def times(self, runs: int) -> list[float]:
        """Seconds of each run."""
        run, feeds, out = self._session.run, self._feeds, []
        for _ in range(runs):
            started = perf_counter()
            run(None, feeds)
            out.append(perf_counter() - started)
        return out

    def percentiles(self, runs: int) -> dict[str, float]:
        """µs; nearest rank."""
        self.times(max(1, runs // 10))
        ranked = sorted(self.times(runs))
        return {f"p{q}_us": ranked[min(len(ranked) - 1, len(ranked) * q // 100)] * 1e6 for q in (50, 95, 99)}


def _speedup(graph: _Timed, reference: _Timed, runs: int) -> float:
    """Median over rounds of the reference's median time over the graph's, taking turns."""
    each = max(5, runs // ROUNDS)
    reference.times(max(1, runs // 10))
    ratios = []
    for i in range(ROUNDS):
        pair = (reference, graph) if i % 2 else (graph, reference)
        spent = {id(one): float(np.median(one.times(each))) for one in pair}
        ratios.append(spent[id(reference)] / spent[id(graph)])
    return float(np.median(ratios))


def _peak_mb() -> float:
    """Largest resident memory of this process so far.

    Linux: ``VmHWM``, because ``ru_maxrss`` of a child begins at what its parent held when it was started.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    import resource

    scale = 1 << 20 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(json.load(sys.stdin))))
