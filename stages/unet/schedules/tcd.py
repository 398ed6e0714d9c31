"""Trajectory consistency distillation sampling (arXiv 2402.19159, algorithm 4)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stages.unet.schedules import betas
from stages.unet.schedules.base import Draw, Latents, Schedule
from stages.unet.schedules.prediction import Prediction
from stages.unet.schedules.settings import DistilledSettings, read
from stages.unet.schedules.spacing import distilled

GAMMA = np.float32(0.3)
"""Share of every jump that is noise drawn anew; 0 is deterministic. diffusers calls it eta.

It is TCDScheduler.step's own default, and what the guide to TCD says; diffusers' pipelines pass 0 unless told to.
"""


class Tcd(Schedule):
    """Jumps past the next level, to a share 1 - GAMMA of its timestep, and noises back up; no noise after the last."""

    name = "tcd"
    settings_type = DistilledSettings

    def __init__(self, config: Mapping[str, object], steps: int) -> None:
        settings = read(DistilledSettings, config)
        signal = betas.alphas_cumprod(settings, settings.rescale_betas_zero_snr)
        self.timesteps = distilled(settings, settings.original_inference_steps, steps)
        following = np.append(self.timesteps[1:], 0)
        beneath = np.floor((np.float32(1) - GAMMA) * following.astype(np.float32)).astype(np.int64)
        now, after, jump = (signal[t].astype(np.float64) for t in (self.timesteps, following, beneath))
        # Without clip_sample, which diffusers' TCDScheduler takes and does not apply.
        self._prediction = Prediction(settings.prediction_type, np.sqrt(now), np.sqrt(1 - now))
        self._denoised_share, self._noise_share = np.sqrt([after, after * (1 - jump) / jump]).astype(np.float32)
        self._fresh = np.sqrt(1 - after / jump).astype(np.float32)

    def advance(
        self, index: int, model_output: Latents, latents: Latents, state: NDArray[np.float32], draw: Draw
    ) -> Latents:
        """See `Schedule.advance`."""
        denoised = self._prediction.denoised(index, model_output, latents)
        noise = self._prediction.noise(index, model_output, latents)
        result: Latents = self._denoised_share[index] * denoised + self._noise_share[index] * noise
        if index < len(self.timesteps) - 1:
            result += self._fresh[index] * draw()
        return result

    def draws_before(self, index: int) -> int:
        """See `Schedule.draws_before`."""
        return min(index, len(self.timesteps) - 1)
