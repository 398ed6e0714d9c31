"""What work costs here, learned while it runs, so that waiting can be told in seconds."""

from collections import Counter
from collections.abc import Iterable

import msgspec

from stages.core.wire import KINDS, Kind

_NEWEST = 0.03
"""Weight of the newest measurement in a running mean; the first few weigh alike. Single ones say little: a step takes
twice as long while a picture is decoded on the same cores."""

_ENOUGH = 30
"""Pieces of work before a pace is believed."""

_REMEMBERED = 300
"""Pieces of work that a pace is made of, about: the steps of a dozen pictures."""

_GUESS: dict[Kind, float] = {"text": 0.01, "unet": 0.5, "vae": 1.5}
"""Before anything has run, for the order only: the proportions of a Stable Diffusion, in row forwards of a second."""


class Cost(msgspec.Struct, frozen=True):
    """One point of the cost curve of a kind of stage."""

    kind: Kind
    pixels: int
    """Of the picture; 0 for prompts, whose cost does not depend on it."""
    seconds: float
    """Of a text encoding, of a row of a U-Net forward, of a decoding."""


class Estimate:
    """Cost curves over the size of pictures, each point a running mean."""

    def __init__(self, costs: Iterable[Cost] = ()) -> None:
        """`costs` are what an estimate of the same model on the same cores had learned before."""
        self._curves: dict[Kind, dict[int, float]] = {}
        self._seen: Counter[tuple[Kind, int]] = Counter()
        self._work: dict[tuple[Kind, int, int], float] = {}
        """What `of` has answered since the last measurement: thousands of jobs that wait differ in little."""
        for cost in costs:
            self._curves.setdefault(cost.kind, {})[cost.pixels] = cost.seconds
            self._seen[cost.kind, cost.pixels] = 1

    @property
    def complete(self) -> bool:
        """Whether every kind of work has been seen."""
        return len(self._curves) == len(KINDS)

    @property
    def costs(self) -> tuple[Cost, ...]:
        """All that is known."""
        return tuple(
            Cost(kind, pixels, seconds) for kind, curve in self._curves.items() for pixels, seconds in curve.items()
        )

    def learn(self, kind: Kind, nanoseconds: int, pixels: int = 0, rows: int = 1) -> None:
        """Take one measurement in: of `rows` rows, for pictures of `pixels` pixels."""
        self._work.clear()
        seconds = nanoseconds / rows / 1e9
        curve = self._curves.setdefault(kind, {})
        known = curve.get(pixels, seconds)
        self._seen[kind, pixels] += 1
        curve[pixels] = known + max(_NEWEST, 1 / self._seen[kind, pixels]) * (seconds - known)

    def of(self, kind: Kind, rows: int, pixels: int = 0) -> float:
        """Seconds of work that a job has left which is at (or waits for) a stage of `kind`, U-Net rows left."""
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
        """Seconds at this size; where it has not been seen, those of the nearest one, by the ratio of pixels."""
        if not self.complete:
            return _GUESS[kind]
        curve = self._curves[kind]
        if pixels in curve:
            return curve[pixels]
        nearest = min(curve, key=lambda seen: abs(seen - pixels))
        return curve[nearest] * (pixels / nearest if pixels and nearest else 1.0)


class Pace:
    """Seconds that pass for a second of work while there is always more to do: stages overlap, on whatever cores.

    Work counts by what it is estimated at, not by what it took, so that both belong together whatever they were learned
    from: a step takes longer while another stage uses its cores.
    """

    def __init__(self) -> None:
        self._pieces = 0
        self._passed = self._worked = 0.0
        self._since_ns: int | None = None
        """The end of the last piece, if there was more to do then."""

    @property
    def value(self) -> float:
        """As far as it is known; 1 is a stage at a time."""
        return self._passed / self._worked if self._pieces >= _ENOUGH and self._worked else 1.0

    def learn(self, seconds: float, now_ns: int, more: bool) -> None:
        """A piece of work has ended, estimated at so many seconds; `more` if what is left keeps every stage at work."""
        if self._since_ns is not None:
            keep = 1 - 1 / _REMEMBERED
            self._pieces += 1
            self._passed = keep * self._passed + (now_ns - self._since_ns) / 1e9
            self._worked = keep * self._worked + seconds
        self._since_ns = now_ns if more else None
