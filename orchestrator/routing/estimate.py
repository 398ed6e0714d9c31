"""Costs of work here, learned while it runs, so that waiting can be told in seconds."""

from collections import Counter
from collections.abc import Iterable

from stages.core.costs import Cost, CostCurves
from stages.core.tasks import TaskName

_NEWEST = 0.03
"""Weight of the newest measurement in a running mean; the first few weigh alike. Single ones say little: a step takes
twice as long while a picture is decoded on the same cores."""

_ENOUGH = 30
"""Pieces of work before a pace is believed."""

_REMEMBERED = 300
"""Pieces of work that a pace is made of, about: the steps of a dozen pictures."""


class Estimate(CostCurves):
    """Cost curves of which each point is a running mean."""

    def __init__(self, costs: Iterable[Cost] = ()) -> None:
        """`costs` are what an estimate of the same model on the same cores had learned before."""
        known = tuple(costs)
        super().__init__(known)
        self._seen = Counter((cost.task, cost.pixels) for cost in known)

    def learn(self, task: TaskName, nanoseconds: int, pixels: int = 0, rows: int = 1) -> None:
        """Take one measurement in: of `rows` rows, for pictures of `pixels` pixels."""
        self._work.clear()
        pixels = self.size(task, pixels)
        seconds = nanoseconds / rows / 1e9
        curve = self._curves.setdefault(task, {})
        known = curve.get(pixels, seconds)
        self._seen[task, pixels] += 1
        curve[pixels] = known + max(_NEWEST, 1 / self._seen[task, pixels]) * (seconds - known)


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
        """Seconds that pass for a second of work, as far as known; 1 is a stage at a time."""
        return self._passed / self._worked if self._pieces >= _ENOUGH and self._worked else 1.0

    def learn(self, seconds: float, now_ns: int, more: bool) -> None:
        """A piece of work has ended, estimated at so many seconds; `more` if what is left keeps every stage at work."""
        if self._since_ns is not None:
            keep = 1 - 1 / _REMEMBERED
            self._pieces += 1
            self._passed = keep * self._passed + (now_ns - self._since_ns) / 1e9
            self._worked = keep * self._worked + seconds
        self._since_ns = now_ns if more else None
