"""The facts of a model folder, read from its JSON files alone.

The folders are OpenVINO IR as `optimum-cli export openvino` writes them. Nothing here opens a network.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from stages.core.embeds import Floats
from stages.core.errors import ModelError
from stages.core.json_file import read_json, shown
from stages.core.pipelines import family
from stages.core.single_file import refuse_single_file
from stages.core.size_step import size_step
from stages.core.training_noise import other_noise

TOKENS = 77
"""Tokens of one CLIP chunk, begin and end marks included."""

_STAGES = Path(__file__).parent.parent

EMBEDDED = {"demo": _STAGES / "demo_model", "demo-lcm": _STAGES / "demo_model_lcm"}
"""The models that come with Triptych, by the `model.path` that stands for them: one, and its four-step variant."""


_T = TypeVar("_T")


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that the rest of the program needs to lay out memory and to check requests."""

    path: Path
    name: str
    family: str
    latent_channels: int
    downscale: int
    """Pixels per latent, each way."""
    size_step: int
    """Pixels of which the width and the height of a picture are multiples; one or more latents."""
    text_encoders: tuple[str, ...]
    """Folders of the text encoders; two for SDXL."""
    embed_dim: int
    """Width of the prompt embeds, over all text encoders."""
    pooled_dim: int
    """Width of the pooled prompt embeds that the U-Net also takes; 0 where it takes none."""
    zero_negative: bool
    """Whether an empty negative prompt stands for embeds of zeros (SDXL's `force_zeros_for_empty_prompt`)."""
    native: tuple[int, int]
    """Width and height in pixels the model was trained for."""
    scaling_factor: float
    latents_mean: tuple[float, ...]
    """Mean of the latents by channel; empty for most models, as is `latents_std`."""
    latents_std: tuple[float, ...]
    guidance_embed_dim: int | None
    """Width of the guidance embedding of a distilled U-Net, which then needs no second row; None for the others."""
    scheduler: dict[str, Any]
    """Content of scheduler_config.json, unchecked."""
    schedule: str | None = None
    """Name of the schedule where a request names none; None for the one that `scheduler` means."""
    steps: int
    """Steps where a request names none."""
    guidance_scale: float
    """Guidance scale where a request names none."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders of all models a picture needs."""
        return (*self.text_encoders, "unet", "vae_decoder")

    def to_decoder(self, latents: Floats) -> Floats:
        """The decoder's input [C, h, w] from the U-Net's latents.

        That is x / scaling_factor, or, where the VAE knows the mean and deviation of its latents, x * std /
        scaling_factor + mean. A `shift_factor` is for other families: the pipelines of these do not read it.
        """
        if not (self.latents_mean and self.latents_std):
            return latents / np.float32(self.scaling_factor)
        return latents * self._column(self.latents_std) / np.float32(self.scaling_factor) + self._column(
            self.latents_mean
        )

    def from_decoder(self, latents: Floats) -> Floats:
        """The inverse of `to_decoder`."""
        if not (self.latents_mean and self.latents_std):
            return latents * np.float32(self.scaling_factor)
        return (
            (latents - self._column(self.latents_mean))
            * np.float32(self.scaling_factor)
            / self._column(self.latents_std)
        )

    @staticmethod
    def _column(by_channel: tuple[float, ...]) -> Floats:
        return np.array(by_channel, np.float32)[:, np.newaxis, np.newaxis]

    def rows(self, guidance_scale: float) -> int:
        """Batch rows of one image: a second one, for the negative prompt, only under classifier-free guidance."""
        return 2 if guidance_scale > 1 and self.guidance_embed_dim is None else 1

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """[channels, height, width] of the latents of a picture of `width` x `height` pixels."""
        return (self.latent_channels, height // self.downscale, width // self.downscale)


def ir(folder: Path, part: str) -> Path:
    """The IR of one part of a model folder."""
    return folder / part / "openvino_model.xml"


def read_card(folder: Path) -> ModelCard:
    """Read and check a model folder. Raises ModelError naming the file and what is wrong with it."""
    if not os.path.exists(folder):
        raise ModelError(f"{folder}: no such model folder")
    if any(folder.glob("learned_embeds.*")) and not (folder / "model_index.json").exists():
        raise ModelError(f"{folder}: textual-inversion embeddings, which are not served, and no model")
    refuse_single_file(folder)
    index = read_json(folder / "model_index.json", _Index)
    kind = family(index.class_name, folder)
    if index.requires_aesthetics_score:
        raise ModelError(
            f"{folder / 'model_index.json'}: requires_aesthetics_score true is not served; false is "
            "(a refiner goes on with what a base model has drawn; serve that one)"
        )
    text_encoders = ("text_encoder", "text_encoder_2") if kind == "SDXL" else ("text_encoder",)
    for part in (*text_encoders, "unet", "vae_decoder"):
        _check_weights(ir(folder, part))
    unet = _config(folder / "unet" / "config.json", _Unet, "UNet2DConditionModel")
    vae = _config(folder / "vae_decoder" / "config.json", _Vae, "AutoencoderKL")
    if unet.in_channels != vae.latent_channels:
        raise ModelError(
            f"{folder / 'unet' / 'config.json'}: in_channels {unet.in_channels} is not served; {vae.latent_channels} "
            "is, as the VAE has (this U-Net takes more than latents: it was made to change pictures)"
        )
    file = folder / "generation_config.json"
    generation = read_json(file, _GenerationConfig) if file.is_file() else _GenerationConfig()
    downscale = 2 ** (len(vae.block_out_channels) - 1)
    side = unet.sample_size
    height, width = side if isinstance(side, tuple) else (side, side)
    defaults = _defaults(kind, distilled=unet.time_cond_proj_dim is not None, origin=str(index.name_or_path))
    return ModelCard(
        path=folder,
        name=next((name for name, place in EMBEDDED.items() if place == folder), folder.name),
        family=kind,
        latent_channels=unet.in_channels,
        downscale=downscale,
        size_step=size_step(ir(folder, "unet"), len(unet.block_out_channels or unet.down_block_types), downscale),
        text_encoders=text_encoders,
        embed_dim=unet.cross_attention_dim,
        pooled_dim=_pooled_dim(folder) if unet.addition_embed_type == "text_time" else 0,
        zero_negative=kind == "SDXL" and index.force_zeros_for_empty_prompt,
        native=(width * downscale, height * downscale),
        scaling_factor=vae.scaling_factor or 0.18215,
        latents_mean=vae.latents_mean or (),
        latents_std=vae.latents_std or (),
        guidance_embed_dim=unet.time_cond_proj_dim,
        scheduler=_scheduler(folder / "scheduler" / "scheduler_config.json"),
        steps=defaults.steps if generation.num_inference_steps is UNSET else generation.num_inference_steps,
        guidance_scale=defaults.guidance_scale if generation.guidance_scale is UNSET else generation.guidance_scale,
    )


class _Defaults(NamedTuple):
    """Steps and guidance scale of requests that name none, where the folder has no generation_config.json."""

    steps: int
    guidance_scale: float


_TURBO = re.compile(r"(?<![a-z])sd(xl)?-turbo(?![a-z])", re.IGNORECASE)
"""Pattern of a Turbo model's origin. Nothing else in their folders tells them from the models they were made of."""


def _defaults(kind: str, *, distilled: bool, origin: str) -> _Defaults:
    """The guidance scale of diffusers' pipelines, and steps as the models are used.

    Turbo models were trained without guidance and for one to four steps, as their cards say.
    """
    if distilled:
        return _Defaults(4, 8.5)
    if _TURBO.search(origin):
        return _Defaults(4, 0.0)
    return _Defaults(25, 5.0 if kind == "SDXL" else 7.5)


def _config(path: Path, kind: type[_T], class_name: str) -> _T:
    """The config.json of a part, which has to be of diffusers' class `class_name` if it says of which it is.

    That of optimum-intel's own part (`OVModelUnet`) tells only what the folder holds.
    """
    found = read_json(path, _Part).class_name
    if found not in (None, class_name, f"Flax{class_name}") and not str(found).startswith("OVModel"):
        raise ModelError(f"{path}: _class_name {shown(found)} is not served; {class_name} is")
    return read_json(path, kind)


def _scheduler(path: Path) -> dict[str, Any]:
    config = read_json(path, dict[str, Any])
    if (other := other_noise(config)) is not None:
        raise ModelError(
            f"{path}: {other} is not served, nor by another schedule: the model was trained with another kind of noise"
        )
    return config


def _pooled_dim(folder: Path) -> int:
    return read_json(folder / "text_encoder_2" / "config.json", _TextEncoder2).projection_dim


def demo_folder() -> Path:
    """Folder of the embedded model."""
    return EMBEDDED["demo"]


_Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]


