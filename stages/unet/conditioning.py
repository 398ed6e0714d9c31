"""Conditions of the U-Net, its inputs besides latents and time: by tensor name, a row for each row of the sequence.

All of it stays the same from the first step of a sequence to its last.
"""

import numpy as np

from stages.core import embeds
from stages.core.arena import Bytes
from stages.core.embeds import Floats
from stages.core.model import ModelCard
from stages.core.tasks import Denoise


def conditioning(task: Denoise, shape: tuple[int, ...], card: ModelCard, payload: Bytes) -> dict[str, Floats]:
    """The constant inputs of the U-Net for a task; prompt embeds, of `shape`, are views of `payload`, not copies."""
    rows = shape[0]
    tokens, pooled = embeds.lay(payload, shape, card.pooled_dim)
    named: dict[str, Floats] = {"encoder_hidden_states": tokens}
    if card.guidance_embed_dim:
        named["timestep_cond"] = np.tile(guidance_embedding(task.guidance_scale, card.guidance_embed_dim), (rows, 1))
    if card.pooled_dim:
        # SDXL's micro-conditioning: original size, top left corner of the crop, target size; height before width.
        size = (task.height, task.width)
        named["text_embeds"] = pooled
        named["time_ids"] = np.tile(np.array([*size, 0, 0, *size], np.float32), (rows, 1))
    return named


def guidance_embedding(guidance_scale: float, dim: int) -> Floats:
    """The sinusoidal embedding, [dim], of the scale w - 1 that a guidance-distilled U-Net is told.

    Luo et al., Latent Consistency Models (2023); sines first, then cosines, of (w - 1) * 1000 at `dim / 2`
    frequencies falling geometrically from 1 to 1e-4.
    """
    half = dim // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * -(np.log(10_000.0) / (half - 1)))
    angles = np.float32((guidance_scale - 1) * 1000.0) * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles), np.zeros(dim % 2)]).astype(np.float32)
