"""Stage processes without their models: they take the messages of real ones, and time instead of computing. Pure.

Which jobs share a forward is decided by the code that decides it in the engine (stages.core.batching). What is done
when is as in stages.loop, stages.stage and stages.unet.engine: one unit of work at a time, one finished forward a
unit. A change there is to be made here, too.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import msgspec

from orchestrator.tuning.clockwork import Clockwork
from orchestrator.tuning.curves import Curves, UnitCost
from orchestrator.tuning.sharing import Done, Work
from stages.core import cores, pipes
from stages.core.arena import View
from stages.core.batching import Batcher, worth_compiling
from stages.core.config import StageSpec
from stages.core.model import TOKENS, ModelCard
from stages.core.schedule_names import evaluations, own_schedule
from stages.core.tasks import Denoise, EncodeText, Task

Send = Callable[["SimulatedStage", list[pipes.FromStage]], None]
"""Sends the messages of one unit of work on their way to the hub."""

Wait = Callable[[Done], None]
"""Something to wait for: has what it is given called when it has come to pass."""

Unit = Iterator[pipes.FromStage | Wait]
"""One unit of work: what is said, and what is waited for."""

_SHORTEST = 0.5
"""Share of the usual time that every unit of work takes at least."""


class Scene(NamedTuple):
    """The parts that all simulated stages of a pipeline share."""

    card: ModelCard
    curves: Curves
    clock: Clockwork
    send: Send
    handover_s: float
    """Seconds that a stage loses when it is granted the cores."""


class SimulatedStage:
    """A stage process: its messages, its lease, and one unit of work after the other."""

    def __init__(self, spec: StageSpec, view: View, scene: Scene) -> None:
        self.spec = spec
        self.view = view
        self.card = scene.card
        self.curves = scene.curves
        self.clock = scene.clock
        self.cores = cores.parse(spec.cores)
        self._send = scene.send
        self._handover_s = scene.handover_s if spec.takes_turns else 0.0
        self._inbox: deque[pipes.ToStage] = deque()
        self._rng = random.Random(spec.number)
        self._may_work = not spec.takes_turns
        self._worked = self._asked_back = self._in_unit = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until the next message."""
        raise NotImplementedError

    def admit(self, run: pipes.Run[Task]) -> None:
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
                case pipes.Run() as run:
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
        wait: Wait | None = None
        for each in unit:
            if not isinstance(each, msgspec.Struct):
                wait = each
                break
            said.append(each)
        if said:
            self._send(self, said)
        if wait is not None:
            wait(lambda: self._go_on(unit))
            return
        self._in_unit = False
        self._yield()
        self.clock.after(0.0, self._wake)

    def _wake(self) -> None:
        if not self._in_unit and (self._inbox or not self.idle):
            self._turn()

    def _yield(self) -> None:
        if self.spec.takes_turns and self._may_work and (self._asked_back or self.idle):
            self._may_work = self._worked = self._asked_back = False
            self._send(self, [pipes.Yielded()])

    def seconds(self, cost: UnitCost, run: pipes.Run[Task]) -> float:
        """Seconds of this one unit of work: no two take equally long."""
        return cost.seconds * self._size(run) * max(_SHORTEST, self._rng.gauss(1.0, cost.deviation))

    def _size(self, run: pipes.Run[Task]) -> float:
        """How much larger than the one that was measured the job's picture is."""
        width, height = self.spec.sizes[0]
        match run.task:
            case Denoise(width=asked_width, height=asked_height):
                return asked_width * asked_height / (width * height)
            case _ if run.inputs:
                return math.prod(run.inputs[0].shape) / math.prod(self.card.latent_shape(width, height))
            case _:
                return 1.0

    def seal(self, run: pipes.Run[Task]) -> None:
        """Mark the job's output as written."""
        self.view.write(run.output)
        self.view.seal(run.output, 0)


class SimulatedOneByOne(SimulatedStage):
    """The text encoder, or the decoder."""

    def __init__(self, spec: StageSpec, view: View, scene: Scene) -> None:
        super().__init__(spec, view, scene)
        self._queue: deque[pipes.Run[Task]] = deque()

    @property
    def idle(self) -> bool:
        """Whether no job waits."""
        return not self._queue

    def admit(self, run: pipes.Run[Task]) -> None:
        """Append the job."""
        self._queue.append(run)

    def unit(self) -> Unit:
        """The oldest job."""
        run = self._queue.popleft()
        began = self.clock.now_ns
        yield pipes.Started(run.job, began)
        cost = self.curves.cost(self.spec.kind, self.spec.threads)
        seconds = self.seconds(cost, run)
        yield lambda done: self.clock.begin(
            Work(self.spec.name, self.cores, seconds, cost.cores, done, threads=self.spec.threads)
        )
        self.seal(run)
        yield pipes.Finished(run.job, self._shape(run.task), began, self.clock.now_ns)

    def _shape(self, task: Task) -> tuple[int, ...]:
        if isinstance(task, EncodeText):
            return (len(task.prompts), TOKENS, self.card.embed_dim)
        return (0,)


