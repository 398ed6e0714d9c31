"""Stage processes without their models: they take the messages of real ones, and time instead of computing. Pure.

What they decide, they decide as stages.loop, stages.stage and stages.unet.engine do: one unit of work at a time, rows
packed in the pipeline's order, one landing a unit. A change there is to be made here, too.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from orchestrator.tuning.clockwork import Clockwork
from orchestrator.tuning.curves import Cost, Curves
from orchestrator.tuning.sharing import Done, Work
from stages.core import cores, order, pipes
from stages.core.arena import View
from stages.core.config import StageSpec
from stages.core.model import TOKENS, ModelCard
from stages.core.packing import pack, worth_compiling

Say = Callable[["Twin", list[pipes.FromStage]], None]
"""Sends the messages of one unit of work on their way to the hub."""

Until = Callable[[Done], None]
"""Something to wait for: has what it is given called when it has come to pass."""

Unit = Iterator[pipes.FromStage | Until]
"""One unit of work: what is said, and what is waited for."""

_SHORTEST = 0.5
"""Of the usual time: no unit of work takes less."""

_NEWEST = 0.2
"""As the engine weighs the newest forward in what a row costs."""


class Scene(NamedTuple):
    """What all twins of a pipeline have in common."""

    card: ModelCard
    curves: Curves
    clock: Clockwork
    say: Say
    handover_s: float
    """What a stage loses when it is granted the cores."""


class Twin:
    """A stage process: its messages, its lease, and one unit of work after the other."""

    def __init__(self, spec: StageSpec, view: View, scene: Scene) -> None:
        self.spec = spec
        self.view = view
        self.card = scene.card
        self.curves = scene.curves
        self.clock = scene.clock
        self.cores = cores.parse(spec.cores)
        self._say = scene.say
        self._handover_s = scene.handover_s if spec.takes_turns else 0.0
        self._inbox: deque[pipes.ToStage] = deque()
        self._dice = random.Random(spec.number)
        self._may_work = not spec.takes_turns
        self._worked = self._asked_back = self._in_unit = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until the next message."""
        raise NotImplementedError

    def admit(self, run: pipes.Run) -> None:
        """Take a job in."""
        raise NotImplementedError

    def unit(self) -> Unit:
        """One unit of work."""
        raise NotImplementedError

    def hear(self, message: pipes.ToStage) -> None:
        """A message has arrived; it is read when the unit of work at hand is done."""
        self._inbox.append(message)
        if not self._in_unit:
            self._turn()

    def _turn(self) -> None:
        """Go round the loop of stages.loop once, as far as it goes without waiting."""
        while self._inbox:
            match self._inbox.popleft():
                case pipes.RunText() | pipes.RunUnet() | pipes.RunVae() as run:
                    self.admit(run)
                case pipes.Grant():
                    self._may_work = True
                case pipes.AskBack():
                    self._asked_back = self._may_work
                case _:
                    pass
        if self._may_work and not self.idle and not (self._asked_back and self._worked):
            delay_s = 0.0 if self._worked else self._handover_s
            self._in_unit = self._worked = True
            self.clock.after(delay_s, lambda: self._go_on(self.unit()))
        else:
            self._yield()

    def _go_on(self, unit: Unit) -> None:
        """To the next thing that the unit waits for, or to its end."""
        said: list[pipes.FromStage] = []
        until: Until | None = None
        for each in unit:
            if not isinstance(each, msgspec.Struct):
                until = each
                break
            said.append(each)
        if said:
            self._say(self, said)
        if until is not None:
            until(lambda: self._go_on(unit))
            return
        self._in_unit = False
        self._yield()
        self.clock.after(0.0, self._again)

    def _again(self) -> None:
        if not self._in_unit and (self._inbox or not self.idle):
            self._turn()

    def _yield(self) -> None:
        if self.spec.takes_turns and self._may_work and (self._asked_back or self.idle):
            self._may_work = self._worked = self._asked_back = False
            self._say(self, [pipes.Yielded()])

    def seconds(self, cost: Cost, run: pipes.Run) -> float:
        """Of this one unit of work: no two take equally long."""
        return cost.seconds * self._size(run) * max(_SHORTEST, self._dice.gauss(1.0, cost.deviation))

    def _size(self, run: pipes.Run) -> float:
        """How much larger than the one that was measured the job's picture is."""
        width, height = self.spec.sizes[0]
        if isinstance(run, pipes.RunUnet):
            return run.width * run.height / (width * height)
        if isinstance(run, pipes.RunVae):
            return math.prod(run.input_shape) / math.prod(self.card.latent_shape(width, height))
        return 1.0

    def seal(self, run: pipes.Run) -> None:
        """Mark the job's output as written."""
        self.view.write(run.output)
        self.view.seal(run.output, 0)


