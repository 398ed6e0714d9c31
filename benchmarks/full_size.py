"""The making of full-size models: the tiny families of tests/parity, with the sizes of the models they stand for.

Their wiring, schedulers and tokenizer are those of the families; so are the scaling of the weights and the export.
"""

import zlib
from pathlib import Path

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from tests.parity.embedded import embedded_pipeline
from tests.parity.export import export_openvino
from tests.parity.families import FAMILIES, Pipeline
from tests.parity.random_weights import rescale_weights

UNET = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "cross_attention_dim": 768,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
"""Keys of unet/config.json of Stable Diffusion 1.5 that differ from the family's."""

VAE = {"sample_size": 512, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32}
"""Keys of vae/config.json, likewise."""

TEXT = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
"""Keys of text_encoder/config.json, likewise. The embedded model's tokenizer uses the first few hundred words only."""


def draw_weights(name: str, folder: Path) -> None:
    """Save family `name` at full size, with random weights, for diffusers in float16."""
    torch.manual_seed(zlib.crc32(name.encode()))
    pipeline = _full_size(name)
    rescale_weights(pipeline)
    pipeline.to(torch.float16).save_pretrained(folder)


def export(torch_folder: Path, folder: Path) -> None:
    """Save a model as OpenVINO IR in float16, part by part, from the 16-bit weights."""
    export_openvino(torch_folder, folder, "fp16")


def read_back(folder: Path) -> None:
    """Save the embedded model for diffusers."""
    embedded_pipeline().save_pretrained(folder)


def _full_size(name: str) -> Pipeline:
    build = FAMILIES[name].build
    assert build is not None, f"{name} has the weights of another family"
    tiny = build()
    parts = tiny.components | {
        "unet": diffusers.UNet2DConditionModel.from_config(tiny.unet.config, **UNET),
        "vae": diffusers.AutoencoderKL.from_config(tiny.vae.config, **VAE),
        "text_encoder": CLIPTextModel(CLIPTextConfig.from_dict(tiny.text_encoder.config.to_dict() | TEXT)),
    }
    pipeline = type(tiny)(**parts, requires_safety_checker=False)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
