"""Which jobs share a forward of the U-Net. Pure: the engine decides so, and so does who simulates it."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Packed(Protocol):
    """A job as far as packing goes."""

    @property
    def rows(self) -> int:
        """Batch rows that it takes."""


J = TypeVar("J", bound=Packed)


def pack(
    ranked: Sequence[J], max_rows: int, alike: Callable[[J, J], bool], served: Callable[[list[J], int], bool]
) -> list[J]:
    """The first of `ranked`, with as many of those after it as share its forward; empty if there is none.

    They must be `alike` (of the same shape but for the rows) and have at most `max_rows` rows together. Then the last
    ones leave again until `served` says of those left, and of their rows, that there is a forward for so many; one job
    alone is always served.
    """
    group = list(ranked[:1])
    rows = sum(job.rows for job in group)
    for job in ranked[1:]:
        if alike(job, group[0]) and rows + job.rows <= max_rows:
            group.append(job)
            rows += job.rows
    while len(group) > 1 and not served(group, rows):
        rows -= group.pop().rows
    return group


def worth_compiling(rows: int, max_rows: int) -> bool:
    """Whether forwards of several jobs may have this number of rows: a power of two, or the largest allowed.

    Each number is compiled for itself, and between these nothing is to be won that would be worth it.
    """
    return rows == max_rows or rows & (rows - 1) == 0
