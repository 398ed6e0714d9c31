"""The one loop of every stage process."""

import logging
from typing import assert_never

from stages.core.board import Doing
from stages.core.errors import StageFault, TriptychError
from stages.core.link import StageLink
from stages.core.pipes import (
    AskBack,
    DrawPreview,
    Drop,
    Dropped,
    Fault,
    Finished,
    Grant,
    PreviewDrawn,
    Run,
    Stop,
    Yielded,
)
from stages.core.tasks import Task
from stages.stage import Stage

log = logging.getLogger("stages")

_FRUITLESS_UNITS = 3
"""Units of work that may raise in a row without costing a job; more, and the stage would do nothing else."""


def serve(stage: Stage, link: StageLink) -> None:
    """Work until told to stop, or until the orchestrator has died; in turns, only while holding the lease.

    What a stage raises about a job costs that job. What it raises about none of its jobs is raised here, too: then the
    process is to end, and the hub has each of its jobs done alone until it is known which one was the cause.
    """
    books = _Books(stage, link)
    turns = stage.spec.takes_turns
    may_work = not turns
    worked = asked_back = False  # since the lease was granted
    while not link.orphaned():
        # 1. Take in what has arrived; wait only when there is nothing to do, or it is not our turn.
        for message in link.receive(wait=stage.idle or not may_work):
            match message:
                case Run():
                    books.admit(message)
                case DrawPreview():
                    books.preview(message)
                case Drop(job):
                    books.drop(job)
                case Grant():
                    may_work = True
                case AskBack():
                    asked_back = may_work
                case Stop():
                    return
                case _:
                    assert_never(message)
        # 2. One unit of work, reported as it goes. A lease is good for one even if it was asked back at once: or else
        #    two stages that ask each other back would do nothing but that.
        if may_work and not stage.idle and not (asked_back and worked):
            worked = books.unit_of_work()
            link.end_unit()
        books.find_lost()
        # 3. Cores that were asked back, or that we have no use for, are somebody else's turn.
        if turns and may_work and ((asked_back and worked) or stage.idle):
            may_work = worked = asked_back = False
            link.send(Yielded())


class _Books:
    """The jobs of a stage, each answered once: whatever the stage raises, none is left over and none pays for others.

    Every call into the stage that is about a job goes through here.
    """

    def __init__(self, stage: Stage, link: StageLink) -> None:
        self._stage = stage
        self._link = link
        self._owed: set[int] = set()
        """Jobs that were taken in and have not ended."""
        self._fruitless = 0
        self._no_preview = False
        """Whether a preview has raised."""

    def admit(self, run: Run[Task]) -> None:
        """Take a job in; one that cannot be taken in costs itself alone."""
        self._owed.add(run.job)
        try:
            self._stage.admit(run)
        except Exception as error:
            self._fail(run.job, error)

    def preview(self, wanted: DrawPreview) -> None:
        """Answer with the preview, or with an empty one: the hub waits for exactly one answer."""
        try:
            if (drawn := self._stage.preview(wanted)) is not None:
                self._link.send(drawn)
                return
        except Exception as error:
            if not self._no_preview:  # a line, not one a step
                log.warning("a preview cannot be drawn; others that cannot, either, are left out silently: %r", error)
            self._no_preview = True
        self._link.send(PreviewDrawn(wanted.job, 0, b""))

    def drop(self, job: int) -> None:
        """Have the stage forget a job. If it cannot, the job ends all the same, and the stage goes on."""
        answer: Dropped | Fault = Dropped(job)
        try:
            self._stage.drop(job)
        except Exception as error:
            answer = _fault(job, error)
        self._owed.discard(job)
        if self._stage.idle:
            self._stage.board.beat(Doing.IDLE)
        self._link.send(answer)

    def unit_of_work(self) -> bool:
        """Do one; an exception costs the jobs that it is about. Raises what is about no job.

        Returns whether it was done: one that has raised may have left forwards in flight.
        """
        self._stage.working = ()  # of the last unit: they have nothing to do with what comes now
        try:
            for report in self._stage.step():
                self._link.send(report)
                if isinstance(report, Finished | Fault):
                    self._owed.discard(report.job)
        except Exception as error:
            self._blame(error)
            return False
        self._fruitless = 0
        return True

    def find_lost(self) -> None:
        """End what the stage has forgotten: it has nothing left to do, so nothing would ever come of it."""
        if self._owed and self._stage.idle:
            for job in sorted(self._owed):
                self._fail(job, StageFault("the stage has nothing left to do, and has never ended this job"))

    def _blame(self, error: Exception) -> None:
        """End the jobs that an exception is about, but for those that have ended already. Raises it if there are none.

        Only where the jobs it is about have all ended (they were dropped while a forward with them was in flight), the
        stage may go on, as long as that leads to anything.
        """
        named = self._stage.working
        if not named and len(self._owed) == 1:
            named = tuple(self._owed)
        blamed = [job for job in named if job in self._owed]
        self._fruitless = 0 if blamed else self._fruitless + 1
        if not named or self._fruitless >= _FRUITLESS_UNITS:
            raise error
        for job in blamed:
            self._fail(job, error)
        self._stage.board.beat(Doing.IDLE)

    def _fail(self, job: int, error: Exception) -> None:
        """End a job here: the stage has to forget it, however much of it was taken in or done."""
        try:
            self._stage.drop(job)
        except Exception as another:
            log.warning("job %d cannot be dropped: %r", job, another)
        self._owed.discard(job)
        self._link.send(_fault(job, error))


def _fault(job: int, error: Exception) -> Fault:
    known = error if isinstance(error, TriptychError) else StageFault(f"{type(error).__name__}: {error}")
    return Fault(job, known.code, known.message)
