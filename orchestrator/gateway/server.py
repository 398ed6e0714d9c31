"""What all routes share: the hub, the jobs, and what is served."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from starlette.requests import Request
from starlette.types import Message

from orchestrator.client.asynchronous import AsyncClient
from orchestrator.gateway import sizes
from orchestrator.gateway.errors import HttpError
from orchestrator.gateway.feed import Feed
from orchestrator.gateway.idempotency import Repeats
from orchestrator.gateway.jobs import Job, Jobs
from orchestrator.gateway.metrics import Histograms
from orchestrator.gateway.settings import GatewaySettings
from stages.core import wire
from stages.core.errors import NoAnswer, TriptychError

log = logging.getLogger("triptych.gateway")

_TICK_S = 1.0
"""Seconds between two looks at what is to be forgotten."""

_FRESH_S = 0.5
"""Seconds for which a status is good enough for whoever asks: to tell it costs the hub milliseconds."""

_HUB_S = 60.0
"""Seconds that the hub may take to answer at the start."""


class Gateway:
    """The gateway as its routes see it."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings: Final = settings
        self.client = AsyncClient(settings.hub, _HUB_S)
        self.jobs = Jobs(self.client, settings.owner, settings.keep_s, settings.keep_bytes, self._ended, self._told)
        self.feed = Feed(self)
        self.repeats = Repeats()
        self.status: wire.Status | None = None
        """The newest status of the hub; None while it does not answer. `fresh` asks for one."""
        self._known: wire.Status | None = None
        self._asked_at = -math.inf
        self._asking: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()
        """Set when the hub has gone."""
        self.finished: dict[str, int] = {}
        """Jobs that have ended, by state."""
        self.histograms = Histograms()
        self._waiting: dict[Job, int] = {}
        """Requests that wait for each job."""
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be connected to the hub."""
        async with self.client:
            works = (self._listen(), self._tidy(), self._know(), self.feed.run())
            tasks = [asyncio.create_task(work) for work in works]
            try:
                yield
            finally:
                for task in (*tasks, *self._tasks):
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def model(self) -> str:
        """The name of the model that is served. Raises HttpError while that is not known."""
        return self.known.model

    @property
    def known(self) -> wire.Status:
        """A status of the hub, of whatever age: for the model, its sizes and defaults. Raises HttpError before any."""
        if self.status is not None:
            self._known = self.status
        if self._known is None:
            raise HttpError(503, "the pipeline does not answer now; try again soon", "no_answer", Retry_After="2")
        return self._known

    def size(self, asked: sizes.Size | None) -> sizes.Size:
        """The size served that is nearest to what was asked for; the usual one where nothing was."""
        served = self.known.sizes
        return served[0] if asked is None else sizes.fit(asked, served)

    async def fresh(self, good_s: float = _FRESH_S) -> wire.Status | None:
        """The hub's status, not older than `good_s` seconds; None if it does not answer."""
        if time.monotonic() - self._asked_at > good_s:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask())
            await asyncio.shield(self._asking)
        return self.status

    async def _ask(self) -> None:
        try:
            self.status = await self.client.status()
        except TriptychError:
            self.status = None
        self._asked_at = time.monotonic()

    def check_model(self, name: str | None) -> None:
        """Refuse a model that is not served; the names that chat front ends hard-code mean the one that is."""
        if name and name != self.model and not name.startswith(("dall-e-", "gpt-image-", "chatgpt-image-")):
            raise HttpError(404, f"model {name[:80]!r} is not served; {self.model!r} is", "model_not_found", "model")

    async def submitted(self, client: str, key: str | None, submit: wire.Submit) -> Job:
        """The job of a request, which may have been sent before: the same one shares the job of the first.

        Raises the TriptychError that it is refused with, or HttpError where `key` stands for another request.
        """
        found = self.repeats.find(self.jobs, client, key, submit)
        if found is None:
            found = asyncio.ensure_future(self.jobs.submit(submit))
            self.repeats.remember(client, key, submit, found)
        return found if isinstance(found, Job) else await asyncio.shield(found)

    async def ended(self, request: Request, job: Job, *, lasting: bool) -> Job:
        """Wait until a job is over. Where the client goes first, the job is given up, unless it is lasting.

        Raises HttpError for a job that fails.
        """
        with self.waiting(job, lasting=lasting):
            end = asyncio.create_task(_end(self.jobs, job))
            gone = asyncio.create_task(_disconnected(request))
            try:
                await asyncio.wait((end, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (end, gone):
                    task.cancel()
            if not job.over:
                raise HttpError(499, "the client has gone", "cancelled")
        return job

    def waiting(self, job: Job, *, lasting: bool) -> "_Waiting":
        """Somebody waits for the job; when nobody does any more, it is given up after a while."""
        return _Waiting(self, job, lasting)

    def begin_waiting(self, job: Job) -> None:
        """Count a request that waits."""
        self._waiting[job] = self._waiting.get(job, 0) + 1

    def end_waiting(self, job: Job, *, lasting: bool) -> None:
        """A request waits no more."""
        self._waiting[job] -= 1
        if not self._waiting[job]:
            del self._waiting[job]
            if not job.over and not lasting:
                task = asyncio.get_running_loop().create_task(self._give_up(job))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _give_up(self, job: Job) -> None:
        await asyncio.sleep(self.settings.grace_s)
        if job not in self._waiting and not job.over:
            with suppress(TriptychError):
                await self.jobs.cancel(job)

    def _ended(self, job: Job) -> None:
        """Count a job that has ended."""
        self.finished[job.state] = self.finished.get(job.state, 0) + 1
        if job.done and job.images:
            timings = [image.timings for image, _ in job.images.values()]
            self.histograms.latency.observe(max(each.total_s for each in timings))
            self.histograms.queue.observe(min(each.queue_s for each in timings))

    def _told(self, job: Job, message: wire.PromptAnswer, payload: bytes | None) -> None:
        """Pass on to pages what the hub has said of a job."""
        self.feed.told(job, message, payload)

    async def _listen(self) -> None:
        try:
            await self.jobs.run()
        except NoAnswer as error:
            log.error("the hub is gone: %s", error.message)
            self.status = None
            self.jobs.lose(error)
            self.lost.set()

    async def _know(self) -> None:
        """Learn what is served, which does not change; what does is asked for by who wants to know."""
        while self.status is None:
            await self.fresh(0.0)

    async def _tidy(self) -> None:
        """Forget old jobs, and what they were made from."""
        while True:
            self.jobs.expire()
            self.repeats.expire(self.jobs)
            await asyncio.sleep(_TICK_S)


class _Waiting:
    """A request that waits for a job, as a context manager."""

    def __init__(self, gateway: Gateway, job: Job, lasting: bool) -> None:
        self._gateway = gateway
        self._job = job
        self._lasting = lasting

    def __enter__(self) -> None:
        self._gateway.begin_waiting(self._job)

    def __exit__(self, *_: object) -> None:
        self._gateway.end_waiting(self._job, lasting=self._lasting)


async def _end(jobs: Jobs, job: Job) -> None:
    await jobs.end(job)


async def _disconnected(request: Request) -> None:
    """Wait until the client has gone."""
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await request.receive()
