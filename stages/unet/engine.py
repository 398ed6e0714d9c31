"""The U-Net engine: sequences join and leave between steps, and share forwards as rows."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.board import Doing
from stages.core.errors import BadOutput, ModelError
from stages.core.model import TOKENS, ModelCard, read_card
from stages.core.wire import Fault, Put, Report, Run, RunUnet, Stepped, Took
from stages.runtime import Forward, Runtime
from stages.stage import Stage
from stages.unet import schedules
from stages.unet.conditioning import conditioning
from stages.unet.guidance import combine
from stages.unet.sequence import Sequence

KNOWN_INPUTS = {"sample", "timestep", "encoder_hidden_states", "timestep_cond", "text_embeds", "time_ids"}


class Shape(NamedTuple):
    """What a compiled forward is for: rows, latents of [height, width], tokens of the prompt embeds."""

    rows: int
    height: int
    width: int
    tokens: int


class _Batch(NamedTuple):
    """A compiled forward, and the arrays its inputs and its output lie in, by row."""

    forward: Forward
    inputs: dict[str, NDArray[np.generic]]
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
        self._ranks = self._runtime.ranks("unet")
        if strange := self._ranks.keys() - KNOWN_INPUTS:
            raise ModelError(f"unet: its inputs {', '.join(sorted(strange))} are of a kind that cannot be served")
        _, height, width = self._card.latent_shape(*self.spec.sizes[0])
        self._batch(Shape(self._card.rows(self._card.guidance_scale), height, width, TOKENS)).forward.infer()

    def admit(self, run: Run) -> None:
        """Take a sequence in; it has its first step when its turn comes."""
        assert isinstance(run, RunUnet)
        shape = self._card.latent_shape(run.width, run.height)
        constants = conditioning(run, self._card, self.view.lend(run.input))
        self._sequences.append(Sequence(run, self._card.scheduler, shape, constants, self.view.write(run.output)))

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
            output = batch.output[row : row + sequence.rows]
            row += sequence.rows
            sequence.advance(combine(output, sequence.run.guidance_scale, sequence.run.guidance_rescale))
        ended = time.monotonic_ns()
        self.beacon.busy(ended - began)
        self.beacon.beat(Doing.BUSY, first.run.job, first.step, first.steps)
        for sequence in group:
            yield Stepped(sequence.run.job, sequence.step, sequence.steps, began, ended)
            if not np.isfinite(sequence.latents).all():
                self.drop(sequence.run.job)
                yield Fault(sequence.run.job, BadOutput.code, "the U-Net's output holds NaN or Inf, in f32 too")
            elif sequence.step == sequence.steps:
                yield self._finish(sequence)
        if self.idle:
            self.beacon.beat(Doing.IDLE)

    def _finish(self, sequence: Sequence) -> Put:
        run = sequence.run
        self.drop(run.job)
        self.view.seal(run.output, sequence.finish())
        return Put(run.job, run.output, sequence.latents.shape, sequence.taken_ns, time.monotonic_ns())

    def _group(self) -> list[Sequence]:
        """The oldest sequence, with those after it that fit into the same forward."""
        group = [self._sequences[0]]
        rows = group[0].rows
        per_row = self._ranks["timestep"] > 0  # else one timestep serves all rows
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
            batch.inputs["sample"][rows] = sequence.model_input()
            batch.inputs["timestep"][rows if self._ranks["timestep"] else ...] = sequence.timestep
            for name, constant in sequence.conditioning.items():
                if len(group) == 1:  # the usual case needs no copy: the text stage's slot is bound as it is
                    batch.forward.bind(name, constant)
                else:
                    batch.inputs[name][rows] = constant
                    batch.forward.bind(name, batch.inputs[name])

    def _batch(self, shape: Shape) -> _Batch:
        """The forward for `shape`, compiled on first use."""
        if shape not in self._batches:
            rows, height, width, tokens = shape
            card = self._card
            shapes = {
                "sample": (rows, card.latent_channels, height, width),
                "timestep": (rows,) if self._ranks["timestep"] else (),
                "encoder_hidden_states": (rows, tokens, card.embed_dim),
                "timestep_cond": (rows, card.guidance_embed_dim or 0),
                "text_embeds": (rows, card.pooled_dim),
                "time_ids": (rows, 6),
            }
            forward = self._runtime.compile("unet", {name: shapes[name] for name in self._ranks})
            inputs = {name: forward.allocate(name) for name in self._ranks}
            self._batches[shape] = _Batch(forward, inputs, forward.allocate(forward.outputs[0]).view(np.float32))
        return self._batches[shape]
