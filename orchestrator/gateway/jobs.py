"""Jobs of the gateway: what it has submitted, how far that is, and who listens.

One task reads all that the hub says and keeps each job's record up to date; requests read the records, and wait for
changes. After a restart the gateway attaches to what the one before it had submitted, and goes on with that.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from orchestrator.client.asynchronous import AsyncClient
from orchestrator.client.conversation import Event
from stages.core import wire
from stages.core.errors import Conflict, NoAnswer, TriptychError

_UNREAD = 64
"""Events that may wait for one listener; from there on the oldest news are left out for it."""

_GROUP = 20
"""Characters of a group's name."""


@dataclass(eq=False)
class Job:
    """One prompt, as far as the hub has told of it."""

    id: str
    submit: wire.Submit | None
    """None for one that a gateway process before this one had submitted."""
    created: float
    """Seconds since the epoch."""
    group: str | None = None
    """`group_of` the owner that the client named; None for a job that is found by its id alone."""
    accepted: wire.Accepted | None = None
    progress: dict[int, wire.Progress] = field(default_factory=dict)
    """The newest of each image."""
    position: int = 0
    eta_s: float | None = None
    previews: dict[int, tuple[wire.Preview, bytes]] = field(default_factory=dict)
    """The newest of each image."""
    images: dict[int, tuple[wire.Image, bytes]] = field(default_factory=dict)
    failed: wire.Failed | None = None
    done: bool = False
    ended: float | None = None
    """Seconds of time.monotonic."""
    listeners: set["Listener"] = field(default_factory=set)

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.done or self.failed is not None

    @property
    def nbytes(self) -> int:
        """Bytes of its encoded images."""
        return sum(len(payload) for _, payload in self.images.values())

    @property
    def state(self) -> str:
        """The word for how far it is."""
        if self.failed is not None:
            return "cancelled" if self.failed.code == "cancelled" else "failed"
        if self.done:
            return "done"
        return "running" if self.progress else "queued"

    def take_in(self, message: wire.PromptAnswer, payload: bytes | None) -> bool:
        """Note what the hub says of it; whether that was its end."""
        match message:
            case wire.Accepted(position=position, eta_s=eta_s):
                self.accepted = message
                self.position, self.eta_s = position, eta_s
            case wire.Waiting(position=position, eta_s=eta_s):
                self.position, self.eta_s = position, eta_s
            case wire.Progress(index=index, eta_s=eta_s):
                self.progress[index] = message
                self.position = 0
                self.eta_s = self.eta_s if eta_s is None else eta_s
            case wire.Preview(index=index):
                self.previews[index] = (message, payload or b"")
            case wire.Image(index=index):
                self.images[index] = (message, payload or b"")
                self.previews.pop(index, None)
            case wire.Done():
                self.done = True
            case wire.Failed():
                self.failed = message
            case _:
                pass
        if self.over and self.ended is None:
            self.ended = time.monotonic()
        for listener in self.listeners:
            listener.add((message, payload))
        return self.over


