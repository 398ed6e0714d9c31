"""Costs of work, by task and size of picture. Pure: the hub learns them, the U-Net engine is told."""

from collections.abc import Iterable

import msgspec

from stages.core.tasks import TaskName

_GUESS: dict[TaskName, float] = {"encode_text": 0.01, "denoise": 0.5, "decode": 1.5}
"""Before anything has run, for the order only: the proportions of a Stable Diffusion, in row forwards of a second."""

_GUESS_PIXELS = 512 * 512
"""The size of picture that the guess is for."""

_BY_ROWS: frozenset[TaskName] = frozenset({"denoise"})
"""Tasks that cost by the row of a forward."""

_OF_PROMPTS: frozenset[TaskName] = frozenset({"encode_text"})
"""Tasks that cost the same whatever the size of the picture."""


class Cost(msgspec.Struct, frozen=True):
    """One point of the cost curve of a task."""

    task: TaskName
    pixels: int
    """Pixels of the picture; 0 for prompts, whose cost does not depend on it."""
    seconds: float
    """Seconds of a text encoding, of a row of a U-Net forward, of a decoding."""


class CostCurves:
    """Seconds of work, by curves over the size of pictures."""

    def __init__(self, costs: Iterable[Cost] = ()) -> None:
        """`costs` are the points that are known."""
        self._curves: dict[TaskName, dict[int, float]] = {}
        self._work: dict[tuple[tuple[TaskName, ...], int, int], float] = {}
        """Answers of `left` with these curves: thousands of jobs that wait differ in little."""
        for cost in costs:
            self._curves.setdefault(cost.task, {})[cost.pixels] = cost.seconds

    @property
    def complete(self) -> bool:
        """Whether every task has been seen."""
        return len(self._curves) == len(_GUESS)

    @property
    def costs(self) -> tuple[Cost, ...]:
        """All points that are known."""
        return tuple(
            Cost(task, pixels, seconds) for task, curve in self._curves.items() for pixels, seconds in curve.items()
        )

    def left(self, tasks: tuple[TaskName, ...], rows: int, pixels: int) -> float:
        """Seconds of work of `tasks`, for a picture of so many pixels and with so many rows of U-Net forwards."""
        asked = (tasks, rows, pixels)
        found = self._work.get(asked)
        if found is None:
            found = sum(self.cost(task, pixels) * (rows if task in _BY_ROWS else 1) for task in tasks)
            self._work[asked] = found
        return found

    @staticmethod
    def size(task: TaskName, pixels: int) -> int:
        """The size of picture that the cost of a task depends on: none where it is the same for all."""
        return 0 if task in _OF_PROMPTS else pixels

    def cost(self, task: TaskName, pixels: int) -> float:
        """Seconds at this size; where it has not been seen, those of the nearest one, by the ratio of pixels.

        Before every task has been seen all are guesses: half of what is known, beside them, would be no order.
        """
        pixels = self.size(task, pixels)
        curve = self._curves[task] if self.complete else {self.size(task, _GUESS_PIXELS): _GUESS[task]}
        if pixels in curve:
            return curve[pixels]
        nearest = min(curve, key=lambda seen: (abs(seen - pixels), seen))
        return curve[nearest] * (pixels / nearest if pixels and nearest else 1.0)
