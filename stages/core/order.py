"""Which job goes first. Pure: a claim, work left and the time give a key, and the smallest key goes first.

The router ranks what waits, the U-Net engine what it holds: there a job that goes first overtakes at the next step, and
what it overtakes stays where it is, in its slot.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import msgspec

from stages.core.costs import CostCurves
from stages.core.wire import Kind

Order = Literal["shortest", "deadline", "fair", "arrival"]
ORDERS: tuple[Order, ...] = get_args(Order)

DOUBT = 0.1
"""By how much estimates may be wrong: a deadline is taken for missed only if it would be with so much less to do."""

AGING = 0.02
"""Seconds of work that a job may be longer by, for each second that it came earlier, and still go first."""

Key = tuple[float, ...]


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """What a job puts forward. Times are seconds of CLOCK_MONOTONIC."""

    submitted: float
    priority: int = 0
    deadline: float | None = None


def key(order: Order) -> Callable[[Claim, float, int, float], Key]:
    """The order's key, a function of a claim, the seconds of work it has left, the steps it has had, and the time."""
    return _KEYS[order]


def _shortest(claim: Claim, left: float, done: int, now: float) -> Key:
    """Shortest remaining work first (least mean waiting), with aging.

    Aging all claims at the same rate is the same as adding the time of submission, so the order of two claims changes
    by work only, never by waiting; and a job with `left` seconds of work can be overtaken only by jobs that
    came less than left / AGING seconds after it, however many come.
    """
    return (-claim.priority, left + AGING * claim.submitted)


def _deadline(claim: Claim, left: float, done: int, now: float) -> Key:
    """Earliest deadline first among those that can still be met; then those without one; then those missed."""
    if claim.deadline is None:
        return (-claim.priority, 1, claim.submitted)
    feasible = now + (1 - DOUBT) * left <= claim.deadline
    return (-claim.priority, 0, claim.deadline) if feasible else (-claim.priority, 2, claim.submitted)


def _fair(claim: Claim, left: float, done: int, now: float) -> Key:
    """Turn and turn about: the one that has had the fewest steps."""
    return (-claim.priority, done, claim.submitted)


def _arrival(claim: Claim, left: float, done: int, now: float) -> Key:
    """First come, first served."""
    return (-claim.priority, claim.submitted)


_KEYS: dict[Order, Callable[[Claim, float, int, float], Key]] = {
    "shortest": _shortest,
    "deadline": _deadline,
    "fair": _fair,
    "arrival": _arrival,
}

NEVER: Key = (math.inf,)
"""Larger than every key."""


class Ranking:
    """Ranks jobs, wherever they are, by an order and by what work costs.

    Work left is all that a job still takes until its picture is there, decoding included. The stages share the cores,
    so the least is waited on average if that goes first which can be handed over soonest; a large picture whose
    denoising is nearly done may have more before it than a small one that has just begun.
    """

    def __init__(self, order: Order, costs: CostCurves) -> None:
        self.costs = costs
        """May be replaced by newer ones."""
        self._key = key(order)

    def rank(
        self, claim: Claim, number: float, kind: Kind, rows_left: int, pixels: int, done: int, now: float
    ) -> tuple[Key, float]:
        """The place of a job in the order, and the seconds of work it has left. The smallest goes first.

        `number` is the job's: no two are equal, so no two places are. `kind` is that of the stage where it is, or for
        which it waits; `done` are U-Net evaluations, of which `rows_left` rows are still to come.
        """
        left = self.costs.of(kind, rows_left, pixels)
        return (*self._key(claim, left, done, now), number), left
