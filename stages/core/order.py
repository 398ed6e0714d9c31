"""Which job goes first. Pure: a claim and the time give a key, and the smallest key goes first.

The router orders what waits by it, the U-Net engine what it holds: there a job that goes first overtakes at the next
step, and what it overtakes stays where it is, in its slot.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import msgspec

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