class OneByOneTwin(Twin):
    """The text encoder, or the decoder."""

    def __init__(self, spec: StageSpec, view: View, scene: Scene) -> None:
        super().__init__(spec, view, scene)
        self._queue: deque[pipes.Run] = deque()

    @property
    def idle(self) -> bool:
        """Whether no job waits."""
        return not self._queue

    def admit(self, run: pipes.Run) -> None:
        """Append the job."""
        self._queue.append(run)

    def unit(self) -> Unit:
        """The oldest job."""
        run = self._queue.popleft()
        began = self.clock.now_ns
        yield pipes.Took(run.job, began)
        cost = self.curves.cost(self.spec.kind, self.spec.threads)
        seconds = self.seconds(cost, run)
        yield lambda done: self.clock.begin(
            Work(self.spec.name, self.cores, seconds, cost.cores, done, threads=self.spec.threads)
        )
        self.seal(run)
        yield pipes.Put(run.job, run.output, self._shape(run), began, self.clock.now_ns)

    def _shape(self, run: pipes.Run) -> tuple[int, ...]:
        if isinstance(run, pipes.RunText):
            return (len(run.prompts), TOKENS, self.card.embed_dim)
        return (0,)


@dataclass(eq=False)
class _Sequence:
    """A job inside the U-Net."""

    run: pipes.RunUnet
    step: int = 0
    flying: bool = False
    taken_ns: int = 0

    @property
    def rows(self) -> int:
        return self.run.input_shape[0]

    @property
    def rows_left(self) -> int:
        return self.rows * (self.run.steps - self.step)


@dataclass(eq=False)
class _Flight:
    group: list[_Sequence]
    rows: int
    began_ns: int
    landed: bool = False
    then: Done | None = None
    """Waits for it to land."""

    def wait(self, done: Done) -> None:
        self.then = done


class UnetTwin(Twin):
    """The U-Net engine."""

    def __init__(self, spec: StageSpec, view: View, scene: Scene) -> None:
        super().__init__(spec, view, scene)
        self._sequences: list[_Sequence] = []
        self._flights: deque[_Flight] = deque()
        self._key = order.key(spec.order)
        self._row_s = 0.0

    @property
    def idle(self) -> bool:
        """Whether no sequence is here, and no forward in flight."""
        return not self._sequences and not self._flights

    def admit(self, run: pipes.Run) -> None:
        """Take a sequence in."""
        assert isinstance(run, pipes.RunUnet)
        self._sequences.append(_Sequence(run))

    def unit(self) -> Unit:
        """Launch what can fly; land the forward that has flown longest, or all where cores are lent."""
        while len(self._flights) < self.spec.streams and (group := self._group()):
            yield from self._launch(group)
        if self._flights:
            yield from self._land(self._flights.popleft())
        while self.spec.takes_turns and self._flights:
            yield from self._land(self._flights.popleft())

    def _launch(self, group: list[_Sequence]) -> Iterator[pipes.FromStage]:
        now = self.clock.now_ns
        for sequence in group:
            sequence.flying = True
            if not sequence.taken_ns:
                sequence.taken_ns = now
                yield pipes.Took(sequence.run.job, now, 0, sequence.run.steps)
        flight = _Flight(group, sum(sequence.rows for sequence in group), now)
        self._flights.append(flight)
        threads, streams = self.spec.threads, self.spec.streams
        cost = self.curves.cost("unet", threads, streams, flight.rows)
        own = max(1, threads // streams)
        alone = self.curves.cost("unet", own, 1, flight.rows)
        flock = (streams, max(1.0, cost.seconds / alone.seconds)) if streams > 1 else (1, 1.0)
        seconds = self.seconds(cost, group[0].run)

        def landed() -> None:
            flight.landed = True
            if flight.then is not None:
                flight.then()

        self.clock.begin(Work(self.spec.name, self.cores, seconds, cost.cores, landed, flock, own))

    def _land(self, flight: _Flight) -> Unit:
        if not flight.landed:
            yield flight.wait
        ended = self.clock.now_ns
        for sequence in flight.group:
            sequence.flying = False
            sequence.step += 1
        seconds = (ended - flight.began_ns) / 1e9
        cost = seconds / flight.rows / self.spec.streams
        self._row_s += (cost - self._row_s) * (_NEWEST if self._row_s else 1.0)
        for sequence in flight.group:
            run = sequence.run
            cost_ns = round((ended - flight.began_ns) * sequence.rows / flight.rows / self.spec.streams)
            yield pipes.Stepped(run.job, sequence.step, run.steps, flight.began_ns, ended, cost_ns)
            if sequence.step == run.steps:
                self._sequences.remove(sequence)
                self.seal(run)
                shape = self.card.latent_shape(run.width, run.height)
                yield pipes.Put(run.job, run.output, shape, sequence.taken_ns, ended)

    def _group(self) -> list[_Sequence]:
        now = self.clock.now
        free = [sequence for sequence in self._sequences if not sequence.flying]
        free.sort(key=lambda s: self._key(s.run.claim, s.rows_left * self._row_s, s.step, now))
        return pack(
            free,
            self.spec.max_rows,
            lambda one, other: (one.run.width, one.run.height) == (other.run.width, other.run.height),
            lambda group, rows: worth_compiling(rows, self.spec.max_rows),
        )
