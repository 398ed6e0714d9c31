"""Cores shared by several processes: how fast each piece of work goes while the others are there. Pure.

The kernel gives each thread its fair part, so work that asks for more cores than its set has goes on at cores / asked.
Where that happens between processes, work of several threads loses more than that: those that run wait for the one that
does not. `interference` says how much; it is learned from real runs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

Done = Callable[[], None]


@dataclass(eq=False)
class Work:
    """A piece of work of a process."""

    process: str
    cores: frozenset[int] | None
    """Cores it is confined to; None for a process that runs wherever there is room."""
    left_s: float
    """Seconds that it would still take alone."""
    asks: float
    """Cores it keeps busy when it has them."""
    done: Done
    concurrency: tuple[int, float] = (1, 1.0)
    """Pieces of one process at work together for which `left_s` holds, and how many times as fast one alone is."""
    threads: int = 1
    """Threads that it is divided among."""
    speed: float = 0.0


class Sharing:
    """The pieces of work at hand; `advance` lets time pass."""

    def __init__(self, core_sets: set[frozenset[int]], quota: float = math.inf, interference: float = 0.0) -> None:
        self._sets = core_sets
        self._quota = quota
        self._interference = interference
        self._works: list[Work] = []
        self._stale = True
        self.busy_s: dict[str, float] = {}
        """Seconds in which each process had work at hand."""
        self.core_s: dict[str, float] = {}
        """Core seconds that each process used."""

    def add(self, work: Work) -> None:
        """Begin a piece of work."""
        self._works.append(work)
        self._stale = True

    def next_s(self) -> float:
        """Seconds until the next piece is done if nothing is added; infinite if there is none."""
        if self._stale:
            self._settle()
        return min((work.left_s / work.speed for work in self._works), default=math.inf)

    def advance(self, seconds: float) -> list[Done]:
        """Let `seconds` pass, at most `next_s()`; what is to be called for pieces that are done now, oldest first."""
        if self._stale:
            self._settle()
        for process in {work.process for work in self._works}:
            self.busy_s[process] = self.busy_s.get(process, 0.0) + seconds
        done: list[Work] = []
        left: list[Work] = []
        for work in self._works:
            used = self.core_s.get(work.process, 0.0)
            self.core_s[work.process] = used + seconds * work.asks * min(1.0, work.speed)
            work.left_s -= seconds * work.speed
            (done if work.left_s <= 1e-9 else left).append(work)
        if done:
            self._works = left
            self._stale = True
        return [work.done for work in done]

    def _settle(self) -> None:
        """Set the speed of every piece, from the cores that are there for it."""
        asked = {each: 0.0 for each in self._sets}
        competing: dict[frozenset[int], set[str]] = {each: set() for each in self._sets}
        in_flight: dict[str, int] = {}
        for work in self._works:
            in_flight[work.process] = in_flight.get(work.process, 0) + 1
            if work.cores is not None:
                asked[work.cores] += work.asks
                competing[work.cores].add(work.process)
        placed: dict[int, frozenset[int]] = {}
        for work in self._works:
            if work.cores is None:  # the kernel finds the emptiest place
                where = min(asked, key=lambda each: asked[each] / len(each))
                asked[where] += work.asks
                competing[where].add(work.process)
                placed[id(work)] = where
        running = sum(min(total, len(each)) for each, total in asked.items())
        granted = min(1.0, self._quota / running) if running else 1.0
        for work in self._works:
            where = placed[id(work)] if work.cores is None else work.cores
            share = min(1.0, len(where) / asked[where])
            if share < 1.0 and len(competing[where]) > 1 and work.threads > 1:
                share /= 1 + self._interference
            together, alone = work.concurrency
            if together > 1:
                share *= 1 + (alone - 1) * (together - in_flight[work.process]) / (together - 1)
            work.speed = share * granted
        self._stale = False