class _Index(msgspec.Struct, frozen=True):
    """The keys of model_index.json that are read; here and below, all others are ignored."""

    class_name: Any = msgspec.field(name="_class_name", default=None)
    name_or_path: Any = msgspec.field(name="_name_or_path", default=None)
    """Hub id, or folder, that the model was exported from."""
    force_zeros_for_empty_prompt: bool = True
    """Default of StableDiffusionXLPipeline, which alone has the key."""
    requires_aesthetics_score: bool = False


class _Part(msgspec.Struct, frozen=True):
    """The key of the U-Net's and the VAE's config.json that is read before all others."""

    class_name: Any = msgspec.field(name="_class_name", default=None)


_Blocks = Annotated[tuple[Any, ...], msgspec.Meta(max_length=8)]


class _Unet(msgspec.Struct, frozen=True):
    """The keys of unet/config.json that are read."""

    # Not tuple[_Size, _Size]: beside a bounded int, that makes msgspec 0.22.0 crash in garbage collection.
    sample_size: _Size | Annotated[tuple[_Size, ...], msgspec.Meta(min_length=2, max_length=2)]
    cross_attention_dim: _Size
    in_channels: _Size = 4
    addition_embed_type: str | None = None
    time_cond_proj_dim: _Size | None = None
    block_out_channels: _Blocks = ()
    down_block_types: _Blocks = ()


