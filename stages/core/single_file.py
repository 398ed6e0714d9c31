"""Checkpoints of a whole model in one file: they are no model folders, and have to be made into one first."""

from pathlib import Path

from stages.core.errors import ModelError

_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".gguf")


def refuse_single_file(path: Path) -> None:
    """Raise ModelError, with how to convert it, if `path` is a file, or a folder of checkpoints that holds no model."""
    if path.is_file():
        if path.suffix.lower() not in _SUFFIXES:
            raise ModelError(f"{path}: a file; a model is a folder, as `optimum-cli export openvino` writes it")
        raise ModelError(_way_out(path))
    if (path / "model_index.json").exists() or (path / "config.json").exists():
        return
    found = (file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    if (file := min(found, default=None)) is not None:
        raise ModelError(_way_out(file))


def _way_out(file: Path) -> str:
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
