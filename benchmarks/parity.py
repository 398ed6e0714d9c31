"""The distance of Triptych's pictures from those of diffusers, optimum-intel and openvino-genai: one table.

    python -m benchmarks.parity [-o docs/parity.md] [--models FOLDER]

Every family is a tiny random model (tests/parity/families.py), or the embedded one. The tests of tests/parity assert
what the table shows. With --models, the model folders are kept there for the next time.
"""

import argparse
import json
import math
import tempfile
import textwrap
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

import openvino as ov
import torch

from tests.parity.ask import NEGATIVE, OWN, PROMPT, SEED, WIDE, asks
from tests.parity.export import Workshop
from tests.parity.families import FAMILIES, Family
from tests.parity.gallery import Gallery, Program
from tests.parity.peers import Pixels, psnr

EMBEDDED = "embedded"
PACKAGES = ("triptych", "diffusers", "torch", "optimum-intel", "openvino", "openvino-genai", "transformers")
RUNTIMES: tuple[Program, ...] = ("triptych", "optimum-intel", "openvino-genai")
HEAD = """\
# The same seed, the same picture

PSNR in dB of pictures from the same weights, prompt, seed and steps; `equal` where not one value differs. 51 dB is what
cutting colours down to whole numbers costs, in place of rounding them, as openvino-genai does. Written by
`python -m benchmarks.parity`; `pytest tests/parity` asserts at least 45 dB in every f32 column.

- Under **f32**, Triptych's picture beside the one of diffusers over torch, of optimum-intel and of openvino-genai.
- Under **bf16**, each runtime's bf16 picture beside diffusers' f32 picture: how far bf16 takes it. Random models
  amplify rounding errors; the embedded model, being trained, shows what to expect of a model in use.
"""


def main() -> None:
    """Make all pictures and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/parity.md"))
    parser.add_argument("--models", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        workshop = Workshop(args.models or Path(scratch))
        gallery = Gallery(workshop)
        rows = [row for family in FAMILIES.values() for row in table(gallery, family)]
        args.output.write_text(
            "\n".join([HEAD, *machine(), "", *COLUMNS, *rows, "", *bf16_means(gallery), "", *legend(workshop)]) + "\n"
        )
    print(f"{args.output}: {len(rows)} pictures")


COLUMNS = (
    "| | | f32: | | | bf16: | | |",
    "|---|---|--:|--:|--:|--:|--:|--:|",
    "| **family** | **picture** | **diffusers** | **optimum-intel** | **GenAI** "
    "| **Triptych** | **optimum-intel** | **GenAI** |",
)


def table(gallery: Gallery, family: Family) -> list[str]:
    """One row a picture."""
    truth = gallery.pictures(family.name, "diffusers")
    f32 = {program: gallery.pictures(family.name, program) for program in RUNTIMES}
    bf16 = {program: gallery.pictures(family.name, program, "bf16") for program in RUNTIMES}
    rows = []
    for number, label in enumerate(asks(family)):
        ours = f32["triptych"][label]
        cells = [
            distance(ours, truth[label]),
            *(distance(ours, f32[program].get(label)) for program in RUNTIMES[1:]),
            *(distance(truth[label], bf16[program].get(label)) for program in RUNTIMES),
        ]
        rows.append(f"| {'' if number else family.name} | {label} | {' | '.join(cells)} |")
    return rows


def distance(one: Pixels, other: Pixels | None) -> str:
    """PSNR in dB as a cell of the table; empty where there is no other picture."""
    if other is None:
        return ""
    decibels = psnr(one, other)
    return "equal" if math.isinf(decibels) else f"{decibels:.1f}"


def machine() -> list[str]:
    """The packages and the processor that made the pictures."""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return textwrap.wrap(f"{versions}; {ov.Core().get_property('CPU', 'FULL_DEVICE_NAME')}.", 120)


def bf16_means(gallery: Gallery) -> list[str]:
    """A line on the embedded model's pictures in bf16 that every runtime makes: mean PSNR in dB against diffusers'."""
    truth = gallery.pictures(EMBEDDED, "diffusers")
    pictures = {program: gallery.pictures(EMBEDDED, program, "bf16") for program in RUNTIMES}
    shared = set.intersection(*(set(made) for made in pictures.values()))
    means = (
        f"{program} {fmean(psnr(truth[label], made[label]) for label in shared):.1f}"
        for program, made in pictures.items()
    )
    return [f"Mean over the {len(shared)} bf16 pictures of the embedded model that all make: {', '.join(means)}."]


def legend(workshop: Workshop) -> list[str]:
    """The legend of the table."""
    return [
        f'A picture is of "{PROMPT}", negative "{NEGATIVE}" where there is',
        f"guidance, seed {SEED}, or differs from that in what the second column names: the schedule",
        f'("{OWN}" is that of the model\'s folder), the prompt, the guidance, the size.',
        "",
        "| family | like | its own schedule | steps | guidance | |",
        "|---|---|---|--:|--:|---|",
        *(
            f"| {family.name} | {family.like} | {own_schedule(workshop, family)} "
            f"| {family.steps} | {family.guidance_scale:g} | {genai(family)} |"
            for family in FAMILIES.values()
        ),
    ]


def own_schedule(workshop: Workshop, family: Family) -> str:
    """The schedule that the folder names."""
    config = workshop.openvino_folder(family) / "scheduler" / "scheduler_config.json"
    return str(json.loads(config.read_text())["_class_name"]).removesuffix("Scheduler")


def genai(family: Family) -> str:
    """Why GenAI's column is empty, wholly or in part; no text where it is full."""
    if family.without_genai:
        return f"GenAI left out: {family.without_genai}"
    return (
        f"GenAI left out where the picture is {WIDE}: {family.genai_at_another_size}"
        if family.genai_at_another_size
        else ""
    )


if __name__ == "__main__":
    main()
