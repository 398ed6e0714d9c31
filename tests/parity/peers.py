"""The same picture by others: diffusers (torch), optimum-intel and openvino-genai, as [height, width, 3] uint8."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import openvino_genai
import torch
from numpy.typing import NDArray
from optimum.intel import OVDiffusionPipeline

from tests.parity.test_schedules_diffusers import IMPLIED, SPACINGS, THEIRS, split

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a picture is made of. An empty negative prompt is none; `schedule` None is the model's own."""

    prompt: str
    negative_prompt: str = ""
    seed: int
    steps: int
    guidance_scale: float
    schedule: str | None = None
    width: int
    height: int


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = ((one.astype(np.float64) - other) ** 2).mean()
    return math.inf if error == 0 else float(10 * np.log10(255**2 / error))


Peer = Callable[[Ask], Pixels | None]
"""None: this peer has no such schedule."""


def by_diffusers(pipeline: diffusers.DiffusionPipeline) -> Peer:
    """A pipeline of diffusers' classes, whatever runs its modules."""
    own = pipeline.scheduler
    pipeline.set_progress_bar_config(disable=True)

    def picture(ask: Ask) -> Pixels:
        pipeline.scheduler = _scheduler(own, ask.schedule)
        options: dict[str, Any] = {}
        if ask.negative_prompt:
            options["negative_prompt"] = ask.negative_prompt
        (image,) = pipeline(
            ask.prompt,
            num_inference_steps=ask.steps,
            guidance_scale=ask.guidance_scale,
            width=ask.width,
            height=ask.height,
            generator=torch.Generator().manual_seed(ask.seed),
            output_type="pil",
            **options,
        ).images
        return np.asarray(image)

    return picture


def _scheduler(own: diffusers.SchedulerMixin, name: str | None) -> diffusers.SchedulerMixin:
    if name is None:
        return type(own).from_config(own.config)
    stem, suffix = split(name)
    spacing = {field: key == suffix for key, field in SPACINGS.items()} if suffix else {}
    return THEIRS[stem].from_config(own.config, **IMPLIED.get(stem, {}), **spacing)


def torch_f32(folder: Path) -> Peer:
    """diffusers over torch, float32."""
    return by_diffusers(diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True))


def optimum(folder: Path, precision: str) -> Peer:
    """optimum-intel: diffusers' pipeline code over OpenVINO's modules."""
    options = {"INFERENCE_PRECISION_HINT": precision}
    return by_diffusers(OVDiffusionPipeline.from_pretrained(folder, device="CPU", ov_config=options, local_files_only=True))


_GENAI: Mapping[str, openvino_genai.Scheduler.Type] = {
    "ddim": openvino_genai.Scheduler.Type.DDIM,
    "euler": openvino_genai.Scheduler.Type.EULER_DISCRETE,
    "euler_a": openvino_genai.Scheduler.Type.EULER_ANCESTRAL_DISCRETE,
    "lcm": openvino_genai.Scheduler.Type.LCM,
    "pndm": openvino_genai.Scheduler.Type.PNDM,
}


def genai(folder: Path, precision: str) -> Peer:
    """openvino-genai, with torch's noise."""
    pipeline = openvino_genai.Text2ImagePipeline(folder, "CPU", INFERENCE_PRECISION_HINT=precision)
    config = folder / "scheduler" / "scheduler_config.json"

    def picture(ask: Ask) -> Pixels | None:
        kind = openvino_genai.Scheduler.Type.AUTO if ask.schedule is None else _GENAI.get(ask.schedule)
        if kind is None:
            return None
        pipeline.set_scheduler(openvino_genai.Scheduler.from_config(config, kind))
        options: dict[str, Any] = {}
        if ask.negative_prompt:
            options["negative_prompt"] = ask.negative_prompt
        tensor = pipeline.generate(
            ask.prompt,
            num_inference_steps=ask.steps,
            guidance_scale=ask.guidance_scale,
            width=ask.width,
            height=ask.height,
            generator=openvino_genai.TorchGenerator(ask.seed),
            **options,
        )
        return tensor.data[0].copy()

    return picture
