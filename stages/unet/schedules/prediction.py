"""From the U-Net's output to the denoised latents and the noise, for all prediction types."""

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import ModelError
from stages.unet.schedules.base import Latents
from stages.unet.schedules.settings import FILE, PredictionType


class Prediction:
    """Reads model outputs at every evaluation, where latents = alpha * denoised + sigma * noise.

    alphas, sigmas: float64 [evaluations]. Variance-preserving schedules have alpha**2 + sigma**2 = 1,
    variance-exploding ones alpha = 1. `clip` bounds the denoised latents, not the noise.

    Each answer is one linear form of (latents, model_output), so an evaluation costs two products and a sum.
    """

    def __init__(
        self,
        kind: PredictionType,
        alphas: NDArray[np.float64],
        sigmas: NDArray[np.float64],
        clip: float | None = None,
    ) -> None:
        one, zero = np.ones_like(alphas), np.zeros_like(alphas)
        match kind:
            case "epsilon":
                if not alphas.all():
                    raise ModelError(
                        f"{FILE}: prediction_type epsilon is not served with rescale_betas_zero_snr true; v_prediction "
                        "is, or sample (epsilon tells nothing at zero signal)"
                    )
                denoised, noise = (one / alphas, -sigmas / alphas), (zero, one)
            case "sample":
                denoised, noise = (zero, one), (one / sigmas, -alphas / sigmas)
            case "v_prediction":
                norm = np.hypot(alphas, sigmas)
                denoised, noise = (alphas / norm**2, -sigmas / norm), (sigmas / norm**2, alphas / norm)
        self._denoised = np.stack(denoised, axis=1).astype(np.float32)
        self._noise = np.stack(noise, axis=1).astype(np.float32)
        self._clip = clip

    def denoised(self, index: int, model_output: Latents, latents: Latents) -> Latents:
        """The denoised latents as the model sees them at evaluation `index`."""
        of_latents, of_output = self._denoised[index]
        denoised: Latents = of_latents * latents + of_output * model_output
        return denoised if self._clip is None else np.clip(denoised, -self._clip, self._clip, out=denoised)

    def noise(self, index: int, model_output: Latents, latents: Latents) -> Latents:
        """The noise that the model sees at evaluation `index`."""
        of_latents, of_output = self._noise[index]
        noise: Latents = of_latents * latents + of_output * model_output
        return noise
