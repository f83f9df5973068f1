"""Which variant of a head goes into the bundle: judged by the decisions it changes, then by what it saves.

A variant in integers replaces float32 only where it changes few enough decisions, loses no money, and is
faster or smaller *here*; "neither" is a reason to reject it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aiotkit.bundle.interface import FEATURES, PROBABILITIES
from aiotkit.bundle.tuned import tuned
from aiotkit.core.canonical import JSON
from aiotkit.core.decision import Decision
from aiotkit.core.errors import BundleError
from aiotkit.core.features import NOVELTY
from aiotkit.lab.evaluate import money_per_subject_day
from aiotkit.lab.judge import actions_of, money_of
from aiotkit.release.bench import ONE, RUNS, bench
from aiotkit.release.evidence import Row
from aiotkit.release.export import Exported
from aiotkit.release.parity import open_session, run_graph
from aiotkit.release.quantize import FLOAT32, Variant

if TYPE_CHECKING:
    from aiotkit.lab.examples import Examples

#: share of decisions a variant may change where the decision file sets no limit
FLIPS_SHARE = 0.005
#: share of float32's money that a variant may lose
MONEY_SHARE = 0.01
#: how much faster counts as faster: less is within what a busy computer's clocks say by chance
FASTER = 1.2
#: at most this share of the whole graph's bytes counts as smaller
SMALLER = 0.9


@dataclass(frozen=True, slots=True)
class Measured:
    """A variant with what was found about it.

    Attributes:
        variant: of the head.
        bench: what ``bench`` measured; empty where it is not applicable.
        flips_share: share of the known rows whose action differs from float32's.
        money_lost: per subject-day against float32; None where costs are unknown.
        usable: whether it may be released.
        words: why, or why not.
    """

    variant: Variant
    bench: Mapping[str, JSON]
    flips_share: float | None
    money_lost: float | None
    usable: bool
    words: str

    def row(self) -> Row:
        """One line of the quantization table."""
        one = self.bench["threads"][ONE] if self.bench else {}
        return {
            "variant": self.variant.name,
            "usable": self.usable,
            "flips_share": self.flips_share,
            "money_lost": self.money_lost,
            "speedup": one.get("speedup"),
            "p50_us": one.get("whole", {}).get("p50_us"),
            "p99_us": one.get("whole", {}).get("p99_us"),
            "head_p50_us": one.get("head", {}).get("p50_us"),
            "peak_mb": one.get("peak_mb"),
            "size_bytes": self.bench.get("size_bytes"),
            "why": self.words,
        }


def measure(
    variants: Sequence[Variant], examples: Examples, decision: Decision, *, runs: int = RUNS
) -> list[Measured]:
    """Measure every variant on this computer and on the rows whose state is known.

    Args:
        variants: float32 first, as ``quantize.variants`` gives them.
        examples: whose known rows are decided with each variant, at the margin that training measured.
        decision: its costs and limits.
        runs: timed runs of each.

    Raises:
        BundleError: float32 is not there or cannot be run.
    """
    if not variants or variants[0].name != FLOAT32 or variants[0].exported is None:
        raise BundleError("variants", expected="float32 first", found=str([v.name for v in variants]))
    known = examples.known()
    base = variants[0].exported
    told = decide_with(base, known, decision)
    out: list[Measured] = []
    for variant in variants:
        if variant.exported is None:
            out.append(Measured(variant, {}, None, None, usable=False, words=variant.note))
            continue
        found = bench(variant.exported.graph, head=variant.exported.head, reference=base.graph, runs=runs)
        mine = told if variant is variants[0] else decide_with(variant.exported, known, decision)
        out.append(_judged(variant, found, mine, told, decision, out[0] if out else None))
    return out


@dataclass(frozen=True, slots=True)
class _Told:
    """What a variant says of the known rows: actions, or states where costs are unknown."""

    said: NDArray[np.object_]
    money: float | None


def decide_with(exported: Exported, known: Examples, decision: Decision) -> _Told:
    """Run a head over rows whose state is known, and decide with its margin."""
    if not len(known):
        return _Told(np.empty(0, dtype=object), None)
    found = predict(exported, known)
    p, novelty = found[PROBABILITIES], found.get(NOVELTY)
    order = [exported.interface.states.index(state) for state in decision.states]
    if isinstance(decision.costs, str):
        return _Told(np.array(list(decision.states), dtype=object)[p[:, order].argmax(axis=1)], None)
    said = actions_of(p[:, order], tuned(decision, exported.margin), novelty)
    return _Told(said, money_per_subject_day(money_of(known.rows, said, decision)))


def predict(exported: Exported, examples: Examples) -> dict[str, NDArray[np.float32]]:
    """The head's outputs on examples: ``p`` ``[rows, states]`` and, if any, ``novelty`` ``[rows, 1]``."""
    session = open_session(exported.head, "head")
    names = {i.name for i in session.get_inputs()}
    feeds: dict[str, Any] = {
        name: np.asarray(values, dtype=np.float32)
        for name, values in examples.windows.items()
        if name in names
    }
    if exported.columns:
        feeds[FEATURES] = examples.with_columns(exported.columns).x
    missing = sorted(names - set(feeds))
    if missing:
        raise BundleError(
            f"head '{exported.family}': reads raw windows",
            found=f"examples without windows of {', '.join(missing)}",
            do="Assemble the examples with windows=True.",
        )
    return run_graph(session, feeds, f"head '{exported.family}'")


