"""The prompts of a command: asked for, sent, done or failed. Pure: time comes in as a number of seconds.

A prompt waits here until there is room in the window, is sent, and ends as pictures, as a failure, or back here when
the server had no room for it.
"""

import heapq
from collections.abc import Iterator
from typing import NamedTuple, assert_never

import msgspec

from stages.core import wire
from stages.core.errors import BadRequest, Conflict, Overloaded

WINDOW = 32
"""Images on their way at once: half of the default queue limit, so that two streams fit."""

_RETRY_S = (0.25, 4.0)
"""Seconds to the first try after a refusal, and at most; doubled at each refusal until something is accepted."""


class Place(NamedTuple):
    """The progress of an image: `step` of `steps` are done in `stage`, which took it up at `since`, in seconds."""

    stage: wire.Kind
    step: int
    steps: int
    since: float


class PromptRun:
    """One prompt and what has become of it."""

    def __init__(self, request: wire.Submit, number: int) -> None:
        self.request = request
        self.number = number
        """The number of its first image; the others follow."""
        self.places: dict[int, Place] = {}
        """Progress of its unfinished images, by index; those that wait for their first stage are not here."""
        self.images = 0
        """Number of its images that have come."""
        self.refused_at: float | None = None
        """Time at which the server first had no room for it alone, in seconds."""

    @property
    def left(self) -> int:
        """Number of its images that have not come."""
        return self.request.n - self.images


class Picture(NamedTuple):
    """An image that has come."""

    job: PromptRun
    image: wire.Image
    encoded: bytes


class Failure(msgspec.Struct, frozen=True):
    """A prompt that failed, or a line that was no prompt (then the id may be unknown)."""

    id: str | None
    code: str
    message: str
    prompt: str | None = None


class StampsArrived(NamedTuple):
    """The stamps of a prompt, which have come."""

    job: PromptRun
    traced: wire.Traced


Outcome = Picture | Failure | StampsArrived


class Session:
    """The prompts of one command.

    One that the server has no room for is sent again later; it fails when it has been refused for `patience_s`
    seconds although nothing else of this session was there.
    """

    def __init__(self, patience_s: float, window: int = WINDOW) -> None:
        self.sent: dict[str, PromptRun] = {}
        """Prompts that are with the server, in the order they were sent."""
        self.images_asked = 0
        self.all_asked = False
        """Whether no prompt will come any more, as far as is known; set from outside."""
        self.images_done = 0
        self.failures: list[Failure] = []
        self.began_at: float | None = None
        """Time at which a stage first took something up, in seconds."""
        self._window = window
        self._limit = window
        self._patience_s = patience_s
        self._waiting: list[tuple[int, PromptRun]] = []
        self._hold_until = 0.0
        self._pause_s = _RETRY_S[0]

    @property
    def finished(self) -> bool:
        """Whether nothing is left of what has been asked so far."""
        return not self.sent and not self._waiting

    @property
    def room(self) -> bool:
        """Whether another prompt should be read."""
        return sum(job.left for job in self.jobs()) < self._window

    @property
    def idle_images(self) -> int:
        """Images asked for that are in no stage yet."""
        return sum(job.left - len(job.places) for job in self.jobs())

    def jobs(self) -> Iterator[PromptRun]:
        """The unfinished prompts, those that are with the server first."""
        yield from self.sent.values()
        yield from (job for _, job in self._waiting)

    def add(self, request: wire.Submit) -> Failure | None:
        """Ask for the images of a prompt. Refused if its id is that of an unfinished one."""
        if any(job.request.id == request.id for job in self.jobs()):
            return self.fail(request.id, Conflict.code, "the id is that of an unfinished prompt", request.prompt)
        job = PromptRun(request, self.images_asked + 1)
        self.images_asked += request.n
        heapq.heappush(self._waiting, (job.number, job))
        return None

    def fail(self, id: str | None, code: str, message: str, prompt: str | None = None) -> Failure:
        """Note a failure."""
        failure = Failure(id, code, message, prompt)
        self.failures.append(failure)
        return failure

    def due(self, now: float) -> Iterator[wire.Submit]:
        """The prompts to send now."""
        while self._waiting and now >= self._hold_until:
            job = self._waiting[0][1]
            if self.sent and self._on_their_way() + job.left > self._limit:
                return
            heapq.heappop(self._waiting)
            self.sent[job.request.id] = job
            yield job.request

    def on_event(self, message: wire.HubMessage, payload: bytes | None, now: float) -> Outcome | None:
        """Take in a message of the server. What is about no prompt of ours changes nothing."""
        if not isinstance(message, wire.PromptAnswer):
            return None
        job = self.sent.get(message.id)
        if job is None:
            return None
        match message:
            case wire.Accepted():
                self._pause_s = _RETRY_S[0]
            case wire.Waiting() | wire.Preview() | wire.Quoted() | wire.Forgotten():
                pass
            case wire.Progress():
                self.began_at = now if self.began_at is None else self.began_at
                before = job.places.get(message.index)
                since = before.since if before is not None and before.stage == message.stage else now
                job.places[message.index] = Place(message.stage, message.step, message.steps, since)
            case wire.Image():
                job.places.pop(message.index, None)
                job.images += 1
                self.images_done += 1
                return Picture(job, message, payload or b"")
            case wire.Traced():
                return StampsArrived(job, message)
            case wire.Done():
                del self.sent[message.id]
                self._limit = min(self._limit + 1, self._window)
            case wire.Failed():
                del self.sent[message.id]
                return self._failed(job, message, now)
            case _:
                assert_never(message)
        return None

    def _failed(self, job: PromptRun, message: wire.Failed, now: float) -> Failure | None:
        if message.code == Overloaded.code and self._worth_a_wait(job, now):
            heapq.heappush(self._waiting, (job.number, job))
            # What was accepted is what the server has room for; more is tried as prompts are done.
            self._limit = max(1, self._on_their_way())
            if now >= self._hold_until:  # else this is one more refusal of the same try
                self._hold_until = now + self._pause_s
                self._pause_s = min(2 * self._pause_s, _RETRY_S[1])
            return None
        return self.fail(message.id, message.code, message.message, job.request.prompt)

    def _worth_a_wait(self, job: PromptRun, now: float) -> bool:
        if self.sent:  # room will come as these are done
            job.refused_at = None
            return True
        job.refused_at = now if job.refused_at is None else job.refused_at
        return now - job.refused_at < self._patience_s

    def _on_their_way(self) -> int:
        return sum(job.left for job in self.sent.values())


def exit_status(failures: list[Failure], shared: bool) -> int:
    """The exit status of a command with these failures.

    Where all prompts were asked for with the same options (`shared`), a refused request is bad usage.
    """
    if shared and any(failure.code == BadRequest.code for failure in failures):
        return BadRequest.exit_status
    return int(bool(failures))
