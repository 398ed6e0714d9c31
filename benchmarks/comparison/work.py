"""The pictures that all systems are asked for."""

import itertools
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.core.model import read_card

Pixels = NDArray[np.uint8]
"""Pixels of a picture, [height, width, 3], 0 to 255."""

Draw = Callable[[str, int], Pixels]
"""Draws the picture of a prompt and a seed."""

NEGATIVE = "low resolution, blurry"

_STYLES = ("a photo of", "a sketch of", "pixel art of", "a watercolor of")
_RIDERS = ("an astronaut", "a robot", "a cat", "a dog", "a princess", "a penguin", "a wizard", "a bear", "a frog")
_MOUNTS = ("a horse", "a unicorn", "a dragon", "an elephant", "a whale", "a bicycle", "a rocket", "a turtle")
_PLACES = ("on mars", "on the moon", "in space", "in the desert", "in a forest", "in the snow", "at sunset")
_SCENES = tuple(
    f"{style} {rider} riding {mount} {place}"
    for place, mount, rider, style in itertools.product(_PLACES, _MOUNTS, _RIDERS, _STYLES)
)


def prompt(number: int) -> str:
    """The prompt of picture `number`, whose seed is its number. Two thousand pass before one comes again."""
    return _SCENES[number % len(_SCENES)]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of picture, and the model that draws it."""

    model: str
    """Folder of the model in OpenVINO's format."""
    torch: str | None
    """Folder of the same weights as diffusers reads them, if there is one."""
    width: int
    height: int
    steps: int
    guidance_scale: float
    negative_prompt: str
    """Negative prompt; empty where the model takes none."""
    precision: str
    """Inference precision: bf16 or f32."""

    def options(self) -> dict[str, object]:
        """The options of a picture, by the names that diffusers' pipelines and GenAI's have for them."""
        negative = {"negative_prompt": self.negative_prompt} if self.negative_prompt else {}
        return negative | {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "width": self.width,
            "height": self.height,
        }


def work(model: Path, torch: Path | None, steps: int | None, guidance_scale: float | None, precision: str) -> Work:
    """The work for a model folder; None is what the folder says. Raises ModelError if it cannot be run."""
    card = read_card(model)
    guidance = card.guidance_scale if guidance_scale is None else guidance_scale
    return Work(
        model=str(model),
        torch=None if torch is None else str(torch),
        width=card.native[0],
        height=card.native[1],
        steps=steps or card.steps,
        guidance_scale=guidance,
        negative_prompt=NEGATIVE if card.rows(guidance) > 1 else "",
        precision=precision,
    )


def native_precision(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Precision that OpenVINO computes in on this CPU unless told otherwise."""
    flags = cpuinfo.read_text().split()
    return "bf16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "f32"
