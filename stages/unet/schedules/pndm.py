"""PNDM's pseudo linear multistep (PLMS) without the Runge-Kutta start, as Stable Diffusion 1 was shipped.

Source: arXiv 2202.09778, formulas 9, 11 and 12; the start is that of latent-diffusion's plms.py: the first step is
evaluated at both of its ends.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stages.unet.schedules import betas
from stages.unet.schedules.base import Draw, Latents, Schedule, remember, weighted_sum
from stages.unet.schedules.prediction import Prediction
from stages.unet.schedules.settings import Settings, read, refuse
from stages.unet.schedules.spacing import spaced

ADAMS_BASHFORTH = np.array([[24, 0, 0, 0], [12, 12, 0, 0], [36, -12, 0, 0], [46, -32, 10, 0], [55, -59, 37, -9]]) / 24
"""Weights of the newest output and of those remembered before it, by evaluation; the last row from then on."""


class PndmSettings(Settings, frozen=True, kw_only=True):
    """The fields of diffusers' PNDMScheduler."""

    skip_prk_steps: bool = False
    set_alpha_to_one: bool = False

    def __post_init__(self) -> None:
        refuse(not self.skip_prk_steps, "skip_prk_steps", False, "true is (there is no Runge-Kutta start)")
        sample = self.prediction_type == "sample"
        refuse(sample, "prediction_type", "sample", "epsilon or v_prediction are, with PNDM")


class Pndm(Schedule):
    """DDIM's step along an extrapolation of the last four outputs.

    Evaluation 1 repeats the step of evaluation 0, from the same latents, with the mean of both outputs; so there is one
    evaluation more than steps. State: the last three outputs, then the initial latents until they have been used again.
    """

    name = "pndm"
    settings_type = PndmSettings
    state_rows = 4

    def __init__(self, config: Mapping[str, object], steps: int) -> None:
        settings = read(PndmSettings, config)
        signal = betas.alphas_cumprod(settings)
        visited = spaced(settings, steps).round().astype(np.int64)
        self.timesteps = np.insert(visited, 1, visited[1:2])  # nothing to insert in a single step
        stride = settings.num_train_timesteps // steps
        now, after = self.timesteps.copy(), self.timesteps - stride
        now[1:2], after[1:2] = self.timesteps[1:2] + stride, self.timesteps[1:2]
        end = 1.0 if settings.set_alpha_to_one else float(signal[0])
        signal_now, signal_after = betas.at(signal, now, end), betas.at(signal, after, end)
        alphas, noises = np.sqrt(signal_now), np.sqrt(1 - signal_now)
        self._prediction = Prediction(settings.prediction_type, alphas, noises)
        scale = np.sqrt(signal_after) / alphas
        self._latents_share = scale.astype(np.float32)
        self._noise_share = (np.sqrt(1 - signal_after) - scale * noises).astype(np.float32)

    def advance(
        self, index: int, model_output: Latents, latents: Latents, state: NDArray[np.float32], draw: Draw
    ) -> Latents:
        """See `Schedule.advance`."""
        outputs, initial = state[:3], state[3]
        weights = ADAMS_BASHFORTH[min(index, 4)].astype(np.float32)
        extrapolated = weighted_sum(weights, [model_output, *outputs])
        if index == 0:
            initial[:] = latents
        if index == 1:
            latents = initial.copy()
            initial[:] = 0
        else:
            remember(outputs, model_output)
        noise = self._prediction.noise(index, extrapolated, latents)
        result: Latents = self._latents_share[index] * latents + self._noise_share[index] * noise
        return result
