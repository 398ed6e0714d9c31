from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.order import AGING, ESTIMATE_MARGIN, NEVER, ORDERS, Order, Rank, SchedulingKey, ranker

NOW = 1000.0
"""When nothing else is said."""

times = st.integers(0, 100_000).map(lambda hundredths: hundredths / 100)
keys = st.builds(SchedulingKey, times, st.integers(-2, 2), st.none() | times)
works = st.integers(0, 20_000).map(lambda hundredths: hundredths / 100)
states = st.tuples(keys, works, st.integers(0, 50))
"""A scheduling key, seconds of work left, steps had."""


def ranked(order: Order, *jobs: tuple[SchedulingKey, float, int], now: float = NOW) -> list[int]:
    """The numbers of the jobs, first to last."""
    keys = [ranker(order)(*job, now) for job in jobs]
    return sorted(range(len(jobs)), key=keys.__getitem__)


# What each order means, as data: jobs in the order they have to come out in.

MEANINGS: list[tuple[str, Order, list[tuple[SchedulingKey, float, int]]]] = [
    ("least work", "shortest", [(SchedulingKey(5), 1.0, 0), (SchedulingKey(5), 2.0, 9), (SchedulingKey(5), 3.0, 1)]),
    ("of equal work the older", "shortest", [(SchedulingKey(4), 2.0, 0), (SchedulingKey(5), 2.0, 9)]),
    ("a second of age for AGING of work", "shortest", [(SchedulingKey(0), 3.0, 0), (SchedulingKey(51), 2.0, 0)]),
    ("... and no more", "shortest", [(SchedulingKey(49), 2.0, 0), (SchedulingKey(0), 3.0, 0)]),
    ("whatever the deadline", "shortest", [(SchedulingKey(5), 1.0, 0), (SchedulingKey(5, 0, 1001), 2.0, 0)]),
    (
        "first come",
        "arrival",
        [(SchedulingKey(1), 9.0, 9), (SchedulingKey(2), 5.0, 0), (SchedulingKey(3, 0, 1001), 1.0, 0)],
    ),
    ("fewest steps", "fair", [(SchedulingKey(9), 9.0, 0), (SchedulingKey(2), 5.0, 1), (SchedulingKey(1), 1.0, 2)]),
    ("of equal steps the older", "fair", [(SchedulingKey(1), 9.0, 3), (SchedulingKey(2), 1.0, 3)]),
    ("earliest deadline", "deadline", [(SchedulingKey(3, 0, 1100), 9.0, 0), (SchedulingKey(2, 0, 1101), 1.0, 0)]),
    (
        "then those without one",
        "deadline",
        [(SchedulingKey(3, 0, 9999), 9.0, 0), (SchedulingKey(1), 1.0, 0), (SchedulingKey(2), 0.1, 5)],
    ),
    (
        "then those missed",
        "deadline",
        [(SchedulingKey(9), 50.0, 0), (SchedulingKey(1, 0, 1001), 2.0, 0), (SchedulingKey(2, 0, 900), 0.1, 0)],
    ),
]


@pytest.mark.parametrize(("order", "jobs"), [case[1:] for case in MEANINGS], ids=[case[0] for case in MEANINGS])
def test_each_order_means_what_it_says(order: Order, jobs: list[tuple[SchedulingKey, float, int]]) -> None:
    expected = list(range(len(jobs)))
    for mixed in permutations(expected):
        assert [mixed[place] for place in ranked(order, *(jobs[number] for number in mixed))] == expected


@pytest.mark.parametrize("order", ORDERS)
@given(one=states, other=states)
def test_higher_priority_goes_first_in_every_order(
    order: Order, one: tuple[SchedulingKey, float, int], other: tuple[SchedulingKey, float, int]
) -> None:
    if one[0].priority != other[0].priority:
        higher = 0 if one[0].priority > other[0].priority else 1
        assert ranked(order, one, other)[0] == higher


