"""The families of models that are served, each as a tiny random architecture in diffusers' own classes.

They differ from the models people use in size alone: layers, wiring, configuration files and tokenizers are as in
the repositories that `like` names, with 32 channels in place of 320 and pictures of 64 pixels.
"""

import json
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.parity.random_weights import enliven

TOKENIZER = Path(__file__).parents[2] / "stages" / "demo_model" / "tokenizer"
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
SIDE = 64
"""Pixels the models are made for, each way."""

Pipeline = diffusers.DiffusionPipeline
Config = dict[str, Any]

BETAS: Config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class Family:
    """One family and how its pictures are asked for."""

    name: str
    like: str
    """A model of this family, by its hub id."""
    build: Callable[[], Pipeline]
    schedules: tuple[str | None, ...] = (None, "ddim", "euler", "dpmpp_2m")
    """Names as in a request; None is the folder's own."""
    steps: int = 8
    guidance_scale: float = 5.0
    size: tuple[int, int] = (SIDE, SIDE)
    """Width and height of the pictures asked for."""
    seed: int = 7
    exported: tuple[str, ...] = field(default=())
    """What `tests.parity.older_export` does to the exported folder, by the names of its functions."""


def tokenizer(pad: str = END) -> CLIPTokenizer:
    """The embedded model's tokenizer, padding with another token."""
    graph = json.loads((TOKENIZER / "tokenizer.json").read_text())
    graph["padding"] |= {"pad_token": pad, "pad_id": graph["model"]["vocab"][pad]}
    config = json.loads((TOKENIZER / "tokenizer_config.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tokenizer.json").write_text(json.dumps(graph))
        Path(folder, "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": pad}))
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def text_config(hidden: int, layers: int = 2, **more: object) -> CLIPTextConfig:
    """A CLIP text encoder over the embedded model's vocabulary."""
    vocabulary = json.loads((TOKENIZER / "tokenizer.json").read_text())["model"]["vocab"]
    return CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=vocabulary[BEGIN],
        eos_token_id=vocabulary[END],
        **({"pad_token_id": vocabulary[END], "projection_dim": hidden} | more),
    )


def unet(context: int, **more: object) -> diffusers.UNet2DConditionModel:
    """A U-Net of two levels, cross-attention on the upper one."""
    wiring: Config = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "sample_size": SIDE // 8,
    }
    return diffusers.UNet2DConditionModel(cross_attention_dim=context, **(wiring | more))


def vae(**more: object) -> diffusers.AutoencoderKL:
    """An autoencoder of four levels, so 8 pixels a latent, as in all these families."""
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=SIDE,
        **more,
    )


def stable_diffusion_1(**of_vae: object) -> Pipeline:
    return diffusers.StableDiffusionPipeline(
        vae=vae(**of_vae),
        text_encoder=CLIPTextModel(text_config(48)),
        tokenizer=tokenizer(),
        unet=unet(48),
        scheduler=diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_2(scheduler: diffusers.SchedulerMixin) -> Pipeline:
    """As many channels a head on every level, linear projections, an OpenCLIP text encoder that pads with `!`."""
    return diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config(64, hidden_act="gelu", projection_dim=32)),
        tokenizer=tokenizer(pad="!"),
        unet=unet(64, attention_head_dim=(4, 8), use_linear_projection=True),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_21() -> Pipeline:
    return stable_diffusion_2(
        diffusers.DDIMScheduler(
            **BETAS, prediction_type="v_prediction", steps_offset=1, set_alpha_to_one=False, clip_sample=False
        )
    )


def sd_turbo() -> Pipeline:
    return stable_diffusion_2(diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing", steps_offset=1))


def latent_consistency() -> Pipeline:
    """A U-Net that is told the guidance scale."""
    return diffusers.LatentConsistencyModelPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config(48)),
        tokenizer=tokenizer(),
        unet=unet(48, time_cond_proj_dim=256),
        scheduler=diffusers.LCMScheduler(**BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(scheduler: diffusers.SchedulerMixin, **of_vae: object) -> Pipeline:
    """Two text encoders side by side, the second one with a projection; picture sizes among the conditions."""
    first, second, projected, of_size = 48, 64, 40, 8
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(**({"scaling_factor": 0.13025} | of_vae)),
        text_encoder=CLIPTextModel(text_config(first, layers=3)),
        text_encoder_2=CLIPTextModelWithProjection(
            text_config(second, layers=3, hidden_act="gelu", projection_dim=projected)
        ),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(pad="!"),
        unet=unet(
            first + second,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),
            attention_head_dim=(4, 8),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=of_size,
            projection_class_embeddings_input_dim=projected + 6 * of_size,
        ),
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def sdxl() -> Pipeline:
    return stable_diffusion_xl(diffusers.EulerDiscreteScheduler(**BETAS, steps_offset=1))


def sdxl_turbo() -> Pipeline:
    return stable_diffusion_xl(
        diffusers.EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing="trailing", steps_offset=1)
    )


FAMILIES = {
    family.name: family
    for family in (
        Family("sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5", stable_diffusion_1),
        Family("sd21", "stabilityai/stable-diffusion-2-1", stable_diffusion_21),
        Family("sd-turbo", "stabilityai/sd-turbo", sd_turbo, steps=1, guidance_scale=0.0),
        Family("lcm", "SimianLuo/LCM_Dreamshaper_v7", latent_consistency, (None,), steps=4, guidance_scale=8.0),
        Family("sdxl", "stabilityai/stable-diffusion-xl-base-1.0", sdxl),
        Family("sdxl-turbo", "stabilityai/sdxl-turbo", sdxl_turbo, steps=4, guidance_scale=0.0),
    )
}


def save(family: Family, folder: Path) -> Path:
    """Build `family` with its own fixed seed and write it as a diffusers folder."""
    torch.manual_seed(zlib.crc32(family.name.encode()))
    pipeline = family.build()
    pipeline.set_progress_bar_config(disable=True)
    enliven(pipeline)
    pipeline.save_pretrained(folder)
    return folder
