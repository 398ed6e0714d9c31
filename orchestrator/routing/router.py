"""The router: which job goes where, when. Pure: no sockets, processes or clock; decisions come back as data.

A job's life, and where its slots are (stages.core.route)::

    queue --Run--> text stage --Finished--> waits --Run--> U-Net stage --Finished--> waits --Run--> VAE stage --> image
                   writes embeds       holds embeds        reads embeds,        holds latents       reads latents,
                                                           writes latents                           writes the image

A job goes to a stage when three things are there: a serving process of the kind with room (its depth), and a free slot
for the output. Slots are thus the back-pressure: where the decoder is slow its inputs keep their slots, the U-Net finds
none free and stops taking jobs, and so on back to the queue, which is bounded. An input is freed only when the
output it led to has been accepted, so a job whose stage dies is sent again from what it came with.

Admission decides what is taken in, Dispatch what goes where, Delivery what clients are told; all keep the same Books.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import assert_never

from orchestrator.plan import Plan
from orchestrator.routing.actions import Action, Actions, ToClient
from orchestrator.routing.admission import Admission
from orchestrator.routing.books import Books
from orchestrator.routing.delivery import Delivery
from orchestrator.routing.dispatch import Dispatch
from orchestrator.routing.forecast import Forecast
from orchestrator.routing.jobs import Job, Owner
from orchestrator.routing.kept import KeptResults
from stages.core import pipes, wire
from stages.core.arena import Arena
from stages.core.costs import Cost
from stages.core.errors import StaleSlot, TornSlot, TriptychError, by_code
from stages.core.route import PREVIEWS, STEPWISE
from stages.core.wire import KINDS, Kind

_HOPS_KEPT = 4096


class Router:
    """Admits, sends on, answers, sends again. Every public method returns what is to be done, in order."""

    def __init__(
        self,
        plan: Plan,
        arena: Arena,
        queue_limit: int,
        costs: Iterable[Cost] = (),
        kept: KeptResults | None = None,
    ) -> None:
        """`costs` are those of the work when it was done before; without `kept`, no prompt is kept after its end."""
        self._actions = Actions()
        self._books = Books(plan, arena, costs)
        kept = kept or KeptResults(0.0, 0)
        self._delivery = Delivery(self._books, self._actions, kept)
        self._admission = Admission(self._books, self._actions, self._delivery, kept, queue_limit)
        self._dispatch = Dispatch(self._books, self._actions, self._delivery)
        self.hops_us: deque[float] = deque(maxlen=_HOPS_KEPT)

    # What the status shows.

    @property
    def forecast(self) -> Forecast:
        """The forecast of times."""
        return self._books.forecast

    @property
    def waiting(self) -> int:
        """Images that wait for their first stage."""
        return len(self._books.queue)

    @property
    def empty(self) -> bool:
        """Whether no job is anywhere."""
        return not self._books.jobs

    @property
    def replayed(self) -> int:
        """Jobs sent again because their stage died at them, or because their data were spoiled."""
        return self._dispatch.replayed

    def prompt_of(self, job: int) -> str | None:
        """The id of the prompt that job number `job` is for."""
        found = self._books.jobs.get(job)
        return found.prompt.id if found else None

    def job(self, number: int) -> Job | None:
        """The job of that number, if it is still in work."""
        return self._books.jobs.get(number)

    def has_work(self, stage: str) -> bool:
        """Whether the stage process has jobs."""
        return bool(self._books.stages[stage].jobs)

    # What clients do.

    def ask(self, client: bytes, message: wire.PromptMessage, now_ns: int, draw: int = 0) -> list[Action]:
        """Do what a client asks about its prompts, or answer why not. `draw` is the seed where a submit names none."""
        admission = self._admission
        try:
            match message:
                case wire.Quote():
                    admission.quote(client, message, now_ns)
                case wire.Submit():
                    admission.submit(client, message, draw, now_ns)
                case wire.Cancel():
                    admission.cancel(client, message, now_ns)
                case wire.Attach():
                    admission.attach(client, message, now_ns)
                case wire.Forget():
                    admission.forget(client, message)
                case _:
                    assert_never(message)
        except TriptychError as error:
            return [ToClient(client, wire.Failed.of(message.id or "", error))]
        return self._pump(now_ns)

    def client_gone(self, client: bytes, now_ns: int) -> list[Action]:
        """Give up all prompts of a client that cannot be reached, but for those of named owners."""
        self._admission.gone(client, now_ns)
        return self._pump(now_ns)

    @property
    def waiting_due_ns(self) -> int | None:
        """When `send_waiting` has something to say; None while nobody waits."""
        return self._delivery.waiting_due_ns

    def send_waiting(self, now_ns: int) -> list[Action]:
        """Tell clients that have not heard of a prompt for a while that it is still in."""
        self._delivery.send_waiting(now_ns)
        return self._pump(now_ns)

    def drain(self) -> None:
        """Take nothing in any more."""
        self._admission.draining = True

    def abandon(self, error: TriptychError, now_ns: int) -> list[Action]:
        """Fail everything that is left with this error, because the server stops now."""
        self._delivery.fail(list(self._books.prompts.values()), error, now_ns)
        return self._actions.take()

    def owed(self) -> list[tuple[bytes, str]]:
        """Client and id of every prompt that has no terminal answer yet."""
        return [(client, prompt.id) for prompt in self._books.prompts.values() for client in prompt.listeners]

    def give_up(
        self, owner: Owner, id: str, error: TriptychError, now_ns: int, told: bytes | None = None
    ) -> list[Action]:
        """Fail one prompt, if it is in work; `told` is told of the error whether or not it is."""
        self._actions.clear()  # what was being decided when the error came up is void
        prompt = self._books.prompts.get((owner, id))
        if prompt is not None:
            self._delivery.fail([prompt], error, now_ns)
        if told is not None and (prompt is None or told not in prompt.listeners):
            self._actions.tell((told,), wire.Failed.of(id, error))
        return self._pump(now_ns)

    # What stages do.

    def serving(self, stage: str, pid: int, now_ns: int) -> list[Action]:
        """A stage process has loaded."""
        self._books.stages[stage].pid = pid
        return self._pump(now_ns)

    def lost(self, stage: str, now_ns: int, *, killed: bool = False) -> list[Action]:
        """A stage process has died; `killed` if by others."""
        self._dispatch.lost(self._books.stages[stage], now_ns, killed=killed)
        return self._pump(now_ns)

    def previewed(self, stage: str, preview: pipes.PreviewDrawn, now_ns: int) -> list[Action]:
        """A preview has been drawn."""
        self._books.stages[stage].previews.discard(preview.job)
        job = self._books.jobs.get(preview.job)
        if job is not None:
            self._delivery.preview(job, preview)
        return self._pump(now_ns, (PREVIEWS,))  # a suspect may have waited for the process to be alone

    def report(self, stage: str, report: pipes.Report, now_ns: int) -> list[Action]:
        """A stage says how a job of it stands. What is said of jobs it does not have (any more) is ignored."""
        books = self._books
        job = books.jobs.get(report.job)
        if job is None or job.stage != stage:
            return []
        match report:
            case pipes.Started():
                self._started(job, report, now_ns)
                return self._actions.take()
            case pipes.Stepped():
                # No stage has room now that had none before; but the order may have changed.
                self._stepped(job, report, now_ns)
                return self._pump(now_ns, (STEPWISE,))
            case pipes.Finished():
                self._finished(job, report, now_ns)
            case pipes.Fault():
                books.release(job)
                error = by_code(report.code)(report.message)
                if job.cancelled:
                    books.forget(job)
                elif isinstance(error, TornSlot | StaleSlot):
                    self._dispatch.restart(job, error, now_ns)
                else:
                    self._delivery.fail([job.prompt], error, now_ns)
            case pipes.Dropped():
                books.release(job)
                books.forget(job)
            case _:
                assert_never(report)
        return self._pump(now_ns)

    def _started(self, job: Job, started: pipes.Started, now_ns: int) -> None:
        job.started = True
        if job.finished_ns:
            self.hops_us.append((started.began_ns - job.finished_ns) / 1000)
            job.finished_ns = 0
        self._delivery.progress(job, started.step, started.steps, now_ns)

    def _stepped(self, job: Job, stepped: pipes.Stepped, now_ns: int) -> None:
        job.suspect = False
        self._learn(job, stepped.cost_ns, now_ns, job.rows)
        self._delivery.progress(job, stepped.step, stepped.steps, now_ns)
        every = job.prompt.submit.preview_every
        if every and stepped.step % every == 0 and stepped.step < stepped.steps and not job.cancelled:
            self._dispatch.preview(job)

    def _finished(self, job: Job, finished: pipes.Finished, now_ns: int) -> None:
        """Accept the output of a leg."""
        if not job.stepwise:
            self._learn(job, finished.ended_ns - finished.began_ns, now_ns)
        job.spans[job.leg.task] = (finished.began_ns, finished.ended_ns)
        self._books.release(job)
        job.suspect = False
        if job.cancelled:
            self._books.forget(job)
        elif job.last:
            try:
                self._delivery.image(job, now_ns)
            except (TornSlot, StaleSlot) as error:
                self._dispatch.spoiled(job, error, now_ns)
        else:
            if not job.stepwise:  # a stepwise stage has said so with its last step
                self._delivery.progress(job, 1, 1, now_ns)
            self._dispatch.finished(job, finished.shape, finished.ended_ns)
            self._books.wait(job, now_ns)

    def _learn(self, job: Job, nanoseconds: int, now_ns: int, rows: int = 1) -> None:
        """A piece of the job's work has been done."""
        self.forecast.learn(job.leg.task, nanoseconds, now_ns, len(self._books.jobs), job.request.pixels, rows)

    def _pump(self, now_ns: int, kinds: Sequence[Kind] = KINDS) -> list[Action]:
        self._dispatch.pump(now_ns, kinds)
        return self._actions.take()
