"""Noise levels as sigma = noise / signal, and how they may be spaced.

Karras: arXiv 2206.00364, formula 5. Exponential: even in log sigma. Beta: arXiv 2407.12173.
"""

import math

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import ModelError
from stages.unet.schedules.beta_quantile import beta_quantile
from stages.unet.schedules.settings import FILE, Settings, SigmaSettings
from stages.unet.schedules.spacing import spaced, spaced_before_end

RHO = 7.0  # of the Karras spacing
BETA_SHAPE = 0.6  # both parameters of the beta spacing
ALMOST_NO_SIGNAL = np.float32(2**-24)  # instead of none at all, where sigma would be infinite


def table(alphas_cumprod: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sigma at each training timestep, float32 [num_train_timesteps], rising."""
    signal = np.where(alphas_cumprod == 0, ALMOST_NO_SIGNAL, alphas_cumprod)
    return np.sqrt((1 - signal) / signal)


def visited(
    settings: Settings, trained: NDArray[np.float32], steps: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(timesteps, sigmas), [steps] each: the levels at the timesteps that the settings' spacing visits."""
    timesteps = spaced(settings, steps).astype(np.float32)
    return timesteps, np.interp(timesteps, np.arange(len(trained)), trained)


def respaced_within(
    settings: SigmaSettings, trained: NDArray[np.float32], steps: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(timesteps, sigmas), [steps] each, of a variance-exploding schedule: respaced within the levels visited."""
    timesteps, sigmas = visited(settings, trained, steps)
    if not _is_respaced(settings):
        return timesteps, sigmas
    sigmas = _respaced(settings, sigmas[0], sigmas[-1], steps)
    return _timesteps_of(sigmas, trained).astype(np.float32), sigmas


def respaced_over_all(
    settings: SigmaSettings, trained: NDArray[np.float32], steps: int, *, round_karras: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(timesteps, sigmas), [steps] each, of a multistep solver: respaced over all levels trained.

    The timesteps are whole numbers: those of the Karras spacing rounded if `round_karras`, all others cut.
    """
    timesteps = spaced_before_end(settings, steps)
    if not _is_respaced(settings):
        return timesteps, np.interp(timesteps, np.arange(len(trained)), trained)
    sigmas = _respaced(settings, trained[-1], trained[0], steps)
    fractional = _timesteps_of(sigmas, trained)
    if settings.use_karras_sigmas and round_karras:
        fractional = fractional.round()
    return fractional.astype(np.int64), sigmas


def ending_at(sigmas: NDArray[np.float64], last: float) -> NDArray[np.float64]:
    """`sigmas` with the level after the last step, all rounded to float32 as the models' makers rounded them."""
    levels: NDArray[np.float64] = np.append(sigmas, last).astype(np.float32).astype(np.float64)
    return levels


def _is_respaced(settings: SigmaSettings) -> bool:
    return settings.use_karras_sigmas or settings.use_exponential_sigmas or settings.use_beta_sigmas


def _respaced(settings: SigmaSettings, highest: float, lowest: float, steps: int) -> NDArray[np.float64]:
    """`steps` levels from `highest` to `lowest`, which the model folder's sigma_max and sigma_min override."""
    high = float(highest) if settings.sigma_max is None else settings.sigma_max
    low = float(lowest) if settings.sigma_min is None else settings.sigma_min
    if not 0 < low <= high or (low == high and steps > 1):
        raise ModelError(f"{FILE}: sigma_min {low:g} must be above 0 and below sigma_max {high:g}")
    ramp = np.linspace(0, 1, steps)
    sigmas: NDArray[np.float64]
    if settings.use_karras_sigmas:
        sigmas = (high ** (1 / RHO) + ramp * (low ** (1 / RHO) - high ** (1 / RHO))) ** RHO
    elif settings.use_exponential_sigmas:
        sigmas = np.exp(np.linspace(math.log(high), math.log(low), steps))
    else:
        sigmas = low + beta_quantile(1 - ramp, BETA_SHAPE) * (high - low)
    return sigmas


def _timesteps_of(sigmas: NDArray[np.float64], trained: NDArray[np.float32]) -> NDArray[np.float64]:
    """Fractional training timesteps of `sigmas`, interpolated in log sigma; float64 [steps]."""
    known = np.log(trained)  # in float32, because timesteps are later cut to whole numbers and 999 is not 998.9999
    wanted = np.log(np.maximum(sigmas, 1e-10))
    below = np.clip(np.searchsorted(known, wanted, side="right") - 1, 0, len(known) - 2)
    low, high = known[below], known[below + 1]
    share = np.clip((low - wanted) / (low - high), 0, 1)
    timesteps: NDArray[np.float64] = (1 - share) * below + share * (below + 1)
    return timesteps
