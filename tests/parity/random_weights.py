"""Random weights that draw: pictures with contrast, in which prompt, guidance, timestep and size conditions all count.

A freshly initialised network hardly listens to its conditions and its decoder paints everything grey; two programs
could differ in every one of them and still agree to 45 dB.
"""

import contextlib
from collections.abc import Iterator

import diffusers
import torch

_LOUDER = {"attn2.to_out.0.weight": 4.0, "time_emb_proj.weight": 4.0, "add_embedding.linear_2.weight": 4.0}
"""Where the prompt, the timestep and SDXL's conditions enter the U-Net, by the ends of the parameters' names."""

_CONTRAST = 0.4
"""Standard deviation of the pixels of each colour, in the decoder's -1 to 1."""


@torch.no_grad()
def rescale_weights(pipeline: diffusers.DiffusionPipeline) -> None:
    """Scale the weights, in place, until the U-Net's output is as strong as noise and the decoder's has contrast."""
    unet, vae = pipeline.unet, pipeline.vae
    for name, parameter in unet.named_parameters():
        for end, factor in _LOUDER.items():
            if name.endswith(end):
                parameter.mul_(factor)
    with _outputs(unet) as outputs:
        _latents(pipeline)
    _rescale(unet.conv_out, outputs[0][:1], deviation=1.0)
    latents = _latents(pipeline) / vae.config.scaling_factor
    _rescale(vae.decoder.conv_out, vae.decode(latents).sample, deviation=_CONTRAST)


def _latents(pipeline: diffusers.DiffusionPipeline) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipeline("a cat", num_inference_steps=4, generator=generator, output_type="latent").images


@contextlib.contextmanager
def _outputs(module: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    found: list[torch.Tensor] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: found.append(output[0]))
    yield found
    hook.remove()


def _rescale(convolution: torch.nn.Conv2d, output: torch.Tensor, deviation: float) -> None:
    """Change the last layer so that every channel of `output` [1, C, H, W] would have had mean 0 and this deviation."""
    mean, factor = output.mean((0, 2, 3)), deviation / output.std((0, 2, 3))
    convolution.weight.mul_(factor[:, None, None, None])
    convolution.bias.sub_(mean).mul_(factor)
