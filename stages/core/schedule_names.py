"""The schedules by the names that users write. The U-Net stage holds what they mean, in stages.unet.schedules."""

from itertools import product

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
