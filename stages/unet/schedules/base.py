"""The base of all schedules: the arithmetic between two evaluations of the U-Net."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from stages.unet.schedules.settings import Settings

Latents = NDArray[np.float32]
"""One job's latents, shape [channels, height/8, width/8]."""
Draw = Callable[[], Latents]
"""Returns the next standard normal noise of the latents' shape."""


class Schedule(ABC):
    """One noise algorithm, laid out for one number of steps.

    Immutable after construction: every per-job memory lies in arrays the caller passes in, because the caller keeps
    them in shared memory and resumes from there after a crash.

    Constructed from a scheduler_config.json as a mapping; raises `ModelError` for one it cannot honour and `BadRequest`
    for a number of steps it cannot take.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[Settings]]
    """The fields of scheduler_config.json that it reads."""
    state_rows: ClassVar[int] = 0
    """Latents-shaped float32 arrays of memory kept between evaluations; at most 6."""
    timesteps: NDArray[np.int64] | NDArray[np.float32]
    """Timesteps fed to the U-Net, [evaluations]. Heun and PNDM have more evaluations than steps."""
    init_noise_sigma: float = 1.0
    """Standard deviation of the initial latents, which are randn * init_noise_sigma."""

    @abstractmethod
    def __init__(self, config: Mapping[str, object], steps: int) -> None: ...

    def scale_input(self, index: int, latents: Latents) -> Latents:
        """The model input at evaluation `index`; may be `latents` itself."""
        return latents

    @abstractmethod
    def advance(
        self, index: int, model_output: Latents, latents: Latents, state: NDArray[np.float32], draw: Draw
    ) -> Latents:
        """The latents after evaluation `index`, a new float32 array.

        `state` is [state_rows, *latents.shape], zeros before evaluation 0, and is updated in place. A pure function of
        (index, model_output, latents, state, noise drawn).
        """

    def draws_before(self, index: int) -> int:
        """Number of noises that `advance` has drawn in evaluations 0 to index - 1."""
        return 0


def weighted_sum(weights: NDArray[np.float32], terms: Sequence[Latents]) -> Latents:
    """Sum of weight * term in float32, always a new array. Terms without weight cost nothing."""
    first, *others = [(weight, term) for weight, term in zip(weights, terms, strict=True) if weight]
    total: Latents = first[0] * first[1]
    for weight, term in others:
        total += weight * term
    return total


def remember(history: NDArray[np.float32], newest: Latents) -> None:
    """Push `newest` in front of `history` [rows, *latents.shape]; the oldest row falls off."""
    history[1:] = history[:-1]
    history[0] = newest
