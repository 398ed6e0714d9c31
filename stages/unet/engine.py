"""The U-Net engine: sequences join and leave between steps, and share forwards as rows."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.board import Doing
from stages.core.errors import BadOutput
from stages.core.model import TOKENS, ModelCard, read_card
from stages.core.wire import Fault, Put, Report, Run, RunUnet, Stepped, Took
from stages.runtime import Forward, Runtime
from stages.stage import Stage
from stages.unet import schedules
from stages.unet.guidance import combine, embedding
from stages.unet.sequence import Sequence


class Shape(NamedTuple):
    """What a compiled forward is for: rows, latents of [height, width], tokens of the prompt embeds."""

    rows: int
    height: int
    width: int
    tokens: int


class _Batch(NamedTuple):
    """A compiled forward and the arrays bound to it; one entry a row."""

    forward: Forward
    sample: NDArray[np.float32]
    timestep: NDArray[np.generic]
    embeds: NDArray[np.float32]
    guidance: NDArray[np.float32] | None
    output: NDArray[np.float32]


class UnetStage(Stage):
    """Steps the oldest sequence, and as many of the next ones of its shape as `max_rows` rows hold beside it.

    Every step ends in the slot of its sequence (stages.core.checkpoint), so a sequence that comes with a started
    slot, from a process that died, goes on where that one was.
    """

    _card: ModelCard

    @property
    def idle(self) -> bool:
        """Whether no sequence is here."""
        return not self._sequences

    @property
    def precision(self) -> str:
        """What the U-Net computes in."""
        return next(iter(self._batches.values())).forward.precision

    def load(self) -> None:
        """Compile for one picture of the first size at the default guidance, and run it once."""
        self._sequences: list[Sequence] = []
        self._batches: dict[Shape, _Batch] = {}
        self._card = read_card(Path(self.spec.model))
        schedules.build(self._card.scheduler, self._card.steps)  # what it refuses is better known now
        self._runtime = Runtime(self.spec, self.beacon)
        self._source = self._runtime.inspect("unet")
        _, height, width = self._card.latent_shape(*self.spec.sizes[0])
        self._batch(Shape(self._card.rows(self._card.guidance_scale), height, width, TOKENS)).forward.infer()

    def admit(self, run: Run) -> None:
        """Take a sequence in; it has its first step when its turn comes."""
        assert isinstance(run, RunUnet)
        shape = self._card.latent_shape(run.width, run.height)
        embeds = self.view.lend(run.input).view(np.float32).reshape(run.input_shape)
        self._sequences.append(Sequence(run, self._card.scheduler, shape, embeds, self.view.write(run.output)))

    def drop(self, job: int) -> None:
        """Let the sequence leave."""
        self._sequences = [sequence for sequence in self._sequences if sequence.run.job != job]

    def step(self) -> Iterator[Report]:
        """One forward, and one step of every sequence in it."""
        group = self._group()
        self.working = tuple(sequence.run.job for sequence in group)
        first = group[0]
        shape = self._shape(group)
        compiling = shape not in self._batches
        self.beacon.beat(Doing.COMPILING if compiling else Doing.BUSY, first.run.job, first.step, first.steps)
        began = time.monotonic_ns()
        for sequence in group:
            if not sequence.taken_ns:
                sequence.taken_ns = began
                yield Took(sequence.run.job, began)
        batch = self._batch(shape)
        self._fill(batch, group)
        batch.forward.infer()

        row = 0
        for sequence in group:
            output = combine(batch.output[row : row + sequence.rows], sequence.run.guidance_scale)
            row += sequence.rows
            sequence.advance(output)
        ended = time.monotonic_ns()
        self.beacon.busy(ended - began)
        self.beacon.beat(Doing.BUSY, first.run.job, first.step, first.steps)
        for sequence in group:
            yield Stepped(sequence.run.job, sequence.step, sequence.steps, began, ended)
            if sequence.step == sequence.steps:
                yield self._finish(sequence)
        if self.idle:
            self.beacon.beat(Doing.IDLE)

    def _finish(self, sequence: Sequence) -> Put | Fault:
        run = sequence.run
        self.drop(run.job)
        if not np.isfinite(sequence.latents).all():
            return Fault(run.job, BadOutput.code, "the U-Net's latents hold NaN or Inf")
        self.view.seal(run.output, sequence.finish())
        return Put(run.job, run.output, sequence.latents.shape, sequence.taken_ns, time.monotonic_ns())

    def _group(self) -> list[Sequence]:
        """The oldest sequence, with those after it that fit into the same forward."""
        group = [self._sequences[0]]
        rows = group[0].rows
        per_row = self._source.ranks["timestep"] > 0  # else one timestep serves all rows
        for sequence in self._sequences[1:] if per_row else ():
            same = sequence.latents.shape == group[0].latents.shape and sequence.tokens == group[0].tokens
            if same and rows + sequence.rows <= self.spec.max_rows:
                group.append(sequence)
                rows += sequence.rows
        return group

    def _shape(self, group: list[Sequence]) -> Shape:
        _, height, width = group[0].latents.shape
        return Shape(sum(sequence.rows for sequence in group), height, width, group[0].tokens)

    def _fill(self, batch: _Batch, group: list[Sequence]) -> None:
        """Lay the sequences' rows into the batch."""
        row = 0
        for sequence in group:
            rows = slice(row, row + sequence.rows)
            row += sequence.rows
            batch.sample[rows] = sequence.model_input()
            batch.timestep[... if batch.timestep.ndim == 0 else rows] = sequence.timestep
            if batch.guidance is not None:
                batch.guidance[rows] = embedding(sequence.run.guidance_scale, batch.guidance.shape[-1])
            if len(group) == 1:  # the usual case needs no copy: the text stage's slot is bound as it is
                batch.forward.bind("encoder_hidden_states", sequence.embeds)
            else:
                batch.embeds[rows] = sequence.embeds
        if len(group) > 1:
            batch.forward.bind("encoder_hidden_states", batch.embeds)

    def _batch(self, shape: Shape) -> _Batch:
        """The forward for `shape`, compiled on first use."""
        if shape not in self._batches:
            rows, height, width, tokens = shape
            shapes: dict[str, tuple[int, ...]] = {
                "sample": (rows, self._card.latent_channels, height, width),
                "timestep": (rows,) if self._source.ranks["timestep"] else (),
                "encoder_hidden_states": (rows, tokens, self._card.embed_dim),
            }
            distilled = "timestep_cond" in self._source.ranks
            if distilled:
                shapes["timestep_cond"] = (rows, self._card.guidance_embed_dim or 256)
            forward = self._runtime.compile("unet", shapes)
            self._batches[shape] = _Batch(
                forward,
                forward.allocate("sample").view(np.float32),
                forward.allocate("timestep"),
                forward.allocate("encoder_hidden_states").view(np.float32),
                forward.allocate("timestep_cond").view(np.float32) if distilled else None,
                forward.allocate(self._source.outputs[0]).view(np.float32),
            )
        return self._batches[shape]
