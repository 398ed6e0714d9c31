"""The search for the best candidate: which to run for real, one after the other. Pure.

The simulator ranks all candidates. Where it is wrong, it is wrong alike for candidates of one family, so the first
trials go to the best one of each family that is predicted well, and correct what is predicted of the rest. Then the
climb: the candidate of the best prediction is run, and so are those one step (rows or streams doubled or halved) from
the best, until none of them is predicted better than what was measured. Trials that are left go to the best few again:
the noise of one run is larger than the difference between neighbours.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

import msgspec

from orchestrator.tuning.score import Score
from orchestrator.tuning.space import Candidate

_PROMISING = 0.6
"""Share of the best prediction of all below which a family's best candidate gets no trial of its own."""

_NEIGHBOUR_SHARE = 0.85
"""Share of the best from which the prediction of a neighbour is worth a trial: predictions are no more exact."""

_TRIAL_SHARE = 0.97
"""Share of the best from which the prediction of any other candidate is worth a trial."""

_CLOSE = 0.97
"""Share of the best from which a candidate's measurement may mean that it is the best."""

_TOLERANCE = 1.15
"""Factor on the latency cap up to which a prediction does not rule a candidate out."""

_CONFIRM = 0.25
"""Share of the trials that is kept for running the best again."""


class SearchResult(msgspec.Struct, frozen=True):
    """The outcome of a search."""

    best: Candidate | None
    """Best candidate; None if none that was run keeps the cap."""
    scores: dict[Candidate, tuple[Score, ...]]
    """Scores of all runs, by candidate, in the order of first runs."""
    predicted: dict[Candidate, Score]
    """Scores by the simulator, before anything was run."""
    complete: bool
    """Whether it ended by itself, rather than for want of trials."""


Runs = dict[Candidate, list[Score]]


