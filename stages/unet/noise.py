"""Torch's CPU noise without torch: the same seed gives the same picture as diffusers.

Source: PyTorch 2.13, ATen/native/cpu/DistributionTemplates.h (normal_fill), ATen/native/cpu/avx_mathfun.h (logarithm,
sine, cosine), ATen/core/DistributionsHelper.h (normal_distribution) and ATen/core/MT19937RNGEngine.h.
"""

import math

import numpy as np
from numpy.typing import NDArray

BLOCK = 16  # torch fills arrays of at least this many values in blocks of this many

Floats = NDArray[np.float32]

# Cephes' single precision constants, as in avx_mathfun.h; polynomials from their highest power down.
_LOG = np.array(
    [
        *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
        *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
    ],
    np.float32,
)
_LN_2 = np.array([0.693359375, -2.12194440e-4], np.float32)  # high and low part
_SIN = np.array([-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1], np.float32)
_COS = np.array([2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2], np.float32)
_QUARTER_PI = np.array([0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8], np.float32)  # in three parts


class TorchGenerator:
    """The stream of `torch.Generator().manual_seed(seed)` as `torch.randn(shape, generator=...)` reads it, in float32.

    Seeds are 0 <= seed < 2**64; mt19937 takes the low 32 bits, as in torch. The words drawn are torch's exactly, so two
    streams never drift apart, and so are the values wherever torch uses AVX2 or AVX512; elsewhere its own logarithm and
    sine differ by a few units in the last place.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed must be in 0..2**64-1, not {seed}")
        # The legacy class, because its seeding is Knuth's, as in torch, and its stream is frozen by numpy's policy.
        self._mt19937 = np.random.RandomState(seed & 0xFFFF_FFFF)
        self._spare: float | None = None  # second value of the last pair of a small draw; large draws step over it

    def randn(self, shape: tuple[int, ...]) -> Floats:
        """The next standard normal array of `shape`."""
        size = math.prod(shape)
        values = self._pairs(size) if size < BLOCK else self._blocks(size)
        return values.reshape(shape)

    def skip(self, shape: tuple[int, ...], times: int = 1) -> None:
        """Move to where `times` calls of `randn(shape)` would have left the stream, without computing the values."""
        size = math.prod(shape)
        if size < BLOCK:
            self._pairs(size * times)  # the spare has to be computed, and these are few
        else:
            for _ in range(times):
                self._words(_words_taken(size))

    def _words(self, count: int) -> NDArray[np.uint32]:
        return self._mt19937.randint(0, 2**32, count, dtype=np.uint32)

    def _blocks(self, size: int) -> Floats:
        """Box-Muller over blocks of 16 uniforms of 24 bits; a ragged end is replaced by 16 values drawn anew."""
        uniforms = (self._words(_words_taken(size)) & 0xFF_FFFF).astype(np.float32) * np.float32(2**-24)
        whole = size - size % BLOCK
        values = np.empty(size, np.float32)
        values[:whole] = _box_muller(uniforms[:whole])
        if whole < size:
            values[-BLOCK:] = _box_muller(uniforms[size:])
        return values

    def _pairs(self, size: int) -> Floats:
        """Box-Muller one pair at a time in float64, the second value of a pair kept for the next small draw."""
        if size == 0:
            return np.empty(0, np.float32)
        spare = [] if self._spare is None else [self._spare]
        pairs = (size - len(spare) + 1) // 2
        high, low = self._words(4 * pairs).astype(np.uint64).reshape(pairs, 2, 2).transpose(2, 1, 0)
        first, second = ((high << 32 | low) & (2**53 - 1)) * 2.0**-53
        angle, radius = 2 * math.pi * first, np.sqrt(-2 * np.log1p(-second))
        fresh = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
        values = np.concatenate([spare, fresh])
        self._spare = float(values[size]) if len(values) > size else None
        return values[:size].astype(np.float32)


def _words_taken(size: int) -> int:
    """Words of mt19937 that a draw of `size` >= 16 values takes: one a value, and 16 for a ragged end."""
    return size + (BLOCK if size % BLOCK else 0)


def _box_muller(uniforms: Floats) -> Floats:
    """Cosines in the first eight of each block, sines in the last eight."""
    first, second = uniforms.reshape(-1, 2, BLOCK // 2).swapaxes(0, 1)
    radius = np.sqrt(np.float32(-2) * _log(np.float32(1) - first))
    sine, cosine = _sin_cos(np.float32(2 * math.pi) * second)
    return np.stack([radius * cosine, radius * sine], axis=1).ravel()


def _log(x: Floats) -> Floats:
    """Natural logarithm of 0 < x <= 1, rounding by rounding as torch's."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < np.float32(math.sqrt(0.5))
    power = (exponent - small).astype(np.float32)
    rest = np.where(small, mantissa + mantissa, mantissa) - np.float32(1)
    square = rest * rest
    result = _fused(_polynomial(_LOG, rest) * rest, square, power * _LN_2[1])
    result = rest + _fused(square, np.float32(-0.5), result)
    return _fused(power, _LN_2[0], result)


def _sin_cos(x: Floats) -> tuple[Floats, Floats]:
    """Sine and cosine of 0 <= x <= 2 pi, rounding by rounding as torch's."""
    octant = ((x * np.float32(4 / math.pi)).astype(np.int32) + 1) & ~1
    for part in _QUARTER_PI:
        x = _fused(octant.astype(np.float32), -part, x)
    square = x * x
    sine = _fused(_polynomial(_SIN, square) * square, x, x)
    cosine = _fused(_polynomial(_COS, square) * square, square, square * np.float32(-0.5)) + np.float32(1)
    swapped = octant & 2 != 0
    sine, cosine = np.where(swapped, cosine, sine), np.where(swapped, sine, cosine)
    return np.where(octant & 4, -sine, sine), np.where((octant + 2) & 4, -cosine, cosine)


def _polynomial(coefficients: Floats, x: Floats) -> Floats:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = _fused(total, x, coefficient)
    return total


def _fused(a: Floats, b: Floats | np.float32, c: Floats | np.float32) -> Floats:
    """The value of a * b + c, rounded once: torch is compiled with fused multiply-add."""
    return (a.astype(np.float64) * b + c).astype(np.float32)
