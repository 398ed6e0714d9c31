"""Sample sheets: the same prompts and seeds at every stage of training."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel

from demo import networks
from demo.captions import tokenize
from demo.latents import to_pictures
from demo.sheet import sheet
from demo.world import NEGATIVE_PROMPT

PROMPTS = (
    "a photo of an astronaut riding a horse on mars",
    "a photo of a cat in the snow",
    "a sketch of a castle at sunset",
    "a photo of a penguin riding a whale under the sea",
    "a robot and a guitar in space",
    "a watercolor of a tree in the desert",
    "a photo of a wizard riding a dragon in a forest",
    "a photo of a rocket on the moon",
    "pixel art of a frog on a blue background",
    "a princess riding a bicycle on a white background",
    "a photo of a monkey riding a camel in the desert",
    "a watercolor of a fish under the sea",
    "a photo of a bear and a pizza on the moon",
    "a sketch of a dog riding a turtle in a forest",
    "pixel art of a house in the snow",
    "a photo of a balloon at sunset",
)
"""Sixteen prompts that show every style, place and relation."""

_STEPS = 20
_GUIDANCE = 4.0


@torch.no_grad()
def draw_samples(text: CLIPTextModel, unet: UNet2DConditionModel, vae: AutoencoderKL, path: Path) -> None:
    """Draw PROMPTS with DDIM and guidance, in f32, and save the sheet."""
    schedule = networks.noise_schedule()
    schedule.set_timesteps(_STEPS)
    device = unet.device
    tokenizer = networks.load_tokenizer()
    count = len(PROMPTS)
    tokens = tokenize(tokenizer, [*PROMPTS, *[NEGATIVE_PROMPT] * count]).to(device)
    embeds = text(tokens).last_hidden_state
    latents = torch.randn(
        (count, networks.WIDTH, unet.config.sample_size, unet.config.sample_size),
        generator=torch.Generator().manual_seed(0),
    ).to(device)
    for timestep in schedule.timesteps:
        asked, negative = unet(torch.cat([latents] * 2), timestep, embeds).sample.chunk(2)
        latents = schedule.step(negative + _GUIDANCE * (asked - negative), timestep, latents).prev_sample
    vae.to(device).eval()
    pixels = vae.decode(latents / vae.config.scaling_factor).sample
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [Image.fromarray(picture) for picture in to_pictures(pixels)]
    sheet(pictures, PROMPTS).save(path)
