"""What work costs here, learned while it runs, so that waiting can be told in seconds."""

from collections.abc import Iterable

from stages.core.wire import KINDS, Kind

_WEIGHT = 0.2
"""Of the newest measurement in the running mean."""


class Estimate:
    """Running means: seconds of a text encoding, of a U-Net step, of a decoding."""

    def __init__(self) -> None:
        self._seconds: dict[Kind, float] = {}

    def learn(self, kind: Kind, nanoseconds: int) -> None:
        """Take one measurement in."""
        seconds = nanoseconds / 1e9
        known = self._seconds.get(kind, seconds)
        self._seconds[kind] = known + _WEIGHT * (seconds - known)

    def seconds(self, jobs: Iterable[tuple[Kind, int]]) -> float | None:
        """Seconds until all these jobs are done, each (the kind of stage it is at, U-Net steps left).

        Counts the work as if the stages took turns on the same cores, which is what sharing them comes to; where
        they have cores of their own it is too much. None before every kind of work has been seen once.
        """
        if len(self._seconds) < len(KINDS):
            return None
        total = 0.0
        for kind, steps in jobs:
            for later in KINDS[KINDS.index(kind) :]:
                total += self._seconds[later] * (steps if later == "unet" else 1)
        return round(total, 3)