def _judged(
    variant: Variant,
    found: Mapping[str, JSON],
    mine: _Told,
    base: _Told,
    decision: Decision,
    first: Measured | None,
) -> Measured:
    if first is None:
        return Measured(variant, found, 0.0, 0.0, usable=True, words="the reference")
    if not len(base.said):
        words = "rejected: too little data to say which decisions it changes"
        return Measured(variant, found, None, None, usable=False, words=words)
    flips = float((mine.said != base.said).mean())
    lost = None if mine.money is None or base.money is None else mine.money - base.money
    allowed = FLIPS_SHARE if decision.limits.flips_share is None else decision.limits.flips_share
    speedup = float(found["threads"][ONE]["speedup"])
    size = found["size_bytes"] / first.bench["size_bytes"]
    faults = []
    if not flips <= allowed:
        faults.append(f"changes {flips:.2%} of the decisions, {allowed:.2%} allowed")
    if lost is not None and base.money is not None and not lost <= MONEY_SHARE * abs(base.money):
        faults.append(f"loses {lost:.4g} {decision.currency} per subject-day")
    if speedup < FASTER and size > SMALLER:
        faults.append(f"neither faster ({speedup:.2f} ×) nor smaller ({size:.0%}) here")
    words = "rejected: " + "; ".join(faults) if faults else f"{speedup:.2f} × as fast, {size:.0%} of the size"
    return Measured(variant, found, flips, lost, usable=not faults, words=words)


def choose(measured: Sequence[Measured], decision: Decision) -> Measured:
    """The variant to release: float32, unless a usable one is clearly faster, or alone keeps the limits.

    Args:
        measured: float32 first.
        decision: its limits of latency and memory.
    """
    usable = [m for m in measured if m.usable]
    fitting = [m for m in usable if within_limits(m.bench, decision)] or usable[:1]
    base = fitting[0]
    faster = [m for m in fitting if m.bench["threads"][ONE]["speedup"] >= FASTER]
    if base.variant.name != FLOAT32 or not faster:
        return base
    return max(faster, key=lambda m: float(m.bench["threads"][ONE]["speedup"]))


def within_limits(found: Mapping[str, JSON], decision: Decision) -> bool:
    """Whether what was measured on one thread keeps the deadline and the declared limits."""
    one = found["threads"][ONE]
    latency = min(decision.needs.deadline_ms, decision.limits.latency_p99_ms or np.inf)
    memory = decision.limits.memory_mb or np.inf
    return bool(one["whole"]["p99_us"] / 1e3 <= latency and one["peak_mb"] <= memory)
