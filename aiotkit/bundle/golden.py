"""Golden cases: inputs with the decisions they led to where the bundle was built.

They run on the device before a bundle is put into force: other processor, other kernels, same decisions,
or the bundle is refused. ``golden.json`` holds inputs and expectations, ``golden.bin`` the windows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from aiotkit.bundle.document import parse_document
from aiotkit.bundle.engine import Engine
from aiotkit.core.canonical import JSON, canonical_bytes, digest, plain
from aiotkit.core.decision import Decision
from aiotkit.core.errors import AiotkitError, GoldenError
from aiotkit.core.features import parse_statistic, unit_kind
from aiotkit.core.records import (
    Decided,
    DecisionInput,
    EngineState,
    input_from_json,
    input_to_json,
    pack_windows,
    unpack_windows,
)
from aiotkit.core.strict import Strict

RTOL = 1e-4
#: absolute slack as a share of the signal's range: what float32 sums in another order may differ by
SCALE_TOL = 1e-6
#: slack of a probability; of the novelty, of itself too
P_TOL = 1e-3
#: slack of log10 of a band's power: rounding noise shows where a band holds hardly any
LOG_TOL = 1e-3
#: crossings of the mean that may be counted otherwise: a sample within rounding of it makes two
_CROSSINGS = 2.5

Number = float | Literal["nan", "inf", "-inf"]


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """One input. ``after`` names an earlier case whose state it starts from; otherwise it starts afresh."""

    name: str
    given: DecisionInput
    after: str | None = None


class Expected(Strict):
    """What a case must lead to. Words and numbers of ``Decided``; ``features`` within their tolerance."""

    proposed: str | None
    verdict: str
    final: str | None
    in_force: str | None
    mode: str
    faults: tuple[str, ...]
    features: Mapping[str, Number]
    p: Mapping[str, Number] | None
    novelty: Number | None = None


class _Case(Strict):
    name: str
    given: Any = Field(alias="in")
    expected: Expected


class _Golden(Strict):
    format: Literal[1]
    atol: Mapping[str, NonNegativeFloat]
    windows: Mapping[str, tuple[NonNegativeInt, NonNegativeInt]]
    cases: tuple[_Case, ...] = Field(min_length=1)


def golden_files(files: Mapping[str, bytes], cases: Sequence[GoldenCase]) -> dict[str, bytes]:
    """``golden.json`` and ``golden.bin`` of a bundle's files: the cases, run once here.

    Args:
        files: ``decision.json``, ``interface.json`` and ``graph.onnx`` at least.
        cases: in an order in which every ``after`` comes before; names are distinct.
    """
    engine = Engine(files)
    states: dict[str, EngineState] = {}
    where: dict[str, tuple[int, int]] = {}
    packed: list[bytes] = []
    listed: list[JSON] = []
    for case in cases:
        if case.name in states:
            raise GoldenError(f"golden case '{case.name}' is there twice")
        state = EngineState() if case.after is None else states[case.after]
        window = pack_windows(case.given.windows)
        if digest(window) not in where:
            where[digest(window)] = (sum(map(len, packed)), len(window))
            packed.append(window)
        decided, _ = engine.decide(state, case.given)
        states[case.name] = decided.state
        listed.append(
            {
                "name": case.name,
                "in": input_to_json(case.given, state, digest(window)),
                "expected": _essentials(decided),
            }
        )
    document = {
        "format": 1,
        "atol": {n: feature_slack(engine.decision, n) for n in engine.interface.features},
        "windows": where,
        "cases": listed,
    }
    return {"golden.json": canonical_bytes(document), "golden.bin": b"".join(packed)}


def feature_slack(decision: Decision, name: str) -> float:
    """What a feature may differ by between processors, besides ``RTOL`` of itself.

    A share ``SCALE_TOL`` of its magnitude: its signal's largest believable value, per second where it is a
    slope, 1 where it has no unit (or the graph made up the name). Logarithms of power and counts of
    crossings have their own.
    """
    signal, _, word = name.partition(".")
    parsed = parse_statistic(word)
    if parsed is None:
        return SCALE_TOL
    if parsed.part is not None:
        return LOG_TOL
    parts = 1 if parsed.segment is None else parsed.segment[1]
    if parsed.base == "zcr":
        return _CROSSINGS / max(1, decision.samples(signal) // parts - 1)
    magnitude = max(abs(limit) for limit in decision.signals[signal].range)
    scales = {"same": magnitude, "per_s": magnitude * parts / decision.window.length_s}
    return SCALE_TOL * scales.get(unit_kind(word), 1.0)


def run_golden(engine: Engine, files: Mapping[str, bytes]) -> int:
    """Run a bundle's golden cases here; how many there were.

    Raises:
        GoldenError: the files are damaged, or a case is decided differently; names the case and what differs.
    """
    for name in ("golden.json", "golden.bin"):
        if name not in files:
            raise GoldenError(f"bundle: '{name}' is missing")
    golden = parse_document(files["golden.json"], _Golden, "golden.json", GoldenError)
    for case in golden.cases:
        try:
            given, state = _input_of(case, golden, files["golden.bin"])
            decided, _ = engine.decide(state, given)
        except (AiotkitError, KeyError, ValueError, TypeError) as error:
            raise GoldenError(f"golden case '{case.name}' cannot be run", found=repr(error)) from error
        _compare(case, Expected.model_validate(_essentials(decided)), golden.atol)
    return len(golden.cases)


def _input_of(case: _Case, golden: _Golden, blob: bytes) -> tuple[DecisionInput, EngineState]:
    start, size = golden.windows[case.given["window"]]
    window = blob[start : start + size]
    if digest(window) != case.given["window"]:
        raise GoldenError("golden.bin: a window differs from its digest")
    return input_from_json(case.given, unpack_windows(window))


def _essentials(decided: Decided) -> JSON:
    novelty = {} if decided.novelty is None else {"novelty": plain(decided.novelty)}
    return novelty | {
        "proposed": decided.proposed,
        "verdict": decided.verdict.name,
        "final": decided.final,
        "in_force": decided.in_force,
        "mode": decided.mode,
        "faults": sorted(decided.faults),
        "features": {name: plain(value) for name, value in decided.features.items()},
        "p": None if decided.p is None else {name: plain(value) for name, value in decided.p.items()},
    }


def _compare(case: _Case, found: Expected, atol: Mapping[str, float]) -> None:
    expected = case.expected
    for what in ("proposed", "verdict", "final", "in_force", "mode", "faults"):
        wanted, got = getattr(expected, what), getattr(found, what)
        if wanted != got:
            raise _differs(case.name, what, wanted, got)
    _compare_numbers(case.name, "features", expected.features, found.features, RTOL, atol)
    for what, wanted, got, rtol in (
        ("p", expected.p, found.p, 0.0),
        ("novelty", _named(expected.novelty), _named(found.novelty), P_TOL),
    ):
        if wanted is not None and got is not None:
            _compare_numbers(case.name, what, wanted, got, rtol, dict.fromkeys(wanted, P_TOL))
        elif wanted is not got:
            raise _differs(case.name, what, wanted, got)


def _named(novelty: Number | None) -> Mapping[str, Number] | None:
    return None if novelty is None else {"window": novelty}


def _compare_numbers(
    case: str,
    what: str,
    expected: Mapping[str, Number],
    found: Mapping[str, Number],
    rtol: float,
    atol: Mapping[str, float],
) -> None:
    if expected.keys() != found.keys():
        raise _differs(case, what, sorted(expected), sorted(found))
    for name, number in expected.items():
        wanted, got = float(number), float(found[name])
        same = wanted == got or (math.isnan(wanted) and math.isnan(got))
        if not same and not abs(wanted - got) <= rtol * abs(wanted) + atol.get(name, 0.0):
            raise _differs(case, f"{what}.{name}", wanted, got)


def _differs(case: str, what: str, expected: object, found: object) -> GoldenError:
    return GoldenError(
        f"golden case '{case}': {what}",
        expected=f"{expected!r} as where the bundle was built",
        found=f"{found!r} here",
        do="This bundle decides differently on this hardware; build it for it.",
    )
