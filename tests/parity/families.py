"""The families of models that are served, each as a tiny random architecture in diffusers' own classes.

They differ from the models people use in size alone: wiring, configuration files, schedulers and tokenizers are as in
the repositories that `like` names, with 32 channels in place of 320 and pictures of 64 pixels.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import diffusers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from stages.core.model import EMBEDDED, demo_folder
from tests.parity.embedded import embedded_pipeline

TOKENIZER = demo_folder() / "tokenizer"
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
SIDE = 64
"""Pixels the random models are made for, each way."""

Pipeline: TypeAlias = diffusers.DiffusionPipeline
Config = dict[str, Any]

_BETAS: Config = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "num_train_timesteps": 1000,
    "clip_sample": False,
}
_STABILITY: Config = _BETAS | {"set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}
_TURBO: Config = _STABILITY | {"timestep_spacing": "trailing", "prediction_type": "epsilon"}
"""scheduler_config.json of the models, as their repositories have it."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family and how its pictures are asked for."""

    name: str
    like: str
    """A model of this family, by its hub id, or what is peculiar to it."""
    build: Callable[[], Pipeline] | None = None
    """None: it has the weights of `weights_of`."""
    weights_of: str = ""
    scheduler: tuple[type[diffusers.SchedulerMixin], Config] | None = None
    """What takes the place of the scheduler of `weights_of`."""
    vae: Config | None = None
    """What changes in the VAE's config.json of `weights_of`."""
    older: bool = False
    """Exported as years ago, see tests.parity.older_export."""
    exported: Path | None = None
    """An OpenVINO folder that is there already."""
    side: int = SIDE
    """Pixels of the pictures asked for, each way."""
    schedules: tuple[str | None, ...] = (None, "ddim", "euler", "dpmpp_2m")
    """Names as in a request; None is the folder's own."""
    steps: int = 8
    guidance_scale: float = 5.0
    negative_prompts: bool = True
    """Whether diffusers' pipeline takes one."""
    more_prompts: tuple[str, ...] = ("a cat",)
    """Asked for beside the usual one."""
    without_genai: str = ""
    """Why openvino-genai is not asked."""
    genai_at_another_size: str = ""
    """Why openvino-genai is asked for square pictures only."""


def stable_diffusion_1() -> Pipeline:
    return diffusers.StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(48)),
        tokenizer=_tokenizer(),
        unet=_unet(48),
        scheduler=diffusers.PNDMScheduler.from_config(_STABILITY),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_2() -> Pipeline:
    """Heads of equal size on every level, linear projections, an OpenCLIP text encoder that pads with `!`."""
    return diffusers.StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(64, hidden_act="gelu", projection_dim=32)),
        tokenizer=_tokenizer(pad="!"),
        unet=_unet(64, attention_head_dim=(4, 8), use_linear_projection=True),
        scheduler=diffusers.DDIMScheduler.from_config(_STABILITY | {"prediction_type": "v_prediction"}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def latent_consistency() -> Pipeline:
    """A U-Net that is told the guidance scale."""
    return diffusers.LatentConsistencyModelPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(48)),
        tokenizer=_tokenizer(),
        unet=_unet(48, time_cond_proj_dim=256),
        scheduler=diffusers.LCMScheduler.from_config(_BETAS | {"original_inference_steps": 50}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl() -> Pipeline:
    """Two text encoders side by side, the second one with a projection; picture sizes among the conditions."""
    first, second, projected, of_size = 48, 64, 40, 8
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(scaling_factor=0.13025),
        text_encoder=CLIPTextModel(_text_config(first, layers=3)),
        text_encoder_2=CLIPTextModelWithProjection(
            _text_config(second, layers=3, hidden_act="gelu", projection_dim=projected)
        ),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(pad="!"),
        unet=_unet(
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
        scheduler=diffusers.EulerDiscreteScheduler.from_config(_STABILITY | {"timestep_spacing": "leading"}),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _tokenizer(pad: str = END) -> CLIPTokenizer:
    """The embedded model's tokenizer, padding with `pad`."""
    graph = json.loads((TOKENIZER / "tokenizer.json").read_text())
    graph["padding"] |= {"pad_token": pad, "pad_id": graph["model"]["vocab"][pad]}
    config = json.loads((TOKENIZER / "tokenizer_config.json").read_text()) | {"pad_token": pad}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tokenizer.json").write_text(json.dumps(graph))
        Path(folder, "tokenizer_config.json").write_text(json.dumps(config))
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        return tokenizer


def _text_config(hidden: int, layers: int = 2, **more: Any) -> CLIPTextConfig:
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
        pad_token_id=vocabulary[END],
        **({"projection_dim": hidden} | more),
    )


def _unet(context: int, **more: object) -> diffusers.UNet2DConditionModel:
    """A U-Net of two levels, cross-attention on the upper one."""
    wiring: dict[str, object] = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "sample_size": SIDE // 8,
    }
    return diffusers.UNet2DConditionModel(cross_attention_dim=context, **(wiring | more))


