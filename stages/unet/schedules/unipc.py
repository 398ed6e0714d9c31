"""UniPC, the multistep predictor-corrector B(h) of arXiv 2302.04867, predicting denoised latents."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import ModelError
from stages.unet.schedules import betas, sigmas
from stages.unet.schedules.base import Draw, Latents, Schedule, remember, weighted_sum
from stages.unet.schedules.prediction import Prediction
from stages.unet.schedules.settings import FILE, SigmaSettings, read, refuse, refuse_thresholding

MAX_ORDER = 3


class UniPCSettings(SigmaSettings, frozen=True, kw_only=True):
    """The fields of diffusers' UniPCMultistepScheduler."""

    solver_order: Literal[1, 2, 3] = 2
    solver_type: Literal["bh1", "bh2", "midpoint", "heun", "logrho"] = "bh2"
    """Form of B(h); the names of other solvers mean bh2, as in diffusers."""
    lower_order_final: bool = True
    disable_corrector: tuple[int, ...] = ()
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    rescale_betas_zero_snr: bool = False
    thresholding: bool = False
    predict_x0: bool = True
    use_flow_sigmas: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_thresholding(self.thresholding)
        refuse(not self.predict_x0, "predict_x0", False, "true is")
        refuse(self.use_flow_sigmas, "use_flow_sigmas", True, "false is")
        endless = self.solver_order > 1 and not self.lower_order_final and self.final_sigmas_type == "zero"
        refuse(endless, "lower_order_final", False, "true is (where final_sigmas_type is zero)")


class UniPC(Schedule):
    """Corrects the last step with the denoised latents found at its end, then predicts the next one.

    State: the (corrected) latents of the last evaluation, then the last three denoised latents, newest first.
    """

    name = "unipc"
    settings_type = UniPCSettings
    state_rows = 1 + MAX_ORDER

    def __init__(self, config: Mapping[str, object], steps: int) -> None:
        settings = read(UniPCSettings, config)
        trained = sigmas.table(betas.alphas_cumprod(settings, settings.rescale_betas_zero_snr))
        self.timesteps, levels = sigmas.respaced_over_all(settings, trained, steps, round_karras=True)
        levels = sigmas.ending_at(levels, 0 if settings.final_sigmas_type == "zero" else trained[0])
        if (np.diff(levels) >= 0).any():
            raise ModelError(
                f"{FILE}: final_sigmas_type sigma_min is not served with respaced sigmas; zero is (it repeats the last)"
            )
        alphas = 1 / np.hypot(levels, 1)
        self._prediction = Prediction(settings.prediction_type, alphas[:-1], (levels * alphas)[:-1])

        self._predictors = np.zeros((steps, 1 + MAX_ORDER), np.float32)  # of latents, denoised newest first
        self._correctors = np.zeros((steps, 2 + MAX_ORDER), np.float32)  # of last latents, denoised, those before
        for index in range(steps):
            left = steps - index if settings.lower_order_final else MAX_ORDER
            order = min(settings.solver_order, left, index + 1)
            weights = _weights(levels, index, order, settings.solver_type == "bh1", corrected=False)
            self._predictors[index, : len(weights)] = weights
            if index + 1 < steps and index not in settings.disable_corrector:
                weights = _weights(levels, index, order, settings.solver_type == "bh1", corrected=True)
                self._correctors[index + 1, : len(weights)] = weights

    def advance(
        self, index: int, model_output: Latents, latents: Latents, state: NDArray[np.float32], draw: Draw
    ) -> Latents:
        """See `Schedule.advance`."""
        before, history = state[0], state[1:]
        denoised = self._prediction.denoised(index, model_output, latents)
        if self._correctors[index].any():
            latents = weighted_sum(self._correctors[index], [before, denoised, *history])
        remember(history, denoised)
        before[:] = latents
        return weighted_sum(self._predictors[index], [latents, *history])


def _weights(levels: NDArray[np.float64], start: int, order: int, bh1: bool, *, corrected: bool) -> NDArray[np.float64]:
    """One step from levels[start] to levels[start + 1] as a linear form.

    Predicting: of the latents at the start and the denoised ones of start, start - 1, ... (`order` of them).
    Correcting: of the latents at the start, the denoised ones of the end, and those as before. Names are the paper's.
    """
    now, after = levels[start], levels[start + 1]
    alpha = 1 / np.hypot(after, 1)
    of_latents = after / now * alpha * np.hypot(now, 1)
    phi_1 = after / now - 1  # expm1(-h)
    if order == 1 and not corrected:
        return np.array([of_latents, -alpha * phi_1])  # all that is left where the end has no noise

    h = np.log(now / after)
    b_h = -h if bh1 else phi_1
    rks = np.append(np.log(now / levels[start - order + 1 : start][::-1]) / h, 1.0)
    phi, b = phi_1 / -h - 1, np.empty(order)
    for i in range(order):
        b[i] = phi * math.factorial(i + 1) / b_h
        phi = phi / -h - 1 / math.factorial(i + 2)
    r = rks ** np.arange(order)[:, None]
    if corrected:
        rhos = np.array([0.5]) if order == 1 else np.linalg.solve(r, b)
    else:
        rhos = np.array([0.5]) if order == 2 else np.linalg.solve(r[:-1, :-1], b[:-1])
    of_history = -alpha * b_h * rhos / rks[: len(rhos)]
    of_newest = -alpha * phi_1 - of_history.sum()
    if corrected:
        return np.concatenate([[of_latents, of_history[-1], of_newest], of_history[:-1]])
    return np.concatenate([[of_latents, of_newest], of_history])
