"""Rendered scenes on disk, and the latents of their pictures.

    python -m demo.dataset [--count N] [--seed N] [--folder FOLDER]

Scene i follows from the seed and i, so only the pictures are stored: `pictures.npy`, uint8 [count, SIDE, SIDE, 3], and
`scenes.json`, which says how many there are and from which seed.
"""

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
from rich.progress import track

from demo.backdrop import SIDE
from demo.command import STDERR, run
from demo.render import render
from demo.world import Scene, random_scene
from stages.core.errors import ConfigError

TRAINING = Path("models/demo-training")
"""Folder of data and checkpoints unless told otherwise; git ignores it."""

HELD_OUT_SEED = 1 << 32
"""First seed of the scenes that nothing is trained on."""

_CHUNK = 250


@dataclass(frozen=True)
class Dataset:
    """`count` scenes; `open_dataset` finds one, `make_dataset` renders it."""

    folder: Path
    count: int
    seed: int

    def scene(self, number: int) -> Scene:
        """The scene of picture `number`."""
        return numbered_scene(self.seed, number)

    def pictures(self) -> npt.NDArray[np.uint8]:
        """All pictures, mapped: [count, SIDE, SIDE, 3]."""
        found: npt.NDArray[np.uint8] = np.load(self.folder / "pictures.npy", mmap_mode="r")
        return found


def numbered_scene(seed: int, number: int, flawless: bool = False) -> Scene:
    """Scene `number` of those that follow from `seed`."""
    return random_scene(Random(seed + number), flawless)


def make_dataset(folder: Path, count: int, seed: int, processes: int | None = None) -> Dataset:
    """Render the scenes that are not there yet; does nothing if all are."""
    dataset = Dataset(folder, count, seed)
    folder.mkdir(parents=True, exist_ok=True)
    facts = folder / "scenes.json"
    wanted = {"count": count, "seed": seed}
    if facts.exists():
        found = json.loads(facts.read_text())
        if found != wanted:
            raise ConfigError(f"{folder} holds other scenes ({found}, not {wanted}); remove it or name another folder")
        return dataset
    unfinished = folder / "pictures.unfinished.npy"
    shape = (count, SIDE, SIDE, 3)
    pictures = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    with ProcessPoolExecutor(processes) as pool:
        rendered = pool.map(partial(_render, seed), chunks)
        for chunk, part in zip(chunks, track(rendered, "rendering", len(chunks), console=STDERR), strict=True):
            pictures[chunk.start : chunk.stop] = part
    pictures.flush()
    os.replace(unfinished, folder / "pictures.npy")
    facts.write_text(json.dumps(wanted))
    return dataset


def open_dataset(folder: Path) -> Dataset:
    """The scenes rendered before. Raises ConfigError if there are none."""
    try:
        return Dataset(folder, **json.loads((folder / "scenes.json").read_text()))
    except FileNotFoundError as error:
        raise ConfigError(f"{folder} holds no scenes; `python -m demo.dataset --folder {folder}` makes them") from error


def _render(seed: int, numbers: Sequence[int]) -> npt.NDArray[np.uint8]:
    return np.stack([np.asarray(render(numbered_scene(seed, number), seed + number)) for number in numbers])


def main() -> None:
    """Render a dataset."""
    parser = argparse.ArgumentParser(prog="python -m demo.dataset", description="Render scenes to train on.")
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=TRAINING / "scenes")
    args = parser.parse_args()
    print(json.dumps(asdict(make_dataset(args.folder, args.count, args.seed)), default=str))


if __name__ == "__main__":
    run(main, "demo.dataset")
