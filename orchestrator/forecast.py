"""What is still to be done, in what order, and how long that takes. Pure.

A job takes what its own work takes, one stage after the other. What goes before it takes less than all that work
together, as stages overlap; how much less is learned while there is a queue (orchestrator.estimate.Pace).
"""

import math
from collections.abc import Iterable

import msgspec

from orchestrator.estimate import Cost, Estimate, Pace
from orchestrator.jobs import Job, Prompt
from orchestrator.request import Request
from stages.core.errors import DeadlineInfeasible
from stages.core.model import ModelCard
from stages.core.order import DOUBT, Claim, Key, Order, key
from stages.core.wire import KINDS, Kind

_OVERTAKEN = 0.6
"""Of what goes before a prompt now, so much will come later and go before it, too, where the order lets it."""


class Forecast:
    """Ranks jobs as the order says, and tells times as far as every kind of work has been seen."""

    def __init__(self, card: ModelCard, order: Order, costs: Iterable[Cost] = ()) -> None:
        """`costs` are those that are known already."""
        self._card = card
        self._key = key(order)
        self._more = DOUBT if order == "arrival" else _OVERTAKEN
        self.estimate = Estimate(costs)
        self.pace = Pace()

    @property
    def known(self) -> bool:
        """Whether times can be told."""
        return self.estimate.complete

    def learn(self, kind: Kind, nanoseconds: int, now_ns: int, jobs: int, pixels: int = 0, rows: int = 1) -> None:
        """A piece of work has been done, of `rows` rows for a picture of `pixels` pixels, while there were `jobs`."""
        self.estimate.learn(kind, nanoseconds, pixels, rows)
        if self.known:
            self.pace.learn(rows * self.estimate.cost(kind, pixels), now_ns, jobs > len(KINDS))

    def left(self, job: Job) -> float:
        """Seconds of work the job has left."""
        rows = job.steps_left * self._card.rows(job.request.guidance_scale)
        return self.estimate.of(job.kind, rows, job.request.pixels)

    def rank(self, job: Job, now_ns: int) -> Key:
        """Where the job stands in the order; the smallest goes first, and no two are equal."""
        done = job.step if job.kind == "unet" else 0
        return (*self._key(job.claim, self.left(job), done, now_ns / 1e9), job.number)

    def position(self, prompt: Prompt, jobs: Iterable[Job], now_ns: int) -> int:
        """How many of the images that wait for their first stage go before all of this prompt's."""
        waiting = [(self.rank(job, now_ns), job.prompt is prompt) for job in jobs if job.waits_to_begin]
        mine = min((rank for rank, own in waiting if own), default=())
        return sum(rank < mine for rank, own in waiting if not own)

    def eta(self, job: Job, jobs: Iterable[Job], now_ns: int) -> float | None:
        """Seconds until the job is done: its own work and that of all that go before it. None while unknown."""
        if not self.known:
            return None
        rank = self.rank(job, now_ns)
        before = sum(self.left(other) for other in jobs if other is not job and self.rank(other, now_ns) < rank)
        return round(self.pace.value * before + self.left(job), 3)

    def first_done(self, jobs: Iterable[Job]) -> float | None:
        """Seconds until one of the jobs is done, so that there is room again. None while unknown."""
        return round(min(map(self.left, jobs), default=0.0), 3) if self.known else None

    def lateness(self, job: Job, now_ns: int) -> float:
        """Seconds by which the job would miss its deadline if it had all cores from now on."""
        if job.claim.deadline is None or not self.known:
            return -math.inf
        return now_ns / 1e9 + self.left(job) - job.claim.deadline

    def fit(
        self, requests: list[Request], claim: Claim, min_steps: int | None, jobs: Iterable[Job], now_ns: int
    ) -> list[Request]:
        """The requests, if they can be done by the claim's deadline; with fewer steps if that is allowed and helps.

        A deadline that was accepted is a promise: what would make another prompt of this priority or a higher one miss
        its own is refused, too. Raises DeadlineInfeasible, naming the earliest time.
        """
        if claim.deadline is None or not self.known:
            return requests
        now = now_ns / 1e9
        rows = self._card.rows(requests[0].guidance_scale)
        pixels = requests[0].pixels
        one = self.estimate.of("text", rows * requests[0].steps, pixels)
        rank = (*self._key(claim, one, 0, now), math.inf)  # of those that are equal, the newest
        before, spare = self._around(rank, claim.priority, jobs, now_ns)
        allowed = claim.deadline - now
        work = one * len(requests)
        excess = work - min(allowed - before, spare)
        if excess <= 0:
            return requests
        a_step = rows * self.estimate.cost("unet", pixels)
        steps = requests[0].steps - math.ceil(excess / len(requests) / a_step)
        if min_steps is not None and steps >= min_steps:
            return [msgspec.structs.replace(request, steps=steps) for request in requests]
        if before + work > allowed:
            why = f"this may take {before + work:.3g} s, and {allowed:.3g} s are allowed by `deadline_s`"
        else:
            why = f"this would make others late by {excess:.3g} s that were accepted with a deadline"
        error = DeadlineInfeasible(why)
        if work <= allowed:  # else it takes too long by itself, and waiting is no help
            error.retry_after_s = round(excess, 3)
        raise error

    def _around(self, rank: Key, priority: int, jobs: Iterable[Job], now_ns: int) -> tuple[float, float]:
        """Seconds until `rank` has its turn, and how long what goes after it can be kept waiting.

        So long that none of it, of this priority, misses a deadline that it would meet now. Both are told with room to
        spare: what is begun and then misses its deadline was work for nothing.
        """
        before = done = 0.0
        spare = math.inf
        for other_rank, other in sorted((self.rank(job, now_ns), job) for job in jobs):
            its_own, promised = self.left(other), other.claim.deadline
            if other_rank >= rank and promised is not None and other.claim.priority >= priority:
                takes, allowed = done + its_own, promised - now_ns / 1e9
                if takes <= allowed:
                    spare = min(spare, max(0.0, allowed - (1 + DOUBT) * takes))
            done += self.pace.value * its_own
            before = done if other_rank < rank else before
        return (1 + self._more) * before, spare
