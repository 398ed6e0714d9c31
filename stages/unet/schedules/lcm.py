"""Latent consistency model sampling (arXiv 2310.04378)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stages.unet.schedules import betas
from stages.unet.schedules.base import Draw, Latents, Schedule
from stages.unet.schedules.prediction import Prediction
from stages.unet.schedules.settings import DistilledSettings, read
from stages.unet.schedules.spacing import distilled

SIGMA_DATA = 0.5


class Lcm(Schedule):
    """Jumps to the denoised latents every time and noises them afresh to the next level; no noise after the last."""

    name = "lcm"
    settings_type = DistilledSettings

    def __init__(self, config: Mapping[str, object], steps: int) -> None:
        settings = read(DistilledSettings, config)
        signal = betas.alphas_cumprod(settings, settings.rescale_betas_zero_snr)
        self.timesteps = distilled(settings, settings.original_inference_steps, steps)
        now = betas.at(signal, self.timesteps, 1.0)
        self._prediction = Prediction(settings.prediction_type, np.sqrt(now), np.sqrt(1 - now), settings.clip)
        after = now[1:]
        self._denoised_share, self._noise_share = np.sqrt([after, 1 - after]).astype(np.float32)
        scaled = self.timesteps * settings.timestep_scaling
        distance = scaled**2 + SIGMA_DATA**2
        self._skip = (SIGMA_DATA**2 / distance).astype(np.float32)
        self._out = (scaled / np.sqrt(distance)).astype(np.float32)

    def advance(
        self, index: int, model_output: Latents, latents: Latents, state: NDArray[np.float32], draw: Draw
    ) -> Latents:
        """See `Schedule.advance`."""
        denoised = self._prediction.denoised(index, model_output, latents)
        consistent: Latents = self._out[index] * denoised + self._skip[index] * latents
        if index == len(self.timesteps) - 1:
            return consistent
        result: Latents = self._denoised_share[index] * consistent + self._noise_share[index] * draw()
        return result

    def draws_before(self, index: int) -> int:
        """See `Schedule.draws_before`."""
        return min(index, len(self.timesteps) - 1)
