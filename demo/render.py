"""Draw captioned scenes.

    python -m demo.render [--count N] [--seed N] [-o SHEET.png]

A scene and a seed give one picture, always the same. The command draws a sheet of them to look at.
"""

import argparse
from pathlib import Path
from random import Random

from PIL import Image

from demo import backdrop, emoji, style
from demo.backdrop import SIDE
from demo.command import run
from demo.sheet import sheet
from demo.world import Relation, Scene, random_scene


def render(scene: Scene, seed: int) -> Image.Image:
    """The scene as an RGB picture of SIDE x SIDE pixels; positions, sizes and shades follow from the seed."""
    random = Random(seed)
    picture, _ = backdrop.paint(scene.place, random)
    match scene.relation:
        case Relation.ALONE:
            _place(picture, scene.first, random.uniform(0.56, 0.78), (0.5, 0.54), random)
        case Relation.RIDING:
            assert scene.second is not None
            # The mount first: who rides sits in front of it.
            across, down = _place(picture, scene.second, random.uniform(0.56, 0.68), (0.5, 0.66), random)
            _place(picture, scene.first, random.uniform(0.38, 0.46), (across, down - 0.3), random, jitter=0.02)
        case Relation.BESIDE:
            assert scene.second is not None
            size = random.uniform(0.4, 0.48)
            _place(picture, scene.first, size, (0.27, 0.58), random)
            _place(picture, scene.second, size, (0.73, 0.58), random)
    return style.degrade(style.apply(picture, scene.style, random), scene.flaws, random)


def _place(
    picture: Image.Image, subject: str, size: float, at: tuple[float, float], random: Random, jitter: float = 0.04
) -> tuple[float, float]:
    """Put a subject into the picture, its longer side `size` and its centre near `at`, in parts of the picture's side.

    Returns where its centre has come to lie.
    """
    figure = emoji.picture(subject)
    scale = size * SIDE / max(figure.size)
    figure = figure.resize((round(figure.width * scale), round(figure.height * scale)), Image.Resampling.LANCZOS)
    figure = figure.rotate(random.uniform(-5, 5), Image.Resampling.BICUBIC, expand=True)
    across, down = (centre + random.uniform(-jitter, jitter) for centre in at)
    corner = (round(across * SIDE - figure.width / 2), round(down * SIDE - figure.height / 2))
    picture.paste(figure, corner, figure)
    return across, down


def main() -> None:
    """Draw a sheet."""
    parser = argparse.ArgumentParser(prog="python -m demo.render", description="Draw a sheet of captioned scenes.")
    parser.add_argument("--count", type=int, default=24, help="how many scenes (default: 24)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=Path("scenes.png"))
    args = parser.parse_args()
    scenes = [random_scene(Random(args.seed + number)) for number in range(args.count)]
    pictures = [render(scene, args.seed + number) for number, scene in enumerate(scenes)]
    sheet(pictures, [scene.caption() for scene in scenes]).save(args.out)
    print(args.out)


if __name__ == "__main__":
    run(main, "demo.render")
