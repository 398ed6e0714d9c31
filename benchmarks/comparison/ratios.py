"""The ratio of two systems' speeds: one for each round, their median, and its interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 3
"""Number of rounds from which an interval is given; of fewer, nothing can be said but the ratios themselves."""

_RESAMPLINGS = 10_000


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' ratios and the bounds of its 95 % interval (of fewer than 3 rounds: least and most)."""

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        """The ratio as a cell of a table."""
        if self.rounds == 1:
            return f"{self.median:.2f}"
        mark = "" if self.rounds >= FEWEST else f", {self.rounds} rounds"
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f}{mark})"


def ratio(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> Ratio:
    """The ratio of two systems, from a figure of each for every round: `ours[i]` and `theirs[i]` are of one round.

    A drift of the machine from round to round cancels in each ratio. The interval is the percentile bootstrap's: the
    medians of as many ratios drawn with replacement. Raises ValueError where the rounds do not pair up.
    """
    ratios = np.array([mine / other for mine, other in zip(ours, theirs, strict=True)])
    if not len(ratios):
        raise ValueError("no rounds")
    if len(ratios) < FEWEST:
        low, high = ratios.min(), ratios.max()
    else:
        rng = np.random.default_rng(seed)
        medians = np.median(rng.choice(ratios, (_RESAMPLINGS, len(ratios))), axis=1)
        low, high = np.percentile(medians, (2.5, 97.5))
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios))
