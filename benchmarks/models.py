"""Full-size models with random weights: their pictures mean nothing, their forwards cost what real ones do.

    python -m benchmarks.models [sd15] [lcm] [demo] [--folder FOLDER]

sd15 has the shapes of stable-diffusion-v1-5/stable-diffusion-v1-5; lcm those of SimianLuo/LCM_Dreamshaper_v7, which are
the same but for a U-Net that is told the guidance scale. Each becomes a folder for diffusers (NAME-torch) and one for
OpenVINO (NAME-ov), both in 16 bits, 2.1 GB each. demo is the embedded model for diffusers alone, its weights read back
out of the IR. What is there already is left as it is; nothing is downloaded.
"""

import argparse
import gc
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "models"
"""Folder of the models unless told otherwise; git ignores it."""

NAMES = ("sd15", "lcm", "demo")

INSTALL = "pip install -e '.[parity]' && pip install --no-deps optimum-intel==2.2.0"
"""Command that installs all that is needed here."""


def torch_folder(name: str, root: Path = FOLDER) -> Path:
    """Folder of a model as diffusers reads it."""
    return root / f"{name}-torch"


def openvino_folder(name: str, root: Path = FOLDER) -> Path:
    """Folder of a model as all other programs read it."""
    return root / f"{name}-ov"


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all of them if none is named")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to put them (default: models)")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; those that can be made are {', '.join(NAMES)}")
    for name in args.names or NAMES:
        make(name, args.folder)


def make(name: str, root: Path = FOLDER) -> None:
    """Make the folders of a model that are missing. Raises SystemExit where a package is."""
    for folder, step in _steps(name, root):
        if folder.is_dir():
            print(f"{folder}: there already", file=sys.stderr)
            continue
        print(f"{folder}: being made", file=sys.stderr, flush=True)
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        step(unfinished)
        unfinished.rename(folder)
        gc.collect()  # the weights of this step, before the next one loads its own


def _steps(name: str, root: Path) -> list[tuple[Path, Callable[[Path], None]]]:
    """The folders of a model, in the order they are made, and what makes them."""
    try:
        from benchmarks import full_size  # torch, diffusers and optimum-intel
    except ImportError as error:
        raise SystemExit(f"{error}; {INSTALL}") from error
    torch_one = torch_folder(name, root)
    if name == "demo":
        return [(torch_one, full_size.read_back)]
    return [
        (torch_one, lambda folder: full_size.draw_weights(name, folder)),
        (openvino_folder(name, root), lambda folder: full_size.export(torch_one, folder)),
    ]


if __name__ == "__main__":
    main()
