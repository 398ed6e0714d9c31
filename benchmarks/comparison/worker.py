"""A peer in a process of its own. The parent writes one line at a time, and the process answers each with one.

    python -m benchmarks.comparison.worker MODULE WORK [CORES]

MODULE has a `load(work)` that returns a `Draw`; WORK is a `Work` in JSON. With CORES, a Linux CPU list, the process is
pinned before the module is imported, for libraries start threads when they are.

| line | answer |
|---|---|
| (none: at the start) | `ready` once the model is loaded |
| `draw FIRST COUNT` | `done` when COUNT pictures, from number FIRST on, have been drawn, one after another |
| `save NUMBER PATH` | `done` when that picture lies at PATH as PNG |
| end of input | none: the process ends |
"""

import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import msgspec
from PIL import Image

from benchmarks.comparison.work import Draw, Work, prompt
from stages.core import cores


def main() -> None:
    """Load, then work as told until the input ends."""
    module, work, *mask = sys.argv[1:]
    if mask:
        cores.pin(cores.parse(mask[0]))
    # Libraries print what they like; only our answers may go to the parent.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    draw = importlib.import_module(module).load(msgspec.json.decode(work, type=Work))
    serve(draw, sys.stdin, answers)


def serve(draw: Draw, lines: Iterable[str], answers: TextIO) -> None:
    """Say `ready`, then answer every line. Raises ValueError at a line that is none of the protocol."""
    print("ready", file=answers, flush=True)
    for line in lines:
        match line.rstrip("\n").split(" ", 2):
            case ["draw", first, count]:
                for number in range(int(first), int(first) + int(count)):
                    draw(prompt(number), number)
            case ["save", number, path]:
                Image.fromarray(draw(prompt(int(number)), int(number))).save(Path(path), "png")
            case _:
                raise ValueError(f"not understood: {line!r}")
        print("done", file=answers, flush=True)


if __name__ == "__main__":
    main()
