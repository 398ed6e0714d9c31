"""The compiled forwards of the U-Net: which shapes there are, and which there may be.

Shapes are static, which is faster and keeps memory known, so every number of rows is compiled for itself, with
weights packed anew, if it is worth it (stages.core.batching). When the budget of memory is spent, nothing more is
compiled for the sake of more rows; a size that has no forward at all gets one, in place of those not used for the
longest time.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.batching import worth_compiling
from stages.runtime import Forward


class Shape(NamedTuple):
    """Static shape of a forward: rows, height and width of the latents, tokens of the prompt embeds."""

    rows: int
    height: int
    width: int
    tokens: int


class Batch(NamedTuple):
    """A forward, and the arrays its inputs and its output lie in, by row."""

    forward: Forward
    inputs: dict[str, NDArray[np.generic]]
    output: NDArray[np.float32]


class Forwards:
    """Compiles for a shape when it is first wanted, and keeps what is compiled within a budget.

    The first forward is the model itself: it is no part of the budget, and stays. What the others take that are there
    says what one more would take, if it has never been compiled.
    """

    def __init__(
        self,
        compiled: Callable[[Shape], Forward],
        inputs: Iterable[str],
        max_rows: int,
        budget_bytes: int,
        resident_bytes: Callable[[], int] | None = None,
    ) -> None:
        """`compiled` makes the forward of a shape, fed by `inputs`; `budget_bytes` is for all but the first one.

        What a forward takes is measured as the growth of `resident_bytes`, by default this process's.
        """
        self._compile = compiled
        self._inputs = tuple(inputs)
        self._max_rows = max_rows
        self._budget_bytes = budget_bytes
        self._resident_bytes = resident_bytes or _resident_bytes
        self._compiled: dict[Shape, Forward] = {}
        """Compiled forwards by shape, the one used last at the end."""
        self._first: Shape | None = None
        self._bytes: dict[Shape, int] = {}
        """Bytes that each forward but the first took when it was compiled, those put away included."""
        self._refused: set[Shape] = set()
        """Shapes that could not be compiled."""
        self._idle: dict[Shape, list[Batch]] = {}
        """Batches that are not in flight."""
        self._in_flight: Counter[Shape] = Counter()

    def __contains__(self, shape: Shape) -> bool:
        """Whether `shape` is compiled."""
        return shape in self._compiled

    def serves(self, shape: Shape) -> bool:
        """Whether rows of several sequences may be put together to this shape.

        That is so if it is compiled, or if it may be: its rows are a number worth compiling, and there is room.
        """
        if shape in self._compiled:
            return True
        worth_it = worth_compiling(shape.rows, self._max_rows) and shape not in self._refused
        return worth_it and self._has_room(shape)

    def take(self, shape: Shape) -> Batch:
        """A batch of this shape, to be given back or discarded; compiled if need be. Raises ModelError."""
        if shape not in self._compiled:
            self._add(shape)
        self._compiled[shape] = self._compiled.pop(shape)
        idle = self._idle[shape]
        batch = idle.pop() if idle else self._bound(self._compiled[shape].another())
        self._in_flight[shape] += 1
        return batch

    def give_back(self, shape: Shape, batch: Batch) -> None:
        """The forward has ended."""
        self._in_flight[shape] -= 1
        self._idle[shape].append(batch)

    def discard(self, shape: Shape) -> None:
        """The forward of a batch has raised: nobody knows what state it is in, so it is not used again."""
        self._in_flight[shape] -= 1

    def _add(self, shape: Shape) -> None:
        # What is put away for it may be given back to the system, or be kept by the allocator and used again.
        before = self._resident_bytes()
        before -= self._make_room(shape)
        try:
            forward = self._compile(shape)
            batch = self._bound(forward)
        except Exception:
            self._refused.add(shape)
            raise
        if self._first is None:
            self._first = shape
        else:
            self._bytes[shape] = max(0, self._resident_bytes() - before)
        self._compiled[shape], self._idle[shape] = forward, [batch]

    def _has_room(self, shape: Shape) -> bool:
        """Whether one more forward fits into the budget. As long as none was measured, any budget has room for one."""
        taken = [self._bytes[kept] for kept in self._compiled if kept != self._first]
        return sum(taken) + self._bytes.get(shape, max(taken, default=1)) <= self._budget_bytes

    def _make_room(self, shape: Shape) -> int:
        """Put away what was not used for the longest time, until the shape would fit; returns what that took."""
        put_away = 0
        for kept in list(self._compiled):
            if self._has_room(shape):
                break
            if kept != self._first and not self._in_flight[kept]:
                put_away += self._bytes[kept]
                del self._compiled[kept], self._idle[kept]
        return put_away

    def _bound(self, forward: Forward) -> Batch:
        inputs = {name: forward.allocate(name) for name in self._inputs}
        return Batch(forward, inputs, forward.allocate(forward.outputs[0]).view(np.float32))


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
