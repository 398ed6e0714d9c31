"""The embedded models as diffusers' own pipelines, their torch weights read back out of the IR that Triptych ships.

OpenVINO's export names every layer after its torch module, so each constant tells by its consumer which parameter it
was: that of `__module.mid_block.resnets.0.conv1/aten::_convolution/Add` is `mid_block.resnets.0.conv1.bias`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import openvino as ov
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from stages.core.model import EMBEDDED

_ROLES = {
    ("aten::_convolution", "Convolution", 1): "weight",
    ("aten::_convolution", "Add", 1): "bias",
    ("aten::embedding", "Gather", 0): "weight",
    ("aten::group_norm", "GroupNormalization", 1): "weight",
    ("aten::group_norm", "GroupNormalization", 2): "bias",
    ("aten::layer_norm", "Add", 1): "bias",
    ("aten::layer_norm", "Multiply", 1): "weight",
    ("aten::linear", "Add", 1): "bias",
    ("aten::linear", "MatMul", 1): "weight",
}
"""What a constant is, by the torch function, the OpenVINO operation and the input it goes into."""

_LAYER = re.compile(r"__module\.(?P<path>[\w.]+)/(?P<function>aten::\w+)/")


def embedded_pipeline(folder: Path = EMBEDDED["demo"]) -> diffusers.DiffusionPipeline:
    """diffusers' pipeline with an embedded model's weights, float32. Its VAE can decode only."""
    index = _config(folder / "model_index.json")
    vae = diffusers.AutoencoderKL.from_config(_config(folder / "vae_decoder" / "config.json"))
    unet = diffusers.UNet2DConditionModel.from_config(_config(folder / "unet" / "config.json"))
    text_encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder"))
    for module, part, left_out in (
        (text_encoder, "text_encoder", ()),
        (unet, "unet", ()),
        (vae, "vae_decoder", ("encoder.", "quant_conv.")),
    ):
        _fill(module, folder / part / "openvino_model.xml", left_out)
    pipeline = getattr(diffusers, index["_class_name"])(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        unet=unet,
        scheduler=getattr(diffusers, index["scheduler"][1]).from_pretrained(folder, subfolder="scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _config(file: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(file.read_text())
    return config


def _fill(module: torch.nn.Module, xml: Path, left_out: tuple[str, ...]) -> None:
    """Load every parameter of `module` from the IR; one that is missing there, or has another size, is an error."""
    wanted = module.state_dict()
    found = {}
    for name, values in _parameters(xml):
        found[name] = torch.from_numpy(values.astype(np.float32)).reshape(wanted[name].shape)
    missing = [name for name in wanted if name not in found and not name.startswith(left_out)]
    assert not missing, f"{xml}: not found: {missing}"
    module.load_state_dict(found, strict=False)
    module.eval()


def _parameters(xml: Path) -> Iterator[tuple[str, np.ndarray]]:
    for operation in ov.Core().read_model(xml).get_ops():
        if operation.get_type_name() != "Constant" or not operation.get_element_type().is_real():
            continue
        for consumer in _consumers(operation):
            node = consumer.get_node()
            layer = _LAYER.match(node.get_friendly_name())
            if not layer:
                continue
            role = _ROLES.get((layer["function"], node.get_type_name(), consumer.get_index()))
            if role:
                yield f"{layer['path']}.{role}", operation.get_data()


def _consumers(operation: ov.Node) -> Iterator[ov.Input]:
    """What reads a constant, through the conversion that unpacks a compressed one."""
    for consumer in operation.output(0).get_target_inputs():
        if consumer.get_node().get_type_name() == "Convert":
            yield from _consumers(consumer.get_node())
        else:
            yield consumer
