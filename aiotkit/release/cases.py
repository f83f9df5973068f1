"""Golden cases from a decision file alone: the same file gives the same cases, everywhere.

Ordinary windows; windows whose features lie one percent to either side of every limit that rule and
gates name (bands of a spectrum and words of one's own excepted); bad samples, missing and stale context;
what people may say; for a model, every word of its context and both ends of its numbers. Cases keep clear of
the limits themselves, and of ties between actions: there another processor's last digit may rightly decide
otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aiotkit.bundle.golden import GoldenCase
from aiotkit.core.conditions import Term, walk
from aiotkit.core.decision import Context, Decision, Signal
from aiotkit.core.features import BANDED, OWN, Statistic, is_feature, parse_statistic
from aiotkit.core.records import DecisionInput, OperatorInput, Reading

#: Monday 2026-01-05 09:00 UTC
START_US = 1_767_603_600_000_000
MAX_CASES = 48
MIN_CASES = 16
MAX_WINDOW_BYTES = 4 << 20
#: how far from a limit cases lie, as a share of it
MARGIN = 0.01

Array = NDArray[np.float32]
_QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


def golden_cases(
    decision: Decision, max_cases: int = MAX_CASES, *, model: bool = False
) -> tuple[GoldenCase, ...]:
    """Cases for a decision, at most ``max_cases``; fewer (down to ``MIN_CASES``) where windows are large.

    Args:
        decision: what is to be decided.
        max_cases: the most there may be, those for a model not counted.
        model: add cases for a graph that reads context, at most a third more. Windows like those of training
            are the caller's to add: what is made up here is noise to a model.
    """
    maker = _Maker(decision)
    size = 4 * sum(decision.samples(name) for name in decision.signals)
    room = max(MIN_CASES, min(max_cases, MAX_WINDOW_BYTES // size))
    families = [list(family) for family in (maker.ordinary(), maker.bad(), maker.people(), maker.limits())]
    kept = [family[: room // 4] for family in families[:3]]
    kept.append(families[3][: room - sum(map(len, kept))])
    kept.append(list(maker.contexts())[: room // 3] if model else [])
    named = {case.name: case for family in kept for case in family}
    return tuple(named.values())


@dataclass(slots=True)
class _Maker:
    decision: Decision

    def _rng(self, name: str) -> np.random.Generator:
        word = hashlib.sha256(f"{self.decision.digest}|{name}".encode()).digest()
        return np.random.default_rng(int.from_bytes(word[:8], "big"))

    def _case(self, name: str, at_s: float = 0.0, after: str | None = None) -> GoldenCase:
        rng = self._rng(name)
        now_us = START_US + round(at_s * 1e6)
        windows = {n: _ordinary(rng, s, self.decision.samples(n)) for n, s in self.decision.signals.items()}
        context = {n: _reading(rng, c) for n, c in self.decision.context.items()}
        return GoldenCase(name, DecisionInput(f"golden/0/{name}", now_us, now_us, windows, context), after)

    def ordinary(self) -> Iterator[GoldenCase]:
        """Four windows in a row, and one twelve hours later."""
        every = self.decision.window.every_s
        for i in range(4):
            yield self._case(f"ordinary-{i}", i * every, f"ordinary-{i - 1}" if i else None)
        yield self._case("twelve-hours-later", 12 * 3600.0, "ordinary-3")

    def bad(self) -> Iterator[GoldenCase]:
        """Samples and context that must not be believed."""
        for name, signal in self.decision.signals.items():
            case = self._case(f"nan-{name}")
            yield _with_window(case, name, np.full_like(case.given.windows[name], np.nan))
            case = self._case(f"beyond-{name}")
            beyond = signal.range[1] + (signal.range[1] - signal.range[0])
            yield _with_window(case, name, np.full_like(case.given.windows[name], beyond))
        for name, context in self.decision.context.items():
            yield _with_reading(self._case(f"missing-{name}"), name, None)
            case = self._case(f"stale-{name}")
            yield _with_reading(
                case, name, Reading(case.given.context[name].value, 2 * context.max_age_s + 1)
            )

    def people(self) -> Iterator[GoldenCase]:
        """Bypass, dry run, and an order for every action."""
        for name, operator in (
            ("bypass", OperatorInput(bypass=True)),
            ("dry-run", OperatorInput(dry_run=True)),
            *((f"order-{action}", OperatorInput(override=action)) for action in self.decision.actions),
        ):
            case = self._case(name)
            yield replace(case, given=replace(case.given, operator=operator))

    def contexts(self) -> Iterator[GoldenCase]:
        """No context at all, every word of it, both ends of its numbers; each with a past."""
        at_s = 4 * self.decision.window.every_s
        if self.decision.context:
            case = self._case("context-unknown", at_s, "ordinary-3")
            yield replace(case, given=replace(case.given, context={}))
        for name, declared in self.decision.context.items():
            ends = zip(("lowest", "highest"), declared.range or (), strict=False)
            words: list[tuple[str, float | str]] = [(f"is-{v}", v) for v in declared.values or ()]
            for what, value in (*words, *ends):
                case = self._case(f"context-{name}-{what}", at_s, "ordinary-3")
                yield _with_reading(case, name, Reading(value, 0.0))

    def limits(self) -> Iterator[GoldenCase]:
        """Either side of every limit; where timing counts, twice in a row."""
        for term in self._terms():
            timed = bool(term.deadband or term.on_delay_s or term.off_delay_s)
            for limit in _limits(term):
                for side, sign in (("below", -1), ("above", 1)):
                    near = list(self._near(term.field, limit, side, sign))
                    yield from near if timed else near[:1]
            for choice in term.in_ or term.not_in or ():
                yield from self._chosen(term.field, choice)

    def _terms(self) -> list[Term]:
        roots = [b.when for b in self.decision.rule if b.when is not None]
        roots += [g.require for g in self.decision.gates if g.require is not None]
        terms = [node for root in roots for node, _ in walk(root) if isinstance(node, Term)]
        by_limit = {(t.field, t.comparison, _limits(t), t.in_ or t.not_in): t for t in terms}
        return list(by_limit.values())

    def _near(self, field: str, limit: float, side: str, sign: int) -> Iterator[GoldenCase]:
        name = f"{field}-{side}-{limit:g}"
        scope, _, what = field.partition(".")
        every = self.decision.window.every_s
        first = self._case(name, 4 * every, "ordinary-3")
        if is_feature(field):
            signal = self.decision.signals[scope]
            rate = self.decision.samples(scope) / self.decision.window.length_s
            statistic = parse_statistic(what)
            assert statistic is not None
            window = first.given.windows[scope].copy()
            start, stop = _stretch(statistic, window.size)
            counted = statistic.base == "zcr"  # six crossings more or less, whatever the signal's range
            margin = _margin(limit, (0, 60 / MARGIN / (stop - start)) if counted else signal.range)
            target = limit + sign * margin
            shaped = _shaped(self._rng(name), signal, stop - start, rate, statistic.base, target)
            if shaped is None:
                return
            window[start:stop] = shaped
            first = _with_window(first, scope, window)
        elif scope == "context" and what in self.decision.context:
            declared = self.decision.context[what]
            target = limit + sign * _margin(limit, declared.range or (0.0, 1.0))
            first = _with_reading(first, what, Reading(target, 0.0))
        else:
            return
        yield first
        later_us = START_US + round(5 * every * 1e6)
        given = replace(first.given, seed=f"golden/0/{name}-again", now_us=later_us, window_end_us=later_us)
        yield GoldenCase(f"{name}-again", given, name)

    def _chosen(self, field: str, choice: str | bool | float) -> Iterator[GoldenCase]:
        scope, _, what = field.partition(".")
        if scope == "context" and what in self.decision.context and isinstance(choice, str):
            case = self._case(f"{field}-is-{choice}", 4 * self.decision.window.every_s, "ordinary-3")
            yield _with_reading(case, what, Reading(choice, 0.0))


def _with_window(case: GoldenCase, signal: str, values: Array) -> GoldenCase:
    windows = {**case.given.windows, signal: values.astype(np.float32)}
    return replace(case, given=replace(case.given, windows=windows))


def _with_reading(case: GoldenCase, name: str, reading: Reading | None) -> GoldenCase:
    context = {n: r for n, r in case.given.context.items() if n != name}
    if reading is not None:
        context[name] = reading
    return replace(case, given=replace(case.given, context=context))


def _stretch(statistic: Statistic, n: int) -> tuple[int, int]:
    """Where the part of a window of ``n`` samples lies that a statistic is taken of."""
    j, k = statistic.segment or (1, 1)
    return (2 * (j - 1) * n + k) // (2 * k), (2 * j * n + k) // (2 * k)


def _limits(term: Term) -> tuple[float, ...]:
    single = [x for x in (term.gt, term.ge, term.lt, term.le) if x is not None]
    return (*single, *(term.between or ()))


def _margin(limit: float, span: tuple[float, float]) -> float:
    return max(MARGIN * abs(limit), MARGIN / 10 * (span[1] - span[0]))


def _ordinary(rng: np.random.Generator, signal: Signal, n: int) -> Array:
    """Noise of one percent of the range around its middle."""
    low, high = signal.range
    middle = low + (high - low) * rng.uniform(0.48, 0.52)
    return (middle + (high - low) / 100 * rng.standard_normal(n)).clip(low, high).astype(np.float32)


def _reading(rng: np.random.Generator, context: Context) -> Reading:
    if context.values is not None:
        return Reading(context.values[0], round(context.max_age_s / 10, 3))
    low, high = context.range or (0.0, 1.0)
    middle = low + (high - low) * rng.uniform(0.4, 0.6)
    return Reading(round(float(middle), 3), round(context.max_age_s / 10, 3))


def _shaped(
    rng: np.random.Generator, signal: Signal, n: int, rate_hz: float, statistic: str, target: float
) -> Array | None:
    """A window whose statistic is near ``target``, as far as the range allows; None where none can be."""
    if statistic in BANDED or statistic.startswith(OWN):
        return None
    low, high = signal.range
    noise = rng.standard_normal(n)
    noise = noise - noise.mean()
    if n > 1:
        noise /= noise.std()
    if statistic in ("kurtosis", "crest") and n > 1:
        x: NDArray[np.float64] | None = _spiked(noise, statistic, target)
        assert x is not None
        middle, reach = ((low + high) / 2, (high - low) / 2) if statistic == "kurtosis" else (0.0, high)
        x = middle + 0.9 * reach / np.abs(x).max() * x
    else:
        x = _build(noise, statistic, target, (low + high) / 2, rate_hz, positive=low >= 0)
    return None if x is None else x.clip(low, high).astype(np.float32)


def _build(
    z: NDArray[np.float64], statistic: str, target: float, middle: float, rate_hz: float, *, positive: bool
) -> NDArray[np.float64] | None:
    if statistic in ("mean", "min", "max", "last"):
        x = z * 0.001 * max(abs(target), 1e-3)
        now = {"mean": x.mean(), "min": x.min(), "max": x.max(), "last": x[-1]}[statistic]
        return np.asarray(x + (target - now))
    if statistic in _QUANTILES:
        x = z * 0.001 * max(abs(target), 1e-3)
        return np.asarray(x + (target - np.quantile(x, _QUANTILES[statistic])))
    if z.size == 1:
        return np.array([target]) if statistic == "rms" else None
    if statistic == "rms":
        shape = 1 + 0.01 * z if positive else z
        return np.asarray(shape * (target / np.sqrt(np.square(shape).mean())))
    if statistic == "std":
        return middle + z * target
    if statistic == "p2p":
        return middle + z * (target / np.ptp(z))
    if statistic == "zcr":
        crossings = np.floor(np.arange(z.size) * target)
        return middle + 0.01 * max(abs(middle), 1.0) * np.where(crossings % 2 == 0, 1.0, -1.0)
    assert statistic == "slope"
    t = (np.arange(z.size) - (z.size - 1) / 2) / rate_hz
    return np.asarray(middle + target * t)


def _spiked(z: NDArray[np.float64], statistic: str, target: float) -> NDArray[np.float64]:
    """Noise with one spike of the size that brings kurtosis or crest nearest to the target."""
    best, nearest = z, np.inf
    for spike in np.geomspace(0.1, 100.0, 400):
        x = np.clip(z, -1.0, 1.0)
        x[0] = spike
        d = x - x.mean()
        kurtosis = np.power(d, 4).mean() / np.square(np.square(d).mean())
        crest = np.abs(x).max() / np.sqrt(np.square(x).mean())
        distance = abs((kurtosis if statistic == "kurtosis" else crest) - target)
        if distance < nearest:
            best, nearest = x, distance
    return best
