"""The one loop of every stage process."""

from typing import assert_never

from stages.core.board import Doing
from stages.core.errors import StageFault, TriptychError
from stages.core.link import StageLink
from stages.core.wire import AskBack, Drop, Dropped, Fault, Grant, RunText, RunUnet, RunVae, Sketch, Stop, Yielded
from stages.stage import Stage


def serve(stage: Stage, link: StageLink) -> None:
    """Work until told to stop, or until the orchestrator has died; in turns, only while holding the lease."""
    turns = stage.spec.takes_turns
    may_work = not turns
    while not link.orphaned():
        # 1. Take in what has arrived; wait only when there is nothing to do, or it is not our turn.
        for message in link.receive(wait=stage.idle or not may_work):
            match message:
                case RunText() | RunUnet() | RunVae():
                    try:
                        stage.admit(message)
                    except Exception as error:  # a job that cannot be taken in costs itself alone
                        link.send(_fault(message.job, error))
                case Sketch():
                    for sketched in stage.sketch(message):
                        link.send(sketched)
                case Drop(job):
                    stage.drop(job)
                    link.send(Dropped(job))
                case Grant():
                    may_work = True
                case AskBack():
                    if may_work:
                        may_work = False
                        link.send(Yielded())
                case Stop():
                    return
                case _:
                    assert_never(message)
        # 2. One unit of work, reported as it goes.
        if may_work and not stage.idle:
            try:
                for report in stage.step():
                    link.send(report)
            except Exception as error:  # a defect of one job, or of one forward, costs the jobs in it alone
                for job in stage.working:
                    stage.drop(job)
                    link.send(_fault(job, error))
                stage.beacon.beat(Doing.IDLE)
        # 3. Cores that we have no use for are somebody else's turn.
        if turns and may_work and stage.idle:
            may_work = False
            link.send(Yielded())


def _fault(job: int, error: Exception) -> Fault:
    known = error if isinstance(error, TriptychError) else StageFault(f"{type(error).__name__}: {error}")
    return Fault(job, known.code, known.message)