def search(
    predicted: Mapping[Candidate, Score],
    trial: Callable[[Candidate], Score | None],
    cap_s: float,
    trials: int,
    known: Mapping[Candidate, Sequence[Score]] = {},
) -> SearchResult:
    """Run at most `trials` candidates, those of `known` counted; `trial` answers None when time is up."""
    runs: Runs = {candidate: list(scores) for candidate, scores in known.items()}
    first = _first_of_families(predicted, cap_s)[: max(1, trials // 3)]
    confirm = max(1, round(trials * _CONFIRM))
    complete = False
    while sum(map(len, runs.values())) < trials:
        left = trials - sum(map(len, runs.values()))
        following = next((candidate for candidate in first if candidate not in runs), None)
        if following is None and left > confirm:
            following = _climb(predicted, runs, cap_s)
        if following is None:
            following = _least_run_near_best(runs, cap_s)
        if following is None:
            complete = True
            break
        score = trial(following)
        if score is None:
            break
        runs.setdefault(following, []).append(score)
    kept = {candidate: tuple(scores) for candidate, scores in runs.items()}
    return SearchResult(best_of(runs, cap_s), kept, dict(predicted), complete)


def best_of(runs: Mapping[Candidate, Sequence[Score]], cap_s: float) -> Candidate | None:
    """The fastest of those that keep the cap."""
    fit = [candidate for candidate, scores in runs.items() if scores and typical_p99(scores) <= cap_s]
    return max(fit, key=lambda candidate: typical_rate(runs[candidate]), default=None)


def typical_rate(scores: Sequence[Score]) -> float:
    """The median of images a second."""
    return median(score.images_per_s for score in scores)


def typical_p99(scores: Sequence[Score]) -> float:
    """The median of 99th percentiles."""
    return median(score.p99_s for score in scores)


def _first_of_families(predicted: Mapping[Candidate, Score], cap_s: float) -> list[Candidate]:
    """The best of each family that is predicted well enough, best first."""
    possible = _possible(predicted, cap_s)
    best: dict[tuple[str, ...], Candidate] = {}
    for candidate in possible:
        rival = best.get(candidate.family)
        if rival is None or predicted[candidate].images_per_s > predicted[rival].images_per_s:
            best[candidate.family] = candidate
    ranked = sorted(best.values(), key=lambda candidate: -predicted[candidate].images_per_s)
    floor = _PROMISING * predicted[ranked[0]].images_per_s if ranked else 0.0
    return [candidate for candidate in ranked if predicted[candidate].images_per_s >= floor]


def _possible(predicted: Mapping[Candidate, Score], cap_s: float) -> list[Candidate]:
    """The candidates that may keep the cap; if none may, the one of least latency."""
    fit = [candidate for candidate, score in predicted.items() if score.p99_s <= cap_s * _TOLERANCE]
    return fit or sorted(predicted, key=lambda candidate: predicted[candidate].p99_s)[:1]


def _climb(predicted: Mapping[Candidate, Score], runs: Runs, cap_s: float) -> Candidate | None:
    """The candidate to run next, if one is predicted good enough."""
    best = best_of(runs, cap_s)
    rate, tail = _correction(predicted, runs, lambda s: s.images_per_s), _correction(predicted, runs, lambda s: s.p99_s)

    def prediction(candidate: Candidate) -> float:
        return predicted[candidate].images_per_s * rate(candidate)

    open_ = [
        candidate
        for candidate, score in predicted.items()
        if candidate not in runs and score.p99_s * tail(candidate) <= cap_s
    ]
    if best is None:
        # Nothing keeps the cap yet: what is predicted to be quickest comes first.
        rest = [candidate for candidate in predicted if candidate not in runs]
        return min(rest, key=lambda candidate: predicted[candidate].p99_s * tail(candidate), default=None)
    measured = typical_rate(runs[best])
    worth = [
        candidate
        for candidate in open_
        if prediction(candidate) > measured * (_NEIGHBOUR_SHARE if _one_step(candidate, best) else _TRIAL_SHARE)
    ]
    return max(worth, key=prediction, default=None)


def _correction(
    predicted: Mapping[Candidate, Score], runs: Runs, what: Callable[[Score], float]
) -> Callable[[Candidate], float]:
    """A function for the ratio of measured to predicted: the median of the candidate's family, else of all runs."""
    ratios: dict[tuple[str, ...], list[float]] = {}
    for candidate, scores in runs.items():
        if candidate in predicted:
            ratio = median(what(score) for score in scores) / what(predicted[candidate])
            ratios.setdefault(candidate.family, []).append(ratio)
    every = [ratio for family in ratios.values() for ratio in family]

    def of(candidate: Candidate) -> float:
        mine = ratios.get(candidate.family, every)
        return median(mine) if mine else 1.0

    return of


def _one_step(one: Candidate, other: Candidate) -> bool:
    """Whether they differ by a factor of two in rows or in streams, and in nothing else."""
    if one.family != other.family:
        return False
    rows = max(one.unet.max_rows, other.unet.max_rows) / min(one.unet.max_rows, other.unet.max_rows)
    streams = max(one.unet.streams, other.unet.streams) / min(one.unet.streams, other.unet.streams)
    return (rows, streams) in ((1, 2), (2, 1))


def _least_run_near_best(runs: Runs, cap_s: float) -> Candidate | None:
    """The candidate that was run least of those that may be better than the best; None once all are settled."""
    best = best_of(runs, cap_s)
    if best is None:
        return None
    floor = _CLOSE * typical_rate(runs[best])
    close = [
        candidate
        for candidate, scores in runs.items()
        if typical_p99(scores) <= cap_s and typical_rate(scores) >= floor and len(scores) < _ENOUGH
    ]
    if close == [best] and len(runs[best]) > 1:
        return None
    return min(close, key=lambda candidate: (len(runs[candidate]), -typical_rate(runs[candidate])), default=None)


_ENOUGH = 3
"""Runs of one candidate, the median of which is believed."""
