"""The cost of a unit of work by threads, streams and rows: as measured, or by a law fitted to that. Pure.

The law, for a forward of r rows in one of S streams that share p threads::

    seconds = (s + s' r)                what runs on one thread, however many there are (Amdahl)
            + (w + w' r) S / p          what is divided among the threads of the stream
            + (m + m' r) S / b          what all streams draw from the same memory; b its bandwidth, here 1

No term is negative. Terms that do not make the fit better are left out, so few measurements give a short law.
"""

from collections.abc import Iterable
from itertools import combinations
from math import exp, log, sqrt
from statistics import median
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.core.errors import ConfigError
from stages.core.point import Point
from stages.core.wire import KINDS, Kind

Floats = NDArray[np.float64]


class UnitCost(NamedTuple):
    """The cost of a unit of work while nothing else uses its cores."""

    seconds: float
    cores: float
    """Cores that it keeps busy meanwhile."""
    deviation: float = 0.0
    """Standard deviation of the seconds, as a share of them."""


_QUARTILES = 1.349
"""Standard deviations between the quartiles of a normal distribution."""


class Law(msgspec.Struct, frozen=True):
    """The terms of the module's docstring, in seconds."""

    serial: float
    serial_row: float
    divided: float
    divided_row: float
    memory: float
    memory_row: float
    error: float
    """Root mean square of the relative differences from what was measured."""

    def seconds(self, threads: int, streams: int, rows: int, bandwidth: float = 1.0) -> float:
        """Seconds of a unit of work by the law."""
        return float(_features(threads, streams, rows, bandwidth) @ self._terms)

    @property
    def _terms(self) -> Floats:
        return np.array(msgspec.structs.astuple(self)[:-1])


def fit(points: Iterable[Point]) -> Law:
    """The law nearest to the measurements, in relative terms. Raises ConfigError if there are none."""
    known = list(points)
    if not known:
        raise ConfigError("nothing was measured that a law could be fitted to")
    seconds = np.array([point.seconds for point in known])
    features = np.array([_features(point.threads, point.streams, point.rows, 1.0) for point in known])
    scaled = features / seconds[:, None]
    best, best_score = np.zeros(features.shape[1]), float("inf")
    for used in _subsets(features.shape[1], len(known)):
        terms, *_ = np.linalg.lstsq(scaled[:, used], np.ones(len(known)))
        if (terms < 0).any():
            continue
        left = scaled[:, used] @ terms - 1
        # Akaike's criterion; a thousandth is as near as measurements come to each other.
        score = len(known) * log(float(left @ left) / len(known) + 1e-6) + 2 * len(used)
        if score < best_score - 1e-9:
            best, best_score = np.zeros(features.shape[1]), score
            best[list(used)] = terms
    left = scaled @ best - 1
    serial, serial_row, divided, divided_row, memory, memory_row = best.tolist()
    error = sqrt(float(left @ left) / len(known))
    return Law(serial, serial_row, divided, divided_row, memory, memory_row, error)


def _features(threads: int, streams: int, rows: int, bandwidth: float) -> Floats:
    part, drawn = streams / threads, streams / bandwidth
    return np.array([1.0, rows, part, rows * part, drawn, rows * drawn])


def _subsets(terms: int, most: int) -> Iterable[tuple[int, ...]]:
    for size in range(1, min(terms, most) + 1):
        yield from combinations(range(terms), size)


class Curves:
    """Cost curves of all kinds of stages."""

    def __init__(self, points: Iterable[Point], bandwidth: float = 1.0, by_law: bool = False) -> None:
        """`bandwidth` of the memory beside that of the machine measured; `by_law` also where there are measurements."""
        self.points = tuple(points)
        self.bandwidth = bandwidth
        self.laws: dict[Kind, Law] = {kind: fit(point for point in self.points if point.kind == kind) for kind in KINDS}
        self._measured: dict[tuple[Kind, int, int], dict[int, Point]] = {}
        for point in () if by_law else self.points:
            self._measured.setdefault((point.kind, point.threads, point.streams), {})[point.rows] = point
        self._deviations = {
            kind: median(_deviation(point) for point in self.points if point.kind == kind) for kind in KINDS
        }
        self._known: dict[tuple[Kind, int, int, int], UnitCost] = {}

    def cost(self, kind: Kind, threads: int, streams: int = 1, rows: int = 1) -> UnitCost:
        """The cost of one unit of work of one stream, the other streams being at work as well."""
        which = (kind, threads, streams, rows)
        if which not in self._known:
            self._known[which] = self._cost(*which)
        return self._known[which]

    def _cost(self, kind: Kind, threads: int, streams: int, rows: int) -> UnitCost:
        measured = self._measured.get((kind, threads, streams))
        law = self.laws[kind]
        by_law = law.seconds(threads, streams, rows, self.bandwidth)
        if measured is None:
            return UnitCost(by_law, self._useful(kind, threads / streams, rows, by_law), self._deviations[kind])
        # Between measurements along a straight line; beyond them as the law goes on.
        known = sorted(measured)
        nearest = min(max(rows, known[0]), known[-1])
        seconds = _between(nearest, known, [measured[each].seconds for each in known])
        if rows != nearest:
            seconds *= by_law / law.seconds(threads, streams, nearest, self.bandwidth)
        deviation = _between(nearest, known, [_deviation(measured[each]) for each in known])
        return UnitCost(seconds, self._useful(kind, threads / streams, rows, seconds), deviation)

    def _useful(self, kind: Kind, part: float, rows: int, seconds: float) -> float:
        """Cores that a stream of `part` threads keeps busy with what one thread would have to do, too.

        Not its CPU time: threads that wait for each other spin, and what they spin away other processes can use.
        """
        if part <= 1:
            return part
        return min(part, max(1.0, self.cost(kind, 1, 1, rows).seconds / seconds))


def _deviation(point: Point) -> float:
    return point.spread_s / _QUARTILES / point.seconds


def _between(rows: int, known: list[int], values: list[float]) -> float:
    return float(np.interp(rows, known, values))


def typical(ratios: Iterable[float]) -> float:
    """The geometric mean; 1 of none."""
    logs = [log(ratio) for ratio in ratios]
    return exp(sum(logs) / len(logs)) if logs else 1.0
