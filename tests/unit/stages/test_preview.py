import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from stages.core.embeds import Floats
from stages.vae.preview import Previewer, practice_latents

SCALE = 8


def decoded(latents: Floats, weights: NDArray[np.float64], offset: NDArray[np.float64]) -> Floats:
    """[3, H, W] of a decoder that is linear and paints SCALE by SCALE pixels in one colour."""
    colours = np.tensordot(weights, latents, axes=1) + offset[:, None, None]
    return colours.repeat(SCALE, axis=1).repeat(SCALE, axis=2).astype(np.float32)


def drawn(previewer: Previewer, latents: Floats, scale: int = SCALE) -> NDArray[np.float64]:
    """[H, W, 3] from -1 to 1."""
    with Image.open(io.BytesIO(previewer.draw(latents, scale))) as image:
        assert image.format == "JPEG"
        return np.asarray(image, np.float64) / 127.5 - 1


def calm(seed: int, channels: int = 4, side: int = 8) -> Floats:
    """Smooth latents, as JPEG likes them, of less than deviation one."""
    down, across = np.mgrid[:side, :side] / side
    mix = np.random.default_rng(seed).uniform(-0.3, 0.3, (channels, 3, 1, 1))
    return (mix[:, 0] * down + mix[:, 1] * across + mix[:, 2]).astype(np.float32)


@given(seed=st.integers(0, 1000), channels=st.integers(1, 8))
def test_the_fit_recovers_a_linear_decoder(seed: int, channels: int) -> None:
    random = np.random.default_rng(seed)
    weights, offset = random.uniform(-0.5, 0.5, (3, channels)), random.uniform(-0.3, 0.3, 3)
    previewer = Previewer(channels)
    for _ in range(2):
        latents = random.standard_normal((channels, 16, 16)).astype(np.float32)
        previewer.learn(latents, decoded(latents, weights, offset))
    unseen = calm(seed, channels)
    truth = np.clip(np.tensordot(weights, unseen, axes=1) + offset[:, None, None], -1, 1).transpose(1, 2, 0)
    seen = drawn(previewer, unseen, 1)
    assert np.abs(seen - truth).mean() < 0.04
    assert np.abs(seen.mean(axis=(0, 1)) - truth.mean(axis=(0, 1))).max() < 0.03


def test_every_decoding_counts_and_the_fit_is_the_best_for_all() -> None:
    """Two decodings that contradict each other: the colour between them."""
    previewer = Previewer(1)
    latents = np.zeros((1, 8, 8), np.float32)
    for value in (-0.5, 0.1, 0.1):
        previewer.learn(latents, np.full((3, 64, 64), value, np.float32))
    assert drawn(previewer, latents) == pytest.approx(-0.1, abs=0.02)


def test_what_is_learned_is_the_mean_colour_of_the_pixels() -> None:
    previewer = Previewer(1)
    pixels = np.zeros((3, 16, 16), np.float32)
    pixels[0, ::2] = 1.0  # red, every second line: half red
    pixels[1] = np.linspace(-1, 1, 16)  # averages out
    previewer.learn(np.zeros((1, 2, 2), np.float32), pixels)
    assert drawn(previewer, np.zeros((1, 2, 2), np.float32)).mean(axis=(0, 1))[0] == pytest.approx(0.5, abs=0.02)


def test_before_anything_was_learned_a_preview_is_grey() -> None:
    assert np.abs(drawn(Previewer(4), calm(0))).max() < 0.02


def test_latents_still_full_of_noise_are_drawn_at_the_size_the_decoder_knows() -> None:
    previewer = Previewer(4)
    latents = np.random.default_rng(1).standard_normal((4, 16, 16)).astype(np.float32)
    weights = np.eye(3, 4) * 0.3
    previewer.learn(latents, decoded(latents, weights, np.zeros(3)))
    np.testing.assert_allclose(drawn(previewer, latents * 14), drawn(previewer, latents / latents.std()), atol=0.05)
    assert drawn(previewer, latents * 14).std() < 0.5


@pytest.mark.parametrize(
    ("latents", "scale", "size"),
    [
        ((8, 16), 8, (128, 64)),
        ((16, 8), 8, (64, 128)),
        ((64, 64), 8, (256, 256)),
        ((64, 96), 8, (192, 128)),
        ((512, 512), 8, (512, 512)),
        ((1, 1), 8, (8, 8)),
        ((8, 8), 1, (8, 8)),
    ],
)
def test_a_preview_is_a_jpeg_of_the_picture_s_size_or_of_about_256_pixels(
    latents: tuple[int, int], scale: int, size: tuple[int, int]
) -> None:
    """Width and height; never larger than the picture, never smaller than a pixel a latent."""
    with Image.open(io.BytesIO(Previewer(4).draw(np.zeros((4, *latents), np.float32), scale))) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", size)


@given(st.tuples(st.integers(1, 16), st.integers(1, 40), st.integers(1, 40)))
def test_practice_is_smooth_of_the_shape_asked_for_and_the_same_every_time(shape: tuple[int, int, int]) -> None:
    latents = practice_latents(shape)
    assert (latents.shape, latents.dtype) == (shape, np.float32)
    np.testing.assert_array_equal(latents, practice_latents(shape))
    for axis in (1, 2):
        jumps = np.count_nonzero(np.diff(latents, axis=axis).any(axis=(0, 3 - axis)))
        assert jumps <= (shape[axis] - 1) // 4


def test_practice_is_about_as_large_as_latents_are_and_differs_by_channel() -> None:
    latents = practice_latents((4, 64, 64))
    assert latents.std() == pytest.approx(1, abs=0.15)
    assert np.linalg.matrix_rank(latents.reshape(4, -1)) == 4
