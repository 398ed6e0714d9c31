"""Write trained networks as the OpenVINO folder that Triptych, GenAI and optimum-intel load.

    python -m demo.export [--folder FOLDER] -o MODEL_FOLDER

`FOLDER`/torch holds the networks in diffusers' layout. The IR is what openvino's own conversion makes of them: weights
in f16, tensors named as `optimum-cli export openvino` names them, all sizes left open. Tokenizer and schedule are the
embedded model's, which is where the training took them from.
"""

import argparse
import inspect
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import openvino as ov
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from transformers import CLIPTextModel

from demo import networks
from demo.command import run
from demo.dataset import TRAINING
from stages.core.model import TOKENS, demo_folder

_FROM_THE_EMBEDDED = ("tokenizer", "scheduler")

_TYPES = {torch.int64: ov.Type.i64, torch.float32: ov.Type.f32}

Outputs = tuple[torch.Tensor, ...]


def export(torch_folder: Path, folder: Path) -> None:
    """Write `folder` from the networks in `torch_folder`, which hold `text_encoder`, `unet` and `vae`."""
    vae = networks.load_vae(torch_folder).eval()
    unet = networks.load_unet(torch_folder).eval()
    text = networks.load_text_encoder(torch_folder).eval()
    folder.mkdir(parents=True, exist_ok=True)
    for part in _FROM_THE_EMBEDDED:
        if (demo_folder() / part).resolve() != (folder / part).resolve():
            shutil.copytree(demo_folder() / part, folder / part, dirs_exist_ok=True)
    distilled = unet.config.time_cond_proj_dim is not None
    _write_index(folder, distilled)
    export_text_encoder(text, folder / "text_encoder")
    export_unet(unet, folder / "unet")
    export_vae(vae, folder)


def export_text_encoder(text: CLIPTextModel, folder: Path) -> None:
    """Write the text encoder: token ids to embeds, and the pooled one."""
    text.set_attn_implementation("sdpa")

    def forward(input_ids: torch.Tensor) -> Outputs:
        # The mask that the encoder would make for itself, but in a way that can be traced for every length.
        length = input_ids.shape[1]
        hidden = torch.full((length, length), -1e4).triu(1)[None, None]
        found = type(text).forward(text, input_ids, attention_mask=hidden)
        return found.last_hidden_state, found.pooler_output

    _convert(
        text,
        forward,
        {"input_ids": torch.ones(2, TOKENS, dtype=torch.int64)},
        {"input_ids": [-1, -1]},
        ("last_hidden_state", "pooler_output"),
        folder,
    )
    text.config.save_pretrained(folder)
    # A path of the machine that trained the weights, of no use elsewhere.
    _edit(folder / "config.json", drop=("_name_or_path",))


def export_unet(unet: UNet2DConditionModel, folder: Path) -> None:
    """Write the U-Net: latents, timesteps, embeds (and `timestep_cond` if distilled) to velocity or noise."""
    unet.set_attn_processor(AttnProcessor2_0())
    config = unet.config
    side, width = config.sample_size, config.cross_attention_dim
    inputs = {
        "sample": torch.randn(2, config.in_channels, side, side),
        "timestep": torch.tensor([1, 999]),
        "encoder_hidden_states": torch.randn(2, TOKENS, width),
    }
    shapes = {
        "sample": [-1, config.in_channels, -1, -1],
        "timestep": [-1],
        "encoder_hidden_states": [-1, TOKENS, width],
    }

    def forward(sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor) -> Outputs:
        return tuple(type(unet).forward(unet, sample, timestep, encoder_hidden_states, return_dict=False))

    def distilled(
        sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor, timestep_cond: torch.Tensor
    ) -> Outputs:
        return tuple(
            type(unet).forward(
                unet, sample, timestep, encoder_hidden_states, timestep_cond=timestep_cond, return_dict=False
            )
        )

    if config.time_cond_proj_dim is not None:
        inputs["timestep_cond"] = torch.randn(2, config.time_cond_proj_dim)
        shapes["timestep_cond"] = [-1, config.time_cond_proj_dim]
    use = distilled if config.time_cond_proj_dim is not None else forward
    _convert(unet, use, inputs, shapes, ("out_sample",), folder)
    unet.save_config(folder)
    _edit(folder / "config.json", drop=("_name_or_path",))


