import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.unet.noise import TorchGenerator

# Made by tests/parity/test_noise_torch.py, which also checks them against torch.
GOLDEN = np.load(Path(__file__).with_name("torch_noise.npz"))

SHAPES = st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)
SEEDS = st.integers(0, 2**64 - 1)


def bits(values: np.ndarray) -> list[int]:
    return values.astype(np.float32).view(np.int32).ravel().tolist()


@pytest.mark.parametrize("key", GOLDEN.files)
def test_values_are_torchs(key: str) -> None:
    seed, sizes = key.split(":")
    generator = TorchGenerator(int(seed))
    drawn = np.concatenate([generator.randn((int(size),)) for size in sizes.split(",")])
    assert drawn.dtype == np.float32
    np.testing.assert_array_max_ulp(drawn, GOLDEN[key], maxulp=1)


def test_the_golden_draws_cover_both_paths_and_their_border() -> None:
    sizes = {int(size) for key in GOLDEN.files for size in key.split(":")[1].split(",")}
    assert {4, 15, 16, 17, 100, 4 * 16 * 16} <= sizes
    assert {int(key.split(":")[0]) for key in GOLDEN.files} >= {0, 42, 2**32 - 1, 2**63 - 1}


@given(SEEDS, st.lists(st.tuples(SHAPES, st.integers(0, 4)), max_size=4), SHAPES)
def test_skipping_is_drawing(seed: int, before: list[tuple[tuple[int, ...], int]], last: tuple[int, ...]) -> None:
    drawn, skipped = TorchGenerator(seed), TorchGenerator(seed)
    for shape, times in before:
        skipped.skip(shape, times)
        for _ in range(times):
            assert drawn.randn(shape).shape == shape
    assert bits(drawn.randn(last)) == bits(skipped.randn(last))
    assert bits(drawn.randn((3,))) == bits(skipped.randn((3,)))


@given(SEEDS)
def test_only_the_low_32_bits_of_a_seed_count(seed: int) -> None:
    assert bits(TorchGenerator(seed).randn((20,))) == bits(TorchGenerator(seed % 2**32).randn((20,)))


def test_the_values_are_standard_normal() -> None:
    values = TorchGenerator(1).randn((4, 256, 256)).astype(np.float64)
    error = 1 / math.sqrt(values.size)
    assert abs(values.mean()) < 4 * error
    assert abs(values.var() - 1) < 4 * math.sqrt(2) * error
    assert abs((values**4).mean() - 3) < 4 * math.sqrt(96) * error


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        TorchGenerator(seed)
