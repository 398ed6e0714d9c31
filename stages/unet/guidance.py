"""Classifier-free guidance, and its rescaling."""

import numpy as np

from stages.core.embeds import Floats


def combine(rows: Floats, guidance_scale: float, rescale: float = 0.0) -> Floats:
    """The model output of one sequence, [C, H, W], from its rows [1 or 2, C, H, W].

    Two rows are classifier-free guidance (Ho & Salimans, 2022): the first row saw the negative prompt, and the
    output is moved from there towards, and beyond, what the second one saw. `rescale`, from 0 to 1, then pulls its
    standard deviation back to that of the second row (Lin et al., Common Diffusion Noise Schedules and Sample Steps
    are Flawed, 2023, section 3.4), against overexposure.
    """
    if len(rows) == 1:
        only: Floats = rows[0]
        return only
    negative, positive = rows
    guided: Floats = negative + np.float32(guidance_scale) * (positive - negative)
    if rescale:
        # ddof: the sample deviation, which is what torch computes where this formula comes from
        ratio = positive.std(ddof=1) / guided.std(ddof=1)
        guided *= np.float32(rescale) * ratio + np.float32(1 - rescale)
    return guided
