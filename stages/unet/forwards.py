"""The compiled forwards of the U-Net: which shapes there are, and which there may be.

Shapes are static, which is faster and keeps memory known, so every number of rows is compiled for itself, with
weights packed anew, if it is worth it (stages.core.batching). When the budget of memory is spent, nothing more is
compiled for the sake of more rows; a size that has no forward at all gets one, in place of those not used for the
longest time.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.batching import worth_compiling
from stages.runtime import Forward


class Shape(NamedTuple):
    """What a forward is compiled for: rows, latents of [height, width], tokens of the prompt embeds."""

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
    """Compiles for a shape when it is first wanted, and keeps what is compiled within a budget."""

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
        """Those used last come last."""
        self._bytes: dict[Shape, int] = {}
        self._idle: dict[Shape, list[Batch]] = {}
        """Batches that are not in flight."""
        self._flying: dict[Shape, int] = {}

    def __contains__(self, shape: Shape) -> bool:
        """Whether `shape` is compiled."""
        return shape in self._compiled

    def serves(self, shape: Shape) -> bool:
        """Whether rows of several sequences may be put together to this shape.

        That is so if it is compiled, or if it may be: its rows are a number worth compiling, and there is room.
        """
        if shape in self._compiled:
            return True
        worth_it = worth_compiling(shape.rows, self._max_rows)
        return worth_it and self._spent() + max(self._bytes.values(), default=0) <= self._budget_bytes

    def take(self, shape: Shape) -> Batch:
        """A batch of this shape, to be given back; compiled if need be. Raises ModelError."""
        if shape not in self._compiled:
            self._make_room()
            before = self._resident_bytes()
            self._compiled[shape] = self._compile(shape)
            self._idle[shape] = [self._bound(self._compiled[shape])]
            self._bytes[shape] = max(0, self._resident_bytes() - before)
        self._compiled[shape] = self._compiled.pop(shape)
        self._flying[shape] = self._flying.get(shape, 0) + 1
        idle = self._idle[shape]
        return idle.pop() if idle else self._bound(self._compiled[shape].another())

    def give_back(self, shape: Shape, batch: Batch) -> None:
        """The batch has landed."""
        self._flying[shape] -= 1
        self._idle[shape].append(batch)

    def _spent(self) -> int:
        """Bytes of all but the first: that one is the model itself."""
        return sum(list(self._bytes.values())[1:])

    def _make_room(self) -> None:
        """Put away what was not used for the longest time, until as much as the largest takes would fit."""
        for shape in list(self._compiled):
            if self._spent() + max(self._bytes.values()) <= self._budget_bytes:
                return
            if not self._flying.get(shape):
                for kept in (self._compiled, self._bytes, self._idle):
                    del kept[shape]

    def _bound(self, forward: Forward) -> Batch:
        inputs = {name: forward.allocate(name) for name in self._inputs}
        return Batch(forward, inputs, forward.allocate(forward.outputs[0]).view(np.float32))


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