def export_vae(vae: AutoencoderKL, folder: Path) -> None:
    """Write the VAE's decoder and encoder, unscaled."""
    vae.set_attn_processor(AttnProcessor2_0())
    channels, side = vae.config.latent_channels, vae.config.sample_size

    def decode(latent_sample: torch.Tensor) -> Outputs:
        return tuple(vae.decode(latent_sample, return_dict=False))

    def encode(sample: torch.Tensor) -> Outputs:
        return (vae.encode(sample).latent_dist.parameters,)

    latents, pixels = torch.randn(2, channels, side // 8, side // 8), torch.randn(2, 3, side, side)
    shape = [-1, channels, -1, -1]
    _convert(vae, decode, {"latent_sample": latents}, {"latent_sample": shape}, ("sample",), folder / "vae_decoder")
    shape = [-1, 3, -1, -1]
    _convert(vae, encode, {"sample": pixels}, {"sample": shape}, ("latent_parameters",), folder / "vae_encoder")
    for part in ("vae_decoder", "vae_encoder"):
        vae.save_config(folder / part)
        _edit(folder / part / "config.json", drop=("_name_or_path",))


def _convert(
    module: torch.nn.Module,
    forward: Callable[..., Outputs],
    inputs: Mapping[str, torch.Tensor],
    shapes: Mapping[str, Sequence[int]],
    outputs: Sequence[str],
    folder: Path,
) -> None:
    """Trace `forward` of the module, name the tensors, write the IR."""
    folder.mkdir(parents=True, exist_ok=True)
    assert list(inspect.signature(forward).parameters) == list(inputs)
    with _calling(module, forward), warnings.catch_warnings():
        # Tracing says of every `if` in the networks that it is traced one way only.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.trace.*", category=DeprecationWarning)
        model = ov.convert_model(
            module,
            example_input=dict(inputs),
            input=[
                (name, shapes[name], ov.Type.i64 if inputs[name].dtype == torch.int64 else ov.Type.f32)
                for name in inputs
            ],
        )
    for port, name in zip(model.inputs, inputs, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(model.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
    model.validate_nodes_and_infer_types()
    ov.save_model(model, folder / "openvino_model.xml", compress_to_fp16=True)


@contextmanager
def _calling(module: torch.nn.Module, forward: Callable[..., Outputs]) -> Iterator[None]:
    """Let calls of the module run `forward`: so all layers keep the names they have in the module."""
    module.forward = forward
    try:
        with torch.no_grad():
            yield
    finally:
        del module.forward


def _write_index(folder: Path, distilled: bool) -> None:
    index = json.loads((demo_folder() / "model_index.json").read_text())
    defaults = json.loads((demo_folder() / "generation_config.json").read_text())
    if distilled:
        index["_class_name"] = "LatentConsistencyModelPipeline"
        index["scheduler"] = ["diffusers", "LCMScheduler"]
        defaults |= {"num_inference_steps": 4}
        schedule = folder / "scheduler" / "scheduler_config.json"
        _edit(schedule, _class_name="LCMScheduler", original_inference_steps=50, timestep_scaling=10.0)
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(defaults) + "\n")


def _edit(file: Path, drop: Sequence[str] = (), **changes: object) -> None:
    values = {name: value for name, value in json.loads(file.read_text()).items() if name not in drop}
    file.write_text(json.dumps(values | changes, indent=2) + "\n")


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.export", description="Write the trained networks as IR.")
    parser.add_argument("--folder", type=Path, default=TRAINING)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    export(args.folder / "torch", args.out)
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main, "demo.export")