def _vae(**more: object) -> diffusers.AutoencoderKL:
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


EVERY_SCHEDULE = (
    *("ddim", "pndm", "euler", "euler_a", "heun", "lms", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "lcm", "tcd"),
    *("dpmpp_2m_karras", "euler_karras", "euler_exponential", "unipc_beta"),
)
_OTHER_VAE = "it adds shift_factor, which diffusers leaves out for these families, and leaves out latents_mean"
_SDXL_SIZE = "it gives the U-Net width before height"

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="embedded",
            like="the model that Triptych brings, trained",
            build=embedded_pipeline,
            exported=EMBEDDED["demo"],
            side=128,
            schedules=(None, "euler", "dpmpp_2m"),
            steps=25,
            guidance_scale=4.0,
            more_prompts=("a sketch of a castle at sunset", "a cat in the snow"),
        ),
        Family(
            name="embedded-lcm",
            like="its four-step variant, trained",
            build=partial(embedded_pipeline, EMBEDDED["demo-lcm"]),
            exported=EMBEDDED["demo-lcm"],
            side=128,
            schedules=(None,),
            steps=4,
            guidance_scale=4.0,
            negative_prompts=False,
            more_prompts=("a sketch of a castle at sunset", "a cat in the snow"),
            without_genai="its LCM scheduler crashes on v_prediction",
        ),
        Family(
            name="sd15",
            like="stable-diffusion-v1-5/stable-diffusion-v1-5",
            build=stable_diffusion_1,
            schedules=(None, *EVERY_SCHEDULE),
        ),
        Family(
            name="sd15-older",
            like="an export of 2023",
            weights_of="sd15",
            older=True,
            schedules=(None, "ddim", "euler"),
            without_genai="it takes neither 32-bit token ids nor one timestep for all rows",
        ),
        Family(
            name="sd15-vae",
            like="an SD 1.5 with a VAE of another scale and shift",
            weights_of="sd15",
            vae={"scaling_factor": 0.6, "shift_factor": 5.0},
            schedules=("ddim", "euler", "unipc"),
            without_genai=_OTHER_VAE,
        ),
        Family(
            name="sd21",
            like="stabilityai/stable-diffusion-2-1",
            build=stable_diffusion_2,
            schedules=(None, "euler", "dpmpp_2m", "unipc"),
        ),
        Family(
            name="sd-turbo",
            like="stabilityai/sd-turbo",
            weights_of="sd21",
            scheduler=(diffusers.EulerDiscreteScheduler, _TURBO),
            schedules=(None, "ddim", "dpmpp_2m"),
            steps=1,
            guidance_scale=0.0,
        ),
        Family(
            name="lcm",
            like="SimianLuo/LCM_Dreamshaper_v7",
            build=latent_consistency,
            schedules=(None,),
            steps=4,
            guidance_scale=8.0,
            negative_prompts=False,
        ),
        Family(
            name="sdxl",
            like="stabilityai/stable-diffusion-xl-base-1.0",
            build=stable_diffusion_xl,
            genai_at_another_size=_SDXL_SIZE,
        ),
        Family(
            name="sdxl-turbo",
            like="stabilityai/sdxl-turbo",
            weights_of="sdxl",
            scheduler=(diffusers.EulerAncestralDiscreteScheduler, _TURBO),
            schedules=(None, "ddim", "euler"),
            steps=4,
            guidance_scale=0.0,
            genai_at_another_size=_SDXL_SIZE,
        ),
        Family(
            name="sdxl-vae",
            like="an SDXL with a VAE whose latents are centred by channel",
            weights_of="sdxl",
            vae={"latents_mean": [5.0, -3.0, 2.0, -1.0], "latents_std": [0.5, 2.0, 0.8, 1.5]},
            schedules=("ddim", "euler", "unipc"),
            without_genai=_OTHER_VAE,
        ),
    )
}
