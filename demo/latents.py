"""Pictures as the networks take them, and the latents of a whole dataset by the VAE's encoder."""

import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from rich.progress import track

from demo.command import STDERR
from demo.dataset import Dataset
from stages.core.errors import ConfigError

_BATCH = 100

Device: TypeAlias = torch.device


def best_device() -> Device:
    """The GPU, or else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_pixels(pictures: npt.NDArray[np.uint8], device: Device) -> torch.Tensor:
    """Pictures [n, h, w, 3] of 0 to 255 as pixels f32 [n, 3, h, w] of -1 to 1."""
    pixels = torch.from_numpy(np.array(pictures)).to(device).permute(0, 3, 1, 2)
    return pixels.float() / 127.5 - 1


def to_pictures(pixels: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Pixels as pictures, the inverse of `to_pixels`, clamped."""
    bytes_ = (pixels.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    found: npt.NDArray[np.uint8] = bytes_.permute(0, 2, 3, 1).cpu().numpy()
    return found


@torch.no_grad()
def encode(vae: AutoencoderKL, dataset: Dataset, path: Path, device: Device) -> npt.NDArray[np.float16]:
    """The unscaled latent means of all pictures, f16 [count, 4, h, w]; kept in the file `path` and read if there.

    Raises ConfigError if the file is of another dataset.
    """
    if not path.exists():
        vae = vae.to(device, memory_format=torch.channels_last).eval()
        pictures = dataset.pictures()
        parts = []
        for start in track(range(0, dataset.count, _BATCH), "encoding", console=STDERR):
            pixels = to_pixels(pictures[start : start + _BATCH], device)
            with torch.autocast(device.type, torch.bfloat16):
                mean = vae.encode(pixels.to(memory_format=torch.channels_last)).latent_dist.mean
            parts.append(mean.float().cpu().numpy().astype(np.float16))
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished.npy")
        np.save(unfinished, np.concatenate(parts))
        os.replace(unfinished, path)
    found: npt.NDArray[np.float16] = np.load(path)
    if len(found) != dataset.count:
        raise ConfigError(f"{path} holds latents of {len(found)} scenes, not {dataset.count}; remove it")
    return found
