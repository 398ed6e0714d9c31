"""diffusers over torch, in the same precision as the others, on all cores this process may use."""

import diffusers
import numpy as np
import torch

from benchmarks.comparison.work import Draw, Pixels, Work
from stages.core import cores

_TYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


def load(work: Work) -> Draw:
    """The pipeline."""
    torch.set_num_threads(len(cores.allowed()))
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        work.torch, torch_dtype=_TYPES[work.precision], local_files_only=True
    )
    return drawer(pipeline, work)


def drawer(pipeline: diffusers.DiffusionPipeline, work: Work) -> Draw:
    """One picture after another."""
    pipeline.set_progress_bar_config(disable=True)
    options = work.options()

    def draw(prompt: str, seed: int) -> Pixels:
        generator = torch.Generator().manual_seed(seed)
        return np.asarray(pipeline(prompt, generator=generator, **options).images[0])

    return draw
