"""Models and machines that exist on paper only, small enough for arenas to be cheap."""

import math
from pathlib import Path

import msgspec

from orchestrator.plan import Machine
from stages.core.model import ModelCard

CARD = ModelCard(
    path=Path("/models/paper"),
    name="paper",
    family="SD",
    latent_channels=4,
    downscale=8,
    embed_dim=8,
    native=(64, 64),
    scaling_factor=0.18215,
    shift_factor=0.0,
    guidance_embed_dim=None,
    scheduler={"_class_name": "DDIMScheduler"},
    steps=3,
    guidance_scale=7.5,
)

DISTILLED = msgspec.structs.replace(CARD, family="LCM", guidance_embed_dim=256)
"""Its U-Net is told the guidance scale and takes one row an image."""


def machine(cores: int, quota: float = math.inf) -> Machine:
    """A machine of so many cores, numbered from 0."""
    return Machine(frozenset(range(cores)), quota, 1 << 34)
