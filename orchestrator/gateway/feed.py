"""The feed of the page: the pipeline as it is, everybody's jobs as anonymous cards, and a page's own jobs in full.

One task looks at the pipeline for all pages, and what it finds is encoded once. A page is sent something only where
something has changed, and of what waits for it to read only the newest of a kind is kept: pages that nobody looks at
cost next to nothing, and slow ones no memory.
"""

import asyncio
import base64
import hashlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator.gateway import sse
from orchestrator.gateway.demo_world import WORLD
from orchestrator.gateway.description import describe
from orchestrator.gateway.jobs import Job, group_of
from stages.core import wire
from stages.core.schedule_names import SCHEDULE_NAMES

if TYPE_CHECKING:
    from orchestrator.gateway.server import Gateway

_LOOK_S = 0.5
"""Seconds between two looks at the pipeline while there is a page."""

_STATUS_S = 1.0
"""Age in seconds of a status that is good enough: to tell it costs the hub some 15 ms, on the stages' cores."""

_IDLE_STATUS_S = 4.0
"""The same where all pages are idle: open, and without a job in work."""

_AFTERMATH_S = 10.0
"""Seconds after a stage was killed from the page for which it is watched closely."""

_RECENT_S = 15.0
"""Seconds over which images a second are counted, as far back as the status's own recent figures go."""

_CARDS = 48
"""Cards that are told of, at most; the number of those that wait is told in any case."""

_KEY_BYTES = 6


class Page:
    """One page that listens: what waits for it to read, the newest of each kind."""

    def __init__(self, group: str | None) -> None:
        self.group = group
        self._pending: dict[tuple[str, ...], bytes] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def tell(self, kind: tuple[str, ...], event: bytes) -> None:
        """Have an event sent, in place of one of the same kind that was not read yet."""
        self._pending.pop(kind, None)
        self._pending[kind] = event
        self._changed.set()

    def close(self) -> None:
        """Have the stream end."""
        self._closed = True
        self._changed.set()

    async def take(self) -> bytes:
        """All that waits, as one piece; waits for it. Empty once the page is closed."""
        while not self._pending and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        events = b"".join(self._pending.values())
        self._pending.clear()
        return events


