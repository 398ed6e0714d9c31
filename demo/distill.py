"""Distil the U-Net into one that draws in four steps, a latent consistency model.

    python -m demo.distill [--folder FOLDER] [--steps N] [--seed N]

After "Latent Consistency Models" (Luo et al., 2023, arXiv:2310.04378). The teacher, the U-Net in `FOLDER`/torch, takes
one DDIM step over 20 timesteps under guidance; the student, from both ends of that step, must say the same clean
latents. At the later end it learns; at the earlier end its running mean gives the target. The guidance scale is drawn
at random and told to the student, which so needs one row where the teacher needs two. What a negative prompt does is
learned in: the teacher is led away from low resolution and blur.

Writes `FOLDER`/lcm/torch.
"""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.training_utils import EMAModel

from demo import networks
from demo.captions import tokenize
from demo.command import run
from demo.dataset import TRAINING, Dataset, open_dataset
from demo.fit import Plan, fit
from demo.latents import best_device, encode
from demo.world import NEGATIVE_PROMPT
from stages.core.embeds import Floats

SKIP = 20
"""Timesteps between two neighbouring points of the teacher's path."""

_GUIDANCE = (2.0, 6.0)
"""Range of w = guidance_scale - 1."""

_SIGMA_DATA = 0.5
_TIMESTEP_SCALING = 10.0
"""Constants of the boundary condition, as diffusers' LCMScheduler has them."""

_EMA = 0.95
_HUBER = 1e-3


