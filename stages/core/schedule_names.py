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
"""The schedule that a `_class_name` of scheduler_config.json means."""
