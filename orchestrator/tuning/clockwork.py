"""A discrete-event clock: calls that are due, and the work that shares the cores meanwhile. Pure."""

import heapq
from collections.abc import Callable
from itertools import count

from orchestrator.tuning.sharing import Sharing, Work


class Clockwork:
    """Events in order; those of the same moment in the order in which they were asked for."""

    def __init__(self, sharing: Sharing) -> None:
        self.now = 0.0
        """Seconds since the start."""
        self.sharing = sharing
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    @property
    def now_ns(self) -> int:
        """The time as stages stamp it; never 0, which stands for never."""
        return round(self.now * 1e9) + 1

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Have `call` called later."""
        heapq.heappush(self._due, (self.now + seconds, next(self._number), call))

    def begin(self, work: Work) -> None:
        """Begin a piece of work; its `done` is called when it is."""
        self.sharing.add(work)

    def run(self) -> None:
        """Let time pass until nothing is due and nothing at work."""
        while True:
            due_s = self._due[0][0] - self.now if self._due else float("inf")
            done_s = self.sharing.next_s()
            if min(due_s, done_s) == float("inf"):
                return
            step_s = max(0.0, min(due_s, done_s))
            for call in self.sharing.advance(step_s):
                self.after(0.0, call)
            self.now += step_s
            while self._due and self._due[0][0] <= self.now:
                heapq.heappop(self._due)[2]()
