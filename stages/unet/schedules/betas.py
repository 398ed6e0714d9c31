"""The share of signal that is left at each training timestep.

`alphas_cumprod[t]` is the share of signal variance after t steps of noising. All float32, rounded where torch rounds,
because near t = 0 the noise level is the small difference 1 - alphas_cumprod and the model was trained on that value.
"""

import math

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import ModelError
from stages.unet.schedules.settings import FILE, Settings


def alphas_cumprod(settings: Settings, zero_terminal_snr: bool = False) -> NDArray[np.float32]:
    """Share of signal variance by training timestep, float32 [num_train_timesteps], falling.

    With `zero_terminal_snr` they are stretched to end at 0 (arXiv 2305.08891, algorithm 1).
    """
    betas = _betas(settings)
    if not ((betas > 0) & (betas < 1)).all():
        raise ModelError(f"{FILE}: betas must be between 0 and 1, not from {betas.min():g} to {betas.max():g}")
    kept = _cumprod(np.float32(1) - betas)
    if not zero_terminal_snr:
        return kept
    root = np.sqrt(kept)
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    kept = root**2
    ratios = np.concatenate([kept[:1], kept[1:] / kept[:-1]])
    return _cumprod(np.float32(1) - (np.float32(1) - ratios))


def at(table: NDArray[np.float32], timesteps: NDArray[np.int64], beyond: float) -> NDArray[np.float64]:
    """`table` at integer `timesteps`, in float64; `beyond` where a timestep is negative, that is, past the end."""
    return np.where(timesteps >= 0, table[timesteps].astype(np.float64), beyond)


def _betas(settings: Settings) -> NDArray[np.float32]:
    count = settings.num_train_timesteps
    if settings.trained_betas is not None:
        if len(settings.trained_betas) != count:
            raise ModelError(f"{FILE}: {len(settings.trained_betas)} trained_betas for {count} timesteps")
        return np.array(settings.trained_betas, np.float32)
    match settings.beta_schedule:
        case "linear":
            return _linspace(settings.beta_start, settings.beta_end, count)
        case "scaled_linear":
            return _linspace(settings.beta_start**0.5, settings.beta_end**0.5, count) ** 2
        case "squaredcos_cap_v2":
            signal = [math.cos((t / count + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(count + 1)]
            return np.array([min(1 - signal[t + 1] / signal[t], 0.999) for t in range(count)], np.float32)


def _linspace(start: float, end: float, count: int) -> NDArray[np.float32]:
    """torch.linspace in float32: each half is counted from its own end, and rounded once, after the addition."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(max(count - 1, 1)))
    index = np.arange(count)
    return np.where(index < count // 2, first + step * index, last - step * index[::-1]).astype(np.float32)


def _cumprod(factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """torch.cumprod in float32 accumulates in float64 on a CPU."""
    return np.cumprod(factors, dtype=np.float64).astype(np.float32)
