"""DPM-Solver++(2M), arXiv 2211.01095, algorithm 2."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from stages.unet.schedules import betas, sigmas
from stages.unet.schedules.base import Draw, Latents, Schedule, remember, weighted_sum
from stages.unet.schedules.prediction import Prediction
from stages.unet.schedules.settings import SigmaSettings, read, refuse, refuse_thresholding


class DpmSettings(SigmaSettings, frozen=True, kw_only=True):
    """The fields of diffusers' DPMSolverMultistepScheduler."""

    solver_order: Literal[1, 2] = 2
    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++", "deis"] = "dpmsolver++"
    solver_type: Literal["midpoint", "heun", "logrho", "bh1", "bh2"] = "midpoint"
    """Form of the second-order step; the names of other solvers mean midpoint, as in diffusers."""
    lower_order_final: bool = True
    euler_at_final: bool = False
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    rescale_betas_zero_snr: bool = False
    thresholding: bool = False
    use_lu_lambdas: bool = False
    use_flow_sigmas: bool = False
    lambda_min_clipped: float = -np.inf
    variance_type: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_thresholding(self.thresholding)
        refuse(self.use_lu_lambdas, "use_lu_lambdas", True, "false is")
        refuse(self.use_flow_sigmas, "use_flow_sigmas", True, "false is")
        refuse(self.lambda_min_clipped > -np.inf, "lambda_min_clipped", self.lambda_min_clipped, "-Infinity is")
        learned = self.variance_type in ("learned", "learned_range")
        refuse(learned, "variance_type", self.variance_type, "null is, or one that is fixed")


class Dpmpp2M(Schedule):
    """Extrapolates the denoised latents of the last two evaluations; exact in what is linear in log sigma.

    State: the last denoised latents.
    """

    name = "dpmpp_2m"
    settings_type = DpmSettings
    state_rows = 1
    stochastic: ClassVar[bool] = False

    def __init__(self, config: Mapping[str, object], steps: int) -> None:
        settings = read(DpmSettings, config)
        trained = sigmas.table(betas.alphas_cumprod(settings, settings.rescale_betas_zero_snr))
        round_karras = settings.beta_schedule != "squaredcos_cap_v2"
        self.timesteps, levels = sigmas.respaced_over_all(settings, trained, steps, round_karras=round_karras)
        levels = sigmas.ending_at(levels, 0 if settings.final_sigmas_type == "zero" else trained[0])
        now, after = levels[:-1], levels[1:]
        alphas = 1 / np.hypot(levels, 1)
        self._prediction = Prediction(settings.prediction_type, alphas[:-1], now * alphas[:-1])

        rate = 2 if self.stochastic else 1  # at which latents are forgotten
        kept = after / now  # exp(-h), where h is the step in log sigma
        decay = kept**rate
        of_newest = alphas[1:] * (1 - decay)
        of_slope = np.zeros(steps)
        second = _second_order(settings, steps) & (after < now)
        length = -np.log(kept[second])
        if settings.solver_type == "heun":
            of_slope[second] = alphas[1:][second] - of_newest[second] / (rate * length)
        else:
            of_slope[second] = of_newest[second] / 2
        length_before = np.log(now[:-1] / now[1:])
        of_slope[second] *= length / length_before[second[1:]]
        of_latents = alphas[1:] / alphas[:-1] * decay
        self._weights = np.stack([of_latents, of_newest + of_slope, -of_slope], axis=1).astype(np.float32)
        self._fresh = (alphas[1:] * after * np.sqrt(1 - kept**2)).astype(np.float32)

    def advance(
        self, index: int, model_output: Latents, latents: Latents, state: NDArray[np.float32], draw: Draw
    ) -> Latents:
        """See `Schedule.advance`."""
        denoised = self._prediction.denoised(index, model_output, latents)
        result = weighted_sum(self._weights[index], [latents, denoised, state[0]])
        remember(state, denoised)
        if self.stochastic:
            result += self._fresh[index] * draw()
        return result

    def draws_before(self, index: int) -> int:
        """See `Schedule.draws_before`."""
        return index if self.stochastic else 0


def _second_order(settings: DpmSettings, steps: int) -> NDArray[np.bool_]:
    """Whether each step is of second order, [steps]. The first has nothing to extrapolate from."""
    second = np.full(steps, settings.solver_order == 2)
    second[0] = False
    if settings.euler_at_final or settings.final_sigmas_type == "zero" or (settings.lower_order_final and steps < 15):
        second[-1] = False
    return second
