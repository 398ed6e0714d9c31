"""Heun's second-order method for the probability flow (arXiv 2206.00364, algorithm 1)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stages.unet.schedules import betas, sigmas
from stages.unet.schedules.base import Draw, Latents
from stages.unet.schedules.settings import SigmaSettings, read
from stages.unet.schedules.variance_exploding import VarianceExploding


class HeunSettings(SigmaSettings, frozen=True, kw_only=True):
    """The fields of diffusers' HeunDiscreteScheduler."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    clip_sample: bool = False
    clip_sample_range: float = 1.0


class Heun(VarianceExploding):
    """Takes every step twice: along the slope at its start, then along the mean of the slopes at both ends.

    Even evaluations are at the start of a step, odd ones at its end; the last step, to no noise, has no second half,
    so n steps make 2n - 1 evaluations. State: the slope and the latents at the start of the step.
    """

    name = "heun"
    settings_type = HeunSettings
    state_rows = 2

    def __init__(self, config: Mapping[str, object], steps: int) -> None:
        settings = read(HeunSettings, config)
        trained = sigmas.table(betas.alphas_cumprod(settings))
        timesteps, levels = sigmas.respaced_within(settings, trained, steps)
        levels = sigmas.ending_at(levels, 0)
        evaluated = np.repeat(np.arange(steps), 2)[1:]
        clip = settings.clip_sample_range if settings.clip_sample else None
        self._lay_out(settings, timesteps[evaluated], levels[evaluated], clip)
        self._levels = levels[evaluated].astype(np.float32)
        self._strides = np.diff(levels).astype(np.float32)

    def advance(
        self, index: int, model_output: Latents, latents: Latents, state: NDArray[np.float32], draw: Draw
    ) -> Latents:
        """See `Schedule.advance`."""
        first_slope, start = state
        stride = self._strides[index // 2]
        slope: Latents = (latents - self._prediction.denoised(index, model_output, latents)) / self._levels[index]
        if index % 2 == 0:
            first_slope[:] = slope
            start[:] = latents
            result: Latents = latents + stride * slope
        else:
            result = start + stride / 2 * (first_slope + slope)
        return result
