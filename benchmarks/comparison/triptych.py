"""Triptych as a system: a pipeline of its own and its client."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks.comparison.pipe import WorkerLost
from benchmarks.comparison.systems import IMAGE_S, LOAD_S
from benchmarks.comparison.work import Work, prompt
from orchestrator.client import own_pipeline
from stages.core import wire

_ASK_S = 10.0
"""Seconds of silence after which the server is asked whether it lives; it says something each second."""


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

        The status is hardly asked for meanwhile: to answer, the hub reads the memory maps of its stages.
        """
        self._client = self._held.enter_context(own_pipeline(None, self._overrides, ask_s=_ASK_S))
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

    def _finish(self, requests: Sequence[wire.Submit], wait_s: float) -> list[bytes]:
        """The pictures, in the order in which they come. Raises what ended the pipeline, or what a prompt failed of."""
        for request in requests:
            self._client.send(request)
        deadline = time.monotonic() + wait_s
        pictures = []
        left = len(requests)
        while left:
            match self._client.receive(1.0):
                case (wire.Failed() as failed, _):
                    raise failed.error()
                case (wire.Image(), bytes(picture)):
                    pictures.append(picture)
                case (wire.Done(), _):
                    left -= 1
            if time.monotonic() > deadline:
                raise WorkerLost(f"{self.name}: {left} pictures are missing after {wait_s:.0f} s")
        return pictures
