"""Guidance: how much the prompt counts."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def combine(rows: Floats, guidance_scale: float) -> Floats:
    """The model output of one sequence, [C, H, W], from its rows [1 or 2, C, H, W].

    Two rows are classifier-free guidance (Ho & Salimans, 2022): the first row saw the negative prompt, and the
    output is moved from there towards, and beyond, what the second one saw.
    """
    if len(rows) == 1:
        only: Floats = rows[0]
        return only
    negative, positive = rows
    guided: Floats = negative + np.float32(guidance_scale) * (positive - negative)
    return guided


def embedding(guidance_scale: float, dim: int) -> Floats:
    """The sinusoidal embedding, [dim], of the scale w - 1 that a guidance-distilled U-Net is told.

    Luo et al., Latent Consistency Models (2023); sines first, then cosines, of (w - 1) * 1000 at `dim / 2`
    frequencies falling geometrically from 1 to 1e-4.
    """
    half = dim // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * -(np.log(10_000.0) / (half - 1)))
    angles = np.float32((guidance_scale - 1) * 1000.0) * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles), np.zeros(dim % 2)]).astype(np.float32)
