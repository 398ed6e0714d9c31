"""A diffusers folder as an OpenVINO folder, by optimum-intel: what `optimum-cli export openvino` does."""

from pathlib import Path

from optimum.exporters.openvino import main_export
from optimum.intel import OVConfig


def export(torch_folder: Path, folder: Path) -> Path:
    """Export with float32 weights, tokenizers for openvino-genai beside the others."""
    main_export(
        str(torch_folder),
        folder,
        task="text-to-image",
        library_name="diffusers",
        ov_config=OVConfig(dtype="fp32"),
        convert_tokenizer=True,
        local_files_only=True,
    )
    return folder
