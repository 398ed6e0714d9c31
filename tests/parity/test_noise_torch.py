"""The noise of stages.unet.noise beside torch's own. Run as a program, it writes the unit tests' golden values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.unet.noise import TorchGenerator

GOLDEN = Path(__file__).parents[1] / "unit" / "stages" / "torch_noise.npz"
SEEDS = (0, 42, 2**32 - 1, 2**63 - 1)
DRAWS = ("4,4", "15,15", "16,16", "17,17", "100,100", "1024,1024", "3,20,4,15,16,1,2")

# Where torch has neither AVX2 nor AVX512 it takes its logarithms and sines elsewhere.
EXACT = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([100, 1024, 4 * 64 * 64]))


def torch_draws(seed: int, sizes: list[int]) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    return np.concatenate([torch.randn(size, generator=generator).numpy() for size in sizes])


def assert_torchs(drawn: np.ndarray, expected: np.ndarray) -> None:
    if EXACT:
        np.testing.assert_array_equal(drawn, expected)
    else:
        np.testing.assert_array_max_ulp(drawn, expected, maxulp=4)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**63 - 1), st.lists(SIZES, min_size=1, max_size=6))
def test_any_draws_in_a_row(seed: int, sizes: list[int]) -> None:
    generator = TorchGenerator(seed)
    drawn = np.concatenate([generator.randn((size,)) for size in sizes])
    assert_torchs(drawn, torch_draws(seed, sizes))


def test_a_million_values() -> None:
    assert_torchs(TorchGenerator(7).randn((2**20,)), torch_draws(7, [2**20]))


def test_seeds_beyond_63_bits() -> None:
    seed = 2**64 - 5
    assert_torchs(TorchGenerator(seed).randn((64,)), torch_draws(seed, [64]))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("draws", DRAWS)
def test_the_golden_values_are_torchs(seed: int, draws: str) -> None:
    assert_torchs(np.load(GOLDEN)[f"{seed}:{draws}"], torch_draws(seed, [int(size) for size in draws.split(",")]))


if __name__ == "__main__":
    np.savez_compressed(
        GOLDEN,
        **{
            f"{seed}:{draws}": torch_draws(seed, [int(size) for size in draws.split(",")])
            for seed in SEEDS
            for draws in DRAWS
        },
    )
