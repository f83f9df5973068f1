"""What all benchmarks share: the machine's description, interleaved arms, the result file.

A script is ``benchmarks/NAME.py [--quick]``; it prints a table and writes ``benchmarks/results/NAME.json``:
``{"name", "figures", "peers", "machine", "date", "quick", "notes"}``. A figure that could not be measured is
``None`` with its reason in ``notes``. Speeds are compared as ratios, measured side by side in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
FIXTURES = Path(__file__).parent / "fixtures"
Figure = float | int | None


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with ``--quick`` and ``--results``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer repeats: to see that it runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON file")
    return parser


def machine() -> dict[str, str | int | None]:
    """CPU, cores this process may use, versions, frequency governor (``None`` = not told), load."""
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": _cpu(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "onnxruntime": _version("onnxruntime"),
        "governor": governor.read_text().strip() if governor.exists() else None,
        "load_1min": f"{os.getloadavg()[0]:.2f}",
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def interleave(arms: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Measure arms in turns, ``repeats`` rounds, each round beginning with another arm.

    Args:
        arms: name -> a call that does one measurement and returns its figure.
        repeats: rounds.

    Returns:
        name -> the figures in order of rounds.
    """
    names = list(arms)
    found: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(repeats):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            found[name].append(arms[name]())
            progress(f"round {round_ + 1}/{repeats}: {name}")
    progress("")
    return found


def median_ratio(of: Sequence[float], over: Sequence[float]) -> float:
    """Median of the round-by-round ratios of two interleaved arms."""
    return statistics.median(a / b for a, b in zip(of, over, strict=True))


def percentiles(values: Sequence[float], *, unit: str) -> dict[str, float]:
    """``p50_UNIT``, ``p95_UNIT``, ``p99_UNIT`` and ``max_UNIT``; nearest rank."""
    ranked = sorted(values)

    def at(q: float) -> float:
        return ranked[min(len(ranked) - 1, int(q * len(ranked)))]

    return {
        f"p50_{unit}": at(0.50),
        f"p95_{unit}": at(0.95),
        f"p99_{unit}": at(0.99),
        f"max_{unit}": ranked[-1],
    }


def progress(text: str) -> None:
    """One line that overwrites itself, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def report(
    name: str,
    figures: Mapping[str, Figure],
    *,
    peers: Mapping[str, Any],
    targets: Mapping[str, str],
    notes: Mapping[str, str],
    options: argparse.Namespace,
) -> Path:
    """Print the table and write the result file.

    Args:
        name: the benchmark's name.
        figures: figure -> number; ``None`` needs a reason in ``notes``.
        peers: floors and peers of the same run.
        targets: figure -> the target in words, for the table.
        notes: remarks by figure or subject.
        options: what ``arguments`` parsed.

    Returns:
        The path of the file.
    """
    unexplained = [key for key, value in figures.items() if value is None and key not in notes]
    if unexplained:
        raise ValueError(f"figures without a number need a reason in notes: {', '.join(unexplained)}")
    print(f"{name}{' (quick)' if options.quick else ''}")
    for key, value in figures.items():
        print(f"  {key:<28} {_text(value):>14}   {targets.get(key, '')}".rstrip())
    for key, value in peers.items():
        print(f"    {key:<40} {_text(value)}")
    for key, why in notes.items():
        print(f"  {key}: {why}")
    result = {
        "name": name,
        "figures": {key: _rounded(value) for key, value in figures.items()},
        "peers": {key: _rounded(value) for key, value in peers.items()},
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "quick": options.quick,
        "targets": dict(targets),
        "notes": dict(notes),
    }
    options.results.mkdir(parents=True, exist_ok=True)
    path: Path = options.results / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    return path


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _text(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
