"""The judge: a small classifier of scenes, trained on renders, that says what a picture shows.

    python -m demo.judge [--folder FOLDER] [--steps N]

It has nothing in common with the model that it judges but the renderer. It looks at pictures that are blurred, shifted
in colour and made noisy at random, because a model's pictures are softer than renders. The command trains it and
prints how often it is right about scenes it has never seen.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from demo.command import run
from demo.dataset import HELD_OUT_SEED, TRAINING, Dataset, make_dataset, open_dataset
from demo.fit import Plan, fit
from demo.latents import best_device, to_pixels
from demo.score import Verdict, accuracy
from demo.world import PLACES, RELATIONS, STYLES, SUBJECTS, Scene
from stages.core.errors import ConfigError

JUDGE = Path(__file__).parent / "judge.safetensors"
"""File of the judge that comes with the recipe, so that figures can be compared."""

HEADS = {
    "first": SUBJECTS,
    "second": (None, *SUBJECTS),
    "relation": RELATIONS,
    "place": PLACES,
    "style": STYLES,
}
"""Classes that are told apart, by the name of Scene's field: one head each."""

_BATCH = 64
_CHUNK = 100


class Judge(nn.Module):
    """The classifier: convolutions down to 4 x 4, then one linear layer for all heads."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for channels, repeat in ((24, 0), (48, 1), (96, 1), (160, 1), (192, 0)):
            layers += _convolution(before, channels, stride=2)
            for _ in range(repeat):
                layers += _convolution(channels, channels, stride=1)
            before = channels
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.LazyLinear(sum(map(len, HEADS.values())))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits of each head, from pixels [n, 3, 128, 128] of -1 to 1."""
        logits: tuple[torch.Tensor, ...] = self.heads(self.body(pixels)).split(list(map(len, HEADS.values())), dim=1)
        return logits


def _convolution(before: int, after: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


class _Learner:
    """The judge with its data (`fit.Learner`)."""

    def __init__(self, dataset: Dataset) -> None:
        self.rate = 2e-3
        self._device = best_device()
        self._pictures = dataset.pictures()
        self._labels = torch.tensor([labels(dataset.scene(number)) for number in range(dataset.count)])
        self.judge: Judge = new_judge().to(self._device, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(self.judge.parameters(), lr=self.rate, weight_decay=0.05)

    def loss(self, step: int, generator: torch.Generator) -> torch.Tensor:
        """The sum of the heads' cross-entropies."""
        chosen = torch.randint(len(self._labels), (_BATCH,), generator=generator)
        pixels = augmented(to_pixels(self._pictures[np.sort(chosen.numpy())], self._device), generator)
        wanted = self._labels[chosen.sort().values].to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16):
            outputs = self.judge(pixels.to(memory_format=torch.channels_last))
        losses = [functional.cross_entropy(output.float(), wanted[:, i]) for i, output in enumerate(outputs)]
        return torch.stack(losses).sum()

    def stepped(self, step: int) -> None:
        """Do nothing: there is no running mean."""

    def parts(self) -> Mapping[str, Any]:
        """The part to keep: the judge."""
        return {"judge": self.judge}


def new_judge() -> Judge:
    """An untrained judge; its lazy layer has its shape."""
    judge = Judge()
    judge.eval()(torch.zeros(1, 3, 128, 128))
    return judge


def labels(scene: Scene) -> list[int]:
    """The right class of each head."""
    return [classes.index(getattr(scene, name)) for name, classes in HEADS.items()]


def augmented(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A batch made softer, differently lit and noisy, at random."""
    count, _, side, _ = pixels.shape
    if torch.rand((), generator=generator) < 0.6:
        smaller = int(torch.randint(side // 4, side, (), generator=generator))
        small = functional.interpolate(pixels, (smaller, smaller), mode="area")
        pixels = functional.interpolate(small, (side, side), mode="bilinear")
    contrast = 1 + 0.3 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)
    shift = 0.3 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)
    strength = 0.1 * torch.rand(count, 1, 1, 1, generator=generator)
    noise = strength * torch.randn(pixels.shape, generator=generator)
    return (pixels * contrast.to(pixels.device) + (shift + noise).to(pixels.device)).clamp(-1, 1)


@torch.no_grad()
def verdicts(judge: Judge, pictures: npt.NDArray[np.uint8]) -> list[Verdict]:
    """The judge's verdicts on pictures [n, 128, 128, 3]."""
    judge.eval()
    device = next(judge.parameters()).device
    found = []
    for start in range(0, len(pictures), _CHUNK):
        outputs = judge(to_pixels(pictures[start : start + _CHUNK], device))
        for classes in torch.stack([output.argmax(1) for output in outputs], dim=1).tolist():
            seen: dict[str, Any] = {name: HEADS[name][number] for name, number in zip(HEADS, classes, strict=True)}
            found.append(Verdict(**seen))
    return found


def save_judge(judge: Judge, path: Path) -> None:
    """Write the weights, floats in f16."""
    half = {name: value.half() if value.is_floating_point() else value for name, value in judge.state_dict().items()}
    save_file({name: value.contiguous().cpu() for name, value in half.items()}, path)


def load_judge(path: Path) -> Judge:
    """The judge trained before. Raises ConfigError if there is none."""
    if not path.exists():
        raise ConfigError(f"{path}: no judge there; `python -m demo.dataset` and `python -m demo.judge` train one")
    judge = new_judge()
    judge.load_state_dict(load_file(path))
    judge.eval()
    return judge


def train_judge(folder: Path, data: Path, steps: int, seed: int = 0) -> Judge:
    """Train on the scenes of `data`, going on from `folder`/judge.pt, and write `folder`/judge.safetensors."""
    learner = _Learner(open_dataset(data))
    fit(learner, Plan(steps, folder / "judge.pt", seed))
    save_judge(learner.judge, folder / JUDGE.name)
    return learner.judge


def main() -> None:
    """Train, then try it on held-out scenes."""
    parser = argparse.ArgumentParser(prog="python -m demo.judge", description="Train the judge of pictures.")
    parser.add_argument("--folder", type=Path, default=TRAINING)
    parser.add_argument("--data", type=Path, default=TRAINING / "scenes")
    parser.add_argument("--steps", type=int, default=900)
    args = parser.parse_args()
    judge = train_judge(args.folder, args.data, args.steps)
    held_out = make_dataset(args.folder / "held-out", 2000, HELD_OUT_SEED)
    scenes = [held_out.scene(number) for number in range(held_out.count)]
    for name, share in accuracy(scenes, verdicts(judge, held_out.pictures())).items():
        print(f"{name:10s} {share:.1%} right of {held_out.count} held-out renders")


if __name__ == "__main__":
    run(main, "demo.judge")
