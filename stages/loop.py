"""The one loop of every stage process."""

from typing import assert_never

from stages.core.board import Doing
from stages.core.errors import StageFault, TriptychError
from stages.core.link import StageLink
from stages.core.pipes import AskBack, DrawPreview, Drop, Dropped, Fault, Grant, RunText, RunUnet, RunVae, Stop, Yielded
from stages.stage import Stage


def serve(stage: Stage, link: StageLink) -> None:
    """Work until told to stop, or until the orchestrator has died; in turns, only while holding the lease."""
    turns = stage.spec.takes_turns
    may_work = not turns
    worked = asked_back = False  # since the lease was granted
    while not link.orphaned():
        # 1. Take in what has arrived; wait only when there is nothing to do, or it is not our turn.
        for message in link.receive(wait=stage.idle or not may_work):
            match message:
                case RunText() | RunUnet() | RunVae():
                    try:
                        stage.admit(message)
                    except Exception as error:  # a job that cannot be taken in costs itself alone
                        link.send(_fault(message.job, error))
                case DrawPreview():
                    for preview in stage.preview(message):
                        link.send(preview)
                case Drop(job):
                    stage.drop(job)
                    if stage.idle:
                        stage.beacon.beat(Doing.IDLE)
                    link.send(Dropped(job))
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
            worked = True
            try:
                for report in stage.step():
                    link.send(report)
            except Exception as error:  # a defect of one job, or of one forward, costs the jobs in it alone
                for job in stage.working:
                    stage.drop(job)
                    link.send(_fault(job, error))
                stage.beacon.beat(Doing.IDLE)
            link.end_unit()
        # 3. Cores that were asked back, or that we have no use for, are somebody else's turn.
        if turns and may_work and (asked_back or stage.idle):
            may_work = worked = asked_back = False
            link.send(Yielded())


def _fault(job: int, error: Exception) -> Fault:
    known = error if isinstance(error, TriptychError) else StageFault(f"{type(error).__name__}: {error}")
    return Fault(job, known.code, known.message)
