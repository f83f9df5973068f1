"""Run every benchmark beside this file and render what they found as one page.

``python benchmarks/run_all.py [--quick] [NAME …]`` runs the named ones (default: all), each in a process of
its own, and writes ``results/index.html`` from all result files there, old ones included. Exit code 1 when
one could not be run; a missed target is shown, not an error.
"""

from __future__ import annotations

import argparse
import html
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common import arguments

HERE = Path(__file__).parent
NOT_BENCHMARKS = {"common", "reference", "run_all"}
_TARGET = re.compile(r"([≤≥<>])\s*([\d.,]+)")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid #ddd } td.n { text-align: right }
.met { color: #17652f } .missed { color: #a3260f } small, figcaption { color: #666 } figure { margin: 1rem 0 }
"""


def names() -> list[str]:
    """Every benchmark beside this file."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NOT_BENCHMARKS)


def run(name: str, options: argparse.Namespace) -> int:
    """Run one benchmark; gives its exit code."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--results", str(options.results)]
    return subprocess.run([*command, *(["--quick"] if options.quick else [])], check=False).returncode


def share_of_target(value: float | None, target: str) -> tuple[float, bool] | None:
    """(value / target, whether the target is met), or None when there is nothing to compare."""
    found = _TARGET.search(target)
    if found is None or value is None:
        return None
    limit = float(found[2].replace(",", ""))
    met = {"≤": value <= limit, "<": value < limit, "≥": value >= limit, ">": value > limit}[found[1]]
    return value / limit, met


def page(results: list[Mapping[str, Any]]) -> str:
    """The whole page as HTML without outside parts."""
    body = "".join(section(result) for result in results)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>aiotkit benchmarks</title>"
        f"<style>{_STYLE}</style><h1>Benchmarks</h1><p>Every figure was measured beside its floor and peers "
        f"in one run. Compare ratios across machines, not times.</p>{body}</html>\n"
    )


def section(result: Mapping[str, Any]) -> str:
    """One benchmark: where it ran, its figures, a plot, its peers and notes."""
    machine = result["machine"]
    told = ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None)
    quick = " · quick: to see that it runs, not to be quoted" if result["quick"] else ""
    figures = "".join(row(k, v, result["targets"].get(k, "")) for k, v in result["figures"].items())
    peers = "".join(row(k, v, "") for k, v in result["peers"].items())
    notes = "".join(f"<li>{_e(k)}: {_e(v)}</li>" for k, v in result["notes"].items())
    return (
        f"<h2>{_e(result['name'])}</h2><small>{_e(result['date'])} · {_e(told)}{quick}</small>"
        f"<table><tr><th>figure<th>value<th>target</tr>{figures}</table>{plot(result)}"
        f"<details><summary>floors and peers</summary><table>{peers}</table></details><ul>{notes}</ul>"
    )


def row(name: str, value: float | None, target: str) -> str:
    """One line of a table."""
    share = share_of_target(value, target)
    kind = "" if share is None else " class='met'" if share[1] else " class='missed'"
    return f"<tr><td>{_e(name)}<td class='n'>{_number(value)}<td{kind}>{_e(target)}</tr>"


def plot(result: Mapping[str, Any]) -> str:
    """Each figure with a target as a bar of value / target, log scale, with a line at the target."""
    bars = list(_shares(result))
    if not bars:
        return ""
    reach = max(1.0, *(abs(math.log10(share)) for _, share, _ in bars))
    middle, width, step = 420, 220, 26
    marks = "".join(
        f"<text x='{middle - width - 10}' y='{step * i + 17}' text-anchor='end'>{_e(name)}</text>"
        f"<rect x='{middle + min(0.0, length):.1f}' y='{step * i + 5}' width='{abs(length):.1f}' height='15' "
        f"fill='{'#3b8f5a' if met else '#c8553d'}'/>"
        for i, (name, share, met) in enumerate(bars)
        for length in [math.log10(share) / reach * width]
    )
    height = step * len(bars) + 8
    return (
        f"<figure><svg viewBox='0 0 680 {height}' width='680' role='img' font-size='13'>{marks}"
        f"<line x1='{middle}' x2='{middle}' y1='0' y2='{height}' stroke='#222'/></svg>"
        f"<figcaption>Value over target, log scale, ±{reach:.2g} decades; the line is the target. "
        f"Green: met; red: missed.</figcaption></figure>"
    )


def _shares(result: Mapping[str, Any]) -> Iterator[tuple[str, float, bool]]:
    for name, value in result["figures"].items():
        share = share_of_target(value, result["targets"].get(name, ""))
        if share is not None and share[0] > 0:
            yield name, *share


def _number(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


def _e(text: object) -> str:
    return html.escape(str(text))


def main(options: argparse.Namespace) -> int:
    """Run, render, and say where the page is."""
    unknown = set(options.names) - set(names())
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(names())}")
    failed = [name for name in options.names or names() if run(name, options)]
    results = [json.loads(path.read_text()) for path in sorted(options.results.glob("*.json"))]
    target = options.results / "index.html"
    options.results.mkdir(parents=True, exist_ok=True)
    target.write_text(page(results))
    print(
        f"{target}: {len(results)} benchmarks" + (f"; could not run: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("names", nargs="*", help="which to run (default: all)")
    sys.exit(main(parser.parse_args()))
