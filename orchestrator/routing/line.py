"""Jobs in the order in which they go, and how much work that is.

What is asked of a queue at every prompt (how many go before this one, how much work is that, whom would it make late)
is asked of arrays here, so that ten thousand that wait cost microseconds, and not a look at each of them.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.routing.jobs import Job
from stages.core.order import Rank

RERANK_NS = 100_000
"""Nanoseconds that ranks are believed for, for each job that waits: ranking one takes some 3 us, so never more than a
few percent of the time goes into it, and a thousand are ranked anew ten times a second."""

_RERANK_NS = 10_000_000
"""Nanoseconds that they are believed for at least: a short line is ranked anew at a step, not at each message of it."""

_LEFT, _DEADLINE, _PRIORITY = range(3)


class Line:
    """A sorted line of jobs. Ranks are as of when a job joined, or of the last `rerank`: work and time move them."""

    def __init__(
        self,
        rank: Callable[[Job, int], tuple[Rank, float]],
        jobs: Iterable[Job] = (),
        now_ns: int = 0,
    ) -> None:
        """`rank` gives the place of a job in the order at a time, and its seconds of work left."""
        self._rank = rank
        self._jobs = list(jobs)
        self._ranks: list[Rank] = []
        self._rank_of: dict[int, Rank] = {}
        self._figures: NDArray[np.float64] = np.array([_figures(job, 0.0) for job in self._jobs]).reshape(-1, 3).T
        """Columns of the jobs, in order: seconds of work left, deadline (CLOCK_MONOTONIC, or infinity), priority."""
        self._ranked_ns = now_ns
        self._sort(now_ns)

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        """The jobs in order; those that join or leave meanwhile do not disturb."""
        return iter(list(self._jobs))

    def __contains__(self, job: Job) -> bool:
        return job.number in self._rank_of

    @property
    def first(self) -> Job | None:
        """The job that goes next."""
        return self._jobs[0] if self._jobs else None

    def add(self, job: Job, now_ns: int) -> None:
        """Let a job join where it belongs."""
        rank, left = self._rank(job, now_ns)
        index = bisect_left(self._ranks, rank)
        self._jobs.insert(index, job)
        self._ranks.insert(index, rank)
        self._rank_of[job.number] = rank
        self._figures = np.insert(self._figures, index, _figures(job, left), axis=1)

    def remove(self, jobs: Iterable[Job]) -> None:
        """Let jobs leave; those that are not here are none of ours."""
        indices = [bisect_left(self._ranks, self._rank_of.pop(job.number)) for job in jobs if job in self]
        if not indices:
            return
        self._figures = np.delete(self._figures, indices, axis=1)
        if len(indices) == 1:
            del self._jobs[indices[0]], self._ranks[indices[0]]
        else:
            gone = set(indices)
            self._jobs = [job for index, job in enumerate(self._jobs) if index not in gone]
            self._ranks = [rank for index, rank in enumerate(self._ranks) if index not in gone]

    def refresh(self, now_ns: int) -> None:
        """Rank anew if the ranks have become too old."""
        if now_ns - self._ranked_ns >= max(_RERANK_NS, RERANK_NS * len(self._jobs)):
            self._sort(now_ns)

    def rank_of(self, job: Job) -> Rank | None:
        """The rank under which a job stands here; None if it does not."""
        return self._rank_of.get(job.number)

    def before(self, rank: Rank) -> int:
        """How many jobs go before `rank`."""
        return bisect_left(self._ranks, rank)

    def work_before(self, rank: Rank) -> float:
        """Seconds of work that the jobs before `rank` have left."""
        return float(self._figures[_LEFT, : self.before(rank)].sum())

    def least_work(self) -> float | None:
        """Seconds of work that the job with the least has left; None where there is none."""
        return float(self._figures[_LEFT].min()) if self._jobs else None

    def late(self, now_s: float) -> list[Job]:
        """The jobs that would miss their deadline even if they had all cores from now on."""
        late = np.flatnonzero(now_s + self._figures[_LEFT] > self._figures[_DEADLINE])
        return [self._jobs[index] for index in late]

    def _sort(self, now_ns: int) -> None:
        ranked = [self._rank(job, now_ns) for job in self._jobs]
        order = sorted(range(len(ranked)), key=ranked.__getitem__)  # no two ranks are equal
        self._jobs = [self._jobs[index] for index in order]
        self._ranks = [ranked[index][0] for index in order]
        self._rank_of = {job.number: rank for job, rank in zip(self._jobs, self._ranks, strict=True)}
        self._figures = self._figures[:, order]
        self._figures[_LEFT] = [ranked[index][1] for index in order]
        self._ranked_ns = now_ns


class Pending(NamedTuple):
    """All jobs that are not done, in two lines."""

    waiting: Line
    """For their first stage."""
    begun: Line

    def rank_of(self, job: Job) -> Rank | None:
        """The rank under which a job stands in either line."""
        return self.waiting.rank_of(job) or self.begun.rank_of(job)

    def work_before(self, rank: Rank) -> float:
        """Seconds of work that all jobs before `rank` have left."""
        return self.waiting.work_before(rank) + self.begun.work_before(rank)

    def after(self, rank: Rank, priority: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """The promises to jobs of `priority` or more that go after `rank`.

        Arrays, in order: seconds of work that goes before each, seconds of its own work, and its deadline.
        """
        places = [self.waiting.before(own) for own in self.begun._ranks]
        figures = np.insert(self.waiting._figures, places, self.begun._figures, axis=1)
        split = self.waiting.before(rank) + self.begun.before(rank)
        before = np.cumsum(figures[_LEFT]) - figures[_LEFT]
        promised = figures[:, split:]
        which = np.isfinite(promised[_DEADLINE]) & (promised[_PRIORITY] >= priority)
        return before[split:][which], promised[_LEFT][which], promised[_DEADLINE][which]


def _figures(job: Job, left: float) -> tuple[float, float, float]:
    deadline = job.scheduling_key.deadline
    return left, np.inf if deadline is None else deadline, job.scheduling_key.priority
