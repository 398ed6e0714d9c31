"""DDIM, eta = 0 (arXiv 2010.02502, formula 12)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stages.unet.schedules import betas
from stages.unet.schedules.base import Draw, Latents, Schedule
from stages.unet.schedules.prediction import Prediction
from stages.unet.schedules.settings import ClipSettings, read
from stages.unet.schedules.spacing import spaced


class DdimSettings(ClipSettings, frozen=True, kw_only=True):
    """The fields of diffusers' DDIMScheduler."""

    clip_sample: bool = True
    set_alpha_to_one: bool = True
    rescale_betas_zero_snr: bool = False


class Ddim(Schedule):
    """Takes the denoised latents and noises them again, with the predicted noise, to the next level."""

    name = "ddim"
    settings_type = DdimSettings

    def __init__(self, config: Mapping[str, object], steps: int) -> None:
        settings = read(DdimSettings, config)
        signal = betas.alphas_cumprod(settings, settings.rescale_betas_zero_snr)
        self.timesteps = timesteps = spaced(settings, steps).round().astype(np.int64)
        following = timesteps - settings.num_train_timesteps // steps  # not timesteps[1:], where spacing is uneven
        end = 1.0 if settings.set_alpha_to_one else float(signal[0])
        now, after = betas.at(signal, timesteps, end), betas.at(signal, following, end)
        self._prediction = Prediction(settings.prediction_type, np.sqrt(now), np.sqrt(1 - now), settings.clip)
        self._denoised_share, self._noise_share = np.sqrt([after, 1 - after]).astype(np.float32)

    def advance(
        self, index: int, model_output: Latents, latents: Latents, state: NDArray[np.float32], draw: Draw
    ) -> Latents:
        """See `Schedule.advance`."""
        denoised = self._prediction.denoised(index, model_output, latents)
        noise = self._prediction.noise(index, model_output, latents)
        result: Latents = self._denoised_share[index] * denoised + self._noise_share[index] * noise
        return result
