"""What a model folder says about itself, read from its JSON files alone.

The folders are OpenVINO IR as `optimum-cli export openvino` writes them. Nothing here opens a network.
"""

import re
from pathlib import Path
from typing import Any

import msgspec

from stages.core.errors import ModelError

TOKENS = 77
"""Tokens of one CLIP window, begin and end marks included."""

PIPELINES = {
    "StableDiffusionPipeline": "SD",
    "LatentConsistencyModelPipeline": "LCM",
    "StableDiffusionXLPipeline": "SDXL",
}
"""`_class_name` of the folders that can be run, with the family's short name."""


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that the rest of the program needs to lay out memory and to check requests."""

    path: Path
    name: str
    family: str
    latent_channels: int
    downscale: int
    """Pixels per latent, each way."""
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
    shift_factor: float
    guidance_embed_dim: int | None
    """Width of the guidance embedding of a distilled U-Net, which then needs no second row; None for the others."""
    scheduler: dict[str, Any]
    """scheduler_config.json, as it is."""
    steps: int
    """Steps where a request names none."""
    guidance_scale: float
    """Guidance scale where a request names none."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders of all models a picture needs."""
        return (*self.text_encoders, "unet", "vae_decoder")

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
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder")
    index = _json(folder / "model_index.json")
    pipeline = str(index.get("_class_name"))
    if pipeline not in PIPELINES:
        known = ", ".join(PIPELINES)
        raise ModelError(f"{folder}: this is a {pipeline} model; those that can be run are {known}")
    text_encoders = ("text_encoder", "text_encoder_2") if PIPELINES[pipeline] == "SDXL" else ("text_encoder",)
    for part in (*text_encoders, "unet", "vae_decoder"):
        _check_weights(ir(folder, part))
    unet = _json(folder / "unet" / "config.json")
    vae = _json(folder / "vae_decoder" / "config.json")
    generation = folder / "generation_config.json"
    defaults = _json(generation) if generation.is_file() else {}
    downscale = 2 ** (len(_need(vae, "block_out_channels", folder / "vae_decoder")) - 1)
    side = _need(unet, "sample_size", folder / "unet")
    height, width = side if isinstance(side, list) else (side, side)
    distilled = unet.get("time_cond_proj_dim")
    return ModelCard(
        path=folder,
        name="demo" if folder == demo_folder() else folder.name,
        family=PIPELINES[pipeline],
        latent_channels=int(unet.get("in_channels", 4)),
        downscale=downscale,
        text_encoders=text_encoders,
        embed_dim=int(_need(unet, "cross_attention_dim", folder / "unet")),
        pooled_dim=_pooled_dim(folder) if unet.get("addition_embed_type") == "text_time" else 0,
        zero_negative=bool(index.get("force_zeros_for_empty_prompt", False)),
        native=(width * downscale, height * downscale),
        scaling_factor=float(vae.get("scaling_factor") or 0.18215),
        shift_factor=float(vae.get("shift_factor") or 0.0),
        guidance_embed_dim=distilled,
        scheduler=_json(folder / "scheduler" / "scheduler_config.json"),
        steps=int(defaults.get("num_inference_steps", 4 if distilled else 25)),
        guidance_scale=float(defaults.get("guidance_scale", 8.5 if distilled else 7.5)),
    )


def _pooled_dim(folder: Path) -> int:
    encoder = folder / "text_encoder_2"
    return int(_need(_json(encoder / "config.json"), "projection_dim", encoder))


def demo_folder() -> Path:
    """The embedded model."""
    return Path(__file__).parent.parent / "demo_model"


def _json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; is this a folder of `optimum-cli export openvino`?") from error
    except msgspec.DecodeError as error:
        raise ModelError(f"{path}: not a JSON object: {error}") from error


def _need(values: dict[str, Any], key: str, folder: Path) -> Any:
    if values.get(key) is None:
        raise ModelError(f"{folder / 'config.json'}: `{key}` is missing")
    return values[key]


_EXTENT = re.compile(rb'offset="(\d+)" size="(\d+)"')


def _check_weights(xml: Path) -> None:
    """Refuse an IR whose weights are missing or cut short: OpenVINO would map them and die of SIGBUS later."""
    weights = xml.with_suffix(".bin")
    try:
        graph = xml.read_bytes()
        size = weights.stat().st_size
    except OSError as error:
        raise ModelError(f"{error.filename}: {error.strerror}") from error
    needed = max((int(offset) + int(size) for offset, size in _EXTENT.findall(graph)), default=0)
    if size < needed:
        raise ModelError(f"{weights}: cut short: {size:,} bytes, {needed:,} needed; copy or export it again")
