"""The schedules by the names that users write. The U-Net stage holds what they mean, in stages.unet.schedules."""

from collections.abc import Mapping
from itertools import product
from types import MappingProxyType

_SIGMA_SPACINGS = ("", "_karras", "_exponential", "_beta")

SCHEDULE_NAMES: tuple[str, ...] = (
    "ddim",
    "pndm",
    *map("".join, product(("euler",), _SIGMA_SPACINGS)),
    "euler_a",
    *map("".join, product(("heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "lms"), _SIGMA_SPACINGS)),
    "lcm",
    "tcd",
)

OF_DIFFUSERS: Mapping[str, str] = MappingProxyType(
    {
        "DDIMScheduler": "ddim",
        "PNDMScheduler": "pndm",
        "EulerDiscreteScheduler": "euler",
        "EulerAncestralDiscreteScheduler": "euler_a",
        "HeunDiscreteScheduler": "heun",
        "DPMSolverMultistepScheduler": "dpmpp_2m",
        "UniPCMultistepScheduler": "unipc",
        "LMSDiscreteScheduler": "lms",
        "LCMScheduler": "lcm",
        "TCDScheduler": "tcd",
    }
)
"""The schedule that a `_class_name` of scheduler_config.json means; the same with `Flax` before it, for JAX."""


def own_schedule(config: Mapping[str, object]) -> str | None:
    """The name of the schedule that a scheduler_config.json means by its class; None for one we do not have."""
    class_name = config.get("_class_name")
    name = OF_DIFFUSERS.get(class_name.removeprefix("Flax")) if isinstance(class_name, str) else None
    if name == "dpmpp_2m" and config.get("algorithm_type") == "sde-dpmsolver++":
        return "dpmpp_2m_sde"
    return name


def evaluations(schedule: str, steps: int) -> int:
    """U-Net evaluations that the schedule of this name makes in `steps` steps, which may be more than one a step.

    It is the name that decides, whatever the model's scheduler_config.json says. A name that is not among
    `SCHEDULE_NAMES` counts one a step: it is refused where it would be used.
    """
    if schedule == "heun" or schedule.startswith("heun_"):
        return 2 * steps - 1  # both ends of every step, but for the last one, which ends without noise
    if schedule == "pndm":
        return steps + 1 if steps > 1 else steps  # both ends of the first step, if there is a second one
    return steps
