"""Train the text encoder and the U-Net together, on latents that the VAE's encoder made beforehand.

    python -m demo.train_unet [--init FOLDER] [--steps N] [--seed N] [--folder FOLDER]

Loss: mean squared error of the predicted velocity. One caption in eight is dropped, for classifier-free guidance. What
is kept is the running mean of the weights (EMA). `--init` goes on from the text encoder and the U-Net of a folder in
diffusers' layout; without it both begin from nothing.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.training_utils import EMAModel

from demo import networks
from demo.captions import tokenize
from demo.command import run
from demo.dataset import TRAINING, Dataset, open_dataset
from demo.fit import Plan, fit
from demo.latents import best_device, encode
from demo.samples import draw_samples
from stages.core.embeds import Floats

_DROPPED = 0.12
"""Share of captions replaced by the empty one."""

_EMA = 0.9985


class Denoiser:
    """Text encoder and U-Net as one learner (`fit.Learner`)."""

    def __init__(
        self,
        dataset: Dataset,
        latents: Floats,
        size: networks.Size,
        init: Path | None,
        rate: float = 1.5e-3,
        batch: int = 64,
    ) -> None:
        self.rate = rate
        self._batch = batch
        self._device = best_device()
        tokenizer = networks.load_tokenizer()
        self._captions = tokenize(tokenizer, [dataset.scene(number).caption() for number in range(dataset.count)])
        self._empty = tokenize(tokenizer, [""])[0]
        self._latents = torch.from_numpy(latents)
        schedule = networks.noise_schedule()
        self._alphas = schedule.alphas_cumprod.to(self._device)
        self.text = networks.load_text_encoder(init) if init else networks.new_text_encoder(size, tokenizer)
        self.unet = networks.load_unet(init) if init else networks.new_unet(size)
        for module in (self.text, self.unet):
            module.to(self._device).train()
        networks.fast_on(self._device, self.unet, self.text)
        self._parameters = [*self.text.parameters(), *self.unet.parameters()]
        self.optimizer = torch.optim.AdamW(self._parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
        self.mean = EMAModel(self._parameters, decay=_EMA, foreach=True)

    def loss(self, step: int, generator: torch.Generator) -> torch.Tensor:
        """Mean squared error of the velocity over one batch."""
        chosen = torch.randint(len(self._latents), (self._batch,), generator=generator)
        clean = self._latents[chosen].float().to(self._device)
        tokens = self._captions[chosen]
        tokens[torch.rand(self._batch, generator=generator) < _DROPPED] = self._empty
        # Stratified: a batch covers all of the noise levels, which makes the gradient steadier.
        spread = (torch.arange(self._batch) + torch.rand(self._batch, generator=generator)) / self._batch
        timesteps = (spread * len(self._alphas)).long().to(self._device)
        noise = torch.randn(clean.shape, generator=generator).to(self._device)
        alpha = self._alphas[timesteps].reshape(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        with torch.autocast(self._device.type, torch.bfloat16):
            embeds = self.text(tokens.to(self._device)).last_hidden_state
            noisy = noisy.to(memory_format=torch.channels_last)
            predicted = self.unet(noisy, timesteps, embeds).sample
        return torch.nn.functional.mse_loss(predicted.float(), velocity)

    def stepped(self, step: int) -> None:
        """Follow the weights with their running mean."""
        self.mean.step(self._parameters)

    def parts(self) -> Mapping[str, Any]:
        """The parts to keep: both networks and their running means."""
        return {"text": self.text, "unet": self.unet, "mean": self.mean}

    def save(self, folder: Path) -> None:
        """Write the running means in diffusers' layout."""
        self.mean.store(self._parameters)
        self.mean.copy_to(self._parameters)
        self.text.save_pretrained(folder / "text_encoder")
        self.unet.save_pretrained(folder / "unet")
        self.mean.restore(self._parameters)

    def sample(self, vae: AutoencoderKL, path: Path) -> None:
        """Draw the sample sheet with the running means."""
        self.mean.store(self._parameters)
        self.mean.copy_to(self._parameters)
        draw_samples(self.text, self.unet, vae, path)
        self.mean.restore(self._parameters)


def train_unet(
    folder: Path, data: Path, size: networks.Size, steps: int, *, seed: int, init: Path | None, rate: float, batch: int
) -> list[float]:
    """Train on the scenes of `data` with the VAE of `folder`/torch, and write both networks there. The losses."""
    vae = networks.load_vae(folder / "torch")
    dataset = open_dataset(data)
    latents = encode(vae, dataset, folder / "latents.npy", best_device()) * np.float16(vae.config.scaling_factor)
    learner = Denoiser(dataset, latents, size, init, rate, batch)

    def sample(step: int) -> None:
        learner.save(folder / "torch")
        learner.sample(vae, folder / "samples" / f"unet-{step:06d}.png")

    return fit(learner, Plan(steps, folder / "unet.pt", seed, sample))


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.train_unet", description="Train text encoder and U-Net.")
    parser.add_argument("--folder", type=Path, default=TRAINING, help="checkpoints; torch/vae must be there")
    parser.add_argument("--data", type=Path, default=TRAINING / "scenes")
    parser.add_argument("--init", type=Path, help="go on from this folder's networks (default: from nothing)")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="highest learning rate (default: 1.5e-3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=networks.SIZES, default="full")
    args = parser.parse_args()
    size = networks.SIZES[args.size]
    train_unet(
        args.folder,
        args.data,
        size,
        args.steps,
        seed=args.seed,
        init=args.init,
        rate=args.rate,
        batch=args.batch,
    )


if __name__ == "__main__":
    run(main, "demo.train_unet")
