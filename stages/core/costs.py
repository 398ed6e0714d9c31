"""What work costs, by kind of stage and size of picture. Pure: the hub learns it, the U-Net engine is told."""

from collections.abc import Iterable

import msgspec

from stages.core.wire import KINDS, Kind

_GUESS: dict[Kind, float] = {"text": 0.01, "unet": 0.5, "vae": 1.5}
"""Before anything has run, for the order only: the proportions of a Stable Diffusion, in row forwards of a second."""

_GUESS_PIXELS = 512 * 512
"""The size of picture that the guess is for."""


class Cost(msgspec.Struct, frozen=True):
    """One point of the cost curve of a kind of stage."""

    kind: Kind
    pixels: int
    """Of the picture; 0 for prompts, whose cost does not depend on it."""
    seconds: float
    """Of a text encoding, of a row of a U-Net forward, of a decoding."""


class CostCurves:
    """Seconds of work, by curves over the size of pictures."""

    def __init__(self, costs: Iterable[Cost] = ()) -> None:
        """`costs` are the points that are known."""
        self._curves: dict[Kind, dict[int, float]] = {}
        self._work: dict[tuple[Kind, int, int], float] = {}
        """What `of` has answered with these curves: thousands of jobs that wait differ in little."""
        for cost in costs:
            self._curves.setdefault(cost.kind, {})[cost.pixels] = cost.seconds

    @property
    def complete(self) -> bool:
        """Whether every kind of work has been seen."""
        return len(self._curves) == len(KINDS)

    @property
    def costs(self) -> tuple[Cost, ...]:
        """All points that are known."""
        return tuple(
            Cost(kind, pixels, seconds) for kind, curve in self._curves.items() for pixels, seconds in curve.items()
        )

    def of(self, kind: Kind, rows: int, pixels: int = 0) -> float:
        """Seconds of work that a job has left which is at (or waits for) a stage of `kind`, U-Net rows left.

        All work until the picture is there, that of the stages to come included.
        """
        asked = (kind, rows, pixels)
        found = self._work.get(asked)
        if found is None:
            found = self._work[asked] = self._sum(kind, rows, pixels)
        return found

    def _sum(self, kind: Kind, rows: int, pixels: int) -> float:
        left = self.cost("vae", pixels)
        if kind != "vae":
            left += self.cost("unet", pixels) * rows
        if kind == "text":
            left += self.cost("text", 0)
        return left

    def cost(self, kind: Kind, pixels: int) -> float:
        """Seconds at this size; where it has not been seen, those of the nearest one, by the ratio of pixels.

        Before every kind of work has been seen all are guesses: half of what is known, beside them, would be no order.
        """
        curve = self._curves[kind] if self.complete else {_GUESS_PIXELS if kind != "text" else 0: _GUESS[kind]}
        if pixels in curve:
            return curve[pixels]
        nearest = min(curve, key=lambda seen: (abs(seen - pixels), seen))
        return curve[nearest] * (pixels / nearest if pixels and nearest else 1.0)
