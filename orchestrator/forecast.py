"""What is still to be done, in what order, and how long that takes. Pure.

Work is counted as if the stages took turns on the same cores, which is what sharing them comes to; where they have
cores of their own, the times told are too long.
"""

import math
from collections.abc import Iterable

import msgspec

from orchestrator.estimate import Cost, Estimate
from orchestrator.jobs import Job, Prompt
from orchestrator.request import Request
from stages.core.errors import DeadlineInfeasible
from stages.core.model import ModelCard
from stages.core.order import Claim, Key, Order, key


class Forecast:
    """Ranks jobs as the order says, and tells times as far as every kind of work has been seen."""

    def __init__(self, card: ModelCard, order: Order, costs: Iterable[Cost] = ()) -> None:
        """`costs` are those that are known already."""
        self._card = card
        self._key = key(order)
        self.estimate = Estimate(costs)

    @property
    def known(self) -> bool:
        """Whether times can be told."""
        return self.estimate.complete

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
        return round(sum(self.left(other) for other in jobs if other is job or self.rank(other, now_ns) < rank), 3)

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

        Raises DeadlineInfeasible, naming the earliest time.
        """
        if claim.deadline is None or not self.known:
            return requests
        now = now_ns / 1e9
        rows = self._card.rows(requests[0].guidance_scale)
        pixels = requests[0].pixels
        one = self.estimate.of("text", rows * requests[0].steps, pixels)
        rank = (*self._key(claim, one, 0, now), math.inf)  # of those that are equal, the newest
        before = sum(self.left(job) for job in jobs if self.rank(job, now_ns) < rank)
        allowed = claim.deadline - now
        needed = before + one * len(requests)
        if needed <= allowed:
            return requests
        a_step = self.estimate.of("text", rows, pixels) - self.estimate.of("text", 0, pixels)
        steps = requests[0].steps - math.ceil((needed - allowed) / len(requests) / a_step)
        if min_steps is not None and steps >= min_steps:
            return [msgspec.structs.replace(request, steps=steps) for request in requests]
        error = DeadlineInfeasible(f"this would take {needed:.3g} s, and {allowed:.3g} s are allowed by `deadline_s`")
        if needed - before <= allowed:  # else it takes too long by itself, and waiting is no help
            error.retry_after_s = round(needed - allowed, 3)
        raise error
