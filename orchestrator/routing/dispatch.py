"""Dispatch: which job goes to which stage process, and again where a process dies or data are spoiled."""

from collections.abc import Sequence

from orchestrator.plan import PREEMPTION_SLOTS
from orchestrator.routing.actions import Actions, ToStage
from orchestrator.routing.books import FIRST, Books
from orchestrator.routing.delivery import Delivery
from orchestrator.routing.jobs import Job, StageProcess
from stages.core import pipes
from stages.core.checkpoint import Checkpoint
from stages.core.errors import DeadlineInfeasible, StageLost, TriptychError
from stages.core.pipes import Input
from stages.core.route import PREVIEWS, STEPWISE
from stages.core.wire import KINDS, Kind

MAX_DEATHS = 2
"""Faults of stages that worked on a job alone, at one step of it, after which it is taken for their cause."""

MAX_DOUBTFUL_DEATHS = 5
"""The same where they were killed by others, or had not said yet that they worked on it. That is chance, most likely;
but a prompt may also make a stage ask for so much memory that the kernel kills it, every time."""

MAX_SPOILED = 8
"""Spoiled data after which a job is given up. Whoever spoils them, it is not the prompt."""


class Dispatch:
    """Sends jobs to stages, and sends them again."""

    def __init__(self, books: Books, actions: Actions, delivery: Delivery) -> None:
        self._books = books
        self._actions = actions
        self._delivery = delivery
        self._depths = books.plan.depths
        self.replayed = 0
        """Jobs sent again because their stage died at them, or because their data were spoiled."""

    # Sending.

    def pump(self, now_ns: int, kinds: Sequence[Kind] = KINDS) -> None:
        """Send on whatever can go to stages of these kinds, and give up what cannot be in time any more.

        The stages nearest to the end come first, in each the jobs as `pipeline.order` says.
        """
        books = self._books
        if FIRST in kinds:
            self._drop_late(now_ns)
        for kind in reversed(kinds):
            while (stage := self._least_loaded(kind)) is not None and (job := books.next(kind, now_ns)) is not None:
                slot = job.output is not None or books.arena.free_slots(job.leg.writes)
                if not slot or not self._accepts(stage, job, now_ns):
                    break
                books.leave(job)
                self._send(job, stage, now_ns)
            for job in books.between(kind):
                job.finished_ns = 0  # it had to wait, so what it is waiting for is no hop

    def preview(self, job: Job) -> None:
        """Have a process draw a preview: the steps go on meanwhile.

        Not while a suspect is there or waits for one, as that must be alone, nor of a job whose previews have killed
        stages.
        """
        books = self._books
        assert job.output is not None
        if job.fatal_previews >= MAX_DEATHS or any(other.suspect for other in books.between(PREVIEWS)):
            return
        stage = next((stage for stage in self._serving(PREVIEWS) if not books.has_suspect(stage)), None)
        if stage is not None and job.number not in stage.previews:
            stage.previews.add(job.number)
            self._actions.add(ToStage(stage.name, pipes.DrawPreview(job.number, job.output, self._latent_shape(job))))

    def _serving(self, kind: Kind) -> list[StageProcess]:
        return [stage for stage in self._books.stages.values() if stage.kind == kind and stage.pid is not None]

    def _least_loaded(self, kind: Kind) -> StageProcess | None:
        """The serving process of `kind` with the fewest jobs, if it may hold one more at all."""
        stage = min(self._serving(kind), key=lambda stage: len(stage.jobs), default=None)
        most = self._depths[kind] + (PREEMPTION_SLOTS if kind == STEPWISE else 0)
        return stage if stage is not None and len(stage.jobs) < most else None

    def _accepts(self, stage: StageProcess, job: Job, now_ns: int) -> bool:
        """Whether the stage should have the job now.

        It holds as many as it works on and one more, so that it never waits for a hop; and a stepwise one, which
        changes jobs at any step, a few more if they go before all that it has. A suspect is alone, so that only itself
        can be to blame for what happens.
        """
        books = self._books
        if job.suspect or books.has_suspect(stage):
            return not stage.jobs and not stage.previews
        if len(stage.jobs) < self._depths[job.kind]:
            return True
        rank, _ = books.forecast.rank(job, now_ns)
        return all(rank < books.forecast.rank(books.jobs[number], now_ns)[0] for number in stage.jobs)

    def _send(self, job: Job, stage: StageProcess, now_ns: int) -> None:
        books = self._books
        if job.output is None:
            job.output = books.arena.reserve(job.leg.writes, stage.number, job.number)
        else:  # sent again: the slot keeps what the dead process left, the reference it had is void
            job.output = books.arena.regrant(job.output, stage.number)
        if stage.jobs:
            job.finished_ns = 0
        job.stage, job.started = stage.name, False
        job.prompt.began_ns = job.prompt.began_ns or now_ns
        stage.jobs.append(job.number)
        task, *then = job.tasks_left
        run = pipes.Run(
            job.number,
            job.request.task(task, books.plan.card),
            job.output,
            tuple(job.held[pool] for pool in job.leg.reads),
            tuple(then),
            job.scheduling_key,
            books.forecast.estimate.costs if job.stepwise else (),
        )
        self._actions.add(ToStage(stage.name, run))

    def _drop_late(self, now_ns: int) -> None:
        """Fail prompts that have not begun and cannot be done by their deadline."""
        books = self._books
        if not books.forecast.known:
            return
        for job in books.queue.late(now_ns / 1e9):
            late = books.forecast.lateness(job, now_ns)
            if late > 0 and job.number in books.jobs:  # another image of its prompt may have been late, too
                error = DeadlineInfeasible(f"it waited too long: it would be done {late:.3g} s after its deadline")
                self._delivery.fail([job.prompt], error, now_ns)

    # Going on.

    def finished(self, job: Job, shape: tuple[int, ...], ended_ns: int) -> None:
        """Accept the output of a leg that is not the last: only now what it read is not needed any more."""
        assert job.output is not None
        books, pool = self._books, job.leg.writes
        later = {needed for leg in job.route[job.place + 1 :] for needed in leg.reads}
        books.free_inputs(job, keep=later - {pool})
        job.held[pool], job.output = Input(job.output, shape), None
        job.place += 1
        job.step, job.finished_ns = 0, ended_ns

    # Sending again.

    def lost(self, stage: StageProcess, now_ns: int, *, killed: bool) -> None:
        """A stage process has died; `killed` if by others.

        Every job that it had may be the cause, so each has a stage to itself until it has come a step further.
        """
        books = self._books
        stage.pid = None
        jobs, stage.jobs = [books.jobs[number] for number in stage.jobs], []
        previews, stage.previews = stage.previews, set()
        for number in previews & books.jobs.keys():
            books.jobs[number].fatal_previews += 1
        alone = len(jobs) == 1 and not previews
        for job in jobs:
            job.stage = None
        for job in jobs:
            if job.number not in books.jobs:  # went with its prompt, which another job of this loop has ended
                continue
            if job.cancelled:
                books.forget(job)
                continue
            job.suspect = True
            if alone and self._convicted(job, killed):
                self._delivery.fail([job.prompt], StageLost("stages died more than once at this prompt"), now_ns)
            else:
                self._retry(job, now_ns)

    def spoiled(self, job: Job, error: TriptychError, now_ns: int) -> None:
        """Data of the job were found spoiled: send it again, or, where that happens over and over, give it up."""
        job.spoiled += 1
        if job.spoiled < MAX_SPOILED:
            self._retry(job, now_ns)
        else:
            self._delivery.fail([job.prompt], error, now_ns)

    def restart(self, job: Job, error: TriptychError, now_ns: int) -> None:
        """Its input was spoiled, and what that was made from is gone: back to the prompt itself."""
        self._books.free_all(job)
        job.place = job.step = 0
        self.spoiled(job, error, now_ns)

    def _retry(self, job: Job, now_ns: int) -> None:
        """Send the job again, with the input it had."""
        self.replayed += 1
        self._books.wait(job, now_ns)

    def _convicted(self, job: Job, killed: bool) -> bool:
        """Count the death of a stage that had only this job; whether it was one too many."""
        at = (job.place, self._step_of(job))
        if at != job.died_at:
            job.died_at, job.deaths, job.doubtful_deaths = at, 0, 0
        if job.started and not killed:
            job.deaths += 1
        else:
            job.doubtful_deaths += 1
        return job.deaths >= MAX_DEATHS or job.deaths + job.doubtful_deaths >= MAX_DOUBTFUL_DEATHS

    def _step_of(self, job: Job) -> int:
        """The step at which the job stands: that of its checkpoint, which may be ahead of what was told."""
        if not job.stepwise or job.output is None:
            return job.step
        saved = Checkpoint(self._books.arena.peek(job.output), job.number, self._latent_shape(job)).restore()
        return max(job.step, saved.step if saved else 0)

    def _latent_shape(self, job: Job) -> tuple[int, int, int]:
        denoise = job.request.denoise
        return self._books.plan.card.latent_shape(denoise.width, denoise.height)
