"""Checkpoints of a whole model in one file: they are no model folders, and have to be made into one first."""

import os
from pathlib import Path

from stages.core.errors import ModelError

_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".gguf")


def refuse_single_file(path: Path) -> None:
    """Raise ModelError, with how to convert it, if `path` is a file, or a folder of checkpoints that holds no model."""
    if os.path.isfile(path):  # False, unlike Path's, for what may not be looked at
        if path.suffix.lower() not in _SUFFIXES:
            raise ModelError(f"{path}: a file; a model is a folder, as `optimum-cli export openvino` writes it")
        raise ModelError(_way_out(path))
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    if "model_index.json" in names or "config.json" in names:
        return
    if file := next((path / name for name in names if Path(name).suffix.lower() in _SUFFIXES), None):
        raise ModelError(_way_out(file))


def _way_out(file: Path) -> str:
    if file.name.startswith("pytorch_lora_weights"):
        return f"{file}: LoRA weights, which are not served, and no model"
    if file.suffix.lower() == ".gguf":
        return (
            f"{file}: a GGUF file, which is not served and cannot be converted; export the model that it was made from "
            "with `optimum-cli export openvino --model HUB_ID FOLDER` and name the folder"
        )
    return (
        f'{file}: a single-file checkpoint, which is not served; convert it with `python -c "from diffusers import '
        f"StableDiffusionPipeline as P; P.from_single_file('{file}').save_pretrained('unpacked')\"` (for SDXL: "
        "StableDiffusionXLPipeline), then `optimum-cli export openvino --model unpacked --task text-to-image FOLDER`, "
        "and name the folder"
    )
