"""Models and machines that are described and do not exist, small enough for arenas to be cheap."""

import math
from pathlib import Path

import msgspec

from orchestrator.plan import Machine
from stages.core.model import ModelCard, demo_folder, read_card

CARD: ModelCard = msgspec.structs.replace(
    read_card(demo_folder()),
    path=Path("/models/paper"),
    name="paper",
    text_encoders=("text_encoder",),
    embed_dim=8,
    pooled_dim=0,
    zero_negative=False,
    size_step=8,
    native=(64, 64),
    steps=3,
    guidance_scale=7.5,
)
"""Pictures of 64 by 64 pixels, of latents of 4 by 8 by 8, under classifier-free guidance, by DDIM."""

DISTILLED = msgspec.structs.replace(CARD, family="LCM", guidance_embed_dim=256)
"""Its U-Net is told the guidance scale and takes one row an image."""


def machine(cores: int, quota: float = math.inf) -> Machine:
    """A machine of so many cores, numbered from 0."""
    return Machine(frozenset(range(cores)), quota, 1 << 34)