class Listener:
    """One reader of a job's events, from when it began to listen. Never more than _UNREAD wait for it."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = asyncio.Event()

    def add(self, event: Event) -> None:
        """Note an event."""
        if len(self._events) >= _UNREAD:
            oldest = next((old for old in self._events if isinstance(old[0], wire.News)), None)
            if oldest is not None:
                self._events.remove(oldest)
        self._events.append(event)
        self._changed.set()

    async def take(self) -> Event:
        """The next event; waits for it."""
        while not self._events:
            self._changed.clear()
            await self._changed.wait()
        return self._events.pop(0)


class Jobs:
    """All jobs that are in work or kept, and the connection to the hub."""

    def __init__(
        self,
        client: AsyncClient,
        owner: str,
        keep_s: float,
        keep_bytes: int,
        ended: Callable[[Job], None] = lambda job: None,
        told: Callable[[Job, wire.PromptAnswer, bytes | None], None] = lambda job, message, payload: None,
    ) -> None:
        """`ended` is told of each job that ends, `told` of all that the hub says of any."""
        self._client = client
        self._owner = owner
        self._keep_s = keep_s
        self._keep_bytes = keep_bytes
        self._ended = ended
        self._told = told
        self._jobs: dict[str, Job] = {}
        """Those first that came first."""
        self._answers: dict[str, asyncio.Future[wire.PromptAnswer]] = {}
        """Submits that have not been answered."""
        self.attached = asyncio.Event()
        """Set once what an earlier gateway had submitted is known."""

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def find(self, id: str) -> Job | None:
        """The job, if it is in work or kept."""
        return self._jobs.get(id)

    async def run(self) -> None:
        """Take in all that the hub says. Ends with NoAnswer when the hub has gone."""
        await self._client.send(wire.Attach(owner=self._owner))
        while True:
            message, payload = await self._client.receive()
            self._take_in(message, payload)

    async def submit(self, submit: wire.Submit) -> Job:
        """Have the hub take a prompt in; the same one again, of an id that the client has chosen, is the job it was.

        To the hub it is the gateway's, whatever owner the client named; that groups the jobs here. Raises the
        TriptychError that it is refused with: Conflict where the id is that of another job.
        """
        await self.attached.wait()
        group = None if submit.owner is None else group_of(submit.owner)
        submit = msgspec.structs.replace(submit, owner=self._owner)
        known = self._jobs.get(submit.id)
        if known is not None and known.failed is None:
            if known.submit == submit and known.group == group and submit.id not in self._answers:
                return known
            raise Conflict(f"another job of `id` {submit.id!r} is in work or kept; choose another id")
        answer: asyncio.Future[wire.PromptAnswer] = asyncio.get_running_loop().create_future()
        self._answers[submit.id] = answer
        job = self._jobs[submit.id] = Job(submit.id, submit, time.time(), group)
        try:
            await self._client.send(submit)
            answered = await answer
        except BaseException:
            self._jobs.pop(submit.id, None)
            raise
        finally:
            self._answers.pop(submit.id, None)
        if isinstance(answered, wire.Failed):
            self._jobs.pop(submit.id, None)
            error = answered.error()
            error.retry_after_s = answered.retry_after_s
            raise error
        return job

    async def cancel(self, job: Job) -> None:
        """Give the job up."""
        if not job.over:
            await self._client.send(wire.Cancel(id=job.id, owner=self._owner))

    async def events(self, job: Job) -> AsyncIterator[Event]:
        """What there is to tell of the job now, and all that comes, up to and with its end."""
        listener = Listener()
        job.listeners.add(listener)
        try:
            for event in list(_so_far(job)):
                yield event
                if isinstance(event[0], wire.Done | wire.Failed):
                    return
            while not isinstance((event := await listener.take())[0], wire.Done | wire.Failed):
                yield event
            yield event
        finally:
            job.listeners.discard(listener)

    async def end(self, job: Job) -> Job:
        """Wait until the job is over."""
        listener = Listener()
        job.listeners.add(listener)
        try:
            while not job.over:
                await listener.take()
        finally:
            job.listeners.discard(listener)
        return job

    def lose(self, error: TriptychError) -> None:
        """End all that waits, because the hub has gone."""
        for job in self:
            if not job.over:
                failed = wire.Failed.of(job.id, error)
                job.take_in(failed, None)
                self._told(job, failed, None)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(NoAnswer(error.message))

    def _take_in(self, message: wire.HubMessage, payload: bytes | None) -> None:
        if isinstance(message, wire.Attached):
            for id in (*message.in_work, *message.ended):
                self._jobs.setdefault(id, Job(id, None, time.time(), _group_in(id)))
            self.attached.set()
            return
        if isinstance(message, wire.Status | wire.Trace):
            return
        answer = self._answers.get(message.id)
        if answer is not None and not answer.done() and isinstance(message, wire.Accepted | wire.Failed):
            answer.set_result(message)
        job = self._jobs.get(message.id)
        if job is None or job.over:
            return
        if job.take_in(message, payload):
            self._ended(job)
        self._told(job, message, payload)

    def expire(self) -> None:
        """Forget what was kept long enough, and the oldest where there is no room; to be called now and then."""
        now, kept = time.monotonic(), [job for job in self._jobs.values() if job.ended is not None]
        nbytes = sum(job.nbytes for job in kept)
        for job in kept:
            assert job.ended is not None
            if job.listeners or (job.ended + self._keep_s > now and nbytes <= self._keep_bytes):
                continue
            nbytes -= job.nbytes
            del self._jobs[job.id]


def group_of(owner: str) -> str:
    """The name of the jobs of an owner, from which the owner's, which is a secret, cannot be had."""
    return hashlib.sha256(owner.encode()).hexdigest()[:_GROUP]


def new_id(owner: str | None = None) -> str:
    """An id that nobody can guess. It carries the owner's group, so that the next gateway process knows it too."""
    drawn = secrets.token_hex(16)
    return drawn if owner is None else f"{group_of(owner)}-{drawn}"


def _group_in(id: str) -> str | None:
    """The group that an id carries."""
    group, dash, _ = id.partition("-")
    return group if dash and len(group) == _GROUP else None


def _so_far(job: Job) -> Iterator[Event]:
    """The events that tell how the job stands."""
    if job.accepted is not None:
        yield job.accepted, None
    for progress in job.progress.values():
        if progress.index not in job.images:
            yield progress, None
    yield from job.previews.values()
    yield from job.images.values()
    if job.failed is not None:
        yield job.failed, None
    elif job.done:
        yield wire.Done(id=job.id), None
