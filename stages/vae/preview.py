"""A quick look at latents: red, green and blue as the linear functions of the channels that fit the decoder best."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.core.embeds import Floats

_SIDE = 256
"""Pixels of a preview's longer side, at most."""

_QUALITY = 85


class Previewer:
    """A least-squares fit, over all decodings seen, from latents to the mean colour of the pixels each stands for.

    It costs a decoding a few thousand additions, and a preview a few thousand multiplications, where decoding costs as
    much as two or three steps of the U-Net.
    """

    def __init__(self, channels: int) -> None:
        self._gram = np.eye(channels + 1) * 1e-3  # a little of identity: solvable from the first decoding on
        self._cross = np.zeros((channels + 1, 3))

    def learn(self, latents: Floats, pixels: Floats) -> None:
        """Take in a decoding: latents [C, h, w], pixels [3, H, W] from -1 to 1."""
        _, height, width = latents.shape
        scale = pixels.shape[1] // height
        means = pixels.reshape(3, height, scale, width, scale).mean(axis=(2, 4))
        inputs = self._inputs(latents)
        self._gram += inputs @ inputs.T
        self._cross += inputs @ means.reshape(3, -1).T

    def draw(self, latents: Floats, scale: int) -> bytes:
        """A JPEG of latents [C, h, w] on their way to a picture of `scale` times their size."""
        _, height, width = latents.shape
        # Between steps latents hold noise, of a size that depends on the schedule; the decoder expects about one.
        latents = latents / max(1.0, float(latents.std()))
        colours = np.linalg.solve(self._gram, self._cross).T @ self._inputs(latents)
        pixels = np.clip((colours / 2 + 0.5) * 255, 0, 255).astype(np.uint8).reshape(3, height, width)
        larger = min(scale, max(1, _SIDE // max(height, width)))
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        file = io.BytesIO()
        image.resize((width * larger, height * larger), Image.Resampling.BICUBIC).save(file, "jpeg", quality=_QUALITY)
        return file.getvalue()

    @staticmethod
    def _inputs(latents: Floats) -> NDArray[np.float64]:
        """Inputs of the linear functions, [C + 1, h * w]: the channels, and a constant."""
        flat = latents.reshape(len(latents), -1).astype(np.float64)
        return np.vstack([flat, np.ones((1, flat.shape[1]))])


def practice_latents(shape: tuple[int, int, int]) -> Floats:
    """Latents [C, h, w] to learn the first colours from: smooth noise of about the size of real ones."""
    channels, height, width = shape
    coarse = np.random.default_rng(0).standard_normal((channels, -(-height // 4), -(-width // 4)))
    return coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width].astype(np.float32)
