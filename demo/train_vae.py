"""Train the VAE on rendered scenes.

    python -m demo.train_vae [--init FOLDER] [--decoder-only] [--steps N] [--seed N] [--folder FOLDER]

Loss: absolute error of the pixels, half that of their gradients (for outlines), and a little KL divergence. At the end
`scaling_factor` is set to one over the deviation of the latents. `--decoder-only` leaves the encoder, and so all
latents, as they are: pictures get sharper and no U-Net has to learn anything again. Besides the loss it says how near
the VAE comes to pictures that it was not trained on.
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
from demo.command import run
from demo.dataset import HELD_OUT_SEED, TRAINING, Dataset, numbered_scene, open_dataset
from demo.fit import Plan, fit
from demo.latents import best_device, encode, to_pictures, to_pixels
from demo.render import render
from demo.sheet import sheet
from stages.core.embeds import Floats
from stages.core.errors import ConfigError

_GRADIENTS = 0.5
_KL = 1e-4
_HELD_OUT = 40
_SHOWN = 8
_FOR_THE_SCALE = 500
"""Pictures whose latents' deviation is taken."""


class Compressor:
    """The VAE as a learner (`fit.Learner`)."""

    def __init__(
        self,
        dataset: Dataset,
        size: networks.Size,
        init: Path | None,
        latents_for_decoder: Path | None,
        rate: float,
        batch: int,
    ) -> None:
        """`latents_for_decoder` is the file of all latents, if the decoder alone is to learn."""
        self.rate = rate
        self._batch = batch
        self._dataset = dataset
        self._pictures = dataset.pictures()
        self._device = best_device()
        self.vae = networks.load_vae(init) if init else networks.new_vae(size)
        self.vae.to(self._device, memory_format=torch.channels_last).train()
        self._latents: Floats | None = None
        if latents_for_decoder:
            self.vae.encoder.requires_grad_(False)
            self.vae.quant_conv.requires_grad_(False)
            self._latents = encode(self.vae, dataset, latents_for_decoder, self._device)
            self.vae.train()
        learning = [parameter for parameter in self.vae.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)

    def loss(self, step: int, generator: torch.Generator) -> torch.Tensor:
        """Reconstruction of one batch, and the KL divergence of its latents."""
        chosen = torch.randint(self._dataset.count, (self._batch,), generator=generator).sort().values.numpy()
        pixels = to_pixels(self._pictures[chosen], self._device).to(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16):
            if self._latents is None:
                latents = self.vae.encode(pixels).latent_dist
                noise = torch.randn(latents.mean.shape, generator=generator).to(self._device)
                drawn = self.vae.decode(latents.mean + latents.std * noise).sample.float()
                divergence = _KL * latents.kl().float().mean()
            else:
                # Without noise: what the decoder will be given are means, for these the U-Net learns.
                drawn = self.vae.decode(torch.from_numpy(self._latents[chosen]).to(self._device).float()).sample.float()
                divergence = torch.zeros((), device=self._device)
        loss = functional.l1_loss(drawn, pixels) + divergence
        for axis in (2, 3):
            loss = loss + _GRADIENTS / 2 * functional.l1_loss(drawn.diff(dim=axis), pixels.diff(dim=axis))
        return loss

    def stepped(self, step: int) -> None:
        """Do nothing: there is no running mean."""

    def parts(self) -> Mapping[str, Any]:
        """The part to keep: the VAE."""
        return {"vae": self.vae}

    @torch.no_grad()
    def save(self, folder: Path) -> None:
        """Write the VAE in diffusers' layout, with the scale of its latents."""
        if self._latents is None:
            count = min(_FOR_THE_SCALE, self._dataset.count)
            means = self.vae.encode(to_pixels(self._pictures[:count], self._device)).latent_dist.mean
            self.vae.register_to_config(scaling_factor=1 / means.std().item())
        self.vae.save_pretrained(folder / "vae")

    @torch.no_grad()
    def sample(self, path: Path) -> float:
        """Draw held-out pictures above what the VAE makes of them; the mean PSNR of such in dB."""
        scenes = [numbered_scene(HELD_OUT_SEED, number) for number in range(_HELD_OUT)]
        pictures = np.stack([np.asarray(render(scene, HELD_OUT_SEED + i)) for i, scene in enumerate(scenes)])
        pixels = to_pixels(pictures, self._device)
        drawn = to_pictures(self.vae.decode(self.vae.encode(pixels).latent_dist.mean).sample)
        error = ((drawn.astype(np.float64) - pictures) ** 2).mean((1, 2, 3))
        shown = [Image.fromarray(picture) for picture in (*pictures[:_SHOWN], *drawn[:_SHOWN])]
        captions = [scene.caption() for scene in scenes[:_SHOWN]]
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet(shown, [*captions, *captions]).save(path)
        return float((10 * np.log10(255**2 / error)).mean())


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
    """Train on the scenes of `data` and write `folder`/torch/vae. The losses.

    Raises ConfigError where the decoder alone is to learn and `init`, whose decoder it is, is missing.
    """
    if decoder_only and init is None:  # a checkpoint has the weights, but not the scale of the latents
        raise ConfigError("--decoder-only needs --init FOLDER with the VAE whose decoder it is, also to go on")
    latents = folder / "latents.npy" if decoder_only else None
    learner = Compressor(open_dataset(data), size, init, latents, rate, batch)
    name = "decoder" if decoder_only else "vae"

    def sample(step: int) -> None:
        learner.save(folder / "torch")
        if not decoder_only:
            (folder / "latents.npy").unlink(missing_ok=True)  # made by an encoder that is no more
        psnr = learner.sample(folder / "samples" / f"{name}-{step:06d}.png")
        print(f"{name} {step}: {psnr:.2f} dB on {_HELD_OUT} held-out pictures", flush=True)

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
    run(main, "demo.train_vae")
