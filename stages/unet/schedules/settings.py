"""scheduler_config.json as typed fields.

Each schedule extends `Settings` with the fields, and the defaults, of the diffusers class it stands for. A value that
is not honoured is one that its type does not admit or its `__post_init__` refuses.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from stages.core.errors import ModelError
from stages.core.json_file import not_served, shown

PredictionType = Literal["epsilon", "v_prediction", "sample"]
"""The quantity that the U-Net was trained to output: the noise, the velocity, or the denoised latents."""

FILE = "scheduler/scheduler_config.json"
"""File in the model folder that has the fields, for messages."""

S = TypeVar("S", bound="Settings")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The fields every schedule has."""

    num_train_timesteps: Annotated[int, Meta(ge=2, le=1_000_000)] = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: Literal["leading", "linspace", "trailing"] = "leading"
    steps_offset: int = 0


class ClipSettings(Settings, frozen=True, kw_only=True):
    """The fields of schedules that can clip the denoised latents."""

    clip_sample: bool = False
    clip_sample_range: float = 1.0
    thresholding: bool = False

    def __post_init__(self) -> None:
        refuse_thresholding(self.thresholding)

    @property
    def clip(self) -> float | None:
        """Largest magnitude of denoised latents; None where they are not clipped."""
        return self.clip_sample_range if self.clip_sample else None


class DistilledSettings(ClipSettings, frozen=True, kw_only=True):
    """The fields of schedules made for consistency models: diffusers' LCMScheduler and TCDScheduler."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    original_inference_steps: Annotated[int, Meta(ge=1)] = 50
    timestep_scaling: float = 10.0
    rescale_betas_zero_snr: bool = False


class SigmaSettings(Settings, frozen=True, kw_only=True):
    """The fields of schedules that can space their noise levels otherwise than by timestep."""

    timestep_spacing: Literal["leading", "linspace", "trailing"] = "linspace"
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        if self.use_karras_sigmas + self.use_exponential_sigmas + self.use_beta_sigmas > 1:
            raise ValueError("only one of use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas can be true")


def read(kind: type[S], config: Mapping[str, object]) -> S:
    """The fields of `kind` found in `config`, a null taken as absent, and defaults for the rest."""
    said = {key: value for key, value in config.items() if value is not None}
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        raise ModelError(f"{FILE}: {not_served(error, said, kind)}") from error


def refuse(refused: bool, field: str, value: object, served: str) -> None:
    """Raise the error of a field whose value `refused` says is not honoured, with what is; for `__post_init__`."""
    if refused:
        raise ValueError(f"{field} {shown(value)} is not served; {served}")


def refuse_thresholding(value: bool) -> None:
    """Raise the error of a `thresholding` that is true; for `__post_init__`."""
    refuse(value, "thresholding", value, "false is (it was made for pixels, not for latents)")
