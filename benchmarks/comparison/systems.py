"""The peers, each in one worker process or several. Triptych is in benchmarks.comparison.triptych."""

import itertools
import sys
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import msgspec

from benchmarks.comparison.pipe import Worker
from benchmarks.comparison.work import Work
from stages.core import cores

LOAD_S = 900.0
IMAGE_S = 600.0
"""Deadlines in seconds: of loading, and of one picture of those asked for."""


class System(Protocol):
    """Draws pictures; a picture's number says its prompt and is its seed."""

    name: str

    def load(self) -> None:
        """Start, and return when a picture can be asked for. Raises WorkerLost or TriptychError."""

    def draw(self, first: int, count: int) -> None:
        """Return when pictures `first` to `first + count - 1` are made; all are handed over at once."""

    def save(self, number: int, path: Path) -> None:
        """Make one picture and write it as PNG."""

    def close(self) -> None:
        """Stop; without harm if nothing was loaded."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A program beside Triptych."""

    name: str
    module: str
    package: str
    """Package that must be installed."""
    install: str = "pip install -e '.[parity]'"
    processes: int = 1
    """Processes; of more than one, each is pinned to its part of the cores, and the pictures are dealt out to them."""
    needs_torch: bool = False
    """Whether it reads weights for torch in place of IR."""

    def missing(self) -> str:
        """Command that installs the package; empty if it is there."""
        try:
            version(self.package)
        except PackageNotFoundError:
            return self.install
        return ""


_OPTIMUM = "pip install -e '.[parity]' && pip install --no-deps optimum-intel==2.2.0"
_HERE = "benchmarks.comparison"

PEERS = (
    Peer(name="genai", module=f"{_HERE}.genai", package="openvino-genai"),
    Peer(name="genai-static", module=f"{_HERE}.genai_static", package="openvino-genai"),
    Peer(name="genai-x2", module=f"{_HERE}.genai_static", package="openvino-genai", processes=2),
    Peer(name="optimum-intel", module=f"{_HERE}.optimum_intel", package="optimum-intel", install=_OPTIMUM),
    Peer(name="diffusers", module=f"{_HERE}.diffusers_torch", package="diffusers", needs_torch=True),
)


class Workers:
    """A peer, in one process or several."""

    def __init__(self, peer: Peer, work: Work) -> None:
        self.name = peer.name
        self._peer = peer
        self._work = work
        self._workers: list[Worker] = []

    def load(self) -> None:
        """Load one process after another, so that their peaks do not add up."""
        for mask in masks(cores.allowed(), self._peer.processes):
            command = [sys.executable, "-m", "benchmarks.comparison.worker", self._peer.module]
            command += [msgspec.json.encode(self._work).decode(), *mask]
            worker = Worker(self.name, command)
            self._workers.append(worker)
            worker.expect("ready", LOAD_S)

    def draw(self, first: int, count: int) -> None:
        """Have each process draw its part, one picture after another."""
        shares = equal_parts(count, len(self._workers))
        busy = [(worker, share) for worker, share in zip(self._workers, shares, strict=True) if share]
        for worker, share in busy:
            worker.draw(first, share)
            first += share
        for worker, share in busy:
            worker.expect("done", IMAGE_S * share)

    def save(self, number: int, path: Path) -> None:
        """Have the first process write the picture."""
        self._workers[0].save(number, path)
        self._workers[0].expect("done", IMAGE_S)

    def close(self) -> None:
        """End all processes."""
        with ExitStack() as stack:
            for worker in self._workers:
                stack.callback(worker.close)
        self._workers.clear()


def equal_parts(count: int, hands: int) -> list[int]:
    """Parts of `count`, as equal as can be, the larger ones first."""
    return [count // hands + (hand < count % hands) for hand in range(hands)]


def masks(available: Collection[int], processes: int) -> list[list[str]]:
    """Arguments that pin each of `processes` processes to its part of the cores; none where there is but one."""
    if processes == 1:
        return [[]]
    rest = iter(sorted(available))
    return [[cores.render(itertools.islice(rest, part))] for part in equal_parts(len(available), processes)]
