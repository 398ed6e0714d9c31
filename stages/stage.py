"""The Stage protocol: what a stage process does between its two ends of pipe.

A stage of your own derives from `Stage` (or `OneByOne`) and is named in the configuration as `module:Class`.
"""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from stages.core.arena import View
from stages.core.board import BoardWriter, Doing
from stages.core.config import StageSpec
from stages.core.pipes import DrawPreview, Finished, PreviewDrawn, Report, Run, Started
from stages.core.tasks import Task


class Stage(ABC):
    """One model, its jobs, and the units of work they are done in.

    The loop calls everything, from one thread: `load` once, then `admit`, `drop` and `preview` as messages come, and
    `step` again and again while `idle` is false. An exception costs the jobs that it is about, not the stage: in
    `admit` and `drop` the one job, in `step` those in `working`. One that is about no job ends the process.
    """

    working: tuple[int, ...] = ()
    """The jobs that an exception in `step` would be about, at this moment; empty when a unit of work begins."""

    def __init__(self, spec: StageSpec, view: View, board: BoardWriter) -> None:
        self.spec = spec
        self.view = view
        self.board = board

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether there is nothing to do until the next message."""

    @property
    @abstractmethod
    def precision(self) -> str:
        """The precision that the model computes in, as loaded."""

    @abstractmethod
    def load(self) -> None:
        """Make ready to work, one unit of work of the usual shape included, so that every thread exists."""

    @abstractmethod
    def admit(self, run: Run[Task]) -> None:
        """Take a job in. Raises a TriptychError to refuse it."""

    @abstractmethod
    def step(self) -> Iterator[Report]:
        """Do one unit of work; reports are sent as they are yielded, `Started` before the work begins."""

    def preview(self, wanted: DrawPreview) -> PreviewDrawn | None:
        """Draw a preview, at once; None where there is nothing to draw, or the stage draws none."""
        return None

    @abstractmethod
    def drop(self, job: int) -> None:
        """Forget the job, if it is here."""


T = TypeVar("T", bound=Task)


class OneByOne(Stage, Generic[T]):
    """A stage whose jobs are one unit of work each, done in order of arrival."""

    def __init__(self, spec: StageSpec, view: View, board: BoardWriter) -> None:
        super().__init__(spec, view, board)
        self._queue: deque[Run[T]] = deque()

    @abstractmethod
    def work(self, run: Run[T]) -> tuple[int, ...]:
        """Do the job: write and seal `run.output`; returns the shape of what lies there."""

    @property
    def idle(self) -> bool:
        """Whether no job waits."""
        return not self._queue

    def admit(self, run: Run[Task]) -> None:
        """Append the job."""
        self._queue.append(run)  # type: ignore[arg-type]  # the hub sends each kind of stage its own tasks

    def step(self) -> Iterator[Report]:
        """Do the oldest job."""
        run = self._queue.popleft()
        self.working = (run.job,)
        began = time.monotonic_ns()
        self.board.beat(Doing.BUSY, run.job, 0, 1)
        yield Started(run.job, began)
        shape = self.work(run)
        ended = time.monotonic_ns()
        yield Finished(run.job, shape, began, ended)
        self.board.busy(ended - began)
        self.board.beat(Doing.IDLE)

    def drop(self, job: int) -> None:
        """Take the job out of the queue."""
        self._queue = deque(run for run in self._queue if run.job != job)
