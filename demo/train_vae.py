"""Train the VAE on rendered scenes.

    python -m demo.train_vae [--init FOLDER] [--decoder-only] [--steps N] [--seed N] [--folder FOLDER]

Loss: absolute error of the pixels, half that of their gradients (for outlines), and a little KL divergence. At the end
`scaling_factor` is set to one over the deviation of the latents. `--decoder-only` leaves the encoder, and so all
latents, as they are: pictures get sharper and no U-Net has to learn anything again.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from demo import networks
from demo.dataset import TRAINING, Dataset, open_dataset
from demo.fit import Plan, fit
from demo.latents import best_device, to_pictures, to_pixels
from demo.sheet import sheet

_GRADIENTS = 0.5
_KL = 1e-4
_SHOWN = 8
_FOR_THE_SCALE = 500
"""Pictures whose latents' deviation is taken."""


class Compressor:
    """The VAE as a learner (`fit.Learner`)."""

    def __init__(
        self, dataset: Dataset, size: networks.Size, init: Path | None, decoder_only: bool, rate: float, batch: int
    ) -> None:
        self.rate = rate
        self._batch = batch
        self._dataset = dataset
        self._pictures = dataset.pictures()
        self._decoder_only = decoder_only
        self._device = best_device()
        self.vae = networks.load_vae(init) if init else networks.new_vae(size)
        self.vae.to(self._device, memory_format=torch.channels_last).train()
        if decoder_only:
            self.vae.encoder.requires_grad_(False)
            self.vae.quant_conv.requires_grad_(False)
        learning = [parameter for parameter in self.vae.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)

    def loss(self, step: int, generator: torch.Generator) -> torch.Tensor:
        """Reconstruction of one batch, and the KL divergence of its latents."""
        chosen = torch.randint(self._dataset.count, (self._batch,), generator=generator).sort().values.numpy()
        pixels = to_pixels(self._pictures[chosen], self._device).to(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16):
            with torch.set_grad_enabled(not self._decoder_only):
                latents = self.vae.encode(pixels).latent_dist
            noise = torch.randn(latents.mean.shape, generator=generator).to(self._device)
            # A decoder that learns alone sees what it will be given: the U-Net learns the means.
            given = latents.mean if self._decoder_only else latents.mean + latents.std * noise
            drawn = self.vae.decode(given).sample.float()
        loss = functional.l1_loss(drawn, pixels)
        for axis in (2, 3):
            loss = loss + _GRADIENTS / 2 * functional.l1_loss(drawn.diff(dim=axis), pixels.diff(dim=axis))
        return loss if self._decoder_only else loss + _KL * latents.kl().float().mean()

    def stepped(self, step: int) -> None:
        """Nothing follows."""

    def parts(self) -> Mapping[str, Any]:
        """The one network."""
        return {"vae": self.vae}

    @torch.no_grad()
    def save(self, folder: Path) -> None:
        """Write the VAE in diffusers' layout, with the scale of its latents."""
        if not self._decoder_only:
            count = min(_FOR_THE_SCALE, self._dataset.count)
            means = self.vae.encode(to_pixels(self._pictures[:count], self._device)).latent_dist.mean
            self.vae.register_to_config(scaling_factor=1 / means.std().item())
        self.vae.save_pretrained(folder / "vae")

    @torch.no_grad()
    def sample(self, path: Path) -> float:
        """Draw pictures beside what the VAE makes of them; the mean PSNR in dB of these."""
        pictures = np.asarray(self._pictures[:_SHOWN])
        pixels = to_pixels(pictures, self._device)
        drawn = to_pictures(self.vae.decode(self.vae.encode(pixels).latent_dist.mean).sample)
        error = ((drawn.astype(np.float64) - pictures) ** 2).mean((1, 2, 3))
        psnr = float((10 * np.log10(255**2 / error)).mean())
        shown = [Image.fromarray(picture) for picture in (*pictures, *drawn)]
        captions = [self._dataset.scene(number).caption() for number in range(_SHOWN)]
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet(shown, [*captions, *captions]).save(path)
        return psnr


def train_vae(
    folder: Path,
    data: Path,
    size: networks.Size,
    steps: int,
    *,
    seed: int,
    init: Path | None,
    decoder_only: bool,
    rate: float,
    batch: int,
) -> list[float]:
    """Train on the scenes of `data` and write `folder`/torch/vae. The losses."""
    learner = Compressor(open_dataset(data), size, init, decoder_only, rate, batch)
    name = "decoder" if decoder_only else "vae"

    def sample(step: int) -> None:
        learner.save(folder / "torch")
        psnr = learner.sample(folder / "samples" / f"{name}-{step:06d}.png")
        print(f"{name} {step}: {psnr:.1f} dB on {_SHOWN} of its own pictures", flush=True)

    return fit(learner, Plan(steps, folder / f"{name}.pt", seed, sample))


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.train_vae", description="Train the VAE.")
    parser.add_argument("--folder", type=Path, default=TRAINING)
    parser.add_argument("--data", type=Path, default=TRAINING / "scenes")
    parser.add_argument("--init", type=Path, help="go on from this folder's VAE (default: from nothing)")
    parser.add_argument("--decoder-only", action="store_true", help="leave the encoder as it is")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="highest learning rate (default: 1.5e-3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=networks.SIZES, default="full")
    args = parser.parse_args()
    train_vae(
        args.folder,
        args.data,
        networks.SIZES[args.size],
        args.steps,
        seed=args.seed,
        init=args.init,
        decoder_only=args.decoder_only,
        rate=args.rate,
        batch=args.batch,
    )


if __name__ == "__main__":
    main()
