"""Measure whether a model draws what it is asked for.

    python -m demo.evaluate [--model FOLDER] [--prompts N] [--steps N] [--guidance G] [-o SHEET.png] [--json]

Random prompts of the small world go through Triptych, and the judge (`demo.judge`), who knows renders only, says what
the pictures show. Sharpness is the mean difference of neighbouring pixels; the same prompts and seeds are drawn again
without the negative prompt to see what it does.
"""

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from demo.command import run
from demo.dataset import numbered_scene
from demo.draw import draw
from demo.judge import JUDGE, load_judge, verdicts
from demo.score import Figures, figures, sharpness
from demo.sheet import sheet
from demo.world import NEGATIVE_PROMPT, Scene
from stages.core import wire
from stages.core.model import demo_folder

_SEED = 1 << 33
"""First seed of the prompts' scenes: nothing was trained on them."""

_ON_THE_SHEET = 16


def request(number: int, scene: Scene, negative: str, steps: int | None, guidance: float | None) -> wire.Submit:
    """The request for one scene; its number is also its seed."""
    return wire.Submit(
        id=f"{number}-{negative}",
        prompt=scene.caption(),
        negative_prompt=negative,
        seed=number,
        steps=steps,
        guidance_scale=guidance,
    )


def main() -> None:
    """Draw, judge, print."""
    parser = argparse.ArgumentParser(prog="python -m demo.evaluate", description="Measure what a model draws.")
    parser.add_argument("--model", type=Path, default=demo_folder(), help="(default: the embedded model)")
    parser.add_argument("--judge", type=Path, default=JUDGE, help="(default: the one that comes with this)")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=100, help="drawn again without negative prompt (default: 100)")
    parser.add_argument("--steps", type=int, help="(default: the model's)")
    parser.add_argument("--guidance", type=float, help="(default: the model's)")
    parser.add_argument("-o", "--out", type=Path, help="save a sheet of the first sixteen pictures")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    judge = load_judge(args.judge)
    scenes = [numbered_scene(_SEED, number, flawless=True) for number in range(args.prompts)]
    requests = [
        *(request(number, scene, NEGATIVE_PROMPT, args.steps, args.guidance) for number, scene in enumerate(scenes)),
        *(request(number, scene, "", args.steps, args.guidance) for number, scene in enumerate(scenes[: args.pairs])),
    ]
    pictures = draw(args.model, requests)
    asked, plain = pictures[: len(scenes)], pictures[len(scenes) :]
    seen = verdicts(judge, asked)
    found = figures(scenes, seen, sharpness(asked[: len(plain)]), sharpness(plain))
    if args.out:
        shown = [Image.fromarray(picture) for picture in asked[:_ON_THE_SHEET]]
        sheet(shown, [scene.caption() for scene in scenes[:_ON_THE_SHEET]]).save(args.out)
    if args.json:
        print(json.dumps(asdict(found)))
    else:
        report(args.model, found)


def report(model: Path, found: Figures) -> None:
    """Print the figures as a table."""
    table = Table("right, says the judge", "share", title=f"{model.name}, {found.prompts} random prompts")
    table.add_row("the subject, where there is one", _percent(found.subject))
    table.add_row('"A riding B": both, and it is a ride', _percent(found.riding))
    table.add_row('"A and B": both', _percent(found.beside))
    table.add_row("the place", _percent(found.place))
    table.add_row("the style, where one is named", _percent(found.style))
    table.add_row("sharper with the negative prompt", _percent(found.sharper))
    table.add_row("mean sharpness with it, compared", _percent(found.sharpness_gain, "+"))
    Console().print(table)


def _percent(share: float, sign: str = "") -> str:
    """A share as per cent; NaN, where there was nothing to count, as a dash."""
    return "-" if math.isnan(share) else f"{share:{sign}.1%}"


if __name__ == "__main__":
    run(main, "demo.evaluate")
