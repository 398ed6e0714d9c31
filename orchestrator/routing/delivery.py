"""Delivery: what clients are told of their prompts, and how prompts end."""

from collections.abc import Sequence
from itertools import islice

from orchestrator.routing.actions import Actions, ToStage, ToTracer
from orchestrator.routing.books import Books
from orchestrator.routing.jobs import Job, Prompt
from orchestrator.routing.kept import Ended, KeptResults
from orchestrator.routing.line import Pending
from stages.core import pipes, wire
from stages.core.errors import TriptychError

WAITING_EVERY_NS = 1_000_000_000
"""Nanoseconds after which a client that has heard nothing is told that its prompt is still in."""

WAITING_PAUSE_NS = 100_000_000
WAITING_AT_ONCE = 50
"""Prompts that are told at once where very many wait; the next are told after a pause."""

_PROGRESS_NS = 50_000_000
"""Nanoseconds between two progress messages of one prompt: steps of a small model come faster than anybody reads."""

_ESTIMATE_NS = 250_000_000
"""Nanoseconds between estimates in the progress of one prompt: they cost a look at every job."""


class Delivery:
    """Tells listeners; ends prompts, and keeps those of named owners for a while."""

    def __init__(self, books: Books, actions: Actions, kept: KeptResults) -> None:
        self._books = books
        self._actions = actions
        self._kept = kept
        self._silent: dict[Prompt, None] = {}
        """All prompts, those first whose listeners have heard nothing for the longest time."""
        self._pause_until_ns = 0

    # How far a prompt is.

    def accepted(self, prompt: Prompt, clients: Sequence[bytes], now_ns: int) -> None:
        """Tell clients that the prompt is in."""
        self._note_sent(prompt, now_ns)
        position, eta = self._outlook(prompt, self._books.pending(now_ns), now_ns)
        self._actions.tell(clients, wire.Accepted(id=prompt.id, position=position, eta_s=eta))

    @property
    def waiting_due_ns(self) -> int | None:
        """When `send_waiting` has something to say; None while nobody waits."""
        oldest = next(iter(self._silent), None)
        return None if oldest is None else max(oldest.last_sent_ns + WAITING_EVERY_NS, self._pause_until_ns)

    def send_waiting(self, now_ns: int) -> None:
        """Tell those that have not heard of a prompt for a while that it is still in.

        This is also how the hub finds out that a client has gone while its prompts only wait.
        """
        overdue = (prompt for prompt in self._silent if now_ns - prompt.last_sent_ns >= WAITING_EVERY_NS)
        prompts = list(islice(overdue, WAITING_AT_ONCE))
        self._pause_until_ns = now_ns + (WAITING_PAUSE_NS if len(prompts) == WAITING_AT_ONCE else WAITING_EVERY_NS)
        pending = self._books.pending(now_ns)
        for prompt in prompts:
            self._note_sent(prompt, now_ns)
            if prompt.listeners:
                position, eta = self._outlook(prompt, pending, now_ns)
                self._actions.tell(prompt.listeners, wire.Waiting(id=prompt.id, position=position, eta_s=eta))

    def progress(self, job: Job, step: int, steps: int, now_ns: int) -> None:
        """Note how far a job is, and say so unless that was said just now."""
        job.step, job.steps = step, steps
        prompt = job.prompt
        if job.cancelled or (step and now_ns - prompt.last_sent_ns < _PROGRESS_NS):
            return
        eta = None
        if prompt.listeners and now_ns - prompt.last_estimate_ns >= _ESTIMATE_NS:
            prompt.last_estimate_ns = now_ns
            eta = self._books.forecast.eta(job, self._books.pending(now_ns), now_ns)
        self._note_sent(prompt, now_ns)
        message = wire.Progress(id=prompt.id, stage=job.kind, step=step, steps=steps, index=job.index, eta_s=eta)
        self._actions.tell(prompt.listeners, message)

    def preview(self, job: Job, preview: pipes.PreviewDrawn) -> None:
        """Show a preview, if it is still news, and not what the picture itself will show."""
        news = not job.cancelled and job.stepwise and bool(preview.jpeg)
        if news and job.previewed < preview.step < job.steps:
            job.previewed = preview.step
            message = wire.Preview(id=job.prompt.id, index=job.index, step=preview.step)
            self._actions.tell(job.prompt.listeners, message, preview.jpeg)

    def _outlook(self, prompt: Prompt, pending: Pending, now_ns: int) -> tuple[int, float | None]:
        """The position of a prompt, and the estimate for the last of its images."""
        jobs, forecast = self._books.jobs, self._books.forecast
        position = forecast.position((jobs[number] for number in prompt.jobs), pending)
        return position, forecast.eta(jobs[max(prompt.jobs)], pending, now_ns)

    def _note_sent(self, prompt: Prompt, now_ns: int) -> None:
        """Its listeners hear of the prompt now."""
        self._silent.pop(prompt, None)
        self._silent[prompt] = None
        prompt.last_sent_ns = now_ns

    # How it ends.

    def image(self, job: Job, now_ns: int) -> None:
        """Send the picture that lies in the job's output slot; after the last one of its prompt, `done`.

        Raises TornSlot or StaleSlot where the slot was spoiled; nothing has been said then.
        """
        assert job.output is not None
        prompt, denoise = job.prompt, job.request.denoise
        payload = self._books.arena.read(job.output).tobytes()
        message = wire.Image(
            id=prompt.id,
            index=job.index,
            format=job.request.output_format,
            width=denoise.width,
            height=denoise.height,
            seed=denoise.seed,
            timings=_timings(job, now_ns),
        )
        self._actions.tell(prompt.listeners, message, payload)
        if isinstance(prompt.owner, str):
            prompt.images.append((message, payload))
        self._books.forget(job)
        if not prompt.jobs:
            self._end(prompt, wire.Done(id=prompt.id), now_ns)

    def fail(self, prompts: Sequence[Prompt], error: TriptychError, now_ns: int) -> None:
        """End prompts with one error; their jobs in stages are dropped there, and keep their slots until the stage has
        let go. Jobs that queue leave together, as one by one ten thousand would take seconds.
        """
        books = self._books
        jobs = [books.jobs[number] for prompt in prompts for number in prompt.jobs]
        books.queue.remove(jobs)
        for prompt in prompts:
            self._end(prompt, wire.Failed.of(prompt.id, error), now_ns)
        for job in jobs:
            job.cancelled = True
            if job.stage is None:
                books.leave(job)
                books.forget(job)
            else:
                self._actions.add(ToStage(job.stage, pipes.Drop(job.number)))

    def _end(self, prompt: Prompt, last: wire.Done | wire.Failed, now_ns: int) -> None:
        """Give the prompt its terminal answer."""
        del self._books.prompts[prompt.owner, prompt.id]
        self._silent.pop(prompt, None)
        if isinstance(prompt.owner, str):
            self._kept.add(prompt.owner, prompt.submit, prompt.images, last, now_ns)
        if prompt.submit.trace and isinstance(last, wire.Done):
            for client in prompt.listeners:
                self._actions.add(ToTracer(client, prompt.id, prompt.numbers, prompt.began_ns))
        self._actions.tell(prompt.listeners, last)

    # Who asks again.

    def join(self, client: bytes, prompt: Prompt, now_ns: int) -> None:
        """Tell a connection of a prompt in work: that it is, what has been made, and from now on all else."""
        prompt.listeners[client] = None
        self.accepted(prompt, (client,), now_ns)
        for message, payload in prompt.images:
            self._actions.tell((client,), message, payload)

    def repeat(self, client: bytes, ended: Ended) -> None:
        """Tell a connection how a prompt ended."""
        for message, payload in ended.images:
            self._actions.tell((client,), message, payload)
        self._actions.tell((client,), ended.last)


def _timings(job: Job, now_ns: int) -> wire.Timings:
    seconds = dict.fromkeys(wire.KINDS, 0.0)
    for leg in job.route:
        began_ns, ended_ns = job.spans[leg.task]
        seconds[leg.kind] += (ended_ns - began_ns) / 1e9
    first_began_ns = job.spans[job.route[0].task][0]
    return wire.Timings(
        queue_s=max(0.0, (first_began_ns - job.submitted_ns) / 1e9),
        **{f"{kind}_s": spent for kind, spent in seconds.items()},
        total_s=(now_ns - job.submitted_ns) / 1e9,
    )
