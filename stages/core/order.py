"""Which job goes first. Pure: a scheduling key, work left and the time give a rank, and the smallest rank goes first.

The router ranks what waits, the U-Net engine what it holds: there a job that goes first overtakes at the next step, and
what it overtakes stays where it is, in its slot.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import msgspec

from stages.core.costs import CostCurves
from stages.core.tasks import TaskName

Order = Literal["shortest", "deadline", "fair", "arrival"]
ORDERS: tuple[Order, ...] = get_args(Order)

ESTIMATE_MARGIN = 0.1
"""By how much estimates may be wrong: a deadline is taken for missed only if it would be with so much less to do."""

AGING = 0.02
"""Seconds of work that a job may be longer by, for each second that it came earlier, and still go first."""

Rank = tuple[float, ...]


class SchedulingKey(msgspec.Struct, frozen=True, array_like=True):
    """The part of a job's rank that is fixed when it is submitted. Times are seconds of CLOCK_MONOTONIC."""

    submitted: float
    priority: int = 0
    deadline: float | None = None


def ranker(order: Order) -> Callable[[SchedulingKey, float, int, float], Rank]:
    """The order's rank, a function of a scheduling key, seconds of work left, steps done, and the time."""
    return _KEYS[order]


def _shortest(scheduling_key: SchedulingKey, left: float, done: int, now: float) -> Rank:
    """Shortest remaining work first (least mean waiting), with aging.

    Aging all jobs at the same rate is the same as adding the time of submission, so the order of two jobs changes
    by work only, never by waiting; and a job with `left` seconds of work can be overtaken only by jobs that
    came less than left / AGING seconds after it, however many come.
    """
    return (-scheduling_key.priority, left + AGING * scheduling_key.submitted)


def _deadline(scheduling_key: SchedulingKey, left: float, done: int, now: float) -> Rank:
    """Earliest deadline first among those that can still be met; then those without one; then those missed."""
    if scheduling_key.deadline is None:
        return (-scheduling_key.priority, 1, scheduling_key.submitted)
    feasible = now + (1 - ESTIMATE_MARGIN) * left <= scheduling_key.deadline
    return (
        (-scheduling_key.priority, 0, scheduling_key.deadline)
        if feasible
        else (-scheduling_key.priority, 2, scheduling_key.submitted)
    )


def _fair(scheduling_key: SchedulingKey, left: float, done: int, now: float) -> Rank:
    """The fewest steps done goes first, so that all advance alike."""
    return (-scheduling_key.priority, done, scheduling_key.submitted)


def _arrival(scheduling_key: SchedulingKey, left: float, done: int, now: float) -> Rank:
    """First come, first served."""
    return (-scheduling_key.priority, scheduling_key.submitted)


_KEYS: dict[Order, Callable[[SchedulingKey, float, int, float], Rank]] = {
    "shortest": _shortest,
    "deadline": _deadline,
    "fair": _fair,
    "arrival": _arrival,
}

NEVER: Rank = (math.inf,)
"""Larger than every rank."""


class Ranking:
    """Ranks jobs, wherever they are, by an order and by what work costs.

    Work left is all that a job still takes until its picture is there, decoding included. The stages share the cores,
    so the least is waited on average if that goes first which can be handed over soonest; a large picture whose
    denoising is nearly done may have more before it than a small one that has just begun.
    """

    def __init__(self, order: Order, costs: CostCurves) -> None:
        self.costs = costs
        """May be replaced by newer ones."""
        self._key = ranker(order)

    def rank(
        self,
        scheduling_key: SchedulingKey,
        number: float,
        tasks: tuple[TaskName, ...],
        rows_left: int,
        pixels: int,
        done: int,
        now: float,
    ) -> tuple[Rank, float]:
        """The place of a job in the order, and the seconds of work it has left. The smallest goes first.

        `number` is the job's: no two are equal, so no two places are. `tasks` are those that it has left, with
        the one at hand; `done` are its U-Net evaluations, and `rows_left` the rows of those still to come.
        """
        left = self.costs.left(tasks, rows_left, pixels)
        return (*self._key(scheduling_key, left, done, now), number), left
