"""The router's books: every prompt and job in work, where it waits, which slots it holds, who could work on it."""

from collections.abc import Iterable, Iterator
from itertools import chain

from orchestrator.plan import Plan
from orchestrator.routing.forecast import Forecast
from orchestrator.routing.jobs import Job, Owner, Prompt, StageProcess
from orchestrator.routing.line import Pending
from stages.core.arena import Arena, SlotRef
from stages.core.costs import Cost
from stages.core.route import TEXT_TO_IMAGE, Pool
from stages.core.wire import KINDS, Kind

FIRST: Kind = TEXT_TO_IMAGE[0].kind
"""The kind of stage that every route begins with."""


class Books:
    """Prompts, jobs, lines and stage processes, kept by all parts of the router."""

    def __init__(self, plan: Plan, arena: Arena, costs: Iterable[Cost]) -> None:
        """`costs` are what the work has cost when it was done before."""
        self.plan = plan
        self.arena = arena
        self.forecast = Forecast(plan.card, plan.order, costs)
        self.stages = {spec.name: StageProcess(spec.name, spec.number, spec.kind) for spec in plan.stages}
        self.prompts: dict[tuple[Owner, str], Prompt] = {}
        self.jobs: dict[int, Job] = {}
        self.queue = self.forecast.line()
        """Jobs that wait for their first stage."""
        self._between: dict[Kind, list[Job]] = {kind: [] for kind in KINDS}
        """Jobs that wait for a later one: no more than there are slots."""

    def pending(self, now_ns: int) -> Pending:
        """All jobs, in order."""
        self.queue.refresh(now_ns)
        in_stages = (self.jobs[number] for stage in self.stages.values() for number in stage.jobs)
        return Pending(self.queue, self.forecast.line(chain(in_stages, *self._between.values()), now_ns))

    # Waiting.

    def next(self, kind: Kind, now_ns: int) -> Job | None:
        """The job that goes first of those that wait for a stage of `kind`."""
        later = min(self._between[kind], key=lambda job: self.forecast.rank(job, now_ns)[0], default=None)
        if later is None and kind == FIRST:
            self.queue.refresh(now_ns)
            return self.queue.first
        return later

    def between(self, kind: Kind) -> Iterator[Job]:
        """Jobs that have begun and wait for a stage of `kind`."""
        return iter(self._between[kind])

    def wait(self, job: Job, now_ns: int) -> None:
        """Let the job wait for a stage of its kind."""
        if job.first:
            self.queue.add(job, now_ns)
        else:
            self._between[job.kind].append(job)

    def leave(self, job: Job) -> None:
        """The job waits no more; one that does not wait at all is where it was."""
        if job.first:
            self.queue.remove((job,))
        elif job in self._between[job.kind]:
            self._between[job.kind].remove(job)

    # Stages.

    def release(self, job: Job) -> None:
        """The stage has nothing to do with the job any more."""
        assert job.stage is not None
        self.stages[job.stage].jobs.remove(job.number)
        job.stage = None

    def has_suspect(self, stage: StageProcess) -> bool:
        """Whether one of the jobs of the stage has been in one that died, and has not come further since."""
        return any(self.jobs[number].suspect for number in stage.jobs)

    # Slots.

    def free(self, slot: SlotRef | None) -> None:
        """Give a slot back, if there is one."""
        if slot is not None:
            self.arena.free(slot)

    def free_inputs(self, job: Job, keep: Iterable[Pool] = ()) -> None:
        """Give back what the job reads, but for the pools that it still needs."""
        kept = frozenset(keep)
        for pool in [pool for pool in job.held if pool not in kept]:
            self.free(job.held.pop(pool).slot)

    def free_all(self, job: Job) -> None:
        """Give back all slots of the job."""
        self.free_inputs(job)
        self.free(job.output)
        job.output = None

    def forget(self, job: Job) -> None:
        """Strike the job off, and give its slots back."""
        self.free_all(job)
        job.prompt.jobs.discard(job.number)
        del self.jobs[job.number]
