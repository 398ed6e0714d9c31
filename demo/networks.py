"""The three networks, by size, and where their weights lie: diffusers' own folder layout."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from stages.core.model import TOKENS, demo_folder

WIDTH = 4
"""Latent channels."""

GUIDANCE_EMBED = 256
"""Width of the guidance embedding of a distilled U-Net."""


@dataclass(frozen=True)
class Size:
    """The widths of the networks."""

    vae_channels: tuple[int, ...]
    unet_channels: tuple[int, ...]
    head: int
    """Channels of an attention head in the U-Net; its norms have half as many groups."""
    text_width: int
    text_layers: int


FULL = Size((24, 48, 96, 96), (64, 128, 192), head=32, text_width=160, text_layers=3)
"""Size of the embedded model: 14 million parameters."""

TINY = Size((8, 8, 16, 16), (16, 32, 32), head=16, text_width=32, text_layers=1)
"""Size for tests: it learns next to nothing, quickly."""

SIZES = {"full": FULL, "tiny": TINY}


def new_vae(size: Size) -> AutoencoderKL:
    """An untrained VAE, f = 8."""
    depth = len(size.vae_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=size.vae_channels,
        layers_per_block=1,
        latent_channels=WIDTH,
        norm_num_groups=8,
        sample_size=128,
    )


def new_unet(size: Size, distilled: bool = False) -> UNet2DConditionModel:
    """An untrained U-Net for 16 x 16 latents. No attention at 16 x 16: there it cost most and gave least."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=WIDTH,
        out_channels=WIDTH,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=size.unet_channels,
        layers_per_block=1,
        attention_head_dim=tuple(channels // size.head for channels in size.unet_channels),
        norm_num_groups=size.head // 2,
        cross_attention_dim=size.text_width,
        time_cond_proj_dim=GUIDANCE_EMBED if distilled else None,
    )


def new_text_encoder(size: Size, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder for the tokenizer's vocabulary."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.text_width,
        intermediate_size=3 * size.text_width,
        num_hidden_layers=size.text_layers,
        num_attention_heads=max(1, size.text_width // 32),
        max_position_embeddings=TOKENS,
        projection_dim=size.text_width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def load_tokenizer() -> CLIPTokenizer:
    """The embedded model's tokenizer: CLIP's byte-level BPE, with the merges only that the captions use."""
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(demo_folder() / "tokenizer", local_files_only=True)
    return tokenizer


def noise_schedule() -> DDIMScheduler:
    """The embedded model's schedule: SD's scaled-linear betas, v-prediction."""
    schedule: DDIMScheduler = DDIMScheduler.from_pretrained(demo_folder(), subfolder="scheduler")
    return schedule


def load_vae(folder: Path) -> AutoencoderKL:
    """The VAE in `folder`/vae."""
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(folder, subfolder="vae", local_files_only=True)
    return vae


def load_unet(folder: Path) -> UNet2DConditionModel:
    """The U-Net in `folder`/unet."""
    unet: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", local_files_only=True)
    return unet


def load_text_encoder(folder: Path) -> CLIPTextModel:
    """The text encoder in `folder`/text_encoder."""
    text: CLIPTextModel = CLIPTextModel.from_pretrained(
        folder, subfolder="text_encoder", local_files_only=True, dtype=torch.float32
    )
    return text


def fast_on(device: torch.device, unet: UNet2DConditionModel, text: CLIPTextModel) -> None:
    """Choose the attention that trains fastest there: on a CPU, backwards through the fused one is slow."""
    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())
        text.set_attn_implementation("eager")
    unet.to(memory_format=torch.channels_last)
