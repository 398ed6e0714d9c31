"""Those that are compared: peers in worker processes, and Triptych."""

import itertools
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import msgspec

from benchmarks.contest.pipe import Worker, WorkerLost
from benchmarks.contest.work import Work, prompt
from orchestrator.client import Client
from orchestrator.launch import private_pipeline
from stages.core import cores, wire
from stages.core.errors import NoAnswer, ShuttingDown

LOAD_S = 900.0
IMAGE_S = 600.0
"""Deadlines: of loading, and of one picture of those asked for."""

_TRY_S = 0.2
_LAST_WORDS_S = 5.0
"""How long one attempt to reach a pipeline takes, and how long one that ends may need to say why."""


class Contender(Protocol):
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
    """What must be installed."""
    install: str = "pip install -e '.[parity]'"
    processes: int = 1
    """More than one: each is pinned to its part of the cores, and the pictures are dealt out to them."""

    needs_torch: bool = False
    """Whether it reads weights for torch in place of IR."""

    def missing(self) -> str:
        """How to install it; empty if it is there."""
        try:
            version(self.package)
        except PackageNotFoundError:
            return self.install
        return ""


_OPTIMUM = "pip install -e '.[parity]' && pip install --no-deps optimum-intel==2.2.0"
_HERE = "benchmarks.contest"

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
        """One process after another, so that their peaks do not add up."""
        for mask in masks(cores.allowed(), self._peer.processes):
            command = [sys.executable, "-m", "benchmarks.contest.worker", self._peer.module]
            command += [msgspec.json.encode(self._work).decode(), *mask]
            worker = Worker(self.name, command)
            self._workers.append(worker)
            worker.expect("ready", LOAD_S)

    def draw(self, first: int, count: int) -> None:
        """Each process draws its part, one picture after another."""
        shares = deal(count, len(self._workers))
        busy = [(worker, share) for worker, share in zip(self._workers, shares, strict=True) if share]
        for worker, share in busy:
            worker.draw(first, share)
            first += share
        for worker, share in busy:
            worker.expect("done", IMAGE_S * share)

    def save(self, number: int, path: Path) -> None:
        """By the first process."""
        self._workers[0].save(number, path)
        self._workers[0].expect("done", IMAGE_S)

    def close(self) -> None:
        """End all processes."""
        with ExitStack() as stack:
            for worker in self._workers:
                stack.callback(worker.close)
        self._workers.clear()


def deal(count: int, hands: int) -> list[int]:
    """Parts of `count`, as equal as can be, the larger ones first."""
    return [count // hands + (hand < count % hands) for hand in range(hands)]


def masks(available: Collection[int], processes: int) -> list[list[str]]:
    """For each of so many processes the argument that pins it to its part of the cores; none where there is but one."""
    if processes == 1:
        return [[]]
    rest = iter(sorted(available))
    return [[cores.render(itertools.islice(rest, part))] for part in deal(len(available), processes)]


class Triptych:
    """A pipeline of its own, all its prompts in the queue at once."""

    def __init__(self, name: str, work: Work, images: int, overrides: Sequence[str]) -> None:
        self.name = name
        own = (f'model.path="{work.model}"', f"model.precision={work.precision}", f"pipeline.queue_limit={images}")
        self._overrides = (*own, *overrides)
        self._work = work
        self._held = ExitStack()

    def load(self) -> None:
        """Return when a small picture has come, so all stages serve.

        The status is not asked for meanwhile: to answer, the hub reads the memory maps of its stages.
        """
        self._pipeline = self._held.enter_context(private_pipeline(None, self._overrides))
        self._client = self._held.enter_context(Client(self._pipeline.address, _TRY_S))
        self._reach()
        self._finish([msgspec.structs.replace(self._request(0), steps=1)], LOAD_S)

    def draw(self, first: int, count: int) -> None:
        """Send all prompts, then wait for all pictures."""
        self._finish([self._request(number) for number in range(first, first + count)], IMAGE_S * count)

    def save(self, number: int, path: Path) -> None:
        """The picture as it came: a PNG."""
        (picture,) = self._finish([self._request(number)], IMAGE_S)
        path.write_bytes(picture)

    def close(self) -> None:
        """Stop the pipeline."""
        self._held.close()

    def _request(self, number: int) -> wire.Submit:
        return wire.Submit(
            id=str(number),
            prompt=prompt(number),
            negative_prompt=self._work.negative_prompt,
            seed=number,
            steps=self._work.steps,
            guidance_scale=self._work.guidance_scale,
        )

    def _reach(self) -> None:
        """Wait until somebody listens. Raises what ended the pipeline."""
        deadline = time.monotonic() + LOAD_S
        while True:
            try:
                self._client.send(wire.StatusRequest())
                return
            except NoAnswer:
                self._pipeline.poll()
                if time.monotonic() > deadline:
                    raise

    def _finish(self, requests: Sequence[wire.Submit], wait_s: float) -> list[bytes]:
        """The pictures, in the order in which they come. Raises what ended the pipeline, or what a prompt failed of."""
        for request in requests:
            self._client.send(request)
        deadline = time.monotonic() + wait_s
        pictures = []
        left = len(requests)
        while left:
            match self._client.receive(1.0):
                case None:
                    self._pipeline.poll()
                case (wire.Failed() as failed, _):
                    self._pipeline.poll(_LAST_WORDS_S if failed.code == ShuttingDown.code else 0.0)
                    raise failed.error()
                case (wire.Image(), bytes(picture)):
                    pictures.append(picture)
                case (wire.Done(), _):
                    left -= 1
            if time.monotonic() > deadline:
                raise WorkerLost(f"{self.name}: {left} pictures are missing after {wait_s:.0f} s")
        return pictures
