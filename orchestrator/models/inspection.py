"""The inspection of a model folder by its JSON files and the heads of its graphs; nothing is loaded."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.models.footprint import footprint, part_bytes
from orchestrator.models.locate import card_of
from orchestrator.plan import Machine, plan
from stages.core.config import Config
from stages.core.errors import ModelError
from stages.core.json_file import read_json
from stages.core.model import ModelCard, ir
from stages.core.schedule_names import own_schedule

_SETTINGS = (
    "beta_schedule",
    "beta_start",
    "beta_end",
    "num_train_timesteps",
    "timestep_spacing",
    "steps_offset",
    "algorithm_type",
    "solver_order",
    "original_inference_steps",
    "set_alpha_to_one",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "rescale_betas_zero_snr",
    "clip_sample",
    "thresholding",
)
"""Keys of scheduler_config.json that pictures depend on, in the order they are shown."""


class Part(msgspec.Struct, frozen=True):
    """One of the models that make up the pipeline."""

    name: str
    bytes: int
    """Bytes of its weights."""
    stored: dict[str, int]
    """Bytes of its constants by OpenVINO's element type, most first."""


class TextEncoder(msgspec.Struct, frozen=True):
    """One text encoder."""

    name: str
    embed_width: int | None
    """Width of a token's embedding; None where its config.json does not say."""
    tokenizer: str | None
    """The files its tokenizer is read from; None where there are none."""


class OwnSchedule(msgspec.Struct, frozen=True):
    """The schedule the model was exported with."""

    class_name: str
    name: str | None
    """The schedule's name in requests; None where there is none like it here, and requests have to name another."""
    prediction_type: str
    settings: dict[str, Any]


class MemoryNeed(msgspec.Struct, frozen=True):
    """Memory, in bytes, of a pipeline with one process a stage and the default configuration."""

    weights_bytes: int
    needed_bytes: int
    available_bytes: int


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """A model folder, as far as it can be known without loading it."""

    name: str
    path: str
    family: str
    can_run: bool
    reason: str | None
    """Why it cannot be run; None where it can."""
    native_size: str
    """Size of pictures the model was trained for, `width x height` in pixels."""
    downscale: int
    """Pixels per latent, each way."""
    parts: tuple[Part, ...]
    text_encoders: tuple[TextEncoder, ...]
    embed_dim: int
    pooled_dim: int
    schedule: OwnSchedule
    steps: int
    guidance_scale: float
    guidance_distilled: bool
    """Whether the U-Net takes the guidance scale as an input, in place of a second row."""
    memory: MemoryNeed


def inspect(folder: Path, machine: Machine) -> Inspection:
    """Look at a model folder. Raises ModelError for one that cannot be told more about than why it cannot be run."""
    card = card_of(folder)
    planned = plan(Config(), card, machine)
    need = footprint(planned)
    reason = obstacle(card)
    return Inspection(
        name=card.name,
        path=str(folder),
        family=card.family,
        can_run=reason is None,
        reason=reason,
        native_size=f"{card.native[0]}x{card.native[1]}",
        downscale=card.downscale,
        parts=tuple(Part(name, size, stored(ir(folder, name))) for name, size in part_bytes(planned).items()),
        text_encoders=tuple(_text_encoder(folder, part) for part in card.text_encoders),
        embed_dim=card.embed_dim,
        pooled_dim=card.pooled_dim,
        schedule=_schedule(card.scheduler),
        steps=card.steps,
        guidance_scale=card.guidance_scale,
        guidance_distilled=card.guidance_embed_dim is not None,
        memory=MemoryNeed(need.weights_bytes, need.needed_bytes, machine.memory_available),
    )


def obstacle(card: ModelCard) -> str | None:
    """Why a model cannot be run although its card could be read; None if nothing is found. Loading may find more."""
    for part in card.text_encoders:
        if _tokenizer(card.path, part) is None:
            folder = card.path / _tokenizer_folder(part)
            return f"{folder}: no tokenizer (neither tokenizer.json nor vocab.json with merges.txt)"
    return None


_CONSTANT = re.compile(rb'<data element_type="(\w+)"[^>]*? offset="(\d+)" size="(\d+)"')


def stored(xml: Path) -> dict[str, int]:
    """Bytes of an IR's constants by element type, most first. One that several nodes use counts once."""
    extents = {(kind, start): int(size) for kind, start, size in _CONSTANT.findall(xml.read_bytes())}
    found: Counter[str] = Counter()
    for (kind, _), size in extents.items():
        found[kind.decode()] += size
    return dict(found.most_common())


class _Widths(msgspec.Struct, frozen=True):
    """The keys of a text encoder's config.json that are read."""

    hidden_size: int | None = None


def _text_encoder(folder: Path, part: str) -> TextEncoder:
    try:
        width = read_json(folder / part / "config.json", _Widths).hidden_size
    except ModelError:
        width = None
    return TextEncoder(part, width, _tokenizer(folder, part))


def _tokenizer_folder(part: str) -> str:
    return part.replace("text_encoder", "tokenizer")


def _tokenizer(folder: Path, part: str) -> str | None:
    tokenizer = folder / _tokenizer_folder(part)
    if (tokenizer / "tokenizer.json").is_file():
        return "tokenizer.json"
    if (tokenizer / "vocab.json").is_file() and (tokenizer / "merges.txt").is_file():
        return "vocab.json + merges.txt"
    return None


def _schedule(config: dict[str, Any]) -> OwnSchedule:
    class_name = str(config.get("_class_name"))
    return OwnSchedule(
        class_name,
        own_schedule(config),
        str(config.get("prediction_type", "epsilon")),
        {key: config[key] for key in _SETTINGS if config.get(key) is not None},
    )
