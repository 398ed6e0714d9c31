"""Triptych as a contender: a pipeline of its own and its client."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks.contest.contenders import IMAGE_S, LOAD_S
from benchmarks.contest.pipe import WorkerLost
from benchmarks.contest.work import Work, prompt
from orchestrator.client import Client
from orchestrator.launch import private_pipeline
from stages.core import wire
from stages.core.errors import NoAnswer, ShuttingDown

_TRY_S = 0.2
_LAST_WORDS_S = 5.0
"""How long one attempt to reach a pipeline takes, and how long one that ends may need to say why."""


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
