"""A job inside the U-Net engine: its schedule, its latents, and where it is."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stages.core.arena import Bytes
from stages.core.checkpoint import Checkpoint
from stages.core.pipes import Run
from stages.core.tasks import Denoise
from stages.unet.noise import TorchGenerator
from stages.unet.schedules import Schedule

Floats = NDArray[np.float32]


class Sequence:
    """One image being denoised. Begins at the checkpoint it finds in its slot, else at the noise of its seed."""

    def __init__(
        self,
        run: Run[Denoise],
        schedule: Schedule,
        shape: tuple[int, int, int],
        conditioning: Mapping[str, Floats],
        payload: Bytes,
    ) -> None:
        self.run = run
        self.conditioning = conditioning
        self.task = run.task
        self.rows, self.tokens, _ = run.inputs[0].shape
        self.started_ns = 0
        self.in_flight = False
        """Whether a forward with it is in flight."""
        self._schedule = schedule
        self._checkpoint = Checkpoint(payload, run.job, shape)
        self._noise = TorchGenerator(run.task.seed)
        saved = self._checkpoint.restore()
        if saved is None:
            self.step = 0
            self.latents: Floats = self._noise.randn(shape) * np.float32(self._schedule.init_noise_sigma)
            self._memory = np.zeros((self._schedule.state_rows, *shape), np.float32)
        else:
            self.step, self.latents, self._memory = saved
            self._noise.skip(shape, 1 + self._schedule.draws_before(self.step))

    @property
    def steps(self) -> int:
        """U-Net evaluations in all (a schedule of second order has more than the request's steps)."""
        return len(self._schedule.timesteps)

    @property
    def complete(self) -> bool:
        """Whether all evaluations are done."""
        return self.step == self.steps

    @property
    def rows_left(self) -> int:
        """Rows of forwards still to come, the unit that work is counted in."""
        return self.rows * (self.steps - self.step)

    @property
    def timestep(self) -> float:
        """Timestep fed to the U-Net at this step."""
        return float(self._schedule.timesteps[self.step])

    def model_input(self) -> Floats:
        """The latents as the U-Net wants them at this step, [C, H, W]."""
        return self._schedule.scale_input(self.step, self.latents)

    def advance(self, output: Floats) -> None:
        """Apply the U-Net's (guided) output, [C, H, W], and keep the new state in the slot."""
        self.latents = self._schedule.advance(self.step, output, self.latents, self._memory, self._draw)
        self.step += 1
        self._checkpoint.save(self.step, self.latents, self._memory)

    def finish(self, latents: Floats) -> int:
        """Put the final latents, as the decoder takes them, where it finds them; returns their bytes."""
        return self._checkpoint.finish(latents)

    def _draw(self) -> Floats:
        return self._noise.randn(self.latents.shape)
