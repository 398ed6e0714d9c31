import math
import statistics

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.core.embeds import Floats
from stages.unet.conditioning import guidance_embedding
from stages.unet.guidance import combine

SHAPE = (4, 2, 3)
LATENTS = arrays(np.float32, SHAPE, elements=st.floats(-10, 10, width=32))


@given(LATENTS, st.floats(0, 100))
def test_one_row_is_taken_as_it_is(only: Floats, guidance_scale: float) -> None:
    found = combine(only[None], guidance_scale)
    assert found.shape == SHAPE
    assert np.array_equal(found, only)


@given(LATENTS, LATENTS, st.floats(0, 100))
def test_two_rows_are_moved_from_the_negative_through_the_positive(
    negative: Floats, positive: Floats, guidance_scale: float
) -> None:
    found = combine(np.stack([negative, positive]), guidance_scale)
    pairs = zip(negative.ravel().tolist(), positive.ravel().tolist(), strict=True)
    expected = [a + guidance_scale * (b - a) for a, b in pairs]
    assert found.shape == SHAPE
    assert found.dtype == np.float32
    assert found.ravel().tolist() == pytest.approx(expected, rel=1e-5, abs=1e-3)


def test_the_ends_of_the_scale_are_the_rows() -> None:
    rows = np.array([[[[1.0]]], [[[5.0]]]], np.float32)
    assert [float(combine(rows, scale).item()) for scale in (0, 1, 2, 7.5)] == [1, 5, 9, 31]


@given(LATENTS, LATENTS, st.floats(1, 10))
def test_rescale_pulls_the_contrast_back_to_that_of_the_positive(
    negative: Floats, positive: Floats, guidance_scale: float
) -> None:
    rows = np.stack([negative, positive])
    plain = combine(rows, guidance_scale).astype(float)
    assume(plain.std() > 0.1)
    ratio = statistics.stdev(positive.ravel().tolist()) / statistics.stdev(plain.ravel().tolist())
    for rescale in (0.0, 0.7, 1.0):
        expected = plain * (rescale * ratio + (1 - rescale))
        found = combine(rows, guidance_scale, rescale)
        assert found.dtype == np.float32
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert np.array_equal(rows, np.stack([negative, positive]))  # the U-Net's output is not written over


@pytest.mark.parametrize("dim", [4, 7, 256])
@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 1.5, 8.5])
def test_the_embedding_is_that_of_the_paper(guidance_scale: float, dim: int) -> None:
    half = dim // 2
    angles = [(guidance_scale - 1) * 1000 * math.exp(-math.log(10_000) * i / (half - 1)) for i in range(half)]
    expected = [*map(math.sin, angles), *map(math.cos, angles), *([0.0] * (dim % 2))]
    found = guidance_embedding(guidance_scale, dim)
    assert found.shape == (dim,)
    assert found.dtype == np.float32
    # float32 holds an angle of thousands to some 1e-4
    assert found.tolist() == pytest.approx(expected, abs=2e-3)
