"""Torch's CPU noise without torch: the same seed gives the same picture as diffusers.

Source: ATen/native/cpu/DistributionTemplates.h (normal_fill), ATen/core/DistributionsHelper.h (normal_distribution) and
ATen/core/MT19937RNGEngine.h of PyTorch 2.13.
"""

import math

import numpy as np
from numpy.typing import NDArray

BLOCK = 16  # torch fills arrays of at least this many values in blocks of this many
_TWO_PI = np.float32(2 * math.pi)


class TorchGenerator:
    """The stream of `torch.Generator().manual_seed(seed)` as `torch.randn(shape, generator=...)` reads it, in float32.

    Seeds are 0 <= seed < 2**64; mt19937 takes the low 32 bits, as in torch. The words drawn are torch's exactly, so two
    streams never drift apart; the values agree to a few units in the last place.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed must be in 0..2**64-1, not {seed}")
        # The legacy class, because its seeding is Knuth's, as in torch, and its stream is frozen by numpy's policy.
        self._mt19937 = np.random.RandomState(seed & 0xFFFF_FFFF)
        self._spare: float | None = None  # second value of the last pair of a small draw; large draws step over it

    def randn(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
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

    def _blocks(self, size: int) -> NDArray[np.float32]:
        """Box-Muller over blocks of 16 uniforms of 24 bits; a ragged end is replaced by 16 values drawn anew."""
        uniforms = (self._words(_words_taken(size)) & 0xFF_FFFF).astype(np.float32) * np.float32(2**-24)
        whole = size - size % BLOCK
        values = np.empty(size, np.float32)
        values[:whole] = _box_muller(uniforms[:whole])
        if whole < size:
            values[-BLOCK:] = _box_muller(uniforms[size:])
        return values

    def _pairs(self, size: int) -> NDArray[np.float32]:
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


def _box_muller(uniforms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines in the first eight of each block, sines in the last eight, rounded to float32 where torch rounds.

    Logarithm, cosine and sine go through float64 because numpy's float32 ones differ from machine to machine.
    """
    first, second = uniforms.reshape(-1, 2, BLOCK // 2).swapaxes(0, 1)
    radius = np.sqrt(np.float32(-2) * np.log1p(-first.astype(np.float64)).astype(np.float32))
    angle = (_TWO_PI * second).astype(np.float64)
    cosines, sines = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    return np.stack([radius * cosines, radius * sines], axis=1).ravel()
