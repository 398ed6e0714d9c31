"""The measuring: each contender by itself, for its memory and a picture; then all of a group in turn, in rounds."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.contest import memory
from benchmarks.contest.contenders import Contender
from benchmarks.contest.memory import PeakMemory
from benchmarks.contest.pipe import WorkerLost
from benchmarks.contest.results import OURS, Measured
from benchmarks.contest.work import Pixels
from stages.core.errors import TriptychError

Say = Callable[[str], None]
"""Where lines for people go."""

_REFERENCE = 0
"""Number of the picture that is compared."""


def weigh(contenders: Sequence[Contender], found: Measured, say: Say) -> Iterator[None]:
    """Peak memory of each contender, by itself, from its start over one run; and its picture beside Triptych's.

    The first contender whose name is Triptych's draws what the later ones are compared with. Yields after each one.
    """
    reference = None
    for contender in contenders:
        try:
            with PeakMemory() as memory_of_it:
                picture = _drawn(contender, found.task.images)
        except (WorkerLost, TriptychError) as error:
            say(f"{contender.name}: no peak, for it failed: {error}")
            continue
        if reference is None and contender.name.startswith(OURS):
            reference = picture
        if reference is not None:
            found.likeness[contender.name] = psnr(reference, picture)
        peak = found.peaks[contender.name] = memory_of_it.peak()
        say(f"{contender.name}: peak PSS {peak.pss / 1e9:.2f} GB, VmHWM {peak.hwm / 1e9:.2f} GB")
        yield


def _drawn(contender: Contender, images: int) -> Pixels:
    """One picture of a contender that is started for it, makes a whole run besides, and is stopped."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        try:
            contender.load()
            contender.save(_REFERENCE, path)
            contender.draw(_REFERENCE + 1, images)
        finally:
            contender.close()
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))


def race(contenders: Sequence[Contender], found: Measured, rounds: int, say: Say) -> Iterator[None]:
    """Load all, then go through them forwards and backwards (A B C C B A) in each round; idle ones keep loaded.

    Yields after every round, once `found` has it.
    A contender that cannot be loaded is left out with a line. The k-th run of every contender makes the same pictures,
    and no run makes one that was made before: what a contender remembers of a prompt is of no use to it.
    """
    with ExitStack() as stack:
        racing = list(_loaded(contenders, stack, say))
        task = found.task
        for contender, _ in racing:  # a whole run, for what is compiled when so many rows first meet
            contender.draw(0, 1 if task.alone else task.images)
            say(f"{contender.name} is warm")
        made = {contender.name: task.images for contender, _ in racing}
        for number in range(rounds):
            seconds: dict[str, list[float]] = {contender.name: [] for contender, _ in racing}
            for contender, _ in [*racing, *reversed(racing)]:
                others = {other.name: pids for other, pids in racing if other is not contender}
                with _watched(others, found):
                    run = _run(contender, made[contender.name], task.images, task.alone)
                made[contender.name] += task.images
                seconds[contender.name] += run
                say(f"round {number + 1}: {contender.name} {task.figure(run):.4g} {task.unit}")
            found.rounds.append(seconds)
            yield


def _loaded(contenders: Iterable[Contender], stack: ExitStack, say: Say) -> Iterator[tuple[Contender, set[int]]]:
    """Each contender with its processes, once it is loaded."""
    for contender in contenders:
        others = memory.descendants().keys()
        stack.callback(contender.close)
        try:
            contender.load()
        except (WorkerLost, TriptychError) as error:
            contender.close()
            say(f"{contender.name} left out: {error}")
        else:
            yield contender, memory.descendants().keys() - others


def _run(contender: Contender, first: int, images: int, alone: bool) -> list[float]:
    """Seconds of one run; alone, of each of its pictures."""
    found = []
    for start, count in [(first + number, 1) for number in range(images)] if alone else [(first, images)]:
        began = time.monotonic()
        contender.draw(start, count)
        found.append(time.monotonic() - began)
    return found


@contextmanager
def _watched(others: dict[str, set[int]], found: Measured) -> Iterator[None]:
    """Note what the idle ones use of the CPU meanwhile."""
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
