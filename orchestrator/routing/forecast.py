"""Forecasts: the work that is still to be done, its order, and how long it takes. Pure.

A job takes what its own work takes, one stage after the other. What goes before it takes less than all that work
together, as stages overlap; how much less is learned while there is a queue (orchestrator.routing.estimate.Pace).
"""

import math
from collections.abc import Iterable
from typing import Final

import numpy as np

from orchestrator.routing.estimate import Estimate, Pace
from orchestrator.routing.jobs import Job
from orchestrator.routing.line import Line, Pending
from orchestrator.routing.request import Request
from stages.core.costs import Cost
from stages.core.errors import DeadlineInfeasible
from stages.core.model import ModelCard
from stages.core.order import ESTIMATE_MARGIN, Order, Rank, Ranking, SchedulingKey
from stages.core.tasks import TaskName
from stages.core.wire import KINDS

EXPECTED_OVERTAKING = 0.6
"""Share of the work before a prompt that will come later and go before it, too, where the order lets it."""

_ROUNDING_S = 1e-9


class Forecast:
    """Ranks jobs as the order says, and tells times as far as every kind of work has been seen."""

    def __init__(self, card: ModelCard, order: Order, costs: Iterable[Cost] = ()) -> None:
        """`costs` are those that are known already."""
        self._card = card
        self._more = ESTIMATE_MARGIN if order == "arrival" else EXPECTED_OVERTAKING
        self.estimate: Final = Estimate(costs)
        self._ranking = Ranking(order, self.estimate)
        self.pace = Pace()

    @property
    def known(self) -> bool:
        """Whether times can be told."""
        return self.estimate.complete

    def learn(self, task: TaskName, nanoseconds: int, now_ns: int, jobs: int, pixels: int = 0, rows: int = 1) -> None:
        """A piece of work has been done, of `rows` rows for a picture of `pixels` pixels, while there were `jobs`."""
        self.estimate.learn(task, nanoseconds, pixels, rows)
        if self.known:
            self.pace.learn(rows * self.estimate.cost(task, pixels), now_ns, jobs > len(KINDS))

    def left(self, job: Job) -> float:
        """Seconds of work the job has left."""
        return self.estimate.left(job.tasks_left, job.rows_left, job.request.pixels)

    def rank(self, job: Job, now_ns: int) -> tuple[Rank, float]:
        """The rank of the job in the order, and the seconds of work it has left.

        The smallest goes first, and no two are equal.
        """
        done = job.step if job.stepwise else 0
        return self._ranking.rank(
            job.scheduling_key, job.number, job.tasks_left, job.rows_left, job.request.pixels, done, now_ns / 1e9
        )

    def line(self, jobs: Iterable[Job] = (), now_ns: int = 0) -> Line:
        """The jobs in the order in which they go."""
        return Line(self.rank, jobs, now_ns)

    def position(self, jobs: Iterable[Job], pending: Pending) -> int:
        """How many of the images that wait for their first stage go before all these of one prompt."""
        ranks = [rank for job in jobs if (rank := pending.waiting.rank_of(job)) is not None]
        return pending.waiting.before(min(ranks)) if ranks else 0

    def eta(self, job: Job, pending: Pending, now_ns: int) -> float | None:
        """Seconds until the job is done: its own work and that of all that go before it. None while unknown."""
        if not self.known:
            return None
        rank = pending.rank_of(job) or self.rank(job, now_ns)[0]
        return round(self.pace.value * pending.work_before(rank) + self.left(job), 3)

    def first_done(self, pending: Pending) -> float | None:
        """Seconds until one of the jobs is done, so that there is room again. None while unknown."""
        if not self.known:
            return None
        least = (line.least_work() for line in pending)
        return round(min((work for work in least if work is not None), default=0.0), 3)

    def lateness(self, job: Job, now_ns: int) -> float:
        """Seconds by which the job would miss its deadline if it had all cores from now on."""
        if job.scheduling_key.deadline is None or not self.known:
            return -math.inf
        return now_ns / 1e9 + self.left(job) - job.scheduling_key.deadline

    def fit(
        self,
        requests: list[Request],
        scheduling_key: SchedulingKey,
        min_steps: int | None,
        pending: Pending,
        now_ns: int,
    ) -> list[Request]:
        """The requests, if they can be done by the deadline; with fewer steps if that is allowed and helps.

        A deadline that was accepted is a promise: what would make another prompt of this priority or a higher one miss
        its own is refused, too. Raises DeadlineInfeasible, naming the earliest time.
        """
        if scheduling_key.deadline is None or not self.known:
            return requests
        now = now_ns / 1e9
        rank, one = self._rank_of_new(requests[0], scheduling_key, now)
        before, spare = self._around(rank, scheduling_key.priority, pending, now)
        allowed = scheduling_key.deadline - now
        work = one * len(requests)
        excess = work - min(allowed - before, spare)
        if excess <= 0:
            return requests
        if min_steps is not None:
            fewer = self._fewer_steps(requests[0], one - excess / len(requests))
            if fewer >= min_steps:
                return [request.with_steps(fewer) for request in requests]
        if before + work > allowed:
            why = f"this may take {before + work:.3g} s, and {allowed:.3g} s are allowed by `deadline_s`"
        else:
            why = f"this would make others late by {excess:.3g} s that were accepted with a deadline"
        error = DeadlineInfeasible(why)
        if work <= allowed:  # else it takes too long by itself, and waiting is no help
            error.retry_after_s = round(excess, 3)
        raise error

    def quote(
        self, requests: list[Request], scheduling_key: SchedulingKey, pending: Pending, now_ns: int
    ) -> tuple[float | None, float | None]:
        """Seconds of work of images that might be submitted now, and seconds until the last would be done.

        None before every task has been seen.
        """
        if not self.known:
            return None, None
        rank, one = self._rank_of_new(requests[0], scheduling_key, now_ns / 1e9)
        before = pending.work_before(rank) + one * (len(requests) - 1)
        return round(one * len(requests), 3), round(self.pace.value * before + one, 3)

    def _rank_of_new(self, request: Request, scheduling_key: SchedulingKey, now: float) -> tuple[Rank, float]:
        """The rank of an image that would be submitted now, of equal ones the last, and its seconds of work."""
        return self._ranking.rank(scheduling_key, math.inf, request.tasks, self._rows(request), request.pixels, 0, now)

    def _whole(self, request: Request) -> float:
        """Seconds of work of one image."""
        return self.estimate.left(request.tasks, self._rows(request), request.pixels)

    def _rows(self, request: Request) -> int:
        """Rows of U-Net forwards that one image takes."""
        return request.evaluations(self._card) * self._card.rows(request.denoise.guidance_scale)

    def _fewer_steps(self, request: Request, seconds: float) -> int:
        """The most steps, fewer than asked for, with which one image is done in so many seconds; 0 if none."""
        fewer = (request.with_steps(steps) for steps in range(request.denoise.steps - 1, 0, -1))
        return next((each.denoise.steps for each in fewer if self._whole(each) <= seconds + _ROUNDING_S), 0)

    def _around(self, rank: Rank, priority: int, pending: Pending, now: float) -> tuple[float, float]:
        """Seconds until `rank` has its turn, and how long what goes after it can be kept waiting.

        So long that none of it, of this priority, misses a deadline that it would meet now. Both are told with room to
        spare: what is begun and then misses its deadline was work for nothing.
        """
        pace = self.pace.value
        before, own, deadline = pending.after(rank, priority)
        takes, allowed = pace * before + own, deadline - now
        keepable = takes <= allowed
        spare = np.maximum(0.0, allowed - (1 + ESTIMATE_MARGIN) * takes)[keepable].min(initial=math.inf)
        return (1 + self._more) * pace * pending.work_before(rank), float(spare)
