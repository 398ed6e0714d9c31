"""The base of Euler, ancestral Euler, Heun and LMS: latents = denoised + sigma * noise."""

import numpy as np
from numpy.typing import NDArray

from stages.unet.schedules.base import Latents, Schedule
from stages.unet.schedules.prediction import Prediction
from stages.unet.schedules.settings import Settings


class VarianceExploding(Schedule):
    """Latents grow with the noise in them, so the model is shown latents scaled back to unit variance."""

    def _lay_out(
        self,
        settings: Settings,
        timesteps: NDArray[np.float32],
        sigmas: NDArray[np.float64],
        clip: float | None = None,
    ) -> None:
        """Set the levels: timesteps [evaluations]; sigmas [evaluations], the level of the latents evaluated."""
        self.timesteps = timesteps
        highest = float(sigmas.max())
        # Only the leading spacing starts below the training's last timestep, where some signal is left.
        self.init_noise_sigma = float(np.hypot(highest, 1)) if settings.timestep_spacing == "leading" else highest
        self._input_scale = (1 / np.hypot(sigmas, 1)).astype(np.float32)
        self._prediction = Prediction(settings.prediction_type, np.ones_like(sigmas), sigmas, clip)

    def scale_input(self, index: int, latents: Latents) -> Latents:
        """See `Schedule.scale_input`."""
        scaled: Latents = latents * self._input_scale[index]
        return scaled