class Feed:
    """What all pages are told."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._pages: set[Page] = set()
        self._wanted = asyncio.Event()
        self._shared: dict[str, bytes] = {}
        """The newest event of each kind that all pages get."""
        self._made: deque[float] = deque()
        """When images of the last seconds were done, seconds of time.monotonic."""
        self._busy_since: float | None = None
        self._watched_until = 0.0

    def told(self, job: Job, message: wire.PromptAnswer, payload: bytes | None) -> None:
        """Pass on what the hub has said of a job, to the pages of its owner."""
        if isinstance(message, wire.Image):
            self._made.append(time.monotonic())
        pages = [page for page in self._pages if page.group is not None and page.group == job.group]
        if not pages:
            return
        kind, event = self._event(job, message, payload)
        for page in pages:
            page.tell(kind, event)

    async def run(self) -> None:
        """Look at the pipeline while there are pages."""
        while True:
            await self._wanted.wait()
            await self._gateway.fresh(_STATUS_S if self._lively() else _IDLE_STATUS_S)
            self._look()
            await asyncio.sleep(_LOOK_S)

    async def events(self, owner: str | None) -> AsyncIterator[bytes]:
        """All that a page of this owner is told, from how things are now."""
        await self._gateway.fresh()  # nobody may have looked for long
        self._look()
        page = Page(None if owner is None else group_of(owner))
        self._pages.add(page)
        self._wanted.set()
        try:
            first = [*self._shared.values(), *self._so_far(page.group), sse.event("current", {})]
            yield sse.event("hello", self._hello(page.group)) + b"".join(first)
            while events := await page.take():
                yield events
        finally:
            self._pages.discard(page)
            if not self._pages:
                self._wanted.clear()

    def watch_closely(self) -> None:
        """Something is about to happen to a stage, that pages are to see."""
        self._watched_until = time.monotonic() + _AFTERMATH_S

    def close(self) -> None:
        """End all streams, so that the server can stop without waiting for them."""
        for page in self._pages:
            page.close()

    def _lively(self) -> bool:
        """Whether a page has a job in work, or has killed a stage just now."""
        groups = {page.group for page in self._pages} - {None}
        in_work = any(not job.over and job.group in groups for job in self._gateway.jobs)
        return in_work or time.monotonic() < self._watched_until

    def _hello(self, group: str | None) -> dict[str, Any]:
        settings = self._gateway.settings
        return {
            "group": group,
            "playground": settings.playground,
            "world": WORLD if settings.embedded else None,
            "schedules": SCHEDULE_NAMES,
            "keep_s": settings.keep_s,
        }

    def _so_far(self, group: str | None) -> Iterator[bytes]:
        """The owner's jobs, and what they look like now."""
        for job in self._gateway.jobs:
            if group is None or job.group != group:
                continue
            yield sse.event("job", self._job(job))
            for preview, payload in job.previews.values():
                yield self._event(job, preview, payload)[1]

    def _event(self, job: Job, message: wire.PromptAnswer, payload: bytes | None) -> tuple[tuple[str, ...], bytes]:
        """The event that tells pages of a message, and its kind."""
        match message:
            case wire.Waiting(position=position, eta_s=eta_s):
                data: dict[str, Any] = {"id": job.id, "position": position, "eta_s": eta_s}
                return ("waiting", job.id), sse.event("waiting", data)
            case wire.Progress(index=index):
                return ("progress", job.id, str(index)), sse.event("progress", msgspec.to_builtins(message))
            case wire.Preview(index=index, step=step):
                source = f"data:image/jpeg;base64,{base64.b64encode(payload or b'').decode()}"
                data = {"id": job.id, "index": index, "step": step, "src": source}
                return ("preview", job.id, str(index)), sse.event("preview", data)
            case _:
                return ("job", job.id), sse.event("job", self._job(job))

    def _job(self, job: Job) -> dict[str, Any]:
        indices = range(job.submit.n if job.submit else max((*job.progress, *job.images, 0)) + 1)
        progress = [msgspec.to_builtins(each) for each in job.progress.values() if each.index not in job.images]
        return describe(job) | {"progress": progress, "keys": [self._key(job.id, index) for index in indices]}

    def _look(self) -> None:
        """Tell all pages what of the pipeline has changed since the last look."""
        for kind, data in (("pipeline", self._pipeline()), ("cards", self._cards())):
            event = sse.event(kind, data)
            if self._shared.get(kind) != event:
                self._shared[kind] = event
                for page in self._pages:
                    page.tell((kind,), event)

    def _pipeline(self) -> dict[str, Any]:
        status = self._gateway.status
        if status is None:
            return {"state": "unreachable", "stages": []}
        return {
            "state": status.state,
            "model": status.model,
            "sizes": status.sizes,
            "default_steps": status.default_steps,
            "share": status.share,
            "queue": {"waiting": status.queue.waiting, "limit": status.queue.limit},
            "replayed": status.replayed,
            "images_per_s": self._images_per_s(),
            "bottleneck": msgspec.to_builtins(status.bottleneck),
            "stages": [
                {
                    "name": stage.name,
                    "kind": stage.kind,
                    "pid": stage.pid,
                    "state": "serving" if stage.state in ("idle", "busy") else stage.state,
                    "cores": stage.cores_seen or stage.cores_asked,
                    "precision": stage.precision,
                    "busy_share": round(stage.recent_busy_share, 2),
                    "restarts": stage.restarts,
                    "working": stage.job is not None,
                }
                for stage in status.stages
            ],
        }

    def _images_per_s(self) -> float:
        """Images a second lately, over the time in which there was work."""
        now = time.monotonic()
        while self._made and self._made[0] < now - _RECENT_S:
            self._made.popleft()
        if all(job.over for job in self._gateway.jobs):
            self._busy_since = None
            return 0.0
        self._busy_since = now if self._busy_since is None else self._busy_since
        began = max(self._busy_since, now - _RECENT_S)
        return round(sum(at >= began for at in self._made) / max(now - began, 1.0), 1)

    def _cards(self) -> list[dict[str, Any]]:
        """Everybody's images in work: where they are, and not what they are."""
        cards = []
        jobs = {job.id: job for job in self._gateway.jobs}
        for job in jobs.values():
            for index in range(job.submit.n if job.submit else 1) if not job.over else ():
                if index in job.images:
                    continue
                progress = job.progress.get(index)
                card = {"key": self._key(job.id, index), "lane": progress.stage if progress else "queue"}
                cards.append(card | ({"step": progress.step, "steps": progress.steps} if progress else {}))
        status = self._gateway.status
        for stage in status.stages if status else ():
            if stage.job is not None and stage.job not in jobs:  # of a client of the prompt socket
                key = self._key(stage.job, 0)
                cards.append({"key": key, "lane": stage.kind, "step": stage.step, "steps": stage.steps})
        cards.sort(key=lambda card: card["lane"] == "queue")
        return cards[:_CARDS]

    def _key(self, id: str, index: int) -> str:
        """A card's name, from which the job's id, which is a secret, cannot be had."""
        secret = self._gateway.settings.owner.encode()[: hashlib.blake2s.MAX_KEY_SIZE]
        return hashlib.blake2s(f"{id} {index}".encode(), digest_size=_KEY_BYTES, key=secret).hexdigest()
