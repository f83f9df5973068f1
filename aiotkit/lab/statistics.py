"""Window statistics, many windows at once: ``[batch, rows, n]`` to ``[batch, rows]``.

A row is a signal's window, or a part of one. What several statistics need (deviations, extremes) is
computed once and read by all: the graph on the device does no work twice.

Deviations are formed before they are squared, and divided by the window's peak to peak, so that a small
ripple on a large offset keeps its digits and no square leaves float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from aiotkit.core.errors import DataError

#: the smallest divisor: its inverse is still a float32
SMALLEST = 1e-37
#: a sample this close to the mean, in peaks to peaks, is not above it: rounding shall not decide
SIDE = 1e-6
QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


class Windows:
    """A batch of windows ``[batch, rows, n]`` with its moments, each computed when first asked for.

    The attributes named as statistics are ``[batch, rows]``.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x

    @cached_property
    def _rough(self) -> Tensor:
        return self.x.mean(dim=2, keepdim=True)

    @cached_property
    def _from_rough(self) -> Tensor:
        return self.x - self._rough

    @cached_property
    def _rest(self) -> Tensor:
        """What rounding left in the mean: taken out in a second pass."""
        return self._from_rough.mean(dim=2, keepdim=True)

    @cached_property
    def mean(self) -> Tensor:
        """Σ x_i / n."""
        return (self._rough + self._rest).squeeze(2)

    @cached_property
    def min(self) -> Tensor:
        """Smallest sample."""
        return self.x.amin(dim=2)

    @cached_property
    def max(self) -> Tensor:
        """Largest sample."""
        return self.x.amax(dim=2)

    @cached_property
    def p2p(self) -> Tensor:
        """Largest minus smallest sample."""
        return self.max - self.min

    @cached_property
    def last(self) -> Tensor:
        """The newest sample."""
        return self.x[:, :, -1]

    @cached_property
    def u(self) -> Tensor:
        """Deviations over peak to peak ``[batch, rows, n]``: within ±1, exactly 0 in a constant window."""
        inverse = torch.where(self.p2p > 0, 1 / self.p2p.clamp(min=SMALLEST), 0.0)
        return (self._from_rough - self._rest) * inverse.unsqueeze(2)

    @cached_property
    def _squares(self) -> Tensor:
        return self.u * self.u

    @cached_property
    def _second(self) -> Tensor:
        return self._squares.mean(dim=2)

    @cached_property
    def std(self) -> Tensor:
        """√μ_2; exactly 0 for a constant window."""
        return self.p2p * self._second.sqrt()

    @cached_property
    def kurtosis(self) -> Tensor:
        """μ_4 / μ_2² (Pearson 1905); 0 for a constant window. μ_2 ≥ 1/4n in peaks to peaks."""
        fourth = (self._squares * self._squares).mean(dim=2)
        return fourth / (self._second * self._second).clamp(min=1e-30)

    @cached_property
    def _peak(self) -> Tensor:
        return torch.maximum(self.max.abs(), self.min.abs())

    @cached_property
    def _rms_over_peak(self) -> Tensor:
        """√(m² + μ_2) / max|x|: a sum of what is not negative, so no digits are lost."""
        peak = self._peak.clamp(min=SMALLEST)
        mean, std = self.mean / peak, self.std / peak
        return (mean * mean + std * std).sqrt()

    @cached_property
    def rms(self) -> Tensor:
        """√(Σ x_i² / n)."""
        return self._peak * self._rms_over_peak

    @cached_property
    def crest(self) -> Tensor:
        """max|x_i| / rms; 0 when all samples are zero."""
        return torch.where(self._peak > 0, 1 / self._rms_over_peak.clamp(min=SMALLEST), 0.0)

    @cached_property
    def zcr(self) -> Tensor:
        """Share of neighbouring samples on different sides of the mean; 0 for a single sample."""
        if self.x.shape[2] == 1:
            return torch.zeros_like(self.last)
        above = self.u > SIDE
        return torch.logical_xor(above[:, :, 1:], above[:, :, :-1]).to(torch.float32).mean(dim=2)


#: statistics that need nothing but the window itself
PLAIN = ("mean", "std", "min", "max", "rms", "p2p", "last", "kurtosis", "crest", "zcr")


class Slope(nn.Module):
    """Least-squares slope per second of samples ``1 / rate_hz`` apart; 0 for a single sample."""

    weights: Tensor

    def __init__(self, n: int, rate_hz: float) -> None:
        super().__init__()
        t = (np.arange(n, dtype=np.float64) - (n - 1) / 2) / rate_hz
        weights = t / np.square(t).sum() if n > 1 else t
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)))

    def forward(self, windows: Windows) -> Tensor:
        """``[batch, rows]``."""
        return windows.p2p * (windows.u * self.weights).sum(dim=2)


class Quantiles(nn.Module):
    """Quantiles by linear interpolation of the sorted samples (type 7 of Hyndman & Fan 1996; numpy's)."""

    below: Tensor
    above: Tensor
    share: Tensor

    def __init__(self, n: int, levels: Sequence[float]) -> None:
        super().__init__()
        places = np.asarray(levels, dtype=np.float64) * (n - 1)
        below = np.floor(places).astype(np.int64)
        above = np.minimum(below + 1, n - 1)
        self.register_buffer("below", torch.from_numpy(below))
        self.register_buffer("above", torch.from_numpy(above))
        self.register_buffer("share", torch.from_numpy((places - below).astype(np.float32)))

    def forward(self, windows: Windows) -> Tensor:
        """``[batch, rows, levels]``."""
        ranked = torch.sort(windows.x, dim=2).values
        low, high = ranked.index_select(2, self.below), ranked.index_select(2, self.above)
        return low * (1 - self.share) + high * self.share


def part_edges(n: int, parts: int) -> tuple[int, ...]:
    """Where ``parts`` equal parts of ``n`` samples begin and end: ``j·n/parts``, rounded half up.

    Parts differ by one sample at most.

    Raises:
        DataError: there are more parts than samples.

    >>> part_edges(60, 13)
    (0, 5, 9, 14, 18, 23, 28, 32, 37, 42, 46, 51, 55, 60)
    """
    if parts > n:
        raise DataError(
            f"segments: {parts} parts", expected=f"at most {n}, the samples of a window", found=str(parts)
        )
    return tuple((2 * j * n + parts) // (2 * parts) for j in range(parts + 1))
