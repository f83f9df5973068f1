"""Slow features over past windows: one numpy-free, exactly recorded implementation for desk and device.

The present window is not part of its own history: ``history.x`` says what was known before it. State is
plain data (lists of floats), so that every decision can record it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from aiotkit.core.conditions import is_number
from aiotkit.core.decision import History

#: per history feature: a short list of numbers, empty before the first good value
HistoryState = Mapping[str, tuple[float, ...]]
_BUCKETS = 8


def history_values(spec: Mapping[str, History], state: HistoryState, now_s: float) -> dict[str, float]:
    """The value of each history feature at ``now_s`` (UTC epoch seconds); NaN where nothing is known.

    ``ewma``: exponentially weighted mean with time constant ``over_s``. ``slope``: weighted least
    squares slope per second with the same weights. ``max``: largest value in about ``over_s`` (eight
    buckets). ``time_since``: seconds since the feature last exceeded ``above``, at most ``over_s``.
    ``baseline``: what is usual for this very subject: the mean of the first ``over_s``, known from then on
    and kept.
    """
    return {name: _value(h, state.get(name, ()), now_s) for name, h in spec.items()}


def update_history(
    spec: Mapping[str, History],
    state: HistoryState,
    features: Mapping[str, float],
    now_s: float,
) -> dict[str, tuple[float, ...]]:
    """The state after a window's features; ``now_s`` is the window's end.

    A missing or non-finite feature, or a window that is not later than the last, changes nothing.
    """
    out: dict[str, tuple[float, ...]] = {}
    for name, h in spec.items():
        old, x = state.get(name, ()), features.get(h.of)
        seen = bool(old) and now_s <= old[0]  # the same window again, or a clock set back
        new = old if x is None or not is_number(x) or seen else _updated(h, old, float(x), now_s)
        out[name] = new if all(map(math.isfinite, new)) else old  # an overflow must not stick
    return out


def _value(h: History, s: tuple[float, ...], now: float) -> float:
    if not s:
        return math.nan if h.initial is None else h.initial
    if h.kind == "ewma":
        return s[2]
    if h.kind == "slope":
        _, w, st, sx, stt, stx = s
        spread = stt - st * st / w
        enough = w > 1 and spread > 1e-9 * max(stt, 1.0)
        return (stx - st * sx / w) / spread if enough else (0.0 if h.initial is None else h.initial)
    if h.kind == "max":
        oldest = now - h.over_s
        pairs = zip(s[1::2], s[2::2], strict=True)
        recent = [value for start, value in pairs if start + h.over_s / _BUCKETS >= oldest]
        return max(recent) if recent else (math.nan if h.initial is None else h.initial)
    if h.kind == "baseline":
        return s[3] if now - s[1] >= h.over_s else (math.nan if h.initial is None else h.initial)
    return min(max(now - s[1], 0.0), h.over_s)


def _updated(h: History, s: tuple[float, ...], x: float, now: float) -> tuple[float, ...]:
    if h.kind == "ewma":
        weight, mean = (s[1] * math.exp(-(now - s[0]) / h.over_s), s[2]) if s else (0.0, 0.0)
        return (now, weight + 1, mean + (x - mean) / (weight + 1))
    if h.kind == "slope":
        return _updated_slope(h, s, x, now)
    if h.kind == "max":
        return _updated_max(h, s, x, now)
    if h.kind == "baseline":
        _, start, n, mean = s or (now, now, 0.0, 0.0)
        return s if now - start >= h.over_s else (now, start, n + 1, mean + (x - mean) / (n + 1))
    assert h.above is not None
    if x > h.above:
        return (now, now)
    return (now, s[1] if s else now - h.over_s)


def _updated_slope(h: History, s: tuple[float, ...], x: float, now: float) -> tuple[float, ...]:
    """Sums of weights, t, x, t², t·x with t measured back from ``now`` so that they stay small."""
    if not s:
        return (now, 1.0, 0.0, x, 0.0, 0.0)
    then, w, st, sx, stt, stx = s
    dt = now - then
    decay = math.exp(-dt / h.over_s)
    shifted_tt = stt - 2 * dt * st + dt * dt * w
    shifted_tx = stx - dt * sx
    return (
        now,
        w * decay + 1,
        (st - dt * w) * decay,
        sx * decay + x,
        shifted_tt * decay,
        shifted_tx * decay,
    )


def _updated_max(h: History, s: tuple[float, ...], x: float, now: float) -> tuple[float, ...]:
    width = h.over_s / _BUCKETS
    if s and s[1] + width >= now - h.over_s and now - s[-2] < width:  # no bucket ends, none begins
        return (now, *s[1:-1], max(s[-1], x))
    pairs = [(a, v) for a, v in zip(s[1::2], s[2::2], strict=True) if a + width >= now - h.over_s]
    if pairs and now - pairs[-1][0] < width:
        pairs[-1] = (pairs[-1][0], max(pairs[-1][1], x))
    else:
        pairs.append((now, x))
    return (now, *(part for pair in pairs for part in pair))
