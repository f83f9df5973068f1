"""Band powers of the spectrum and of the squared envelope, as a few small matrix products.

The Fourier transform of m = N1·N2 samples is done in four steps (Gentleman & Sande 1966): transforms of
length N1, a rotation, transforms of length N2. As matrix products of size √m they are faster in
onnxruntime than its own DFT, as exact, and work for any window length, not for powers of two alone.
Bins: with sample index t = N2·a + c and bin k = k1 + N1·k2,

    X[k] = Σ_c W_N2^(c·k2) · W_m^(c·k1) · Σ_a x[a, c] · W_N1^(a·k1),   W_m = exp(−2πi/m);

real samples make k1 > N1/2 redundant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from aiotkit.lab.statistics import SMALLEST, Windows

#: amplitude, as a share of the signal's range, below which a spectrum is not believed (−120 dB)
BAND_FLOOR = 1e-6
#: noise that is added to a spectrum, as a share of the window's peak to peak (−80 dB): where rounding in
#: 32 bits, which differs between processors, would otherwise be what a quiet band beside a loud one shows
DITHER = 1e-4
#: noise that is added to the spectrum of the relative squared envelope (−50 dB), for the same reason
ENVELOPE_DITHER = 3e-3

Array = NDArray[np.float64]


def transform_shape(n: int) -> tuple[int, int]:
    """The factors N1, N2 of the shortest transform for ``n`` samples: N2 even, neither much larger.

    Windows whose length has no such factors are padded with zeros.

    >>> transform_shape(1024), transform_shape(1000), transform_shape(60), transform_shape(1009)
    ((32, 32), (25, 40), (6, 10), (23, 44))
    """
    m = n
    while True:
        root = math.isqrt(m)
        for short in range(root, 0, -1):
            long = m // short
            if m % short == 0 and long <= 3 * short + 2:
                if long % 2 == 0:
                    return short, long
                if short % 2 == 0:
                    return long, short
        m += 1


def band_edges(m: int, bands: int) -> Array:
    """Edges of log-spaced bands in bins: from half a bin to the Nyquist frequency m/2, ``[bands + 1]``."""
    edges: Array = np.geomspace(0.5, m / 2, bands + 1)
    return edges


def band_weights(m: int, bands: int) -> Array:
    """Share of each bin in the mean density of each band, ``[m // 2 + 1, bands]``; columns sum to 1.

    Bin k stands for the frequencies k ± ½ (the last one ends at m/2), so that no band is empty.
    """
    bins = np.arange(m // 2 + 1)[:, None]
    low, high = np.maximum(bins - 0.5, 0.5), np.minimum(bins + 0.5, m / 2)
    edges = band_edges(m, bands)
    overlap = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
    shares: Array = np.maximum(overlap, 0) / np.diff(edges)
    return shares


def hann(n: int) -> Array:
    """The periodic Hann taper (Harris 1978), ones for a single sample."""
    taper: Array = np.ones(1) if n == 1 else 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    return taper


class Transform(nn.Module):
    """Real ``[…, m]`` to the first three of the four steps: ``[rows, K1, 2·N2]``, K1 = N1//2 + 1.

    The last axis is (real, imaginary) by c. ``power`` is the fourth step, squared.
    """

    first: Tensor
    first_turned: Tensor
    cos: Tensor
    sin: Tensor
    fourth: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n1, self.n2 = transform_shape(n)
        self.m, self.k1 = self.n1 * self.n2, self.n1 // 2 + 1
        step = np.exp(-2j * np.pi * np.outer(np.arange(self.k1), np.arange(self.n1)) / self.n1)
        turn = np.outer(np.arange(self.k1), np.arange(self.n2)) * (2 * np.pi / self.m)
        _keep(self, "first", np.stack([step.real, step.imag], 1).reshape(-1, self.n1))
        _keep(self, "first_turned", np.stack([step.imag, -step.real], 1).reshape(-1, self.n1))
        _keep(self, "cos", np.repeat(np.cos(turn), 2, axis=0))
        _keep(self, "sin", np.repeat(np.sin(turn), 2, axis=0))
        _keep(self, "fourth", _complex(np.fft.fft(np.eye(self.n2))))

    def forward(self, x: Tensor) -> Tensor:
        """``[…, m]`` to ``[rows, K1, 2·N2]``."""
        table = x.reshape(-1, self.n1, self.n2)
        turned = (self.first @ table) * self.cos + (self.first_turned @ table) * self.sin
        return turned.reshape(-1, self.k1, 2 * self.n2)

    def power(self, x: Tensor) -> Tensor:
        """``[…, m]`` to the squares of all real and imaginary parts, ``[rows, K1·2·N2]``; see ``bins``."""
        spectrum: Tensor = self(x) @ self.fourth
        return (spectrum * spectrum).reshape(-1, self.k1 * 2 * self.n2)

    def bins(self) -> tuple[NDArray[np.int64], Array]:
        """For each column of ``power``: the bin 0 … m/2 it belongs to, and how often that bin is there."""
        k1, _, k2 = np.meshgrid(np.arange(self.k1), [0, 1], np.arange(self.n2), indexing="ij")
        k = (k1 + self.n1 * k2).ravel()
        folded = np.minimum(k, self.m - k)
        times = np.bincount(folded, minlength=self.m // 2 + 1)[folded] / 2
        return folded, times


class Hilbert(nn.Module):
    """The Hilbert transform of real ``[rows, n]`` windows (as ``scipy.signal.hilbert``, imaginary part).

    From the third step back: in the band of a k1 the sign of the frequency depends on k2 alone, so that
    filter and both inner transforms are one matrix.
    """

    filter: Tensor
    filter_turned: Tensor
    cos: Tensor
    sin: Tensor
    back: Tensor

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform
        n1, n2, k1 = transform.n1, transform.n2, transform.k1
        sign = np.where(np.arange(n2) < n2 / 2, -1j, 1j)
        inner = np.fft.ifft(np.fft.fft(np.eye(n2)) * sign)
        turn = np.outer(np.arange(k1), np.arange(n2)) * (2 * np.pi / transform.m)
        back = np.exp(2j * np.pi * np.outer(np.arange(n1), np.arange(k1)) / n1) / n1
        twice = np.where((np.arange(k1) == 0) | (2 * np.arange(k1) == n1), 1, 2)
        _keep(self, "filter", _complex(inner))
        _keep(self, "filter_turned", _complex(1j * inner))
        _keep(self, "cos", np.tile(np.cos(turn), 2))
        _keep(self, "sin", np.tile(np.sin(turn), 2))
        _keep(self, "back", np.stack([back.real * twice, -back.imag * twice], 2).reshape(n1, -1))

    def forward(self, x: Tensor) -> Tensor:
        """``[…, m]`` to ``[rows, m]``."""
        z = self.transform(x)
        t = (z @ self.filter) * self.cos + (z @ self.filter_turned) * self.sin
        shape = (-1, 2 * self.transform.k1, self.transform.n2)
        return cast(Tensor, (self.back @ t.reshape(shape)).reshape(-1, self.transform.m))


class Spectra(nn.Module):
    """Log band powers of windows and of their squared envelopes, all in one transform.

    *Bands*: log10 of the mean over a band of the one-sided power density S(f) in unit²/Hz (Welch 1967;
    ``scipy.signal.periodogram`` with ``window="hann"``) and of white noise of amplitude ``DITHER`` · peak to
    peak; not below that of white noise of amplitude ``BAND_FLOOR`` · range. *Envelope bands*: the same of the
    squared envelope e = x² + H{x}² over its mean (squared envelope spectrum, Antoni 2007) and of noise of
    amplitude ``ENVELOPE_DITHER``. Constant, silent and single samples are at the floor.

    Args:
        n: samples of a window.
        rate_hz: samples per second.
        spans: the range (high − low) of each row's signal.
        bands: how many bands, for each set of bands wanted.
        envelope: how many envelope bands, for each set wanted.
    """

    taper: Tensor
    span: Tensor

    def __init__(
        self, n: int, rate_hz: float, spans: Sequence[float], bands: Sequence[int], envelope: Sequence[int]
    ) -> None:
        super().__init__()
        self.n, self.rows, self.bands, self.envelope = n, len(spans), list(bands), list(envelope)
        self.transform = Transform(n)
        self.hilbert = Hilbert(self.transform) if envelope else None
        self.padding = self.transform.m - n
        self.white = 2 / rate_hz  # density of white noise of amplitude 1
        _keep(self, "taper", hann(n))
        _keep(self, "span", np.asarray(spans))
        floors = 2 * np.log10(BAND_FLOOR * np.asarray(spans, dtype=np.float64)) + math.log10(self.white)
        _keep(self, "floor", floors[:, None])
        _keep(self, "band_weights", self._weights(self.bands, DITHER))
        _keep(self, "envelope_weights", self._weights(self.envelope, ENVELOPE_DITHER))

    band_weights: Tensor
    envelope_weights: Tensor
    floor: Tensor

    def _weights(self, counts: Sequence[int], noise: float) -> Array:
        """From the columns of ``power`` to densities over that of ``noise``, ``[columns, all bands]``."""
        m = self.transform.m
        bins, times = self.transform.bins()
        sides = np.where(2 * bins == m, 0.5, 1.0) / (np.square(hann(self.n)).sum() * times * noise**2)
        shares = [band_weights(m, count)[bins] * sides[:, None] for count in counts]
        return np.concatenate(shares, axis=1) if shares else np.zeros((bins.size, 0))

    def forward(self, windows: Windows) -> list[Tensor]:
        """``[batch, rows, count]`` for each set of bands, then for each set of envelope bands."""
        tapered = [windows.u * self.taper] if self.bands else []
        if self.hilbert is not None:
            tapered.append(self._envelope(windows) * self.taper)
        both = tapered[0] if len(tapered) == 1 else torch.cat(tapered, dim=1)
        power = self.transform.power(self._padded(both)).reshape(
            -1, both.shape[1], self.band_weights.shape[0]
        )
        found: list[Tensor] = []
        # in units of the noise that is added: runtimes drop an addition of almost nothing
        if self.bands:
            over = (1 + power[:, : self.rows] @ self.band_weights).log10()
            unit = 2 * windows.p2p.clamp(min=SMALLEST).log10() + math.log10(DITHER**2 * self.white)
            found += torch.split(torch.maximum(over + unit.unsqueeze(2), self.floor), self.bands, dim=2)
        if self.envelope:
            over = (1 + power[:, -self.rows :] @ self.envelope_weights).log10()
            unit_of_all = math.log10(ENVELOPE_DITHER**2 * self.white)
            found += torch.split(over + unit_of_all, self.envelope, dim=2)
        return found

    def _envelope(self, windows: Windows) -> Tensor:
        """Squared envelope over its mean, less one, ``[batch, rows, n]``; towards 0 where it is silent."""
        assert self.hilbert is not None
        turned: Tensor = self.hilbert(self._padded(windows.u))
        h = turned.reshape(-1, self.rows, self.transform.m)[:, :, : self.n]
        squared = windows.u * windows.u + h * h
        silence = (BAND_FLOOR * self.span / windows.p2p.clamp(min=SMALLEST)).clamp(min=1e-12, max=1e18)
        mean = squared.mean(dim=2)
        return (squared - mean.unsqueeze(2)) / (mean + silence * silence).unsqueeze(2)

    def _padded(self, x: Tensor) -> Tensor:
        return pad(x, (0, self.padding)) if self.padding else x


def _complex(matrix: NDArray[np.complex128]) -> Array:
    """The real matrix that multiplies (real, imaginary) rows from the right as ``matrix`` complex ones."""
    return np.block([[matrix.real, matrix.imag], [-matrix.imag, matrix.real]])


def _keep(module: nn.Module, name: str, values: Array) -> None:
    module.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)))
