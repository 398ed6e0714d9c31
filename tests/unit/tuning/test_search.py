import math
import random

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tuning.machine import Topology
from orchestrator.tuning.score import Score
from orchestrator.tuning.search import best_of, search
from orchestrator.tuning.space import Candidate, candidates
from tests.unit.cards import CARD

EVERY = candidates(Topology.what_if(2, 1), CARD)


def score(rate: float, p99: float = 1.0) -> Score:
    return Score(rate, p99 / 2, p99, p99)


def truth(rng: random.Random) -> dict[Candidate, Score]:
    """Throughput that grows with rows and streams up to a point, in each family to another height."""
    heights = {family: rng.uniform(5, 15) for family in dict.fromkeys(each.family for each in EVERY)}
    peak = rng.choice([4, 8, 16])
    found = {}
    for each in EVERY:
        rows = each.unet.max_rows
        rate = heights[each.family] * (1 + 0.1 * math.log2(min(rows, peak))) * (1.15 if each.unet.streams == 2 else 1)
        rate *= 0.95 ** math.log2(max(1, rows / peak))
        held = each.unet.streams * rows / 2 + 2
        found[each] = score(rate, held / rate)
    return found


@given(st.integers(0, 10_000))
def test_it_finds_the_best_although_the_forecast_is_wrong_by_family_and_by_chance(seed: int) -> None:
    rng = random.Random(seed)
    real = truth(rng)
    bias = {family: rng.uniform(0.9, 1.1) for family in dict.fromkeys(each.family for each in EVERY)}
    predicted = {}
    for each, is_ in real.items():
        wrong = bias[each.family] * rng.uniform(0.97, 1.03)
        predicted[each] = score(is_.images_per_s * wrong, is_.p99_s / wrong)
    cap = rng.choice([math.inf, 1.0, 2.0])
    found = search(predicted, real.__getitem__, cap, trials=12)
    best = best_of({each: [is_] for each, is_ in real.items()}, cap)
    assert sum(map(len, found.scores.values())) <= 12
    if best is None:
        assert found.best is None
    else:
        assert found.best is not None
        assert real[found.best].p99_s <= cap
        assert real[found.best].images_per_s >= 0.93 * real[best].images_per_s


def test_a_cap_that_nothing_keeps_is_said_and_all_trials_go_to_the_quickest() -> None:
    real = {each: score(10.0, 5.0 + number) for number, each in enumerate(EVERY)}
    found = search(real, real.__getitem__, 1.0, trials=4)
    assert found.best is None
    assert EVERY[0] in found.scores


def test_what_is_known_is_not_run_again_without_need() -> None:
    real = truth(random.Random(1))
    ran: list[Candidate] = []

    def trial(candidate: Candidate) -> Score:
        ran.append(candidate)
        return real[candidate]

    first = search(real, trial, math.inf, trials=6)
    before = len(ran)
    again = search(real, trial, math.inf, trials=6, known=first.scores)
    assert len(ran) == before
    assert again.best == first.best
    further = search(real, trial, math.inf, trials=8, known=first.scores)
    assert len(ran) - before <= 2
    assert further.best is not None


def test_when_time_is_up_the_best_so_far_counts() -> None:
    real = truth(random.Random(2))
    answers = iter([True, True, False])
    found = search(real, lambda candidate: real[candidate] if next(answers) else None, math.inf, trials=12)
    assert len(found.scores) == 2
    assert not found.complete
    assert found.best in found.scores


def test_the_best_of_several_runs_counts_by_the_median() -> None:
    lucky, steady = EVERY[:2]
    runs = {lucky: [score(20.0), score(10.0), score(9.0)], steady: [score(11.0), score(11.5), score(12.0)]}
    assert best_of(runs, math.inf) == steady
