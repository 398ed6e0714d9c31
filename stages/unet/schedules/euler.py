"""Euler's method for the probability flow (arXiv 2206.00364, algorithm 2 without churn)."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.unet.schedules import betas, sigmas
from stages.unet.schedules.base import Draw, Latents
from stages.unet.schedules.settings import SigmaSettings, read
from stages.unet.schedules.variance_exploding import VarianceExploding


class EulerSettings(SigmaSettings, frozen=True, kw_only=True):
    """The fields of diffusers' EulerDiscreteScheduler."""

    interpolation_type: Literal["linear"] = "linear"
    timestep_type: Literal["discrete"] = "discrete"
    rescale_betas_zero_snr: bool = False
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"


class Euler(VarianceExploding):
    """Follows the predicted noise straight to the next level."""

    name = "euler"
    settings_type = EulerSettings

    def __init__(self, config: Mapping[str, object], steps: int) -> None:
        settings = read(EulerSettings, config)
        trained = sigmas.table(betas.alphas_cumprod(settings, settings.rescale_betas_zero_snr))
        timesteps, levels = sigmas.respaced_within(settings, trained, steps)
        levels = sigmas.ending_at(levels, 0 if settings.final_sigmas_type == "zero" else trained[0])
        self._lay_out(settings, timesteps, levels[:-1])
        self._strides = np.diff(levels).astype(np.float32)

    def advance(
        self, index: int, model_output: Latents, latents: Latents, state: NDArray[np.float32], draw: Draw
    ) -> Latents:
        """See `Schedule.advance`."""
        noise = self._prediction.noise(index, model_output, latents)
        result: Latents = latents + self._strides[index] * noise
        return result