class _Vae(msgspec.Struct, frozen=True):
    """The keys of vae_decoder/config.json that are read."""

    block_out_channels: Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=8)]
    latent_channels: _Size = 4
    scaling_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None


class _TextEncoder2(msgspec.Struct, frozen=True):
    """The keys of text_encoder_2/config.json that are read."""

    projection_dim: _Size


class _GenerationConfig(msgspec.Struct, frozen=True):
    """The keys of generation_config.json that are read."""

    num_inference_steps: _Size | UnsetType = UNSET
    guidance_scale: float | UnsetType = UNSET


_EXTENT = re.compile(rb'offset="(\d+)" size="(\d+)"')


def _check_weights(xml: Path) -> None:
    """Refuse an IR that is cut short, or whose weights are: OpenVINO would map those and die of SIGBUS later."""
    weights = xml.with_suffix(".bin")
    try:
        graph = xml.read_bytes()
        size = weights.stat().st_size
    except OSError as error:
        raise ModelError(f"{error.filename}: {error.strerror}") from error
    if not graph.rstrip().endswith(b"</net>"):
        raise ModelError(f"{xml}: cut short, or no OpenVINO IR; copy or export it again")
    needed = max((int(offset) + int(size) for offset, size in _EXTENT.findall(graph)), default=0)
    if size < needed:
        raise ModelError(f"{weights}: cut short: {size:,} bytes, {needed:,} needed; copy or export it again")
