"""The choice of jobs that share the next forward of the U-Net. Pure: the engine decides by it, and its simulation."""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from stages.core.costs import Cost, CostCurves
from stages.core.order import Order, Rank, Ranking
from stages.core.pipes import Run
from stages.core.tasks import Denoise


class Packed(Protocol):
    """A job as far as packing goes."""

    @property
    def rows(self) -> int:
        """Batch rows that it takes."""


class Batched(Packed, Protocol):
    """A job inside the U-Net."""

    @property
    def run(self) -> Run[Denoise]:
        """The message that it came with."""

    @property
    def step(self) -> int:
        """U-Net evaluations that are done."""

    @property
    def rows_left(self) -> int:
        """Rows of forwards to come."""

    @property
    def in_flight(self) -> bool:
        """Whether a forward with it is in flight."""


J = TypeVar("J", bound=Packed)
B = TypeVar("B", bound=Batched)


class Batcher(Generic[B]):
    """Chooses who has the next forward: whoever goes first, beside it as many of the next as there is room for.

    It ranks as the hub does, with the costs that the hub ranks with: those that came with the newest job. So a job that
    is sent because it goes before all that are here does so here, too.
    """

    def __init__(self, order: Order) -> None:
        self._ranking = Ranking(order, CostCurves())

    def learn(self, costs: Iterable[Cost]) -> None:
        """Rank by these costs from now on, all that the hub knows."""
        self._ranking.costs = CostCurves(costs)

    def choose(
        self, sequences: Iterable[B], max_rows: int, served: Callable[[list[B], int], bool], now: float
    ) -> list[B]:
        """Those of `sequences` that share the next forward, whoever goes first at its head; empty if all are in flight.

        `max_rows` and `served` are those of `pack`; `now` is in seconds of CLOCK_MONOTONIC.
        """
        free = [sequence for sequence in sequences if not sequence.in_flight]
        free.sort(key=lambda sequence: self._rank(sequence, now))
        return pack(free, max_rows, _alike, served)

    def _rank(self, sequence: B, now: float) -> Rank:
        run = sequence.run
        tasks, pixels = (run.task.name, *run.then), run.task.pixels
        rank, _ = self._ranking.rank(run.scheduling_key, run.job, tasks, sequence.rows_left, pixels, sequence.step, now)
        return rank


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


def _alike(one: Batched, other: Batched) -> bool:
    return _shape(one.run) == _shape(other.run)


def _shape(run: Run[Denoise]) -> tuple[int, ...]:
    """Shape of its inputs but for the rows: width and height of the picture, tokens and size of the prompt embeds."""
    return (run.task.width, run.task.height, *run.inputs[0].shape[1:])
