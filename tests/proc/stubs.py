"""Stages without models: the same arithmetic every time, the pace and the failures a test asks for in its prompt.

`[crash]` in a prompt is a fault of the U-Net process that works on it, `[error]` raises there, `[slow]` makes every
step take a tenth of a second. They run inside real stage processes, so pacing them by sleeping is part of the stub.
"""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import cast

import numpy as np

from stages.core.board import Doing
from stages.core.checkpoint import Checkpoint
from stages.core.pipes import (
    DrawPreview,
    Finished,
    PreviewDrawn,
    Report,
    Run,
    Started,
    Stepped,
)
from stages.core.region import Region
from stages.core.tasks import Decode, Denoise, EncodeText, Task
from stages.stage import OneByOne, Stage
from stages.vae.picture import encode

SHAPE = (4, 16, 16)
_TOKENS, _DIM = 77, 160
_PACE_S = 0.002


class StubText(OneByOne[EncodeText]):
    """Embeds are the bytes of the prompts' digest; the failures asked for are passed on in the first value."""

    precision = "stub"

    def load(self) -> None:
        pass

    def work(self, run: Run[EncodeText]) -> tuple[int, ...]:
        shape = (len(run.task.prompts), _TOKENS, _DIM)
        embeds = self.view.write(run.output)[: int(np.prod(shape)) * 4].view(np.float32).reshape(shape)
        for row, prompt in enumerate(run.task.prompts):
            embeds[row] = np.frombuffer(hashlib.sha256(prompt.encode()).digest(), np.uint8).mean()
        embeds[0, 0, :3] = [f"[{word}]" in run.task.prompts[-1] for word in ("crash", "error", "slow")]
        self.view.seal(run.output, embeds.nbytes)
        return shape


class StubUnet(Stage):
    """Steps its jobs in turn, saving every step as the real engine does."""

    precision = "stub"

    def load(self) -> None:
        self._jobs: list[tuple[Run[Denoise], Checkpoint]] = []
        self._taken: dict[int, int] = {}

    @property
    def idle(self) -> bool:
        return not self._jobs

    def admit(self, run: Run[Task]) -> None:
        self._jobs.append((cast("Run[Denoise]", run), Checkpoint(self.view.write(run.output), run.job, SHAPE)))

    def drop(self, job: int) -> None:
        self._jobs = [entry for entry in self._jobs if entry[0].job != job]

    def step(self) -> Iterator[Report]:
        run, checkpoint = self._jobs[0]
        self.working = (run.job,)
        began = time.monotonic_ns()
        saved = checkpoint.restore()
        embeds = self.view.read(run.inputs[0].slot).view(np.float32)
        step, latents = (saved.step, saved.latents) if saved else (0, np.full(SHAPE, run.task.seed % 97, np.float32))
        self.board.beat(Doing.BUSY, run.job, step, run.task.steps)
        if run.job not in self._taken:
            self._taken[run.job] = began
            yield Started(run.job, began, step, run.task.steps)
        crash, error, slow = embeds[:3]
        if crash:
            time.sleep(_PACE_S * 5)  # in the midst of the forward, as faults are
            os.kill(os.getpid(), signal.SIGSEGV)
        if error:
            raise ValueError("asked for by the prompt")
        if step < run.task.steps:  # else a process that died had done the last step, and could not say so any more
            time.sleep(0.1 if slow else _PACE_S)
            latents = (latents * np.float32(1.1) + embeds[-1] / (step + 1)) % 251
            step += 1
            checkpoint.save(step, latents, np.zeros((0, *SHAPE), np.float32))
            ended = time.monotonic_ns()
            self.board.busy(ended - began)
            yield Stepped(run.job, step, run.task.steps, began, ended, ended - began)
        if step == run.task.steps:
            self.drop(run.job)
            self.view.seal(run.output, checkpoint.finish(latents))
            yield Finished(run.job, SHAPE, self._taken.pop(run.job), time.monotonic_ns())
        if self.idle:
            self.board.beat(Doing.IDLE)


class PackingUnet(StubUnet):
    """Steps all its jobs at once, as rows of one forward: one that crashes takes all of them with it."""

    def step(self) -> Iterator[Report]:
        for entry in list(self._jobs):
            self._jobs.remove(entry)
            self._jobs.insert(0, entry)
            yield from super().step()


class Scribbler(StubText):
    """Writes random words all over the headers of the arena and over the board, for seconds, while it works."""

    SECONDS = 4.0

    def load(self) -> None:
        self._rng = np.random.default_rng(7)
        self._until = time.monotonic() + self.SECONDS
        threading.Thread(target=self._scribble, daemon=True).start()

    def _scribble(self) -> None:
        slots = len(self.view.layout.payloads)
        headers = self.view.region.array(0, slots * 64).view(np.uint64).reshape(slots, 8)
        board = Region(self.spec.board_fd)
        rows = board.array(0, board.nbytes).view(np.uint64)
        while time.monotonic() < self._until:
            words = self._rng.choice([0, 1, 2, 3, 99, 1 << 40, (1 << 64) - 1], 3)
            headers[self._rng.integers(slots), self._rng.integers(8)] = words[0]
            headers[self._rng.integers(slots), 0] += 1
            rows[self._rng.integers(len(rows))] = words[1]
            time.sleep(0.0005)


class StubVae(OneByOne[Decode]):
    """The picture is the latents' first three channels."""

    precision = "stub"

    def load(self) -> None:
        pass

    def work(self, run: Run[Decode]) -> tuple[int, ...]:
        latents = self.view.read(run.inputs[0].slot).view(np.float32).reshape(run.inputs[0].shape)
        time.sleep(_PACE_S * 5)
        picture = encode(
            np.ascontiguousarray(latents[:3].transpose(1, 2, 0)).astype(np.uint8), run.task.format, run.task.metadata
        )
        self.view.write(run.output)[: len(picture)] = np.frombuffer(picture, np.uint8)
        self.view.seal(run.output, len(picture))
        return (len(picture),)


class DrawsPreviews(StubVae):
    """Draws every preview that is asked for, as the same grey JPEG."""

    JPEG = encode(np.full((8, 8, 3), 127, np.uint8), "jpeg", {})

    def preview(self, wanted: DrawPreview) -> PreviewDrawn | None:
        return PreviewDrawn(wanted.job, 1, self.JPEG)


class NamesNobody(StubUnet):
    """Raises while it has a job of `[error]`, before it has said which job the unit of work is about."""

    def step(self) -> Iterator[Report]:
        if any(self.view.read(run.inputs[0].slot).view(np.float32)[1] for run, _ in self._jobs):
            raise ValueError("of nobody")
        yield from super().step()


class BadPreviews(StubVae):
    """Raises at every preview."""

    def preview(self, wanted: DrawPreview) -> PreviewDrawn | None:
        raise RuntimeError("no luck with this preview")


class ExitsAtLoad(StubUnet):
    """Dies while loading, every time."""

    def load(self) -> None:
        os._exit(7)


class RefusesToLoad(StubUnet):
    """Raises while loading."""

    def load(self) -> None:
        raise RuntimeError("no luck with this machine")
