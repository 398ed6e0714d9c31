"""The recipe of the embedded model, with tiny networks and few steps, from nothing to a folder that draws.

What is shipped takes hours; this proves that every part of the way works and that the losses fall.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from demo import emoji, networks
from demo.dataset import make_dataset
from demo.distill import boundary, distill, guidance_embedding
from demo.draw import draw
from demo.export import export
from demo.judge import load_judge, train_judge, verdicts
from demo.train_unet import train_unet
from demo.train_vae import train_vae
from stages.core import wire
from stages.core.errors import ConfigError
from stages.core.model import read_card

pytestmark = pytest.mark.skipif(not emoji.FONT.exists(), reason="needs Debian's fonts-noto-color-emoji")

STEPS = 30


@dataclass(frozen=True)
class Run:
    """What one small run of the recipe left."""

    folder: Path
    vae_losses: list[float]
    unet_losses: list[float]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("training")
    make_dataset(folder / "scenes", 64, seed=1, processes=1)
    vae = train_vae(
        folder,
        folder / "scenes",
        networks.TINY,
        STEPS,
        seed=0,
        init=None,
        decoder_only=False,
        rate=3e-3,
        batch=4,
    )
    unet = train_unet(folder, folder / "scenes", networks.TINY, STEPS, seed=0, init=None, rate=3e-3, batch=16)
    return Run(folder, vae, unet)


def falls(losses: list[float]) -> bool:
    return np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_the_losses_fall(run: Run) -> None:
    assert len(run.vae_losses) == len(run.unet_losses) == STEPS
    assert falls(run.vae_losses)
    assert falls(run.unet_losses)


def test_sample_sheets_are_drawn(run: Run) -> None:
    assert {file.name for file in (run.folder / "samples").iterdir()} == {"vae-000030.png", "unet-000030.png"}


def test_the_checkpoint_of_other_networks_is_refused(run: Run, tmp_path: Path) -> None:
    shutil.copy(run.folder / "vae.pt", tmp_path / "unet.pt")
    shutil.copytree(run.folder / "torch", tmp_path / "torch")
    with pytest.raises(ConfigError, match="of another training"):
        train_unet(tmp_path, run.folder / "scenes", networks.TINY, 1, seed=0, init=None, rate=1e-3, batch=4)


def train_decoder(run: Run, folder: Path, init: Path | None) -> None:
    scenes = run.folder / "scenes"
    train_vae(folder, scenes, networks.TINY, 1, seed=0, init=init, decoder_only=True, rate=1e-3, batch=4)


def test_a_decoder_keeps_the_scale_of_the_latents(run: Run, tmp_path: Path) -> None:
    train_decoder(run, tmp_path, run.folder / "torch")
    before, after = (networks.load_vae(folder / "torch").config for folder in (run.folder, tmp_path))
    assert after.scaling_factor == before.scaling_factor != 0.18215


def test_a_decoder_alone_is_not_trained_from_nothing(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--init"):
        train_decoder(run, tmp_path, None)


def test_the_export_is_loaded_and_draws(run: Run, tmp_path: Path) -> None:
    export(run.folder / "torch", tmp_path / "model")
    card = read_card(tmp_path / "model")
    assert (card.family, card.native, card.guidance_embed_dim) == ("SD", (128, 128), None)
    requests = [wire.Submit(id=str(seed), prompt="a cat on mars", seed=seed, steps=2) for seed in (1, 2)]
    pictures = draw(tmp_path / "model", requests)
    assert pictures.shape == (2, 128, 128, 3)
    assert not np.array_equal(pictures[0], pictures[1])
    for file in tmp_path.rglob("*.json"):
        assert str(run.folder) not in file.read_text(), f"{file} says where it was trained"


def test_distilling_gives_a_four_step_model_that_draws(run: Run, tmp_path: Path) -> None:
    losses = distill(run.folder, run.folder / "scenes", 4, seed=0, rate=1e-3, batch=8)
    assert np.isfinite(losses).all()
    export(run.folder / "lcm" / "torch", tmp_path / "lcm")
    card = read_card(tmp_path / "lcm")
    assert (card.family, card.steps, card.guidance_embed_dim) == ("LCM", 4, networks.GUIDANCE_EMBED)
    (picture,) = draw(tmp_path / "lcm", [wire.Submit(id="1", prompt="a cat on mars", seed=1)])
    assert picture.shape == (128, 128, 3)


def test_the_boundary_condition_and_the_embedding_are_those_of_diffusers() -> None:
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    schedule = LCMScheduler()
    for timestep in (0, 19, 999):
        ours = boundary(torch.tensor([timestep]))
        theirs = schedule.get_scalings_for_boundary_condition_discrete(timestep)
        assert [float(part) for part in ours] == pytest.approx([float(part) for part in theirs])
    w = torch.tensor([2.0, 3.5])
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, w, networks.GUIDANCE_EMBED)
    assert torch.allclose(guidance_embedding(w), theirs, atol=1e-3)


def test_a_judge_learns_and_is_loaded_again(run: Run, tmp_path: Path) -> None:
    judge = train_judge(tmp_path, run.folder / "scenes", 5)
    pictures = np.load(run.folder / "scenes" / "pictures.npy")[:4]
    assert verdicts(load_judge(tmp_path / "judge.safetensors"), pictures) == verdicts(judge.half().float(), pictures)
    with pytest.raises(ConfigError, match=r"python -m demo\.judge"):
        load_judge(tmp_path / "nothing.pt")
