"""Model folders of a family: diffusers' with torch weights, and what `optimum-cli export openvino` makes of it."""

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import torch
from optimum.exporters.openvino import main_export
from optimum.intel import OVConfig

from tests.parity.families import FAMILIES, Family
from tests.parity.older_export import make_older
from tests.parity.random_weights import rescale_weights


class Workshop:
    """Makes folders below `root`, each one once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def torch_folder(self, family: Family) -> Path:
        """The folder diffusers reads."""
        folder = self._root / "torch" / family.name
        if not folder.is_dir():
            if family.build is None:
                shutil.copytree(self.torch_folder(FAMILIES[family.weights_of]), folder)
                _reconfigure(folder, family, ("vae",))
            else:
                _build(family, folder)
        return folder

    def openvino_folder(self, family: Family) -> Path:
        """The same weights, in float32, as OpenVINO IR, with openvino-genai's tokenizers."""
        folder = family.exported or self._root / "openvino" / family.name
        if not folder.is_dir():
            if family.build is None:
                shutil.copytree(self.openvino_folder(FAMILIES[family.weights_of]), folder)
                _reconfigure(folder, family, ("vae_encoder", "vae_decoder"))
                if family.older:
                    make_older(folder)
            else:
                export_openvino(self.torch_folder(family), folder, "fp32")
        return folder


def _build(family: Family, folder: Path) -> None:
    assert family.build is not None
    torch.manual_seed(zlib.crc32(family.name.encode()))
    pipeline = family.build()
    pipeline.set_progress_bar_config(disable=True)
    if family.exported is None:
        rescale_weights(pipeline)
    pipeline.save_pretrained(folder)


def export_openvino(torch_folder: Path, folder: Path, dtype: str) -> None:
    """What `optimum-cli export openvino` does, with weights of `dtype` ("fp32", "fp16"). Nothing is downloaded."""
    main_export(
        str(torch_folder),
        folder,
        task="text-to-image",
        library_name="diffusers",
        ov_config=OVConfig(dtype=dtype),
        convert_tokenizer=True,
        local_files_only=True,
    )


def _reconfigure(folder: Path, family: Family, vaes: tuple[str, ...]) -> None:
    if family.scheduler is not None:
        kind, config = family.scheduler
        kind.from_config(config).save_pretrained(folder / "scheduler")
        _edit(folder / "model_index.json", scheduler=["diffusers", kind.__name__])
    for vae in vaes:
        _edit(folder / vae / "config.json", **(family.vae or {}))


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes, indent=2))
