"""The board: what every stage is doing, in shared memory, so that asking costs the stage nothing.

One row of sixteen 64-bit words (two cache lines) a stage. The stage is the only writer of its row, the orchestrator the
only reader; each word is stored whole, and readers use words only one by one, so there is no lock. They are a stage's
own account, so they are read for show only, and whatever stands there is read as something that can be shown::

    | doing | job | step | steps | beat_ns | busy_ns | infer_cpu_ns | cpu_ns | lookups | hits | - ... |
"""

import time
from enum import IntEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.core.region import Region

_ROW_WORDS = 16

_LARGEST = (1 << 62) - 1
"""Largest value of a word that is believed: more than any count or time here, and JSON readers can hold it."""


class Doing(IntEnum):
    """The first word of a stage's row."""

    STARTING = 0
    LOADING = 1
    IDLE = 2
    BUSY = 3
    COMPILING = 4


class Row(msgspec.Struct, frozen=True):
    """One stage's row, read at one moment. Times are nanoseconds of CLOCK_MONOTONIC or of CPU time."""

    doing: Doing
    job: int
    step: int
    steps: int
    beat_ns: int
    """Time at which the row was last written, nanoseconds of CLOCK_MONOTONIC."""
    busy_ns: int
    """Time spent on jobs since load."""
    infer_cpu_ns: int
    """CPU time of the process, all threads, inside model forwards since load."""
    cpu_ns: int
    """CPU time of the process, all threads, since load."""
    lookups: int
    """Prompts looked up in the cache of embeds since load."""
    hits: int
    """Prompts found in the cache of embeds since load."""


class Board:
    """The orchestrator's side: creates the region and reads rows."""

    def __init__(self, stages: int) -> None:
        self.region = Region.create("triptych-board", stages * _ROW_WORDS * 8)
        self._rows = _rows(self.region)

    def read(self, stage: int) -> Row:
        """The row of stage number `stage`; words that cannot be are read as the nearest that can."""
        doing, *words = (int(word) for word in self._rows[stage, : len(Row.__struct_fields__)])
        return Row(Doing(min(doing, Doing.COMPILING)), *(min(word, _LARGEST) for word in words))

    def clear(self, stage: int) -> None:
        """Reset a row, before a stage is spawned anew."""
        self._rows[stage] = 0

    def close(self) -> None:
        """Give the shared region's descriptor back."""
        self.region.close()


class BoardWriter:
    """A stage's side: writes its own row.

    `cpu_ns` is sampled at every beat, `forward_started` and `forward_finished` bracket every forward; their difference
    is the CPU time that a stage spends on everything that is not the model. While forwards are in flight, that is what
    the calling thread uses: the model runs in threads of its own.
    """

    def __init__(self, region: Region, stage: int) -> None:
        self._row: NDArray[np.uint64] = _rows(region)[stage]
        self._cpu_origin = 0
        self._infer_cpu = 0
        self._busy = 0
        self._in_flight = 0
        self._mark = 0

    def loaded(self) -> None:
        """Loading is over: CPU time counts from here."""
        self._cpu_origin = time.process_time_ns()
        self._infer_cpu = 0
        self.beat(Doing.IDLE)

    def beat(self, doing: Doing, job: int = 0, step: int = 0, steps: int = 0) -> None:
        """Say what this stage is doing now."""
        row = self._row
        row[1] = job
        row[2] = step
        row[3] = steps
        row[4] = time.monotonic_ns()
        row[5] = self._busy
        row[6] = self._infer_cpu
        row[7] = time.process_time_ns() - self._cpu_origin if self._cpu_origin else 0
        row[0] = doing

    def busy(self, nanoseconds: int) -> None:
        """Add time spent on a job."""
        self._busy += nanoseconds

    def cached(self, lookups: int, hits: int) -> None:
        """Say how the cache of embeds does."""
        self._row[8], self._row[9] = lookups, hits

    def forward_started(self) -> None:
        """A forward begins."""
        self._in_flight += 1
        if self._in_flight == 1:
            self._mark = _other_threads_cpu_ns()

    def forward_finished(self) -> None:
        """A forward has ended."""
        self._in_flight -= 1
        before, self._mark = self._mark, _other_threads_cpu_ns()
        self._infer_cpu += self._mark - before


def _other_threads_cpu_ns() -> int:
    """CPU time of this process but for the calling thread's."""
    return time.process_time_ns() - time.thread_time_ns()


def _rows(region: Region) -> NDArray[np.uint64]:
    return region.array(0, region.nbytes).view(np.uint64).reshape(-1, _ROW_WORDS)