@dataclass(eq=False)
class _Sequence:
    """A job inside the U-Net."""

    run: pipes.Run[Denoise]
    steps: int
    """U-Net evaluations in all."""
    step: int = 0
    in_flight: bool = False
    started_ns: int = 0

    @property
    def rows(self) -> int:
        return self.run.inputs[0].shape[0]

    @property
    def rows_left(self) -> int:
        return self.rows * (self.steps - self.step)


@dataclass(eq=False)
class _InFlight:
    group: list[_Sequence]
    rows: int
    began_ns: int
    done: bool = False
    then: Done | None = None
    """Called when it is done."""

    def wait(self, done: Done) -> None:
        self.then = done


class SimulatedUnet(SimulatedStage):
    """The U-Net engine."""

    def __init__(self, spec: StageSpec, view: View, scene: Scene) -> None:
        super().__init__(spec, view, scene)
        self._sequences: list[_Sequence] = []
        self._in_flight: deque[_InFlight] = deque()
        self._batcher: Batcher[_Sequence] = Batcher(spec.order)

    @property
    def idle(self) -> bool:
        """Whether no sequence is here, and no forward in flight."""
        return not self._sequences and not self._in_flight

    def admit(self, run: pipes.Run[Task]) -> None:
        """Take a sequence in."""
        task = run.task
        assert isinstance(task, Denoise)
        self._batcher.learn(run.costs)
        schedule = task.schedule or own_schedule(self.card.scheduler) or ""
        self._sequences.append(_Sequence(cast("pipes.Run[Denoise]", run), evaluations(schedule, task.steps)))

    def unit(self) -> Unit:
        """Start every forward that there is room for; finish the oldest, or all where the cores are shared by turns."""
        while len(self._in_flight) < self.spec.streams and (group := self._group()):
            yield from self._start_forward(group)
        if self._in_flight:
            yield from self._finish_forward(self._in_flight.popleft())
        while self.spec.takes_turns and self._in_flight:
            yield from self._finish_forward(self._in_flight.popleft())

    def _start_forward(self, group: list[_Sequence]) -> Iterator[pipes.FromStage]:
        now = self.clock.now_ns
        for sequence in group:
            sequence.in_flight = True
            if not sequence.started_ns:
                sequence.started_ns = now
                yield pipes.Started(sequence.run.job, now, 0, sequence.steps)
        forward = _InFlight(group, sum(sequence.rows for sequence in group), now)
        self._in_flight.append(forward)
        threads, streams = self.spec.threads, self.spec.streams
        cost = self.curves.cost(self.spec.kind, threads, streams, forward.rows)
        own = max(1, threads // streams)
        alone = self.curves.cost(self.spec.kind, own, 1, forward.rows)
        concurrency = (streams, max(1.0, cost.seconds / alone.seconds)) if streams > 1 else (1, 1.0)
        seconds = self.seconds(cost, group[0].run)

        def done() -> None:
            forward.done = True
            if forward.then is not None:
                forward.then()

        self.clock.begin(Work(self.spec.name, self.cores, seconds, cost.cores, done, concurrency, own))

    def _finish_forward(self, forward: _InFlight) -> Unit:
        if not forward.done:
            yield forward.wait
        ended = self.clock.now_ns
        for sequence in forward.group:
            sequence.in_flight = False
            sequence.step += 1
        for sequence in forward.group:
            run = sequence.run
            cost_ns = round((ended - forward.began_ns) * sequence.rows / forward.rows / self.spec.streams)
            yield pipes.Stepped(run.job, sequence.step, sequence.steps, forward.began_ns, ended, cost_ns)
            if sequence.step == sequence.steps:
                self._sequences.remove(sequence)
                self.seal(run)
                shape = self.card.latent_shape(run.task.width, run.task.height)
                yield pipes.Finished(run.job, shape, sequence.started_ns, ended)

    def _group(self) -> list[_Sequence]:
        max_rows = self.spec.max_rows
        return self._batcher.choose(
            self._sequences, max_rows, lambda group, rows: worth_compiling(rows, max_rows), self.clock.now
        )
