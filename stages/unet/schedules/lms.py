"""Linear multistep for the probability flow (k-diffusion, sample_lms), order 4."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stages.unet.schedules import betas, sigmas
from stages.unet.schedules.base import Draw, Latents, remember, weighted_sum
from stages.unet.schedules.settings import SigmaSettings, read
from stages.unet.schedules.variance_exploding import VarianceExploding

ORDER = 4
GAUSS_POINTS = np.array([-1, 1]) / np.sqrt(3)  # of weight 1 each, on -1..1


class Lms(VarianceExploding):
    """Integrates, over the step, the polynomial through the last four predicted noises.

    State: the last three predicted noises, newest first.
    """

    name = "lms"
    settings_type = SigmaSettings
    state_rows = ORDER - 1

    def __init__(self, config: Mapping[str, object], steps: int) -> None:
        settings = read(SigmaSettings, config)
        trained = sigmas.table(betas.alphas_cumprod(settings))
        timesteps, levels = sigmas.respaced_within(settings, trained, steps)
        levels = sigmas.ending_at(levels, 0)
        self._lay_out(settings, timesteps, levels[:-1])
        self._weights = np.array([_weights(levels, index) for index in range(steps)], np.float32)

    def advance(
        self, index: int, model_output: Latents, latents: Latents, state: NDArray[np.float32], draw: Draw
    ) -> Latents:
        """See `Schedule.advance`."""
        noise = self._prediction.noise(index, model_output, latents)
        result: Latents = latents + weighted_sum(self._weights[index], [noise, *state])
        remember(state, noise)
        return result


def _weights(levels: NDArray[np.float64], index: int) -> NDArray[np.float64]:
    """Weights of the predicted noises, [ORDER], newest first: integrals over the step of their Lagrange polynomials.

    Two-point Gauss quadrature is exact for them, because their degree is at most 3.
    """
    known = levels[index - min(index, ORDER - 1) : index + 1][::-1]
    half = (levels[index + 1] - levels[index]) / 2
    at = levels[index] + half * (1 + GAUSS_POINTS)
    weights = np.zeros(ORDER)
    for j, level in enumerate(known):
        others = np.delete(known, j)
        lagrange = np.prod((at[:, None] - others) / (level - others), axis=1)
        weights[j] = half * lagrange.sum()
    return weights
