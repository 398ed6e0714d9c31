"""The measuring: each system by itself, for its memory and a picture; then all of a group in turn, in rounds."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.comparison import memory
from benchmarks.comparison.memory import PeakMemory
from benchmarks.comparison.pipe import WorkerLost
from benchmarks.comparison.results import OURS, Measured
from benchmarks.comparison.systems import System
from benchmarks.comparison.work import Pixels
from stages.core.errors import TriptychError

WriteLine = Callable[[str], None]
"""Writes a line for people."""

_REFERENCE = 0
"""Number of the picture that is compared."""


def measure_memory(systems: Sequence[System], found: Measured, write_line: WriteLine) -> Iterator[None]:
    """Peak memory of each system, by itself, from its start over one run; and its picture beside Triptych's.

    The first system whose name is Triptych's draws what the later ones are compared with. Yields after each one.
    """
    reference = None
    for system in systems:
        try:
            with PeakMemory() as memory_of_it:
                picture = _drawn(system, found.task.images)
        except (WorkerLost, TriptychError) as error:
            write_line(f"{system.name}: no peak, for it failed: {error}")
            continue
        if reference is None and system.name.startswith(OURS):
            reference = picture
        if reference is not None:
            found.likeness[system.name] = psnr(reference, picture)
        peak = found.peaks[system.name] = memory_of_it.peak()
        write_line(f"{system.name}: peak PSS {peak.pss / 1e9:.2f} GB, VmHWM {peak.hwm / 1e9:.2f} GB")
        yield


def _drawn(system: System, images: int) -> Pixels:
    """One picture of a system that is started for it, makes a whole run besides, and is stopped."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        try:
            system.load()
            system.save(_REFERENCE, path)
            system.draw(_REFERENCE + 1, images)
        finally:
            system.close()
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))


def interleave(systems: Sequence[System], found: Measured, rounds: int, write_line: WriteLine) -> Iterator[None]:
    """Load all, then go through them forwards and backwards (A B C C B A) in each round; idle ones keep loaded.

    Yields after every round, once `found` has it.
    A system that cannot be loaded is left out with a line. The k-th run of every system makes the same pictures,
    and no run makes one that was made before: what a system remembers of a prompt is of no use to it.
    """
    with ExitStack() as stack:
        loaded = list(_loaded(systems, stack, write_line))
        task = found.task
        for system, _ in loaded:  # a whole run, for what is compiled when so many rows first meet
            system.draw(0, 1 if task.alone else task.images)
            write_line(f"{system.name} is warm")
        made = {system.name: task.images for system, _ in loaded}
        for number in range(rounds):
            seconds: dict[str, list[float]] = {system.name: [] for system, _ in loaded}
            for system, _ in [*loaded, *reversed(loaded)]:
                others = {other.name: pids for other, pids in loaded if other is not system}
                with _watched(others, found):
                    run = _run(system, made[system.name], task.images, task.alone)
                made[system.name] += task.images
                seconds[system.name] += run
                write_line(f"round {number + 1}: {system.name} {task.figure(run):.4g} {task.unit}")
            found.rounds.append(seconds)
            yield


def _loaded(systems: Iterable[System], stack: ExitStack, write_line: WriteLine) -> Iterator[tuple[System, set[int]]]:
    """Each system with its processes, once it is loaded."""
    for system in systems:
        others = memory.descendants().keys()
        stack.callback(system.close)
        try:
            system.load()
        except (WorkerLost, TriptychError) as error:
            system.close()
            write_line(f"{system.name} left out: {error}")
        else:
            yield system, memory.descendants().keys() - others


def _run(system: System, first: int, images: int, alone: bool) -> list[float]:
    """Seconds of one run; with `alone`, of each of its pictures."""
    found = []
    for start, count in [(first + number, 1) for number in range(images)] if alone else [(first, images)]:
        began = time.monotonic()
        system.draw(start, count)
        found.append(time.monotonic() - began)
    return found


@contextmanager
def _watched(others: dict[str, set[int]], found: Measured) -> Iterator[None]:
    """Note the CPU time that the idle systems use meanwhile."""
    before = {name: memory.cpu_seconds(pids) for name, pids in others.items()}
    began = time.monotonic()
    yield
    wall = time.monotonic() - began
    for name, pids in others.items():
        share = (memory.cpu_seconds(pids) - before[name]) / wall
        found.idle_share[name] = max(share, found.idle_share.get(name, 0.0))


def psnr(one: Pixels, other: Pixels) -> float | None:
    """Peak signal-to-noise ratio in dB; None for equal pictures."""
    error = ((one.astype(np.float64) - other) ** 2).mean()
    return None if error == 0 else float(10 * np.log10(255**2 / error))
