"""The training timesteps that a number of steps visits: table 2 of arXiv 2305.08891, as diffusers reads it."""

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import BadRequest
from stages.unet.schedules.settings import Settings


def spaced(settings: Settings, steps: int) -> NDArray[np.float64]:
    """`steps` timesteps, falling; whole numbers unless the spacing is linspace. Raises `BadRequest` for too many."""
    train = settings.num_train_timesteps
    _check(steps, train)
    timesteps: NDArray[np.float64]
    match settings.timestep_spacing:
        case "linspace":
            timesteps = np.linspace(0, train - 1, steps)[::-1]
        case "leading":
            timesteps = np.arange(steps)[::-1] * (train // steps) + np.float64(settings.steps_offset)
        case "trailing":
            # Cut, because a stride that is no exact binary fraction can leave one value too many, just above the end.
            timesteps = np.arange(train, 0, -train / steps)[:steps].round() - 1
    if timesteps.min() < 0 or timesteps.max() >= train:
        raise BadRequest(f"so many steps do not fit into {train} timesteps after steps_offset {settings.steps_offset}")
    return timesteps


def spaced_before_end(settings: Settings, steps: int) -> NDArray[np.int64]:
    """`steps` timesteps as the multistep solvers space them: the end is a point of its own, so 0 is not visited."""
    _check(steps, settings.num_train_timesteps - 1)
    trailing = settings.timestep_spacing == "trailing"
    timesteps = spaced(settings, steps) if trailing else spaced(settings, steps + 1)[:-1]
    return timesteps.round().astype(np.int64)


def distilled(settings: Settings, original_steps: int, steps: int) -> NDArray[np.int64]:
    """`steps` timesteps, evenly out of the `original_steps` that a consistency model was distilled at."""
    train = settings.num_train_timesteps
    original_steps = min(original_steps, train)
    _check(steps, original_steps)
    original = np.arange(original_steps, 0, -1, dtype=np.int64) * (train // original_steps) - 1
    return original[np.linspace(0, original_steps, steps, endpoint=False).astype(np.int64)]


def _check(steps: int, most: int) -> None:
    if not 1 <= steps <= most:
        raise BadRequest(f"steps must be in 1..{most} for this model and schedule, not {steps}")