@pytest.mark.parametrize("order", ORDERS)
@given(states, times)
def test_every_two_keys_can_be_compared(order: Order, job: tuple[SchedulingKey, float, int], now: float) -> None:
    found = ranker(order)(*job, now)
    assert all(part == part for part in found), "NaN has no place in an order"
    assert found < NEVER
    assert {
        len(ranker(order)(*other, now))
        for other in (job, (SchedulingKey(1), 1.0, 1), (SchedulingKey(1, 0, 2.0), 1.0, 1))
    } == {len(found)}, "of keys of two lengths, one might be the beginning of the other"


@pytest.mark.parametrize("order", ["shortest", "arrival", "fair"])
@given(one=states, other=states, now=times, later=times)
def test_waiting_alone_never_changes_the_order(
    order: Order,
    one: tuple[SchedulingKey, float, int],
    other: tuple[SchedulingKey, float, int],
    now: float,
    later: float,
) -> None:
    assert ranked(order, one, other, now=now) == ranked(order, one, other, now=later)


@given(deadline=times, work=works)
def test_a_deadline_is_feasible_up_to_the_last_moment(deadline: float, work: float) -> None:
    """Between the jobs without a deadline and those which can meet theirs, time decides, and for good."""
    scheduling_key, free = SchedulingKey(500.0, 0, deadline), SchedulingKey(0.0)
    order = ranker("deadline")
    last = deadline - (1 - ESTIMATE_MARGIN) * work
    moments = [last - 1, last - 0.01, last + 0.01, last + 1]
    firsts = [order(scheduling_key, work, 0, now) < order(free, work, 0, now) for now in moments]
    assert firsts == [True, True, False, False]


# Starvation: a server that works, a bit at a time, on what goes first.


def serve(jobs: list[tuple[float, float]], quantum: float) -> list[tuple[float, int, dict[int, float]]]:
    """Serve (submitted, work) in the order `shortest`; at each turn: the time, who has it, and what all who wait
    have left."""
    order = ranker("shortest")
    arrivals = sorted(range(len(jobs)), key=lambda number: jobs[number][0])
    left: dict[int, float] = {}
    turns = []
    now = 0.0
    while arrivals or left:
        if not left:
            now = max(now, jobs[arrivals[0]][0])
        while arrivals and jobs[arrivals[0]][0] <= now:
            number = arrivals.pop(0)
            left[number] = jobs[number][1]

        def rank(number: int, now: float = now) -> tuple[Rank, int]:
            return order(SchedulingKey(jobs[number][0]), left[number], 0, now), number

        first = min(left, key=rank)
        turns.append((now, first, dict(left)))
        now += quantum
        left[first] -= quantum
        if left[first] <= 1e-9:
            del left[first]
    return turns


@given(
    st.lists(st.tuples(st.integers(0, 800), st.integers(1, 12)), min_size=2, max_size=30),
    st.sampled_from([0.25, 0.5]),
)
def test_a_job_is_overtaken_only_by_those_that_come_soon_after(drawn: list[tuple[int, int]], quantum: float) -> None:
    """As the docstring of `shortest` says: less than left / AGING seconds after it."""
    jobs = [(quarters / 4, quanta * quantum) for quarters, quanta in drawn]
    for _, first, left in serve(jobs, quantum):
        for waits, work in left.items():
            assert jobs[first][0] <= jobs[waits][0] + work / AGING + 1e-6


@pytest.mark.parametrize("work", [0.5, 1.0, 2.0])
def test_however_many_short_jobs_come_a_long_one_gets_its_turn(work: float) -> None:
    """Short ones come without end, each as soon as the one before it can be done."""
    short = 0.25
    jobs = [(0.0, work)] + [(short * number, short) for number in range(int(2 * work / AGING / short))]
    turns = [now for now, first, _ in serve(jobs, short) if first == 0]
    last = (work - short) / AGING + short
    """What comes later than this goes behind it; what has come before it is done by then."""
    assert turns[0] <= last + 1e-6
    assert turns[0] > 0.9 * last - 2 * short, "or else this is not the order of least work at all"
    between = [after - before for before, after in pairwise(turns)]
    assert all(pause <= short + 1e-6 for pause in between), "the less it has left, the fewer go before it"
