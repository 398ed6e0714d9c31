"""The U-Net engine: sequences join and leave between steps, and share forwards as rows."""

import logging
import time
from collections import deque
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from stages.core.batching import Batcher
from stages.core.board import Doing
from stages.core.errors import BadOutput, ModelError
from stages.core.model import TOKENS, ModelCard, read_card
from stages.core.pipes import Fault, Finished, Report, Run, Started, Stepped
from stages.core.tasks import Denoise, Task
from stages.runtime import Forward, Runtime
from stages.stage import Stage
from stages.unet import schedules
from stages.unet.conditioning import conditioning
from stages.unet.forwards import Batch, Forwards, Shape
from stages.unet.guidance import combine
from stages.unet.sequence import Sequence

log = logging.getLogger("stages")

KNOWN_INPUTS = {"sample", "timestep", "encoder_hidden_states", "timestep_cond", "text_embeds", "time_ids"}

_SCHEDULES_KEPT = 64


class _InFlight(NamedTuple):
    """A forward under way, and the sequences whose rows are in it, in order."""

    shape: Shape
    batch: Batch
    group: list[Sequence]
    began_ns: int


class UnetStage(Stage):
    """Steps the sequence that goes first, beside it as many of the next as `max_rows` rows hold (stages.core.batching).

    Who goes first is asked anew before every forward, so a sequence overtakes another at any step; up to `streams`
    forwards are in flight at once, each with sequences of its own. Every step ends in the slot of its sequence
    (stages.core.checkpoint), so a sequence that comes with a started slot, from a process that died, goes on where
    that one was.
    """

    _card: ModelCard

    @property
    def idle(self) -> bool:
        """Whether no sequence is here, and no forward in flight: those of dropped sequences are finished, too."""
        return not self._sequences and not self._in_flight

    @property
    def precision(self) -> str:
        """Inference precision of the U-Net, as OpenVINO names it."""
        return self._precision

    def load(self) -> None:
        """Compile for one picture of the first size at the default guidance, and run it once."""
        self._sequences: list[Sequence] = []
        """Sequences here, in order of arrival."""
        self._in_flight: deque[_InFlight] = deque()
        self._batcher: Batcher[Sequence] = Batcher(self.spec.order)
        self._card = read_card(Path(self.spec.model))
        # Built once for all jobs that want the same: schedules are immutable, their memory lies in the sequences.
        self._schedule = lru_cache(_SCHEDULES_KEPT)(partial(schedules.of_request, self._card.scheduler))
        schedules.check(self._card.scheduler, self._card.steps, self.spec.schedule)
        self._runtime = Runtime(self.spec, self.board)
        self._ranks = self._runtime.ranks("unet")
        if strange := self._ranks.keys() - KNOWN_INPUTS:
            raise ModelError(f"unet: its inputs {', '.join(sorted(strange))} are of a kind that cannot be served")
        self._forwards = Forwards(self._compile, self._ranks, self.spec.max_rows, self.spec.shapes_bytes)
        _, height, width = self._card.latent_shape(*self.spec.sizes[0])
        shape = Shape(self._card.rows(self._card.guidance_scale), height, width, TOKENS)
        batch = self._forwards.take(shape)
        batch.forward.infer()
        self._precision = batch.forward.precision
        self._forwards.give_back(shape, batch)

    def admit(self, run: Run[Task]) -> None:
        """Take a sequence in; it has its first step when its turn comes."""
        task = run.task
        assert isinstance(task, Denoise)
        self._batcher.learn(run.costs)
        shape = self._card.latent_shape(task.width, task.height)
        constants = conditioning(task, run.inputs[0].shape, self._card, self.view.lend(run.inputs[0].slot))
        schedule = self._schedule(task.steps, task.schedule)
        self._sequences.append(
            Sequence(cast("Run[Denoise]", run), schedule, shape, constants, self.view.write(run.output))
        )

    def drop(self, job: int) -> None:
        """Let the sequence leave; a forward it is in goes on without it."""
        self._sequences = [sequence for sequence in self._sequences if sequence.run.job != job]

    def step(self) -> Iterator[Report]:
        """Start every forward that there is room for; finish the oldest, or all where the cores are shared by turns."""
        yield from self._finish_complete()
        while len(self._in_flight) < self.spec.streams and (group := self._group()):
            yield from self._start_forward(group)
        if self._in_flight:
            yield from self._finish_forward(self._in_flight.popleft())
        while self.spec.takes_turns and self._in_flight:
            yield from self._finish_forward(self._in_flight.popleft())
        if self.idle:
            self.board.beat(Doing.IDLE)

    def _start_forward(self, group: list[Sequence]) -> Iterator[Report]:
        """Begin one forward, with one step of every sequence in the group."""
        self.working = tuple(sequence.run.job for sequence in group)
        first, began = group[0], time.monotonic_ns()
        shape = self._shape(group)
        doing = Doing.BUSY if shape in self._forwards else Doing.COMPILING
        self.board.beat(doing, first.run.job, first.step, first.steps)
        for sequence in group:
            if not sequence.started_ns:
                sequence.started_ns = began
                yield Started(sequence.run.job, began, sequence.step, sequence.steps)
        try:
            batch = self._forwards.take(shape)
        except Exception as error:
            if len(group) == 1 or shape in self._forwards:
                raise
            # No fault of theirs: each of them has a forward, and this number of rows is not asked for again.
            log.warning("no forward of %d rows can be compiled, smaller ones are used: %r", shape.rows, error)
            self.working = ()
            return
        try:
            self._fill(batch, group)
            began = time.monotonic_ns()
            batch.forward.start()
        except Exception:
            self._forwards.discard(shape)
            raise
        for sequence in group:
            sequence.in_flight = True
        self._in_flight.append(_InFlight(shape, batch, group, began))
        self.working = ()

    def _finish_forward(self, pending: _InFlight) -> Iterator[Report]:
        """End one forward: every sequence in it is a step further."""
        self.working = tuple(sequence.run.job for sequence in pending.group)
        first = pending.group[0]
        self.board.beat(Doing.BUSY, first.run.job, first.step, first.steps)
        for sequence in pending.group:
            sequence.in_flight = False
        try:
            pending.batch.forward.finish()
        except Exception:
            self._forwards.discard(pending.shape)
            raise
        advanced, broken = self._advance(pending)
        self._forwards.give_back(pending.shape, pending.batch)
        ended = time.monotonic_ns()
        self.board.busy((ended - pending.began_ns) // self.spec.streams)
        self.board.beat(Doing.BUSY, first.run.job, first.step, first.steps)
        for sequence in advanced:  # all news of the forward before what ends: that is sent at once
            share = sequence.rows / pending.shape.rows / self.spec.streams
            cost = round((ended - pending.began_ns) * share)
            yield Stepped(sequence.run.job, sequence.step, sequence.steps, pending.began_ns, ended, cost)
        for sequence in advanced:
            if not np.isfinite(sequence.latents).all():
                self.drop(sequence.run.job)
                yield Fault(sequence.run.job, BadOutput.code, "the U-Net's output holds NaN or Inf, in f32 too")
        if broken:  # each for itself, but all of them now: none may go on from half a step
            self.working = tuple(sequence.run.job for sequence, _ in broken)
            raise broken[0][1]
        yield from self._finish_complete()

    def _advance(self, pending: _InFlight) -> tuple[list[Sequence], list[tuple[Sequence, Exception]]]:
        """Apply the output of a forward; the sequences that are a step further, and those that broke."""
        advanced: list[Sequence] = []
        broken: list[tuple[Sequence, Exception]] = []
        row = 0
        for sequence in pending.group:
            output = pending.batch.output[row : row + sequence.rows]
            row += sequence.rows
            if sequence not in self._sequences:  # it was dropped meanwhile, and its slot may be another's by now
                continue
            try:
                sequence.advance(combine(output, sequence.task.guidance_scale, sequence.task.guidance_rescale))
                advanced.append(sequence)
            except Exception as error:
                broken.append((sequence, error))
        return advanced, broken

    def _finish_complete(self) -> Iterator[Report]:
        """Finish the sequences that are complete."""
        for sequence in [sequence for sequence in self._sequences if sequence.complete]:
            self.working = (sequence.run.job,)
            if not sequence.started_ns:  # a process that died had done its last step, but could not say so any more
                sequence.started_ns = time.monotonic_ns()
                yield Started(sequence.run.job, sequence.started_ns, sequence.step, sequence.steps)
            yield self._finish_sequence(sequence)
        self.working = ()

    def _finish_sequence(self, sequence: Sequence) -> Finished:
        run = sequence.run
        self.drop(run.job)
        self.view.seal(run.output, sequence.finish(self._card.to_decoder(sequence.latents)))
        return Finished(run.job, sequence.latents.shape, sequence.started_ns, time.monotonic_ns())

    def _group(self) -> list[Sequence]:
        """The sequence that goes first, with those after it that fit into its forward; empty if all are in flight."""
        max_rows = self.spec.max_rows if self._ranks["timestep"] else 1  # else one timestep serves all rows
        return self._batcher.choose(
            self._sequences, max_rows, lambda group, rows: self._forwards.serves(self._shape(group)), time.monotonic()
        )

    def _shape(self, group: list[Sequence]) -> Shape:
        _, height, width = group[0].latents.shape
        return Shape(sum(sequence.rows for sequence in group), height, width, group[0].tokens)

    def _fill(self, batch: Batch, group: list[Sequence]) -> None:
        """Lay the sequences' rows into the batch."""
        everybody, row = self.working, 0
        for sequence in group:
            self.working = (sequence.run.job,)
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
        self.working = everybody

    def _compile(self, shape: Shape) -> Forward:
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
        return self._runtime.compile("unet", {name: shapes[name] for name in self._ranks})