def boundary(timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares (c_skip, c_out) of input and network in the answer, [n, 1, 1, 1]; at timestep 0 the input is all of it."""
    scaled = (timesteps.float() * _TIMESTEP_SCALING).reshape(-1, 1, 1, 1)
    root = (scaled**2 + _SIGMA_DATA**2).sqrt()
    return _SIGMA_DATA**2 / root**2, scaled / root


def guidance_embedding(w: torch.Tensor) -> torch.Tensor:
    """The `timestep_cond` for guidance w = scale - 1, f32 [n, GUIDANCE_EMBED]: sines, then cosines, of 1000 w."""
    half = networks.GUIDANCE_EMBED // 2
    rates = torch.exp(torch.arange(half) * -(np.log(10_000.0) / (half - 1))).to(w.device)
    angles = 1000.0 * w[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Distiller:
    """Teacher and student as one learner (`fit.Learner`)."""

    def __init__(self, dataset: Dataset, latents: Floats, torch_folder: Path, rate: float, batch: int) -> None:
        self.rate = rate
        self._batch = batch
        self._device = best_device()
        tokenizer = networks.load_tokenizer()
        self._captions = tokenize(tokenizer, [dataset.scene(number).caption() for number in range(dataset.count)])
        self._negative = tokenize(tokenizer, [NEGATIVE_PROMPT])
        self._latents = torch.from_numpy(latents)
        self._alphas = networks.noise_schedule().alphas_cumprod.to(self._device)
        self._text = networks.load_text_encoder(torch_folder).to(self._device).eval().requires_grad_(False)
        self._teacher = networks.load_unet(torch_folder).to(self._device).eval().requires_grad_(False)
        self.student = student_of(self._teacher).to(self._device).train()
        self._target = student_of(self._teacher).to(self._device).eval().requires_grad_(False)
        for unet in (self._teacher, self.student, self._target):
            networks.fast_on(self._device, unet, self._text)
        self._learning = list(self.student.parameters())
        self.optimizer = torch.optim.AdamW(self._learning, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
        self.mean = EMAModel(self._learning, decay=_EMA, foreach=True)

    def loss(self, step: int, generator: torch.Generator) -> torch.Tensor:
        """Pseudo-Huber distance of the student's two answers along one step of the teacher."""
        chosen = torch.randint(len(self._latents), (self._batch,), generator=generator)
        clean = self._latents[chosen].float().to(self._device)
        points = len(self._alphas) // SKIP
        later = (torch.randint(1, points + 1, (self._batch,), generator=generator) * SKIP - 1).to(self._device)
        earlier = (later - SKIP).clamp(min=0)
        low, high = _GUIDANCE
        w = (low + (high - low) * torch.rand(self._batch, generator=generator)).to(self._device)
        noise = torch.randn(clean.shape, generator=generator).to(self._device)
        noisy = self._signal(later) * clean + self._noise(later) * noise
        strength = guidance_embedding(w)
        with torch.autocast(self._device.type, torch.bfloat16):
            with torch.no_grad():
                embeds = self._text(self._captions[chosen].to(self._device)).last_hidden_state
                negative = self._text(self._negative.to(self._device)).last_hidden_state
                before = self._teach(noisy, later, earlier, embeds, negative.expand_as(embeds), w)
                wanted = self._answer(self._target, before, earlier, embeds, strength)
            said = self._answer(self.student, noisy, later, embeds, strength)
        return (((said - wanted) ** 2 + _HUBER**2).sqrt() - _HUBER).mean()

    def _teach(
        self,
        noisy: torch.Tensor,
        later: torch.Tensor,
        earlier: torch.Tensor,
        embeds: torch.Tensor,
        negative: torch.Tensor,
        w: torch.Tensor,
    ) -> torch.Tensor:
        """The latents one DDIM step before `noisy`, under guidance."""
        rows = torch.cat([noisy, noisy]).to(memory_format=torch.channels_last)
        velocity = self._teacher(rows, torch.cat([later, later]), torch.cat([embeds, negative])).sample.float()
        asked, away = velocity.chunk(2)
        velocity = asked + w.reshape(-1, 1, 1, 1) * (asked - away)
        clean = self._signal(later) * noisy - self._noise(later) * velocity
        noise = self._signal(later) * velocity + self._noise(later) * noisy
        return self._signal(earlier) * clean + self._noise(earlier) * noise

    def _answer(
        self,
        unet: UNet2DConditionModel,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        embeds: torch.Tensor,
        strength: torch.Tensor,
    ) -> torch.Tensor:
        """The clean latents that a consistency model says lie behind `noisy`."""
        rows = noisy.to(memory_format=torch.channels_last)
        velocity = unet(rows, timesteps, embeds, timestep_cond=strength).sample.float()
        clean = self._signal(timesteps) * noisy - self._noise(timesteps) * velocity
        skip, out = boundary(timesteps)
        return skip * noisy + out * clean

    def _signal(self, timesteps: torch.Tensor) -> torch.Tensor:
        return self._alphas[timesteps].sqrt().reshape(-1, 1, 1, 1)

    def _noise(self, timesteps: torch.Tensor) -> torch.Tensor:
        return (1 - self._alphas[timesteps]).sqrt().reshape(-1, 1, 1, 1)

    def stepped(self, step: int) -> None:
        """Let the target follow the student."""
        self.mean.step(self._learning)
        self.mean.copy_to(self._target.parameters())

    def parts(self) -> Mapping[str, Any]:
        """The parts to keep: the student and its running mean."""
        return {"student": self.student, "mean": self.mean}

    def save(self, folder: Path) -> None:
        """Write the running mean in diffusers' layout."""
        self._target.save_pretrained(folder / "unet")


def student_of(teacher: UNet2DConditionModel) -> UNet2DConditionModel:
    """A U-Net of the teacher's weights that also takes `timestep_cond`, which says nothing to it yet."""
    student: UNet2DConditionModel = UNet2DConditionModel.from_config(
        dict(teacher.config) | {"time_cond_proj_dim": networks.GUIDANCE_EMBED}
    )
    missing, unexpected = student.load_state_dict(teacher.state_dict(), strict=False)
    assert (missing, unexpected) == (["time_embedding.cond_proj.weight"], [])
    torch.nn.init.zeros_(student.time_embedding.cond_proj.weight)
    return student


def distill(folder: Path, data: Path, steps: int, *, seed: int, rate: float, batch: int) -> list[float]:
    """Distil `folder`/torch/unet into `folder`/lcm/torch, beside copies of its text encoder and VAE. The losses."""
    dataset = open_dataset(data)
    vae = networks.load_vae(folder / "torch")
    latents = encode(vae, dataset, folder / "latents.npy", best_device()) * np.float16(vae.config.scaling_factor)
    learner = Distiller(dataset, latents, folder / "torch", rate, batch)
    out = folder / "lcm" / "torch"
    for part in ("vae", "text_encoder"):
        shutil.copytree(folder / "torch" / part, out / part, dirs_exist_ok=True)
    return fit(learner, Plan(steps, folder / "lcm.pt", seed, lambda step: learner.save(out)))


def main() -> None:
    """Distil from the command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.distill", description="Distil a four-step U-Net.")
    parser.add_argument("--folder", type=Path, default=TRAINING)
    parser.add_argument("--data", type=Path, default=TRAINING / "scenes")
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-4, help="highest learning rate (default: 3e-4)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    distill(args.folder, args.data, args.steps, seed=args.seed, rate=args.rate, batch=args.batch)


if __name__ == "__main__":
    run(main, "demo.distill")
