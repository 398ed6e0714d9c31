"""The router: which job goes where, when. Pure: no sockets, processes or clock; decisions come back as data.

A job's life, and where its slots are::

    waiting[text] --Run--> text stage --Put--> waiting[unet] --Run--> U-Net stage --Put--> waiting[vae] --Run--> ..
                           writes embeds       holds embeds           reads embeds,        holds latents
                                                                      writes latents

A job goes to a stage when three things are there: a serving process of the kind with room (its depth), and a free slot
for the output. Slots are thus the back-pressure: where the decoder is slow its inputs keep their slots, the U-Net finds
none free and stops taking jobs, and so on back to the queue, which is bounded. An input is freed only when the
output it led to has been accepted, so a job whose stage dies is sent again from what it came with.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Literal, NamedTuple

from orchestrator.plan import OUTPUT_POOL, PREEMPTION_SLOTS, Plan
from orchestrator.routing.forecast import Forecast
from orchestrator.routing.jobs import Job, Prompt, StageProcess
from orchestrator.routing.line import Pending
from orchestrator.routing.request import resolve
from stages.core import pipes, wire
from stages.core.arena import Arena, SlotRef
from stages.core.checkpoint import Checkpoint
from stages.core.costs import Cost
from stages.core.errors import (
    Cancelled,
    DeadlineInfeasible,
    DuplicateId,
    NotFound,
    Overloaded,
    ShuttingDown,
    StageLost,
    StaleSlot,
    TornSlot,
    TriptychError,
    by_code,
)
from stages.core.order import SchedulingKey
from stages.core.wire import KINDS, Kind

MAX_DEATHS = 2
"""Faults of stages that worked on a job alone, at one step of it, after which it is taken for their cause."""

MAX_DOUBTFUL_DEATHS = 5
"""The same where they were killed by others, or had not said yet that they worked on it. That is chance, most likely;
but a prompt may also make a stage ask for so much memory that the kernel kills it, every time."""

MAX_SPOILED = 8
"""Spoiled data after which a job is given up. Whoever spoils them, it is not the prompt."""

WAITING_EVERY_NS = 1_000_000_000
"""Nanoseconds after which a client that has heard nothing is told that its prompt is still in."""

WAITING_PAUSE_NS = 100_000_000
WAITING_AT_ONCE = 50
"""Where very many wait, so many of them are told at once, and the next after a pause."""

_PROGRESS_NS = 50_000_000
"""Nanoseconds between two progress messages of one prompt: steps of a small model come faster than anybody reads."""

_ESTIMATE_NS = 250_000_000
"""Nanoseconds between estimates in the progress of one prompt: they cost a look at every job."""

_HOPS_KEPT = 4096

_GONE = Cancelled("the client is gone")


class ToStage(NamedTuple):
    """Send `message` to the stage process `stage`."""

    stage: str
    message: pipes.ToStage


class ToClient(NamedTuple):
    """Send `message` to `client`; `payload` is the encoded picture of an image."""

    client: bytes
    message: wire.HubMessage
    payload: bytes | None = None


Action = ToStage | ToClient


class Router:
    """Admits, sends on, answers, sends again. Every public method returns what is to be done, in order."""

    def __init__(self, plan: Plan, arena: Arena, queue_limit: int, costs: Iterable[Cost] = ()) -> None:
        """`costs` are what the work has cost when it was done before."""
        self._plan = plan
        self._arena = arena
        self._queue_limit = queue_limit
        self._stages = {spec.name: StageProcess(spec.name, spec.number, spec.kind) for spec in plan.stages}
        self.forecast = Forecast(plan.card, plan.order, costs)
        self._queue = self.forecast.line()
        """Jobs that wait for their first stage."""
        self._between: dict[Kind, list[Job]] = {kind: [] for kind in KINDS[1:]}
        """Jobs that wait for their next one: no more than there are slots."""
        self._jobs: dict[int, Job] = {}
        self._prompts: dict[tuple[bytes, str], Prompt] = {}
        self._silent: dict[Prompt, None] = {}
        """All prompts, those first whose clients have heard nothing for the longest time."""
        self._waiting_pause_until_ns = 0
        self._count = 0
        self._draining = False
        self._actions: list[Action] = []
        self.replayed = 0
        """Jobs sent again because their stage died at them, or because their data were spoiled."""
        self.hops_us: deque[float] = deque(maxlen=_HOPS_KEPT)

    # What the status shows.

    @property
    def waiting(self) -> int:
        """Images that wait for their first stage."""
        return len(self._queue)

    @property
    def empty(self) -> bool:
        """Whether no job is anywhere."""
        return not self._jobs

    def prompt_of(self, job: int) -> str | None:
        """The id of the prompt that job number `job` is for."""
        found = self._jobs.get(job)
        return found.prompt.id if found else None

    def job(self, number: int) -> Job | None:
        """The job of that number, if it is still in work."""
        return self._jobs.get(number)

    def has_work(self, stage: str) -> bool:
        """Whether the stage process has jobs."""
        return bool(self._stages[stage].jobs)

    # What clients do.

    def submit(self, client: bytes, submit: wire.Submit, draw: int, now_ns: int) -> list[Action]:
        """Take a prompt in, or answer why not. `draw` is the seed where the client names none."""
        try:
            if self._draining:
                raise ShuttingDown("the server is stopping; send this again later")
            if (client, submit.id) in self._prompts:
                raise DuplicateId(f"`id` {submit.id!r} is still in work; choose another")
            requests = resolve(submit, self._plan.card, self._plan.sizes, draw)
            self._check_room(len(requests), now_ns)
            deadline = None if submit.deadline_s is None else now_ns / 1e9 + submit.deadline_s
            scheduling_key = SchedulingKey(now_ns / 1e9, submit.priority, deadline)
            if deadline is not None:
                requests = self.forecast.fit(requests, scheduling_key, submit.min_steps, self._pending(now_ns), now_ns)
        except TriptychError as error:
            return [ToClient(client, wire.Failed.of(submit.id, error))]
        prompt = self._prompts[client, submit.id] = Prompt(
            client, submit.id, submit.trace, submit.preview_every, now_ns
        )
        for index, request in enumerate(requests):
            self._count += 1
            evaluations, rows = request.evaluations(self._plan.card), self._plan.card.rows(request.guidance_scale)
            job = self._jobs[self._count] = Job(
                self._count, prompt, index, request, evaluations, rows, now_ns, scheduling_key
            )
            prompt.jobs.add(job.number)
            self._queue.add(job, now_ns)
        self._note_sent(prompt, now_ns)
        position, eta = self._outlook(prompt, self._pending(now_ns), now_ns)
        self._actions.append(ToClient(client, wire.Accepted(id=prompt.id, position=position, eta_s=eta)))
        return self._pump(now_ns)

    @property
    def waiting_due_ns(self) -> int | None:
        """When `remind` has something to say; None while nobody waits."""
        oldest = next(iter(self._silent), None)
        return None if oldest is None else max(oldest.last_sent_ns + WAITING_EVERY_NS, self._waiting_pause_until_ns)

    def send_waiting(self, now_ns: int) -> list[Action]:
        """Say to clients that have not heard of a prompt for a while that it is still in.

        This is also how the hub finds out that a client has gone while its prompts only wait.
        """
        overdue = (prompt for prompt in self._silent if now_ns - prompt.last_sent_ns >= WAITING_EVERY_NS)
        prompts = list(islice(overdue, WAITING_AT_ONCE))
        self._waiting_pause_until_ns = now_ns + (
            WAITING_PAUSE_NS if len(prompts) == WAITING_AT_ONCE else WAITING_EVERY_NS
        )
        pending = self._pending(now_ns)
        for prompt in prompts:
            self._note_sent(prompt, now_ns)
            position, eta = self._outlook(prompt, pending, now_ns)
            self._actions.append(ToClient(prompt.client, wire.Waiting(id=prompt.id, position=position, eta_s=eta)))
        return self._pump(now_ns)

    def cancel(self, client: bytes, id: str, now_ns: int) -> list[Action]:
        """Give a prompt up, wherever its jobs are."""
        prompt = self._prompts.get((client, id))
        if prompt is None:
            error = NotFound(f"`id` {id!r} is not in work")
            return [ToClient(client, wire.Failed.of(id, error))]
        self._fail(prompt, Cancelled("cancelled by the client"), now_ns)
        return self._pump(now_ns)

    def client_gone(self, client: bytes, now_ns: int) -> list[Action]:
        """Give up all prompts of a client that cannot be reached."""
        self._fail_all([prompt for prompt in self._prompts.values() if prompt.client == client], _GONE, now_ns)
        return [
            action for action in self._pump(now_ns) if not (isinstance(action, ToClient) and action.client == client)
        ]

    def drain(self) -> None:
        """Take nothing in any more."""
        self._draining = True

    def abandon(self, error: TriptychError, now_ns: int) -> list[Action]:
        """Fail everything that is left with this error, because the server stops now."""
        self._fail_all(list(self._prompts.values()), error, now_ns)
        return self._take()

    def owed(self) -> list[tuple[bytes, str]]:
        """Client and id of every prompt that has no terminal answer yet."""
        return list(self._prompts)

    def give_up(self, client: bytes, id: str, error: TriptychError, now_ns: int) -> list[Action]:
        """Fail one prompt, if it is in work; where it is not, its client is told all the same."""
        self._actions.clear()  # what was being decided when the error came up is void
        prompt = self._prompts.get((client, id))
        if prompt is None:
            return [ToClient(client, wire.Failed.of(id, error))]
        self._fail(prompt, error, now_ns)
        return self._pump(now_ns)

    def _check_room(self, images: int, now_ns: int) -> None:
        """Refuse what the queue has no room for."""
        room = self._queue_limit + self._arena.free_slots(OUTPUT_POOL["text"]) - self.waiting
        if images > room:
            error = Overloaded(f"{self.waiting} images wait already; send this again later")
            error.retry_after_s = self.forecast.first_done(self._pending(now_ns))
            raise error

    def _pending(self, now_ns: int) -> Pending:
        """All jobs, in order."""
        self._queue.refresh(now_ns)
        in_stages = (self._jobs[number] for stage in self._stages.values() for number in stage.jobs)
        return Pending(self._queue, self.forecast.line(chain(in_stages, *self._between.values()), now_ns))

    def _outlook(self, prompt: Prompt, pending: Pending, now_ns: int) -> tuple[int, float | None]:
        """The position of a prompt, and the estimate for the last of its images."""
        position = self.forecast.position((self._jobs[number] for number in prompt.jobs), pending)
        return position, self.forecast.eta(self._jobs[max(prompt.jobs)], pending, now_ns)

    def _note_sent(self, prompt: Prompt, now_ns: int) -> None:
        """Its client hears of the prompt now."""
        self._silent.pop(prompt, None)
        self._silent[prompt] = None
        prompt.last_sent_ns = now_ns

    # What stages do.

    def serving(self, stage: str, pid: int, now_ns: int) -> list[Action]:
        """A stage process has loaded."""
        self._stages[stage].pid = pid
        return self._pump(now_ns)

    def lost(self, stage: str, now_ns: int, *, killed: bool = False) -> list[Action]:
        """A stage process has died; `killed` if by others.

        Every job that it had may be the cause, so each has a stage to itself until it has come a step further.
        """
        state = self._stages[stage]
        state.pid = None
        jobs, state.jobs = [self._jobs[number] for number in state.jobs], []
        previews, state.previews = state.previews, set()
        for number in previews & self._jobs.keys():
            self._jobs[number].fatal_previews += 1
        alone = len(jobs) == 1 and not previews
        for job in jobs:
            job.stage = None
        for job in jobs:
            if job.number not in self._jobs:  # went with its prompt, which another job of this loop has ended
                continue
            if job.cancelled:
                self._forget(job, now_ns)
                continue
            job.suspect = True
            if alone and self._convicted(job, killed):
                self._fail(job.prompt, StageLost("stages died more than once at this prompt"), now_ns)
            else:
                self._retry(job, now_ns)
        return self._pump(now_ns)

    def _convicted(self, job: Job, killed: bool) -> bool:
        """Count the death of a stage that had only this job; whether it was one too many."""
        at = (job.kind, self._step_of(job))
        if at != job.died_at:
            job.died_at, job.deaths, job.doubtful_deaths = at, 0, 0
        if job.started and not killed:
            job.deaths += 1
        else:
            job.doubtful_deaths += 1
        return job.deaths >= MAX_DEATHS or job.deaths + job.doubtful_deaths >= MAX_DOUBTFUL_DEATHS

    def _step_of(self, job: Job) -> int:
        """The step at which the job stands: that of its checkpoint, which may be ahead of what was told."""
        if job.kind != "unet" or job.output is None:
            return job.step
        shape = self._plan.card.latent_shape(job.request.width, job.request.height)
        saved = Checkpoint(self._arena.peek(job.output), job.number, shape).restore()
        return max(job.step, saved.step if saved else 0)

    def previewed(self, stage: str, preview: pipes.PreviewDrawn, now_ns: int) -> list[Action]:
        """A preview has been drawn; shown if it is still news, and not what the picture itself will show."""
        self._stages[stage].previews.discard(preview.job)
        job = self._jobs.get(preview.job)
        news = job is not None and not job.cancelled and job.kind == "unet" and bool(preview.jpeg)
        if job is not None and news and job.previewed < preview.step < job.steps:
            job.previewed = preview.step
            message = wire.Preview(id=job.prompt.id, index=job.index, step=preview.step)
            self._actions.append(ToClient(job.prompt.client, message, preview.jpeg))
        return self._pump(now_ns, ("vae",))  # a suspect may have waited for the process to be alone

    def _preview(self, job: Job) -> None:
        """Have a decoder process draw a preview: the U-Net goes on meanwhile.

        Not while a suspect is there or waits for one, as that must be alone, nor of a job whose previews have killed
        stages.
        """
        assert job.output is not None
        if job.fatal_previews >= MAX_DEATHS or any(other.suspect for other in self._between["vae"]):
            return
        serving = (stage for stage in self._stages.values() if stage.kind == "vae" and stage.pid is not None)
        vae = next((stage for stage in serving if not self._has_suspect(stage)), None)
        if vae is not None and job.number not in vae.previews:
            vae.previews.add(job.number)
            shape = self._plan.card.latent_shape(job.request.width, job.request.height)
            self._actions.append(ToStage(vae.name, pipes.DrawPreview(job.number, job.output, shape)))

    def report(self, stage: str, report: pipes.Report, now_ns: int) -> list[Action]:
        """A stage says how a job of it stands. What is said of jobs it does not have (any more) is ignored."""
        job = self._jobs.get(report.job)
        if job is None or job.stage != stage:
            return []
        match report:
            case pipes.Started():
                self._started(job, report, now_ns)
                return self._take()
            case pipes.Stepped():
                # No stage has room now that had none before; but the order may have changed.
                self._stepped(job, report, now_ns)
                return self._pump(now_ns, ("unet",))
            case pipes.Finished():
                self._finished(job, report, now_ns)
            case pipes.Fault():
                self._release(job)
                if job.cancelled:
                    self._forget(job, now_ns)
                elif report.code in (TornSlot.code, StaleSlot.code):
                    self._restart_from_text(job, by_code(report.code)(report.message), now_ns)
                else:
                    self._fail(job.prompt, by_code(report.code)(report.message), now_ns)
            case pipes.Dropped():
                self._release(job)
                self._forget(job, now_ns)
        return self._pump(now_ns)

    def _started(self, job: Job, took: pipes.Started, now_ns: int) -> None:
        job.started = True
        if job.finished_ns:
            self.hops_us.append((took.began_ns - job.finished_ns) / 1000)
            job.finished_ns = 0
        self._progress(job, took.step, took.steps, now_ns)

    def _stepped(self, job: Job, stepped: pipes.Stepped, now_ns: int) -> None:
        job.suspect = False
        self.forecast.learn("unet", stepped.cost_ns, now_ns, len(self._jobs), job.request.pixels, job.rows)
        if job.prompt.trace:
            self._slice(job, "step", stepped.began_ns, stepped.ended_ns, stepped.step)
        self._progress(job, stepped.step, stepped.steps, now_ns)
        every = job.prompt.preview_every
        if every and stepped.step % every == 0 and stepped.step < stepped.steps and not job.cancelled:
            self._preview(job)

    def _progress(self, job: Job, step: int, steps: int, now_ns: int) -> None:
        job.step, job.steps = step, steps
        prompt = job.prompt
        if job.cancelled or (step and now_ns - prompt.last_sent_ns < _PROGRESS_NS):
            return
        eta = None
        if now_ns - prompt.estimated_ns >= _ESTIMATE_NS:
            prompt.estimated_ns, eta = now_ns, self.forecast.eta(job, self._pending(now_ns), now_ns)
        self._note_sent(prompt, now_ns)
        message = wire.Progress(id=prompt.id, stage=job.kind, step=step, steps=steps, index=job.index, eta_s=eta)
        self._actions.append(ToClient(prompt.client, message))

    def _finished(self, job: Job, put: pipes.Finished, now_ns: int) -> None:
        """Accept a stage's output: only now its input is not needed any more."""
        assert job.output is not None
        if job.kind != "unet":
            pixels = job.request.pixels if job.kind == "vae" else 0
            self.forecast.learn(job.kind, put.ended_ns - put.began_ns, now_ns, len(self._jobs), pixels)
        job.spans[job.kind] = (put.began_ns, put.ended_ns)
        if job.prompt.trace:
            self._slice(job, "work", put.began_ns, put.ended_ns)
        self._release(job)
        job.suspect = False
        if job.cancelled:
            self._forget(job, now_ns)
        elif job.kind == "vae":
            self._deliver(job, now_ns)
        else:
            if job.kind == "text":  # the U-Net has said so with its last step
                self._progress(job, 1, 1, now_ns)
            self._free(job, job.input, now_ns)
            job.input, job.input_shape, job.output = job.output, put.shape, None
            job.kind = KINDS[KINDS.index(job.kind) + 1]
            job.step, job.finished_ns = 0, put.ended_ns
            self._between[job.kind].append(job)

    def _deliver(self, job: Job, now_ns: int) -> None:
        """Send the picture; after the last one of its prompt, `done`."""
        assert job.output is not None
        prompt, request = job.prompt, job.request
        try:
            payload = self._arena.read(job.output).tobytes()
        except (TornSlot, StaleSlot) as error:
            self._spoiled(job, error, now_ns)
            return
        image = wire.Image(
            id=prompt.id,
            index=job.index,
            format=request.output_format,
            width=request.width,
            height=request.height,
            seed=request.seed,
            timings=_timings(job, now_ns),
        )
        self._actions.append(ToClient(prompt.client, image, payload))
        self._forget(job, now_ns)
        if not prompt.jobs:
            if prompt.trace:
                slices = tuple(sorted(prompt.slices, key=lambda piece: piece.began_ns))
                self._actions.append(ToClient(prompt.client, wire.Traced(id=prompt.id, slices=slices)))
            self._actions.append(ToClient(prompt.client, wire.Done(id=prompt.id)))
            self._end(prompt)

    # Sending jobs to stages.

    def _pump(self, now_ns: int, kinds: Sequence[Kind] = KINDS) -> list[Action]:
        """Send on whatever can go to stages of these kinds, and give up what cannot be in time any more.

        The stages nearest to the end come first, in each the jobs as `pipeline.order` says.
        """
        if "text" in kinds:
            self._drop_late(now_ns)
        for kind in reversed(kinds):
            while (stage := self._least_loaded(kind)) is not None and (job := self._next(kind, now_ns)) is not None:
                slot = job.output is not None or self._arena.free_slots(OUTPUT_POOL[kind])
                if not slot or not self._accepts(stage, job, now_ns):
                    break
                self._leave(job)
                self._send(job, stage, now_ns)
            for job in self._between.get(kind, ()):
                job.finished_ns = 0  # it had to wait, so what it is waiting for is no hop
        return self._take()

    def _next(self, kind: Kind, now_ns: int) -> Job | None:
        """The job that goes first of those that wait for a stage of `kind`."""
        if kind == "text":
            self._queue.refresh(now_ns)
            return self._queue.first
        return min(self._between[kind], key=lambda job: self.forecast.rank(job, now_ns)[0], default=None)

    def _wait(self, job: Job, now_ns: int) -> None:
        """Let the job wait for a stage of its kind."""
        if job.kind == "text":
            self._queue.add(job, now_ns)
        else:
            self._between[job.kind].append(job)

    def _leave(self, job: Job) -> None:
        """The job waits no more; one that does not wait at all is where it was."""
        if job.kind == "text":
            self._queue.remove((job,))
        elif job in self._between[job.kind]:
            self._between[job.kind].remove(job)

    def _least_loaded(self, kind: Kind) -> StageProcess | None:
        """The serving process of `kind` with the fewest jobs, if it may hold one more at all."""
        serving = (stage for stage in self._stages.values() if stage.kind == kind and stage.pid is not None)
        stage = min(serving, key=lambda stage: len(stage.jobs), default=None)
        most = self._plan.depths[kind] + (PREEMPTION_SLOTS if kind == "unet" else 0)
        return stage if stage is not None and len(stage.jobs) < most else None

    def _accepts(self, stage: StageProcess, job: Job, now_ns: int) -> bool:
        """Whether the stage should have the job now.

        It holds as many as it works on and one more, so that it never waits for a hop; and a U-Net, which changes jobs
        at any step, a few more if they go before all that it has. A suspect is alone, so that only itself can be to
        blame for what happens.
        """
        if job.suspect or self._has_suspect(stage):
            return not stage.jobs and not stage.previews
        if len(stage.jobs) < self._plan.depths[job.kind]:
            return True
        rank, _ = self.forecast.rank(job, now_ns)
        return all(rank < self.forecast.rank(self._jobs[number], now_ns)[0] for number in stage.jobs)

    def _has_suspect(self, stage: StageProcess) -> bool:
        return any(self._jobs[number].suspect for number in stage.jobs)

    def _send(self, job: Job, stage: StageProcess, now_ns: int) -> None:
        pool = OUTPUT_POOL[job.kind]
        if job.output is None:
            job.output = self._arena.reserve(pool, stage.number, job.number)
            job.held[job.output.index] = (pool, now_ns)
        else:  # sent again: the slot keeps what the dead process left, the reference it had is void
            job.output = self._arena.regrant(job.output, stage.number)
        if stage.jobs:
            job.finished_ns = 0
        job.stage, job.started = stage.name, False
        stage.jobs.append(job.number)
        self._actions.append(ToStage(stage.name, self._run(job)))

    def _run(self, job: Job) -> pipes.Run:
        request = job.request
        assert job.output is not None
        if job.kind == "text":
            guided = self._plan.card.rows(request.guidance_scale) == 2
            prompts = (request.negative_prompt, request.prompt) if guided else (request.prompt,)
            return pipes.RunText(job.number, job.output, prompts, request.syntax, request.clip_skip)
        assert job.input is not None
        if job.kind == "unet":
            return pipes.RunUnet(
                job.number,
                job.output,
                job.input,
                job.input_shape,
                request.width,
                request.height,
                request.steps,
                request.guidance_scale,
                request.schedule,
                request.seed,
                request.guidance_rescale,
                job.scheduling_key,
                self.forecast.estimate.costs,
            )
        metadata = request.metadata(self._plan.card)
        return pipes.RunVae(job.number, job.output, job.input, job.input_shape, request.output_format, metadata)

    def _drop_late(self, now_ns: int) -> None:
        """Fail prompts that have not begun and cannot be done by their deadline."""
        if not self.forecast.known:
            return
        for job in self._queue.late(now_ns / 1e9):
            late = self.forecast.lateness(job, now_ns)
            if late > 0 and job.number in self._jobs:  # another image of its prompt may have been late, too
                error = DeadlineInfeasible(f"it waited too long: it would be done {late:.3g} s after its deadline")
                self._fail(job.prompt, error, now_ns)

    # Sending again, letting go.

    def _retry(self, job: Job, now_ns: int) -> None:
        """Send the job again, with the input it had."""
        self.replayed += 1
        self._wait(job, now_ns)

    def _spoiled(self, job: Job, error: TriptychError, now_ns: int) -> None:
        """Data of the job were found spoiled: send it again, or, where that happens over and over, give it up."""
        job.spoiled += 1
        if job.spoiled < MAX_SPOILED:
            self._retry(job, now_ns)
        else:
            self._fail(job.prompt, error, now_ns)

    def _release(self, job: Job) -> None:
        """The stage has nothing to do with the job any more."""
        assert job.stage is not None
        self._stages[job.stage].jobs.remove(job.number)
        job.stage = None

    def _restart_from_text(self, job: Job, error: TriptychError, now_ns: int) -> None:
        """Its input was spoiled, and what that was made from is gone: back to the prompt itself."""
        self._free(job, job.input, now_ns)
        self._free(job, job.output, now_ns)
        job.input = job.output = None
        job.kind, job.step = "text", 0
        self._spoiled(job, error, now_ns)

    def _fail(self, prompt: Prompt, error: TriptychError, now_ns: int) -> None:
        """End a prompt; its jobs in stages are dropped there and keep their slots until the stage has let go."""
        self._fail_all([prompt], error, now_ns)

    def _fail_all(self, prompts: Sequence[Prompt], error: TriptychError, now_ns: int) -> None:
        """End prompts with one error; jobs that queue leave together, as one by one ten thousand would take seconds."""
        jobs = [self._jobs[number] for prompt in prompts for number in prompt.jobs]
        self._queue.remove(jobs)
        for prompt in prompts:
            self._end(prompt)
            self._actions.append(ToClient(prompt.client, wire.Failed.of(prompt.id, error)))
        for job in jobs:
            job.cancelled = True
            if job.stage is None:
                self._leave(job)
                self._forget(job, now_ns)
            else:
                self._actions.append(ToStage(job.stage, pipes.Drop(job.number)))

    def _end(self, prompt: Prompt) -> None:
        """The prompt has its terminal answer."""
        del self._prompts[prompt.client, prompt.id]
        self._silent.pop(prompt, None)

    def _forget(self, job: Job, now_ns: int) -> None:
        """Free the job's slots and strike it off."""
        self._free(job, job.input, now_ns)
        self._free(job, job.output, now_ns)
        job.prompt.jobs.discard(job.number)
        del self._jobs[job.number]

    def _free(self, job: Job, slot: SlotRef | None, now_ns: int) -> None:
        if slot is None:
            return
        self._arena.free(slot)
        pool, reserved_ns = job.held.pop(slot.index)
        if job.prompt.trace:
            job.prompt.slices.append(wire.Slice("hold", job.index, pool, 0, slot.index, reserved_ns, now_ns))

    # Small things.

    def _slice(self, job: Job, what: Literal["work", "step"], began_ns: int, ended_ns: int, step: int = 0) -> None:
        assert job.stage is not None
        assert job.output is not None
        pid = self._stages[job.stage].pid or 0
        piece = wire.Slice(what, job.index, job.stage, pid, job.output.index, began_ns, ended_ns, step)
        job.prompt.slices.append(piece)

    def _take(self) -> list[Action]:
        """What is to be done, for stages first.

        They wait for it; and where telling a client shows that it has gone, its jobs must not be dropped before they
        were sent.
        """
        actions, self._actions = self._actions, []
        return sorted(actions, key=lambda action: isinstance(action, ToClient))


def _timings(job: Job, now_ns: int) -> wire.Timings:
    seconds = {kind: (ended - began) / 1e9 for kind, (began, ended) in job.spans.items()}
    first_began = job.spans["text"][0]
    return wire.Timings(
        queue_s=max(0.0, (first_began - job.submitted_ns) / 1e9),
        text_s=seconds["text"],
        unet_s=seconds["unet"],
        vae_s=seconds["vae"],
        total_s=(now_ns - job.submitted_ns) / 1e9,
    )
