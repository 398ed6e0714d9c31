"""The same picture by others: diffusers (over torch), optimum-intel and openvino-genai."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import openvino_genai
import torch
from numpy.typing import NDArray
from optimum.intel import OVDiffusionPipeline

from tests.parity.ask import Ask
from tests.parity.test_schedules_diffusers import IMPLIED, SPACINGS, THEIRS, split

Pixels = NDArray[np.uint8]
"""[height, width, 3]."""

Peer = Callable[[Ask], Pixels]


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = ((one.astype(np.float64) - other) ** 2).mean()
    return math.inf if error == 0 else float(10 * np.log10(255**2 / error))


def over_torch(folder: Path) -> Peer:
    """diffusers, in float32."""
    return _diffusers(
        diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    )


def over_openvino(folder: Path, precision: str) -> Peer:
    """optimum-intel: diffusers' pipeline code, OpenVINO's modules."""
    options = {"INFERENCE_PRECISION_HINT": precision}
    pipeline = OVDiffusionPipeline.from_pretrained(str(folder), device="CPU", ov_config=options, local_files_only=True)
    return _diffusers(pipeline)


def _diffusers(pipeline: diffusers.DiffusionPipeline) -> Peer:
    own = pipeline.scheduler
    pipeline.set_progress_bar_config(disable=True)

    def picture(ask: Ask) -> Pixels:
        pipeline.scheduler = _scheduler(own, ask.schedule)
        options = _options(ask)
        if ask.guidance_rescale:
            options["guidance_rescale"] = ask.guidance_rescale
        if ask.clip_skip:
            options["clip_skip"] = ask.clip_skip
        if ask.schedule == "tcd":
            options["eta"] = 0.3  # the share of fresh noise in the guide to TCD; unless told so, the pipelines pass 0
        generator = torch.Generator().manual_seed(ask.seed)
        return np.asarray(pipeline(ask.prompt, generator=generator, **options).images[0])

    return picture


def _scheduler(own: diffusers.SchedulerMixin, name: str | None) -> diffusers.SchedulerMixin:
    if name is None:
        return type(own).from_config(own.config)
    stem, suffix = split(name)
    spacing = {field: key == suffix for key, field in SPACINGS.items()} if suffix else {}
    return THEIRS[stem].from_config(own.config, **IMPLIED.get(stem, {}), **spacing)


def _options(ask: Ask) -> dict[str, Any]:
    negative = {"negative_prompt": ask.negative_prompt} if ask.negative_prompt else {}
    return negative | {
        "num_inference_steps": ask.steps,
        "guidance_scale": ask.guidance_scale,
        "width": ask.width,
        "height": ask.height,
    }


GENAI_SCHEDULES: Mapping[str | None, openvino_genai.Scheduler.Type] = {
    None: openvino_genai.Scheduler.Type.AUTO,
    "ddim": openvino_genai.Scheduler.Type.DDIM,
    "euler": openvino_genai.Scheduler.Type.EULER_DISCRETE,
}


def genai(folder: Path, precision: str) -> Peer:
    """openvino-genai, with torch's noise. It cuts colours down to whole numbers where the others round."""
    pipeline = openvino_genai.Text2ImagePipeline(folder, "CPU", INFERENCE_PRECISION_HINT=precision)
    config = folder / "scheduler" / "scheduler_config.json"

    def picture(ask: Ask) -> Pixels:
        pipeline.set_scheduler(openvino_genai.Scheduler.from_config(config, GENAI_SCHEDULES[ask.schedule]))
        generator = openvino_genai.TorchGenerator(ask.seed)
        pixels: Pixels = pipeline.generate(ask.prompt, generator=generator, **_options(ask)).data[0].copy()
        return pixels

    return picture
