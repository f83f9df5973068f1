"""What judging a proposed action costs.

One gate with six terms over finite values, as a device evaluates it at every decision. Beside it in the same
run, in turns: Python's ``eval`` of the same expression, compiled before (the floor: it neither checks its
values nor says why, and allows on NaN), and a CEL interpreter where one is installed. Then what a refusal
with its words costs, six gates of one term each, and a timed term.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

from common import arguments, interleave, median_ratio, report

from aiotkit.core.gates import Gate, GateKeeper, Verdict

VALUES = {
    "vib.rms": 4.2,
    "vib.kurtosis": 3.1,
    "oil.mean": 61.0,
    "history.trend": 0.0002,
    "context.load": 73.0,
    "context.mode": "run",
}
TERMS = [
    {"field": "vib.rms", "lt": 7.1},
    {"field": "vib.kurtosis", "le": 6},
    {"field": "oil.mean", "between": [10, 90]},
    {"field": "history.trend", "lt": 0.01},
    {"field": "context.load", "ge": 20},
    {"field": "context.mode", "in": ["run", "setup"]},
]
EXPRESSION = (
    "v['vib.rms'] < 7.1 and v['vib.kurtosis'] <= 6 and 10 <= v['oil.mean'] <= 90 "
    "and v['history.trend'] < 0.01 and v['context.load'] >= 20 and v['context.mode'] in ('run', 'setup')"
)
CEL = (
    "v['vib.rms'] < 7.1 && v['vib.kurtosis'] <= 6.0 && v['oil.mean'] >= 10.0 && v['oil.mean'] <= 90.0 "
    "&& v['history.trend'] < 0.01 && v['context.load'] >= 20.0 && v['context.mode'] in ['run', 'setup']"
)


def judging(gates: list[dict[str, object]], values: dict[str, object]) -> Callable[[], Verdict]:
    """A call that judges once, as the engine does, with the memory of the last time."""
    keeper = GateKeeper([Gate.model_validate(gate) for gate in gates])
    memory: dict[str, object] = {}

    def once() -> Verdict:
        nonlocal memory
        ruling = keeper.judge("slow", values, memory, (), 1.7e9, is_change=True)
        memory = dict(ruling.memory)
        return ruling.verdict

    return once


def evaluating() -> Callable[[], bool]:
    """Python's ``eval`` of the same."""
    code = compile(EXPRESSION, "gate", "eval")
    scope = {"__builtins__": {}, "v": VALUES}
    return lambda: bool(eval(code, scope))


def interpreting() -> Callable[[], bool] | None:
    """A CEL interpreter, where one is installed."""
    if importlib.util.find_spec("celpy") is None:
        return None
    import celpy

    environment = celpy.Environment()
    program = environment.program(environment.compile(CEL))
    given = {"v": celpy.json_to_cel(VALUES)}
    return lambda: bool(program.evaluate(given))


def microseconds(call: Callable[[], object], times: int) -> Callable[[], float]:
    """A measurement: mean µs of a call over ``times`` calls."""

    def once() -> float:
        start = time.perf_counter()
        for _ in range(times):
            call()
        return (time.perf_counter() - start) / times * 1e6

    return once


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    six = [{"name": "all", "require": {"all": TERMS}}]
    hot = VALUES | {"oil.mean": 95.0}
    timed = [{"name": "late", "require": {"field": "oil.mean", "lt": 90, "deadband": 2, "off_delay_s": 30}}]
    calls: dict[str, Callable[[], object]] = {
        "six terms": judging(six, VALUES),
        "eval": evaluating(),
        "six terms refused": judging(six, hot),
        "six gates": judging([{"name": f"g{i}", "require": t} for i, t in enumerate(TERMS)], VALUES),
        "timed term": judging(timed, VALUES),
    }
    cel = interpreting()
    if cel is not None:
        calls["cel"] = cel
    assert calls["six terms"]() is Verdict.ALLOW
    assert calls["eval"]() is True
    assert calls["six terms refused"]() is Verdict.HOLD
    assert calls["six gates"]() is Verdict.ALLOW
    assert cel is None or cel() is True
    times, repeats = (500, 5) if options.quick else (5000, 25)
    for call in calls.values():  # warm-up
        microseconds(call, times)()
    found = interleave({name: microseconds(call, times) for name, call in calls.items()}, repeats)
    median = {name: statistics.median(values) for name, values in found.items()}
    report(
        "gates",
        {
            "six_terms_us": median["six terms"],
            "over_eval": median_ratio(found["six terms"], found["eval"]),
            "refused_us": median["six terms refused"],
            "six_gates_us": median["six gates"],
            "timed_term_us": median["timed term"],
        },
        peers={"eval_us": median["eval"], "cel_us": median.get("cel")},
        targets={"six_terms_us": "≤ 5"},
        notes={
            "method": f"one thread; medians of {repeats} interleaved rounds of {times} calls",
            "eval": "no checks, no words, and it allows on NaN under 'not'",
        }
        | ({} if cel else {"cel": "not installed: pip install cel-python"}),
        options=options,
    )


if __name__ == "__main__":
    main(arguments(__doc__).parse_args())
