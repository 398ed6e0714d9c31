"""Euler's method with ancestral sampling (k-diffusion, sample_euler_ancestral)."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.unet.schedules import betas, sigmas
from stages.unet.schedules.base import Draw, Latents
from stages.unet.schedules.settings import Settings, read
from stages.unet.schedules.variance_exploding import VarianceExploding


class EulerAncestralSettings(Settings, frozen=True, kw_only=True):
    """The fields of diffusers' EulerAncestralDiscreteScheduler."""

    timestep_spacing: Literal["leading", "linspace", "trailing"] = "linspace"
    rescale_betas_zero_snr: bool = False


class EulerAncestral(VarianceExploding):
    """Steps below the next level and comes back up to it with fresh noise; draws at every evaluation."""

    name = "euler_a"
    settings_type = EulerAncestralSettings

    def __init__(self, config: Mapping[str, object], steps: int) -> None:
        settings = read(EulerAncestralSettings, config)
        trained = sigmas.table(betas.alphas_cumprod(settings, settings.rescale_betas_zero_snr))
        timesteps, levels = sigmas.visited(settings, trained, steps)
        levels = sigmas.ending_at(levels, 0)
        self._lay_out(settings, timesteps, levels[:-1])
        now, after = levels[:-1], levels[1:]
        self._fresh = np.sqrt(after**2 * (now**2 - after**2) / now**2).astype(np.float32)
        self._strides = (after**2 / now - now).astype(np.float32)

    def advance(
        self, index: int, model_output: Latents, latents: Latents, state: NDArray[np.float32], draw: Draw
    ) -> Latents:
        """See `Schedule.advance`."""
        noise = self._prediction.noise(index, model_output, latents)
        result: Latents = latents + self._strides[index] * noise + self._fresh[index] * draw()
        return result

    def draws_before(self, index: int) -> int:
        """See `Schedule.draws_before`."""
        return index
